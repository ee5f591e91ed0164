//go:build mutants

package mutant

// Bug is one planted bug.
type Bug struct {
	Name   Name
	Breaks string // what is wrong when it is on
	Check  string // what is meant to find it
	// Package and Test name the test that finds what the simulator, by its nature, does not come across; "" is the simulator.
	Package, Test string
}

// Planted are all of them, by the package that they are in.
var Planted = []Bug{
	{Name: AckBeforeCommit, Breaks: "a proposal is answered when its node has written its log, before a quorum has the entry", Check: "acknowledged writes are among the changes; conditions hold"},
	{Name: AckUnknown, Breaks: "a proposal of which nothing is heard is answered as done", Check: "acknowledged writes are among the changes; registers are linearizable"},
	{Name: ProposeTwice, Breaks: "proposals under way are proposed anew when another node leads", Check: "nothing takes effect twice"},
	{Name: LateApplied, Breaks: "an entry has its effect in a later term than the one it was proposed for", Check: "nothing takes effect twice", Package: "region/group", Test: "TestAProposalUnderWayIsCarriedOutOnceByTheNextLeader"},
	{Name: ProposalTwice, Breaks: "a proposal handed to the leader may be delivered twice", Check: "nothing takes effect twice"},
	{Name: SendBeforeLog, Breaks: "promises to other nodes are sent before the log is durable", Check: "Raft: no committed entry is missing"},
	{Name: StaleLeader, Breaks: "who believes to lead answers strong reads without asking", Check: "registers are linearizable"},
	{Name: ReadBeforeApply, Breaks: "a strong read does not wait until as much is applied as was committed", Check: "registers are linearizable"},
	{Name: TruncateApplied, Breaks: "the log is cut to what is applied, durable or not", Check: "a node opens its own data"},
	{Name: MembersForgotten, Breaks: "that a change of a group's members is committed is not durable when it takes effect", Check: "two of four nodes elect nobody", Package: "region/group", Test: "TestTwoOfFourDoNotElectAfterACrashThoughTheyBeganAsTwoOfThree"},
	{Name: SnapshotKeepsRows, Breaks: "a snapshot is installed over the old rows", Check: "a region's replicas are equal, row by row"},
	{Name: SnapshotPieceMissing, Breaks: "a snapshot's last piece is taken though one before it has not come", Check: "a follower ends with the names of the leader", Package: "region/group", Test: "TestASnapshotArrivesWholeWhateverHappensOnTheWay"},
	{Name: BlankVotes, Breaks: "a replica that holds nothing of a group votes in it", Check: "it does not answer", Package: "region/group", Test: "TestAReplicaThatKnowsOfNoMembersDoesNotVote"},
	{Name: SleepsOn, Breaks: "a sleeping group is not woken when a node of it is gone", Check: "it has a leader again", Package: "region/group", Test: "TestSleepingGroupsElectWhenTheirLeaderIsGone"},
	{Name: SleepsTooSoon, Breaks: "a group sleeps though a follower lacks what it has", Check: "it does not sleep", Package: "region/group", Test: "TestAGroupDoesNotSleepWhileAFollowerLacksWhatItHas"},
	{Name: HandedBack, Breaks: "groups are handed over for any difference in who leads how many", Check: "who leads stays", Package: "region/group", Test: "TestLeadersAreSpreadAndThenStay"},
	{Name: SnapshotsMixed, Breaks: "a snapshot goes on where another had stopped", Check: "a follower ends with the names of the leader", Package: "region/group", Test: "TestASnapshotArrivesWholeWhateverHappensOnTheWay"},
	{Name: SnapshotPastGap, Breaks: "a piece of a snapshot is taken wherever it stands", Check: "a follower ends with the names of the leader", Package: "region/group", Test: "TestASnapshotArrivesWholeWhateverHappensOnTheWay"},

	{Name: SkipSync, Breaks: "the log is not synced", Check: "acknowledged writes are among the changes"},
	{Name: VoteNotPersisted, Breaks: "a node forgets whom it voted for", Check: "a term has one leader"},
	{Name: FrameSumIgnored, Breaks: "the checksum of a frame of the log is not checked", Check: "flipped bits in the log are found", Package: "storage/raftlog", Test: "TestFlippedBitIsDetectedOrHarmless"},
	{Name: DirNotSynced, Breaks: "the name of a new segment is not made durable", Check: "a power cut at every operation", Package: "test/crash", Test: "TestPowerCutAtEveryOperationLosesNothingAcknowledged"},
	{Name: ValueSumIgnored, Breaks: "the checksum of a stored value is not checked", Check: "values that were not written are corrupt", Package: "storage", Test: "TestBytesThatWereNotWrittenAreCorruption"},
	{Name: WitnessIgnored, Breaks: "Pebble's MANIFEST is not held against its witness", Check: "a store whose MANIFEST is damaged is refused", Package: "storage", Test: "TestARefusedStoreKeepsTheEvidence"},

	{Name: ClockNotPersisted, Breaks: "after a restart the clock begins with the wall clock", Check: "stamps follow the order of acknowledgement"},
	{Name: StampProposed, Breaks: "a write keeps the stamp proposed, though the clock is past it", Check: "stamps follow the order of acknowledgement"},
	{Name: DropTombstone, Breaks: "a delete leaves no record", Check: "what is shown is the merge of all changes"},
	{Name: MergeStale, Breaks: "a late repetition of what was folded away is merged", Check: "a delta from before the fold is ignored", Package: "region/partition", Test: "TestADeltaFromBeforeTheItemWasFoldedAwayIsIgnored"},
	{Name: MergeSkipsDelta, Breaks: "the last of several deltas in a batch is not merged", Check: "regions come to be equal"},
	{Name: CursorNotStored, Breaks: "how far a stream was merged is not stored with the merge", Check: "no region has to be seeded again"},
	{Name: IndexRowKept, Breaks: "an update leaves the old index row", Check: "the index is what its items make"},
	{Name: IndexNotMerged, Breaks: "a merge leaves the index as it was", Check: "the index is what its items make"},
	{Name: ReadPastRun, Breaks: "a command does not see what commands before it in the same run have written", Check: "registers are linearizable"},
	{Name: AppliedOneTooLow, Breaks: "the applied index is stored one too low", Check: "nothing takes effect twice"},
	{Name: StableNotSaid, Breaks: "a write does not say that it had seen what is folded away", Check: "what is shown is the merge of all changes"},
	{Name: TrimUnfolded, Breaks: "the change log is cut beyond what is folded", Check: "everything folds"},
	{Name: EchoLoop, Breaks: "other regions' changes are shipped on as one's own", Check: "a change is shipped by its origin alone"},
	{Name: InstanceOfNode, Breaks: "each node has its own word for which instance the region is", Check: "no region has to be seeded again"},
	{Name: IdentityEachStart, Breaks: "a node stamps as another actor after each start", Check: "nothing takes effect twice"},
	{Name: NobodyTold, Breaks: "streams are not told that the log has grown", Check: "regions come to be equal"},
	{Name: CursorEarly, Breaks: "how far a stream has come is said before all partitions have what came", Check: "a stream is further once all partitions have the batch", Package: "region", Test: "TestAStreamIsFurtherOnlyOnceAllPartitionsHaveTheBatch"},
	{Name: ClocksApart, Breaks: "the clock of a partition that rests is not lifted", Check: "everything folds"},
	{Name: RunLeftOut, Breaks: "a page of an index ends where the first of its partitions' rows do", Check: "a page is the same over any partitions", Package: "region", Test: "TestAPageIsTheSameOverAnyPartitions"},
	{Name: ConflictsForgotten, Breaks: "a lost write leaves no conflict record", Check: "an acknowledged write that lost is on record", Package: "region/partition", Test: "TestConflictsAreKeptWhereTheLosingWriteWasAcknowledged"},

	{Name: FencedTaken, Breaks: "what an incarnation ships that was given up is still merged", Check: "nothing of it is taken any more", Package: "region/partition", Test: "TestNothingIsTakenAnyMoreOfAnIncarnationThatWasGivenUp"},
	{Name: NotMadeAgain, Breaks: "what an incarnation had written that was given up is not made again", Check: "acknowledged writes are among the changes"},
	{Name: OldDiskTaken, Breaks: "a region that has lost writes which others have had goes on", Check: "what is shown is the merge of all changes"},
	{Name: WriteUnasked, Breaks: "a region takes writes before it has asked the others whether its disk is an old one", Check: "counters add up"},
	{Name: NotRecalled, Breaks: "conflict records go with the incarnation that kept them", Check: "they are kept", Package: "test/sim", Test: "TestConflictRecordsOutliveTheIncarnationThatKeptThem"},
	{Name: RemovedUnfenced, Breaks: "what a region ships that was removed by force is still merged", Check: "what is shown is the merge of all changes"},
	{Name: SlowGivenUp, Breaks: "a region within reach is given up as soon as the change logs are full", Check: "it is waited for", Package: "test/sim", Test: "TestARegionWithinReachIsWaitedForBeyondTheBound"},
	{Name: GivenUpAlone, Breaks: "regions are given up by one that is alone", Check: "neither side of a cut may, or one", Package: "test/sim", Test: "TestARegionAloneGivesNobodyUpThoughItsChangeLogsAreFull"},
	{Name: SplitOffForgotten, Breaks: "a region on an old disk is not asked about a partition that was split off since", Check: "it begins anew", Package: "test/sim", Test: "TestARegionOnAnOldDiskNoticesThatAPartitionWasSplitOff"},
	{Name: IndexUnfilled, Breaks: "an index that another region has made is not filled here", Check: "the index is what its items make"},
	{Name: WholeNotRelayed, Breaks: "what came as whole states is not relayed of a region that was given up", Check: "a relay brings them", Package: "region", Test: "TestWhatCameAsAWholeStateIsRelayed"},

	{Name: NoTrace, Breaks: "an item that is folded away leaves no trace", Check: "a delete that one region has lost is told from an item that another has", Package: "region/partition", Test: "TestADeletedItemThatAnotherStillHasDoesNotComeBack"},
	{Name: TraceIgnored, Breaks: "the trace of a deleted item is not looked at when another region still has it", Check: "likewise", Package: "region/partition", Test: "TestADeletedItemThatAnotherStillHasDoesNotComeBack"},

	{Name: DraftNotKept, Breaks: "what is written to items that are in the draft of a partition to come is not written there", Check: "the index is what its items make; counts are right"},
	{Name: ChildUnfolded, Breaks: "the change log of a partition that is cut off does not begin with what is to be folded", Check: "everything folds"},
	{Name: ChildClockBehind, Breaks: "the clock of a partition that is cut off begins at 0", Check: "stamps follow the order of acknowledgement"},
	{Name: MovedTaken, Breaks: "a partition takes writes to items that were cut off", Check: "writes under way go to what was cut off", Package: "region", Test: "TestWritesUnderWayGoToWhatWasCutOff"},
	{Name: CutNotFlushed, Breaks: "the log of a partition that is cut off is durable before what it begins with", Check: "a node opens its own data"},
	{Name: RowsTwice, Breaks: "index rows that are left of what was cut off are shown", Check: "a page is the same over any partitions", Package: "region", Test: "TestAPageIsTheSameWhileAPartitionIsCut"},
	{Name: ChildFirst, Breaks: "what was cut off is followed before all is applied that was written before", Check: "regions come to be equal"},
	{Name: CutOffUnknown, Breaks: "a partition that was cut off does not count for what is stable until it is known", Check: "what is cut off counts before it is known", Package: "replication", Test: "TestWhatWasCutOffCountsBeforeItIsKnown"},

	{Name: TieByArrival, Breaks: "of writes with one time, the first to arrive wins", Check: "regions come to be equal"},
	{Name: OlderWins, Breaks: "of two writes that had not seen each other the one that is here already wins, not the later", Check: "regions come to be equal"},
	{Name: CountTwice, Breaks: "a fold takes up a counter's sum and keeps it too", Check: "counters add up"},
	{Name: SeenNotLifted, Breaks: "a record that has joined a delta does not say so", Check: "what is shown is the merge of all changes"},
	{Name: RemoveUnseen, Breaks: "removing an element also removes what others add at the same time", Check: "elements that nobody could have removed are there"},
	{Name: ExpireUnseen, Breaks: "an expiry also takes what it has not seen", Check: "what an expiry cannot have seen is there"},

	{Name: HotNeverFolds, Breaks: "of an item that is written to without a pause nothing is folded", Check: "it does not grow", Package: "crdt", Test: "TestAnItemThatIsWrittenToWithoutAPauseDoesNotGrow"},
	{Name: FoldEarly, Breaks: "what counts as stable is seconds ahead", Check: "what is shown is the merge of all changes"},
	{Name: StableWithoutMember, Breaks: "one member does not count for what is stable", Check: "what is shown is the merge of all changes"},
	{Name: StableWithoutApplied, Breaks: "what members have applied does not count for what is stable", Check: "what is shown is the merge of all changes"},
	{Name: StableOfOneStream, Breaks: "one partition of a member counts for what is stable", Check: "what is shown is the merge of all changes"},
	{Name: ProgressFirst, Breaks: "progress is sent before the batch that it covers", Check: "what is shown is the merge of all changes"},
	{Name: ProgressPastGap, Breaks: "a follower believes a progress behind a gap", Check: "what is shown is the merge of all changes"},
	{Name: MergedBackward, Breaks: "an item's writes of one batch are merged in another order than they came in", Check: "regions come to be equal"},
	{Name: LacksIgnored, Breaks: "an item as it was put is read from its record with attributes that it did not have", Check: "an item told by how it differs is that item", Package: "crdt", Test: "TestAnItemIsToldByHowItDiffersFromAnother"},
	{Name: JoinPastGap, Breaks: "batches are joined though one between them is missing", Check: "batches are joined without a gap", Package: "replication", Test: "TestWhatHasComeMeanwhileIsAppliedAsOne"},
	{Name: GapAccepted, Breaks: "a follower does not look for gaps", Check: "regions come to be equal"},
	{Name: ResumeTooFar, Breaks: "a stream is resumed one change too far", Check: "regions come to be equal"},
	{Name: AckTooFar, Breaks: "an acknowledgement counts for one change more", Check: "no region has to be seeded again"},
	{Name: TrimUnacked, Breaks: "the change log is cut without waiting for acknowledgements", Check: "no region has to be seeded again"},
	{Name: SettledAlone, Breaks: "a region settles what was given up without asking the others for what they have of it", Check: "regions come to be equal"},
	{Name: LeftForgotten, Breaks: "a region that is gone counts no more as soon as one region knows", Check: "a region counts until the others know that it went", Package: "node", Test: "TestARegionThatWentCountsUntilTheOthersKnow"},
	{Name: FoldUnsettled, Breaks: "regions fold past one that they go on without before each has what any has of its writes", Check: "what is shown is the merge of all changes"},
	{Name: FutureApplied, Breaks: "writes stamped in the future are merged at once", Check: "nothing is merged that is stamped too far ahead"},
	{Name: WireSumIgnored, Breaks: "the checksum of a message between regions is not checked", Check: "flipped bits on the wire are found", Package: "test/rot", Test: "TestADamagedMessageIsRefusedOrHarmless"},
	{Name: DigestsAgree, Breaks: "digests of leaves are not held against each other", Check: "copies that were made different are found", Package: "node", Test: "TestCopiesThatWereMadeDifferentAreFoundAndRepaired"},
	{Name: CreditIgnored, Breaks: "an origin sends more than its follower has given credit for", Check: "no more is on the way than there is credit for", Package: "replication", Test: "TestAFeedSendsNoMoreThanItHasCreditFor"},
	{Name: SeedFromLater, Breaks: "a seed that goes on is followed from where its second moment was", Check: "regions come to be equal"},
	{Name: SeedSkips, Breaks: "a seed that goes on leaves an item out", Check: "regions come to be equal"},
	{Name: ReachIgnored, Breaks: "what is on its way counts as missing", Check: "regions find no difference between themselves"},

	{Name: ChunkHashIgnored, Breaks: "a backup's object is not held against its hash", Check: "damaged backups are refused by name", Package: "backup", Test: "TestAnObjectOfAnotherBackupAndOfOneSizeIsRefusedByName"},
	{Name: ManifestFirst, Breaks: "a backup's manifest is written before its objects", Check: "what has a manifest is a whole backup"},
	{Name: LastChunkDropped, Breaks: "a restore leaves the last chunk out", Check: "a backup taken in a healthy world can be restored"},
	{Name: TargetUnsigned, Breaks: "X-Amz-Target need not be signed", Check: "what is not as signed is refused", Package: "api/sigv4", Test: "TestWhatIsNotAsSignedIsRefused"},
	{Name: BodyNotHashed, Breaks: "the client's word for the body's hash is taken", Check: "a changed body is refused", Package: "api/sigv4", Test: "TestChangedBodyIsRefused"},
}
