package partition

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// differences is what a whole check of the indexes finds; in steps too small for counts it must find the rest alike.
func (d *disk) differences() []op.IndexDifference {
	d.t.Helper()
	whole, err := CheckIndexes(d.cfg, op.IndexCheck{Limit: 1 << 20})
	if err != nil || whole.Next != nil {
		d.t.Fatalf("%+v, %v", whole, err)
	}
	var steps op.IndexCheckResult
	for c := (op.IndexCheck{Limit: 3}); ; c.From = steps.Next {
		r, err := CheckIndexes(d.cfg, c)
		if err != nil || r.Items+r.Rows > 3 {
			d.t.Fatalf("%+v, %v", r, err)
		}
		steps.Items, steps.Rows, steps.Differences = steps.Items+r.Items, steps.Rows+r.Rows, append(steps.Differences, r.Differences...)
		if steps.Next = r.Next; r.Next == nil {
			break
		}
	}
	rest := slices.DeleteFunc(slices.Clone(whole.Differences), func(x op.IndexDifference) bool { return x.Reason == op.RowCount })
	if steps.Items != whole.Items || steps.Rows != whole.Rows || fmt.Sprint(steps.Differences) != fmt.Sprint(rest) && whole.Items+whole.Rows > 3 {
		d.t.Fatalf("in steps it finds %+v, in one go %+v", steps, whole)
	}
	return whole.Differences
}

// Whatever is written while an index is being filled, and however often that begins anew, it ends up with the rows of its items, counted.
func TestAnIndexIsFilledWhileItsTableIsWrittenTo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDisk(t, "us-east-1")
		defer func() { d.close() }()
		without := alter(true)
		without.Schema.Indexes = nil
		d.run(without)
		right := func() {
			if found := d.differences(); len(found) > 0 {
				t.Fatalf("%+v", found)
			}
		}
		clock := crdt.HLC(100)
		write := func() {
			clock++
			pk := fmt.Sprint(rapid.IntRange(0, 11).Draw(t, "pk"))
			switch rapid.IntRange(0, 4).Draw(t, "write") {
			case 0:
				d.run(remove(clock, pk))
			case 1:
				d.run(update(t, clock, pk, "REMOVE #s"))
			case 2:
				d.run(update(t, clock, pk, "ADD n :n"))
			default:
				d.run(put(clock, pk, rapid.SampledFrom([]string{"open", "closed"}).Draw(t, "state")))
			}
			right()
		}
		for range rapid.IntRange(0, 15).Draw(t, "before") {
			write()
		}
		filling := alter(true)
		filling.Schema.Indexes[0].Backfilling = true
		d.run(filling)
		for next, first := table.Key(nil), true; first || next != nil; first = false {
			for range rapid.IntRange(0, 3).Draw(t, "between") {
				write()
			}
			if next != nil && rapid.IntRange(0, 7).Draw(t, "anew") == 0 {
				next = nil // another node goes on, from the beginning
				d.reopen()
			}
			next = d.one(&op.Command{Kind: op.Reindex, Key: next, Index: 1, Limit: rapid.IntRange(1, 4).Draw(t, "step")}).Next
			right()
		}
		d.run(alter(true))
		for range rapid.IntRange(0, 5).Draw(t, "after") {
			write()
		}
		if state := d.m.state.index(1); state == nil || !state.Filled {
			t.Fatalf("the index is not counted: %+v", d.m.State())
		}
		d.check()
	})
}

func TestACheckNamesWhatIsWrong(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(true))
	for i := range 6 {
		d.run(put(crdt.HLC(10+i), fmt.Sprint(i), "open"))
	}
	row := func(pk, state string) table.Key { return orders.RowKey(&orders.Indexes[0], key(pk), stored(pk, state)) }
	at := func(pk, state string) []byte { return keyenc.Index(nil, d.cfg.ID, 1, row(pk, state)) }
	b := d.store.NewBatch()
	b.Delete(at("1", "open"))
	b.Set(at("2", "closed"), stored("2", "closed")) // of an item that is in another state
	b.Set(at("9", "open"), stored("9", "open"))     // of no item
	b.Set(at("3", "open"), item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("3")}, item.Field{Name: "state", Value: item.S("open")}, item.Field{Name: "x", Value: item.S("y")})))
	b.Set(keyenc.Index(nil, d.cfg.ID, 99, row("4", "open")), stored("4", "open")) // of an index there is not
	if err := d.store.Commit(b); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range d.differences() {
		pk := "none"
		if x.Key != nil {
			k, err := orders.Values(x.Key)
			if err != nil {
				t.Fatal(err)
			}
			pk = k.Partition.Str()
		}
		got = append(got, fmt.Sprintf("%s %s %s", x.Index, x.Reason, pk))
	}
	slices.Sort(got)
	want := []string{"(no index has the id 99) stale none", "by-state count none", "by-state differs 3", "by-state missing 1", "by-state stale 2", "by-state stale 9"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
