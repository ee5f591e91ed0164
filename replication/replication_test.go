package replication

import (
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
)

func TestAFeedKeepsAWindowOnTheWay(t *testing.T) {
	f := NewFeed(10)
	if after, ok := f.Next(); after != 10 || !ok {
		t.Fatalf("a new feed: %d, %v", after, ok)
	}
	f.Sent(Batch{After: 10, Seq: 15}, Window/2)
	f.Sent(Batch{After: 15, Seq: 20}, Window/2-1)
	if after, ok := f.Next(); after != 20 || !ok {
		t.Fatalf("a byte below the window: %d, %v", after, ok)
	}
	f.Sent(Batch{After: 20, Seq: 21}, 1)
	if _, ok := f.Next(); ok {
		t.Fatal("room beyond the window")
	}
	f.Acked(14)
	if _, ok := f.Next(); ok {
		t.Fatal("room from a batch that is applied in part")
	}
	f.Acked(15)
	f.Acked(3) // an old one, late
	if after, ok := f.Next(); after != 21 || !ok {
		t.Fatalf("with the first batch acknowledged: %d, %v", after, ok)
	}
}

func TestAFeedPassesOverWhatIsNotItsOwn(t *testing.T) {
	f := NewFeed(10)
	f.Skipped(30)
	f.Skipped(20)
	if after, ok := f.Next(); after != 30 || !ok {
		t.Fatalf("skipped to 30: %d, %v", after, ok)
	}
	f.Sent(Batch{After: 30, Seq: 40}, Window)
	f.Acked(1 << 60) // nobody can have applied what was never sent
	if after, ok := f.Next(); after != 40 || !ok || f.acked != 40 {
		t.Fatalf("acknowledged too much: next %d, %v, acknowledged %d", after, ok, f.acked)
	}
}

func TestTheFeedsBytesAreThoseOnTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := NewFeed(0)
		sizes := map[uint64]int{}
		seq, acked := uint64(0), uint64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				after, _ := f.Next()
				if after != seq {
					t.Fatalf("reads on behind %d, sent %d", after, seq)
				}
				seq += rapid.Uint64Range(1, 5).Draw(t, "changes")
				sizes[seq] = rapid.IntRange(0, Window/2).Draw(t, "size")
				f.Sent(Batch{After: after, Seq: seq}, sizes[seq])
			case 1:
				seq += rapid.Uint64Range(0, 3).Draw(t, "skipped")
				f.Skipped(seq)
			default:
				ack := rapid.Uint64Range(0, seq+2).Draw(t, "ack")
				f.Acked(ack)
				acked = max(acked, min(ack, seq))
			}
			want := 0
			for s, size := range sizes {
				if s > acked {
					want += size
				}
			}
			if _, ok := f.Next(); f.bytes != want || ok != (want < Window) || f.acked > f.sent {
				t.Fatalf("%d bytes on the way, want %d; room %v; acked %d, sent %d", f.bytes, want, ok, f.acked, f.sent)
			}
		}
	})
}

func TestAFeedShowsProgressOnlyWhenItSaysMore(t *testing.T) {
	f := NewFeed(0)
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
}

func TestAFollowerRefusesProgressWhoseBatchesItLacks(t *testing.T) {
	f := NewFollower(10)
	s := &countingSink{}
	if _, err := f.Progress(t.Context(), s, Progress{Seq: 12, After: 11}); err == nil || s.progress > 0 {
		t.Errorf("a progress that comes behind a batch that is missing: %v, heard %d", err, s.progress)
	}
	for _, p := range []Progress{{Seq: 12, After: 10}, {Seq: 9, After: 5}} {
		if moved, err := f.Progress(t.Context(), s, p); moved || err != nil {
			t.Errorf("%+v: %v, %v", p, moved, err)
		}
	}
	moved, err := f.Progress(t.Context(), s, Progress{Seq: 11 + SkipAfter, After: 10})
	if err != nil || !moved || f.Applied() != 11+SkipAfter || s.applied != 1 || s.progress != 3 {
		t.Errorf("a long run of others' changes: %v, %v, applied %d; the sink: %+v", moved, err, f.Applied(), s)
	}
}

type countingSink struct{ applied, progress int }

func (s *countingSink) Apply(context.Context, Batch) error { s.applied++; return nil }
func (s *countingSink) Progress(Progress)                  { s.progress++ }
