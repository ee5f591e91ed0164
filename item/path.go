package item

import (
	"slices"
	"strconv"
	"strings"
)

// Step is one step of a document path: into a map by name, or into a list by index.
type Step struct {
	Name  string // map key, when Index < 0
	Index int    // list index >= 0, or -1
}

// Path is a document path as an expression writes it, such as a.b[3].c. Its first step is a name.
type Path []Step

// Named returns a step into a map.
func Named(name string) Step { return Step{Name: name, Index: -1} }

// At returns a step into a list.
func At(index int) Step { return Step{Index: index} }

// String writes the path as expressions do, names as they are.
func (p Path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch {
		case s.Index >= 0:
			b.WriteString("[" + strconv.Itoa(s.Index) + "]")
		case i > 0:
			b.WriteString("." + s.Name)
		default:
			b.WriteString(s.Name)
		}
	}
	return b.String()
}

// Lookup returns the value at the path, absent when any step leads nowhere.
func (it Item) Lookup(p Path) Value {
	if len(p) == 0 {
		return it.AsMap()
	}
	v := it.Get(p[0].Name)
	for _, s := range p[1:] {
		switch {
		case s.Index < 0 && v.kind == KindM:
			v = v.Field(s.Name)
		case s.Index >= 0 && v.kind == KindL && s.Index < len(v.elems):
			v = v.elems[s.Index]
		default:
			return Value{}
		}
	}
	return v
}

// LookupKeys is Lookup for a path of map keys only.
func (it Item) LookupKeys(path []string) Value {
	v := it.AsMap()
	for _, name := range path {
		if v.kind != KindM {
			return Value{}
		}
		v = v.Field(name)
	}
	return v
}

// WithElem returns a copy of the list with element i replaced, or with v put at the end when i is past
// it, as DynamoDB does.
func (v Value) WithElem(i int, e Value) Value {
	out := slices.Clone(v.elems)
	if i < len(out) {
		out[i] = e
	} else {
		out = append(out, e)
	}
	return L(out...)
}
