package crdt

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
)

// An item as it was put is kept beside the one that its updates have made of it until it folds. Most of the two is the same, so the stored
// form has the former as a patch of the latter: the attributes that it has otherwise, and the names of those that it does not have.

// difference returns what patched makes to of from by: stored items, and names in their order.
func difference(from, to []byte) (other []byte, lacks [][]byte) {
	a, b := attributesOf(from), attributesOf(to)
	n := 0
	for a.ok || b.ok {
		c := a.compare(&b)
		switch {
		case c < 0:
			lacks = append(lacks, a.name)
		case c > 0 || !bytes.Equal(a.stored, b.stored):
			other = append(other, b.stored...)
			n++
		}
		if c <= 0 {
			a.next()
		}
		if c >= 0 {
			b.next()
		}
	}
	return append(binary.AppendUvarint(nil, uint64(n)), other...), lacks
}

// patched undoes difference. It returns false for what difference does not return of any item.
func patched(from, other []byte, lacks [][]byte) (to []byte, ok bool) {
	a, b := attributesOf(from), attributesOf(other)
	n := 0
	out := make([]byte, 0, len(from)+len(other))
	for a.ok || b.ok {
		c := a.compare(&b)
		switch {
		case c > 0:
			out = append(out, b.stored...)
			n++
		case c == 0:
			if bytes.Equal(a.stored, b.stored) {
				return nil, false
			}
			out = append(out, b.stored...)
			n++
		case len(lacks) > 0 && bytes.Equal(lacks[0], a.name):
			lacks = lacks[1:]
			if mutant.On(mutant.LacksIgnored) {
				out = append(out, a.stored...)
				n++
			}
		default:
			out = append(out, a.stored...)
			n++
		}
		if c <= 0 {
			a.next()
		}
		if c >= 0 {
			b.next()
		}
	}
	return append(binary.AppendUvarint(make([]byte, 0, len(out)+binary.MaxVarintLen16), uint64(n)), out...), len(lacks) == 0
}

// attributes walks those of a stored item, which are sorted by name.
type attributes struct {
	left         int
	rest         []byte
	ok           bool   // it stands at one
	name, stored []byte // stored: name and value
}

func attributesOf(stored []byte) (a attributes) {
	var err error
	if a.left, a.rest, err = item.CutCount(stored); err != nil {
		panic(fmt.Sprintf("crdt: stored item %x: %v", stored, err))
	}
	a.next()
	return a
}

func (a *attributes) next() {
	if a.ok = a.left > 0; !a.ok {
		return
	}
	name, _, rest, err := item.CutField(a.rest)
	if err != nil {
		panic(fmt.Sprintf("crdt: stored attributes %x: %v", a.rest, err))
	}
	a.left, a.name, a.stored, a.rest = a.left-1, name, a.rest[:len(a.rest)-len(rest)], rest
}

// compare compares the names where two walks stand; a walk that has ended comes last.
func (a *attributes) compare(b *attributes) int {
	switch {
	case !b.ok:
		return -1
	case !a.ok:
		return 1
	}
	return bytes.Compare(a.name, b.name)
}
