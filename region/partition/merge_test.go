package partition

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Goal: a partition that is empty, and no other, can be closed, and its left neighbour has its range from then on, with all that it knew.
// Method: the machines of both on one disk, and commands in the orders in which they may arrive.

var (
	middle = table.Key{0x80}
	last   = table.Key{0xf0}
)

// neighbours returns a machine of the keys below middle, and one of those from there up to last, on one disk.
func neighbours(t fatalT) (left, right *disk) {
	left = newDisk(t, "us-east-1")
	left.cfg.End = middle
	left.open()
	right = &disk{t: t, fs: left.fs, cfg: left.cfg, store: left.store}
	right.cfg.ID, right.cfg.Start, right.cfg.End = 6, middle, last
	right.open()
	left.run(alter(false))
	right.run(alter(false))
	return left, right
}

// named returns the name of an item that a partition holds.
func (d *disk) named(n int) string {
	for i := 0; ; i++ {
		if pk := fmt.Sprint("item ", i); d.m.cfg.holds(key(pk)) {
			if n--; n < 0 {
				return pk
			}
		}
	}
}

func closing(attempt uint64) *op.Command   { return &op.Command{Kind: op.Close, Attempt: attempt} }
func reopening(attempt uint64) *op.Command { return &op.Command{Kind: op.Reopen, Attempt: attempt} }
func absorbing(attempt uint64, given []byte) *op.Command {
	return &op.Command{Kind: op.Absorb, Key: middle, Child: 6, Attempt: attempt, Value: given}
}

func TestOnlyWhatIsEmptyIsClosed(t *testing.T) {
	left, d := neighbours(t)
	defer left.close()
	all := func(stable, trim uint64) *op.Command {
		return &op.Command{Kind: op.Fold, Stable: crdt.HLC(stable), Trim: trim, Limit: 100}
	}
	pk := d.named(0)
	for i, step := range []struct {
		what string
		do   *op.Command
	}{
		{"an item", put(10, pk, "open")},
		{"a record of one that was deleted", remove(20, pk)},
		{"a trace of it, and changes", all(30, 0)},
		{"a trace of it", all(30, 100)},
	} {
		d.one(step.do)
		if r := d.one(closing(uint64(i + 1))); !errors.Is(r.Err, op.ErrNotEmpty) || d.m.State().Span.Closed {
			t.Errorf("%s: %v, %+v", step.what, r.Err, d.m.State().Span)
		}
	}
	d.one(&op.Command{Kind: op.Forget, Stable: 30, Limit: 100})
	// Another region's delete of what was never here leaves nothing but a change.
	d.one(remove(40, d.named(1)))
	d.one(all(50, 1))
	d.one(&op.Command{Kind: op.Forget, Stable: 50, Limit: 100})
	if s := d.m.State(); s.Items != 0 || s.Folded != s.Seq || s.Trimmed == s.Seq || len(d.rows("R")) > 0 || len(d.rows("D")) > 0 {
		t.Fatalf("%+v: not what this is about", s)
	}
	if r := d.one(closing(5)); !errors.Is(r.Err, op.ErrNotEmpty) {
		t.Errorf("changes that a region has not had: %v", r.Err)
	}
	d.one(all(50, 100))
	// Of what other regions have made, nobody says that it has passed over it.
	other, eu := neighbours(t)
	defer other.close()
	eu.cfg.Actor = crdt.NewActor("eu-west-1", 0)
	eu.open()
	eu.run(put(60, pk, "open"), remove(61, pk))
	d.one(eu.shipped("eu"))
	if r := d.one(closing(5)); !errors.Is(r.Err, op.ErrNotEmpty) {
		t.Errorf("changes that are not folded: %v", r.Err)
	}
	d.one(all(70, 0))
	d.one(&op.Command{Kind: op.Forget, Stable: 70, Limit: 100})
	if s := d.m.State(); s.Trimmed == s.Seq || len(d.rows("R")) > 0 {
		t.Fatalf("%+v: not what this is about", s)
	}
	if r := d.one(closing(5)); r.Err != nil {
		t.Errorf("others' changes: %v", r.Err)
	}
	d.one(reopening(5))
	d.one(&op.Command{Kind: op.Split, Key: table.Key{0x90}, Child: 7, Limit: 1})
	if r := d.one(closing(6)); !errors.Is(r.Err, op.ErrBusy) {
		t.Errorf("while it is split: %v", r.Err)
	}
	if r := left.one(closing(7)); !errors.Is(r.Err, op.ErrMoved) {
		t.Errorf("one with nobody to its left: %v", r.Err)
	}
}

func TestWhatKeepsConflictsIsNotClosed(t *testing.T) {
	left, us := neighbours(t)
	defer left.close()
	other, eu := neighbours(t)
	defer other.close()
	eu.cfg.Actor = crdt.NewActor("eu-west-1", 0)
	eu.open()
	pk := us.named(0)
	us.run(put(10, pk, "open"))
	eu.run(put(20, pk, "closed"))
	come := eu.shipped("eu")
	come.HLC = 30
	us.run(come, remove(40, pk))
	us.one(&op.Command{Kind: op.Fold, Stable: 60, Trim: 100, Limit: 100})
	us.one(&op.Command{Kind: op.Forget, Stable: 60, Limit: 100})
	if s := us.m.State(); s.Conflicts != 1 || s.Trimmed != s.Seq {
		t.Fatalf("%+v: not what this is about", s)
	}
	if r := us.one(closing(1)); !errors.Is(r.Err, op.ErrNotEmpty) {
		t.Error(r.Err)
	}
}

func TestAClosedPartitionHoldsNothingUntilItIsReopened(t *testing.T) {
	left, d := neighbours(t)
	defer left.close()
	pk := d.named(0)
	first, again := d.one(closing(3)), d.one(closing(3))
	if first.Err != nil || again.Err != nil || first.Given == nil || string(first.Given) != string(again.Given) {
		t.Fatalf("%+v, and again %+v", first, again)
	}
	for what, c := range map[string]*op.Command{
		"put": put(10, pk, "open"), "delete": remove(10, pk), "fold": fold(10), "a cursor": {Kind: op.Merge, Source: op.Cursor{Stream: "eu", Seq: 9}}, "split": {Kind: op.Split, Key: table.Key{0x90}, Child: 7, Limit: 1},
	} {
		if r := d.one(c); !errors.Is(r.Err, op.ErrMoved) {
			t.Errorf("%s: %v", what, r.Err)
		}
	}
	for _, r := range d.m.Ranges() {
		if string(r[0][:1]) == string(keyenc.Record(nil, 1, nil)[:1]) {
			t.Errorf("it says that it has records from %x", r[0])
		}
	}
	if s := d.m.State().Span; !s.Closed || !slices.Equal(s.End, middle) {
		t.Errorf("%+v", s)
	}
	d.open()
	if r := d.one(put(10, pk, "open")); !errors.Is(r.Err, op.ErrMoved) {
		t.Errorf("read again from its disk: %v", r.Err)
	}
	if r := d.one(reopening(3)); r.Err != nil {
		t.Fatal(r.Err)
	}
	d.open()
	if r := d.one(put(10, pk, "open")); r.Err != nil || d.get(pk) == "" || !slices.Equal(d.m.State().Span.End, last) {
		t.Errorf("reopened: %v, %+v", r.Err, d.m.State().Span)
	}
}

func TestWhatComesLateOfAnAttemptHasNoEffect(t *testing.T) {
	left, d := neighbours(t)
	defer left.close()
	d.one(reopening(3)) // before the attempt's Close
	if r := d.one(closing(3)); !errors.Is(r.Err, op.ErrLate) || d.m.State().Span.Closed {
		t.Errorf("closed by an attempt that was given up: %v", r.Err)
	}
	given := d.one(closing(4)).Given
	if r := d.one(reopening(3)); !errors.Is(r.Err, op.ErrLate) || !d.m.State().Span.Closed {
		t.Errorf("reopened by an older attempt: %v", r.Err)
	}
	if r := d.one(closing(5)); !errors.Is(r.Err, op.ErrLate) {
		t.Errorf("closed twice: %v", r.Err)
	}
	left.one(absorbing(4, given))
	left.one(&op.Command{Kind: op.Split, Key: middle, Child: 9, Limit: 9})
	left.one(&op.Command{Kind: op.Split, Key: middle, Child: 9, Limit: 9})
	if s := left.m.State().Span; s.Child != 9 || !slices.Equal(s.End, middle) {
		t.Fatalf("%+v: it was to be split where it had been", s)
	}
	if r := left.one(absorbing(4, given)); r.Err != nil || !slices.Equal(left.m.State().Span.End, middle) {
		t.Errorf("it has taken in what is another's: %+v", left.m.State().Span)
	}
}

func TestAPartitionKnowsWhatThatKnewWhichItTakesIn(t *testing.T) {
	left, right := neighbours(t)
	defer left.close()
	here := left.named(0)
	left.run(put(10, here, "open"), &op.Command{Kind: op.Merge, Source: op.Cursor{Stream: "eu", Seq: 7, Clock: 5}}, &op.Command{Kind: op.Merge, Source: op.Cursor{Stream: "ap", Seq: 2, Clock: 4}})
	right.run(&op.Command{Kind: op.Merge, Observe: 99, Source: op.Cursor{Stream: "eu", Seq: 6, Clock: 8}}, &op.Command{Kind: op.Merge, Source: op.Cursor{Stream: "ap", Seq: 3, Clock: 3}}, &op.Command{Kind: op.Merge, Source: op.Cursor{Stream: "ap", Clock: 6, Part: true}})
	right.one(&op.Command{Kind: op.Fold, Stable: 80, Limit: 1})
	right.one(&op.Command{Kind: op.Forget, Stable: 70, Limit: 1})
	right.one(&op.Command{Kind: op.Split, Key: table.Key{0xc0}, Child: 8, Limit: 9})
	right.one(&op.Command{Kind: op.Split, Key: table.Key{0xc0}, Child: 8, Limit: 9})
	there, given := right.named(0), right.one(closing(20)).Given
	// Of a replica that was let go before it was closed.
	b := left.store.NewBatch()
	b.Set(keyenc.Record(nil, tableID, key(there)), []byte("left behind"))
	if err := left.store.Commit(b); err != nil {
		t.Fatal(err)
	}
	if r := left.one(absorbing(20, given)); r.Err != nil {
		t.Fatal(r.Err)
	}
	want := left.rows("")
	if r := left.run(absorbing(20, given), absorbing(19, given)); r[0].Err != nil || r[1].Err != nil {
		t.Fatal(r)
	}
	if left.open(); len(left.rows("")) != len(want) || len(left.rows("R")) != 1 {
		t.Errorf("to take it in again changes the store:\n%q\nwas\n%q", left.rows(""), want)
	}
	s := left.m.State()
	if s.Clock != 99 || s.Stable != 80 || s.Traced != 70 || !slices.Equal(s.Span.End, table.Key{0xc0}) || s.Span.Child != 0 {
		t.Errorf("%+v", s)
	}
	if c, h, sh := left.m.Cursors(), left.m.Clocks(), left.m.Shares(); c["eu"] != 7 || c["ap"] != 3 || h["eu"] != 8 || h["ap"] != 4 || sh["ap"] != 6 {
		t.Errorf("cursors %v, clocks %v, shares %v", c, h, sh)
	}
	// A write there is later than all that was there.
	if r := left.one(put(50, there, "open")); r.Err != nil || r.Dot.HLC != 100 || left.get(there) == "" {
		t.Errorf("%+v", r)
	}
	left.check()
	if r := right.one(put(51, there, "closed")); !errors.Is(r.Err, op.ErrMoved) {
		t.Errorf("the one that was taken in takes writes: %v", r.Err)
	}
	if r := left.one(&op.Command{Kind: op.Split, Key: middle, Child: 6, Limit: 9}); r.Err != nil || r.More || left.m.State().Span.Drafting {
		t.Errorf("a split that comes late makes the partition again that was taken in: %+v", r)
	}
	if r := left.one(&op.Command{Kind: op.Absorb, Key: middle, Attempt: 30, Value: given}); !errors.Is(r.Err, op.ErrMoved) {
		t.Errorf("what does not begin where it ends is taken in: %v", r.Err)
	}
}

func TestThePartitionThatTakesInHasOtherWorkFirst(t *testing.T) {
	left, right := neighbours(t)
	defer left.close()
	d := left.named(3)
	for i := range 5 {
		left.one(put(10, left.named(i), "open"))
	}
	given := right.one(closing(20)).Given
	at := key(d)[:8]
	for r := left.one(&op.Command{Kind: op.Split, Key: at, Child: 8, Limit: 9}); ; r = left.one(&op.Command{Kind: op.Split, Key: at, Child: 8, Limit: 9}) {
		if got := left.one(absorbing(20, given)); r.More && !errors.Is(got.Err, op.ErrBusy) {
			t.Errorf("while it is split: %v", got.Err)
		}
		if !r.More {
			break
		}
	}
	if !left.m.State().Span.Prune {
		t.Fatal("no rows are left: not what this is about")
	}
	if r := left.one(absorbing(20, given)); !errors.Is(r.Err, op.ErrBusy) {
		t.Errorf("while rows are left of what was split off: %v", r.Err)
	}
}

func TestReplicasCloseAndTakeInAlikeInWhateverRuns(t *testing.T) {
	commands := func(left, right *disk) (of [2][]*op.Command) {
		given := []byte(`{"End":"8A==","Clock":99,"Stable":0,"Traced":0,"Shed":2,"Cursors":{"ap":3,"eu":6},"Clocks":null,"Shares":null}`)
		of[0] = []*op.Command{put(10, left.named(0), "open"), absorbing(8, given), absorbing(9, given), put(11, right.named(0), "open"), absorbing(9, given)}
		of[1] = []*op.Command{put(10, right.named(0), "open"), closing(7), remove(20, right.named(0)), fold(30), {Kind: op.Fold, Trim: 9, Limit: 9}, {Kind: op.Forget, Stable: 30, Limit: 9}, closing(8), reopening(8), closing(8), closing(9), put(40, right.named(0), "x"), closing(9)}
		return of
	}
	var want []string
	for _, run := range []int{100, 1, 2, 3} {
		left, right := neighbours(t)
		of := commands(left, right)
		for n, d := range []*disk{right, left} {
			for rest := of[1-n]; len(rest) > 0; rest = rest[min(run, len(rest)):] {
				d.run(rest[:min(run, len(rest))]...)
				if run > 1 {
					d.open()
				}
			}
		}
		if got := left.rows(""); want == nil {
			want = got
		} else if !slices.Equal(got, want) {
			t.Errorf("in runs of %d the store has\n%q\nwant\n%q", run, got, want)
		}
		left.close()
	}
}
