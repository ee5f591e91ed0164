package region

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// Goal: nobody can tell from what a table shows how many partitions it has. Method: the same commands to tables of several counts, in one
// region on a memory disk.

func TestAKeyIsInThePartitionWhoseRangeHoldsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.Byte(), 1, 3)
		starts := rapid.SliceOfNDistinct(keys, 0, 6, func(b []byte) string { return string(b) }).Draw(t, "starts")
		slices.SortFunc(starts, slices.Compare)
		open := list{{ID: 1}}
		for i, s := range starts {
			open = append(open, &Partition{ID: uint64(i + 2), Start: s})
		}
		for i, p := range open {
			p.state.Store(&partition.State{Span: partition.Span{Closed: i > 0 && rapid.Bool().Draw(t, "closed")}})
		}
		key := table.Key(rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "key"))
		want := uint64(1)
		for i, s := range starts {
			if slices.Compare(s, key) <= 0 && !open[i+1].closed() {
				want = uint64(i + 2)
			}
		}
		if got := open.of(key); got.ID != want {
			t.Fatalf("key %x of %x: partition %d, want %d", key, starts, got.ID, want)
		}
		from, to := table.Key(keys.Draw(t, "from")), table.Key(keys.Draw(t, "to"))
		if rapid.Bool().Draw(t, "whole") {
			from, to = nil, nil
		}
		if bytes.Compare(from, key) > 0 || to != nil && bytes.Compare(key, to) >= 0 {
			return
		}
		if got := open.within(from, to); !slices.ContainsFunc(got, func(p *Partition) bool { return p.ID == want }) {
			t.Fatalf("[%x, %x) of %x is in %d partitions, without that of %x", from, to, starts, len(got), key)
		}
	})
}

// alike makes a table of each count of partitions and fills all with the same.
func alike(t *testing.T, r *Region, counts ...int) []*Table {
	t.Helper()
	s := orders.Clone()
	s.Indexes[0].Projection = table.ProjectAll
	s.Indexes = append(s.Indexes, table.Index{Name: "by-size", Hash: []table.Attribute{s.Hash}, Range: []table.Attribute{{Name: "size", Kind: item.KindN}}, Projection: table.ProjectKeys})
	var tables []*Table
	for _, n := range counts {
		s.Name = fmt.Sprint("orders-", n)
		r.cfg.Partitions = n
		tables = append(tables, create(t, r, s))
	}
	for _, tab := range tables {
		for i := range 300 {
			it := order("a", i, []string{"open", "open", "closed", "new"}[i%4]).With("size", item.N(item.NumberFromInt(int64(i*7%50))))
			if i%11 > 0 {
				it = it.With("text", item.S(string(bytes.Repeat([]byte("x"), i))))
			}
			put(t, tab, it)
		}
	}
	return tables
}

func TestAPageIsTheSameOverAnyPartitions(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 1)
	defer stop()
	counts := []int{1, 2, 5, 16}
	tables := alike(t, r, counts...)
	none := expr.Given(map[string]string{"#t": "text"}, nil)
	filter, err := expr.ParseCondition("FilterExpression", "attribute_exists(#t)", &none)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]table.Key{}
	for _, index := range []string{"", "by-state", "by-size"} {
		page, err := tables[0].Page(t.Context(), op.Page{Index: tables[0].Schema().Index(index)}, true)
		if err != nil || len(page.Keys) != 300 {
			t.Fatal(len(page.Keys), err)
		}
		all[index] = page.Keys
	}
	rapid.Check(t, func(t *rapid.T) {
		index := rapid.SampledFrom([]string{"", "by-state", "by-state", "by-size"}).Draw(t, "index")
		p := op.Page{
			Index:   tables[0].Schema().Index(index), // all tables' have the same ids
			Reverse: rapid.Bool().Draw(t, "reverse"), Limit: rapid.SampledFrom([]int{0, 0, 1, 2, 7, 100}).Draw(t, "limit"),
			Bytes: rapid.SampledFrom([]int{0, 0, 100, 3000}).Draw(t, "bytes"),
		}
		if rapid.Bool().Draw(t, "filtered") {
			p.Filter = filter
		}
		bound := func(name string) table.Key {
			i := rapid.IntRange(-1, len(all[index])-1).Draw(t, name)
			switch {
			case i < 0:
				return nil
			case rapid.Bool().Draw(t, "hash"):
				return all[index][i][:table.HashSize]
			}
			return all[index][i]
		}
		p.From, p.To = bound("from"), bound("to")
		if p.To != nil && bytes.Compare(p.From, p.To) > 0 {
			p.From, p.To = p.To, p.From
		}
		// Page by page to the end, as clients go.
		for {
			want, err := tables[0].Page(context.Background(), p, true)
			if err != nil {
				t.Fatal(err)
			}
			for i, tab := range tables[1:] {
				got, err := tab.Page(context.Background(), p, true)
				if err != nil {
					t.Fatal(err)
				}
				same := slices.EqualFunc(got.Items, want.Items, bytes.Equal) && slices.EqualFunc(got.Keys, want.Keys, func(a, b table.Key) bool { return bytes.Equal(a, b) })
				if !same || got.Looked != want.Looked || got.LookedAt != want.LookedAt || !bytes.Equal(got.Last, want.Last) || !bytes.Equal(got.LastItem, want.LastItem) {
					t.Fatalf("over %d partitions: %d items of %d looked at, last %x; over one %d of %d, last %x", counts[i+1], len(got.Items), got.Looked, got.Last, len(want.Items), want.Looked, want.Last)
				}
			}
			if want.Last == nil {
				return
			}
			if p.Reverse {
				p.To = want.Last
			} else {
				p.From = want.Last.After()
			}
		}
	})
	for i, tab := range tables {
		if got := len(tab.Partitions()); got != counts[i] {
			t.Errorf("%d partitions, want %d", got, counts[i])
		}
		items, size := tab.Stats()
		rows, rowsSize := tab.IndexStats(tab.Schema().Index("by-state").ID)
		wantItems, wantSize := tables[0].Stats()
		if items != 300 || items != wantItems || size != wantSize || rows != 300 || rowsSize != size {
			t.Errorf("%d partitions: %d items of %d bytes, %d rows of %d", counts[i], items, size, rows, rowsSize)
		}
	}
}

func TestIndexesAreCheckedFilledAndDroppedInAllPartitions(t *testing.T) {
	counted(t, func(t *testing.T, partitions int) {
		r, stop := start(t, vfs.NewMem(), partitions)
		defer stop()
		tab := alike(t, r, partitions)[0]
		check := func() {
			t.Helper()
			for _, limit := range []int{7, 1 << 20} {
				c, items, rows := op.IndexCheck{Limit: limit}, 0, 0
				for {
					got, err := tab.CheckIndexes(t.Context(), c)
					if err != nil || len(got.Differences) > 0 || got.Items+got.Rows > limit {
						t.Fatalf("%+v, %v", got, err)
					}
					items, rows = items+got.Items, rows+got.Rows
					if c.From = got.Next; c.From == nil {
						break
					}
				}
				if want := 300 * len(tab.Schema().Indexes); items != 300 || rows != want {
					t.Fatalf("%d items and %d rows were checked, want 300 and %d", items, rows, want)
				}
			}
		}
		check()
		change := func(f func(*table.Definition)) {
			t.Helper()
			changed, stop := r.Watch()
			defer stop()
			_, err := r.Change(t.Context(), tab.Schema().Name, func(d *table.Definition) error {
				d.Status = table.Updating
				f(d)
				return nil
			})
			for err == nil {
				var d *table.Definition
				if d, err = r.Definition(tab.Schema().Name); err != nil || d.Status == table.Active && sameSchema(tab.Schema(), &d.Schema) {
					break
				}
				select {
				case <-changed:
				case <-time.After(10 * time.Second):
					t.Fatal("the table is not active")
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		change(func(d *table.Definition) { d.Schema.Indexes[0].Deleting = true })
		check()
		change(func(d *table.Definition) {
			x := orders.Indexes[0]
			x.ID, x.Name, x.Backfilling = 9, "again", true
			d.Schema.Indexes = append(d.Schema.Indexes, x)
		})
		if rows, _ := tab.IndexStats(9); rows != 300 {
			t.Errorf("%d rows of 300 are counted", rows)
		}
		check()
	})
}

// deltaOf is another region's put.
func deltaOf(tab *Table, at crdt.HLC, it item.Item) op.Delta {
	stored := item.AppendItem(nil, it)
	key, err := tab.Schema().KeyOf(stored)
	if err != nil {
		panic(err)
	}
	w := crdt.Write{Dot: crdt.Dot{HLC: at, Actor: crdt.NewActor("eu-west-1", 1)}, Origin: crdt.Origin{Op: crdt.Put}, Item: stored}
	return op.Delta{Key: key, State: (&crdt.Record{}).Write(w).Append(nil)}
}

// A batch that cannot be merged whole leaves the stream where it was, however far it came.
func TestAStreamIsFurtherOnlyOnceAllPartitionsHaveTheBatch(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 4)
	defer stop()
	s := orders.Clone()
	s.Name = "carts"
	tab := create(t, r, s)
	var batch []op.Delta
	touched := map[uint64]bool{}
	for i := range 16 {
		d := deltaOf(tab, crdt.HLC(100+i), order("b", i, "open"))
		batch = append(batch, d)
		touched[tab.PartitionOf(d.Key).ID] = true
	}
	if len(touched) != 4 {
		t.Fatalf("the batch touches %d partitions", len(touched))
	}
	if err := tab.Merge(t.Context(), op.Cursor{Stream: "eu", Seq: 16}, 0, batch[:0]); err != nil || tab.Cursor("eu") != 16 {
		t.Fatalf("a batch of nothing: %v, the cursor is at %d", err, tab.Cursor("eu"))
	}
	for _, d := range batch {
		if err := tab.Merge(t.Context(), op.Cursor{Stream: "eu", Seq: tab.Cursor("eu") + 1}, 0, []op.Delta{d}); err != nil {
			t.Fatal(err)
		}
	}
	if got := tab.Cursor("eu"); got != 32 {
		t.Fatalf("behind batches of one each the cursor is at %d", got)
	}
	entries := func() (n uint64) {
		for _, p := range tab.Partitions() {
			n += p.State().Applied
		}
		return n
	}
	before := entries()
	if err := tab.Merge(t.Context(), op.Cursor{Stream: "eu", Seq: 33}, 0, batch[:1]); err != nil || entries() != before+1 {
		t.Errorf("a change of one item took %d commands, %v", entries()-before, err)
	}
	if err := r.host.Remove(t.Context(), tab.Partitions()[3].replica.Load()); err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		batch[i] = deltaOf(tab, crdt.HLC(200+i), order("b", i, "closed"))
	}
	if err := tab.Merge(t.Context(), op.Cursor{Stream: "eu", Seq: 40}, 0, batch); !errors.Is(err, group.ErrGone) {
		t.Fatalf("a partition is gone, and merging says %v", err)
	}
	if got := tab.Cursor("eu"); got != 33 {
		t.Errorf("a partition lacks its changes, and the cursor is at %d", got)
	}
}

func TestTheClockOfAPartitionThatRestsIsLifted(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 4)
	defer stop()
	tab := create(t, r, orders)
	put(t, tab, order("a", 1, "open"))
	clocks := func() (least, most crdt.HLC) {
		least = crdt.MaxHLC
		for _, p := range tab.Partitions() {
			least, most = min(least, p.State().Clock), max(most, p.State().Clock)
		}
		return least, most
	}
	least, most := clocks()
	if least != 0 || most == 0 {
		t.Fatalf("the clocks are at %v to %v", least, most)
	}
	applied := func() (n uint64) {
		for _, p := range tab.Partitions() {
			n += p.State().Applied
		}
		return n
	}
	for range 3 {
		if err := tab.Level(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if l, m := clocks(); l != most || m != most {
		t.Errorf("the clocks are at %v to %v, want %v", l, m, most)
	}
	before := applied()
	if err := tab.Level(t.Context()); err != nil || applied() != before {
		t.Errorf("at rest it costs %d commands, %v", applied()-before, err)
	}
}

// A page of a global index asks every partition. Rows of one partition key are spread over all of them.
func BenchmarkPageOfAGlobalIndex(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		r, stop := start(b, vfs.NewMem(), n)
		s := orders.Clone()
		s.Indexes[0].Projection = table.ProjectAll
		tab := create(b, r, s)
		const items, states = 100_000, 1000
		text := item.S(strings.Repeat("x", 200))
		for at := 0; at < items; at += 500 {
			var stored [][]byte
			for i := at; i < at+500; i++ {
				stored = append(stored, item.AppendItem(nil, order(fmt.Sprint(i), i, fmt.Sprint("state-", i%states)).With("text", text)))
			}
			if err := tab.Restore(b.Context(), stored); err != nil {
				b.Fatal(err)
			}
		}
		if err := r.cfg.Store.Flush(); err != nil {
			b.Fatal(err)
		}
		index := tab.Schema().Index("by-state")
		read := func(b *testing.B, state, limit int) {
			from := table.HashKey(item.S(fmt.Sprint("state-", state%states)))
			page, err := tab.Page(b.Context(), op.Page{Index: index, From: from, To: from.AfterPrefix(), Limit: limit}, false)
			if err != nil || len(page.Items) != limit {
				b.Fatal(len(page.Items), err)
			}
		}
		for i := range states {
			read(b, i, 100) // into the cache
		}
		for _, limit := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("partitions=%d/rows=%d", n, limit), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					read(b, i, limit)
				}
			})
		}
		stop()
	}
}
