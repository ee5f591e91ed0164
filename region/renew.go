package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// A region that the others have gone on without begins a table anew, as another incarnation, and makes again what it alone had written.
// Source: docs/decisions/0017.

// actor is who stamps what an incarnation of a table writes.
func (r *Region) actor(incarnation uint16) crdt.Actor {
	base := r.Actor()
	if mutant.On(mutant.IdentityEachStart) || incarnation == 0 {
		return base
	}
	return crdt.NewActor(r.cfg.Name, uint16((int(base.Incarnation())-1+int(incarnation))%crdt.MaxIncarnation)+1)
}

// Renew begins anew what this region has of a table that the others have given up: empty, and CREATING until it is filled from one of
// them. What there was is kept, closed, for MakeAgain. It does nothing if that is not so any more. It returns ErrMerging while partitions are
// being merged.
func (r *Region) Renew(ctx context.Context, name string) error {
	tableID, first, err := r.allocate(ctx, 1, r.initial())
	if err != nil {
		return err
	}
	partitions := r.begun(tableID, first)
	_, err = r.Change(ctx, name, func(d *table.Definition) error {
		if d.GivenUp(r.cfg.Name) && d.Replica(r.cfg.Name).Status != table.Gone && d.Status != table.Deleting {
			if slices.ContainsFunc(d.Partitions, func(p table.Partition) bool { return p.Merging != nil }) {
				return ErrMerging // what is kept of it is to have all its keys; this ends soon
			}
			d.Renew(r.cfg.Name, uint32(r.actor(d.Incarnation)), tableID, partitions, uint64(r.Stamp()))
			for i := range d.Schema.Indexes {
				d.Schema.Indexes[i].Backfilling = false // there is nothing to fill it with but what comes
			}
		}
		return nil
	})
	return err
}

// formerOf returns what is open here of a former incarnation, nil for nothing: the table itself, or what it has kept of it.
func (t *Table) formerOf(f *table.Former) *Table {
	for _, former := range []*Table{t, t.former.Load()} {
		if f != nil && former != nil && former.ID == f.ID {
			return former
		}
	}
	return nil
}

// reconcileFormer closes what a former incarnation of a table had, and removes it when it is wanted no more.
func (r *Region) reconcileFormer(ctx context.Context, d definition, t, former *Table) error {
	if d.Former == nil || d.Former.ID != former.ID {
		t.former.Store(nil)
		was := former.Definition()
		of := was.Partitions
		if was.ID != former.ID {
			of = was.Former.Partitions
		}
		return r.removeData(ctx, former, former.ID, of)
	}
	for _, p := range former.partitions() {
		for closed := false; !closed; {
			if closed = p.schema.Load().Closed; closed {
				break
			}
			if err := former.await(ctx, d, p.sync); err != nil {
				return err
			}
			if closed = p.schema.Load().Closed; closed || !r.Leads() {
				break
			}
			schema := p.schema.Load().Clone()
			schema.Closed = true
			if err := p.propose(ctx, &op.Command{Kind: op.Alter, Schema: &schema, Revision: d.revision}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ErrNotClosed says that a former incarnation may still be written to.
var ErrNotClosed = errors.New("region: what was given up is not closed yet")

// rebaseBytes is about how much of a former incarnation's records one command takes.
const rebaseBytes = 256 << 10

// Former returns what a former incarnation had of the table, nil once that is not wanted any more.
func (t *Table) Former() *Table { return t.former.Load() }

// Closed tells whether nothing is written to any partition any more, as this node has them.
func (t *Table) Closed() bool {
	return !slices.ContainsFunc(t.partitions(), func(p *Partition) bool { return !p.schema.Load().Closed })
}

// Had tells, of an item of a partition of a former incarnation's, up to when the others have what was written to it.
type Had func(partition uint64, key table.Key) crdt.HLC

// MakeAgain writes again, as this incarnation, what the former one had written and nobody else has, and keeps its conflict records. upTo tells, for each of its
// partitions, up to which change the others have all. It returns how many items that were.
func (t *Table) MakeAgain(ctx context.Context, upTo func(partition uint64) uint64, had Had) (items int, err error) {
	former := t.Former()
	if former == nil {
		return 0, nil
	}
	if err := former.CatchUp(ctx); err != nil {
		return 0, err
	}
	if !former.Closed() {
		return 0, ErrNotClosed
	}
	if !mutant.On(mutant.NotRecalled) {
		if err := t.recall(ctx, former); err != nil {
			return 0, err
		}
	}
	// What was cut off a partition is in its log as far as it was written before.
	trimmed := slices.ContainsFunc(former.partitions(), func(p *Partition) bool { return p.State().Trimmed > upTo(p.ID) })
	for _, p := range former.partitions() {
		var deltas []op.Delta
		size := 0
		write := func() error {
			n, err := t.rebase(ctx, p, had, deltas)
			items += n
			deltas, size = nil, 0
			return err
		}
		add := func(key table.Key, record []byte) error {
			deltas = append(deltas, op.Delta{Key: slices.Clone(key), State: slices.Clone(record)})
			if size += len(key) + len(record); size >= rebaseBytes {
				return write()
			}
			return nil
		}
		if !trimmed {
			err = p.written(had, add)
		} else {
			// A log does not go back so far: it went on without the others, too. All that it had is looked at.
			err = p.all(add)
		}
		if err == nil && len(deltas) > 0 {
			err = write()
		}
		if err != nil {
			return items, err
		}
	}
	return items, nil
}

// recall keeps the conflict records that a former incarnation had kept: nobody else has them.
func (t *Table) recall(ctx context.Context, former *Table) error {
	var records []op.Delta
	size := 0
	keep := func() error {
		err := t.spread(ctx, records, func(ctx context.Context, p *Partition, records []op.Delta) error {
			return p.propose(ctx, &op.Command{Kind: op.Recall, Deltas: records})
		})
		records, size = nil, 0
		return err
	}
	for _, p := range former.partitions() {
		prefix := keyenc.Conflicts(nil, p.ID)
		err := p.rows(prefix, keyenc.End(prefix), func(_, value []byte) error {
			c, err := op.DecodeConflict(value)
			if err != nil {
				return fmt.Errorf("region: conflict record of partition %d: %w", p.ID, err)
			}
			records = append(records, op.Delta{Key: c.Key, State: slices.Clone(value)})
			if size += len(c.Key) + len(value); size >= rebaseBytes {
				return keep()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(records) == 0 {
		return nil
	}
	return keep()
}

// rebase makes items of a former incarnation's partition again. They were had up to one time in each command.
func (t *Table) rebase(ctx context.Context, former *Partition, had Had, deltas []op.Delta) (items int, err error) {
	by := map[crdt.HLC][]op.Delta{}
	var times []crdt.HLC
	for _, d := range deltas {
		at := had(former.ID, d.Key)
		if by[at] == nil {
			times = append(times, at)
		}
		by[at] = append(by[at], d)
	}
	var made atomic.Int64
	for _, at := range times {
		err := t.spread(ctx, by[at], func(ctx context.Context, p *Partition, deltas []op.Delta) error {
			lost := crdt.Dot{HLC: at, Actor: former.table.actor}
			result, err := p.do(ctx, &op.Command{Kind: op.Rebase, Lost: lost, Deltas: deltas})
			made.Add(int64(result.Applied))
			return errors.Join(err, result.Err)
		})
		if err != nil {
			return int(made.Load()), err
		}
	}
	return int(made.Load()), nil
}

// written calls yield with each item, once or more, of which the log has changes of the region's own that nobody else has.
func (p *Partition) written(had Had, yield func(key table.Key, record []byte) error) error {
	yielded := map[string]bool{} // of one stretch of the log, not to yield a hot item over and over
	for seq := p.State().Trimmed; seq < p.State().Seq; {
		changes, upTo, _, err := p.Changes(seq, rebaseBytes)
		if err != nil {
			return err
		}
		seq = upTo
		clear(yielded)
		for _, c := range changes {
			if yielded[string(c.Key)] || crdt.PeekDot(c.Delta).HLC <= had(p.ID, c.Key) {
				continue
			}
			yielded[string(c.Key)] = true
			v := p.reader(context.Background())
			record, err := v.Get(nil, keyenc.Record(nil, p.table.ID, c.Key))
			err = cmp.Or(v.stood(), err)
			if errors.Is(err, storage.ErrNotFound) {
				continue // deleted, and known to be
			}
			if err == nil {
				err = yield(c.Key, record)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// all calls yield with every item of the partition.
func (p *Partition) all(yield func(key table.Key, record []byte) error) error {
	return p.rows(keyenc.Record(nil, p.table.ID, p.Start), recordsEnd(p.table.ID, p.End()), func(key, value []byte) error {
		return yield(keyenc.RecordKey(key), value)
	})
}

// rows calls yield with the partition's rows from one key up to another.
func (p *Partition) rows(from, to []byte, yield func(key, value []byte) error) error {
	v := p.reader(context.Background())
	it, err := v.Iter(from, to)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := yield(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return errors.Join(it.Err(), v.stood())
}

// Relayed is how far a region has applied another's streams, by stream, as a region.Snapshot has it.
type Relayed struct {
	Cursors        map[string]uint64
	Clocks, Shares map[string]crdt.HLC
	Start, End     table.Key // what the partition has; nil: to the end of the table
}

// Relay calls begin with how far another region's streams have been applied, and yield with every change here that holds writes of that
// region's, of any incarnation, as far as they are not known to be everywhere: what is folded is. It returns ErrNotClosed while more of
// them may come.
func (p *Partition) Relay(ctx context.Context, fence table.Fence, begin func(Relayed) error, yield func(key table.Key, delta []byte) error) error {
	snap, err := p.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Close()
	if !snap.Schema.Fenced(fence.Region, fence.Incarnation-1) {
		return ErrNotClosed
	}
	of := func(stream string) bool {
		origin, _, _ := strings.Cut(stream, "/")
		return origin == fence.Region
	}
	out := Relayed{snap.Cursors, snap.Clocks, snap.Shares, snap.Start(), snap.End()}
	maps.DeleteFunc(out.Cursors, func(stream string, _ uint64) bool { return !of(stream) })
	for _, clocks := range []map[string]crdt.HLC{out.Clocks, out.Shares} {
		maps.DeleteFunc(clocks, func(stream string, _ crdt.HLC) bool { return !of(stream) })
	}
	if err := begin(out); err != nil {
		return err
	}
	region := crdt.NewActor(fence.Region, 0).Region()
	it, err := snap.snap.Iter(keyenc.Log(nil, p.ID, snap.State.Folded+1), keyenc.Log(nil, p.ID, snap.State.Seq+1))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		c, err := partition.DecodeChange(it.Value())
		if err != nil {
			return fmt.Errorf("region: change log of partition %d: %w", p.ID, err)
		}
		if c.Local {
			continue
		}
		state := c.Delta
		if c.Whole() && mutant.On(mutant.WholeNotRelayed) {
			continue
		}
		if c.Whole() {
			state, err = snap.snap.Get(nil, keyenc.Record(nil, snap.tableID, c.Key))
			if errors.Is(err, storage.ErrNotFound) {
				continue // folded away
			}
			if err != nil {
				return err
			}
		}
		of, err := touches(state, region)
		if err == nil && of {
			err = yield(c.Key, state)
		}
		if err != nil {
			return err
		}
	}
	return it.Err()
}

// touches tells whether a delta, or a whole state, holds writes of a region.
func touches(delta []byte, region uint32) (bool, error) {
	if crdt.PeekDot(delta).Actor.Region() == region {
		return true, nil
	}
	r, err := crdt.Decode(delta)
	if err != nil || r.IsDelta() {
		return false, err
	}
	for a := range r.Seen().All() {
		if a.Region() == region {
			return true, nil
		}
	}
	return r.Seen().Floor().Actor.Region() == region, nil
}

// Fenced tells whether every partition, as this node has it, shuts out what a fence does.
func (t *Table) Fenced(f table.Fence) bool {
	for _, p := range t.partitions() {
		if !p.schema.Load().Fenced(f.Region, f.Incarnation-1) {
			return false
		}
	}
	return true
}
