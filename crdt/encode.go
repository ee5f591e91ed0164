package crdt

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/item"
)

// ErrEncoding says that bytes are not the stored form of a record or vector. Who reads it has been given
// rotten bytes or those of a later version, and must not go on with them.
var ErrEncoding = errors.New("crdt: not a stored record")

// The formats, in the top 4 bits of a record's first 8 bytes.
const (
	formatFolded  = 0 // dot, item
	formatVisible = 1 // open, with an item
	formatHidden  = 2 // open, deleted
	formatDelta   = 3 // what one write added

	headerSize = 12
)

// Flags of an open record or a delta: which parts follow.
const (
	flagRoot      = 1 << iota
	flagRootShown // the root's value is the visible item; else it is told by how it differs, if there is one
	flagWrites    // writes is not seen
	flagDead
	flagExpired
	flagExpiry
	flagFolded // seen and the root are those of a fold at the newest dot, and not repeated
	flagNodes
)

// Of an assignment's first byte the lower 4 bits are the operation.
const (
	assignConditional = 0x10
	assignTransaction = 0x20
	assignAbsent      = 0x40
	assignOwn         = 0x80 // in a delta: its dot, ctx and origin
	assignNewest      = 0x80 // in a record: the newest dot, and no totals
)

// Flags of a node: which parts follow.
const (
	nodeAssign = 1 << iota
	nodeSums
	nodeAdds
	nodeRemoves
	nodeAppends
)

// AppendFolded appends the folded steady state of an item: a dot and the item. It is what a record that
// is folded appends, and what a table with one region writes without building a record.
func AppendFolded(dst []byte, d Dot, itemBytes []byte) []byte {
	return append(appendHeader(dst, formatFolded, d), itemBytes...)
}

func appendHeader(dst []byte, format byte, d Dot) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(d.HLC)|uint64(format)<<60)
	return binary.BigEndian.AppendUint32(dst, uint32(d.Actor))
}

func cutHeader(b []byte) (format byte, d Dot, rest []byte, err error) {
	if len(b) < headerSize {
		return 0, Dot{}, nil, ErrEncoding
	}
	h := binary.BigEndian.Uint64(b)
	return byte(h >> 60), Dot{HLC(h) & MaxHLC, Actor(binary.BigEndian.Uint32(b[8:]))}, b[headerSize:], nil
}

// PeekDot returns the newest dot of a stored record; zero when it is none.
func PeekDot(stored []byte) Dot {
	_, d, _, _ := cutHeader(stored)
	return d
}

// PeekVisible returns the item that a stored record shows, without decoding or allocating: it aliases
// stored. ok is false when the item is deleted. It returns ErrEncoding for what is no stored record, and
// for a delta, which shows nothing by itself.
func PeekVisible(stored []byte) (itemBytes []byte, ok bool, err error) {
	format, _, b, err := cutHeader(stored)
	if err != nil {
		return nil, false, err
	}
	switch format {
	case formatFolded:
		return b, true, nil
	case formatVisible:
		itemBytes, _, err = item.CutBytes(b)
		if err != nil {
			return nil, false, ErrEncoding
		}
		return itemBytes, true, nil
	case formatHidden:
		return nil, false, nil
	}
	return nil, false, ErrEncoding
}

// Append appends the record's stored form; equal states have equal bytes. The zero Record has none, and
// must not be stored: its key is not held.
func (r *Record) Append(dst []byte) []byte {
	newest := r.seen.Newest()
	if r.IsFolded() {
		return AppendFolded(dst, newest, r.root.value)
	}
	w := writer{newest: newest, actors: append(make([]Actor, 0, 8), newest.Actor, allActors)}
	switch {
	case r.delta:
		w.b = appendHeader(dst, formatDelta, newest)
		w.own = &assign{dot: newest, by: r.by, ctx: r.ctx}
		w.origin(r.by, 0)
		w.vector(r.ctx)
	default:
		shown, ok := r.Visible()
		if ok {
			w.b = appendHeader(slices.Grow(dst, len(shown)+128), formatVisible, newest)
			w.bytes(shown)
		} else {
			w.b = appendHeader(dst, formatHidden, newest)
		}
	}
	flags := byte(0)
	set := func(f byte, on bool) {
		if on {
			flags |= f
		}
	}
	rootShown := !r.delta && r.root.present() && r.shown != nil && string(r.root.value) == string(r.shown)
	set(flagRoot, r.root.present())
	set(flagRootShown, rootShown)
	set(flagWrites, !r.writes.Equal(r.seen))
	set(flagDead, r.dead.present())
	set(flagExpired, !r.expired.IsZero())
	set(flagExpiry, r.expiry.present())
	folded := !r.delta && r.rootFolded()
	set(flagFolded, folded)
	set(flagNodes, len(r.nodes) > 0)
	w.b = append(w.b, flags)
	if !r.delta && !folded {
		w.seen(r.seen)
	}
	if flags&flagWrites != 0 {
		w.vector(r.writes)
	}
	if flags&flagDead != 0 {
		w.assign(nil, &r.dead, true)
	}
	if flags&flagExpired != 0 {
		w.vector(r.expired)
	}
	if flags&flagExpiry != 0 {
		w.assign(nil, &r.expiry, true)
	}
	switch {
	case flags&flagRoot != 0 && r.delta:
		w.assign(nil, &r.root, false)
	case flags&flagRoot != 0 && !folded:
		w.assign(nil, &r.root, true)
	}
	switch {
	case flags&flagRoot == 0 || r.delta || rootShown:
	case r.shown == nil:
		w.bytes(r.root.value)
	default:
		other, lacks := difference(r.shown, r.root.value)
		w.bytes(other)
		w.uvarint(uint64(len(lacks)))
		for _, name := range lacks {
			w.bytes(name)
		}
	}
	if len(r.nodes) > 0 {
		w.uvarint(uint64(len(r.nodes)))
	}
	for i := range r.nodes {
		w.node(&r.nodes[i])
	}
	return w.b
}

// writer appends the parts of an open record.
type writer struct {
	b      []byte
	newest Dot
	actors []Actor // in order of their first use: an actor is written out once
	own    *assign // in a delta: what its own assignments share
}

func (w *writer) uvarint(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

func (w *writer) bytes(b []byte) {
	w.uvarint(uint64(len(b)))
	w.b = append(w.b, b...)
}

func (w *writer) text(s string) {
	w.uvarint(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) hlc(h HLC) { w.b = appendBelow(w.b, w.newest.HLC, h) }

// appendBelow appends an HLC by one that is no less. What regions write seldom falls into one millisecond, and then its counter
// is mostly 0.
func appendBelow(b []byte, base, h HLC) []byte {
	ms, counter := uint64(base>>16-h>>16), uint64(h.Counter())
	if ms == 0 {
		counter = uint64(base - h)
	}
	if counter == 0 {
		return binary.AppendUvarint(b, ms<<1)
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, ms<<1|1), counter)
}

func (w *writer) actor(a Actor) {
	i := slices.Index(w.actors, a)
	if i >= 0 {
		w.uvarint(uint64(i) << 1)
		return
	}
	// Incarnations are small numbers: most actors take four bytes.
	w.uvarint((uint64(a.Incarnation())<<22|uint64(a.Region()))<<1 | 1)
	w.actors = append(w.actors, a)
}

func (w *writer) dot(d Dot) {
	w.actor(d.Actor)
	w.hlc(d.HLC)
}

// seen writes what the record has seen, without the entry of the newest dot, which the header has.
func (w *writer) seen(v Vector) {
	if i, ok := v.find(w.newest.Actor); ok && v.floor != w.newest {
		v.entries = slices.Delete(slices.Clone(v.entries), i, i+1)
	}
	w.vector(v)
}

func (w *writer) vector(v Vector) {
	n := uint64(len(v.entries)) << 1
	if !v.floor.IsZero() {
		n |= 1
	}
	w.uvarint(n)
	if n&1 != 0 {
		w.dot(v.floor)
	}
	for _, e := range v.entries {
		w.dot(e.dot())
	}
}

func (w *writer) origin(o Origin, flags byte) {
	flags |= byte(o.Op)
	if o.Conditional {
		flags |= assignConditional
	}
	if o.Transaction.Items > 0 {
		flags |= assignTransaction
	}
	w.b = append(w.b, flags)
	if o.Transaction.Items > 0 {
		w.b = append(w.b, o.Transaction.ID[:]...)
		w.b = binary.BigEndian.AppendUint16(w.b, o.Transaction.Items)
	}
}

// number writes a total: mostly of whole numbers.
func (w *writer) number(n item.Number) {
	if i, ok := n.Int(); ok && i >= -maxWhole && i <= maxWhole {
		w.uvarint((uint64(i)<<1 ^ uint64(i>>63)) << 1)
		return
	}
	w.b = item.AppendValue(append(w.b, 1), item.N(n))
}

// maxWhole bounds the numbers that are written as such.
const maxWhole = 1<<62 - 1

// assign writes an assignment; its value is left out where the reader has it from elsewhere.
func (w *writer) assign(path []string, a *assign, valueElsewhere bool) {
	flags := byte(0)
	if a.value == nil && !valueElsewhere {
		flags |= assignAbsent
	}
	newest := w.own == nil && a.dot == w.newest && len(a.totals) == 0 && a.by.Op != Expire
	switch {
	case newest:
		w.origin(a.by, flags|assignNewest)
		w.vector(a.ctx)
	case w.own != nil && a.dot == w.own.dot && a.by == w.own.by && a.ctx.Equal(w.own.ctx) && a.expiry.IsZero():
		w.b = append(w.b, flags|assignOwn)
	default:
		w.origin(a.by, flags)
		w.dot(a.dot)
		if a.by.Op == Expire {
			w.dot(a.expiry)
		}
		w.vector(a.ctx)
	}
	if !newest {
		w.uvarint(uint64(len(a.totals)))
	}
	for i := range a.totals {
		t := &a.totals[i]
		w.path(t.path[len(path):])
		w.actor(t.actor)
		w.hlc(t.id)
		w.number(t.total)
	}
	if flags&assignAbsent == 0 && !valueElsewhere {
		w.bytes(a.value)
	}
}

func (w *writer) path(p []string) { w.b = appendPath(w.b, p) }

func appendPath(b []byte, p []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(p)))
	for _, name := range p {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	return b
}

func (w *writer) node(n *node) {
	w.path(n.path)
	flags := byte(0)
	if n.assign.present() {
		flags |= nodeAssign
	}
	for i, k := range [...]int{len(n.sums), len(n.adds), len(n.removes), len(n.appends)} {
		if k > 0 {
			flags |= nodeSums << i
		}
	}
	w.b = append(w.b, flags)
	if flags&nodeAssign != 0 {
		w.assign(n.path, &n.assign, false)
	}
	if len(n.sums) > 0 {
		w.uvarint(uint64(len(n.sums)))
	}
	for i := range n.sums {
		s := &n.sums[i]
		w.actor(s.actor)
		w.hlc(s.hlc)
		w.b = appendBelow(w.b, s.hlc, s.id)
		w.number(s.total)
	}
	if len(n.adds) > 0 {
		w.uvarint(uint64(len(n.adds)))
	}
	for i := range n.adds {
		a := &n.adds[i]
		w.text(a.elem)
		w.dot(a.dot())
	}
	if len(n.removes) > 0 {
		w.uvarint(uint64(len(n.removes)))
	}
	for i := range n.removes {
		w.text(n.removes[i].elem)
		w.dot(n.removes[i].dot)
		w.vector(n.removes[i].seen)
	}
	if len(n.appends) > 0 {
		w.uvarint(uint64(len(n.appends)))
	}
	for i := range n.appends {
		w.dot(n.appends[i].dot)
		w.bytes(n.appends[i].values)
	}
}
