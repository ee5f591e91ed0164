// Package replication owns how one region's change log reaches another: what a stream carries, how far
// each side has come, when a time is stable. It leaves the wire to replication/transport, what a delta
// means to package crdt, and reading and applying to whoever implements Source and Log here: it knows
// neither region nor storage.
//
// Invariants: only changes that a region itself has written are shipped; gaps are found by sequence
// numbers, never by stamps; a Progress covers nothing that was not sent before it on the same stream.
package replication

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/crdt"
)

// Change is one write of the origin's: the item's key and the delta that the write added.
type Change struct {
	Key   []byte // ordered key: table.Key
	Delta []byte // a crdt.Record's encoding
}

// Batch is a run of an origin's own changes with sequence numbers in (After, Seq]. Numbers that are
// missing between were other regions' changes.
type Batch struct {
	After, Seq uint64
	Changes    []Change
}

// Size is how many bytes a batch counts for: its keys and deltas.
func (b Batch) Size() (n uint64) {
	for _, c := range b.Changes {
		n += uint64(len(c.Key) + len(c.Delta))
	}
	return n
}

// Progress says how far an origin has come, behind every change that it covers.
type Progress struct {
	Seq     uint64              // every change of the origin's own up to here was sent before
	Clock   crdt.HLC            // every later write of the origin's has a greater stamp
	Applied map[string]crdt.HLC // by region: the origin has applied all of that region's writes up to here
	SentAt  int64               // by the origin's clock, ns since the Unix epoch
	After   uint64              // the end of the last batch sent before it on this stream, or where the stream began
	Range                       // what the partition has: of other keys Clock and Applied say nothing
}

// Resume is where a stream goes on.
type Resume struct {
	Region    string // who asks
	Table     string // global id
	Instance  uint64 // of the origin, as the asker knows it
	Partition uint64 // of the origin
	Seq       uint64 // the last change applied
	// Clock is the stamp of the newest write up to there, 0 if that is not known.
	Clock crdt.HLC
	// Incarnation is of the asker's replica. One that the origin knows to be given up is refused.
	Incarnation uint16
}

// RelayRequest asks for what a region has of another's writes that may not be everywhere: of one that the regions go on without. The
// answer is as that to a SeedRequest, of whole states and of deltas, in no order.
type RelayRequest struct {
	Region    string // who asks
	Table     string // global id
	Partition uint64 // of whom is asked
	// Of is whose writes, of incarnations before Incarnation. Who is asked has to have shut those out, or it refuses: what it answers is
	// all that it will ever have.
	Of          string
	Incarnation uint16
}

// Tables is what regions tell each other of their global tables.
type Tables struct {
	Region      string
	Instance    uint64
	Definitions [][]byte // table.Definition as JSON
	Format      int      // the newest that the region writes, deltas among it; 0: of before it was said
	// Revision orders the words of one instance: a word that arrives behind one of a greater revision is out of date.
	Revision uint64

	// Ask asks for Had and Begins: the asking region has just started, and its disk may be older than what it last had.
	Ask bool
	// Of the answer: how far the answering region has applied the asker's streams, and where its own change logs begin.
	Had    []Had
	Begins []Begin

	// Of an answer, by the answering region's clock, in ns since the Unix epoch: when the question came, and when it was answered.
	ReceivedAt, AnsweredAt int64
}

// Had says how far a stream was applied: up to which change, and of which stamp the newest was, 0 if that is not known.
type Had struct {
	Table     string // global id
	Partition uint64 // of the stream's origin
	Seq       uint64
	Clock     crdt.HLC
}

// Begin says behind which change a change log begins. What was before every member has.
type Begin struct {
	Table     string // global id
	Partition uint64
	Seq       uint64
}

// Beat is a region's answer to whether it is there. What has changed, streams tell as it happens; a beat tells that they do, and how
// late: of a partition that is not among Behind the asker had applied all of the region's own changes when the answer was given.
type Beat struct {
	Instance               uint64
	ReceivedAt, AnsweredAt int64 // as in Tables
	Behind                 []Behind
}

// Behind is a partition of the answering region's, in which the asker is behind.
type Behind struct {
	Table     string // global id
	Partition uint64
}

// Errors that a Source's region answers, and a follower acts on.
var (
	// ErrTruncated: the log no longer has what was asked for. Seed, then follow.
	ErrTruncated = errors.New("replication: the change log begins later than asked for")
	// ErrInstance: the region is not the one whose log was being followed; it lost its data or was
	// restored. Nothing it says continues what was said before.
	ErrInstance = errors.New("replication: the region is another instance than the one followed")
	// ErrAhead: the log does not have what was had of it. The region has lost changes that others have, and has given, or would give, their
	// numbers to others: nothing may be followed until it is another incarnation, which it makes itself.
	ErrAhead = errors.New("replication: the change log does not have what was had of it: the region has lost changes")
	// ErrNoTable: the origin has no such table or partition, or not yet.
	ErrNoTable = errors.New("replication: no such table or partition here")
	// ErrNotMember: the table has no replica in the region that asks.
	ErrNotMember = errors.New("replication: the table has no replica in that region")
	// ErrStaleMember: the regions have gone on without what asks, or is asked for. Its region has to begin anew.
	ErrStaleMember = errors.New("replication: the other regions have given up that incarnation of the replica")
	// ErrNotYet: the region has not come so far. Ask again.
	ErrNotYet = errors.New("replication: the region has not come so far yet")
	// ErrNotLeader: another node of the region answers for it, or none at present. Ask another, or later.
	ErrNotLeader = errors.New("replication: this node does not answer for its region")
	// ErrRequest: what was asked for is beyond what may be asked for.
	ErrRequest = errors.New("replication: no such thing may be asked for")
)

// Source is what a region offers to others. Its methods, and those of its Logs, return ErrNotLeader at a node that does
// not answer for its region.
type Source interface {
	// Exchange takes over the definitions that are newer than its own and answers with its own.
	Exchange(ctx context.Context, theirs Tables) (Tables, error)
	// Beat answers a region that asks every second.
	Beat(ctx context.Context, region string) (Beat, error)
	// Log opens one partition's change log for a follower. It returns ErrNoTable, ErrInstance or
	// ErrNotMember.
	Log(r Resume) (Log, error)
	// Seed hands the items of a partition, as it stood at one moment at or after the call, to send: see SeedPart. It returns
	// ErrNoTable, ErrInstance or ErrNotMember.
	Seed(ctx context.Context, q SeedRequest, send func(SeedPart) error) error
	// Relay hands all changes that hold writes of a region to send; the first part says how far its streams were applied. It returns
	// ErrNotYet.
	Relay(ctx context.Context, q RelayRequest, send func(SeedPart) error) error
	Copy
}

// Log is one partition's change log as its own region has it.
type Log interface {
	// Read returns the origin's own changes behind after, about maxBytes of them, and the progress that
	// they lead to. At the end of the log the batch is empty. It returns ErrTruncated.
	Read(after uint64, maxBytes int) (Batch, Progress, error)
	// Watch returns a channel that gets a token when there may be more, or more progress, until stop is
	// called.
	Watch() (changed <-chan struct{}, stop func())
	// Gather waits a little behind a batch that had all there was, so that what is written meanwhile goes with the next one: of
	// several writes to one item then one is shipped.
	Gather(ctx context.Context)
	// Acked says that the follower has applied everything up to seq.
	Acked(seq uint64)
}

// Peer is another region, across a wire or in the same process.
type Peer interface {
	// Exchange is Source's.
	Exchange(ctx context.Context, ours Tables) (Tables, error)
	// Beat is Source's.
	Beat(ctx context.Context, region string) (Beat, error)
	// Follow streams a partition's changes to sink until ctx ends or something fails. Each batch is
	// acknowledged when sink.Apply has returned. It returns ErrTruncated, ErrInstance, ErrNoTable,
	// ErrNotMember, ErrNotLeader, or what else ended the stream.
	Follow(ctx context.Context, from Resume, sink Sink) error
	// Seed is Source's, the other way round.
	Seed(ctx context.Context, q SeedRequest, receive func(SeedPart) error) error
	// Relay is Source's, the other way round.
	Relay(ctx context.Context, q RelayRequest, receive func(SeedPart) error) error
	Copy
}

// Sink is where a followed stream goes.
type Sink interface {
	// Apply makes a batch durable before it returns.
	Apply(ctx context.Context, b Batch) error
	// Progress takes note of how far the origin has come; every batch before it has been applied.
	Progress(p Progress)
}

// StreamName names one origin's partition, in one instance of its region, for the cursors that a
// receiver keeps.
func StreamName(region string, instance, partition uint64) string {
	return region + "/" + strconv.FormatUint(instance, 16) + "/" + strconv.FormatUint(partition, 10)
}

// PartitionOf returns the partition that a stream is of, if it is one of a region's instance.
func PartitionOf(stream, region string, instance uint64) (partition uint64, ok bool) {
	id, ok := strings.CutPrefix(stream, region+"/"+strconv.FormatUint(instance, 16)+"/")
	partition, err := strconv.ParseUint(id, 10, 64)
	return partition, ok && err == nil
}
