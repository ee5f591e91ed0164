package crdt

import (
	"slices"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// Record is the state of one item: what its writes, merged, have come to. The zero Record is the state
// of a key that is not held. A delta is a Record too: what one write added.
//
// Everything that a Record's slices point to is shared between records and never written to again: a
// copy of a Record is a snapshot of it.
type Record struct {
	// Key, when set, is the item's key attributes in stored form. An item shows them even while the
	// write that created it is still on its way and only later edits are here. Not encoded.
	Key []byte

	// seen covers every write whose effect is in here. Its floor is the newest dot of the last fold;
	// below it the record holds the folded form only.
	seen Vector

	// writes has for each actor its newest write that was no delete. Invariant: seen contains it.
	writes Vector

	// dead is the newest delete, without a value, and expired what expiries had seen, joined. expiry is
	// the assignment that a write after a seen expiry turns it into; of several the greatest.
	dead    assign
	expired Vector
	expiry  assign

	// root is the assignment of (); its value is a stored item. nodes are sorted by path, none is
	// empty, and no assignment in them has a greater one at or above its path.
	root  assign
	nodes []node

	// delta is set in what Write returns: the record is one write, made by `by` having seen ctx.
	delta bool
	by    Origin
	ctx   Vector

	// shown is what Visible answers, known tells whether it is.
	shown []byte
	known bool
}

// node is the state of one path below ().
type node struct {
	path    []string
	assign  assign
	sums    []sum    // sorted by actor, id
	adds    []add    // sorted by element, actor
	removes []remove // sorted by element, dot
	appends []tail   // sorted by dot
}

// assign is an assignment of a path. The zero assign is none.
type assign struct {
	dot Dot

	// expiry is set in what a write after a seen expiry leaves of it: dot is then the newest that the
	// expiry had seen, and expiry its own, so that it overrides that and nothing unseen.
	expiry Dot

	by     Origin
	ctx    Vector  // what its writer had seen
	totals []total // the running totals it had seen at or below its path, sorted by path, actor, id
	value  []byte  // stored value, at () a stored item; nil: absent
}

func (a *assign) present() bool { return !a.dot.IsZero() }

// compare orders the assignments of a path and its ancestors: the greatest governs.
func (a *assign) compare(b *assign) int {
	if c := a.dot.Compare(b.dot); c != 0 {
		return c
	}
	return a.expiry.Compare(b.expiry)
}

// sum is an actor's running total of increments.
type sum struct {
	actor Actor
	id    HLC // of the entry's first increment
	hlc   HLC // of its newest
	total item.Number
}

func (s *sum) dot() Dot { return Dot{s.hlc, s.actor} }

// total is what an assignment had seen of a sum.
type total struct {
	path  []string
	actor Actor
	id    HLC
	total item.Number
}

// add is the newest adding of an element by one actor.
type add struct {
	elem  string // stored value, tag and all
	actor Actor
	hlc   HLC
}

func (a *add) dot() Dot { return Dot{a.hlc, a.actor} }

// remove is a remover of an element. Where another has seen it, and all that it had, that one is enough.
type remove struct {
	elem string
	dot  Dot
	seen Vector
}

// within tells whether another remover of the element leaves nothing to do.
func (m *remove) within(o *remove) bool { return o.seen.Covers(m.dot) && o.seen.Contains(m.seen) }

// tail is what one write appended to a list: a stored list.
type tail struct {
	dot    Dot
	values []byte
}

// emptyItem is the stored form of an item without attributes.
var emptyItem = []byte{0}

// Newest returns the newest dot that the record has seen.
func (r *Record) Newest() Dot { return r.seen.Newest() }

// Seen returns the writes whose effects are in the record.
func (r *Record) Seen() Vector { return r.seen }

// IsDelta tells whether the record is what one write added.
func (r *Record) IsDelta() bool { return r.delta }

// By returns, for a delta, the operation that made it.
func (r *Record) By() Origin { return r.by }

// IsFolded tells whether nothing is left of the record but a dot and an item.
func (r *Record) IsFolded() bool {
	return r.rootFolded() && len(r.nodes) == 0 && r.writes.Equal(r.seen) && !r.dead.present() && r.expired.IsZero() && !r.expiry.present() && !r.delta
}

// rootFolded tells whether all that was seen is folded, into the root.
func (r *Record) rootFolded() bool {
	return r.root.present() && r.root.dot == r.seen.floor && len(r.seen.entries) == 0 && r.isFold(&r.root)
}

func (r *Record) isFold(a *assign) bool {
	return a.expiry.IsZero() && a.by == Origin{} && len(a.ctx.entries) == 0 && a.ctx.floor == a.dot && len(a.totals) == 0
}

// alive tells whether there is an item: some write is later than the newest delete and unseen by every
// expiry.
func (r *Record) alive() bool {
	if f := r.writes.floor; !f.IsZero() && f.Compare(r.dead.dot) > 0 && !r.expired.Covers(f) {
		return true
	}
	for _, e := range r.writes.entries {
		if d := e.dot(); d.Compare(r.dead.dot) > 0 && !r.expired.Covers(d) {
			return true
		}
	}
	return false
}

// Visible returns the stored form of the item that clients see; ok is false when there is none. The
// caller must not change the bytes.
func (r *Record) Visible() (itemBytes []byte, ok bool) {
	if !r.known {
		r.shown, r.known = nil, true
		if r.alive() {
			var e evaluation
			r.shown = r.evaluate(&e)
		}
	}
	return r.shown, r.shown != nil
}

func (r *Record) forget() { r.shown, r.known = nil, false }

// governing returns the assignment that governs a path, or one that is not present.
func (r *Record) governing(path []string) *assign {
	// Of the assignments kept, a deeper one is never less than one above it.
	g := &r.root
	for i := range r.nodes {
		n := &r.nodes[i]
		if len(n.path) <= len(path) && n.assign.present() && slices.Equal(n.path, path[:len(n.path)]) {
			g = &n.assign
		}
	}
	return g
}

func (r *Record) node(path []string) *node {
	i, ok := slices.BinarySearchFunc(r.nodes, path, func(n node, p []string) int { return slices.Compare(n.path, p) })
	if !ok {
		return nil
	}
	return &r.nodes[i]
}

// totals returns the running totals at and below a path.
func (r *Record) totals(path []string) []total {
	var out []total
	for i := range r.nodes {
		n := &r.nodes[i]
		if len(n.sums) == 0 || len(n.path) < len(path) || !slices.Equal(n.path[:len(path)], path) {
			continue
		}
		for _, s := range n.sums {
			out = append(out, total{n.path, s.actor, s.id, s.total})
		}
	}
	return out
}

func compareTotals(a, b *total) int {
	if c := slices.Compare(a.path, b.path); c != 0 {
		return c
	}
	return compareEntry(a.actor, a.id, b.actor, b.id)
}

func compareEntry(a Actor, id HLC, b Actor, jd HLC) int {
	switch {
	case a < b || a == b && id < jd:
		return -1
	case a == b && id == jd:
		return 0
	}
	return 1
}

func compareSums(a, b *sum) int { return compareEntry(a.actor, a.id, b.actor, b.id) }

func compareAdds(a, b *add) int {
	if c := strings.Compare(a.elem, b.elem); c != 0 {
		return c
	}
	return compareEntry(a.actor, 0, b.actor, 0)
}

func compareRemoves(a, b *remove) int {
	if c := strings.Compare(a.elem, b.elem); c != 0 {
		return c
	}
	return a.dot.Compare(b.dot)
}

func compareTails(a, b *tail) int { return a.dot.Compare(b.dot) }

func compareNodes(a, b *node) int { return slices.Compare(a.path, b.path) }

func (n *node) empty() bool {
	return !n.assign.present() && len(n.sums) == 0 && len(n.adds) == 0 && len(n.removes) == 0 && len(n.appends) == 0
}
