package expr

import (
	"github.com/commutatordb/commutator/item"
)

// Projection is a parsed projection expression: the part of an item that its paths name. It is not for
// concurrent use.
type Projection struct {
	paths []item.Path
	root  branch // made of paths by the first Apply: many requests find nothing to project
}

// branch is a tree of the projected paths: what is wanted below one point of an item.
type branch struct {
	step   item.Step // how it is reached from the point above
	whole  bool
	kids   []branch
	byStep map[item.Step]int // where each of kids is, once there are many
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
	return &Projection{paths: paths}
}

func (pr *Projection) plant() {
	pr.root.kids = make([]branch, 0, len(pr.paths))
	for _, path := range pr.paths {
		b := &pr.root
		for _, s := range path {
			b = b.grow(s)
		}
		b.whole = true
	}
}

// find returns the branch one step below, nil for none.
func (b *branch) find(s item.Step) *branch {
	if b.byStep != nil {
		if i, ok := b.byStep[s]; ok {
			return &b.kids[i]
		}
		return nil
	}
	for i := range b.kids {
		if b.kids[i].step == s {
			return &b.kids[i]
		}
	}
	return nil
}

// grow is find, of a branch that is made if there is none.
func (b *branch) grow(s item.Step) *branch {
	if found := b.find(s); found != nil {
		return found
	}
	b.kids = append(b.kids, branch{step: s})
	switch {
	case b.byStep != nil:
		b.byStep[s] = len(b.kids) - 1
	case len(b.kids) > many:
		b.byStep = make(map[item.Step]int, 2*many)
		for i := range b.kids {
			b.byStep[b.kids[i].step] = i
		}
	}
	return &b.kids[len(b.kids)-1]
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
	if pr.root.kids == nil {
		pr.plant()
	}
	v := pr.root.apply(it.AsMap())
	return v.AsItem()
}

func (b *branch) apply(v item.Value) item.Value {
	switch {
	case b.whole:
		return v
	case v.Kind() == item.KindM:
		var fields []item.Field
		for _, f := range v.Fields() {
			inner := b.find(item.Named(f.Name))
			if inner == nil {
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
	case v.Kind() == item.KindL:
		var elems []item.Value
		for i, e := range v.Elems() {
			inner := b.find(item.At(i))
			if inner == nil {
				continue
			}
			if part := inner.apply(e); !part.IsAbsent() {
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
