package crdt

import "github.com/commutatordb/commutator/internal/mutant"

// Folding of an item that is written to without a pause: its newest write is never stable, and what is older could grow without a bound.

// partFoldFrom is how many edits and assignments below the top must be stable for a fold of a part: it evaluates the item.
const partFoldFrom = 32

// FoldPart folds what is at or below stable of an item that has newer writes, once that is much, and where it can be told apart from
// them. It changes nothing that is shown, now or later; stable is Fold's. It tells whether it did something.
func (r *Record) FoldPart(stable HLC) bool { return r.foldPart(stable, partFoldFrom) }

func (r *Record) foldPart(stable HLC, from int) bool {
	f, n := r.newestBelow(stable)
	if n < from || f.Compare(r.seen.floor) <= 0 || mutant.On(mutant.HotNeverFolds) {
		return false
	}
	low, totals, ok := r.below(f)
	if !ok {
		return false
	}
	before, was := r.Visible()
	low.forget()
	shown := low.evaluate(&evaluation{})
	low.shown, low.known = shown, true
	low.fold(f)
	after := *r
	after.join(&low)
	after.nodes = merged(after.nodes, totals, compareNodes, joinNodes)
	after.Key = r.Key
	after.forget()
	if now, is := after.Visible(); is != was || string(now) != string(before) {
		return false
	}
	*r = after
	return true
}

// newestBelow returns the newest write at or below stable of which there is something here, and of how many pieces below the top it would be the
// end.
func (r *Record) newestBelow(stable HLC) (f Dot, n int) {
	see := func(d Dot) {
		if !d.IsZero() && d.HLC <= stable && d.Actor != allActors {
			f = maxDot(f, d)
			n++
		}
	}
	see(r.root.dot)
	for _, e := range r.seen.entries {
		see(e.dot())
	}
	n = 0
	for i := range r.nodes {
		p := &r.nodes[i]
		see(p.assign.dot)
		for j := range p.sums {
			see(p.sums[j].dot())
		}
		for j := range p.adds {
			see(p.adds[j].dot())
		}
		for j := range p.removes {
			for _, e := range p.removes[j].seen.entries {
				see(e.dot())
			}
		}
		for j := range p.appends {
			see(p.appends[j].dot)
		}
	}
	return f, n
}

// below returns what is live of r's writes up to f, with running totals as they are, and the running totals that a newer write has
// overridden. ok is false where they cannot be told from newer ones: where one of those has not seen one of these, and they meet.
func (r *Record) below(f Dot) (low Record, totals []node, ok bool) {
	if !r.expired.IsZero() || r.expiry.present() || !r.alive() {
		return low, nil, false
	}
	low = Record{Key: r.Key}
	low.seen.Raise(f)
	low.writes.Raise(f)
	if r.root.dot.Compare(f) <= 0 {
		low.root = r.root
	}
	for i := range r.nodes {
		n := &r.nodes[i]
		g := r.governing(n.path)
		newer := g.dot.Compare(f) > 0
		c, total := node{path: n.path}, node{path: n.path}
		if n.assign.dot.Compare(f) <= 0 {
			c.assign = n.assign
		}
		kinds := 0
		for _, s := range n.sums {
			seen := g.ctx.Covers(s.dot())
			switch {
			case newer && seen: // its actor may not have heard of that yet, and go on with it, as it does with its newest
				if last := len(total.sums) - 1; last >= 0 && total.sums[last].actor == s.actor {
					total.sums[last] = s
				} else {
					total.sums = append(total.sums, s)
				}
			case newer && s.dot().Compare(f) <= 0:
				return low, nil, false
			case !newer && !seen:
				c.sums = append(c.sums, s)
				kinds = 1
			}
		}
		var sets [3]bool
		for _, a := range n.adds {
			if a.dot().Compare(f) > 0 || g.ctx.Covers(a.dot()) {
				continue
			}
			if newer {
				return low, nil, false
			}
			c.adds = append(c.adds, a)
			sets[setIndex(a.elem)] = true
		}
		for _, some := range sets {
			if some {
				kinds++
			}
		}
		for _, t := range n.appends {
			if t.dot.Compare(f) > 0 || g.ctx.Covers(t.dot) {
				continue
			}
			if newer {
				return low, nil, false
			}
			c.appends = append(c.appends, t)
		}
		if len(c.appends) > 0 {
			kinds++
		}
		if kinds > 1 {
			return low, nil, false
		}
		if !n.removesApart(g, f) {
			return low, nil, false
		}
		c.removes = n.removes
		if !c.empty() {
			low.nodes = append(low.nodes, c)
		}
		if !total.empty() {
			totals = append(totals, total)
		}
	}
	return low, totals, true
}

// removesApart tells whether every remover of an element has seen f and all of the element up to f, or nothing later that is here or may come.
func (n *node) removesApart(g *assign, f Dot) bool {
	for i := range n.removes {
		m := &n.removes[i]
		saw := m.seen.Covers(f)
		if !saw && m.seen.Newest().Compare(f) > 0 {
			return false
		}
		if saw && g.dot.Compare(f) <= 0 && !m.seen.Covers(g.dot) || !saw && g.dot.Compare(f) > 0 && m.seen.Covers(g.dot) {
			return false
		}
		for j := range n.adds {
			a := &n.adds[j]
			if a.elem != m.elem {
				continue
			}
			if old := a.dot().Compare(f) <= 0; old && saw && !m.seen.Covers(a.dot()) || !old && !saw && m.seen.Covers(a.dot()) {
				return false
			}
		}
	}
	return true
}
