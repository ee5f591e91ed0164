package crdt

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"github.com/commutatordb/commutator/item"
)

// Decode reads a stored record or a delta that fills b. What it returns aliases b, which must not change
// while it or anything merged from it is in use. It returns ErrEncoding for anything but the very bytes
// that Append writes; only the item of a folded record is taken as it is.
func Decode(b []byte) (*Record, error) {
	r := new(Record)
	if err := r.Decode(b); err != nil {
		return nil, err
	}
	return r, nil
}

// Decode is the function Decode into a Record that the caller has. After an error r is the zero Record.
func (r *Record) Decode(b []byte) error {
	*r = Record{}
	format, newest, rest, err := cutHeader(b)
	if err != nil {
		return err
	}
	if format == formatFolded {
		if newest.HLC == 0 || len(rest) == 0 {
			return ErrEncoding
		}
		v := Vector{floor: newest}
		*r = Record{seen: v, writes: v, root: assign{dot: newest, ctx: v, value: rest}, shown: rest, known: true}
		return nil
	}
	d := reader{b: rest, newest: newest}
	d.actors = append(d.known[:0], newest.Actor, allActors)
	d.record(r, format)
	if d.bad || len(d.b) > 0 || newest.HLC == 0 || r.seen.Newest() != newest || !r.consistent(format) {
		*r = Record{}
		return ErrEncoding
	}
	return nil
}

// consistent tells what no single part of the stored form can: that it is the form of this state.
func (r *Record) consistent(format byte) bool {
	if r.IsFolded() {
		return false
	}
	switch format {
	case formatVisible:
		return r.alive()
	case formatHidden:
		return !r.alive()
	}
	return true
}

// reader takes parts off the front of b. After the first fault bad is set and b is empty.
type reader struct {
	b      []byte
	bad    bool
	newest Dot
	actors []Actor
	known  [8]Actor
	delta  bool
	own    *assign // in a delta, behind its origin
}

func (d *reader) fail() { d.bad, d.b = true, nil }

func (d *reader) uvarint() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 || size > 1 && d.b[size-1] == 0 {
		d.fail()
		return 0
	}
	d.b = d.b[size:]
	return n
}

// count reads how many parts follow, each of at least size bytes.
func (d *reader) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *reader) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *reader) take(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *reader) bytes() []byte { return d.take(d.count(1)) }

func (d *reader) hlc() HLC { return d.below(d.newest.HLC) }

// below reads what appendBelow appends.
func (d *reader) below(base HLC) (h HLC) {
	n, counter := d.uvarint(), uint64(0)
	ms := n >> 1
	if n&1 != 0 {
		if counter = d.uvarint(); counter == 0 || counter > math.MaxUint16 {
			d.fail()
		}
	}
	switch {
	case ms > uint64(base>>16):
		d.fail()
	case ms > 0:
		h = base>>16 - HLC(ms)
		h = h<<16 | HLC(counter)
	case counter > uint64(base.Counter()):
		d.fail()
	default:
		h = base - HLC(counter)
	}
	if h == 0 {
		d.fail()
	}
	return h
}

func (d *reader) actor() Actor {
	n := d.uvarint()
	i, new := n>>1, n&1 != 0
	if !new {
		if i >= uint64(len(d.actors)) || i == 1 && d.actors[0] == allActors {
			d.fail()
			return 0
		}
		return d.actors[i]
	}
	if i > math.MaxUint32 {
		d.fail()
		return 0
	}
	a := Actor(i&(1<<22-1)<<10 | i>>22)
	if slices.Contains(d.actors, a) {
		d.fail()
		return 0
	}
	d.actors = append(d.actors, a)
	return a
}

func (d *reader) dot() Dot {
	a := d.actor()
	return Dot{d.hlc(), a}
}

// seen reads what the record has seen; the newest dot's entry is the header's.
func (d *reader) seen() Vector {
	v := d.vector()
	i, ok := v.find(d.newest.Actor)
	switch {
	case v.floor == d.newest && len(v.entries) == 0:
	case ok || v.Covers(d.newest):
		d.fail()
	default:
		v.entries = slices.Insert(v.entries, i, entry{d.newest.Actor, d.newest.HLC})
	}
	return v
}

func (d *reader) vector() Vector {
	n := d.uvarint()
	var v Vector
	if n&1 != 0 {
		v.floor = d.dot()
	}
	n >>= 1
	if n > uint64(len(d.b)/2) {
		d.fail()
		return Vector{}
	}
	if n > 0 {
		v.entries = make([]entry, 0, n)
	}
	for ; n > 0 && !d.bad; n-- {
		e := d.dot()
		if !d.bad && !v.extend(entry{e.Actor, e.HLC}) {
			d.fail()
		}
	}
	return v
}

func (d *reader) origin() (o Origin, flags byte) {
	flags = d.byte()
	if d.delta && flags&assignOwn != 0 {
		if flags&^assignAbsent != assignOwn || d.own == nil {
			d.fail()
		}
		return Origin{}, flags
	}
	o.Op = Op(flags & 0xF)
	o.Conditional = flags&assignConditional != 0
	if flags&assignTransaction != 0 {
		t := d.take(18)
		if d.bad {
			return Origin{}, 0
		}
		o.Transaction.ID = [16]byte(t)
		o.Transaction.Items = binary.BigEndian.Uint16(t[16:])
		if o.Transaction.Items == 0 {
			d.fail()
		}
	}
	return o, flags
}

func (d *reader) number() item.Number {
	if n := d.uvarint(); n&1 == 0 {
		n >>= 1
		i := int64(n>>1) ^ -int64(n&1)
		if i < -maxWhole || i > maxWhole {
			d.fail()
		}
		return item.NumberFromInt(i)
	} else if n != 1 {
		d.fail()
	}
	value, rest, err := item.CutValue(d.b)
	if err != nil || item.RawKind(value) != item.KindN || !item.Valid(value) {
		d.fail()
		return item.Number{}
	}
	v, err := item.DecodeValue(value)
	if err != nil {
		d.fail()
		return item.Number{}
	}
	d.b = rest
	n := v.Number()
	if i, ok := n.Int(); ok && i >= -maxWhole && i <= maxWhole {
		d.fail()
	}
	return n
}

func (d *reader) path() []string {
	n := d.count(1)
	if n > item.MaxDepth {
		d.fail()
	}
	if d.bad || n == 0 {
		return nil
	}
	p := make([]string, 0, n)
	for ; n > 0 && !d.bad; n-- {
		p = append(p, string(d.bytes()))
	}
	return p
}

func (d *reader) assign(path []string, value func() []byte) (a assign) {
	o, flags := d.origin()
	newest := !d.delta && flags&assignNewest != 0
	switch {
	case newest:
		if a.dot, a.by, a.ctx = d.newest, o, d.vector(); o.Op == Expire {
			d.fail()
		}
	case flags&assignOwn != 0 && d.own != nil:
		a.dot, a.by, a.ctx = d.own.dot, d.own.by, d.own.ctx
	default:
		a.by = o
		a.dot = d.dot()
		if o.Op == Expire {
			a.expiry = d.dot()
		}
		a.ctx = d.vector()
		if d.own != nil && a.dot == d.own.dot && a.by == d.own.by && a.ctx.Equal(d.own.ctx) && a.expiry.IsZero() {
			d.fail()
		}
	}
	n := 0
	if !newest {
		n = d.count(4)
	}
	if n > 0 {
		a.totals = make([]total, 0, min(n, 64))
	}
	for i := 0; i < n && !d.bad; i++ {
		t := total{path: slices.Concat(path, d.path())}
		t.actor = d.actor()
		t.id = d.hlc()
		t.total = d.number()
		if len(t.path) == 0 || len(t.path) > item.MaxDepth || i > 0 && compareTotals(&a.totals[i-1], &t) >= 0 {
			d.fail()
		}
		a.totals = append(a.totals, t)
	}
	if !d.delta && !newest && a.dot == d.newest && n == 0 && o.Op != Expire {
		d.fail()
	}
	switch {
	case value == nil:
		if flags&assignAbsent != 0 {
			d.fail()
		}
	case flags&assignAbsent == 0:
		a.value = value()
	}
	return a
}

func (d *reader) value() []byte {
	b := d.bytes()
	if !item.Valid(b) {
		d.fail()
	}
	return b
}

func (d *reader) item() []byte {
	b := d.bytes()
	if !item.ValidItem(b) {
		d.fail()
	}
	return b
}

// patch reads an item that is told by how it differs from another one.
func (d *reader) patch(from []byte) []byte {
	other := d.item()
	var lacks [][]byte
	for n := d.count(1); n > 0 && !d.bad; n-- {
		lacks = append(lacks, d.bytes())
	}
	if d.bad {
		return nil
	}
	to, ok := patched(from, other, lacks)
	if !ok || bytes.Equal(to, from) {
		d.fail()
	}
	return to
}

func (d *reader) record(r *Record, format byte) {
	switch format {
	case formatDelta:
		r.delta, d.delta = true, true
		var flags byte
		if r.by, flags = d.origin(); flags&assignAbsent != 0 {
			d.fail()
		}
		r.ctx = d.vector()
		r.seen = Vector{entries: []entry{{d.newest.Actor, d.newest.HLC}}}
	case formatVisible:
		r.shown = d.item()
		r.known = true
	case formatHidden:
		r.known = true
	default:
		d.fail()
		return
	}
	flags := d.byte()
	if flags&flagRoot == 0 && flags&(flagRootShown|flagFolded) != 0 || flags&flagRootShown != 0 && format != formatVisible || flags&flagFolded != 0 && r.delta {
		d.fail()
		return
	}
	switch {
	case r.delta:
		d.own = &assign{dot: d.newest, by: r.by, ctx: r.ctx}
	case flags&flagFolded != 0:
		r.seen.floor = d.newest
	default:
		r.seen = d.seen()
	}
	r.writes = r.seen
	if flags&flagWrites != 0 {
		r.writes = d.vector()
		if r.writes.Equal(r.seen) || !r.seen.Contains(r.writes) {
			d.fail()
		}
	}
	if flags&flagDead != 0 {
		r.dead = d.assign(nil, nil)
	}
	if flags&flagExpired != 0 {
		if r.expired = d.vector(); r.expired.IsZero() {
			d.fail()
		}
	}
	if flags&flagExpiry != 0 {
		r.expiry = d.assign(nil, nil)
		r.expiry.value = emptyItem
	}
	switch {
	case flags&flagRoot == 0:
	case flags&flagFolded != 0:
		r.root = assign{dot: d.newest, ctx: r.seen}
	case r.delta:
		r.root = d.assign(nil, d.item)
		if r.root.value == nil {
			d.fail()
		}
	default:
		r.root = d.assign(nil, nil)
	}
	switch {
	case flags&flagRoot == 0 || r.delta:
	case flags&flagRootShown != 0:
		r.root.value = r.shown
	case format == formatHidden:
		r.root.value = d.item()
	default:
		r.root.value = d.patch(r.shown)
	}
	if flags&flagFolded == 0 && !r.delta && r.rootFolded() {
		d.fail()
	}
	if flags&flagNodes == 0 {
		return
	}
	n := d.count(4)
	if n == 0 {
		d.fail()
		return
	}
	r.nodes = make([]node, 0, min(n, 64))
	for i := 0; i < n && !d.bad; i++ {
		k := d.node()
		if d.bad || len(k.path) == 0 || i > 0 && compareNodes(&r.nodes[i-1], &k) >= 0 {
			d.fail()
			return
		}
		r.nodes = append(r.nodes, k)
	}
}

func (d *reader) node() (n node) {
	n.path = d.path()
	flags := d.byte()
	if flags == 0 || flags >= nodeAppends<<1 {
		d.fail()
		return n
	}
	if flags&nodeAssign != 0 {
		n.assign = d.assign(n.path, d.value)
	}
	if flags&nodeSums != 0 {
		n.sums = parts(d, 4, compareSums, func() (s sum) {
			s.actor = d.actor()
			s.hlc = d.hlc()
			s.id = d.below(s.hlc)
			s.total = d.number()
			return s
		})
	}
	if flags&nodeAdds != 0 {
		n.adds = parts(d, 4, compareAdds, func() (a add) {
			a.elem = d.element()
			at := d.dot()
			a.actor, a.hlc = at.Actor, at.HLC
			return a
		})
	}
	if flags&nodeRemoves != 0 {
		n.removes = parts(d, 5, compareRemoves, func() remove { return remove{d.element(), d.dot(), d.vector()} })
	}
	if flags&nodeAppends != 0 {
		n.appends = parts(d, 4, compareTails, func() (t tail) {
			t.dot = d.dot()
			t.values = d.value()
			if item.RawKind(t.values) != item.KindL {
				d.fail()
			}
			return t
		})
	}
	return n
}

func (d *reader) element() string {
	b := d.value()
	if k := item.RawKind(b); !k.IsKey() {
		d.fail()
	}
	return string(b)
}

// parts reads a count and that many parts, which must be sorted and unique and at least one.
func parts[T any](d *reader, size int, compare func(a, b *T) int, one func() T) []T {
	n := d.count(size)
	if n == 0 {
		d.fail()
		return nil
	}
	out := make([]T, 0, min(n, 64))
	for i := 0; i < n && !d.bad; i++ {
		p := one()
		if i > 0 && compare(&out[i-1], &p) >= 0 {
			d.fail()
		}
		out = append(out, p)
	}
	return out
}
