// Package item owns what a table stores and what a write does to it: attribute values, 38-digit
// numbers, sizes, paths, keys, and the vocabulary of edits (Change). It also owns the two byte forms
// that everything above shares: the stored form of an item (encode.go) and the ordered form of a key
// (key.go).
//
// It leaves tables to package table, JSON to package api/wire, time and merging to package crdt.
//
// Invariants: the fields of a map are sorted by name and unique; the members of a set are sorted and
// unique and never none; a Number is in canonical form. Values are immutable once built: functions
// that change one return a new one that may share parts with the old.
package item

import (
	"cmp"
	"slices"
	"strings"
)

// Kind is the type of a value: one of DynamoDB's ten attribute types, or Absent.
type Kind uint8

// The kinds. Their numbers are not stored; encode.go has the tags that are.
const (
	KindAbsent Kind = iota // the zero Value: no value here
	KindS
	KindN
	KindB
	KindBOOL
	KindNULL
	KindM
	KindL
	KindSS
	KindNS
	KindBS
)

var kindNames = [...]string{"", "S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"}

// String returns the type's DynamoDB code, such as "S" or "NS"; "" for KindAbsent.
func (k Kind) String() string { return kindNames[k] }

// KindOf returns the kind whose DynamoDB code is s, or KindAbsent.
func KindOf(s string) Kind {
	for k, name := range kindNames {
		if name == s {
			return Kind(k)
		}
	}
	return KindAbsent
}

// IsSet tells whether k is one of the three set types.
func (k Kind) IsSet() bool { return k >= KindSS }

// IsKey tells whether k may be the type of a key attribute: S, N or B.
func (k Kind) IsKey() bool { return k == KindS || k == KindN || k == KindB }

// Element returns the type of a set's members, or KindAbsent when k is not a set.
func (k Kind) Element() Kind {
	switch k {
	case KindSS:
		return KindS
	case KindNS:
		return KindN
	case KindBS:
		return KindB
	}
	return KindAbsent
}

// Value is one attribute value. The zero Value is absent.
type Value struct {
	kind   Kind
	flag   bool    // BOOL
	str    string  // S: UTF-8; B: bytes; N: Number's ordered bytes
	elems  []Value // L: in order; sets: sorted by Compare, unique
	fields []Field // M: sorted by name, unique
}

// Field is one named attribute of an item or a map.
type Field struct {
	Name  string
	Value Value
}

// S returns a string value. s must be valid UTF-8; that is checked at the edge.
func S(s string) Value { return Value{kind: KindS, str: s} }

// N returns a number value.
func N(n Number) Value { return Value{kind: KindN, str: n.ordered()} }

// B returns a binary value; b's bytes are held in a string since values never change.
func B(b string) Value { return Value{kind: KindB, str: b} }

// Bool returns a BOOL value.
func Bool(b bool) Value { return Value{kind: KindBOOL, flag: b} }

// Null returns the NULL value.
func Null() Value { return Value{kind: KindNULL} }

// L returns a list of the given elements, which it keeps.
func L(elems ...Value) Value { return Value{kind: KindL, elems: elems} }

// M returns a map of the given fields, which it keeps and sorts. Of fields with the same name the last
// in the slice is kept.
func M(fields ...Field) Value { return Value{kind: KindM, fields: sortFields(fields)} }

// NewSet returns a set of the given kind. It sorts members, which it keeps, and drops duplicates. With
// no members it returns the absent Value, since an empty set is absent.
func NewSet(kind Kind, members []Value) Value {
	if len(members) == 0 {
		return Value{}
	}
	slices.SortFunc(members, Compare)
	members = slices.CompactFunc(members, func(a, b Value) bool { return Compare(a, b) == 0 })
	return Value{kind: kind, elems: members}
}

// Kind returns the value's type; KindAbsent for the zero Value.
func (v Value) Kind() Kind { return v.kind }

// IsAbsent tells whether there is no value here.
func (v Value) IsAbsent() bool { return v.kind == KindAbsent }

// Str returns the text of an S, the bytes of a B, and "" for any other kind but N.
func (v Value) Str() string {
	if v.kind == KindN {
		return ""
	}
	return v.str
}

// Number returns the number of an N, and zero for any other kind.
func (v Value) Number() Number {
	if v.kind != KindN {
		return Number{}
	}
	return numberFromOrdered(v.str)
}

// Bool returns the truth of a BOOL, and false for any other kind.
func (v Value) Bool() bool { return v.flag }

// Elems returns the elements of a list or the sorted members of a set. The caller must not change them.
func (v Value) Elems() []Value { return v.elems }

// Fields returns the sorted fields of a map. The caller must not change them.
func (v Value) Fields() []Field { return v.fields }

// Len returns the count that DynamoDB's size() gives: bytes of an S or B, elements of a list, set or
// map; 0 for the others.
func (v Value) Len() int {
	switch v.kind {
	case KindS, KindB:
		return len(v.str)
	case KindM:
		return len(v.fields)
	default:
		return len(v.elems)
	}
}

// Field returns the value of a map's field, absent when v is no map or has no such field.
func (v Value) Field(name string) Value { return Item(v.fields).Get(name) }

// Compare orders values of one kind: N by value, S and B by bytes, BOOL false first. Values of
// different kinds order by kind; containers order element by element. It is total, and 0 means equal.
func Compare(a, b Value) int {
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	switch a.kind {
	case KindS, KindN, KindB:
		return strings.Compare(a.str, b.str)
	case KindBOOL:
		switch {
		case a.flag == b.flag:
			return 0
		case a.flag:
			return 1
		}
		return -1
	case KindM:
		return slices.CompareFunc(a.fields, b.fields, func(x, y Field) int {
			if c := strings.Compare(x.Name, y.Name); c != 0 {
				return c
			}
			return Compare(x.Value, y.Value)
		})
	default:
		return slices.CompareFunc(a.elems, b.elems, Compare)
	}
}

// Equal tells whether two values are the same: numbers by value, sets and maps without order.
func Equal(a, b Value) bool { return Compare(a, b) == 0 }

// Contains tells whether a set has the member, or a list an element equal to it.
func (v Value) Contains(member Value) bool {
	if v.kind.IsSet() {
		_, ok := slices.BinarySearchFunc(v.elems, member, Compare)
		return ok
	}
	return v.kind == KindL && slices.ContainsFunc(v.elems, func(e Value) bool { return Equal(e, member) })
}

// Union returns the set with b's members added. a may be absent; both must be sets of one kind.
func Union(a, b Value) Value {
	return NewSet(b.kind, slices.Concat(a.elems, b.elems))
}

// Difference returns the set a without b's members; absent when none is left.
func Difference(a, b Value) Value {
	kept := make([]Value, 0, len(a.elems))
	for _, e := range a.elems {
		if !b.Contains(e) {
			kept = append(kept, e)
		}
	}
	return NewSet(a.kind, kept)
}

func sortFields(fields []Field) []Field {
	sorted := slices.IsSortedFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	if !sorted {
		slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	}
	out := fields[:0]
	for i, f := range fields {
		if i+1 < len(fields) && fields[i+1].Name == f.Name {
			continue
		}
		out = append(out, f)
	}
	return out
}
