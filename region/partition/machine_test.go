package partition

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Goal: what a partition holds is what its commands make it, whatever runs they come in. Method: a real
// store on a memory disk; after each run of commands the batch is committed, as group.Host does.

const tableID = 7

var orders = table.Schema{
	Name: "orders", Hash: table.Attribute{Name: "pk", Kind: item.KindS},
	Indexes: []table.Index{{ID: 1, Name: "by-state", Global: true, Hash: []table.Attribute{{Name: "state", Kind: item.KindS}}, Projection: table.ProjectAll}},
}

type fatalT interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// disk is a machine and the store under it.
type disk struct {
	t     fatalT
	fs    vfs.FS
	cfg   Config
	store *storage.Store
	m     *Machine
	index uint64
}

func newDisk(t fatalT, region string) *disk {
	d := &disk{t: t, fs: vfs.NewMem(), cfg: Config{ID: 5, Table: tableID, Actor: crdt.NewActor(region, 0)}}
	d.openStore()
	d.open()
	return d
}

func (d *disk) openStore() {
	d.t.Helper()
	var err error
	if d.store, err = storage.Open(storage.Options{FS: d.fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10}); err != nil {
		d.t.Fatal(err)
	}
	d.cfg.Store = d.store
}

func (d *disk) open() {
	d.t.Helper()
	var err error
	if d.m, err = Open(d.cfg); err != nil {
		d.t.Fatal(err)
	}
	d.index = d.m.Applied()
}

func (d *disk) reopen() {
	d.t.Helper()
	if err := d.store.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.openStore()
	d.open()
}

// run applies the commands as one run, which the store shows at its end. Commands that read more than
// their own keys begin a run of their own.
func (d *disk) run(commands ...*op.Command) []op.Result {
	d.t.Helper()
	b := d.store.NewBatch()
	show := func() {
		d.m.Finish(b)
		if err := d.store.Commit(b); err != nil {
			d.t.Fatal(err)
		}
		d.m.Committed()
	}
	var results []op.Result
	for _, c := range commands {
		if c != nil && c.Alone() {
			show()
		}
		d.index++
		results = append(results, d.m.Apply(d.index, c, b))
	}
	show()
	return results
}

func (d *disk) one(c *op.Command) op.Result { d.t.Helper(); return d.run(c)[0] }

func (d *disk) close() {
	if err := d.store.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) get(pk string) string {
	d.t.Helper()
	stored, err := Get(d.store, tableID, key(pk))
	if err != nil {
		d.t.Fatal(err)
	}
	return show(stored)
}

func show(stored []byte) string {
	if stored == nil {
		return ""
	}
	it, err := item.DecodeItem(stored)
	if err != nil {
		panic(err)
	}
	out := ""
	for _, f := range it {
		v := f.Value.Str()
		if f.Value.Kind() == item.KindN {
			v = f.Value.Number().String()
		}
		out += f.Name + "=" + v + " "
	}
	return out
}

// rows returns everything in the store, in order.
func (d *disk) rows(prefix string) (out []string) {
	d.t.Helper()
	it, err := d.store.Iter([]byte(prefix), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for ok := it.First(); ok && (prefix == "" || bytes.HasPrefix(it.Key(), []byte(prefix))); ok = it.Next() {
		out = append(out, fmt.Sprintf("%x: %x", it.Key(), it.Value()))
	}
	if err := it.Close(); err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *disk) log() (out []Change) {
	d.t.Helper()
	it, err := d.store.Iter(keyenc.Log(nil, d.cfg.ID, 0), keyenc.Log(nil, d.cfg.ID+1, 0))
	if err != nil {
		d.t.Fatal(err)
	}
	defer it.Close()
	seq := d.m.State().Trimmed
	for ok := it.First(); ok; ok = it.Next() {
		if seq++; keyenc.LogSeq(it.Key()) != seq {
			d.t.Fatalf("the change log has entry %d where %d comes next", keyenc.LogSeq(it.Key()), seq)
		}
		c, err := DecodeChange(bytes.Clone(it.Value()))
		if err != nil {
			d.t.Fatal(err)
		}
		out = append(out, c)
	}
	if seq != d.m.State().Seq {
		d.t.Fatalf("the change log ends at %d, the state says %d", seq, d.m.State().Seq)
	}
	return out
}

// check holds the store against its own rule: index rows, counts and the change log follow from the
// records.
func (d *disk) check() {
	d.t.Helper()
	page, err := ReadPage(tableID, []Rows{{From: d.store, Partition: d.cfg.ID}}, op.Page{})
	if err != nil {
		d.t.Fatal(err)
	}
	schema, want := d.m.Schema(), []string{}
	for i, stored := range page.Items {
		for _, r := range schema.Rows(nil, page.Keys[i], nil, stored) {
			want = append(want, fmt.Sprintf("%x: %x", keyenc.Index(nil, d.cfg.ID, r.Index, r.Key), r.Item))
		}
	}
	slices.Sort(want)
	if got := d.rows("I"); !slices.Equal(got, want) {
		d.t.Fatalf("index rows\n%q\nwant\n%q", got, want)
	}
	if s := d.m.State(); s.Items != int64(page.Looked) || s.Bytes != int64(page.LookedAt) {
		d.t.Fatalf("%d items of %d bytes counted, there are %d of %d", s.Items, s.Bytes, page.Looked, page.LookedAt)
	}
	if found := d.differences(); len(found) > 0 {
		d.t.Fatalf("the check of indexes finds %+v", found)
	}
	d.log()
}

func key(pk string) table.Key { return orders.KeyOfValues(item.S(pk), item.Value{}) }

func stored(pk, state string) []byte {
	return item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S(pk)}, item.Field{Name: "state", Value: item.S(state)}))
}

func alter(solo bool) *op.Command {
	s := orders.Clone()
	s.Solo = solo
	return &op.Command{Kind: op.Alter, Schema: &s}
}

func put(hlc crdt.HLC, pk, state string) *op.Command {
	return &op.Command{Kind: op.Put, HLC: hlc, Key: key(pk), Item: stored(pk, state)}
}

func remove(hlc crdt.HLC, pk string) *op.Command {
	return &op.Command{Kind: op.Delete, HLC: hlc, Key: key(pk)}
}

var values = expr.Given(map[string]string{"#s": "state"}, map[string]item.Value{":n": item.N(item.NumberFromInt(1)), ":o": item.S("open"), ":c": item.S("closed")})

func condition(t fatalT, source string) *expr.Condition {
	c, err := expr.ParseCondition("ConditionExpression", source, &values)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func update(t fatalT, hlc crdt.HLC, pk, source string) *op.Command {
	u, err := expr.ParseUpdate(source, &values)
	if err != nil {
		t.Fatal(err)
	}
	return &op.Command{Kind: op.Update, HLC: hlc, Key: key(pk), Update: u}
}

// shipped is what a machine's change log sends to other regions, from seq on.
func (d *disk) shipped(stream string) *op.Command {
	c := &op.Command{Kind: op.Merge, Source: op.Cursor{Stream: stream, Seq: d.m.State().Seq}}
	for _, change := range d.log() {
		if change.Local {
			c.Deltas = append(c.Deltas, op.Delta{Key: change.Key, State: change.Delta})
		}
	}
	return c
}

func TestPutKeepsTheOldItemWhenItsConditionFails(t *testing.T) {
	for _, solo := range []bool{true, false} {
		d := newDisk(t, "us-east-1")
		d.run(alter(solo), put(10, "a", "open"))
		c := put(20, "a", "closed")
		c.Condition = condition(t, "attribute_not_exists(pk)")
		before := d.m.State()
		r := d.one(c)
		var failed *op.ConditionFailed
		if !errors.As(r.Err, &failed) || show(failed.Item) != "pk=a state=open " || d.get("a") != "pk=a state=open " {
			t.Errorf("solo %v: %v; the item is %s", solo, r.Err, d.get("a"))
		}
		if s := d.m.State(); s.Seq != before.Seq || s.Clock != before.Clock || s.Applied != before.Applied+1 {
			t.Errorf("solo %v: a refused put led from %+v to %+v", solo, before, s)
		}
		c = put(20, "a", "closed")
		c.Condition = condition(t, "#s = :o")
		if r := d.one(c); r.Err != nil || show(r.Old) != "pk=a state=open " || show(r.New) != "pk=a state=closed " || d.get("a") != show(r.New) {
			t.Errorf("solo %v: %+v", solo, r)
		}
		d.check()
		d.close()
	}
}

func TestUpdateMakesTheItemWithItsKey(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false))
	r := d.one(update(t, 10, "a", "ADD n :n SET #s = :o"))
	if r.Err != nil || r.Old != nil || d.get("a") != "n=1 pk=a state=open " || show(r.New) != d.get("a") {
		t.Errorf("%+v: %s", r, d.get("a"))
	}
	c := update(t, 11, "b", "SET #s = :o")
	c.Condition = condition(t, "attribute_exists(pk)")
	if r := d.one(c); r.Err == nil || d.get("b") != "" {
		t.Errorf("%+v: %s", r, d.get("b"))
	}
	if r := d.one(&op.Command{Kind: op.Update, HLC: 12, Key: key("c")}); r.Err != nil || d.get("c") != "pk=c " {
		t.Errorf("an update that says nothing: %+v, %s", r, d.get("c"))
	}
	d.check()
}

func TestUpdatesThatCannotStandChangeNothing(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false), put(10, "a", "open"))
	before := d.rows("R")
	var key *table.KeyError
	if r := d.one(update(t, 11, "a", "SET #s = :n")); !errors.As(r.Err, &key) {
		t.Errorf("an index key of another type: %v", r.Err)
	}
	var wrong *expr.Error
	if r := d.one(update(t, 12, "a", "SET n = pk + :n")); !errors.As(r.Err, &wrong) {
		t.Errorf("a sum with a string: %v", r.Err)
	}
	big := expr.Given(nil, map[string]item.Value{":big": item.S(string(make([]byte, op.MaxItemSize)))})
	u, err := expr.ParseUpdate("SET b = :big", &big)
	if err != nil {
		t.Fatal(err)
	}
	c := update(t, 13, "a", "SET n = :n")
	c.Update = u
	if r := d.one(c); !errors.Is(r.Err, op.ErrUpdateTooLarge) {
		t.Errorf("an item too large: %v", r.Err)
	}
	if after := d.rows("R"); !slices.Equal(before, after) {
		t.Errorf("got %q, want %q", after, before)
	}
	d.check()
}

func TestDeleteTakesTheItemAndItsRows(t *testing.T) {
	for _, solo := range []bool{true, false} {
		d := newDisk(t, "us-east-1")
		d.run(alter(solo), put(10, "a", "open"), put(11, "b", "open"))
		c := remove(12, "a")
		c.Condition = condition(t, "#s = :c")
		if r := d.one(c); r.Err == nil || d.get("a") == "" {
			t.Errorf("solo %v: %+v", solo, r)
		}
		if r := d.one(remove(13, "a")); r.Err != nil || show(r.Old) != "pk=a state=open " || r.New != nil || d.get("a") != "" {
			t.Errorf("solo %v: %+v", solo, r)
		}
		seq := d.m.State().Seq
		// Where there are other regions, one of them may hold what is not here: they must hear of it.
		if r := d.one(remove(14, "never")); r.Err != nil || r.Old != nil || (d.m.State().Seq == seq) != solo {
			t.Errorf("solo %v: deleting nothing: %+v, seq %d then %d", solo, r, seq, d.m.State().Seq)
		}
		d.check()
		if got := len(d.rows("I")); got != 1 {
			t.Errorf("solo %v: %d index rows", solo, got)
		}
		d.close()
	}
}

func TestStampsRiseWhateverIsProposed(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false))
	last := crdt.HLC(0)
	for _, proposed := range []crdt.HLC{100, 100, 50, 200, 1} {
		r := d.one(put(proposed, "a", "open"))
		if r.Dot.HLC <= last || r.Dot.HLC < proposed || r.Dot.Actor != d.cfg.Actor {
			t.Errorf("proposed %d behind %d: %v", proposed, last, r.Dot)
		}
		last = r.Dot.HLC
	}
	other := newDisk(t, "eu-west-1")
	defer other.close()
	other.run(alter(false), put(5000, "a", "closed"))
	d.one(other.shipped("eu"))
	if r := d.one(put(300, "b", "open")); r.Dot.HLC <= 5000 {
		t.Errorf("a write behind one received at 5000 is stamped %v", r.Dot)
	}
	d.one(&op.Command{Kind: op.Merge, Observe: 9000})
	if r := d.one(put(300, "b", "open")); r.Dot.HLC <= 9000 {
		t.Errorf("a write behind a clock of 9000 is stamped %v", r.Dot)
	}
}

func TestMergingAgainChangesNothing(t *testing.T) {
	us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(10, "a", "open"), update(t, 11, "a", "ADD n :n"), put(12, "b", "open"), remove(13, "b"))
	eu.run(alter(false), update(t, 10, "a", "ADD n :n"))
	c := us.shipped("us/0/5")
	if r := eu.one(c); r.Err != nil || r.Applied != 4 {
		t.Fatalf("%+v", r)
	}
	if got := eu.m.Cursors()["us/0/5"]; got != 4 {
		t.Errorf("the cursor is at %d", got)
	}
	records, state := eu.rows("R"), eu.m.State()
	for name, again := range map[string]*op.Command{"whole": c, "an old part": {Kind: op.Merge, Deltas: c.Deltas[:2], Source: op.Cursor{Stream: "us/0/5", Seq: 2}}} {
		if r := eu.one(again); r.Err != nil || r.Applied != 0 || len(r.Conflicts) != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if got := eu.rows("R"); !slices.Equal(got, records) || eu.m.State().Seq != state.Seq || eu.m.Cursors()["us/0/5"] != 4 {
		t.Errorf("records %q, want %q; state %+v, was %+v; cursors %v", got, records, eu.m.State(), state, eu.m.Cursors())
	}
	us.one(eu.shipped("eu/0/5"))
	if us.get("a") != eu.get("a") || us.get("a") == "" || us.get("b") != "" {
		t.Errorf("us has %s, eu has %s", us.get("a"), eu.get("a"))
	}
	if !slices.Equal(us.rows("R"), eu.rows("R")) {
		t.Errorf("records\n%q\nand\n%q", us.rows("R"), eu.rows("R"))
	}
	us.check()
	eu.check()
	local := 0
	for _, change := range eu.log() {
		if change.Local {
			local++
		}
	}
	if local != 1 {
		t.Errorf("%d changes of eu's log are its own", local)
	}
}

func TestNothingIsTakenAnyMoreOfAnIncarnationThatWasGivenUp(t *testing.T) {
	us, eu := newDisk(t, "us"), newDisk(t, "eu")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(1000, "a", "open"))
	late := us.shipped("us/0/5")
	fenced := alter(false)
	fenced.Schema.Fences = []table.Fence{{Region: "us", Incarnation: 2}}
	eu.run(alter(false), fenced)
	for incarnation, taken := range []bool{false, false, true, true} {
		c := *late
		c.Source.Incarnation = uint16(incarnation)
		r := eu.one(&c)
		if errors.Is(r.Err, op.ErrFenced) == taken || (eu.get("a") != "") != taken {
			t.Errorf("of incarnation %d: %v, and %q is shown", incarnation, r.Err, eu.get("a"))
		}
	}
	// Nobody else is shut out.
	c := *late
	c.Source.Stream = "ap/0/5"
	if r := eu.one(&c); r.Err != nil {
		t.Errorf("of another region: %v", r.Err)
	}
}

func TestARottenDeltaIsRefused(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false))
	c := &op.Command{Kind: op.Merge, Deltas: []op.Delta{{Key: key("a"), State: []byte("rotten")}}, Source: op.Cursor{Stream: "eu", Seq: 3}}
	if r := d.one(c); !errors.Is(r.Err, crdt.ErrEncoding) || len(d.m.Cursors()) > 0 || len(d.rows("R")) > 0 {
		t.Errorf("%+v, cursors %v", r, d.m.Cursors())
	}
}

func TestADeltaFromBeforeTheItemWasFoldedAwayIsIgnored(t *testing.T) {
	us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(10, "a", "open"), remove(11, "a"))
	eu.run(alter(false))
	all := us.shipped("us")
	eu.one(all)
	if got := len(eu.rows("R")); got != 1 {
		t.Fatalf("%d records: the delete is remembered until it is stable", got)
	}
	eu.one(&op.Command{Kind: op.Fold, Stable: 20, Limit: 100})
	if got := eu.rows("R"); len(got) != 0 {
		t.Fatalf("folded away, and there is %q", got)
	}
	seq := eu.m.State().Seq
	if r := eu.one(&op.Command{Kind: op.Merge, Deltas: all.Deltas[:1]}); r.Err != nil || r.Applied != 0 || eu.get("a") != "" || eu.m.State().Seq != seq {
		t.Errorf("the put came back: %+v, %s", r, eu.get("a"))
	}
	eu.check()
}

func TestFoldingWalksTheLogAndTrimsWhatNobodyNeeds(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false))
	for i := range 10 {
		d.run(put(crdt.HLC(10+i), fmt.Sprint(i), "open"))
	}
	d.run(put(30, "3", "closed"), remove(31, "4"))
	if r := d.one(&op.Command{Kind: op.Fold, Stable: 19, Trim: 100, Limit: 4}); !r.More || d.m.State().Folded != 4 || d.m.State().Trimmed != 4 {
		t.Fatalf("%+v, %+v", r, d.m.State())
	}
	if r := d.one(&op.Command{Kind: op.Fold, Stable: 5, Trim: 7, Limit: 100}); r.More || d.m.State().Stable != 19 || d.m.State().Folded != 10 || d.m.State().Trimmed != 7 {
		t.Fatalf("%+v, %+v", r, d.m.State())
	}
	for i := range 10 {
		record, err := d.store.Get(nil, keyenc.Record(nil, tableID, key(fmt.Sprint(i))))
		if err != nil {
			t.Fatal(err)
		}
		r, err := crdt.Decode(record)
		if err != nil {
			t.Fatal(err)
		}
		if want := i != 3 && i != 4; r.IsFolded() != want {
			t.Errorf("item %d: folded %v", i, r.IsFolded())
		}
	}
	d.one(&op.Command{Kind: op.Fold, Stable: 100, Trim: 100, Limit: 100})
	if s := d.m.State(); s.Folded != 12 || s.Trimmed != 12 || s.Items != 9 || len(d.rows("R")) != 9 || len(d.log()) != 0 {
		t.Errorf("%+v, %d records", s, len(d.rows("R")))
	}
	d.check()
}

func TestARestoreIsThisRegionsOwnWrite(t *testing.T) {
	us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(10, "a", "closed"))
	eu.run(alter(false))
	r := us.one(&op.Command{Kind: op.Restore, HLC: 20, Deltas: []op.Delta{{Key: key("a"), State: stored("a", "open")}, {Key: key("b"), State: stored("b", "open")}}})
	if r.Err != nil || r.Applied != 2 || us.get("a") != "pk=a state=open " || us.get("b") != "pk=b state=open " {
		t.Fatalf("%+v: %s, %s", r, us.get("a"), us.get("b"))
	}
	eu.one(us.shipped("us"))
	if !slices.Equal(us.rows("R"), eu.rows("R")) {
		t.Error("what was restored did not arrive")
	}
	us.check()
}

func TestAnIndexThatGoesTakesItsRowsAndANewOneIsFilled(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(true))
	for i := range 5 {
		d.run(put(10, fmt.Sprint(i), "open"))
	}
	without := alter(true)
	without.Schema.Indexes = nil
	d.run(without)
	if got := d.rows("I"); len(got) != 0 {
		t.Fatalf("rows of no index: %q", got)
	}
	again := alter(true)
	again.Schema.Indexes[0].ID, again.Schema.Indexes[0].Backfilling = 2, true
	d.run(again, put(20, "9", "closed"))
	steps := 0
	for next := table.Key(nil); steps == 0 || next != nil; steps++ {
		r := d.one(&op.Command{Kind: op.Reindex, Key: next, Index: 2, Limit: 2})
		if r.Err != nil || steps > 3 {
			t.Fatalf("step %d: %+v", steps, r)
		}
		next = r.Next
	}
	if steps != 3 {
		t.Errorf("%d steps of 2 for 6 items", steps)
	}
	d.check()
	if r := d.one(&op.Command{Kind: op.Reindex, Index: 77, Limit: 2}); !errors.Is(r.Err, op.ErrNoIndex) || r.Next != nil {
		t.Errorf("of an index that is gone: %+v", r)
	}
}

// A node that has not heard of a newer definition proposes an older one: the index that the newer has added and filled
// stays.
func TestAnOlderSchemaChangesNothing(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	with, without := alter(true), alter(true)
	without.Schema.Indexes = nil
	with.Revision, without.Revision = 7, 5
	d.run(without, with, put(10, "a", "open"), without)
	for _, when := range []string{"at once", "after a restart"} {
		d.run(without, alter(true))
		if got := d.m.Schema(); len(got.Indexes) != 1 {
			t.Fatalf("%s: the partition follows %+v", when, got)
		}
		if rows := d.rows("I"); len(rows) != 1 {
			t.Fatalf("%s: index rows %q", when, rows)
		}
		d.check()
		d.reopen()
	}
	without.Revision = 8
	if d.run(without); len(d.m.Schema().Indexes) != 0 {
		t.Fatal("a newer schema is not followed")
	}
}

func TestConflictsAreKeptWhereTheLosingWriteWasAcknowledged(t *testing.T) {
	us, eu := newDisk(t, "us-east-1"), newDisk(t, "eu-west-1")
	defer us.close()
	defer eu.close()
	us.run(alter(false), put(10, "a", "open"))
	eu.run(alter(false), put(20, "a", "closed"))
	fromUs, fromEu := us.shipped("us"), eu.shipped("eu")
	fromUs.HLC, fromEu.HLC = 30, 30
	if r := eu.one(fromUs); len(r.Conflicts) != 1 || len(eu.rows("F")) != 0 {
		t.Errorf("eu, which won: %+v, %q", r, eu.rows("F"))
	}
	if r := us.one(fromEu); len(r.Conflicts) != 1 || len(us.rows("F")) != 1 {
		t.Errorf("us, which lost: %+v, %q", r, us.rows("F"))
	}
}

func TestConflictRecordsAreBoundedAndWhatIsShedIsCounted(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false))
	at := func(hours int64) crdt.HLC { return crdt.At(1_000_000+hours*3_600_000, 0) }
	lose := func(from, to int, detected crdt.HLC) {
		merge := &op.Command{Kind: op.Merge, HLC: detected}
		var puts []*op.Command
		for n := from; n < to; n++ {
			pk := fmt.Sprint(n)
			puts = append(puts, put(10, pk, "open"))
			w := crdt.Write{Dot: crdt.Dot{HLC: detected, Actor: crdt.NewActor("eu-west-1", 0)}, Origin: crdt.Origin{Op: crdt.Put}, Item: stored(pk, "closed")}
			merge.Deltas = append(merge.Deltas, op.Delta{Key: key(pk), State: (&crdt.Record{}).Write(w).Append(nil)})
		}
		d.run(puts...)
		if r := d.one(merge); r.Err != nil || len(r.Conflicts) != to-from {
			t.Fatal(r.Err, len(r.Conflicts))
		}
	}
	says := func(when string, kept, shed uint64, oldest crdt.HLC) {
		t.Helper()
		s := d.m.State()
		if s.Conflicts != kept || s.Shed != shed || s.Oldest != oldest || uint64(len(d.rows("F"))) != kept || (s.ConflictBytes == 0) != (kept == 0) {
			t.Fatalf("%s: %d records of %d bytes, shed %d, oldest %v; rows %d", when, s.Conflicts, s.ConflictBytes, s.Shed, s.Oldest, len(d.rows("F")))
		}
	}
	lose(0, 10, at(1))
	lose(10, maxConflicts, at(2))
	says("with room", maxConflicts, 0, at(1))
	fold := func(now crdt.HLC) { d.run(&op.Command{Kind: op.Fold, HLC: now, Limit: 2048}) }
	fold(at(2))
	says("folded with room", maxConflicts, 0, at(1))
	lose(maxConflicts, 2*maxConflicts+500, at(3))
	says("in a flood", 2*maxConflicts, 500, at(1))
	for s := d.m.State(); s.Overdue(at(3)); s = d.m.State() {
		fold(at(3))
	}
	says("after it", maxConflicts, 500+maxConflicts, at(3))
	d.reopen()
	says("after a restart", maxConflicts, 500+maxConflicts, at(3))
	if s := d.m.State(); s.Overdue(at(3+30*24)) || !s.Overdue(at(4+30*24)) {
		t.Error("not overdue after 30 days, or before")
	}
	for s := d.m.State(); s.Overdue(at(4 + 30*24)); s = d.m.State() {
		fold(at(4 + 30*24))
	}
	says("30 days later", 0, 500+maxConflicts, 0)
}

func TestCommandsBehindTheStateAreAFault(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false), nil, put(10, "a", "open"))
	if d.m.Applied() != 3 {
		t.Errorf("applied %d: an entry without a command counts", d.m.Applied())
	}
	if r := d.one(&op.Command{Kind: op.Catalog}); !errors.Is(r.Err, op.ErrEncoding) {
		t.Errorf("a command of another machine: %+v", r)
	}
	defer func() {
		if recover() == nil {
			t.Error("an entry was applied twice")
		}
	}()
	d.m.Apply(3, nil, d.store.NewBatch())
}

// history draws a sequence of commands, deltas of two other regions among them.
func history(t *rapid.T) []*op.Command {
	other := newDisk(t, "eu-west-1")
	defer other.close()
	other.run(alter(false))
	solo := rapid.Bool().Draw(t, "solo")
	commands := []*op.Command{alter(solo)}
	clock := 100 // it never falls below 0: a stamp has 60 bits
	updates := []string{"ADD n :n", "SET #s = :o", "SET #s = :c, n = :n", "REMOVE #s", "SET #s = :n", "SET n = n + :n"}
	for range rapid.IntRange(1, 30).Draw(t, "commands") {
		clock += rapid.IntRange(-1, 3).Draw(t, "time")
		pk := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "pk")
		write := func() *op.Command {
			var c *op.Command
			switch rapid.IntRange(0, 4).Draw(t, "write") {
			case 0:
				c = put(crdt.HLC(clock), pk, rapid.SampledFrom([]string{"open", "closed"}).Draw(t, "state"))
			case 1:
				c = remove(crdt.HLC(clock), pk)
			case 2:
				c = remove(crdt.HLC(clock), pk)
				c.Kind = op.Expire
			default:
				c = update(t, crdt.HLC(clock), pk, rapid.SampledFrom(updates).Draw(t, "update"))
			}
			if rapid.IntRange(0, 4).Draw(t, "conditional") == 0 {
				c.Condition = condition(t, rapid.SampledFrom([]string{"#s = :o", "attribute_not_exists(pk)"}).Draw(t, "condition"))
			}
			return c
		}
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0, 1:
			if !solo {
				other.one(write())
				all := other.shipped("eu-west-1/0/5")
				all.HLC = crdt.HLC(clock)
				all.Deltas = all.Deltas[rapid.IntRange(0, len(all.Deltas)).Draw(t, "from"):]
				commands = append(commands, all)
			}
		case 2:
			// Nothing that other has not shipped yet may count as stable.
			commands = append(commands, &op.Command{Kind: op.Fold, Stable: min(crdt.HLC(clock-5), other.m.State().Clock), Trim: uint64(clock - 8), Limit: rapid.IntRange(1, 5).Draw(t, "limit")})
		case 3:
			commands = append(commands, &op.Command{Kind: op.Restore, HLC: crdt.HLC(clock), Deltas: []op.Delta{{Key: key(pk), State: stored(pk, "open")}, {Key: key("d"), State: stored("d", "closed")}}})
		case 4:
			commands = append(commands, nil, &op.Command{Kind: op.Reindex, Index: 1, Limit: 2})
		default:
			commands = append(commands, write())
		}
	}
	return commands
}

func TestRunsAndRestartsMakeNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		commands := history(t)
		text := func(results []op.Result) (out []string) {
			for _, r := range results {
				out = append(out, fmt.Sprintf("%v old=%x new=%x %v %d %v %v %x", r.Err, r.Old, r.New, r.Dot, r.Applied, r.Conflicts, r.More, r.Next))
			}
			return out
		}
		// As one run.
		whole := newDisk(t, "us-east-1")
		defer whole.close()
		want := text(whole.run(commands...))
		whole.check()
		rows := whole.rows("")
		// One by one, each in its stored form, as a replay has it.
		single := newDisk(t, "us-east-1")
		defer single.close()
		var got []string
		for _, c := range commands {
			if c != nil {
				again, err := op.Decode(c.Append(nil))
				if err != nil {
					t.Fatal(err)
				}
				c = again
			}
			got = append(got, text(single.run(c))...)
			single.check()
		}
		if !slices.Equal(got, want) {
			t.Fatalf("one by one the results are\n%q\nwant\n%q", got, want)
		}
		if again := single.rows(""); !slices.Equal(again, rows) {
			t.Fatalf("one by one the store has\n%q\nwant\n%q", again, rows)
		}
		// In random runs, with restarts between.
		broken := newDisk(t, "us-east-1")
		defer func() { broken.close() }()
		got = nil
		for rest := commands; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "run")
			got = append(got, text(broken.run(rest[:n]...))...)
			rest = rest[n:]
			switch rapid.IntRange(0, 5).Draw(t, "then") {
			case 0:
				broken.reopen()
			case 1, 2:
				broken.open()
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("with restarts the results are\n%q\nwant\n%q", got, want)
		}
		if again := broken.rows(""); !slices.Equal(again, rows) {
			t.Fatalf("with restarts the store has\n%q\nwant\n%q", again, rows)
		}
	})
}

func TestItemsThatKeepMuchForMergingAreCounted(t *testing.T) {
	d := newDisk(t, "us-east-1")
	defer d.close()
	d.run(alter(false), put(10, "a", "open"))
	written := func(n int) {
		for i := range n {
			given := expr.Given(nil, map[string]item.Value{":e": item.NewSet(item.KindSS, []item.Value{item.S(fmt.Sprint(i))})})
			for j, source := range []string{"ADD tags :e", "DELETE tags :e"} {
				u, err := expr.ParseUpdate(source, &given)
				if err != nil {
					t.Fatal(err)
				}
				if r := d.one(&op.Command{Kind: op.Update, HLC: crdt.HLC(1000 + 2*i + j), Key: key("a"), Update: u}); r.Err != nil {
					t.Fatal(r.Err)
				}
			}
		}
	}
	if written(10); d.m.Large() != 0 {
		t.Error("ten elements that came and went are counted as much")
	}
	if written(100); d.m.Large() == 0 {
		t.Error("a hundred elements that came and went are not counted")
	}
	if n := d.m.Large(); n != 0 {
		t.Errorf("%d are counted twice", n)
	}
	d.one(fold(5000))
	if d.one(put(6000, "a", "open")); d.m.Large() != 0 {
		t.Error("it is counted when it has folded")
	}
}
