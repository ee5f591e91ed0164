package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// memorySink keeps what it is given.
type memorySink struct {
	batches  []Batch
	progress []Progress
	err      error
}

func (s *memorySink) Apply(_ context.Context, b Batch) error {
	if s.err == nil {
		s.batches = append(s.batches, b)
	}
	return s.err
}
func (s *memorySink) Progress(p Progress) { s.progress = append(s.progress, p) }

func numbered(after, seq uint64) Batch {
	b := Batch{After: after, Seq: seq}
	for ; after < seq; after++ {
		b.Changes = append(b.Changes, Change{Key: binary.BigEndian.AppendUint64(nil, after+1), Delta: []byte("delta")})
	}
	return b
}

func TestAFollowerRefusesProgressWhoseBatchesItLacks(t *testing.T) {
	f := NewFollower(10)
	s := &memorySink{}
	f.Progress(Progress{Seq: 12, After: 11})
	if _, err := f.Apply(t.Context(), s); err == nil || len(s.progress) > 0 {
		t.Errorf("a progress that comes behind a batch that is missing: %v, heard %v", err, s.progress)
	}
	for _, p := range []Progress{{Seq: 12, After: 10}, {Seq: 9, After: 5}} {
		f.Progress(p)
		if tell, err := f.Apply(t.Context(), s); tell || err != nil {
			t.Errorf("%+v: %v, %v", p, tell, err)
		}
	}
	f.Progress(Progress{Seq: 11 + SkipAfter, After: 10})
	tell, err := f.Apply(t.Context(), s)
	if err != nil || !tell || f.Applied() != 11+SkipAfter || len(s.batches) != 1 || len(s.progress) != 3 {
		t.Errorf("a long run of others' changes: %v, %v, applied %d; the sink: %+v", tell, err, f.Applied(), s)
	}
}

func TestWhatHasComeMeanwhileIsAppliedAsOne(t *testing.T) {
	f, s := NewFollower(10), &memorySink{}
	for _, b := range []Batch{numbered(10, 12), numbered(12, 15)} {
		if !f.Batch(b) {
			t.Fatalf("%d to %d is not taken", b.After, b.Seq)
		}
		f.Progress(Progress{Seq: b.Seq, After: b.Seq, Clock: 7})
	}
	if f.Batch(numbered(16, 17)) {
		t.Error("what comes behind a gap is joined")
	}
	if f.Batch(Batch{After: 15, Seq: 14}) {
		t.Error("what goes back is joined")
	}
	if tell, err := f.Apply(t.Context(), s); !tell || err != nil {
		t.Fatal(tell, err)
	}
	if len(s.batches) != 1 || s.batches[0].After != 10 || s.batches[0].Seq != 15 || len(s.batches[0].Changes) != 5 || len(s.progress) != 1 || s.progress[0].Seq != 15 {
		t.Errorf("applied %+v", s)
	}
	// As an origin sends them that has more than that: a batch ends behind the change that fills it.
	full := func(after uint64) Batch {
		b := numbered(after, after+2)
		b.Changes[1].Delta = make([]byte, BatchBytes)
		return b
	}
	for i := range uint64(JoinBytes / BatchBytes) {
		if !f.Batch(full(15 + 2*i)) {
			t.Errorf("of full batches %d are applied at once", i)
		}
	}
	if f.Batch(full(15 + 2*JoinBytes/BatchBytes)) {
		t.Error("more is joined than is applied at once")
	}
}

func TestARepetitionIsToldOfAndNotApplied(t *testing.T) {
	f, s := NewFollower(10), &memorySink{}
	before := f.Credit(100)
	if !f.Batch(numbered(5, 9)) || !f.Batch(numbered(10, 11)) {
		t.Fatal("not taken")
	}
	if tell, err := f.Apply(t.Context(), s); !tell || err != nil || len(s.batches) != 1 || s.batches[0].After != 10 {
		t.Errorf("%v, %v, applied %+v", tell, err, s.batches)
	}
	if got, want := f.Credit(100)-before, numbered(5, 9).Size()+numbered(10, 11).Size(); got != want {
		t.Errorf("%d more credit, want %d", got, want)
	}
}

func TestWhatIsNotAppliedIsNotAcknowledged(t *testing.T) {
	f, s := NewFollower(10), &memorySink{err: errors.New("no")}
	f.Batch(numbered(10, 11))
	f.Progress(Progress{Seq: 11, After: 11})
	if tell, err := f.Apply(t.Context(), s); tell || err == nil || f.Applied() != 10 || len(s.progress) > 0 {
		t.Errorf("%v, %v, applied %d, heard %v", tell, err, f.Applied(), s.progress)
	}
}

// Goal: of a stream whose messages come again or not at all, and however many are there at once, the sink gets each change at most once,
// in order and without a gap, and no progress that says more than that; unless something was lost, it gets all.
func TestAStreamIsAppliedInOrderAndWithoutAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, s := NewFollower(0), &memorySink{}
		end, lost := uint64(0), false
		var last Batch
		apply := func() bool {
			_, err := f.Apply(context.Background(), s)
			if err != nil && !lost {
				t.Fatalf("nothing was lost: %v", err)
			}
			return err == nil
		}
		take := func(b Batch) bool {
			return f.Batch(b) || apply() && f.Batch(b)
		}
		for going := true; going && end < 100; {
			switch rapid.SampledFrom([]string{"batch", "batch", "progress", "apply", "again", "lose"}).Draw(t, "what") {
			case "batch":
				last = numbered(end, end+uint64(rapid.IntRange(1, 4).Draw(t, "n")))
				end = last.Seq
				going = take(last)
			case "progress":
				f.Progress(Progress{Seq: end, After: end})
			case "apply":
				going = apply()
			case "again":
				if last.Seq > 0 {
					going = take(last)
				}
			case "lose":
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					end, lost = end+1, true
				}
			}
		}
		apply()
		var got []uint64
		for _, b := range s.batches {
			for _, c := range b.Changes {
				got = append(got, binary.BigEndian.Uint64(c.Key))
			}
		}
		for i, seq := range got {
			if seq != uint64(i+1) {
				t.Fatalf("applied %v", got)
			}
		}
		if !lost && uint64(len(got)) != end {
			t.Fatalf("%d of %d applied", len(got), end)
		}
		if i := slices.IndexFunc(s.progress, func(p Progress) bool { return p.Seq > f.Applied() }); i >= 0 {
			t.Fatalf("%+v is believed, and %d applied", s.progress[i], f.Applied())
		}
	})
}
