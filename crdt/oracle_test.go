package crdt

import (
	"bytes"
	"slices"

	"github.com/commutatordb/commutator/item"
)

// The oracle says what an item shows from the history alone: which writes there are, and which of them
// each had seen. It knows no vectors, no joins, no folding and no running totals; sets of writes are
// bits. It restates the first sentence of MERGE.md:
//
//	A write overrides what it had seen. What it had not seen is merged.

// writes is a set of events by number.
type writes [4]uint64

func (s *writes) add(i int)     { s[i/64] |= 1 << (i % 64) }
func (s writes) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s writes) with(i int) writes {
	s.add(i)
	return s
}

func (s *writes) union(o writes) {
	for i := range s {
		s[i] |= o[i]
	}
}

func (s writes) within(o writes) bool {
	for i := range s {
		if s[i]&^o[i] != 0 {
			return false
		}
	}
	return true
}

// event is one write of the history.
type event struct {
	n    int
	dot  Dot
	op   Op
	seen writes

	assigns []placed
	incs    []edited // value: a number
	adds    []edited // value: an element
	removes []edited
	appends []edited // value: a list
}

// placed is an assignment that an event made, or one that it left of a delete it had seen.
type placed struct {
	path  []string
	value item.Value
	dot   Dot
	after Dot    // an expiry's dot, when it is what was left of one
	of    *event // the delete or expiry that it was left of
	gone  bool   // left of a record that was folded away: nothing was there up to dot
	seen  writes
	below Dot // of what is left of an expiry: the newest delete known, which did away with everything up to it
}

func (p *placed) compare(q *placed) int {
	if c := p.dot.Compare(q.dot); c != 0 {
		return c
	}
	return p.after.Compare(q.after)
}

type edited struct {
	path  []string
	value item.Value
	entry Dot // increments: the first of those counted in one total
}

type history struct{ events []*event }

// saw tells whether an assignment had seen a write. What is left of a delete has seen all up to it.
func (p *placed) saw(e *event) bool {
	if p == nil {
		return false
	}
	if p.gone {
		return e.dot.Compare(p.dot) <= 0
	}
	if p.of != nil && p.of.op == Delete {
		return e.dot.Compare(p.of.dot) <= 0
	}
	return p.seen.has(e.n) || e.dot.Compare(p.below) <= 0
}

func (h *history) each(held writes, f func(e *event)) {
	for _, e := range h.events {
		if held.has(e.n) {
			f(e)
		}
	}
}

// closed tells whether everything that the held writes had seen is held.
func (h *history) closed(held writes) bool {
	ok := true
	h.each(held, func(e *event) { ok = ok && e.seen.within(held) })
	return ok
}

func (h *history) alive(held writes) bool {
	alive := false
	h.each(held, func(w *event) {
		if w.op == Delete || w.op == Expire {
			return
		}
		lives := true
		h.each(held, func(d *event) {
			if d.op == Delete && d.dot.Compare(w.dot) > 0 || d.op == Expire && d.seen.has(w.n) {
				lives = false
			}
		})
		alive = alive || lives
	})
	return alive
}

// visible returns the item that the held writes show.
func (h *history) visible(held writes) (item.Item, bool) {
	if !h.alive(held) {
		return nil, false
	}
	return h.show(held), true
}

func (h *history) show(held writes) item.Item {
	g := h.governing(held, nil)
	var base item.Value
	if g != nil {
		base = g.value
	}
	return item.Item(h.children(held, nil, base, g))
}

func (h *history) governing(held writes, path []string) *placed {
	var g *placed
	h.each(held, func(e *event) {
		for i := range e.assigns {
			p := &e.assigns[i]
			if !isPrefix(p.path, path) {
				continue
			}
			switch {
			case g == nil || p.compare(g) > 0 || p.compare(g) == 0 && len(p.path) > len(g.path):
				g = p
			case p.compare(g) == 0 && p.of != nil && p.of.op == Expire: // of one expiry, left by two who knew of different deletes beside it
				both := *g
				both.seen.union(p.seen)
				both.below = maxDot(both.below, p.below)
				g = &both
			}
		}
	})
	return g
}

// children shows the map at path, made of base's fields and of what lies below.
func (h *history) children(held writes, path []string, base item.Value, g *placed) []item.Field {
	var names []string
	for _, f := range base.Fields() {
		names = append(names, f.Name)
	}
	names = append(names, h.namesBelow(held, path)...)
	slices.Sort(names)
	var out []item.Field
	for _, name := range slices.Compact(names) {
		p := append(slices.Clone(path), name)
		if v := h.at(held, p, base.Field(name), g); !v.IsAbsent() {
			out = append(out, item.Field{Name: name, Value: v})
		}
	}
	return out
}

func (h *history) namesBelow(held writes, path []string) []string {
	var names []string
	note := func(p []string) {
		if len(p) > len(path) && isPrefix(path, p) {
			names = append(names, p[len(path)])
		}
	}
	h.each(held, func(e *event) {
		for _, a := range e.assigns {
			note(a.path)
		}
		for _, list := range [][]edited{e.incs, e.adds, e.removes, e.appends} {
			for _, x := range list {
				note(x.path)
			}
		}
	})
	return names
}

// liveBelow tells whether anything below path stands above g: an edit it had not seen, or an assignment.
func (h *history) liveBelow(held writes, path []string, g *placed) bool {
	found := false
	h.each(held, func(e *event) {
		for i := range e.assigns {
			a := &e.assigns[i]
			if len(a.path) > len(path) && isPrefix(path, a.path) && (g == nil || a.compare(g) >= 0) && h.governing(held, a.path) == a {
				found = true
			}
		}
		for _, list := range [][]edited{e.incs, e.adds, e.appends} {
			for _, x := range list {
				if len(x.path) > len(path) && isPrefix(path, x.path) && !h.governing(held, x.path).saw(e) {
					found = true
				}
			}
		}
	})
	return found
}

func (h *history) at(held writes, path []string, base item.Value, above *placed) item.Value {
	g := h.governing(held, path)
	if g != nil && len(g.path) == len(path) {
		base = g.value
	}

	gone := func(elem item.Value, had func(r *event) bool) bool {
		gone := false
		h.each(held, func(r *event) {
			for _, x := range r.removes {
				if slices.Equal(x.path, path) && item.Equal(x.value, elem) && had(r) {
					gone = true
				}
			}
		})
		return gone
	}
	emptied := false
	if base.Kind().IsSet() {
		var kept []item.Value
		for _, m := range base.Elems() {
			if !gone(m, func(r *event) bool { return h.sawAssign(r, g) }) {
				kept = append(kept, m)
			}
		}
		base = item.NewSet(base.Kind(), kept)
		emptied = base.IsAbsent()
	}

	var amount item.Number
	newest := map[item.Kind]Dot{}
	elems := map[item.Kind][]item.Value{}
	var lists []edited
	var listDots []Dot
	live := false
	raise := func(k item.Kind, d Dot) { newest[k] = maxDot(newest[k], d) }
	left := map[item.Kind]bool{}
	amount, live = h.increments(held, path, g, func(d Dot) { raise(item.KindN, d); left[item.KindN] = true })
	h.each(held, func(e *event) {
		if g.saw(e) {
			return
		}
		for _, x := range e.adds {
			if !slices.Equal(x.path, path) {
				continue
			}
			k := item.NewSet(setOf(x.value), []item.Value{x.value}).Kind()
			live = true
			raise(k, e.dot)
			if !gone(x.value, func(r *event) bool { return r.seen.has(e.n) }) {
				left[k] = true
				elems[k] = append(elems[k], x.value)
			}
		}
		for _, x := range e.appends {
			if slices.Equal(x.path, path) {
				live = true
				raise(item.KindL, e.dot)
				left[item.KindL] = true
				lists = append(lists, x)
				listDots = append(listDots, e.dot)
			}
		}
	})

	kind := base.Kind()
	if kind == item.KindAbsent {
		var best Dot
		for _, k := range []item.Kind{item.KindN, item.KindSS, item.KindNS, item.KindBS, item.KindL} {
			if left[k] && newest[k].Compare(best) > 0 {
				kind, best = k, newest[k]
			}
		}
	}
	switch {
	case kind == item.KindAbsent:
		if emptied || live || !h.liveBelow(held, path, g) {
			return item.Value{}
		}
		return item.M(h.children(held, path, item.Value{}, g)...)
	case kind == item.KindM:
		return item.M(h.children(held, path, base, g)...)
	case kind == item.KindN:
		shown, _ := base.Number().AddExact(amount).Rounded()
		return item.N(shown)
	case kind.IsSet():
		return item.NewSet(kind, append(slices.Clone(base.Elems()), elems[kind]...))
	case kind == item.KindL:
		all := slices.Clone(base.Elems())
		for len(lists) > 0 {
			first := 0
			for i := range listDots {
				if listDots[i].Compare(listDots[first]) < 0 {
					first = i
				}
			}
			all = append(all, lists[first].value.Elems()...)
			lists = slices.Delete(slices.Clone(lists), first, first+1)
			listDots = slices.Delete(slices.Clone(listDots), first, first+1)
		}
		return item.L(all...)
	}
	return base
}

// increments adds up those at path that g had not seen. Under what is left of a delete there is a nook:
// an actor's running total that goes on above the delete brings with it what the delete had not seen.
func (h *history) increments(held writes, path []string, g *placed, note func(Dot)) (sum item.Number, any bool) {
	last := map[Dot]*event{} // entry: its newest increment
	h.each(held, func(e *event) {
		for _, x := range e.incs {
			if slices.Equal(x.path, path) && (last[x.entry] == nil || last[x.entry].dot.Compare(e.dot) < 0) {
				last[x.entry] = e
			}
		}
	})
	h.each(held, func(e *event) {
		for _, x := range e.incs {
			if !slices.Equal(x.path, path) {
				continue
			}
			seen := g.saw(e)
			if g != nil && g.of != nil && !g.saw(last[x.entry]) {
				seen = g.of.seen.has(e.n)
			}
			if !seen {
				sum = sum.AddExact(x.value.Number())
				any = true
				note(e.dot)
			}
		}
	})
	return sum, any
}

// sawAssign tells whether an event had seen an assignment.
func (h *history) sawAssign(r *event, g *placed) bool {
	for _, e := range h.events {
		if e.dot == g.dot {
			return r.seen.has(e.n)
		}
	}
	return false
}

func setOf(member item.Value) item.Kind {
	switch member.Kind() {
	case item.KindN:
		return item.KindNS
	case item.KindB:
		return item.KindBS
	}
	return item.KindSS
}

// write adds to the history a write that a region which holds held makes, and returns its event.
// gone: the region has dropped its record.
func (h *history) write(held writes, w Write, gone bool) *event {
	e := &event{n: len(h.events), dot: w.Dot, op: w.Op, seen: held}
	before, visible := h.visible(held)
	h.events = append(h.events, e)
	after := held.with(e.n)
	if w.Op == Delete || w.Op == Expire {
		return e
	}
	want, err := item.DecodeItem(w.Item)
	if err != nil {
		panic(err)
	}
	root := placed{value: want.AsMap(), dot: e.dot, seen: held}
	if w.Op != Update {
		e.assigns = []placed{root}
		return e
	}
	var turned []placed
	if !visible {
		turned = h.turn(held)
		if gone && w.Stable > 0 {
			turned = []placed{{value: item.M(), dot: Dot{w.Stable, allActors}, gone: true}}
		}
	}
	e.assigns = turned
	whole := w.Modes.Table == LastWriterWins
	var changes []item.Change
	image := want
	for _, c := range w.Changes {
		name := c.Path[0]
		switch {
		case w.Modes.Of(name) == Merge:
			changes = append(changes, c)
			image = image.With(name, before.Get(name))
			for _, o := range w.Changes {
				if o.Path[0] == name && o.Kind == item.RemoveElements && image.LookupKeys(o.Path).Kind() == o.Value.Kind() {
					image = assignAt(image, o.Path, item.Difference(image.LookupKeys(o.Path), o.Value))
				}
			}
		case whole:
		default:
			changes = slices.DeleteFunc(changes, func(o item.Change) bool { return o.Path[0] == name })
			changes = append(changes, item.Change{Kind: item.Assign, Path: []string{name}, Value: want.Get(name)})
		}
	}
	if whole {
		root.value = image.AsMap()
		turned = append(turned, root)
	} else if !visible {
		e.assigns = turned
		base := h.show(after)
		for _, f := range want {
			if !item.Equal(base.Get(f.Name), f.Value) && !slices.ContainsFunc(changes, func(c item.Change) bool { return c.Path[0] == f.Name }) {
				changes = append(changes, item.Change{Kind: item.Assign, Path: []string{f.Name}, Value: f.Value})
			}
		}
	}
	for attempt := 0; attempt < 3; attempt++ {
		h.make(e, held, turned, changes)
		got := h.show(after)
		if slices.EqualFunc(got, want, func(a, b item.Field) bool { return a.Name == b.Name && item.Equal(a.Value, b.Value) }) {
			return e
		}
		var next []item.Change
		for _, c := range changes {
			switch wrong := !item.Equal(got.Get(c.Path[0]), want.Get(c.Path[0])); {
			case !wrong:
				next = append(next, c)
			case attempt == 0 && item.Equal(got.LookupKeys(c.Path), want.LookupKeys(c.Path)):
				next = append(next, c)
			case attempt == 0:
				next = append(next, item.Change{Kind: item.Assign, Path: c.Path, Value: want.LookupKeys(c.Path)})
			}
		}
		var names []string
		for _, f := range slices.Concat(got, want) {
			names = append(names, f.Name)
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			if item.Equal(got.Get(name), want.Get(name)) {
				continue
			}
			if attempt > 0 || !slices.ContainsFunc(changes, func(c item.Change) bool { return c.Path[0] == name }) {
				next = append(next, item.Change{Kind: item.Assign, Path: []string{name}, Value: want.Get(name)})
			}
		}
		changes = next
	}
	root.value = want.AsMap()
	h.make(e, held, []placed{root}, nil)
	return e
}

// make gives the event its assignments and edits.
func (h *history) make(e *event, held writes, assigns []placed, changes []item.Change) {
	e.assigns = slices.Clone(assigns)
	e.incs, e.adds, e.removes, e.appends = nil, nil, nil, nil
	for _, c := range changes {
		x := edited{path: c.Path, value: c.Value}
		switch c.Kind {
		case item.Assign:
			e.assigns = append(e.assigns, placed{path: c.Path, value: c.Value, dot: e.dot, seen: held})
		case item.Increment:
			x.entry = h.entry(held, e, c.Path, assigns)
			e.incs = append(e.incs, x)
		case item.AddElements, item.RemoveElements:
			for _, m := range c.Value.Elems() {
				x.value = m
				if c.Kind == item.AddElements {
					e.adds = append(e.adds, x)
				} else {
					e.removes = append(e.removes, x)
				}
			}
		case item.Append:
			e.appends = append(e.appends, x)
		}
	}
}

// entry returns the first of the increments that the running total of e's actor counts together with a
// new one: they go on until the governing assignment has seen the newest of them.
func (h *history) entry(held writes, e *event, path []string, turned []placed) Dot {
	g := h.governing(held, path)
	for i := range turned {
		if p := &turned[i]; (p.of != nil || p.gone) && (g == nil || p.compare(g) > 0) {
			g = p
		}
	}
	last := map[Dot]*event{}
	h.each(held, func(o *event) {
		for _, x := range o.incs {
			if o.dot.Actor == e.dot.Actor && slices.Equal(x.path, path) && (last[x.entry] == nil || last[x.entry].dot.Compare(o.dot) < 0) {
				last[x.entry] = o
			}
		}
	})
	best := Dot{}
	for id, o := range last {
		deleted := false
		h.each(held, func(d *event) {
			if d.op == Delete && d.dot.Compare(o.dot) > 0 || d.op == Expire && d.seen.has(o.n) {
				deleted = true
			}
		})
		if !deleted && !g.saw(o) && id.Compare(best) > 0 {
			best = id
		}
	}
	if best.IsZero() {
		return e.dot
	}
	return best
}

// turn returns what a write leaves of the delete that it had seen.
func (h *history) turn(held writes) []placed {
	var best *placed
	h.each(held, func(d *event) {
		p := placed{value: item.M(), of: d, seen: d.seen}
		switch d.op {
		case Delete:
			p.dot = d.dot
		case Expire:
			h.each(d.seen, func(s *event) { p.dot = maxDot(p.dot, s.dot) })
			p.after = d.dot
		default:
			return
		}
		if !p.dot.IsZero() && (best == nil || best.of.op == Delete && d.op == Delete && p.compare(best) > 0 ||
			best.of.op != Delete && p.compare(best) > 0 || d.op != Delete && p.compare(best) > 0) {
			best = &p
		}
	})
	if best == nil {
		return nil
	}
	h.each(held, func(d *event) {
		switch {
		case best.of.op != Expire:
		case d.op == Expire:
			best.seen.union(d.seen)
		case d.op == Delete:
			best.below = maxDot(best.below, d.dot)
		}
	})
	if g := h.governing(held, nil); g != nil && best.compare(g) <= 0 {
		return nil
	}
	return []placed{*best}
}

func sameItem(a []byte, ok bool, b item.Item, bOK bool) bool {
	if ok != bOK {
		return false
	}
	return !ok || bytes.Equal(a, item.AppendItem(nil, b))
}
