package node

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// What other regions hold their copies against: replication.Copy, of a node that leads.

const (
	digestPartLeaves = 1024
	digestPartBytes  = 1 << 20 // read for one part
	listPartBytes    = 256 << 10
	// fetchBytes is about how much one answer to Fetch carries.
	fetchBytes = 8 << 20
	// Records read at a time, in order and here and there.
	scanBlock = 1024
	seekBlock = 128
)

// openTable returns an open global table in which a region has a replica.
func (r *replicator) openTable(member, id string) (*region.Table, error) {
	for _, t := range r.region.Tables() {
		d := t.Definition()
		if d.GlobalID != id {
			continue
		}
		if rep := d.Replica(member); rep == nil || !rep.Live() {
			return nil, replication.ErrNotMember
		}
		return t, nil
	}
	return nil, replication.ErrNoTable
}

// show hands a table that another region asks about, as it stands, to do.
func (r *replicator) show(ctx context.Context, member, id string, do func(*still) error) error {
	if _, err := r.current(ctx); err != nil {
		return err
	}
	t, err := r.openTable(member, id)
	if err != nil {
		return err
	}
	s, err := stillOf(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	r.order.begin(repair)
	defer r.order.end(repair)
	return do(s)
}

// Digest is replication.Copy's.
func (r *replicator) Digest(ctx context.Context, q replication.DigestRequest, send func(replication.DigestPart) error) error {
	if q.Bits < 0 || q.Bits > replication.MaxLeafBits {
		return replication.ErrRequest
	}
	send = reading(&r.order, send)
	return r.show(ctx, q.Region, q.Table, func(s *still) error {
		in := s.reader(scanBlock, false)
		var part replication.DigestPart
		sent := uint64(0)
		for {
			e, err := in.peek()
			if err != nil {
				return err
			}
			end := uint32(1) << q.Bits
			if e != nil {
				end = replication.LeafOf(e.Key, q.Bits)
			}
			if n := len(part.Leaves); e == nil || n > 0 && part.Leaves[n-1].At != end && (n >= digestPartLeaves || in.bytes-sent >= digestPartBytes) {
				part.End, part.Bytes = end, in.bytes-sent
				if err := errors.Join(send(part), ctx.Err()); err != nil || e == nil {
					return err
				}
				part, sent = replication.DigestPart{}, in.bytes
			}
			part.Leaves = addTo(part.Leaves, end, e.Sum)
			in.next()
		}
	})
}

// addTo adds an item to its leaf, which is the last or comes behind it.
func addTo(leaves []replication.Leaf, at uint32, s replication.Sum) []replication.Leaf {
	if n := len(leaves); n == 0 || leaves[n-1].At != at {
		leaves = append(leaves, replication.Leaf{At: at})
	}
	leaves[len(leaves)-1].Add(s)
	return leaves
}

// List is replication.Copy's.
func (r *replicator) List(ctx context.Context, q replication.ListRequest, send func([]replication.Entry) error) error {
	if !q.Check() {
		return replication.ErrRequest
	}
	send = reading(&r.order, send)
	return r.show(ctx, q.Region, q.Table, func(s *still) error {
		in := s.reader(seekBlock, q.Values)
		var part []replication.Entry
		size, leaves := 0, q.Leaves
		for {
			e, err := in.within(&leaves, q.Bits)
			if err != nil {
				return err
			}
			if len(part) > 0 && (e == nil || size >= listPartBytes) {
				if err := errors.Join(send(part), ctx.Err()); err != nil {
					return err
				}
				part, size = nil, 0
			}
			if e == nil {
				return send(nil)
			}
			part = append(part, *e)
			size += len(e.Key) + len(e.Item) + len(e.Sum)
			in.next()
		}
	})
}

// Fetch is replication.Copy's.
func (r *replicator) Fetch(ctx context.Context, q replication.FetchRequest, send func(replication.SeedPart) error) error {
	if len(q.Keys) > replication.MaxKeys {
		return replication.ErrRequest
	}
	send = reading(&r.order, send)
	return r.show(ctx, q.Region, q.Table, func(s *still) error {
		var part replication.SeedPart
		size, all := 0, 0
		for _, key := range q.Keys {
			held, err := s.get(key)
			if err != nil {
				return err
			}
			stored := held.Shown()
			part.Items = append(part.Items, replication.Change{Key: key, Delta: stored})
			size += len(key) + len(stored)
			if all += len(key) + len(stored); all >= fetchBytes {
				break
			}
			if size >= seedPartBytes {
				if err := send(part); err != nil {
					return err
				}
				part, size = replication.SeedPart{}, 0
			}
		}
		if len(part.Items) > 0 {
			if err := send(part); err != nil {
				return err
			}
		}
		return send(replication.SeedPart{Done: true})
	})
}

// still is a table as it stands: each of its partitions at a moment of its own.
type still struct {
	parts []*region.Snapshot
}

func stillOf(ctx context.Context, t *region.Table) (*still, error) {
	snaps, err := t.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	s := &still{parts: snaps}
	for _, snap := range snaps {
		if snap.Schema.Solo {
			s.close()
			return nil, replication.ErrNoTable // see Seed
		}
	}
	return s, nil
}

func (s *still) close() {
	for _, p := range s.parts {
		p.Close()
	}
}

// clock is up to when all of this region's writes are in it.
func (s *still) clock() (clock crdt.HLC) {
	for i, p := range s.parts {
		if i == 0 || p.State.Clock < clock {
			clock = p.State.Clock
		}
	}
	return clock
}

// of returns the number of the partition that holds a key.
func (s *still) of(key []byte) int {
	i, ok := slices.BinarySearchFunc(s.parts, key, func(p *region.Snapshot, key []byte) int { return bytes.Compare(p.Start(), key) })
	if !ok {
		i--
	}
	return max(i, 0)
}

func (s *still) get(key []byte) (region.Held, error) { return s.parts[s.of(key)].Get(key) }

// reader goes through visible items in order of their keys.
type reader struct {
	s      *still
	many   int       // records read at a time
	values bool      // whole items instead of their sums
	after  table.Key // read up to here
	part   int       // of the partitions, the one that is read
	block  []replication.Entry
	bytes  uint64 // read so far
}

func (s *still) reader(many int, values bool) *reader {
	return &reader{s: s, many: many, values: values}
}

// peek returns the next item, nil behind the last. It is the caller's.
func (r *reader) peek() (*replication.Entry, error) {
	for len(r.block) == 0 && r.part < len(r.s.parts) {
		n, size := 0, 0
		var failed error
		err := r.s.parts[r.part].Records(r.after, func(key table.Key, record []byte) bool {
			if n >= r.many || size >= digestPartBytes {
				return false
			}
			n++
			size += len(key) + len(record)
			r.after = append(r.after[:0], key...)
			visible, there, err := crdt.PeekVisible(record)
			if err != nil || !there {
				failed = err
				return err == nil
			}
			e := replication.Entry{Key: slices.Clone(key), Newest: crdt.PeekDot(record)}
			if r.values {
				e.Item = slices.Clone(visible)
			} else {
				e.Sum = replication.SumOf(key, e.Newest, visible)
			}
			r.block = append(r.block, e)
			return true
		})
		if err = errors.Join(err, failed); err != nil {
			return nil, err
		}
		if r.bytes += uint64(size); n == 0 {
			r.part++
		}
	}
	if len(r.block) == 0 {
		return nil, nil
	}
	return &r.block[0], nil
}

func (r *reader) next() { r.block = r.block[1:] }

// within returns the next item that is in one of the leaves, whose front it takes off as it passes them.
func (r *reader) within(leaves *[]uint32, bits int) (*replication.Entry, error) {
	if r.after == nil && len(*leaves) > 0 {
		r.after = replication.LeafStart((*leaves)[0], bits)
		r.part = r.s.of(r.after)
	}
	for len(*leaves) > 0 {
		e, err := r.peek()
		if e == nil || err != nil {
			return nil, err
		}
		at := replication.LeafOf(e.Key, bits)
		for len(*leaves) > 0 && (*leaves)[0] < at {
			*leaves = (*leaves)[1:]
		}
		switch {
		case len(*leaves) == 0:
		case (*leaves)[0] == at:
			return e, nil
		default:
			start := replication.LeafStart((*leaves)[0], bits)
			r.block, r.after, r.part = nil, start, r.s.of(start)
		}
	}
	return nil, nil
}
