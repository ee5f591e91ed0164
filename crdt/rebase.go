package crdt

import (
	"bytes"
	"slices"

	"github.com/commutatordb/commutator/item"
)

// Lost is what a region had written of an item as an incarnation that the others have gone on without.
type Lost struct {
	Record *Record // the item as that incarnation left it
	Actor  Actor   // who it was
	After  HLC     // what it wrote up to here the others have
}

// Rebase works out the write that does in r, which is a copy of the others', what a lost incarnation did that they do not have: what
// merging its record would have come to, had it not been late. The merge itself decides that, so increments, elements and appends are
// made again, and an assignment or a delete where nothing later stands there; what loses is among the conflicts. stable is the time up
// to which records that are not held here may have been deleted and folded away. The write lacks its dot, Modes, Stable; ok is false
// where there is nothing to write.
//
// Two things a folded record cannot tell, and then what stands stays: whether an element that was removed had been added anew, and when
// an item was deleted that is gone altogether; that counts as done at the stable time.
func (r *Record) Rebase(lost Lost, stable HLC) (w Write, found []Conflict, ok bool) {
	l := rebase{Lost: lost}
	r.collect(&l.actors)
	were := l.unseenBy(r)
	theirs := *lost.Record
	if !l.known() && were.root.by.Op == Delete && were.root.dot.Actor == allActors {
		were.root = assign{} // see revive: they say that nothing was here, as far as they knew, and cannot have deleted it
	}
	switch f := r.seen.floor; {
	case r.seen.IsZero() && l.known():
		were.seen.Set(allActors, stable)
		were.dead = assign{dot: Dot{stable, allActors}, by: Origin{Op: Delete}, ctx: l.lower(Vector{floor: Dot{stable, allActors}})}
	case f.Compare(theirs.seen.floor) > 0:
		theirs = l.above(f)
	}
	there := r.hadAbove(theirs.seen.floor)
	theirs.nodes = theirs.without(r, func(d Dot, restated bool) bool { return there(d, restated) && !l.own(d) }, func(Dot, bool) bool { return false })
	old := were
	were.join(&theirs)
	were.forget()
	found = conflicts(&old, &theirs, &were)
	before, was := r.Visible()
	after, is := were.Visible()
	switch {
	case !is && !was:
		return w, found, false
	case !is:
		w.Op = Delete
		return w, found, true
	case !was || l.own(were.root.dot):
		w.Op, w.Item = Put, after
		return w, found, true
	}
	w.Op, w.Item = Update, after
	for i := range theirs.nodes {
		if c, did := l.change(&theirs.nodes[i], &were, before, after); did && !overlaps(w.Changes, c.Path) {
			w.Changes = append(w.Changes, c)
		}
	}
	for _, name := range append(were.names(before), were.names(after)...) {
		if !bytes.Equal(item.Attr(before, name), item.Attr(after, name)) && !overlaps(w.Changes, []string{name}) {
			w.Changes = append(w.Changes, assigned(after, name))
		}
	}
	return w, found, len(w.Changes) > 0
}

// overlaps tells whether a path is at, above or below one that is changed.
func overlaps(changes []item.Change, path []string) bool {
	return slices.ContainsFunc(changes, func(c item.Change) bool { return isPrefix(c.Path, path) || isPrefix(path, c.Path) })
}

type rebase struct {
	Lost
	actors []Actor // whose writes the others' record names
}

// own tells whether a write is the lost incarnation's and not had by the others.
func (l *rebase) own(d Dot) bool { return d.Actor == l.Actor && d.HLC > l.After }

// known tells whether the others have had anything of the item. If they have nothing now, it was deleted there.
func (l *rebase) known() bool {
	for a, h := range l.Record.seen.All() {
		if !l.own(Dot{h, a}) {
			return true
		}
	}
	return !l.Record.seen.floor.IsZero()
}

// collect adds the actors that a record names.
func (r *Record) collect(actors *[]Actor) {
	*actors = append(*actors, r.seen.floor.Actor)
	for a := range r.seen.All() {
		*actors = append(*actors, a)
	}
	for i := range r.nodes {
		n := &r.nodes[i]
		for _, s := range n.sums {
			*actors = append(*actors, s.actor)
		}
		for _, a := range n.adds {
			*actors = append(*actors, a.actor)
		}
		for _, t := range n.appends {
			*actors = append(*actors, t.dot.Actor)
		}
	}
	slices.Sort(*actors)
	*actors = slices.Compact(*actors)
}

// unseenBy returns r as it would be if nobody had folded: what its writers had seen no longer covers, for being older, what the lost
// incarnation wrote and nobody had.
func (l *rebase) unseenBy(r *Record) Record {
	out := *r
	out.dead.ctx, out.expiry.ctx = l.lower(out.dead.ctx), l.lower(out.expiry.ctx)
	// A root that was turned from a delete covers what is older, seen or not: that is the rule. So does one turned from an expiry with a
	// delete beside it, whose floor then is no fold's.
	f := out.root.ctx.floor
	ofDelete := out.root.by.Op == Delete || out.root.by.Op == Expire && f.Compare(r.seen.floor) > 0 && f.Actor != allActors
	if !ofDelete {
		out.root.ctx = l.lower(out.root.ctx)
	}
	out.expired = l.lower(out.expired)
	out.nodes = slices.Clone(r.nodes)
	for i := range out.nodes {
		n := &out.nodes[i]
		n.assign.ctx = l.lower(n.assign.ctx)
		n.removes = slices.Clone(n.removes)
		for j := range n.removes {
			n.removes[j].seen = l.lower(n.removes[j].seen)
		}
	}
	return out
}

// lower brings a vector's floor down to what the others have of the lost incarnation's; of everybody else it covers what it did.
func (l *rebase) lower(v Vector) Vector {
	at := Dot{l.After, l.Actor}
	if v.floor.Compare(at) <= 0 {
		return v
	}
	out := Vector{floor: at}
	for _, a := range l.actors {
		if a != l.Actor {
			out.Set(a, v.Get(a))
		}
	}
	for a, h := range v.All() {
		out.Set(a, h)
	}
	return out
}

// above returns the lost record without what the others have taken up in a fold at f, which is all but its own.
func (l *rebase) above(f Dot) Record {
	r := l.Record
	keep := func(d Dot) bool { return l.own(d) || d.Compare(f) > 0 }
	of := func(a assign) assign {
		if !keep(a.dot) {
			return assign{}
		}
		return a
	}
	out := Record{Key: r.Key, seen: Vector{floor: f}, writes: Vector{floor: r.writes.floor}}
	if out.writes.floor.Compare(f) <= 0 {
		out.writes.floor = Dot{}
	}
	for _, v := range []struct{ from, to *Vector }{{&r.seen, &out.seen}, {&r.writes, &out.writes}} {
		for a, h := range v.from.All() {
			if keep(Dot{h, a}) {
				v.to.Set(a, h)
			}
		}
	}
	out.dead, out.root = of(r.dead), of(r.root)
	if keep(r.expiry.expiry) && !r.expiry.expiry.IsZero() {
		out.expiry = r.expiry
	}
	out.expired = vectorAbove(r.expired, f)
	for i := range r.nodes {
		n := &r.nodes[i]
		c := node{path: n.path, assign: of(n.assign)}
		for _, s := range n.sums {
			if keep(s.dot()) {
				c.sums = append(c.sums, s)
			}
		}
		for _, a := range n.adds {
			if keep(a.dot()) {
				c.adds = append(c.adds, a)
			}
		}
		for _, m := range n.removes {
			if m.seen = vectorAbove(m.seen, f); !m.seen.IsZero() {
				c.removes = append(c.removes, m)
			}
		}
		for _, t := range n.appends {
			if keep(t.dot) {
				c.appends = append(c.appends, t)
			}
		}
		if !c.empty() {
			out.nodes = append(out.nodes, c)
		}
	}
	return out
}

// change tells what the lost incarnation's edits of a path come to: one of their kind where they are all of one, and the assignment of
// their result where not.
func (l *rebase) change(n *node, joined *Record, before, after []byte) (c item.Change, ok bool) {
	c.Path = n.path
	was, is := mustDecode(narrow(before, 0, n.path)), mustDecode(narrow(after, 0, n.path))
	kinds := 0
	if l.own(n.assign.dot) && joined.governing(n.path).dot == n.assign.dot {
		kinds = 2 // whatever else there is
	}
	if slices.ContainsFunc(n.sums, func(s sum) bool { return l.own(s.dot()) }) && is.Kind() == item.KindN && (was.IsAbsent() || was.Kind() == item.KindN) {
		kinds++
		c.Kind, c.Value = item.Increment, item.N(is.Number())
		if !was.IsAbsent() {
			shown, fits := is.Number().SubExact(was.Number()).Rounded()
			if c.Value = item.N(shown); !fits {
				kinds = 2
			} else if shown.IsZero() {
				kinds--
			}
		}
	}
	if is.Kind().IsSet() {
		var added []item.Value
		for _, a := range n.adds {
			if e := mustDecode([]byte(a.elem)); l.own(a.dot()) && is.Contains(e) {
				added = append(added, e)
			}
		}
		if len(added) > 0 {
			kinds++
			c.Kind, c.Value = item.AddElements, item.NewSet(is.Kind(), added)
		}
	}
	if was.Kind().IsSet() && len(n.removes) > 0 {
		taken := was
		if is.Kind() == was.Kind() {
			taken = item.Difference(was, is)
		}
		if !taken.IsAbsent() {
			kinds++
			c.Kind, c.Value = item.RemoveElements, taken
		}
	}
	if is.Kind() == item.KindL {
		var values []item.Value
		for _, t := range n.appends {
			if l.own(t.dot) {
				values = append(values, mustDecode(t.values).Elems()...)
			}
		}
		if len(values) > 0 {
			kinds++
			c.Kind, c.Value = item.Append, item.L(values...)
		}
	}
	if kinds > 1 {
		c.Kind, c.Value = item.Assign, is
	}
	return c, kinds > 0 && (kinds == 1 || !item.Equal(was, is))
}
