package crdt

import (
	"slices"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Join merges a delta, or the whole state of another region, into r: in any order, any number of times.
// It returns the conflicts that this made, for the caller to keep where the losing write was
// acknowledged. d is not retained, but what its slices point to is, and must not be written to.
//
// FIFO per origin is the caller's duty: a delta makes r claim its actor's writes up to the delta's dot.
// So is this: a state whose newest dot is at or below the region's stable time, for a key that is not
// held, was folded away and is not to be joined (Stale). Nor is such a delta for a key that is held: the
// record may have begun anew since, and then no longer knows that it was here.
func (r *Record) Join(d *Record) []Conflict {
	repeated := r.seen.Contains(d.seen)
	if d.delta {
		if repeated {
			return nil
		}
		if d.ctx.Contains(r.seen) {
			// Its writer had seen all that is here: it overrides, and conflicts with nothing.
			r.join(d)
			r.look()
			return nil
		}
	}
	old := *r
	if d.delta {
		r.join(d)
	} else {
		theirs := *d
		here, there := r.hadAbove(d.seen.floor), d.hadAbove(r.seen.floor)
		theirs.nodes, r.nodes = d.without(r, here, there), r.without(d, there, here)
		r.join(&theirs)
	}
	if mutant.On(mutant.OlderWins) && old.root.present() {
		r.root = old.root
	}
	r.look()
	if repeated {
		return nil
	}
	return conflicts(&old, d, r)
}

// had tells whether a record has had a write. What a fold leaves of adds has other dots than they had: restated ones do not count where it
// has not folded as far itself.
type had func(d Dot, restated bool) bool

// hadAbove tells what r has had, where another has folded up to f.
func (r *Record) hadAbove(f Dot) had {
	return func(d Dot, restated bool) bool {
		return r.seen.Covers(d) && (!restated || d.Compare(f) > 0 || f.Compare(r.seen.floor) <= 0)
	}
}

// without returns what r has below its root but for edits that o has had and has no more: they were let go there, and are dead for good. See Trim.
// there and here tell what o and r have had.
func (r *Record) without(o *Record, there, here had) []node {
	var out []node
	for i := range r.nodes {
		n, m := &r.nodes[i], o.node(r.nodes[i].path)
		if m == nil {
			m = &node{}
		}
		c := node{
			path:    n.path,
			assign:  n.assign,
			removes: n.removes,
			sums:    lacking(n.sums, m.sums, compareSums, (*sum).dot, false, there, here),
			adds:    lacking(n.adds, m.adds, compareAdds, (*add).dot, true, there, here),
			appends: lacking(n.appends, m.appends, compareTails, func(t *tail) Dot { return t.dot }, false, there, here),
		}
		if !c.empty() {
			out = append(out, c)
		}
	}
	return out
}

// gone tells whether what one side has was let go on the other, by the dots that it has on either, zero where there is none: of two the newer
// counts, and an older one, which a fold had left, goes with it.
func gone(own, other Dot, restated bool, there, here had) bool {
	switch c := own.Compare(other); {
	case c > 0:
		return there(own, restated)
	case c < 0:
		return here(other, restated)
	}
	return false
}

// lacking leaves out of a what is gone in b; both are sorted.
func lacking[T any](a, b []T, compare func(x, y *T) int, dot func(x *T) Dot, restated bool, there, here had) []T {
	return without(a, func(i int) bool {
		var other Dot
		if j, both := slices.BinarySearchFunc(b, &a[i], func(x T, y *T) int { return compare(&x, y) }); both {
			other = dot(&b[j])
		}
		return gone(dot(&a[i]), other, restated, there, here)
	})
}

// look brings what is shown up to date where that takes no evaluation.
func (r *Record) look() {
	if r.simple() {
		r.shown, r.known = nil, false
		if r.alive() {
			r.shown = r.root.value
			if r.shown == nil {
				r.shown = emptyItem
			}
		}
		r.known = true
	} else {
		r.forget()
	}
}

// Stale tells whether a delta, or a state for a key that is not held, must be ignored at a region with
// this stable time: it was here, and may have been folded away.
func (r *Record) Stale(stable HLC) bool { return r.seen.Newest().HLC <= stable }

// simple tells whether the record's root is all that it shows.
func (r *Record) simple() bool { return len(r.nodes) == 0 && r.Key == nil }

// join is Join without a look at what is visible.
func (r *Record) join(d *Record) {
	floor := maxDot(r.seen.floor, d.seen.floor)
	a, b := r, d
	if a.seen.floor != floor {
		a = r.above(floor)
	}
	if b.seen.floor != floor && !d.isAbove(floor) {
		b = d.above(floor)
	}
	if !mutant.On(mutant.SeenNotLifted) || !d.delta {
		r.seen.Join(d.seen)
	}
	r.writes.Join(d.writes)
	r.dead = later(a.dead, b.dead)
	r.expired = a.expired
	r.expired.Join(b.expired)
	r.expiry = later(a.expiry, b.expiry)
	r.root = later(a.root, b.root)
	r.nodes = merged(a.nodes, b.nodes, compareNodes, joinNodes)
	r.delta, r.by, r.ctx = false, Origin{}, Vector{}
	r.prune()
}

// later returns the greater of two assignments. Two at one dot are the same, or what two regions left of one expiry: see revive.
func later(a, b assign) assign {
	switch c := a.compare(&b); {
	case c < 0:
		return b
	case c == 0 && !a.expiry.IsZero():
		a.ctx.Join(b.ctx)
	}
	return a
}

func joinNodes(a, b *node) node {
	return node{
		path:   a.path,
		assign: later(a.assign, b.assign),
		sums: merged(a.sums, b.sums, compareSums, func(x, y *sum) sum {
			if x.hlc < y.hlc {
				return *y
			}
			return *x
		}),
		adds: merged(a.adds, b.adds, compareAdds, func(x, y *add) add {
			if x.hlc < y.hlc {
				return *y
			}
			return *x
		}),
		removes: enough(merged(a.removes, b.removes, compareRemoves, func(x, _ *remove) remove { return *x })),
		appends: merged(a.appends, b.appends, compareTails, func(x, _ *tail) tail { return *x }),
	}
}

// enough leaves out removers that another makes needless.
func enough(all []remove) []remove {
	return without(all, func(i int) bool {
		for j := i + 1; j < len(all) && all[j].elem == all[i].elem; j++ { // who has seen it is later
			if all[i].within(&all[j]) {
				return true
			}
		}
		return false
	})
}

// merged unites two sorted slices; where both have an element, both tells what becomes of it. It returns
// one of them when the other is empty, and never writes to either.
func merged[T any](a, b []T, compare func(x, y *T) int, both func(x, y *T) T) []T {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make([]T, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := compare(&a[0], &b[0]); {
		case c < 0:
			out = append(out, a[0])
			a = a[1:]
		case c > 0:
			out = append(out, b[0])
			b = b[1:]
		default:
			out = append(out, both(&a[0], &b[0]))
			a, b = a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// prune drops assignments that can never govern again: one at or above their path is greater. Sums, adds
// and appends that are not live now may become so under a later assignment that had not seen them, and
// stay until folding.
func (r *Record) prune() {
	if len(r.nodes) == 0 {
		return
	}
	var out []node
	above := lineage{root: &r.root}
	for i := range r.nodes {
		n := &r.nodes[i]
		if g := above.enter(n); n.assign.present() && g.present() && g.compare(&n.assign) > 0 {
			above.leave()
			if out == nil {
				out = slices.Clone(r.nodes[:i])
			}
			c := *n
			c.assign = assign{}
			if !c.empty() {
				out = append(out, c)
			}
			continue
		}
		if out != nil {
			out = append(out, *n)
		}
	}
	if out != nil {
		r.nodes = out
		if len(out) == 0 {
			r.nodes = nil
		}
	}
}

func isPrefix(p, path []string) bool { return len(p) <= len(path) && slices.Equal(p, path[:len(p)]) }

// above returns r without what a fold at the dot f has taken up, so that it joins with a record folded
// there. Whoever folded held everything up to f, so nothing is lost; and what is later than f had seen
// everything up to f, which is written into the vectors that are joined, so that they have one form in
// all regions.
func (r *Record) above(f Dot) *Record {
	out := *r
	out.dead = r.dead.above(f)
	out.root = r.root.above(f)
	if r.expiry.expiry.Compare(f) <= 0 {
		out.expiry = assign{}
	}
	out.expired = vectorAbove(r.expired, f)
	out.nodes = make([]node, 0, len(r.nodes))
	for i := range r.nodes {
		n := &r.nodes[i]
		c := node{path: n.path, assign: n.assign.above(f)}
		for _, s := range n.sums {
			if s.dot().Compare(f) > 0 {
				c.sums = append(c.sums, s)
			}
		}
		for _, a := range n.adds {
			if a.dot().Compare(f) > 0 {
				c.adds = append(c.adds, a)
			}
		}
		for _, m := range n.removes {
			if m.dot.Compare(f) > 0 {
				m.seen.Raise(f)
				c.removes = append(c.removes, m)
			}
		}
		c.removes = enough(c.removes)
		for _, t := range n.appends {
			if t.dot.Compare(f) > 0 {
				c.appends = append(c.appends, t)
			}
		}
		if !c.empty() {
			out.nodes = append(out.nodes, c)
		}
	}
	return &out
}

// isAbove tells whether r is a delta whose writer knew of the fold at f: above would change nothing.
func (r *Record) isAbove(f Dot) bool {
	return r.delta && r.ctx.floor.Compare(f) >= 0 && (!r.root.present() || r.root.dot.Compare(f) > 0)
}

func (a assign) above(f Dot) assign {
	if !a.present() || a.dot.Compare(f) < 0 || a.dot == f && a.expiry.IsZero() {
		return assign{}
	}
	return a
}

// vectorAbove returns what an expiry later than f had seen, and nothing for those up to f: they cannot have
// seen f itself.
func vectorAbove(v Vector, f Dot) Vector {
	if !v.Covers(f) {
		return Vector{}
	}
	v.Raise(f)
	return v
}
