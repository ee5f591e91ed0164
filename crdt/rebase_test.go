package crdt

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/commutatordb/commutator/item"
)

// The goal: what a region has written while the others went on without it is made again as the merge would have had it. The method:
// random histories in which one region is away for the second half; what it comes to is held against the join of everybody's writes,
// never folded. Where the others have folded meanwhile, edits alone are made: they are all to be there.

// away is a history in which the first region is cut off halfway. It returns what the others have come to, all of them the same.
func away(w *world, only func(Write) bool, steps int) (gone, other *region, after HLC, err error) {
	gone = w.regions[0]
	step := func(regions []*region) error {
		r, from := regions[w.src.pick(len(regions))], regions[w.src.pick(len(regions))]
		switch k := w.src.pick(10); {
		case k < 5:
			it, ok := w.visible(r)
			wr, did := w.random(it, ok)
			if !did || !only(wr) {
				return nil
			}
			wr.Dot, wr.Stable = Dot{w.tick(r), r.actor}, r.stable
			w.logf("region %d writes %v %v: %s", w.index(r), wr.Op, wr.Dot.HLC, describe(wr))
			return w.apply(r, wr)
		case k < 9:
			return w.deliver(r, from)
		}
		w.heartbeat(r)
		return w.fold(r)
	}
	for range steps {
		if err := step(w.regions); err != nil {
			return nil, nil, 0, err
		}
	}
	w.logf("region 0 is away")
	for range steps {
		part := w.regions[1:]
		if w.src.pick(3) == 0 {
			part = w.regions[:1]
		}
		if err := step(part); err != nil {
			return nil, nil, 0, err
		}
	}
	for moved := true; moved; { // the others tell each other all, what they have of the lost one's among it
		moved = false
		most := 0
		for _, r := range w.regions[1:] {
			most = max(most, r.pos[0])
		}
		for _, r := range w.regions[1:] {
			for i, from := range w.regions {
				for r != from && (i > 0 && r.pos[i] < len(from.stream) || i == 0 && r.pos[i] < most) {
					moved = true
					if err := w.deliver(r, from); err != nil {
						return nil, nil, 0, err
					}
				}
			}
		}
	}
	other = w.regions[1]
	if n := other.pos[0]; n > 0 {
		after = gone.stream[n-1].hlc
	}
	return gone, other, after, nil
}

// comeBack makes again what the lost region wrote, on a copy of another's.
func comeBack(w *world, gone, other *region, after HLC, stable HLC) (*Record, error) {
	r := &Record{}
	if other.rec != nil {
		c, err := Decode(other.rec.Append(nil))
		if err != nil {
			return nil, err
		}
		r = c
	}
	if gone.rec == nil {
		return r, nil
	}
	old, err := Decode(gone.rec.Append(nil))
	if err != nil {
		return nil, err
	}
	before := r.Append(nil)
	wr, _, ok := r.Rebase(Lost{old, gone.actor, after}, stable)
	if !bytes.Equal(before, r.Append(nil)) {
		return nil, fmt.Errorf("what it is made again on was changed by looking")
	}
	if !ok {
		return r, nil
	}
	wr.Dot, wr.Stable = Dot{w.now + 1000, gone.actor + 1}, stable
	w.logf("made again: %v %s", wr.Op, describe(wr))
	delta := r.Write(wr)
	// Another region gets it as any write.
	there := &Record{}
	if other.rec != nil {
		there, _ = Decode(other.rec.Append(nil))
	}
	there.Join(delta)
	if a, aok := there.Visible(); true {
		if b, bok := r.Visible(); aok != bok || !bytes.Equal(a, b) {
			return nil, fmt.Errorf("another region shows %s, this one %s", show(a, aok), show(b, bok))
		}
	}
	return r, nil
}

func all(Write) bool { return true }

func TestWhatALostIncarnationWroteIsMadeAgainAsMergingWouldHaveIt(t *testing.T) {
	for _, p := range []profile{
		{mixed: true, deletes: true, expiries: true, modes: true, shadow: true},
		{deletes: true, shadow: true},
		{numbers: true, shadow: true},
	} {
		made := 0
		for seed := range uint64(4 * *histories) {
			w := newWorld(fromSeed{rand.New(rand.NewPCG(seed, 7))}, p)
			gone, other, after, err := away(w, all, 30)
			if err == nil {
				var r *Record
				if r, err = comeBack(w, gone, other, after, 0); err == nil {
					want := &Record{}
					for _, x := range []*region{other, gone} {
						if x.shadow != nil {
							want.Join(x.shadow)
						}
					}
					a, aok := r.Visible()
					b, bok := want.Visible()
					if aok != bok || aok && !item.Equal(item.M(sorted(a)...), item.M(sorted(b)...)) {
						err = fmt.Errorf("shows %s, merged %s", show(a, aok), show(b, bok))
					}
					made++
				}
			}
			if err != nil {
				t.Fatalf("%+v, seed %d: %v\n%s", p, seed, err, strings.Join(w.log, "\n"))
			}
		}
		if made == 0 {
			t.Error("nothing was made again")
		}
	}
}

func TestEditsOfALostIncarnationAreKeptThoughTheOthersHaveFolded(t *testing.T) {
	edits := func(w Write) bool {
		return w.Op == Update && !slices.ContainsFunc(w.Changes, func(c item.Change) bool {
			return c.Kind == item.RemoveElements || c.Kind == item.Assign && c.Path[0] != key.Name
		})
	}
	folded := 0
	for seed := range uint64(6 * *histories) {
		w := newWorld(fromSeed{rand.New(rand.NewPCG(seed, 8))}, profile{shadow: true})
		gone, other, after, err := away(w, edits, 30)
		if err == nil {
			stable := w.now
			if other.rec != nil {
				other.rec.Fold(stable)
				folded++
			}
			var r *Record
			if r, err = comeBack(w, gone, other, after, stable); err == nil {
				want := &Record{}
				for _, x := range []*region{other, gone} {
					if x.shadow != nil {
						want.Join(x.shadow)
					}
				}
				a, aok := r.Visible()
				b, bok := want.Visible()
				if aok != bok || aok && !item.Equal(item.M(sorted(a)...), item.M(sorted(b)...)) {
					err = fmt.Errorf("shows %s, merged %s", show(a, aok), show(b, bok))
				}
			}
		}
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(w.log, "\n"))
		}
	}
	if folded == 0 {
		t.Error("nothing was folded")
	}
}

// Regions that make an item at once know nothing of each other's, and one of them may say that there was nothing when it did: what is
// folded away is nothing, too. That is no delete of what the other made.
func TestAnItemThatALostIncarnationMadeAloneIsMergedWithOneMadeElsewhere(t *testing.T) {
	add := func(dot Dot, stable HLC, n int64) *Record {
		r := &Record{}
		it := item.AppendItem(nil, item.NewItem(item.Field{Name: "n", Value: item.N(item.NumberFromInt(n))}))
		change := item.Change{Kind: item.Increment, Path: []string{"n"}, Value: item.N(item.NumberFromInt(n))}
		r.Write(Write{Dot: dot, Origin: Origin{Op: Update}, Item: it, Changes: []item.Change{change}, Stable: stable})
		return r
	}
	old, here := add(Dot{100, 1 << 10}, 0, 7), add(Dot{300, 2 << 10}, 200, 8)
	w, lost, ok := here.Rebase(Lost{old, 1 << 10, 50}, 200)
	if n := mustDecode(item.Attr(w.Item, "n")); !ok || n.Number().String() != "15" || len(lost) > 0 || w.Op != Update || w.Changes[0].Kind != item.Increment {
		t.Errorf("%v %v, lost %v: %+v", ok, n, lost, w)
	}
}

// What the others have let go of, since all that they count have seen it removed, does not come back with what is made again.
func TestWhatTheOthersHaveTrimmedStaysGone(t *testing.T) {
	lost, b, c := regions(t)
	b.put(10, field("s", strs("x")), field("n", num(1)))
	b.update(20, change(item.AddElements, strs("e", "f"), "s"))
	lost.take(b)
	lost.update(30, change(item.Increment, num(5), "n"))
	c.take(b)
	c.update(40, change(item.RemoveElements, strs("e", "x"), "s"))
	c.update(41, change(item.AddElements, strs("g"), "s"))
	c.rec.Trim(45)
	w, _, ok := c.rec.Rebase(Lost{&lost.rec, lost.actor, 0}, 45)
	if !ok || w.Op != Update || len(w.Changes) != 1 || w.Changes[0].Kind != item.Increment {
		t.Errorf("made again: %v %s", w.Op, describe(w))
	}
}

// sorted returns an item with the elements of its lists in order: what is appended again comes behind what was appended meanwhile.
func sorted(stored []byte) item.Item {
	it, err := item.DecodeItem(stored)
	if err != nil {
		panic(err)
	}
	var in func(v item.Value) item.Value
	in = func(v item.Value) item.Value {
		switch v.Kind() {
		case item.KindL:
			elems := slices.Clone(v.Elems())
			slices.SortFunc(elems, item.Compare)
			return item.L(elems...)
		case item.KindM:
			var fields []item.Field
			for _, f := range v.Fields() {
				fields = append(fields, item.Field{Name: f.Name, Value: in(f.Value)})
			}
			return item.M(fields...)
		}
		return v
	}
	for i := range it {
		it[i].Value = in(it[i].Value)
	}
	return it
}
