package partition

import (
	"fmt"
	"testing"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
)

// Goal: of an item that one region holds and another does not, the trace of its delete decides. Method: two regions of which one has lost
// a record, or a delete; what one tells the other is what comparisons bring.

func fold(stable crdt.HLC) *op.Command {
	return &op.Command{Kind: op.Fold, Stable: stable, Limit: 100}
}

// told is what a region tells of an item that another asks about.
func (d *disk) told(pk string) *op.Command {
	d.t.Helper()
	state, err := d.store.Get(nil, keyenc.Record(nil, tableID, key(pk)))
	if err != nil {
		trace, err := Trace(d.store, tableID, key(pk))
		if err != nil || trace.IsZero() {
			d.t.Fatalf("nothing is known of %s: %v", pk, err)
		}
		state = crdt.AppendDeleted(nil, trace)
	}
	return &op.Command{Kind: op.Mend, Source: op.Cursor{Stream: "us", Part: true}, Deltas: []op.Delta{{Key: key(pk), State: state}}}
}

func TestADeletedItemThatAnotherStillHasDoesNotComeBack(t *testing.T) {
	us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(10, "a", "open"), put(11, "lost", "open"))
	eu.run(alter(false))
	eu.one(us.shipped("us"))
	eu.one(fold(20))
	eu.one(remove(30, "a"))
	eu.one(fold(40)) // us has lost the delete
	us.one(fold(40))
	// The region that has folded the delete away is asked to take the item, and does not.
	if r := eu.run(us.told("a"), us.told("a")); r[0].Err != nil || r[0].Applied+r[1].Applied != 0 || eu.get("a") != "" {
		t.Errorf("it is back: %+v, %s", r, eu.get("a"))
	}
	// The one that still has it is told.
	if r := us.one(eu.told("a")); r.Err != nil || r.Applied != 1 || us.get("a") != "" {
		t.Errorf("the delete is not made good: %+v, %s", r, us.get("a"))
	}
	us.one(fold(40))
	if us.one(eu.told("a")); len(us.rows("R")) != 1 || len(us.rows("D")) != 1 {
		t.Errorf("it folds as any delete: %q, %q", us.rows("R"), us.rows("D"))
	}
	us.check()
	eu.check()
}

func TestAnItemThatWasLostComesBackAndOneThatWasWrittenSinceStays(t *testing.T) {
	us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(10, "a", "old"), remove(11, "a"), put(20, "b", "open"))
	eu.run(alter(false))
	eu.one(us.shipped("us"))
	eu.one(fold(15)) // a leaves a trace
	us.run(fold(15), put(21, "a", "new"))
	us.one(fold(30))
	// eu has had both, and has lost them.
	eu.one(fold(30))
	b := eu.store.NewBatch()
	b.Delete(keyenc.Record(nil, tableID, key("b")))
	if err := eu.store.Commit(b); err != nil {
		t.Fatal(err)
	}
	eu.reopen()
	for _, pk := range []string{"a", "b"} {
		c := us.told(pk)
		c.Kind = op.Merge
		if r := eu.one(c); r.Applied != 0 {
			t.Errorf("%s: a late repetition is taken: %+v", pk, r)
		}
		if r := eu.one(us.told(pk)); r.Err != nil || r.Applied != 1 || eu.get(pk) != us.get(pk) {
			t.Errorf("%s: %+v, %q, want %q", pk, r, eu.get(pk), us.get(pk))
		}
	}
	if trace, err := Trace(eu.store, tableID, key("a")); err != nil || trace.HLC != 11 {
		t.Errorf("the trace of a: %v, %v", trace, err)
	}
}

func TestTracesGoWhenTheyAreOldAndThatIsKnown(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false))
	for i := range 10 {
		d.run(put(crdt.HLC(10+i), fmt.Sprint(i), "open"), remove(crdt.HLC(30+i), fmt.Sprint(i)))
	}
	d.one(fold(50))
	if n := len(d.rows("D")); n != 10 || len(d.rows("R")) != 0 {
		t.Fatalf("%d traces", n)
	}
	steps := 0
	for c := (&op.Command{Kind: op.Forget, Stable: 34, Limit: 3}); ; steps++ {
		r := d.one(c)
		if d.m.State().Traced != 34 {
			t.Fatalf("step %d: %+v", steps, d.m.State())
		}
		if c.Key = r.Next; r.Next == nil {
			break
		}
	}
	if n := len(d.rows("D")); n != 7 || steps != 3 {
		t.Errorf("%d traces are left after %d steps", n, steps)
	}
	d.reopen()
	if d.m.State().Traced != 34 {
		t.Errorf("after a start: %+v", d.m.State())
	}
	// What a region does alone leaves nothing, and that is known when it is alone no more.
	d.run(alter(true), put(60, "solo", "open"), remove(61, "solo"), alter(false))
	if d.m.State().Traced != d.m.State().Clock {
		t.Errorf("after being alone: %+v", d.m.State())
	}
}

func TestAStateFromBeforeADeleteMeetsIt(t *testing.T) {
	for name, after := range map[string][]*op.Command{
		"not stable yet":                        {remove(30, "a")},
		"stable, and not folded yet":            {remove(30, "a"), {Kind: op.Fold, Stable: 40, Limit: 1}},
		"folded away":                           {remove(30, "a"), fold(40)},
		"folded away so long ago that no trace": {remove(30, "a"), fold(40), {Kind: op.Forget, Stable: 35, Limit: 100}},
		"deleted alone":                         {alter(true), fold(20), remove(30, "a")},
		"deleted alone, and others since":       {alter(true), fold(20), remove(30, "a"), alter(false)},
	} {
		for _, kind := range []op.Kind{op.Merge, op.Mend} {
			us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
			us.run(alter(false), put(9, "b", "open"), put(10, "a", "open"))
			eu.run(alter(false))
			eu.one(us.shipped("us"))
			c := us.told("a")
			c.Kind = kind
			for i := range after {
				eu.one(after[i])
			}
			if r := eu.one(c); r.Err != nil || eu.get("a") != "" {
				t.Errorf("%s, kind %d: it is back: %+v, %q", name, kind, r, eu.get("a"))
			}
			eu.check()
			us.close()
			eu.close()
		}
	}
}
