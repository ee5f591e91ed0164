package replication

import (
	"context"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
)

// sized returns a batch that counts for so many bytes.
func sized(after, seq, size uint64) Batch {
	return Batch{After: after, Seq: seq, Changes: []Change{{Delta: make([]byte, size)}}}
}

// endless is a log of changes of ten bytes each.
type endless struct{ asked []int }

func (l *endless) Read(after uint64, maxBytes int) (Batch, Progress, error) {
	l.asked = append(l.asked, maxBytes)
	b := Batch{After: after, Seq: after}
	for size := 0; size < maxBytes; size += 10 {
		b.Seq++
		b.Changes = append(b.Changes, Change{Key: binary.BigEndian.AppendUint64(nil, b.Seq), Delta: []byte{1, 2}})
	}
	return b, Progress{Seq: 1 << 40}, nil
}
func (*endless) Watch() (<-chan struct{}, func()) { return nil, func() {} }
func (*endless) Gather(context.Context)           {}
func (*endless) Acked(uint64)                     {}

// Goal: however credit is given, what was sent is never more than it and the end of one batch, all that credit allows is sent, and
// both ends count alike.
func TestAFeedSendsNoMoreThanItHasCreditFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		follower := NewFollower(10)
		window := func() uint64 { return rapid.Uint64Range(MinWindow/16, MinWindow).Draw(t, "window") }
		limit := follower.Credit(window())
		f, log := NewFeed(10, limit), &endless{}
		var onWay []Batch
		sent, taken := uint64(0), uint64(0)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "send") {
				more, err := f.Pump(log, func(b Batch) error {
					onWay = append(onWay, b)
					sent += b.Size()
					return nil
				}, func(Progress) error { return nil })
				if err != nil || sent > limit+9 {
					t.Fatalf("%d bytes sent on a credit of %d, %v", sent, limit, err)
				}
				if room := sent < limit; room && !more {
					t.Fatalf("%d bytes sent on a credit of %d, and no more", sent, limit)
				}
			} else if len(onWay) > 0 {
				for n := rapid.IntRange(1, len(onWay)).Draw(t, "together"); n > 0 && follower.Batch(onWay[0]); n-- {
					taken += onWay[0].Size()
					onWay = onWay[1:]
				}
				if _, err := follower.Apply(context.Background(), &noSink{}); err != nil {
					t.Fatal(err)
				}
				w := window()
				now := follower.Credit(w)
				if now < limit || now != max(limit, taken+w) {
					t.Fatalf("credit of %d behind one of %d, with %d taken and a window of %d", now, limit, taken, w)
				}
				limit = now
				f.Credit(limit)
				f.Credit(limit / 2) // an older word, late
			}
		}
	})
}

type noSink struct{}

func (*noSink) Apply(context.Context, Batch) error { return nil }
func (*noSink) Progress(Progress)                  {}

func TestStreamsFromOnePeerShareItsWindow(t *testing.T) {
	for streams, want := range map[int]uint64{0: Window, 1: Window, 4: Window, 8: PeerWindow / 8, 4096: MinWindow, 1 << 20: MinWindow} {
		if got := Share(streams); got != want {
			t.Errorf("of %d: %d bytes, want %d", streams, got, want)
		}
	}
}

func TestAFeedPassesOverWhatIsNotItsOwn(t *testing.T) {
	f := NewFeed(10, Window)
	f.Skipped(30)
	f.Skipped(20)
	if after, ok := f.Next(); after != 30 || !ok {
		t.Fatalf("skipped to 30: %d, %v", after, ok)
	}
	f.Sent(sized(30, 40, Window))
	if after, ok := f.Next(); after != 40 || ok {
		t.Fatalf("without credit: %d, %v", after, ok)
	}
	if got := f.Acked(1 << 60); got != 40 { // nobody can have applied what was never sent
		t.Errorf("acknowledged up to %d", got)
	}
}

func TestAFeedShowsProgressOnlyWhenItSaysMore(t *testing.T) {
	f := NewFeed(0, Window)
	for i, c := range []struct {
		p    Progress
		want bool
	}{
		{Progress{}, true}, // the first, though it says nothing
		{Progress{}, false},
		{Progress{SentAt: 5}, false},
		{Progress{Seq: 1}, true},
		{Progress{Seq: 1, Clock: 7}, true},
		{Progress{Seq: 1, Clock: 7, Applied: map[string]crdt.HLC{"eu-west-1": 3}}, true},
		{Progress{Seq: 1, Clock: 7, Applied: map[string]crdt.HLC{"eu-west-1": 3}, SentAt: 9}, false},
		{Progress{Seq: 1, Clock: 7, Applied: map[string]crdt.HLC{"eu-west-1": 4}}, true},
		{Progress{Seq: 1, Clock: 7, Applied: map[string]crdt.HLC{"us-east-1": 4}}, true},
		{Progress{Seq: 1, Clock: 7}, true}, // a member is gone
		{Progress{Seq: 1, Clock: 7}, false},
	} {
		if got := f.Shows(c.p); got != c.want {
			t.Errorf("%d: %+v: %v", i, c.p, got)
		}
	}
}

func TestAFollowerTakesAStreamWithoutGaps(t *testing.T) {
	for name, c := range map[string]struct {
		b     Batch
		apply bool
		fails bool
	}{
		"the next":                   {Batch{After: 10, Seq: 12}, true, false},
		"a gap":                      {Batch{After: 11, Seq: 12}, false, true},
		"a repetition":               {Batch{After: 5, Seq: 10}, false, false},
		"an old one":                 {Batch{After: 1, Seq: 2}, false, false},
		"one that begins before":     {Batch{After: 5, Seq: 11}, true, false},
		"one that goes back":         {Batch{After: 12, Seq: 11}, false, true},
		"one that goes back, before": {Batch{After: 9, Seq: 3}, false, true},
		"an empty one":               {Batch{After: 10, Seq: 10}, false, false},
	} {
		f := NewFollower(10)
		apply, err := f.Next(c.b)
		if apply != c.apply || (err != nil) != c.fails {
			t.Errorf("%s: %v, %v", name, apply, err)
		}
		if f.Applied() != 10 {
			t.Errorf("%s: applied %d before it is done", name, f.Applied())
		}
		if f.Done(c.b); f.Applied() != max(10, c.b.Seq) {
			t.Errorf("%s: applied %d", name, f.Applied())
		}
	}
}

func TestStreamsOfOneNameAreOne(t *testing.T) {
	if got, want := StreamName("eu-west-1", 255, 7), "eu-west-1/ff/7"; got != want {
		t.Errorf("got %s, want %s: stored cursors bear it", got, want)
	}
	for stream, want := range map[string]uint64{"eu-west-1/ff/7": 7, "eu-west-1/ff/71": 71, "eu-west-1/f/7": 0, "eu-west/ff/7": 0, "eu-west-1/ff": 0} {
		if got, ok := PartitionOf(stream, "eu-west-1", 255); got != want || ok != (want > 0) {
			t.Errorf("%s is of partition %d (%v), want %d", stream, got, ok, want)
		}
	}
}
