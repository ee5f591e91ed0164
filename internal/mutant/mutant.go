// Package mutant owns the bugs that are planted to test the tests: each is one line in production code, behind On. Without the
// build tag mutants On is a constant false, and the compiler takes the line out. With it, one of them can be switched on, and
// `make mutants` shows that a check finds it.
package mutant

// Name names a planted bug. What it breaks, and what is to find it, stands in Planted.
type Name string

// In region/group.
const (
	AckBeforeCommit      Name = "ack-before-commit"
	AckUnknown           Name = "ack-unknown"
	ProposeTwice         Name = "propose-twice"
	LateApplied          Name = "late-applied"
	ProposalTwice        Name = "proposal-twice"
	SendBeforeLog        Name = "send-before-log"
	StaleLeader          Name = "stale-leader"
	ReadBeforeApply      Name = "read-before-apply"
	TruncateApplied      Name = "truncate-applied"
	MembersForgotten     Name = "members-forgotten"
	RemovedFirst         Name = "removed-first"
	SuspendedAnswers     Name = "suspended-answers"
	VoteLetGo            Name = "vote-let-go"
	FoundedAgain         Name = "founded-again"
	ClearedEarly         Name = "cleared-early"
	OldAckCounts         Name = "old-ack-counts"
	OldSnapshotTaken     Name = "old-snapshot-taken"
	SnapshotKeepsRows    Name = "snapshot-keeps-rows"
	SnapshotPieceMissing Name = "snapshot-piece-missing"
	SnapshotsMixed       Name = "snapshots-mixed"
	BlankVotes           Name = "blank-votes"
	SleepsOn             Name = "sleeps-on"
	SleepsTooSoon        Name = "sleeps-too-soon"
	AuditLate            Name = "audit-late"
	DivergedGoesOn       Name = "diverged-goes-on"
	HandedBack           Name = "handed-back"
	SnapshotPastGap      Name = "snapshot-past-gap"
)

// In storage and storage/raftlog.
const (
	SkipSync         Name = "skip-sync"
	VoteNotPersisted Name = "vote-not-persisted"
	FrameSumIgnored  Name = "frame-sum-ignored"
	DirNotSynced     Name = "dir-not-synced"
	ValueSumIgnored  Name = "value-sum-ignored"
	WitnessIgnored   Name = "witness-ignored"
)

// In region/partition and region.
const (
	ClockNotPersisted  Name = "clock-not-persisted"
	StampProposed      Name = "stamp-proposed"
	DropTombstone      Name = "drop-tombstone"
	MergeStale         Name = "merge-stale"
	MergeSkipsDelta    Name = "merge-skips-delta"
	CursorNotStored    Name = "cursor-not-stored"
	IndexRowKept       Name = "index-row-kept"
	IndexNotMerged     Name = "index-not-merged"
	ReadPastRun        Name = "read-past-run"
	DraftNotKept       Name = "draft-not-kept"
	ChildUnfolded      Name = "child-unfolded"
	ChildClockBehind   Name = "child-clock-behind"
	MovedTaken         Name = "moved-taken"
	RowsTwice          Name = "rows-twice"
	CutNotFlushed      Name = "cut-not-flushed"
	ClosedUntrimmed    Name = "closed-untrimmed"
	EndNotRestored     Name = "end-not-restored"
	AbsorbedEarly      Name = "absorbed-early"
	AbsorbedUnflushed  Name = "absorbed-unflushed"
	ReopenedLate       Name = "reopened-late"
	ClosedLate         Name = "closed-late"
	CutOffUnknown      Name = "cut-off-unknown"
	AheadAgain         Name = "ahead-again"
	ChildFirst         Name = "child-first"
	AppliedOneTooLow   Name = "applied-one-too-low"
	StableNotSaid      Name = "stable-not-said"
	TrimUnfolded       Name = "trim-unfolded"
	EchoLoop           Name = "echo-loop"
	InstanceOfNode     Name = "instance-of-node"
	IdentityEachStart  Name = "identity-each-start"
	NobodyTold         Name = "nobody-told"
	ConflictsForgotten Name = "conflicts-forgotten"
	PartSaysAll        Name = "part-says-all"
	CursorEarly        Name = "cursor-early"
	ClocksApart        Name = "clocks-apart"
	RunLeftOut         Name = "run-left-out"
	FencedTaken        Name = "fenced-taken"
	NotMadeAgain       Name = "not-made-again"
	WholeNotRelayed    Name = "whole-not-relayed"
	OldDiskTaken       Name = "old-disk-taken"
	WriteUnasked       Name = "write-unasked"
	SlowGivenUp        Name = "slow-given-up"
	GivenUpAlone       Name = "given-up-alone"
	RemovedUnfenced    Name = "removed-unfenced"
	NotRecalled        Name = "not-recalled"
	SplitOffForgotten  Name = "split-off-forgotten"
	IndexUnfilled      Name = "index-unfilled"
	NoTrace            Name = "no-trace"
	TraceIgnored       Name = "trace-ignored"
	TracesGone         Name = "traces-gone"
	DeleteNotMet       Name = "delete-not-met"
)

// In crdt.
const (
	TieByArrival  Name = "tie-by-arrival"
	OlderWins     Name = "older-wins"
	CountTwice    Name = "count-twice"
	SeenNotLifted Name = "seen-not-lifted"
	RemoveUnseen  Name = "remove-unseen"
	ExpireUnseen  Name = "expire-unseen"
	ExpiryAlone   Name = "expiry-alone"

	HotNeverTrimmed Name = "hot-never-trimmed"
	TotalTrimmed    Name = "total-trimmed"
)

// In replication, replication/transport and node.
const (
	FoldEarly            Name = "fold-early"
	StableWithoutMember  Name = "stable-without-member"
	StableWithoutApplied Name = "stable-without-applied"
	StableOfOneStream    Name = "stable-of-one-stream"
	ProgressFirst        Name = "progress-first"
	ProgressPastGap      Name = "progress-past-gap"
	GapAccepted          Name = "gap-accepted"
	MergedBackward       Name = "merged-backward"
	LacksIgnored         Name = "lacks-ignored"
	JoinPastGap          Name = "join-past-gap"
	ResumeTooFar         Name = "resume-too-far"
	AckTooFar            Name = "ack-too-far"
	SettledAlone         Name = "settled-alone"
	LeftForgotten        Name = "left-forgotten"
	FoldUnsettled        Name = "fold-unsettled"
	TrimUnacked          Name = "trim-unacked"
	FutureApplied        Name = "future-applied"
	WireSumIgnored       Name = "wire-sum-ignored"
	DigestsAgree         Name = "digests-agree"
	ReachIgnored         Name = "reach-ignored"
	CreditIgnored        Name = "credit-ignored"
	SeedFromLater        Name = "seed-from-later"
	SeedSkips            Name = "seed-skips"
)

// In backup and api/sigv4.
const (
	ChunkHashIgnored Name = "chunk-hash-ignored"
	ManifestFirst    Name = "manifest-first"
	LastChunkDropped Name = "last-chunk-dropped"
	TargetUnsigned   Name = "target-unsigned"
	BodyNotHashed    Name = "body-not-hashed"
)
