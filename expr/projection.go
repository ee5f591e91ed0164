package expr

import (
	"slices"

	"github.com/commutatordb/commutator/item"
)

// Projection is a parsed projection expression: the part of an item that its paths name.
type Projection struct {
	paths []item.Path
	root  branch
}

// branch is a tree of the projected paths: what is wanted below one point of an item.
type branch struct {
	whole   bool
	names   map[string]*branch
	indexes map[int]*branch
}

// ParseProjection parses a projection expression.
func ParseProjection(source string, ph *Placeholders) (*Projection, error) {
	p := parser{kind: "ProjectionExpression", source: source, ph: ph}
	if err := p.start(); err != nil {
		return nil, err
	}
	paths := make([]item.Path, 0, 4)
	for {
		path, err := p.path()
		if err != nil {
			return nil, err
		}
		for i := range paths {
			p.checkPaths(paths[i], path)
		}
		paths = append(paths, path)
		if !p.take(',') {
			break
		}
	}
	if p.tok.kind != tokEnd {
		return nil, p.syntax()
	}
	if err := p.fault(faultReserved, faultName, faultOverlap, faultConflict); err != nil {
		return nil, err
	}
	return NewProjection(paths), nil
}

// NewProjection makes a projection of paths. Paths that overlap count once, as the shorter.
func NewProjection(paths []item.Path) *Projection {
	pr := &Projection{paths: paths}
	for _, path := range paths {
		b := &pr.root
		for _, s := range path {
			b = b.step(s)
		}
		b.whole = true
	}
	return pr
}

func (b *branch) step(s item.Step) *branch {
	if s.Index >= 0 {
		if b.indexes == nil {
			b.indexes = make(map[int]*branch)
		}
		if b.indexes[s.Index] == nil {
			b.indexes[s.Index] = &branch{}
		}
		return b.indexes[s.Index]
	}
	if b.names == nil {
		b.names = make(map[string]*branch)
	}
	if b.names[s.Name] == nil {
		b.names[s.Name] = &branch{}
	}
	return b.names[s.Name]
}

// Paths calls yield with the projected paths, in the order of the expression, until it returns false. A nil
// Projection has none.
func (pr *Projection) Paths(yield func(item.Path) bool) {
	if pr == nil {
		return
	}
	for _, path := range pr.paths {
		if !yield(path) {
			return
		}
	}
}

// Apply returns the projected part of an item. List elements that are named come back side by side, in
// rising order of their index; what is not there is left out.
func (pr *Projection) Apply(it item.Item) item.Item {
	v := pr.root.apply(it.AsMap())
	return v.AsItem()
}

func (b *branch) apply(v item.Value) item.Value {
	switch {
	case b.whole:
		return v
	case v.Kind() == item.KindM && b.names != nil:
		var fields []item.Field
		for _, f := range v.Fields() {
			inner, ok := b.names[f.Name]
			if !ok {
				continue
			}
			if part := inner.apply(f.Value); !part.IsAbsent() {
				fields = append(fields, item.Field{Name: f.Name, Value: part})
			}
		}
		if fields == nil {
			return item.Value{}
		}
		return item.M(fields...)
	case v.Kind() == item.KindL && b.indexes != nil:
		indexes := make([]int, 0, len(b.indexes))
		for i := range b.indexes {
			indexes = append(indexes, i)
		}
		slices.Sort(indexes)
		var elems []item.Value
		for _, i := range indexes {
			if i >= v.Len() {
				break
			}
			if part := b.indexes[i].apply(v.Elems()[i]); !part.IsAbsent() {
				elems = append(elems, part)
			}
		}
		if elems == nil {
			return item.Value{}
		}
		return item.L(elems...)
	}
	return item.Value{}
}
