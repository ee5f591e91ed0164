package crdt

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Vector tells which writes were seen: for each actor, all up to an HLC. It covers every dot up to its
// floor, whoever made it, and above the floor what its entries say. The zero Vector covers nothing.
//
// Methods that change a Vector never write into a slice that a copy of it may share: copying is cheap
// and safe.
type Vector struct {
	floor Dot

	// Invariant: sorted by actor, unique, every (hlc, actor) above floor.
	entries []entry
}

type entry struct {
	actor Actor
	hlc   HLC
}

func (e entry) dot() Dot { return Dot{e.hlc, e.actor} }

// Floor returns the dot up to which everything is covered; zero when there is none.
func (v Vector) Floor() Dot { return v.floor }

// IsZero tells whether v covers nothing.
func (v Vector) IsZero() bool { return v.floor.IsZero() && len(v.entries) == 0 }

func (v Vector) find(a Actor) (int, bool) {
	for i, e := range v.entries { // one entry a region: a scan beats a search
		if e.actor >= a {
			return i, e.actor == a
		}
	}
	return len(v.entries), false
}

// Covers tells whether the write d was seen.
func (v Vector) Covers(d Dot) bool {
	if d.Compare(v.floor) <= 0 {
		return true
	}
	i, ok := v.find(d.Actor)
	return ok && d.HLC <= v.entries[i].hlc
}

// Get returns up to where the actor's writes were seen; 0 when none was.
func (v Vector) Get(a Actor) HLC {
	if i, ok := v.find(a); ok {
		return v.entries[i].hlc
	}
	if a > v.floor.Actor && v.floor.HLC > 0 {
		return v.floor.HLC - 1
	}
	return v.floor.HLC
}

// Names tells whether the vector has an entry of the actor's own, above the floor.
func (v Vector) Names(a Actor) bool {
	_, ok := v.find(a)
	return ok
}

// Set lifts the actor's entry to h. It never lowers one.
func (v *Vector) Set(a Actor, h HLC) {
	if v.Covers(Dot{h, a}) {
		return
	}
	i, ok := v.find(a)
	out := make([]entry, 0, len(v.entries)+1)
	out = append(out, v.entries[:i]...)
	out = append(out, entry{a, h})
	if ok {
		i++
	}
	v.entries = append(out, v.entries[i:]...)
}

// Raise lifts the floor to d. It never lowers it.
func (v *Vector) Raise(d Dot) {
	if d.Compare(v.floor) <= 0 {
		return
	}
	v.floor = d
	if slices.ContainsFunc(v.entries, func(e entry) bool { return e.dot().Compare(d) <= 0 }) {
		kept := make([]entry, 0, len(v.entries))
		for _, e := range v.entries {
			if e.dot().Compare(d) > 0 {
				kept = append(kept, e)
			}
		}
		v.entries = kept
	}
	if len(v.entries) == 0 {
		v.entries = nil
	}
}

// Join makes v cover what o covers too.
func (v *Vector) Join(o Vector) {
	if v.IsZero() {
		*v = o
		return
	}
	v.Raise(o.floor)
	if len(v.entries) == 0 && v.floor == o.floor {
		v.entries = o.entries
		return
	}
	for _, e := range o.entries {
		v.Set(e.actor, e.hlc)
	}
}

// Contains tells whether v covers everything that o covers. Where o's floor is above v's that is not
// known, and the answer is no.
func (v Vector) Contains(o Vector) bool {
	if o.floor.Compare(v.floor) > 0 {
		return false
	}
	for _, e := range o.entries {
		if !v.Covers(e.dot()) {
			return false
		}
	}
	return true
}

// Equal tells whether v and o cover the same.
func (v Vector) Equal(o Vector) bool { return v.floor == o.floor && slices.Equal(v.entries, o.entries) }

// Newest returns the greatest dot that the vector names: the floor's or an entry's.
func (v Vector) Newest() Dot {
	d := v.floor
	for _, e := range v.entries {
		d = maxDot(d, e.dot())
	}
	return d
}

// All yields the entries above the floor, in order of their actors.
func (v Vector) All() iter.Seq2[Actor, HLC] {
	return func(yield func(Actor, HLC) bool) {
		for _, e := range v.entries {
			if !yield(e.actor, e.hlc) {
				return
			}
		}
	}
}

// String writes the vector for people.
func (v Vector) String() string {
	var b strings.Builder
	b.WriteByte('{')
	if !v.floor.IsZero() {
		fmt.Fprintf(&b, "<=%v", v.floor)
	}
	for i, e := range v.entries {
		if i > 0 || !v.floor.IsZero() {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%v:%v", e.actor, e.hlc)
	}
	b.WriteByte('}')
	return b.String()
}

// Append appends the vector's own stored form, big-endian, equal vectors in equal bytes:
//
//	vector = count (uvarint), floor HLC (8), floor actor (4), entry...
//	entry  = actor (4), HLC (8)          sorted by actor, all above the floor
//
// Inside a record vectors are shorter; see encode.go.
func (v Vector) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v.entries)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.floor.HLC))
	dst = binary.BigEndian.AppendUint32(dst, uint32(v.floor.Actor))
	for _, e := range v.entries {
		dst = binary.BigEndian.AppendUint32(dst, uint32(e.actor))
		dst = binary.BigEndian.AppendUint64(dst, uint64(e.hlc))
	}
	return dst
}

// DecodeVector takes a vector off the front of b; nothing aliases b. It returns ErrEncoding when there
// is none.
func DecodeVector(b []byte) (v Vector, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size)/12 || uint64(len(b)-size) < 12*(n+1) || size != uvarintLen(n) {
		return Vector{}, nil, ErrEncoding
	}
	b = b[size:]
	v.floor = Dot{HLC(binary.BigEndian.Uint64(b)), Actor(binary.BigEndian.Uint32(b[8:]))}
	b = b[12:]
	if v.floor.HLC > MaxHLC || v.floor.HLC == 0 && v.floor.Actor != 0 {
		return Vector{}, nil, ErrEncoding
	}
	if n > 0 {
		v.entries = make([]entry, 0, n)
	}
	for ; n > 0; n-- {
		e := entry{Actor(binary.BigEndian.Uint32(b)), HLC(binary.BigEndian.Uint64(b[4:]))}
		b = b[12:]
		if e.hlc > MaxHLC || !v.extend(e) {
			return Vector{}, nil, ErrEncoding
		}
	}
	return v, b, nil
}

// extend adds an entry that a stored form has next, and tells whether it may stand there.
func (v *Vector) extend(e entry) bool {
	if k := len(v.entries); k > 0 && cmp.Compare(v.entries[k-1].actor, e.actor) >= 0 {
		return false
	}
	if e.hlc == 0 || e.dot().Compare(v.floor) <= 0 {
		return false
	}
	v.entries = append(v.entries, e)
	return true
}

func uvarintLen(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// Stable returns the greatest T such that every vector covers T for every origin: MERGE.md, "Stable, and
// folding". heard has, for each member region, the latest vector received from its own stream (for the
// region itself its own), and origins the actors of all members, joining and restoring regions too.
// With no member it returns 0.
func Stable(origins []Actor, heard ...Vector) HLC {
	if len(origins) == 0 || len(heard) == 0 {
		return 0
	}
	t := MaxHLC
	for _, v := range heard {
		for _, a := range origins {
			t = min(t, v.Get(a))
		}
	}
	return t
}
