package region

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/table"
)

// Answer answers what another node of the region asks about partitions that this one holds. It ends with ctx.
func (r *Region) Answer(ctx context.Context, q []byte) []byte {
	if len(q) == 0 {
		return refusal(errQuestion)
	}
	d := reading{b: q[1:]}
	id := d.number()
	if questionKind(q[0]) == askWords {
		return r.answerWords(ctx, &d)
	}
	p := r.partition(id)
	if questionKind(q[0]) == askClosed {
		attempt := d.number()
		if p == nil || !d.done() {
			return refusal(errNotHere)
		}
		if err := p.closedHere(ctx, attempt); err != nil {
			return refusal(err)
		}
		return []byte{answered}
	}
	var g *group.Group
	if p != nil {
		g = p.here()
	}
	if g == nil || d.bad {
		return refusal(errNotHere)
	}
	answer, err := r.answer(ctx, p, g, questionKind(q[0]), &d)
	switch {
	case errors.Is(err, op.ErrMoved):
		return append(binary.AppendUvarint([]byte{moved}, p.ID), p.say(g, 0)...)
	case err != nil:
		return refusal(err)
	}
	return answer
}

func (r *Region) answer(ctx context.Context, p *Partition, g *group.Group, kind questionKind, d *reading) ([]byte, error) {
	out := []byte{answered}
	switch kind {
	case askDo:
		c, err := op.Decode(d.b)
		if err != nil {
			return nil, errQuestion
		}
		if err := r.roomFor(c); err != nil {
			return nil, err
		}
		result, err := g.Propose(ctx, c)
		if err != nil {
			return nil, err
		}
		return result.Append(out), nil
	case askSync:
		sum := d.fixed()
		if !d.done() {
			return nil, errQuestion
		}
		if err := g.Read(ctx); err != nil {
			return nil, err
		}
		return append(out, p.say(g, sum)...), nil
	case askGet:
		key, strong := table.Key(d.bytes()), d.bool()
		if !d.done() {
			return nil, errQuestion
		}
		return p.answerGet(ctx, g, key, strong, out)
	case askRows:
		return p.answerRows(ctx, g, d, out)
	case askPin:
		if err := g.Read(ctx); err != nil {
			return nil, err
		}
		pin, err := r.pins.add(r.cfg.Store.Snapshot(), r.cfg.Now())
		if err == nil && p.replica.Load() != g {
			r.pins.drop(pin)
			err = errNotHere
		}
		return binary.AppendUvarint(binary.AppendUvarint(out, r.cfg.NodeID), pin), err
	case askUnpin:
		r.pins.drop(d.number())
		return out, nil
	case askMiddle:
		key, err := p.middleHere()
		return appendBytes(out, key), err
	case askLogSize:
		bytes, oldest := p.logSizeHere()
		return binary.AppendUvarint(binary.AppendUvarint(out, bytes), uint64(oldest)), nil
	}
	return nil, errQuestion
}

func (p *Partition) answerGet(ctx context.Context, g *group.Group, key table.Key, strong bool, out []byte) ([]byte, error) {
	var err error
	if strong {
		err = g.ReadSoon(ctx)
	} else {
		err = p.caughtUp(ctx)
	}
	if err != nil {
		return nil, err
	}
	item, err := partition.Get(p.table.region.cfg.Store, p.table.ID, key)
	switch {
	case p.replica.Load() != g:
		return nil, errNotHere
	case !p.has(key):
		return nil, op.ErrMoved
	case err != nil:
		return nil, err
	case item == nil:
		return append(out, 0), nil
	}
	return append(append(out, 1), item...), nil
}

// has tells whether a key is the partition's, as the replica here has it.
func (p *Partition) has(key table.Key) bool {
	return within(p.Start, p.own.Load().Span.End, key)
}

func (p *Partition) answerRows(ctx context.Context, g *group.Group, d *reading, out []byte) ([]byte, error) {
	r := p.table.region
	applied, end, pin := d.number(), table.Key(d.optional()), d.number()
	lower, upper, last, most := d.bytes(), d.bytes(), d.bool(), int(min(d.number(), mostRows))
	if !d.done() {
		return nil, errQuestion
	}
	from := storage.Reader(r.cfg.Store)
	if pin != 0 {
		snap := r.pins.get(pin, r.cfg.Now())
		if snap == nil {
			return nil, errNoPin
		}
		defer r.pins.free(pin)
		from = snap
	} else if p.own.Load().Applied < applied {
		if err := g.Read(ctx); err != nil {
			return nil, err
		}
		if p.own.Load().Applied < applied {
			return nil, errNotHere
		}
	}
	it, err := from.Iter(lower, upper)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	first, next := it.First, it.Next
	if last {
		first, next = it.Last, it.Prev
	}
	all := len(out)
	out = append(out, 0)
	ok := first()
	for ; ok && len(out) < most; ok = next() {
		out = appendBytes(appendBytes(out, it.Key()), it.Value())
	}
	if !ok {
		out[all] = 1
	}
	switch {
	case it.Err() != nil:
		return nil, it.Err()
	case pin != 0:
	case p.replica.Load() != g:
		return nil, errNotHere
	case !slices.Equal(p.own.Load().Span.End, end):
		return nil, op.ErrMoved
	}
	return out, nil
}

const (
	// maxPins bounds the states that are pinned for other nodes, and pinKept for how long one is kept that nobody reads.
	maxPins = 64
	pinKept = time.Minute
)

// pins are states that other nodes read from.
type pins struct {
	mu   sync.Mutex
	next uint64
	by   map[uint64]*pin
}

type pin struct {
	snap  *storage.Snapshot
	used  time.Time
	users int  // who read from it at the moment
	over  bool // to be closed by the last of them
}

func (ps *pins) add(snap *storage.Snapshot, now time.Time) (uint64, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if len(ps.by) >= maxPins {
		return 0, errors.Join(group.ErrOverloaded, snap.Close())
	}
	ps.next++
	ps.by[ps.next] = &pin{snap: snap, used: now}
	return ps.next, nil
}

// get returns a state to read from, nil if there is none, until free.
func (ps *pins) get(id uint64, now time.Time) storage.Reader {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.by[id]
	if p == nil {
		return nil
	}
	p.used = now
	p.users++
	return p.snap
}

func (ps *pins) free(id uint64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.by[id]; p != nil {
		p.users--
		ps.closeLocked(id, p)
	}
}

func (ps *pins) drop(id uint64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.by[id]; p != nil {
		p.over = true
		ps.closeLocked(id, p)
	}
}

func (ps *pins) closeLocked(id uint64, p *pin) {
	if p.over && p.users == 0 {
		delete(ps.by, id)
		p.snap.Close() // it has nothing to say: see Snapshots.Close of Pebble
	}
}

// forget lets go what nobody has read for long; all of it with a time of 0.
func (ps *pins) forget(before time.Time) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for id, p := range ps.by {
		if before.IsZero() || p.used.Before(before) {
			p.over = true
			ps.closeLocked(id, p)
		}
	}
}

// keepPins lets go what other nodes have pinned and left.
func (r *Region) keepPins(ctx context.Context) error {
	defer r.pins.forget(time.Time{})
	for r.cfg.Tasks.Wait(ctx, nil, pinKept/4) != task.Ended {
		r.pins.forget(r.cfg.Now().Add(-pinKept))
	}
	return nil
}
