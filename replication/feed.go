package replication

import (
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
)

// Limits of a stream. The window lets a link of 200 ms and 1 Gb/s be filled; what lies beyond it stays in
// the origin's log, which is where the bound on its growth is.
const (
	BatchBytes = 256 << 10 // of a batch before compression, about
	Window     = 16 << 20  // bytes on the way and not acknowledged, at most
	SkipAfter  = 4096      // changes of other regions that a follower's cursor may lag behind
)

// Feed is the origin's end of a stream: what to send next. It keeps at most Window bytes on the way.
type Feed struct {
	sent  uint64 // read up to here; Invariant: acked <= sent, last <= sent
	last  uint64 // the end of the last batch, or where the follower began
	acked uint64
	onWay []flight // in order of seq
	bytes int      // Invariant: the sum of onWay's sizes
	// Read, if not nil, is told of each batch as the log gave it, before it is combined: for those who check what is shipped.
	Read func(Batch)

	shown  Progress // the last progress sent
	showed bool
}

type flight struct {
	seq  uint64
	size int
}

// NewFeed returns a Feed for a follower that has applied everything up to seq.
func NewFeed(seq uint64) *Feed { return &Feed{sent: seq, last: seq, acked: seq} }

// Next tells from where to read on, and whether there is room for more on the way.
func (f *Feed) Next() (after uint64, ok bool) { return f.sent, f.bytes < Window }

// After is what the next batch says that it comes behind: the batch before it. What was skipped between
// them was other regions', and the follower has not heard of it.
func (f *Feed) After() uint64 { return f.last }

// Sent notes that a batch of the given size has been sent.
func (f *Feed) Sent(b Batch, size int) {
	f.sent, f.last = b.Seq, b.Seq
	f.onWay = append(f.onWay, flight{b.Seq, size})
	f.bytes += size
}

// Skipped notes that the log up to seq holds nothing to send.
func (f *Feed) Skipped(seq uint64) { f.sent = max(f.sent, seq) }

// Acked notes that the follower has applied everything up to seq.
func (f *Feed) Acked(seq uint64) {
	f.acked = max(f.acked, min(seq, f.sent))
	n := 0
	for n < len(f.onWay) && f.onWay[n].seq <= f.acked {
		f.bytes -= f.onWay[n].size
		n++
	}
	f.onWay = append(f.onWay[:0], f.onWay[n:]...)
}

// Pump reads the log once and sends what it gives: a batch, and the progress when all that it covers has been
// sent. It tells whether there is more to read at once; otherwise the caller waits for news of the log or for
// an acknowledgement. batch returns how many bytes are on the way.
func (f *Feed) Pump(log Log, batch func(Batch) (int, error), progress func(Progress) error) (more bool, err error) {
	after, room := f.Next()
	if !room {
		return false, nil
	}
	b, p, err := log.Read(after, BatchBytes)
	if err != nil {
		return false, err
	}
	if mutant.On(mutant.ProgressFirst) {
		progress(Progress{Seq: f.last, Clock: p.Clock, Applied: p.Applied, After: f.last})
	}
	if len(b.Changes) > 0 {
		b.After = f.After()
		if f.Read != nil {
			f.Read(b)
		}
		if b.Changes, err = combined(b.Changes); err != nil {
			return false, err
		}
		size, err := batch(b)
		if err != nil {
			return false, err
		}
		f.Sent(b, size)
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
	if f.showed && p.Seq == f.shown.Seq && p.Clock == f.shown.Clock && len(p.Applied) == len(f.shown.Applied) {
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
