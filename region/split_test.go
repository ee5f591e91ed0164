package region

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// Goal: a table shows the same before, while and after its partitions are cut.

// cutAll has every partition of a table cut, and waits until that is done and nothing is left of it.
func cutAll(t *testing.T, r *Region, tab *Table) {
	t.Helper()
	changed, stop := r.Watch()
	defer stop()
	before := tab.Partitions()
	for _, p := range before {
		if _, err := r.Split(t.Context(), tab.Schema().Name, p.ID, nil); err != nil {
			t.Fatal(err)
		}
	}
	for done := false; !done; {
		d, err := r.Definition(tab.Schema().Name)
		if err != nil {
			t.Fatal(err)
		}
		if done = len(d.Partitions) == 2*len(before); !done {
			<-changed
		}
	}
	for _, p := range tab.Partitions() {
		if err := p.steps(t.Context(), &op.Command{Kind: op.Prune, Limit: 7}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATableShowsTheSameAfterItsPartitionsAreCut(t *testing.T) {
	fs := vfs.NewCrashableMem()
	r, stop := start(t, fs, 1)
	tab := alike(t, r, 1)[0]
	whole := map[string]op.PageResult{}
	page := func(index string) op.PageResult {
		p, err := tab.Page(t.Context(), op.Page{Index: tab.Schema().Index(index)}, true)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	items, bytes := tab.Stats()
	for _, index := range []string{"", "by-state", "by-size"} {
		whole[index] = page(index)
	}
	same := func(when string) {
		t.Helper()
		for index, want := range whole {
			if got := page(index); fmt.Sprintf("%x", got.Keys) != fmt.Sprintf("%x", want.Keys) {
				t.Errorf("%s: %q shows %d rows, want %d", when, index, len(got.Keys), len(want.Keys))
			}
		}
		if n, size := tab.Stats(); n != items || size != bytes {
			t.Errorf("%s: counts %d items of %d bytes, want %d of %d", when, n, size, items, bytes)
		}
		found, err := tab.CheckIndexes(t.Context(), op.IndexCheck{Limit: 1 << 20})
		if err != nil || len(found.Differences) > 0 || found.Items != int(items) {
			t.Errorf("%s: %d items, %v, %v", when, found.Items, found.Differences, err)
		}
	}
	for n := 2; n <= 8; n *= 2 {
		cutAll(t, r, tab)
		if got := len(tab.Partitions()); got != n {
			t.Fatalf("%d partitions, want %d", got, n)
		}
		same(fmt.Sprint("in ", n))
	}
	stop()
	r, stop = start(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), 1)
	defer stop()
	var err error
	if tab, err = r.Table(t.Context(), tab.Schema().Name); err != nil {
		t.Fatal(err)
	}
	same("started again")
}

// drafted returns a table whose only partition is cut but for the last step, and what takes that step.
func drafted(t *testing.T, r *Region) (tab *Table, cut func()) {
	t.Helper()
	tab = alike(t, r, 1)[0]
	p := tab.Partitions()[0]
	c := op.Command{Kind: op.Split, Key: binary.BigEndian.AppendUint64(nil, 1<<63), Child: 999, Limit: 10}
	for range 5 {
		step := c
		if result, err := p.do(t.Context(), &step); err != nil || !result.More {
			t.Fatal(result, err)
		}
	}
	return tab, func() {
		if err := p.steps(t.Context(), &c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAPageIsTheSameWhileAPartitionIsCut(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 1)
	defer stop()
	r.cfg.Split.Step = 1 // rows of what is cut off are left for long
	tab, cut := drafted(t, r)
	rows := func(when string) {
		t.Helper()
		for _, index := range []string{"", "by-state", "by-size"} {
			if p, err := tab.Page(t.Context(), op.Page{Index: tab.Schema().Index(index)}, false); err != nil || len(p.Keys) != 300 {
				t.Errorf("%s: %q shows %d rows, %v", when, index, len(p.Keys), err)
			}
		}
	}
	rows("drafted")
	cut()
	if len(tab.Partitions()) != 2 || !tab.Partitions()[0].State().Span.Prune {
		t.Fatalf("%+v", tab.Partitions()[0].State().Span)
	}
	rows("cut")
	found, err := tab.CheckIndexes(t.Context(), op.IndexCheck{Limit: 1 << 20})
	if err != nil || len(found.Differences) > 0 {
		t.Error(found.Differences, err)
	}
}

func TestWhatIsWrittenWhileAPartitionIsDraftedIsInWhatIsCutOff(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 1)
	defer stop()
	tab, cut := drafted(t, r)
	for i := range 300 { // items in the draft, and others
		switch i % 3 {
		case 0:
			put(t, tab, order("a", i, "closed").With("size", item.N(item.NumberFromInt(1))))
		case 1:
			it := item.AppendItem(nil, order("a", i, ""))
			key, err := tab.Schema().KeyOf(it)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tab.Write(t.Context(), &op.Command{Kind: op.Delete, Key: key}); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut()
	if n, _ := tab.Stats(); n != 200 {
		t.Errorf("%d items, want 200", n)
	}
	if found, err := tab.CheckIndexes(t.Context(), op.IndexCheck{Limit: 1 << 20}); err != nil || len(found.Differences) > 0 || found.Items != 200 {
		t.Error(found, err)
	}
}

func TestWritesUnderWayGoToWhatWasCutOff(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 1)
	defer stop()
	tab, cut := drafted(t, r)
	before := tab.partitions()
	cut()
	wrote := map[uint64]int{}
	for i := range 50 {
		it := item.AppendItem(nil, order("b", i, "open"))
		key, err := tab.Schema().KeyOf(it)
		if err != nil {
			t.Fatal(err)
		}
		// One that had looked before is told, and looks again.
		if result, err := before.of(key).do(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: it}); err != nil || (result.Err != nil) != (before[0].End() != nil && !before[0].holds(key)) || result.Err != nil && !errors.Is(result.Err, op.ErrMoved) {
			t.Fatal(result.Err, err)
		}
		result, err := tab.Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: it})
		if err != nil || result.Err != nil || result.Partition != tab.PartitionOf(key).ID {
			t.Fatal(result, err)
		}
		wrote[result.Partition]++
	}
	if len(wrote) != 2 {
		t.Errorf("all was written to %v", wrote)
	}
}

func TestWhatCannotBeSplitIsRefused(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 1)
	defer stop()
	tab := create(t, r, orders)
	id := tab.Partitions()[0].ID
	for name, c := range map[string]struct {
		id   uint64
		at   table.Key
		want error
	}{
		"without items":          {id, nil, ErrNoSplitKey},
		"another partition":      {id + 1000, table.Key{1}, ErrNoPartition},
		"at its first key":       {id, table.Key{}, ErrSplitKey},
		"within one hash":        {id, make(table.Key, hashBytes+1), ErrSplitKey},
		"another, in the middle": {id + 1000, nil, ErrNoPartition},
	} {
		if _, err := r.Split(t.Context(), tab.Schema().Name, c.id, c.at); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestWhatIsWrittenToMuchIsPartedWhereHalfOfItGoes(t *testing.T) {
	var l load
	feed := func(hashes ...uint64) {
		for range loadKeys {
			for _, h := range hashes {
				l.add(4, []table.Key{binary.BigEndian.AppendUint64(nil, h)})
			}
		}
	}
	look := func() (over bool, at table.Key) {
		for range 60 {
			feed(10, 20, 30, 40)
			over, at = l.look(1000, defaultLook)
		}
		return over, at
	}
	if over, at := look(); !over || hashOf(at) != 30 {
		t.Errorf("%v, at %x", over, at)
	}
	for range 60 {
		feed(7)
		if over, at := l.look(1000, defaultLook); over && at != nil {
			t.Errorf("one hot key is parted at %x", at)
		}
	}
	if over, _ := l.look(1000, defaultLook); over {
		t.Error("what rests is parted")
	}
}
