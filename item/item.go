package item

import (
	"slices"
	"strings"
)

// Item is a set of named attributes, sorted by name. nil is the item with no attributes; whether an
// item exists at all is for its holder to say.
type Item []Field

// NewItem sorts the fields, which it keeps. Of fields with the same name the last is kept.
func NewItem(fields ...Field) Item { return Item(sortFields(fields)) }

// AsItem returns a map's fields as an item.
func (v Value) AsItem() Item { return Item(v.fields) }

// AsMap returns the item as a map value.
func (it Item) AsMap() Value { return Value{kind: KindM, fields: it} }

func (it Item) search(name string) (int, bool) {
	return slices.BinarySearchFunc(it, name, func(f Field, name string) int { return strings.Compare(f.Name, name) })
}

// Get returns the attribute's value, absent when there is none.
func (it Item) Get(name string) Value {
	if i, ok := it.search(name); ok {
		return it[i].Value
	}
	return Value{}
}

// With returns a copy of the item in which the attribute has the value; an absent value removes it.
func (it Item) With(name string, v Value) Item {
	i, ok := it.search(name)
	switch {
	case !ok && v.IsAbsent():
		return it
	case !ok:
		return slices.Insert(slices.Clip(slices.Clone(it)), i, Field{name, v})
	case v.IsAbsent():
		return slices.Delete(slices.Clone(it), i, i+1)
	}
	out := slices.Clone(it)
	out[i].Value = v
	return out
}

// WithField is With for a map value. v must be a map.
func (v Value) WithField(name string, f Value) Value { return Item(v.fields).With(name, f).AsMap() }

// Size is the item's size by DynamoDB's arithmetic, in bytes: names and values as UTF-8, numbers by
// digits, 3 bytes for a list or map and 1 more for each of its elements.
// Source: Developer Guide, "DynamoDB item sizes and formats"; numbers as DYNAMODB.md §3 measured them.
func (it Item) Size() int {
	n := 0
	for _, f := range it {
		n += len(f.Name) + f.Value.Size()
	}
	return n
}

// Size is the value's part of an item's size, in bytes.
func (v Value) Size() int {
	switch v.kind {
	case KindAbsent:
		return 0
	case KindS, KindB:
		return len(v.str)
	case KindN:
		return numberSize(v.str)
	case KindBOOL, KindNULL:
		return 1
	case KindM:
		n := 3
		for _, f := range v.fields {
			n += 1 + len(f.Name) + f.Value.Size()
		}
		return n
	case KindL:
		n := 3
		for _, e := range v.elems {
			n += 1 + e.Size()
		}
		return n
	default:
		n := 0
		for _, e := range v.elems {
			n += e.Size()
		}
		return n
	}
}
