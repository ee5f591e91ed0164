package partition

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
)

// Goal: whatever becomes of an item between the moment when another region's state of it was fetched and the moment when that is merged, the
// merge brings nothing back. Method: two regions that lose nothing; whole states are taken when the other has applied all that they have seen,
// as comparisons do, and merged at random later. Nothing may change by that, and both end with the same bytes.

// side is one of two regions.
type side struct {
	*disk
	name    string
	taken   int           // of the other's own changes
	reached []crdt.HLC    // of each own change: the time up to which all of the other's had been taken then
	fetched []*op.Command // states of the other's
}

// own returns a region's own changes from one on.
func (s *side) own(from int) []op.Delta { return s.shipped(s.name).Deltas[from:] }

// two are the regions, and the clock that both go by.
type two struct {
	t     *rapid.T
	sides [2]*side
	clock crdt.HLC
}

// reach is the time up to which a region has all that the other has written.
func (w *two) reach(i int) crdt.HLC {
	if rest := w.sides[1-i].own(w.sides[i].taken); len(rest) > 0 {
		return crdt.PeekDot(rest[0].State).HLC - 1
	}
	return w.clock
}

// stable is the latest time that can be stable in a region: it has what the other wrote up to there, and what is still to come has seen what
// it wrote itself up to there.
func (w *two) stable(i int) crdt.HLC {
	s, other := w.sides[i], w.sides[1-i]
	seen := w.reach(1 - i)
	if s.taken < len(other.reached) {
		seen = 0
		if s.taken > 0 {
			seen = other.reached[s.taken-1]
		}
	}
	return min(seen, w.reach(i))
}

func (w *two) deliver(to, n int) {
	s := w.sides[to]
	rest := w.sides[1-to].own(s.taken)
	rest = rest[:min(n, len(rest))]
	s.taken += len(rest)
	if r := s.one(&op.Command{Kind: op.Merge, Deltas: rest}); r.Err != nil {
		w.t.Fatal(r.Err)
	}
}

// fetch takes a state of an item from the other region.
func (w *two) fetch(to int, pk string) {
	s, other := w.sides[to], w.sides[1-to]
	if len(other.own(s.taken)) > 0 {
		return // it may have seen what is not here yet
	}
	state := other.record(pk)
	if state == nil {
		trace, err := Trace(other.store, tableID, key(pk))
		if err != nil {
			w.t.Fatal(err)
		}
		if trace.IsZero() {
			return
		}
		state = crdt.AppendDeleted(nil, trace)
	}
	s.fetched = append(s.fetched, &op.Command{Source: op.Cursor{Stream: other.name, Part: true}, Stable: s.m.State().Traced, Deltas: []op.Delta{{Key: key(pk), State: state}}})
}

func (s *side) record(pk string) []byte {
	stored, err := s.store.Get(nil, keyenc.Record(nil, tableID, key(pk)))
	if err != nil {
		return nil
	}
	return bytes.Clone(stored)
}

func (s *side) shown() (out []string) {
	for _, pk := range pks {
		out = append(out, s.get(pk))
	}
	return out
}

var pks = []string{"a", "b"}

func TestAStateThatIsMergedLateBringsNothingBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &two{t: t}
		for i, name := range []string{"us-east-1", "eu-west-1"} {
			w.sides[i] = &side{disk: newDisk(t, name), name: name}
			defer w.sides[i].close()
			w.sides[i].one(alter(false))
		}
		for range 100 {
			i := rapid.IntRange(0, 1).Draw(t, "region")
			s, pk := w.sides[i], rapid.SampledFrom(pks).Draw(t, "key")
			switch step := rapid.SampledFrom([]string{"put", "put", "edit", "count", "delete", "delete", "expire", "deliver", "meet", "meet", "fold", "fold", "forget", "fetch", "fetch", "merge", "merge"}).Draw(t, "step"); step {
			case "put", "edit", "count", "delete", "expire":
				w.clock++
				c := remove(w.clock, pk)
				switch step {
				case "put":
					c = put(w.clock, pk, rapid.SampledFrom([]string{"open", "closed"}).Draw(t, "state"))
				case "edit":
					c = update(t, w.clock, pk, "SET #s = :c")
				case "count":
					c = update(t, w.clock, pk, "ADD n :n")
				case "expire":
					c.Kind = op.Expire
				}
				seq := s.m.State().Seq
				if r := s.one(c); r.Err != nil {
					t.Fatal(r.Err)
				}
				if s.m.State().Seq > seq {
					s.reached = append(s.reached, w.reach(i))
				}
			case "deliver":
				w.deliver(i, rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "changes"))
			case "meet":
				w.deliver(0, 1000)
				w.deliver(1, 1000)
			case "fold":
				less := min(w.stable(i), crdt.HLC(rapid.IntRange(0, 2).Draw(t, "less")))
				s.one(&op.Command{Kind: op.Fold, Stable: w.stable(i) - less, Limit: rapid.SampledFrom([]int{1, 2, 1000}).Draw(t, "limit")})
			case "forget":
				less := min(w.clock, crdt.HLC(rapid.IntRange(0, 5).Draw(t, "less")))
				s.one(&op.Command{Kind: op.Forget, Stable: w.clock - less, Limit: 100})
			case "fetch":
				w.fetch(i, pk)
			case "merge":
				if len(s.fetched) == 0 {
					continue
				}
				c := *rapid.SampledFrom(s.fetched).Draw(t, "fetched")
				c.Kind = rapid.SampledFrom([]op.Kind{op.Merge, op.Mend}).Draw(t, "kind")
				before := s.shown()
				if r := s.one(&c); r.Err != nil {
					t.Fatal(r.Err)
				}
				if after := s.shown(); !slices.Equal(after, before) {
					t.Fatalf("%q became %q", before, after)
				}
			}
		}
		for i, s := range w.sides {
			w.deliver(i, 1000)
			defer s.check()
		}
		for _, s := range w.sides {
			s.one(fold(w.clock))
		}
		if a, b := w.sides[0].rows("R"), w.sides[1].rows("R"); !slices.Equal(a, b) {
			t.Fatalf("regions differ:\n%q\n%q", a, b)
		}
	})
}
