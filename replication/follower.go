package replication

import (
	"context"
	"fmt"

	"github.com/commutatordb/commutator/internal/mutant"
)

// JoinBytes is from which size on batches that are applied as one take in no other. What is written locally waits while one is applied.
const JoinBytes = 1 << 20

// Follower checks that a stream goes on without a gap. It is the receiver's end of a stream.
//
// What comes while something before it is being applied is joined: batches, each behind the one before it, to one, and the last progress
// behind them. So a stream is as fast as it is applied, however long each command takes to become durable, and yet one command is
// under way at a time: none can take effect without those before it. Source: docs/decisions/0019.
type Follower struct {
	applied uint64 // Invariant: never falls
	bytes   uint64 // of all batches that have been applied or passed over, as Batch.Size counts them
	limit   uint64 // credit given; Invariant: never falls

	// What has come and is to be applied:
	batch    *Batch
	size     uint64 // the batch's
	progress *Progress
	repeated bool // something came again, which the origin has no acknowledgement of
}

// NewFollower returns a Follower that has applied everything up to seq.
func NewFollower(seq uint64) Follower { return Follower{applied: seq} }

// Credit returns how many bytes the origin may have sent in all since the stream began, so that no more than window of them are on
// their way or not applied. What was given is not taken back.
func (f *Follower) Credit(window uint64) uint64 {
	f.limit = max(f.limit, f.bytes+window)
	return f.limit
}

// Applied is the last sequence number applied.
func (f *Follower) Applied() uint64 { return f.applied }

// Next tells whether a batch is to be applied: not one that was, in whole. It returns an error when the
// batch does not continue the stream; then the stream must be resumed from Applied.
func (f *Follower) Next(b Batch) (bool, error) {
	switch {
	case b.Seq < b.After:
		return false, fmt.Errorf("replication: a batch from %d back to %d", b.After, b.Seq)
	case b.After > f.applied && !mutant.On(mutant.GapAccepted):
		return false, fmt.Errorf("replication: a gap: applied %d, the next batch begins behind %d", f.applied, b.After)
	case b.Seq <= f.applied:
		return false, nil
	}
	return true, nil
}

// Done notes that a batch has been applied.
func (f *Follower) Done(b Batch) { f.applied = max(f.applied, b.Seq) }

// Batch takes a batch that has come, to be applied by Apply, unless it was applied before. It returns false, and has not taken it, when
// Apply has to be called first.
func (f *Follower) Batch(b Batch) bool {
	size := b.Size()
	switch wanted, err := f.Next(b); {
	case f.batch != nil && (b.Seq < b.After || b.After != f.batch.Seq && !mutant.On(mutant.JoinPastGap) || f.size >= JoinBytes):
		return false
	case f.batch != nil:
		f.batch.Seq, f.batch.Changes = b.Seq, append(f.batch.Changes, b.Changes...)
	case err == nil && !wanted:
		f.bytes, f.repeated = f.bytes+size, true
		return true
	default: // of an error Apply tells
		f.batch = &b
	}
	f.size += size
	return true
}

// Progress takes a progress that has come, in place of those before it, of which it says all.
func (f *Follower) Progress(p Progress) { f.progress = &p }

// Apply applies what has come. It tells whether the origin is to hear of Applied and of new credit.
func (f *Follower) Apply(ctx context.Context, sink Sink) (tell bool, err error) {
	batch, size, progress := f.batch, f.size, f.progress
	tell = f.repeated || batch != nil
	f.batch, f.size, f.progress, f.repeated = nil, 0, nil, false
	if batch != nil {
		if _, err := f.Next(*batch); err != nil {
			return false, err
		}
		if err := sink.Apply(ctx, *batch); err != nil {
			return false, err
		}
		f.Done(*batch)
		f.bytes += size
	}
	if progress != nil {
		moved, err := f.heard(ctx, sink, *progress)
		if err != nil {
			return false, err
		}
		tell = tell || moved
	}
	return tell, nil
}

// heard takes note of a progress, behind every batch that it covers. It tells whether that has moved Applied. A long run of other regions' changes is passed over by moving the cursor alone: the origin
// keeps its log up to what is acknowledged. It returns an error when a batch that the progress covers has not
// been applied: believed, it would make stable what is still to come.
func (f *Follower) heard(ctx context.Context, sink Sink, p Progress) (moved bool, err error) {
	if p.After > f.applied && !mutant.On(mutant.GapAccepted) && !mutant.On(mutant.ProgressPastGap) {
		return false, fmt.Errorf("replication: a gap: applied %d, a progress comes behind %d", f.applied, p.After)
	}
	if moved = p.Seq > f.applied+SkipAfter; moved {
		b := Batch{After: f.applied, Seq: p.Seq}
		if err := sink.Apply(ctx, b); err != nil {
			return false, err
		}
		f.Done(b)
	}
	sink.Progress(p)
	return moved, nil
}
