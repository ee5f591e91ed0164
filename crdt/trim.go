package crdt

import (
	"slices"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
)

// Trim drops what can never count again, of an item that is written to without a pause: its newest write is never stable, so it does not
// fold, and what has been overridden would pile up. stable is Fold's. It changes nothing that is shown, now or later, and takes nothing
// up: whatever is joined afterwards, where it was trimmed or not, comes to the same. (A delta is later than all that is dropped; of a whole
// state Join knows, by what was seen and is not there.)
//
// What may still arrive has seen everything up to stable. So what an assignment covers that governs now, whatever comes to govern covers:
// it is dead for good. What makes it so may go once it is stable itself, and has nothing left to act on.
func (r *Record) Trim(stable HLC) {
	if stable == 0 || r.delta || len(r.nodes) == 0 || mutant.On(mutant.HotNeverTrimmed) {
		return
	}
	var out []node // nil: as they were so far
	above := lineage{root: &r.root}
	for i := range r.nodes {
		n := &r.nodes[i]
		at, g := above.enter(n)
		own := n.assign.present()
		t := trimming{n: n, at: at, g: g, stable: stable}
		if own {
			t.at, t.g = len(n.path), &n.assign
		}
		c := node{path: n.path, assign: n.assign, sums: t.sums(), appends: t.appends(), adds: t.adds()}
		c.removes = t.removes(c.adds)
		last := i+1 == len(r.nodes) || !isPrefix(n.path, r.nodes[i+1].path)
		if own && last && n.assign.dot.HLC <= stable && n.assign.value == nil && c.bare() && absentUnder(at, g, n.path) {
			c.assign = assign{}
		}
		same := c.assign.present() == own && len(c.sums) == len(n.sums) && len(c.adds) == len(n.adds) &&
			len(c.removes) == len(n.removes) && len(c.appends) == len(n.appends)
		if out == nil && same {
			continue
		}
		if out == nil {
			out = make([]node, 0, len(r.nodes))
			out = append(out, r.nodes[:i]...)
		}
		if !c.empty() {
			out = append(out, c)
		}
	}
	if out == nil {
		return
	}
	if r.nodes = out; len(out) == 0 {
		r.nodes = nil
	}
}

// bare tells whether a node has nothing but its assignment, if that.
func (n *node) bare() bool {
	return len(n.sums) == 0 && len(n.adds) == 0 && len(n.removes) == 0 && len(n.appends) == 0
}

// absentUnder tells whether there would be nothing at a path, in a map that is there, if the assignment above it governed.
func absentUnder(at int, g *assign, path []string) bool {
	last := len(path) - 1
	if last == 0 {
		return item.Attr(g.value, path[0]) == nil
	}
	var in []byte
	if at == last {
		in = g.value // of a node: tag and all
	} else {
		in = narrow(g.value, at, path[:last])
	}
	return len(in) > 0 && in[0] == item.TagM && item.Attr(in[1:], path[last]) == nil
}

// trimming is what can be dropped of one node.
type trimming struct {
	n      *node
	g      *assign // that governs it
	at     int     // how many names g's path has
	stable HLC
}

// dead tells whether an edit never lives again.
func (t *trimming) dead(d Dot) bool { return d.HLC <= t.stable && t.g.ctx.Covers(d) }

// sums lets go of dead running totals that their actors do not go on with: those that have begun another, or know what covers this one. An
// actor that does not know that yet will say it anew, with more in it, and what is assigned here until then must tell how much of it it has
// seen.
func (t *trimming) sums() []sum {
	settled := t.g.expiry.IsZero() && t.g.dot.HLC <= t.stable // of what was left of expiries one may not be stable
	return without(t.n.sums, func(i int) bool {
		s := &t.n.sums[i]
		done := i+1 < len(t.n.sums) && t.n.sums[i+1].actor == s.actor
		return t.dead(s.dot()) && (done || settled || mutant.On(mutant.TotalTrimmed))
	})
}

func (t *trimming) appends() []tail {
	return without(t.n.appends, func(i int) bool { return t.dead(t.n.appends[i].dot) })
}

// adds lets go of elements that were removed, too, but for the newest of each type: it counts when types are weighed.
func (t *trimming) adds() []add {
	newest := [3]int{-1, -1, -1}
	for i := range t.n.adds {
		a := &t.n.adds[i]
		if k := setIndex(a.elem); !t.g.ctx.Covers(a.dot()) && (newest[k] < 0 || t.n.adds[newest[k]].dot().Compare(a.dot()) < 0) {
			newest[k] = i
		}
	}
	return without(t.n.adds, func(i int) bool {
		a := &t.n.adds[i]
		return t.dead(a.dot()) || a.hlc <= t.stable && i != newest[setIndex(a.elem)] && t.n.removed(a.elem, a.dot())
	})
}

// removes lets go of those that nothing is left for: no element that was added, or is in the value that the assignment gives.
func (t *trimming) removes(adds []add) []remove {
	var base item.Value
	known := false
	return without(t.n.removes, func(i int) bool {
		m := &t.n.removes[i]
		if m.dot.HLC > t.stable && !mutant.On(mutant.RemoveTrimmed) {
			return false
		}
		j, _ := slices.BinarySearchFunc(adds, m.elem, func(a add, elem string) int { return compareStrings(a.elem, elem) })
		for ; j < len(adds) && adds[j].elem == m.elem; j++ {
			if m.seen.Covers(adds[j].dot()) {
				return false
			}
		}
		if !t.g.present() || !m.seen.Covers(t.g.dot) {
			return true
		}
		if !known {
			base, known = t.base(), true
		}
		return !base.Kind().IsSet() || !base.Contains(mustDecode([]byte(m.elem)))
	})
}

// base returns what the governing assignment has at the node.
func (t *trimming) base() item.Value {
	if t.at == len(t.n.path) {
		return mustDecode(t.g.value)
	}
	return mustDecode(narrow(t.g.value, t.at, t.n.path))
}

// without returns what is not dropped of a slice, which it does not write to.
func without[T any](s []T, drop func(i int) bool) []T {
	for i := range s {
		if !drop(i) {
			continue
		}
		var out []T
		out = append(out, s[:i]...)
		for j := i + 1; j < len(s); j++ {
			if !drop(j) {
				out = append(out, s[j])
			}
		}
		return out
	}
	return s
}

// lineage tells, for nodes in order, which assignment governs above each. Of those kept a deeper one is never less than one above it.
type lineage struct {
	root  *assign
	above []*node
}

// enter returns the assignment that governs above a node, and how many names its path has, and goes on below the node.
func (l *lineage) enter(n *node) (at int, g *assign) {
	for len(l.above) > 0 && !isPrefix(l.above[len(l.above)-1].path, n.path) {
		l.above = l.above[:len(l.above)-1]
	}
	g = l.root
	if k := len(l.above); k > 0 {
		at, g = len(l.above[k-1].path), &l.above[k-1].assign
	}
	if n.assign.present() {
		l.above = append(l.above, n)
	}
	return at, g
}

// leave takes back that the last node entered has an assignment: one above it is greater.
func (l *lineage) leave() { l.above = l.above[:len(l.above)-1] }
