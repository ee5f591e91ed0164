package crdt

import (
	"bytes"
	"slices"
	"testing"

	"github.com/commutatordb/commutator/item"
)

// The sentences of MERGE.md that give an example, each in every order of delivery. A script has regions
// that write on what they hold, and passes deltas between them.

func num(i int64) item.Value { return item.N(item.NumberFromInt(i)) }

func strs(s ...string) item.Value {
	var members []item.Value
	for _, m := range s {
		members = append(members, item.S(m))
	}
	return item.NewSet(item.KindSS, members)
}

func doc(fields ...item.Field) item.Item { return item.NewItem(append(fields, key)...) }

func field(name string, v item.Value) item.Field { return item.Field{Name: name, Value: v} }

// script is a region's record and what it shipped.
type script struct {
	t     *testing.T
	actor Actor
	rec   Record
	sent  []*Record
}

func regions(t *testing.T) (a, b, c *script) {
	return &script{t: t, actor: 1 << 10}, &script{t: t, actor: 2 << 10}, &script{t: t, actor: 3 << 10}
}

func (s *script) shows() item.Item {
	b, ok := s.rec.Visible()
	if !ok {
		return nil
	}
	it, err := item.DecodeItem(b)
	if err != nil {
		s.t.Fatal(err)
	}
	return it
}

func (s *script) write(w Write, at HLC) *Record {
	w.Dot = Dot{at, s.actor}
	d := s.rec.Write(w)
	s.sent = append(s.sent, d)
	return d
}

func (s *script) put(at HLC, fields ...item.Field) *Record {
	return s.write(Write{Origin: Origin{Op: Put}, Item: item.AppendItem(nil, doc(fields...))}, at)
}

func (s *script) del(at HLC) *Record    { return s.write(Write{Origin: Origin{Op: Delete}}, at) }
func (s *script) expire(at HLC) *Record { return s.write(Write{Origin: Origin{Op: Expire}}, at) }

func (s *script) update(at HLC, changes ...item.Change) *Record {
	after := s.shows()
	if after == nil {
		after = doc()
	}
	before := after
	for _, c := range changes {
		after = assignAt(after, c.Path, sequential(before.LookupKeys(c.Path), c))
	}
	return s.write(Write{Origin: Origin{Op: Update}, Item: item.AppendItem(nil, after), Changes: changes}, at)
}

func change(kind item.ChangeKind, v item.Value, path ...string) item.Change {
	return item.Change{Kind: kind, Path: path, Value: v}
}

func (s *script) take(from ...*script) []Conflict {
	var out []Conflict
	for _, f := range from {
		for _, d := range f.sent {
			out = append(out, s.rec.Join(d)...)
		}
	}
	return out
}

// converge joins all deltas of all regions in every order that is FIFO for each origin, in and out of
// their stored form, and checks that the item shown is want (nil: none).
func converge(t *testing.T, want item.Item, regions ...*script) {
	t.Helper()
	var shape []byte
	var walk func(r Record, pos []int)
	orders := 0
	walk = func(r Record, pos []int) {
		done := true
		for i, s := range regions {
			if pos[i] == len(s.sent) {
				continue
			}
			done = false
			d, err := Decode(s.sent[pos[i]].Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			next := r
			next.Join(d)
			p := slices.Clone(pos)
			p[i]++
			walk(next, p)
		}
		if !done {
			return
		}
		orders++
		b, ok := r.Visible()
		if !sameItem(b, ok, want, want != nil) {
			t.Fatalf("shows %s, want %s", show(b, ok), text(want.AsMap()))
		}
		stored := r.Append(nil)
		if shape == nil {
			shape = stored
		}
		if !bytes.Equal(stored, shape) {
			t.Fatalf("equal states in different bytes")
		}
	}
	walk(Record{}, make([]int, len(regions)))
	if orders == 0 {
		t.Fatal("no order tried")
	}
}

func TestSetAgainstAnUnseenAddIsTheSetPlusTheAdd(t *testing.T) {
	for _, first := range []HLC{20, 30} { // either may be later
		a, b, _ := regions(t)
		a.put(10, field("n", num(1)))
		b.take(a)
		a.update(first, change(item.Assign, num(5), "n"))
		b.update(50-first, change(item.Increment, num(1), "n"))
		converge(t, doc(field("n", num(6))), a, b)
	}
}

func TestTwoRegionsThatUpsertAnAddCountBoth(t *testing.T) {
	a, b, _ := regions(t)
	a.update(10, change(item.Increment, num(1), "views"))
	b.update(11, change(item.Increment, num(1), "views"))
	converge(t, doc(field("views", num(2))), a, b)
}

func TestConcurrentPutsNeverMixTheirFields(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)), field("only-a", num(1)))
	b.put(11, field("x", num(2)), field("only-b", num(2)))
	converge(t, doc(field("x", num(2)), field("only-b", num(2))), a, b)
	conflicts := a.take(b)
	if len(conflicts) != 1 || conflicts[0].Class != ClassConcurrentAssign || conflicts[0].Path != nil ||
		conflicts[0].Winner.Dot.HLC != 11 || conflicts[0].Loser.Dot.HLC != 10 || conflicts[0].Loser.Op != Put {
		t.Fatalf("conflicts %+v", conflicts)
	}
	lost, err := item.DecodeValue(conflicts[0].Loser.Value)
	if err != nil || !item.Equal(lost, doc(field("x", num(1)), field("only-a", num(1))).AsMap()) {
		t.Fatalf("the loser's value is %s, %v", text(lost), err)
	}
	if again := b.take(a); len(again) != 1 || again[0].ID(nil) != conflicts[0].ID(nil) {
		t.Fatalf("the other region records %+v", again)
	}
	if again := a.take(b); again != nil {
		t.Fatalf("delivered again it records %+v", again)
	}
}

func TestTiesFallToTheActorNotToArrival(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.put(10, field("x", num(2)))
	converge(t, doc(field("x", num(2))), a, b)
}

func TestEditsOfOtherPathsAreKept(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("m", item.M(field("x", num(1)), field("y", num(1)))))
	b.take(a)
	a.update(20, change(item.Assign, num(2), "m", "x"))
	b.update(21, change(item.Assign, num(3), "m", "y"))
	converge(t, doc(field("m", item.M(field("x", num(2)), field("y", num(3))))), a, b)
}

func TestSetEditsOfBothRegionsAreKept(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("s", strs("p", "q")))
	b.take(a)
	a.update(20, change(item.AddElements, strs("r"), "s"))
	b.update(21, change(item.RemoveElements, strs("p"), "s"))
	converge(t, doc(field("s", strs("q", "r"))), a, b)
}

func TestAnAddUnseenByARemoveStays(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("s", strs("p", "q")))
	b.take(a)
	a.update(20, change(item.AddElements, strs("p"), "s"))
	b.update(21, change(item.RemoveElements, strs("p"), "s"))
	converge(t, doc(field("s", strs("p", "q"))), a, b)
}

func TestAnEmptiedSetIsAbsent(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("s", strs("p", "q")))
	b.take(a)
	a.update(20, change(item.RemoveElements, strs("q"), "s"))
	b.update(21, change(item.RemoveElements, strs("p"), "s"))
	converge(t, doc(), a, b)
}

func TestAppendsFollowTheBaseInDotOrder(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("l", item.L(num(1))))
	b.take(a)
	a.update(20, change(item.Append, item.L(num(2)), "l"))
	b.update(21, change(item.Append, item.L(num(3)), "l"))
	a.update(22, change(item.Append, item.L(num(4)), "l"))
	converge(t, doc(field("l", item.L(num(1), num(2), num(3), num(4)))), a, b)
}

func TestADeleteBeatsAnUnseenEarlierWrite(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	a.update(20, change(item.Assign, num(2), "x"))
	b.del(21)
	converge(t, nil, a, b)
	conflicts := a.take(b)
	if len(conflicts) != 1 || conflicts[0].Class != ClassDeleteVsWrite || conflicts[0].Rule != RuleDeleteAfterWrite ||
		conflicts[0].Loser.Dot.HLC != 20 || conflicts[0].Stands != nil {
		t.Fatalf("conflicts %+v", conflicts)
	}
	if other := b.take(a); len(other) != 1 || other[0].ID(nil) != conflicts[0].ID(nil) {
		t.Fatalf("the other region records %+v", other)
	}
}

func TestWhereTheWriteWinsTheItemComesBackWhole(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)), field("y", num(1)))
	b.take(a)
	b.del(20)
	a.update(21, change(item.Assign, num(2), "x"))
	converge(t, doc(field("x", num(2)), field("y", num(1))), a, b)
	conflicts := b.take(a)
	if len(conflicts) != 1 || conflicts[0].Class != ClassDeleteVsWrite || conflicts[0].Rule != RuleWriteAfterDelete ||
		conflicts[0].Loser.Op != Delete || conflicts[0].Winner.Op != Update {
		t.Fatalf("conflicts %+v", conflicts)
	}
}

func TestWhatLayBeneathASeenDeleteNeverComesBack(t *testing.T) {
	a, b, c := regions(t)
	a.put(10, field("x", num(1)), field("n", num(7)))
	b.take(a)
	c.take(a)
	a.del(20)
	b.take(a)
	// Both write after the delete, each in its own region: merged as for a new item.
	a.update(30, change(item.Increment, num(1), "n"))
	b.update(31, change(item.Increment, num(1), "n"))
	// Earlier than the delete, and unseen by it: lost with the item.
	c.update(15, change(item.Assign, num(9), "x"))
	converge(t, doc(field("n", num(2))), a, b, c)
}

func TestAnExpiryLosesToAnyWriteItHadNotSeen(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	b.update(20, change(item.Assign, num(2), "x")) // earlier than the expiry
	a.expire(30)
	converge(t, doc(field("x", num(2))), a, b)
	conflicts := a.take(b)
	if len(conflicts) != 1 || conflicts[0].Rule != RuleExpiryUnseen || conflicts[0].Loser.Op != Expire {
		t.Fatalf("conflicts %+v", conflicts)
	}
}

func TestAnExpiryDeletesWhatItHadSeen(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	b.expire(20)
	converge(t, nil, a, b)
	a.take(b)
	a.update(30, change(item.Increment, num(1), "n"))
	converge(t, doc(field("n", num(1))), a, b)
}

// A write after several deletes turns them all: what a delete did away with does not come back because the item, made anew, expired since.
func TestAnExpiryDoesNotBringBackWhatAnEarlierDeleteTook(t *testing.T) {
	a, b, c := regions(t)
	a.update(10, change(item.Increment, num(7), "n")) // unseen by all that b does, and by c's expiry
	b.put(12, field("x", num(1)))
	c.update(13, change(item.Increment, num(5), "n"))
	b.del(14)
	b.put(16, field("x", num(2)))
	b.expire(18)
	b.update(30, change(item.Increment, num(1), "n"))
	converge(t, doc(field("n", num(1))), a, b, c)
}

func TestAnExpiryDoesNotBringBackWhatAnotherExpiryTook(t *testing.T) {
	a, b, c := regions(t)
	a.update(10, change(item.Increment, num(7), "n"))
	c.take(a)
	c.expire(11)
	b.put(12, field("x", num(1)))
	b.expire(18)
	b.take(c)
	b.update(30, change(item.Increment, num(1), "n"))
	c.take(b) // another who has seen both, and one who has seen the greater alone
	c.update(31, change(item.Assign, num(3), "y"))
	converge(t, doc(field("n", num(1)), field("y", num(3))), a, b, c)
}

// Streams of different origins do not wait for each other: what a remover has seen may come behind it.
func TestARemoverIsKeptWhileWhatItRemovedMayStillCome(t *testing.T) {
	a, b, c := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	c.take(a)
	a.update(20, change(item.AddElements, strs("e"), "s"))
	c.take(a)
	c.update(30, change(item.RemoveElements, strs("e"), "s"))
	b.take(c)
	b.rec.Trim(15)
	b.take(a)
	if shown := b.shows(); !shown.Get("s").IsAbsent() {
		t.Fatalf("shows %s", text(shown.AsMap()))
	}
}

func TestAMaskedEditIsRecordedAndStaysHidden(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("n", num(1)))
	b.take(a)
	a.update(20, change(item.Assign, item.S("text"), "n"))
	b.update(21, change(item.Increment, num(1), "n"))
	converge(t, doc(field("n", item.S("text"))), a, b)
	conflicts := b.take(a)
	if len(conflicts) != 1 || conflicts[0].Class != ClassTypeMasked || conflicts[0].Path[0] != "n" || conflicts[0].Loser.Dot.HLC != 21 {
		t.Fatalf("conflicts %+v", conflicts)
	}
	if other := a.take(b); len(other) != 1 || other[0].ID(nil) != conflicts[0].ID(nil) {
		t.Fatalf("the other region records %+v", other)
	}
}

func TestTheNewestKindOfLiveEditDecidesOverAnAbsentBase(t *testing.T) {
	a, b, _ := regions(t)
	a.update(10, change(item.Increment, num(1), "v"))
	b.update(11, change(item.AddElements, strs("p"), "v"))
	converge(t, doc(field("v", strs("p"))), a, b)
}

func TestLiveChildrenMakeAMap(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("m", item.M(field("n", num(1)))))
	b.take(a)
	a.update(21, change(item.Assign, item.Value{}, "m"))
	b.update(20, change(item.Increment, num(2), "m", "n"))
	converge(t, doc(field("m", item.M(field("n", num(2))))), a, b)
}

func TestEqualValuesAreNoConflict(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	a.update(20, change(item.Assign, num(2), "x"))
	b.update(21, change(item.Assign, num(2), "x"))
	if c := slices.Concat(a.take(b), b.take(a)); c != nil {
		t.Fatalf("conflicts %+v", c)
	}
}

func TestWhatTheWinnerHadSeenIsNoConflict(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	b.put(20, field("x", num(2)))
	a.take(b)
	a.del(30)
	b.take(a)
	b.put(40, field("x", num(3)))
	if c := slices.Concat(a.take(b), b.take(a)); c != nil {
		t.Fatalf("conflicts %+v", c)
	}
}

// What a write leaves of a delete is not one more writer: who lost to the delete is told once, by the
// delete, and a write that had seen it is in no conflict with it, though it came first.
func TestATurnedDeleteIsNoWriteOfItsOwn(t *testing.T) {
	a, b, c := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	c.take(a)
	c.del(20)
	b.take(c)
	b.update(30, change(item.Assign, num(3), "y"))
	if got := a.take(b); got != nil {
		t.Fatalf("conflicts %+v", got)
	}
	if got := a.take(c); got != nil {
		t.Fatalf("conflicts %+v", got)
	}
	d := &script{t: t, actor: 4 << 10}
	d.rec.Join(a.sent[0])
	d.update(15, change(item.Assign, num(2), "x")) // loses to the delete
	if got := d.take(b); got != nil {
		t.Fatalf("conflicts %+v", got)
	}
	got := d.take(c)
	if len(got) != 1 || got[0].Class != ClassDeleteVsWrite || got[0].Loser.Dot.HLC != 15 || got[0].Winner.Dot.HLC != 20 {
		t.Fatalf("conflicts %+v", got)
	}
}

func TestAnUnseenAssignmentBelowAPutIsAConflictOfItsPath(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)))
	b.take(a)
	a.put(20, field("x", num(2)), field("y", num(2)))
	b.update(21, change(item.Assign, num(3), "x"))
	converge(t, doc(field("x", num(3)), field("y", num(2))), a, b)
	c := a.take(b)
	if len(c) != 1 || len(c[0].Path) != 1 || c[0].Path[0] != "x" || c[0].Loser.Dot.HLC != 20 {
		t.Fatalf("conflicts %+v", c)
	}
	if other := b.take(a); len(other) != 1 || other[0].ID(nil) != c[0].ID(nil) {
		t.Fatalf("the other region records %+v", other)
	}
}

func TestSumsAreExactInsideAndRoundedWhenShown(t *testing.T) {
	parse := func(s string) item.Value {
		n, err := item.ParseNumber(s)
		if err != nil {
			t.Fatal(err)
		}
		return item.N(n)
	}
	a, b, c := regions(t)
	a.put(10, field("n", num(0)))
	b.take(a)
	c.take(a)
	a.update(20, change(item.Increment, parse("9e37"), "n"))
	b.update(21, change(item.Increment, parse("0.1"), "n"))
	conflicts := a.take(b)
	if len(conflicts) != 1 || conflicts[0].Class != ClassNumericOverflow || conflicts[0].Path[0] != "n" {
		t.Fatalf("conflicts %+v", conflicts)
	}
	if !item.Equal(a.shows().Get("n"), parse("9e37")) {
		t.Fatalf("shows %s", text(a.shows().AsMap()))
	}
	c.update(22, change(item.Increment, parse("-9e37"), "n"))
	converge(t, doc(field("n", parse("0.1"))), a, b, c)
}

func TestAnItemOverTheLimitIsStoredAndRecorded(t *testing.T) {
	big := func(c string) item.Value { return item.S(string(bytes.Repeat([]byte(c), 300_000))) }
	a, b, _ := regions(t)
	a.put(10)
	b.take(a)
	a.update(20, change(item.Assign, big("a"), "a"))
	b.update(21, change(item.Assign, big("b"), "b"))
	conflicts := a.take(b)
	if len(conflicts) != 1 || conflicts[0].Class != ClassLimitExceeded {
		t.Fatalf("%d conflicts", len(conflicts))
	}
	converge(t, doc(field("a", big("a")), field("b", big("b"))), a, b)
}

func TestLosingPartOfATransactionIsTold(t *testing.T) {
	a, b, _ := regions(t)
	w := Write{Origin: Origin{Op: Put, Conditional: true, Transaction: Transaction{ID: [16]byte{7}, Items: 2}}, Item: item.AppendItem(nil, doc())}
	a.write(w, 10)
	b.put(11, field("x", num(1)))
	c := a.take(b)
	if len(c) != 1 || c[0].Class != ClassTransactionTorn || c[0].Loser.Transaction.ID[0] != 7 {
		t.Fatalf("conflicts %+v", c)
	}
}

func TestLosingAConditionalWriteIsTold(t *testing.T) {
	a, b, _ := regions(t)
	a.write(Write{Origin: Origin{Op: Put, Conditional: true}, Item: item.AppendItem(nil, doc())}, 10)
	b.put(11, field("x", num(1)))
	if c := a.take(b); len(c) != 1 || c[0].Class != ClassConditionOverturned || c[0].Rule != RuleLaterDot {
		t.Fatalf("conflicts %+v", c)
	}
}

func TestLastWriterWinsKeepsWholeItemsAndRecordsTheLoser(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)), field("y", num(1)))
	b.take(a)
	lww := Modes{Table: LastWriterWins}
	a.write(Write{Origin: Origin{Op: Update}, Modes: lww,
		Item:    item.AppendItem(nil, doc(field("x", num(2)), field("y", num(1)))),
		Changes: []item.Change{change(item.Assign, num(2), "x")}}, 20)
	b.write(Write{Origin: Origin{Op: Update}, Modes: lww,
		Item:    item.AppendItem(nil, doc(field("x", num(1)), field("y", num(5)))),
		Changes: []item.Change{change(item.Increment, num(4), "y")}}, 21)
	converge(t, doc(field("x", num(1)), field("y", num(5))), a, b)
	if c := a.take(b); len(c) != 1 || c[0].Loser.Dot.HLC != 20 {
		t.Fatalf("conflicts %+v", c)
	}
}

func TestAnAttributeMayMergeInALastWriterWinsTable(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("x", num(1)), field("n", num(1)))
	b.take(a)
	modes := Modes{Table: LastWriterWins, Attributes: map[string]Mode{"n": Merge}}
	a.write(Write{Origin: Origin{Op: Update}, Modes: modes,
		Item:    item.AppendItem(nil, doc(field("x", num(2)), field("n", num(2)))),
		Changes: []item.Change{change(item.Assign, num(2), "x"), change(item.Increment, num(1), "n")}}, 20)
	b.write(Write{Origin: Origin{Op: Update}, Modes: modes,
		Item:    item.AppendItem(nil, doc(field("x", num(1)), field("n", num(5)))),
		Changes: []item.Change{change(item.Increment, num(4), "n")}}, 21)
	converge(t, doc(field("x", num(1)), field("n", num(6))), a, b)
}

func TestAnAttributeMayBeLastWriterWinsInAMergeTable(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("n", num(1)))
	b.take(a)
	modes := Modes{Attributes: map[string]Mode{"n": LastWriterWins}}
	for i, s := range []*script{a, b} {
		s.write(Write{Origin: Origin{Op: Update}, Modes: modes,
			Item:    item.AppendItem(nil, doc(field("n", num(int64(2+i))))),
			Changes: []item.Change{change(item.Increment, num(int64(1+i)), "n")}}, HLC(20+i))
	}
	converge(t, doc(field("n", num(3))), a, b)
}

func TestADeletedItemFoldsAwayAndStaysAway(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("n", num(3)))
	old := a.sent[0]
	b.take(a)
	a.del(20)
	b.take(a)
	if !a.rec.Fold(25) {
		t.Fatal("not gone")
	}
	if !old.Stale(25) {
		t.Fatal("a delta from before would bring it back")
	}
	// Here the record is gone, there it is not: a new item must come out the same.
	a.write(Write{Origin: Origin{Op: Put}, Item: item.AppendItem(nil, doc()), Stable: 25}, 30)
	b.update(31, change(item.Increment, num(1), "n"))
	a.rec.Join(b.sent[0])
	b.rec.Join(a.sent[2])
	if want := doc(field("n", num(1))); !sameItem(item.AppendItem(nil, a.shows()), true, want, true) || !sameItem(item.AppendItem(nil, b.shows()), true, want, true) {
		t.Fatalf("shows %s and %s", text(a.shows().AsMap()), text(b.shows().AsMap()))
	}
	a.rec.Fold(40)
	b.rec.Fold(40)
	if !bytes.Equal(a.rec.Append(nil), b.rec.Append(nil)) {
		t.Fatal("folded to different bytes")
	}
}

// The region that dropped the record no longer knows the delete; the other holds all beneath it yet.
func TestAnUpdateOverAFoldedAwayDeleteMakesANewItemEverywhere(t *testing.T) {
	for _, put := range []bool{false, true} {
		a, b, _ := regions(t)
		a.put(10, field("x", num(3)))
		b.take(a)
		b.update(11, change(item.Increment, num(7), "n"))
		a.take(b)
		a.del(20)
		b.take(a)
		if !a.rec.Fold(25) {
			t.Fatal("not gone")
		}
		w := Write{Origin: Origin{Op: Update}, Item: item.AppendItem(nil, doc(field("n", num(1)))), Stable: 25,
			Changes: []item.Change{change(item.Increment, num(1), "n")}}
		if put {
			w = Write{Origin: Origin{Op: Put}, Item: w.Item, Stable: 25}
		}
		b.rec.Join(a.write(w, 30))
		for _, s := range []*script{a, b} {
			if got, want := s.shows(), doc(field("n", num(1))); !item.Equal(got.AsMap(), want.AsMap()) {
				t.Errorf("put %v: shows %s, want %s", put, text(got.AsMap()), text(want.AsMap()))
			}
		}
	}
}

// c holds the deleted record beneath a write whose cause is still on its way, and counts on there. The put
// of a, which had dropped the record, had seen the old total all the same.
func TestACounterDoesNotGoOnAcrossADelete(t *testing.T) {
	a, b, c := regions(t)
	c.update(10, change(item.Increment, num(4), "n"))
	a.take(c)
	b.take(c)
	b.del(20)
	a.take(b)
	c.take(b)
	if !a.rec.Fold(25) {
		t.Fatal("not gone")
	}
	put := a.write(Write{Origin: Origin{Op: Put}, Item: item.AppendItem(nil, doc()), Stable: 25}, 30)
	b.rec.Join(put)
	c.rec.Join(b.update(40, change(item.Increment, num(2), "n")))
	last := c.update(50, change(item.Increment, num(1), "n"))
	c.rec.Join(put)
	a.rec.Join(b.sent[1])
	a.rec.Join(last)
	for _, s := range []*script{a, c} {
		if got, want := s.shows(), doc(field("n", num(3))); !item.Equal(got.AsMap(), want.AsMap()) {
			t.Errorf("shows %s, want %s", text(got.AsMap()), text(want.AsMap()))
		}
	}
}

// What a set masks shows when the set is emptied, whether or not it was folded in between.
func TestWhatASetMasksOutlivesFolding(t *testing.T) {
	for _, masked := range []item.Change{
		change(item.Append, item.L(num(1)), "v"),
		change(item.AddElements, item.NewSet(item.KindNS, []item.Value{num(1)}), "v"),
		change(item.Increment, num(1), "v"),
	} {
		a, b, _ := regions(t)
		a.put(10)
		b.take(a)
		a.update(21, change(item.AddElements, strs("p", "q"), "v"))
		b.update(20, masked)
		a.take(b)
		b.take(a)
		a.rec.Fold(30)
		// Each takes one member out; together they empty it.
		a.update(40, change(item.RemoveElements, strs("p"), "v"))
		b.update(41, change(item.RemoveElements, strs("q"), "v"))
		a.take(b)
		b.take(a)
		want := doc(field("v", sequential(item.Value{}, masked)))
		for _, s := range []*script{a, b} {
			if got := s.shows(); !item.Equal(got.AsMap(), want.AsMap()) {
				t.Errorf("shows %s, want %s", text(got.AsMap()), text(want.AsMap()))
			}
		}
		a.rec.Fold(50)
		b.rec.Fold(50)
		if !bytes.Equal(a.rec.Append(nil), b.rec.Append(nil)) {
			t.Errorf("folded to different bytes")
		}
	}
}

// A set whose live adds are all removed does not hide what it masked.
func TestASetWithoutMembersMasksNothing(t *testing.T) {
	a, b, c := regions(t)
	a.put(10)
	b.take(a)
	c.take(a)
	a.update(21, change(item.AddElements, strs("p", "q"), "v"))
	b.update(20, change(item.Increment, num(1), "v"))
	c.take(a)
	a.update(30, change(item.RemoveElements, strs("p"), "v"))
	c.update(31, change(item.RemoveElements, strs("q"), "v"))
	converge(t, doc(field("v", num(1))), a, b, c)
}

func TestASteadyRecordCostsTwelveBytes(t *testing.T) {
	a, _, _ := regions(t)
	a.put(At(1_700_000_000_000, 3), field("x", num(1)), field("s", strs("p", "q")))
	a.update(At(1_700_000_000_001, 0), change(item.AddElements, strs("r"), "s"), change(item.Assign, num(2), "x"))
	a.rec.Fold(At(1_700_000_000_001, 0))
	shown, _ := a.rec.Visible()
	if b := a.rec.Append(nil); len(b) != len(shown)+12 {
		t.Fatalf("%d bytes beyond the item", len(b)-len(shown))
	}
	if !bytes.Equal(a.rec.Append(nil), AppendFolded(nil, a.rec.Newest(), shown)) {
		t.Fatal("AppendFolded writes another form")
	}
}

func TestAnItemShowsItsKeyBeforeTheWriteThatMadeIt(t *testing.T) {
	a, b, _ := regions(t)
	a.put(10, field("n", num(1)))
	b.take(a)
	b.update(20, change(item.Increment, num(1), "n"))
	r := Record{Key: item.AppendItem(nil, doc())}
	r.Join(b.sent[0])
	got, ok := r.Visible()
	if want := doc(field("n", num(1))); !sameItem(got, ok, want, true) {
		t.Fatalf("shows %s", show(got, ok))
	}
	r.Join(a.sent[0])
	got, ok = r.Visible()
	if want := doc(field("n", num(2))); !sameItem(got, ok, want, true) {
		t.Fatalf("shows %s", show(got, ok))
	}
}

func TestAWriteMustBeLaterThanWhatItHasSeen(t *testing.T) {
	a, _, _ := regions(t)
	a.put(10)
	defer func() {
		if recover() == nil {
			t.Fatal("taken")
		}
	}()
	a.put(10)
}

func TestClockOnlyRises(t *testing.T) {
	var c Clock
	for i, step := range []struct {
		observe, proposed, want HLC
	}{{0, 10, 10}, {0, 5, 11}, {20, 15, 21}, {3, 22, 22}} {
		c.Observe(step.observe)
		if got := c.Next(step.proposed); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	if h := At(1_700_000_000_123, 7); h.Millis() != 1_700_000_000_123 || h.Counter() != 7 || h.String() != "2023-11-14T22:13:20.123Z+7" {
		t.Errorf("got %v", h)
	}
}

func TestActorHoldsRegionAndIncarnation(t *testing.T) {
	a, b, c := NewActor("us-east-1", 0), NewActor("us-east-1", 5), NewActor("eu-west-1", 0)
	if a.Region() != b.Region() || a == b || a.Region() == c.Region() || b.Incarnation() != 5 {
		t.Errorf("%v %v %v", a, b, c)
	}
}

func TestStableIsWhatEveryStreamCoversForEveryOrigin(t *testing.T) {
	v := func(a, b HLC) (out Vector) {
		out.Set(1, a)
		out.Set(2, b)
		return out
	}
	for _, c := range []struct {
		heard []Vector
		want  HLC
	}{
		{[]Vector{v(10, 8), v(9, 12)}, 8},
		{[]Vector{v(10, 8), {}}, 0},
		{nil, 0},
	} {
		if got := Stable([]Actor{1, 2}, c.heard...); got != c.want {
			t.Errorf("%v: %d, want %d", c.heard, got, c.want)
		}
	}
}
