package crdt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/commutatordb/commutator/item"
)

// Class is what kind of loss a conflict is.
type Class string

// The classes: MERGE.md, "Conflict record". ClockHeld is found by who receives deltas, not here.
const (
	ClassConcurrentAssign    Class = "ConcurrentAssign"
	ClassDeleteVsWrite       Class = "DeleteVsWrite"
	ClassTypeMasked          Class = "TypeMasked"
	ClassConditionOverturned Class = "ConditionOverturned" // the write that lost was made under a condition
	ClassNumericOverflow     Class = "NumericOverflow"
	ClassLimitExceeded       Class = "LimitExceeded"
	ClassTransactionTorn     Class = "TransactionTorn" // the write that lost was part of a transaction
	ClassClockHeld           Class = "ClockHeld"
)

// The rules by which a side wins.
const (
	RuleLaterDot         = "later-dot"          // two assignments: the later
	RuleWriteAfterDelete = "write-after-delete" // the write is later than the delete it had not seen
	RuleDeleteAfterWrite = "delete-after-write" // the delete is later than the write it had not seen
	RuleExpiryUnseen     = "expiry-unseen"      // an expiry loses to any write it had not seen
	RuleTypeStands       = "type-stands"        // an edit does not change the type of what it meets
	RuleRounded          = "rounded"            // a sum is shown with 38 digits
	RuleKept             = "kept"               // a replicated write is never rejected
	RuleHeld             = "held"               // a write from the future waits until it is no more
)

// Held returns the record of a delta that is held, since it is stamped too far ahead of the receiver's clock, from an item that is
// as old tells until then.
func Held(old, d *Record) Conflict {
	dot := d.Newest()
	stands := old.shownAt(nil)
	return Conflict{
		Class: ClassClockHeld, Rule: RuleHeld,
		Winner: Side{Dot: old.Newest(), Value: stands}, Loser: Side{Dot: dot, Origin: d.origin(dot), Value: d.shownAt(nil)}, Stands: stands,
	}
}

// MaxItemSize is the greatest size of an item that a client may write, in bytes.
const MaxItemSize = 409600

// Conflict tells of a write, or a part of one, that lost to one that had not seen it, or that cannot be
// shown as it is.
type Conflict struct {
	Class  Class
	Path   []string // nil: the whole item
	Rule   string
	Winner Side
	Loser  Side
	Stands []byte // the value at Path after merging, stored form with its tag; nil: absent
}

// Side is one of a conflict's two writes. Where the record was folded or the write was joined as an
// edit, only the dot is known.
type Side struct {
	Dot Dot
	Origin
	Value []byte // what it wrote at Path, stored form with its tag; nil: absent
}

// ID returns the conflict's identity, the same in every region that finds it. key is the table's and the
// item's identity as the caller writes it.
func (c *Conflict) ID(key []byte) [16]byte {
	b := binary.AppendUvarint(nil, uint64(len(key)))
	b = append(b, key...)
	b = appendPath(b, c.Path)
	for _, d := range []Dot{c.Winner.Dot, c.Loser.Dot} {
		b = binary.BigEndian.AppendUint64(b, uint64(d.HLC))
		b = binary.BigEndian.AppendUint32(b, uint32(d.Actor))
	}
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

// conflicts returns what joining d into old lost; now is the result.
func conflicts(old, d, now *Record) []Conflict {
	var f finder
	f.old, f.d, f.now = old, d, now
	f.dropped(old)
	f.dropped(d)
	f.overridden(old, d)
	f.overridden(d, old)
	f.deletes()
	f.flaws()
	return f.out
}

type finder struct {
	old, d, now *Record
	out         []Conflict
}

func (f *finder) add(c Conflict) {
	switch {
	case c.Class != ClassConcurrentAssign && c.Class != ClassDeleteVsWrite:
	case c.Loser.Transaction.Items > 1:
		c.Class = ClassTransactionTorn
	case c.Loser.Conditional:
		c.Class = ClassConditionOverturned
	}
	c.Stands = f.now.shownAt(c.Path)
	f.out = append(f.out, c)
}

// dropped finds the assignments of one side that are gone because of one that had not seen them.
func (f *finder) dropped(side *Record) {
	f.lost(nil, &side.root)
	for i := range side.nodes {
		if n := &side.nodes[i]; n.assign.present() {
			f.lost(n.path, &n.assign)
		}
	}
}

func (f *finder) lost(path []string, a *assign) {
	if !a.present() || a.turned(path) {
		return
	}
	at, g := f.now.governor(path)
	if g.compare(a) <= 0 || g.turned(path[:at]) || g.ctx.Covers(a.dot) {
		return
	}
	won := narrow(g.value, at, path)
	lost := narrow(a.value, len(path), path)
	if bytes.Equal(won, lost) {
		return
	}
	f.add(Conflict{
		Class: ClassConcurrentAssign, Path: path, Rule: RuleLaterDot,
		Winner: Side{g.dot, g.by, won}, Loser: Side{a.dot, a.by, lost},
	})
}

// turned tells whether an assignment of a path is what a write left of a delete. That is no write of its
// own: the delete is compared as a delete.
func (a *assign) turned(path []string) bool {
	return len(path) == 0 && (!a.expiry.IsZero() || a.by.Op == Delete)
}

// overridden finds assignments of upper that still stand but for a path that one of lower's, which had
// not seen them, has taken.
func (f *finder) overridden(lower, upper *Record) {
	for i := range lower.nodes {
		n := &lower.nodes[i]
		if !n.assign.present() {
			continue
		}
		at, g := upper.governorAbove(n.path)
		if !g.present() || g.turned(n.path[:at]) || g.compare(&n.assign) >= 0 || n.assign.ctx.Covers(g.dot) {
			continue
		}
		if _, a := f.now.governor(n.path); a.compare(&n.assign) != 0 {
			continue // taken in turn by another
		}
		lost := narrow(g.value, at, n.path)
		if lost == nil || bytes.Equal(lost, n.assign.value) {
			continue
		}
		f.add(Conflict{
			Class: ClassConcurrentAssign, Path: n.path, Rule: RuleLaterDot,
			Winner: Side{n.assign.dot, n.assign.by, n.assign.value}, Loser: Side{g.dot, g.by, lost},
		})
	}
}

// governor returns the assignment that governs a path and how many names its own path has.
func (r *Record) governor(path []string) (at int, g *assign) {
	g = &r.root
	for i := range r.nodes {
		if n := &r.nodes[i]; n.assign.present() && isPrefix(n.path, path) {
			at, g = len(n.path), &n.assign
		}
	}
	return at, g
}

func (r *Record) governorAbove(path []string) (at int, g *assign) {
	g = &r.root
	for i := range r.nodes {
		if n := &r.nodes[i]; n.assign.present() && len(n.path) < len(path) && isPrefix(n.path, path) {
			at, g = len(n.path), &n.assign
		}
	}
	return at, g
}

// narrow returns what an assignment of path[:at] has at path, stored form with its tag.
func narrow(value []byte, at int, path []string) []byte {
	switch {
	case value == nil:
		return nil
	case at == 0 && len(path) == 0:
		return append([]byte{item.TagM}, value...)
	case at == 0:
		value = item.Attr(value, path[0])
		at = 1
	}
	for ; at < len(path) && value != nil; at++ {
		if value[0] != item.TagM {
			return nil
		}
		value = item.Attr(value[1:], path[at])
	}
	return value
}

// shownAt returns what clients see at a path, stored form with its tag.
func (r *Record) shownAt(path []string) []byte {
	shown, ok := r.Visible()
	if !ok {
		return nil
	}
	return narrow(shown, 0, path)
}

// deletes finds deletes and writes that had not seen each other.
func (f *finder) deletes() {
	for _, s := range []struct{ has, other *Record }{{f.d, f.old}, {f.old, f.d}} {
		if s.has.dead.present() {
			f.delete(s.has, s.other, &s.has.dead, s.has.dead.dot, s.has.dead.ctx)
		}
		if s.has.expiry.present() {
			f.delete(s.has, s.other, &s.has.expiry, s.has.expiry.expiry, s.has.expiry.ctx)
		}
	}
}

// delete compares a delete, which had seen ctx, with the writes of the other side.
func (f *finder) delete(has, other *Record, del *assign, dot Dot, ctx Vector) {
	if other.seen.Covers(dot) {
		return // told when the two first met
	}
	expiry := del.by.Op == Expire
	after := other.saw(dot) // a write that had seen the delete came before it
	var won Dot
	for a, h := range other.writes.All() {
		w := Dot{h, a}
		if ctx.Covers(w) || has.seen.Covers(w) {
			continue
		}
		if expiry || w.Compare(dot) > 0 {
			if !after {
				won = maxDot(won, w)
			}
			continue
		}
		lost := Side{Dot: w, Origin: other.origin(w)}
		if !after {
			lost.Value = other.shownAt(nil)
		}
		f.add(Conflict{Class: ClassDeleteVsWrite, Rule: RuleDeleteAfterWrite, Winner: Side{Dot: dot, Origin: del.by}, Loser: lost})
	}
	if !won.IsZero() {
		rule := RuleWriteAfterDelete
		if expiry {
			rule = RuleExpiryUnseen
		}
		f.add(Conflict{
			Class: ClassDeleteVsWrite, Rule: rule,
			Winner: Side{won, other.origin(won), other.shownAt(nil)}, Loser: Side{Dot: dot, Origin: del.by},
		})
	}
}

// saw tells whether a write in r is known to have seen the dot.
func (r *Record) saw(d Dot) bool {
	if r.ctx.Covers(d) || r.root.present() && (r.root.ctx.Covers(d) || r.root.dot == d) {
		return true
	}
	for i := range r.nodes {
		if a := &r.nodes[i].assign; a.present() && a.ctx.Covers(d) {
			return true
		}
	}
	return false
}

// origin returns what is known of a write in r beside its dot.
func (r *Record) origin(d Dot) Origin {
	if r.delta {
		return r.by
	}
	if r.root.dot == d {
		return r.root.by
	}
	for i := range r.nodes {
		if a := &r.nodes[i].assign; a.dot == d {
			return a.by
		}
	}
	return Origin{}
}

// flaws finds what can no longer be shown as it is but could before.
func (f *finder) flaws() {
	shown, ok := f.now.Visible()
	if !ok {
		return
	}
	if len(shown) > MaxItemSize/2 { // a stored form is at least half the item's size
		f.limit(shown)
	}
	if len(f.now.nodes) == 0 {
		return
	}
	now := f.now.flaws()
	if len(now) == 0 {
		return
	}
	was := f.old.flaws()
	for _, w := range now {
		if slices.ContainsFunc(was, func(o flaw) bool {
			return o.class == w.class && o.edit == w.edit && o.over == w.over && slices.Equal(o.path, w.path)
		}) {
			continue
		}
		c := Conflict{Class: w.class, Path: w.path, Rule: RuleTypeStands}
		if w.class == ClassNumericOverflow {
			c.Rule = RuleRounded
		}
		c.Winner = Side{Dot: w.over, Origin: f.now.origin(w.over), Value: f.now.shownAt(w.path)}
		c.Loser = Side{Dot: w.edit, Origin: f.now.origin(w.edit)}
		if f.d.seen.Newest() == w.edit {
			c.Loser.Origin = f.d.by
			c.Loser.Value = f.d.shownAt(w.path)
		}
		f.add(c)
	}
}

// limit notes an item that merging made too large, once: when it was not before.
func (f *finder) limit(shown []byte) {
	size, err := item.RawSize(shown)
	mustBeItem(err)
	if size <= MaxItemSize {
		return
	}
	if before, ok := f.old.Visible(); ok {
		if size, err = item.RawSize(before); err == nil && size > MaxItemSize {
			return
		}
	}
	from := f.d.seen.Newest()
	f.add(Conflict{
		Class: ClassLimitExceeded, Rule: RuleKept,
		Winner: Side{from, f.d.origin(from), f.d.shownAt(nil)},
		Loser:  Side{Dot: f.old.seen.Newest(), Value: f.old.shownAt(nil)},
	})
}

// flaws returns the flaws of what r shows.
func (r *Record) flaws() []flaw {
	if !r.alive() {
		return nil
	}
	var e evaluation
	r.evaluate(&e)
	return e.flaws
}
