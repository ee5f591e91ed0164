package replication

import (
	"bytes"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
)

// Limits of what is on the way. Window lets a link of 200 ms and 80 MB/s be filled by one stream; what lies beyond it stays in the
// origin's log, which is where the bound on its growth is.
const (
	BatchBytes = 256 << 10 // of a batch before compression, about
	Window     = 16 << 20  // bytes of one stream that are on the way and not applied, at most
	PeerWindow = 64 << 20  // of all streams from one peer
	MinWindow  = 16 << 10  // of one stream, however many there are: none is shut out
	SkipAfter  = 4096      // changes of other regions that a follower's cursor may lag behind
)

// Share is the window of each of so many streams from one peer. A stream may exceed it by the rest of a batch, and that by one change.
func Share(streams int) uint64 {
	return uint64(min(max(PeerWindow/max(streams, 1), MinWindow), Window))
}

// Feed is the origin's end of a stream: what to send next. It sends no more than the follower has given credit for.
type Feed struct {
	sent  uint64 // read up to here; Invariant: last <= sent
	last  uint64 // the end of the last batch, or where the follower began
	bytes uint64 // of all batches sent, as Batch.Size counts them
	limit uint64 // of bytes; Invariant: never falls
	// Read, if not nil, is told of each batch as the log gave it, before it is combined: for those who check what is shipped.
	Read func(Batch)

	shown  Progress // the last progress sent
	showed bool
}

// NewFeed returns a Feed for a follower that has applied everything up to seq, and gives credit for so many bytes.
func NewFeed(seq, limit uint64) *Feed { return &Feed{sent: seq, last: seq, limit: limit} }

// Next tells from where to read on, and whether there is credit left.
func (f *Feed) Next() (after uint64, ok bool) {
	return f.sent, f.bytes < f.limit || mutant.On(mutant.CreditIgnored)
}

// After is what the next batch says that it comes behind: the batch before it. What was skipped between
// them was other regions', and the follower has not heard of it.
func (f *Feed) After() uint64 { return f.last }

// Sent notes that a batch has been sent.
func (f *Feed) Sent(b Batch) {
	f.sent, f.last = b.Seq, b.Seq
	f.bytes += b.Size()
}

// Skipped notes that the log up to seq holds nothing to send.
func (f *Feed) Skipped(seq uint64) { f.sent = max(f.sent, seq) }

// Acked returns what of a follower's word that it has applied everything up to seq can be true.
func (f *Feed) Acked(seq uint64) uint64 { return min(seq, f.sent) }

// Credit notes that the follower takes so many bytes in all since the stream began.
func (f *Feed) Credit(limit uint64) { f.limit = max(f.limit, limit) }

// Pump reads the log once and sends what it gives: a batch, and the progress when all that it covers has been
// sent. It tells whether there is more to read at once; otherwise the caller waits for news of the log or for
// credit.
func (f *Feed) Pump(log Log, batch func(Batch) error, progress func(Progress) error) (more bool, err error) {
	after, room := f.Next()
	if !room {
		return false, nil
	}
	b, p, err := log.Read(after, int(min(BatchBytes, max(1, int64(f.limit)-int64(f.bytes)))))
	if err != nil {
		return false, err
	}
	if mutant.On(mutant.ProgressFirst) {
		progress(Progress{Seq: f.last, Clock: p.Clock, Applied: p.Applied, After: f.last, Range: p.Range})
	}
	if len(b.Changes) > 0 {
		b.After = f.After()
		if f.Read != nil {
			f.Read(b)
		}
		if b.Changes, err = combined(b.Changes); err != nil {
			return false, err
		}
		if err := batch(b); err != nil {
			return false, err
		}
		f.Sent(b)
	} else {
		f.Skipped(p.Seq)
	}
	// Progress holds for what has been sent by now only when the batch reaches up to it.
	if after, _ := f.Next(); after < p.Seq {
		return true, nil
	}
	p.After = f.After()
	if f.Shows(p) {
		return false, progress(p)
	}
	return false, nil
}

// combined returns changes that stand for those given: of several to one item as few as will do.
func combined(changes []Change) ([]Change, error) {
	out := make([]Change, 0, len(changes))
	last := make(map[string]int, len(changes)) // key -> its last change in out
	for _, c := range changes {
		if i, ok := last[string(c.Key)]; ok {
			delta, ok, err := crdt.Combine(out[i].Delta, c.Delta)
			if err != nil {
				return nil, err
			}
			if ok {
				out[i].Delta = delta
				continue
			}
		}
		last[string(c.Key)] = len(out)
		out = append(out, c)
	}
	return out, nil
}

// Shows tells whether a progress says more than the last one sent, and takes it for sent.
func (f *Feed) Shows(p Progress) bool {
	if f.showed && p.Seq == f.shown.Seq && p.Clock == f.shown.Clock && bytes.Equal(p.End, f.shown.End) && len(p.Applied) == len(f.shown.Applied) {
		same := true
		for region, h := range p.Applied {
			same = same && f.shown.Applied[region] == h
		}
		if same {
			return false
		}
	}
	f.shown, f.showed = p, true
	return true
}
