package crdt

import (
	"slices"

	"github.com/commutatordb/commutator/item"
)

// A small sequential DynamoDB: random writes that the service would accept for the item that a client
// sees, and what the item is after them.

var key = item.Field{Name: "pk", Value: item.S("k")}

// The paths that histories write, with the type that each has where types are not mixed.
var paths = []struct {
	path []string
	kind item.Kind
}{
	{[]string{"n"}, item.KindN},
	{[]string{"c"}, item.KindN},
	{[]string{"s"}, item.KindSS},
	{[]string{"l"}, item.KindL},
	{[]string{"x"}, item.KindS},
	{[]string{"m"}, item.KindM},
	{[]string{"m", "n"}, item.KindN},
	{[]string{"m", "s"}, item.KindSS},
	{[]string{"m", "x"}, item.KindS},
	{[]string{"m", "d"}, item.KindM},
	{[]string{"m", "d", "n"}, item.KindN},
}

func (w *world) value(kind item.Kind, depth int) item.Value {
	switch kind {
	case item.KindN:
		return num(int64(w.src.pick(9)) - 2)
	case item.KindSS, item.KindNS:
		return w.set(kind)
	case item.KindL:
		return w.list()
	case item.KindM:
		var fields []item.Field
		if depth > 2 {
			return item.M()
		}
		for _, name := range []string{"n", "s", "x", "d"} {
			if w.src.pick(3) == 0 {
				kind := map[string]item.Kind{"n": item.KindN, "s": item.KindSS, "x": item.KindS, "d": item.KindM}[name]
				fields = append(fields, item.Field{Name: name, Value: w.value(w.maybe(kind), depth+1)})
			}
		}
		return item.M(fields...)
	}
	return item.S(string(rune('a' + w.src.pick(4))))
}

// maybe changes a type where types are mixed.
func (w *world) maybe(kind item.Kind) item.Kind {
	if w.p.mixed && w.src.pick(3) == 0 {
		return []item.Kind{item.KindN, item.KindSS, item.KindNS, item.KindL, item.KindM, item.KindS}[w.src.pick(6)]
	}
	return kind
}

func (w *world) set(kind item.Kind) item.Value {
	var members []item.Value
	for n := 1 + w.src.pick(2); n > 0; n-- {
		if kind == item.KindNS {
			members = append(members, num(int64(w.src.pick(3))))
		} else {
			members = append(members, item.S(string(rune('p'+w.src.pick(3)))))
		}
	}
	return item.NewSet(kind, members)
}

func (w *world) list() item.Value {
	var elems []item.Value
	for n := w.src.pick(3); n > 0; n-- {
		elems = append(elems, num(int64(w.src.pick(100))))
	}
	return item.L(elems...)
}

// random returns a write that the service would accept; false: none came to mind.
func (w *world) random(it item.Item, exists bool) (Write, bool) {
	wr := Write{Modes: w.modes()}
	kinds := 10
	k := w.src.pick(kinds)
	switch {
	case k == 0 && w.p.deletes:
		wr.Op = Delete
		return wr, true
	case k == 1 && w.p.expiries:
		wr.Op = Expire
		return wr, exists
	case k <= 2:
		if w.p.numbers && w.src.pick(2) == 0 {
			break
		}
		wr.Op = Put
		fields := []item.Field{key}
		for _, p := range paths {
			if len(p.path) == 1 && (!w.p.numbers || p.kind == item.KindN) && w.src.pick(2) == 0 {
				fields = append(fields, item.Field{Name: p.path[0], Value: w.value(w.maybe(p.kind), 0)})
			}
		}
		wr.Item = item.AppendItem(nil, item.NewItem(fields...))
		return wr, true
	}
	wr.Op = Update
	after := it
	if !exists {
		after = item.NewItem(key)
	}
	for n := 1 + w.src.pick(3); n > 0; n-- {
		c, ok := w.change(it)
		if !ok || slices.ContainsFunc(wr.Changes, func(o item.Change) bool {
			return isPrefix(o.Path, c.Path) || isPrefix(c.Path, o.Path)
		}) {
			continue
		}
		wr.Changes = append(wr.Changes, c)
		after = assignAt(after, c.Path, sequential(it.LookupKeys(c.Path), c))
	}
	wr.Item = item.AppendItem(nil, after)
	return wr, true
}

func (w *world) modes() Modes {
	if !w.p.modes || w.src.pick(2) == 0 {
		return Modes{}
	}
	m := Modes{Table: Mode(w.src.pick(2)), Attributes: map[string]Mode{}}
	for _, name := range []string{"n", "s", "m"} {
		if w.src.pick(3) == 0 {
			m.Attributes[name] = 1 - m.Table
		}
	}
	return m
}

// change returns an edit that the service would accept for the item.
func (w *world) change(it item.Item) (item.Change, bool) {
	p := paths[w.src.pick(len(paths))]
	if w.p.numbers {
		p = paths[w.src.pick(2)]
	}
	if len(p.path) > 1 && it.LookupKeys(p.path[:len(p.path)-1]).Kind() != item.KindM {
		return item.Change{}, false
	}
	c := item.Change{Path: p.path}
	now := it.LookupKeys(p.path)
	kind := now.Kind()
	if kind == item.KindAbsent {
		kind = w.maybe(p.kind)
	}
	choice := w.src.pick(6)
	switch {
	case choice == 0:
		c.Kind = item.Assign // REMOVE
	case choice == 1 || kind == item.KindS || kind == item.KindM:
		c.Kind, c.Value = item.Assign, w.value(w.maybe(p.kind), len(p.path))
	case kind == item.KindN:
		c.Kind, c.Value = item.Increment, num(int64(w.src.pick(7)-1))
	case kind.IsSet() && choice < 4:
		c.Kind, c.Value = item.AddElements, w.set(kind)
	case kind.IsSet():
		c.Kind, c.Value = item.RemoveElements, w.set(kind)
	default:
		c.Kind, c.Value = item.Append, w.list()
	}
	return c, true
}

// sequential is what DynamoDB makes of the value at a change's path.
func sequential(v item.Value, c item.Change) item.Value {
	switch c.Kind {
	case item.Increment:
		return item.N(v.Number().AddExact(c.Value.Number()))
	case item.AddElements:
		return item.Union(v, c.Value)
	case item.RemoveElements:
		if v.IsAbsent() {
			return v
		}
		return item.Difference(v, c.Value)
	case item.Append:
		return item.L(slices.Concat(v.Elems(), c.Value.Elems())...)
	}
	return c.Value
}

func assignAt(it item.Item, path []string, v item.Value) item.Item {
	if len(path) == 1 {
		return it.With(path[0], v)
	}
	inner := assignAt(it.Get(path[0]).AsItem(), path[1:], v)
	return it.With(path[0], inner.AsMap())
}
