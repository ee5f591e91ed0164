package crdt

import "github.com/commutatordb/commutator/internal/mutant"

// Trim drops edits that can never count again, of an item that is written to without a pause: its newest write is never stable, so it does
// not fold, and what has been overridden would pile up. stable is Fold's. It changes nothing that is shown, now or later, and takes nothing
// up: whatever is joined afterwards, where it was trimmed or not, comes to the same. (A delta is later than all that is dropped; of a whole
// state Join knows, by what was seen and is not there.)
//
// What may still arrive has seen everything up to stable. So what an assignment covers that governs now, whatever comes to govern covers:
// it is dead for good. What made it so stays, assignments and removers: another region may have folded what they do away with into a value.
func (r *Record) Trim(stable HLC) {
	if stable == 0 || r.delta || len(r.nodes) == 0 || mutant.On(mutant.HotNeverTrimmed) {
		return
	}
	var out []node // nil: as they were so far
	above := lineage{root: &r.root}
	for i := range r.nodes {
		n := &r.nodes[i]
		g := above.enter(n)
		if n.assign.present() {
			g = &n.assign
		}
		t := trimming{n: n, g: g, stable: stable}
		c := node{path: n.path, assign: n.assign, sums: t.sums(), appends: t.appends(), adds: t.adds(), removes: n.removes}
		same := len(c.sums) == len(n.sums) && len(c.adds) == len(n.adds) && len(c.appends) == len(n.appends)
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

// trimming is what can be dropped of one node.
type trimming struct {
	n      *node
	g      *assign // that governs it
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

// enter returns the assignment that governs above a node, and goes on below the node.
func (l *lineage) enter(n *node) (g *assign) {
	for len(l.above) > 0 && !isPrefix(l.above[len(l.above)-1].path, n.path) {
		l.above = l.above[:len(l.above)-1]
	}
	g = l.root
	if k := len(l.above); k > 0 {
		g = &l.above[k-1].assign
	}
	if n.assign.present() {
		l.above = append(l.above, n)
	}
	return g
}

// leave takes back that the last node entered has an assignment: one above it is greater.
func (l *lineage) leave() { l.above = l.above[:len(l.above)-1] }
