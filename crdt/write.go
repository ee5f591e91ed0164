package crdt

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
)

func compareStrings(a, b string) int { return strings.Compare(a, b) }

// Mode says how concurrent writes are merged. It decides only which deltas a write makes: every region
// joins any delta by the same function.
type Mode uint8

// The modes. The zero value is the default.
const (
	Merge          Mode = 0 // per path and intent: increments, set edits, appends and edits of other paths are kept
	LastWriterWins Mode = 1 // whole items, as AWS does
)

// Modes is a table's mode and what attributes have instead, by top-level name.
type Modes struct {
	Table      Mode
	Attributes map[string]Mode
}

// Of returns the mode of a top-level attribute.
func (m Modes) Of(name string) Mode {
	if mode, ok := m.Attributes[name]; ok {
		return mode
	}
	return m.Table
}

// Op is the operation that made a write. It is kept for conflict records, and its numbers are stored.
type Op uint8

// The operations. 0 stands for one that is no longer known, since the record was folded.
const (
	Put     Op = 1
	Update  Op = 2
	Delete  Op = 3
	Expire  Op = 4 // a delete by TTL: it loses to any write that it had not seen
	Restore Op = 5 // a Put by a restore
)

var opNames = [...]string{"", "Put", "Update", "Delete", "Expire", "Restore"}

// String returns the operation's name.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// Transaction names the transaction that a write was part of. Items 0: none.
type Transaction struct {
	ID    [16]byte
	Items uint16 // how many items it wrote
}

// Origin is what conflict records tell of a write beside its dot.
type Origin struct {
	Op          Op
	Conditional bool // made under a condition
	Transaction Transaction
}

// Write is a write made in this region. Its condition has been evaluated and held.
type Write struct {
	// Dot is the write's own: later than everything the record has seen. Clock sees to that.
	Dot Dot
	Origin

	// Item is the stored form of the whole new item: for a Put what the client gave, for an Update
	// what DynamoDB's sequential semantics make of the visible item. Not used by deletes. The record
	// keeps it.
	Item []byte

	// Changes is what an Update means. Their paths do not overlap.
	Changes []item.Change

	Modes Modes

	// Stable is the region's stable time (see Stable), at or above every one that it has folded at; 0
	// is safe only where no record was ever dropped. The write has seen everything up to it, even
	// where the record of that is gone, and its delta says so.
	Stable HLC
}

// Write makes r the state after the write and returns the delta to ship. What clients then see here is
// w.Item exactly: an edit that cannot have its sequential effect as an edit (it would uncover one that
// was masked, or meet a sum that was rounded) is made an assignment of its result.
//
// It panics when w.Dot is not later than everything in r: the write would lose to what it had seen.
func (r *Record) Write(w Write) (delta *Record) {
	if newest := r.seen.Newest(); w.Dot.Compare(newest) <= 0 || w.Dot.HLC > MaxHLC {
		panic(fmt.Sprintf("crdt: write %v is not later than the newest that its item has seen, %v", w.Dot, newest))
	}
	if len(w.Item) == 0 && w.Op != Delete && w.Op != Expire {
		panic(fmt.Sprintf("crdt: %v %v without the new item", w.Op, w.Dot))
	}
	ctx := r.seen
	if w.Stable > 0 {
		ctx.Raise(Dot{min(w.Stable, w.Dot.HLC-1), allActors})
	}
	d := &Record{delta: true, by: w.Origin, ctx: ctx, seen: Vector{entries: []entry{{w.Dot.Actor, w.Dot.HLC}}}}
	made := assign{dot: w.Dot, by: w.Origin, ctx: ctx}
	switch w.Op {
	case Delete:
		made.totals = r.totals(nil)
		d.dead = made
		r.join(d)
		r.forget()
		return d
	case Expire:
		d.expired = ctx
		if mutant.On(mutant.ExpireUnseen) {
			d.expired = Vector{floor: w.Dot}
		}
		d.expiry = made
		d.expiry.dot, d.expiry.expiry = r.seen.Newest(), w.Dot
		d.expiry.totals = r.totals(nil)
		d.expiry.value = emptyItem
		if !d.expiry.present() { // nothing was here
			d.expiry = assign{}
		}
		r.join(d)
		r.forget()
		return d
	case Update:
		d.writes = d.seen
		r.update(w, d, made)
	default:
		d.writes = d.seen
		made.value = w.Item
		made.totals = r.totals(nil)
		d.root = made
		r.join(d)
	}
	r.shown, r.known = w.Item, true
	return d
}

// allActors is the greatest actor: a floor with it covers an HLC whoever it is of.
const allActors = ^Actor(0)

// revive returns the assignment that the seen deletes turn into under a write after them: at the dot of the
// greatest, covering what any of them does. Every region that has seen the same ones writes the same; where
// one has seen more of them under the same greatest, an expiry, joining takes both coverings.
//
// Where the record is gone, with the delete in it, the write still had seen that delete, and must not
// let the item come back in regions that hold its record yet: there was nothing up to stable, and so the
// assignment says.
func (r *Record) revive(stable Dot) assign {
	if r.seen.IsZero() {
		if stable.IsZero() {
			return assign{}
		}
		return assign{dot: stable, by: Origin{Op: Delete}, ctx: Vector{floor: stable}, value: emptyItem}
	}
	var a assign
	if r.dead.present() {
		a = assign{dot: r.dead.dot, by: r.dead.by, ctx: Vector{floor: r.dead.dot}, totals: r.dead.totals, value: emptyItem}
	}
	if r.expiry.present() && r.expiry.compare(&a) > 0 {
		// An expiry covers what it had seen and no more. What only a lesser delete or another expiry did away with is not to come back
		// under it, in regions that still hold it.
		a = r.expiry
		if !mutant.On(mutant.ExpiryAlone) {
			a.ctx.Join(r.expired)
			a.ctx.Raise(r.dead.dot)
		}
	}
	return a
}

// update makes an Update's edits the content of d and joins it.
func (r *Record) update(w Write, d *Record, made assign) {
	before, known := r.Visible()
	if !known {
		if a := r.revive(made.ctx.floor); a.present() && a.compare(&r.root) > 0 {
			d.root = a
			r.root = a
			r.prune()
		}
	}
	was := *r // with the delete turned, without the edits
	if w.Modes.Table == LastWriterWins {
		made.totals = r.totals(nil)
	}
	changes := shipped(w, made, before, d)
	if !known && w.Modes.Table == Merge {
		changes = r.complete(w, changes)
	}
	for attempt := 0; ; attempt++ {
		d.nodes = nil
		for i := range changes {
			d.nodes = append(d.nodes, was.edit(&changes[i], made))
		}
		slices.SortFunc(d.nodes, func(a, b node) int { return slices.Compare(a.path, b.path) })
		*r = was
		r.join(d)
		wrong := r.differs(w, changes, known)
		if len(wrong) == 0 {
			return
		}
		if attempt == 2 {
			break
		}
		changes = mend(r, w, changes, wrong, attempt > 0)
	}
	*r = was
	d.nodes = nil
	made.value = w.Item
	made.totals = was.totals(nil)
	d.root = made
	r.join(d)
}

// shipped returns the edits as the modes have them. In mode LastWriterWins it gives d the whole item,
// in which attributes that are merged nevertheless stand as they were, but for elements removed: their
// removers had not seen the image itself.
func shipped(w Write, made assign, before []byte, d *Record) []item.Change {
	whole := w.Modes.Table == LastWriterWins
	if !whole && len(w.Modes.Attributes) == 0 {
		return w.Changes
	}
	out := make([]item.Change, 0, len(w.Changes))
	var image item.Item
	var asWas []string // attributes that the image has as they were
	if whole {
		var err error
		image, err = item.DecodeItem(w.Item)
		mustBeItem(err)
	}
	for _, c := range w.Changes {
		name := c.Path[0]
		switch {
		case w.Modes.Of(name) == Merge:
			if whole && !slices.Contains(asWas, name) {
				image = image.With(name, mustDecode(item.Attr(before, name)))
				asWas = append(asWas, name)
			}
			if whole && c.Kind == item.RemoveElements {
				image = item.Item(withoutElements(image, c.Path, c.Value))
			}
			out = append(out, c)
		case whole: // in the image
		case !slices.ContainsFunc(out, func(o item.Change) bool { return o.Path[0] == name }):
			out = append(out, assigned(w.Item, name))
		}
	}
	if whole {
		made.value = item.AppendItem(nil, image)
		d.root = made
	}
	return out
}

// withoutElements takes the elements of a set from the one at a path, where there is one.
func withoutElements(fields []item.Field, path []string, set item.Value) []item.Field {
	v := item.Item(fields).Get(path[0])
	switch {
	case len(path) > 1 && v.Kind() == item.KindM:
		v = item.M(withoutElements(v.Fields(), path[1:], set)...)
	case len(path) == 1 && v.Kind() == set.Kind():
		v = item.Difference(v, set)
	}
	return item.Item(fields).With(path[0], v)
}

// complete adds to an Update that creates an item the assignments of attributes which it does not name:
// those of the key.
func (r *Record) complete(w Write, changes []item.Change) []item.Change {
	out := slices.Clip(changes)
	n, b, err := item.CutCount(w.Item)
	for ; n > 0; n-- {
		var field, value []byte
		field, value, b, err = item.CutField(b)
		mustBeItem(err)
		name := string(field)
		if !slices.ContainsFunc(changes, func(c item.Change) bool { return c.Path[0] == name }) && !bytes.Equal(r.attribute(name), value) {
			out = append(out, assigned(w.Item, name))
		}
	}
	mustBeItem(err)
	return out
}

// assigned returns the assignment of an attribute's whole new value.
func assigned(itemBytes []byte, name string) item.Change {
	return item.Change{Kind: item.Assign, Path: []string{name}, Value: mustDecode(item.Attr(itemBytes, name))}
}

// edit returns the node that says what a change means on top of r.
func (r *Record) edit(c *item.Change, made assign) node {
	n := node{path: c.Path}
	d := made.dot
	switch c.Kind {
	case item.Assign:
		n.assign = made
		n.assign.totals = r.totals(c.Path)
		if !c.Value.IsAbsent() {
			n.assign.value = item.AppendValue(nil, c.Value)
		}
	case item.Increment:
		n.sums = []sum{r.running(c.Path, d)}
		n.sums[0].total = n.sums[0].total.AddExact(c.Value.Number())
	case item.AddElements:
		for _, m := range c.Value.Elems() {
			n.adds = append(n.adds, add{elementOf(m), d.Actor, d.HLC})
		}
		slices.SortFunc(n.adds, func(a, b add) int { return compareAdds(&a, &b) })
	case item.RemoveElements:
		for _, m := range c.Value.Elems() {
			n.removes = append(n.removes, remove{elementOf(m), d, made.ctx})
			if mutant.On(mutant.RemoveUnseen) {
				n.removes[len(n.removes)-1].seen = Vector{floor: d}
			}
		}
		slices.SortFunc(n.removes, func(a, b remove) int { return compareRemoves(&a, &b) })
	case item.Append:
		n.appends = []tail{{d, item.AppendValue(nil, c.Value)}}
	default:
		panic(fmt.Sprintf("crdt: unknown kind of change %d", c.Kind))
	}
	return n
}

// running returns the running total that the increment d goes on with: the actor's newest at the path
// that its governing assignment does not cover, else a new one. Nor does it go on with one from before a
// delete that is known here, even where the item came back: a region that has dropped the record no
// longer knows the total, and what is written there cannot tell how much of it it had seen.
func (r *Record) running(path []string, d Dot) sum {
	if n := r.node(path); n != nil {
		g := r.governing(path)
		for i := len(n.sums) - 1; i >= 0; i-- { // sorted by id within an actor
			s := n.sums[i]
			if s.actor != d.Actor || g.ctx.Covers(s.dot()) {
				continue
			}
			if s.dot().Compare(r.dead.dot) > 0 && !r.expired.Covers(s.dot()) {
				s.hlc = d.HLC
				return s
			}
		}
	}
	return sum{actor: d.Actor, id: d.HLC, hlc: d.HLC}
}

// differs returns the top-level attributes that would not look as w.Item has them. Where the item was
// visible only those that the write touched are looked at.
func (r *Record) differs(w Write, changes []item.Change, wasVisible bool) []string {
	var names []string
	if wasVisible && w.Modes.Table == Merge {
		for i := range changes {
			names = append(names, changes[i].Path[0])
		}
	} else {
		names = r.names(w.Item)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool {
		return bytes.Equal(r.attribute(name), item.Attr(w.Item, name))
	})
}

// names returns every top-level name that stands in an item or in r.
func (r *Record) names(itemBytes []byte) []string {
	var out []string
	for i := range r.nodes {
		out = append(out, r.nodes[i].path[0])
	}
	for _, b := range [][]byte{itemBytes, r.root.value} {
		n, b, err := item.CutCount(b)
		for ; n > 0 && err == nil; n-- {
			var name []byte
			if name, _, b, err = item.CutField(b); err == nil {
				out = append(out, string(name))
			}
		}
	}
	return out
}

// attribute returns the stored value of one top-level attribute as r has it.
func (r *Record) attribute(name string) []byte {
	lo, _ := slices.BinarySearchFunc(r.nodes, name, func(n node, s string) int { return strings.Compare(n.path[0], s) })
	hi := lo
	for hi < len(r.nodes) && r.nodes[hi].path[0] == name {
		hi++
	}
	var value []byte
	if lo == hi {
		value = item.Attr(r.root.value, name)
	} else {
		var e evaluation
		value = e.attribute(r.nodes[lo:hi], r.root.value, &r.root)
	}
	if value == nil && r.Key != nil {
		value = item.Attr(r.Key, name)
	}
	return value
}

// mend makes assignments of the changes that did not have their effect; coarse: of whole attributes.
func mend(r *Record, w Write, changes []item.Change, wrong []string, coarse bool) []item.Change {
	out := make([]item.Change, 0, len(changes)+len(wrong))
	for _, c := range changes {
		if !slices.Contains(wrong, c.Path[0]) {
			out = append(out, c)
			continue
		}
		if coarse {
			continue
		}
		want := mustDecode(item.Attr(w.Item, c.Path[0]))
		have := mustDecode(r.attribute(c.Path[0]))
		for _, name := range c.Path[1:] {
			want, have = want.Field(name), have.Field(name)
		}
		if !item.Equal(want, have) {
			c = item.Change{Kind: item.Assign, Path: c.Path, Value: want}
		}
		out = append(out, c)
	}
	for _, name := range wrong {
		if coarse || !slices.ContainsFunc(changes, func(c item.Change) bool { return c.Path[0] == name }) {
			out = append(out, assigned(w.Item, name))
		}
	}
	return out
}
