package crdt

import (
	"encoding/binary"
	"slices"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
)

// evaluation works out what a record shows: MERGE.md, "Visible value". Attributes without a node are
// copied as bytes, only the others are built as trees.
type evaluation struct {
	// flaws collects what merging made that cannot be shown as it is.
	flaws []flaw

	// keep, when set, is given the nodes that outlive folding at this dot.
	keep    *[]node
	foldDot Dot
}

// flaw is an edit that is masked by a value of another type, or a sum that had to be rounded.
type flaw struct {
	class Class
	path  []string
	over  Dot // what it is masked by: the governing assignment, or the edit that decided the type
	edit  Dot // the newest of the edits concerned
}

// evaluate returns the stored form of the item that r's nodes make, whether or not it is deleted.
func (r *Record) evaluate(e *evaluation) []byte {
	base := r.root.value
	if base == nil {
		base = emptyItem
	}
	if len(r.nodes) == 0 && r.Key == nil {
		return base
	}
	type attribute struct {
		name  string
		value []byte
	}
	var changed []attribute
	size := len(base) + 8
	for nodes := r.nodes; len(nodes) > 0; {
		name, n := nodes[0].path[0], 1
		for n < len(nodes) && nodes[n].path[0] == name {
			n++
		}
		a := attribute{name, e.attribute(nodes[:n], base, &r.root)}
		size += len(a.name) + len(a.value) + 4
		changed = append(changed, a)
		nodes = nodes[n:]
	}
	keys, rest := 0, r.Key
	if rest != nil {
		keys, rest, _ = item.CutCount(rest)
	}
	for ; keys > 0; keys-- {
		name, value, next, err := item.CutField(rest)
		mustBeItem(err)
		rest = next
		i, ok := slices.BinarySearchFunc(changed, string(name), func(a attribute, s string) int { return compareStrings(a.name, s) })
		switch {
		case !ok && item.Attr(base, string(name)) == nil:
			changed = slices.Insert(changed, i, attribute{string(name), value})
		case ok && changed[i].value == nil:
			changed[i].value = value
		default:
			continue
		}
		size += len(name) + len(value) + 4
	}

	total, fields, err := item.CutCount(base)
	mustBeItem(err)
	count := total
	for _, a := range changed {
		was := item.Attr(base, a.name) != nil
		switch {
		case was && a.value == nil:
			count--
		case !was && a.value != nil:
			count++
		}
	}
	out := make([]byte, 0, size)
	out = binary.AppendUvarint(out, uint64(count))
	put := func(a attribute) {
		if a.value != nil {
			out = binary.AppendUvarint(out, uint64(len(a.name)))
			out = append(out, a.name...)
			out = append(out, a.value...)
		}
	}
	for ; total > 0; total-- {
		name, _, rest, err := item.CutField(fields)
		mustBeItem(err)
		for len(changed) > 0 && changed[0].name < string(name) {
			put(changed[0])
			changed = changed[1:]
		}
		if len(changed) > 0 && changed[0].name == string(name) {
			put(changed[0])
			changed = changed[1:]
		} else {
			out = append(out, fields[:len(fields)-len(rest)]...)
		}
		fields = rest
	}
	for _, a := range changed {
		put(a)
	}
	return out
}

// mustBeItem holds the promise that Decode and Write's caller made: bytes inside a record are stored
// items and values.
func mustBeItem(err error) {
	if err != nil {
		panic("crdt: a record holds what is no stored item: " + err.Error())
	}
}

func mustDecode(value []byte) item.Value {
	if value == nil {
		return item.Value{}
	}
	v, err := item.DecodeValue(value)
	mustBeItem(err)
	return v
}

// attribute returns the stored value of one top-level attribute, nil when there is none. nodes are all
// nodes of it.
func (e *evaluation) attribute(nodes []node, base []byte, root *assign) []byte {
	n := &nodes[0]
	if len(nodes) == 1 && len(n.path) == 1 && n.assign.present() &&
		len(n.sums) == 0 && len(n.adds) == 0 && len(n.removes) == 0 && len(n.appends) == 0 {
		return n.assign.value
	}
	var under item.Value
	if len(n.path) > 1 || !n.assign.present() {
		under = mustDecode(item.Attr(base, n.path[0]))
	}
	v := e.value(nodes, 1, under, root)
	if v.IsAbsent() {
		return nil
	}
	return item.AppendValue(nil, v)
}

// value returns the value of one path. nodes are those at and below it and share the first depth names;
// base is what the governing assignment g, made above it, has there.
func (e *evaluation) value(nodes []node, depth int, base item.Value, g *assign) item.Value {
	if len(nodes[0].path) > depth {
		return e.below(nodes, depth, base, g)
	}
	n := &nodes[0]
	nodes = nodes[1:]
	if n.assign.present() {
		g, base = &n.assign, mustDecode(n.assign.value)
	}
	if len(n.sums) == 0 && len(n.adds) == 0 && len(n.removes) == 0 && len(n.appends) == 0 {
		return e.below(nodes, depth, base, g)
	}

	emptied := false
	if base.Kind().IsSet() && len(n.removes) > 0 {
		base = withoutRemoved(n, base, g.dot)
		emptied = base.IsAbsent()
	}
	l := n.live(g)
	kind := base.Kind()
	if kind == item.KindAbsent {
		kind = l.newestKind()
		if kind == item.KindAbsent {
			if l.none && !emptied {
				return e.below(nodes, depth, base, g)
			}
			return item.Value{}
		}
	}
	e.masked(n, nodes, &l, kind, base.IsAbsent(), g)

	shown := base
	switch {
	case kind == item.KindN:
		shown = e.number(n, &l, base, g)
	case kind.IsSet():
		shown = base
		if elems := l.elems(n, g, kind); len(elems) > 0 {
			shown = item.NewSet(kind, append(elems, base.Elems()...))
		}
	case kind == item.KindL:
		shown = withAppends(n, g, base)
	case kind == item.KindM:
		shown = e.below(nodes, depth, base, g)
	}
	e.keepEdits(n, &l, kind, base, shown, g)
	return shown
}

// below returns the value of a path that has no live edits of its own.
func (e *evaluation) below(nodes []node, depth int, base item.Value, g *assign) item.Value {
	switch {
	case len(nodes) == 0:
		return base
	case base.Kind() == item.KindM || base.IsAbsent() && liveBelow(nodes, g):
		return item.M(e.fields(nodes, depth, base.Fields(), g)...)
	case !base.IsAbsent():
		e.maskedBelow(nodes, g.dot, g)
	}
	return base
}

// fields merges the nodes below a map into its fields.
func (e *evaluation) fields(nodes []node, depth int, base []item.Field, g *assign) []item.Field {
	out := make([]item.Field, 0, len(base)+len(nodes))
	for len(nodes) > 0 {
		name, k := nodes[0].path[depth], 1
		for k < len(nodes) && nodes[k].path[depth] == name {
			k++
		}
		for len(base) > 0 && base[0].Name < name {
			out = append(out, base[0])
			base = base[1:]
		}
		var under item.Value
		if len(base) > 0 && base[0].Name == name {
			under = base[0].Value
			base = base[1:]
		}
		if v := e.value(nodes[:k], depth+1, under, g); !v.IsAbsent() {
			out = append(out, item.Field{Name: name, Value: v})
		}
		nodes = nodes[k:]
	}
	return append(out, base...)
}

// liveBelow tells whether any node lives under g. An assignment always does, to absent too: who removed
// a field of a map leaves the map.
func liveBelow(nodes []node, g *assign) bool {
	for i := range nodes {
		if nodes[i].assign.present() {
			return true
		}
		if l := nodes[i].live(g); !l.none {
			return true
		}
	}
	return false
}

// live sums up the edits of a node that its governing assignment had not seen.
type live struct {
	none    bool // there is none, removed elements' adds counted too
	sums    Dot  // newest of each kind; zero: none
	appends Dot
	sets    [3]Dot // SS, NS, BS; zero where no element is left
}

func (n *node) live(g *assign) live {
	l := live{none: true}
	for i := range n.sums {
		if d := n.sums[i].dot(); !g.ctx.Covers(d) {
			l.sums = maxDot(l.sums, d)
			l.none = false
		}
	}
	var left [3]bool
	for i := range n.adds {
		a := &n.adds[i]
		if g.ctx.Covers(a.dot()) {
			continue
		}
		k := setIndex(a.elem)
		l.none = false
		l.sets[k] = maxDot(l.sets[k], a.dot())
		if !n.removed(a.elem, a.dot()) {
			left[k] = true
		}
	}
	for k := range left {
		if !left[k] {
			l.sets[k] = Dot{}
		}
	}
	for i := range n.appends {
		if d := n.appends[i].dot; !g.ctx.Covers(d) {
			l.appends = maxDot(l.appends, d)
			l.none = false
		}
	}
	return l
}

// setIndex returns which set type an element belongs to.
func setIndex(elem string) int {
	switch elem[0] {
	case item.TagN:
		return 1
	case item.TagB:
		return 2
	}
	return 0
}

// newestKind returns the type that the newest live edit gives to a path whose base is absent.
func (l *live) newestKind() item.Kind {
	kind, newest := item.KindAbsent, Dot{}
	choose := func(k item.Kind, d Dot) {
		if d.Compare(newest) > 0 {
			kind, newest = k, d
		}
	}
	choose(item.KindN, l.sums)
	for k, d := range l.sets {
		choose(item.KindSS+item.Kind(k), d)
	}
	choose(item.KindL, l.appends)
	return kind
}

func (l *live) newest(kind item.Kind) Dot {
	switch {
	case kind == item.KindN:
		return l.sums
	case kind == item.KindL:
		return l.appends
	case kind.IsSet():
		return l.sets[kind-item.KindSS]
	}
	return Dot{}
}

// masked notes the live edits whose type is not the path's.
func (e *evaluation) masked(n *node, below []node, l *live, kind item.Kind, soft bool, g *assign) {
	over := g.dot
	if soft {
		over = l.newest(kind)
	}
	note := func(k item.Kind, d Dot) {
		if !d.IsZero() && k != kind {
			e.flaws = append(e.flaws, flaw{ClassTypeMasked, n.path, over, d})
		}
	}
	note(item.KindN, l.sums)
	for k, d := range l.sets {
		note(item.KindSS+item.Kind(k), d)
	}
	note(item.KindL, l.appends)
	if kind != item.KindM {
		e.maskedBelow(below, over, g)
	}
}

func (e *evaluation) maskedBelow(nodes []node, over Dot, g *assign) {
	for i := range nodes {
		n := &nodes[i]
		l := n.live(g)
		d := maxDot(l.sums, l.appends)
		for _, s := range l.sets {
			d = maxDot(d, s)
		}
		if n.assign.value != nil {
			d = maxDot(d, n.assign.dot)
		}
		if !d.IsZero() {
			e.flaws = append(e.flaws, flaw{ClassTypeMasked, n.path, over, d})
		}
	}
}

// number adds the live sums to a number, or to 0.
func (e *evaluation) number(n *node, l *live, base item.Value, g *assign) item.Value {
	if l.sums.IsZero() {
		return base
	}
	sum := base.Number()
	for i := range n.sums {
		if s := &n.sums[i]; !g.ctx.Covers(s.dot()) {
			sum = sum.AddExact(s.total.SubExact(g.totalOf(n.path, s)))
		}
	}
	shown, fits := sum.Rounded()
	if !fits {
		e.flaws = append(e.flaws, flaw{ClassNumericOverflow, n.path, g.dot, l.sums})
	}
	return item.N(shown)
}

// totalOf returns how much of a running total the assignment had seen.
func (a *assign) totalOf(path []string, s *sum) item.Number {
	for i := range a.totals {
		if t := &a.totals[i]; t.actor == s.actor && t.id == s.id && slices.Equal(t.path, path) {
			return t.total
		}
	}
	return item.Number{}
}

// removed tells whether a remover of the element had seen the write d that put it there.
func (n *node) removed(elem string, d Dot) bool {
	i, _ := slices.BinarySearchFunc(n.removes, elem, func(r remove, s string) int { return compareStrings(r.elem, s) })
	for ; i < len(n.removes) && n.removes[i].elem == elem; i++ {
		if n.removes[i].seen.Covers(d) {
			return true
		}
	}
	return false
}

func withoutRemoved(n *node, set item.Value, d Dot) item.Value {
	kept := make([]item.Value, 0, set.Len())
	for _, m := range set.Elems() {
		if !n.removed(elementOf(m), d) {
			kept = append(kept, m)
		}
	}
	return item.NewSet(set.Kind(), kept)
}

func elementOf(member item.Value) string { return string(item.AppendValue(nil, member)) }

// elems returns the members of one set type that live adds put there.
func (l *live) elems(n *node, g *assign, kind item.Kind) []item.Value {
	var out []item.Value
	for i := range n.adds {
		a := &n.adds[i]
		if setIndex(a.elem) == int(kind-item.KindSS) && !g.ctx.Covers(a.dot()) && !n.removed(a.elem, a.dot()) {
			out = append(out, mustDecode([]byte(a.elem)))
		}
	}
	return out
}

func withAppends(n *node, g *assign, base item.Value) item.Value {
	out := slices.Clone(base.Elems())
	for i := range n.appends {
		if t := &n.appends[i]; !g.ctx.Covers(t.dot) {
			out = append(out, mustDecode(t.values).Elems()...)
		}
	}
	return item.L(out...)
}

// keepEdits gives to a fold what it must leave of a node: live sums, since their actors go on with them;
// and what a set masks, since the set may yet be emptied and then shows it. They lie over an assignment
// with the fold's dot, which had seen nothing (so that they stay live) but their totals.
//
// An actor with several live sums (an assignment that had not seen the older one won) goes on with the
// newest alone, so the others are settled against its total.
func (e *evaluation) keepEdits(n *node, l *live, kind item.Kind, base, shown item.Value, g *assign) {
	if e.keep == nil {
		return
	}
	k := node{path: n.path, assign: assign{dot: e.foldDot}}
	for i := range n.sums {
		s := &n.sums[i]
		if g.ctx.Covers(s.dot()) {
			continue
		}
		seen := g.totalOf(n.path, s)
		if last := len(k.sums) - 1; last >= 0 && k.sums[last].actor == s.actor {
			settled := &k.assign.totals[last]
			seen = seen.AddExact(settled.total).SubExact(k.sums[last].total)
			k.sums[last] = *s
			*settled = total{n.path, s.actor, s.id, seen}
			continue
		}
		k.sums = append(k.sums, *s)
		k.assign.totals = append(k.assign.totals, total{n.path, s.actor, s.id, seen})
	}
	k.assign.totals = slices.DeleteFunc(k.assign.totals, func(t total) bool { return t.total.IsZero() })
	if len(k.assign.totals) == 0 {
		k.assign.totals = nil
	}
	if kind.IsSet() {
		for i := range n.appends {
			if !g.ctx.Covers(n.appends[i].dot) {
				k.appends = append(k.appends, n.appends[i])
			}
		}
		k.adds = l.maskedAdds(n, g, kind)
	}
	if len(k.sums) == 0 && len(k.appends) == 0 && len(k.adds) == 0 {
		return
	}
	under := shown
	if kind == item.KindN && !mutant.On(mutant.CountTwice) {
		under = base
	}
	if !under.IsAbsent() {
		k.assign.value = item.AppendValue(nil, under)
	}
	*e.keep = append(*e.keep, k)
}

// maskedAdds returns the elements of other set types than kind that live adds put there and nobody
// removed. Each is given the newest dot of its type, which is what counts when types are weighed, so
// that adds since removed can go.
func (l *live) maskedAdds(n *node, g *assign, kind item.Kind) []add {
	var out []add
	for i := range n.adds {
		a := n.adds[i]
		k := setIndex(a.elem)
		if item.KindSS+item.Kind(k) == kind || g.ctx.Covers(a.dot()) || n.removed(a.elem, a.dot()) {
			continue
		}
		if len(out) == 0 || out[len(out)-1].elem != a.elem {
			out = append(out, add{a.elem, l.sets[k].Actor, l.sets[k].HLC})
		}
	}
	return out
}

// fold turns the record into its folded form: MERGE.md, "Stable, and folding".
func (r *Record) fold(at Dot) {
	shown, ok := r.Visible()
	if !ok {
		*r = Record{Key: r.Key}
		return
	}
	var kept []node
	if len(r.nodes) > 0 {
		e := evaluation{keep: &kept, foldDot: at}
		r.evaluate(&e)
		slices.SortFunc(kept, func(a, b node) int { return compareNodes(&a, &b) })
	}
	seen := Vector{floor: at}
	*r = Record{
		Key: r.Key, seen: seen, writes: seen,
		root:  assign{dot: at, ctx: seen, value: shown},
		nodes: kept,
		shown: shown, known: true,
	}
}

// Fold drops what no region can need any more once everything up to stable is seen by all, and tells
// whether nothing is left: the item was deleted, and its record is to be dropped. It does nothing unless
// the record's newest dot is at or below stable. stable must be what Stable returned, or, in a table
// with one region, at or above every dot.
//
// Folded records are equal in every region, whenever each of them folds: what is folded covers the
// item's writes up to its newest dot and not up to stable, which comes to the same, since the item has
// no write in between.
func (r *Record) Fold(stable HLC) (gone bool) {
	newest := r.seen.Newest()
	if newest.HLC > stable || newest.IsZero() {
		return false
	}
	if r.seen.floor != newest || r.delta {
		r.fold(newest)
	}
	return !r.root.present()
}
