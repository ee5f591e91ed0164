package expr

import (
	"maps"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// Placeholders are what a request gives for the # and : names of its expressions, and which of them its
// expressions used. The zero value gives none. There are few, mostly: they are lists.
type Placeholders struct {
	Names  []Name
	Values []Value

	byName map[string]int // where each is, once there are many; Values behind Names
	memory memory
}

// memory is what parsed expressions are made of, those of one request together. They keep it, and each part
// of it is given out once.
type memory struct {
	nodes []node
	steps []item.Step
}

// Given returns placeholders of maps, as a program that writes expressions of its own has them.
func Given(names map[string]string, values map[string]item.Value) Placeholders {
	var p Placeholders
	for _, placeholder := range slices.Sorted(maps.Keys(names)) {
		p.Names = append(p.Names, Name{Placeholder: placeholder, Name: names[placeholder]})
	}
	for _, placeholder := range slices.Sorted(maps.Keys(values)) {
		p.Values = append(p.Values, Value{Placeholder: placeholder, Value: values[placeholder]})
	}
	return p
}

// Name is what stands for an attribute's name.
type Name struct {
	Placeholder, Name string
	used              bool
}

// Value is what stands for a value.
type Value struct {
	Placeholder string
	Value       item.Value
	used        bool
}

// many is how many placeholders are searched for one by one, at most.
const many = 24

func (p *Placeholders) name(placeholder string) (string, bool) {
	if len(p.Names) > many {
		i, ok := p.index()[placeholder]
		if !ok {
			return "", false
		}
		p.Names[i].used = true
		return p.Names[i].Name, true
	}
	for i := range p.Names {
		if n := &p.Names[i]; n.Placeholder == placeholder {
			n.used = true
			return n.Name, true
		}
	}
	return "", false
}

// value returns what a placeholder stands for, nil for nothing. It belongs to p and never changes.
func (p *Placeholders) value(placeholder string) *item.Value {
	if len(p.Values) > many {
		i, ok := p.index()[placeholder]
		if !ok {
			return nil
		}
		v := &p.Values[i-len(p.Names)]
		v.used = true
		return &v.Value
	}
	for i := range p.Values {
		if v := &p.Values[i]; v.Placeholder == placeholder {
			v.used = true
			return &v.Value
		}
	}
	return nil
}

// index tells where each placeholder is: # and : keep names and values apart.
func (p *Placeholders) index() map[string]int {
	if p.byName == nil {
		p.byName = make(map[string]int, len(p.Names)+len(p.Values))
		for i := range p.Names {
			p.byName[p.Names[i].Placeholder] = i
		}
		for i := range p.Values {
			p.byName[p.Values[i].Placeholder] = len(p.Names) + i
		}
	}
	return p.byName
}

// CheckUsed returns an Error when a placeholder was given that no parsed expression used.
func (p *Placeholders) CheckUsed() error {
	var unused []string
	for i := range p.Names {
		if !p.Names[i].used {
			unused = append(unused, p.Names[i].Placeholder)
		}
	}
	if err := errUnused("ExpressionAttributeNames", unused); err != nil {
		return err
	}
	for i := range p.Values {
		if !p.Values[i].used {
			unused = append(unused, p.Values[i].Placeholder)
		}
	}
	return errUnused("ExpressionAttributeValues", unused)
}

func errUnused(member string, unused []string) error {
	if len(unused) == 0 {
		return nil
	}
	slices.Sort(unused)
	return &Error{"Value provided in " + member + " unused in expressions: keys: {" + strings.Join(unused, ", ") + "}"}
}
