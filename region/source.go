package region

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// ErrTruncated says that the change log no longer holds what was asked for.
var ErrTruncated = errors.New("region: the change log begins later than asked for")

// Changes returns this region's own changes behind sequence number after, about maxBytes of them, and the
// number of the last entry looked at: all of this region's changes up to it are among them or were before.
// state is the partition's as of a moment at or before the call.
func (p *Partition) Changes(after uint64, maxBytes int) (changes []partition.Change, last uint64, state partition.State, err error) {
	state = p.State()
	if after >= state.Seq {
		return nil, after, state, nil
	}
	if after < state.Trimmed {
		return nil, 0, state, ErrTruncated
	}
	it, err := p.table.region.cfg.Store.Iter(keyenc.Log(nil, p.ID, after+1), keyenc.Log(nil, p.ID, state.Seq+1))
	if err != nil {
		return nil, 0, state, err
	}
	defer it.Close()
	last = after
	size := 0
	for ok := it.First(); ok && size < maxBytes; ok = it.Next() {
		seq := keyenc.LogSeq(it.Key())
		if seq != last+1 {
			return nil, 0, state, ErrTruncated // trimmed since state was read
		}
		last = seq
		c, err := partition.DecodeChange(it.Value())
		if err != nil {
			return nil, 0, state, fmt.Errorf("region: change log of partition %d, entry %d: %w", p.ID, seq, err)
		}
		if !c.Local && !mutant.On(mutant.EchoLoop) {
			continue
		}
		c.Key, c.Delta = slices.Clone(c.Key), slices.Clone(c.Delta)
		size += len(c.Key) + len(c.Delta)
		changes = append(changes, c)
	}
	if err := it.Err(); err != nil {
		return nil, 0, state, err
	}
	if last == after {
		return nil, 0, state, ErrTruncated
	}
	return changes, last, state, nil
}

// Merge applies deltas or whole states of another region, in order. source says how far that brings its
// stream ("" for none); clock, when not 0, is the other region's, above which this one's is lifted. It
// returns once all of it is durable.
func (t *Table) Merge(ctx context.Context, source op.Cursor, clock crdt.HLC, deltas []op.Delta) error {
	by := map[*Partition][]op.Delta{}
	for _, d := range deltas {
		p := t.of(d.Key)
		by[p] = append(by[p], d)
	}
	for _, p := range t.partitions {
		c := &op.Command{Kind: op.Merge, Observe: clock, Deltas: by[p], Source: source}
		result, err := p.group.Propose(ctx, c)
		if err = errors.Join(err, result.Err); err != nil {
			return err
		}
		t.conflicts.add(result.Conflicts)
	}
	return nil
}

// Restore writes whole items, as this region's own, in stored form.
func (t *Table) Restore(ctx context.Context, items [][]byte) error {
	by := map[*Partition][]op.Delta{}
	for _, it := range items {
		key, err := t.Schema().KeyOf(it)
		if err != nil {
			return err
		}
		p := t.of(key)
		by[p] = append(by[p], op.Delta{Key: key, State: it})
	}
	for _, p := range t.partitions {
		if len(by[p]) == 0 {
			continue
		}
		if err := p.propose(ctx, &op.Command{Kind: op.Restore, Deltas: by[p]}); err != nil {
			return err
		}
	}
	return nil
}

// Cursor returns how far a stream of another region has been applied in every partition of the table.
func (t *Table) Cursor(stream string) uint64 {
	least := uint64(0)
	for i, p := range t.partitions {
		if seq := p.Cursors()[stream]; i == 0 || seq < least {
			least = seq
		}
	}
	return least
}

// Fold has the partition fold what is stable and let go of the change log up to trim. It does nothing,
// and costs next to nothing, when there is nothing to do.
func (p *Partition) Fold(ctx context.Context, stable crdt.HLC, trim uint64) error {
	for {
		state := p.State()
		foldable, err := p.foldable(state, stable)
		if err != nil {
			return err
		}
		now := crdt.At(p.table.region.cfg.Now().UnixMilli(), 0)
		if !foldable && min(trim, state.Folded) <= state.Trimmed && !state.Overdue(now) {
			return nil
		}
		result, err := p.group.Propose(ctx, &op.Command{Kind: op.Fold, Stable: stable, Trim: trim, Limit: foldPerStep})
		if err = errors.Join(err, result.Err); err != nil {
			return err
		}
		if !result.More {
			return nil
		}
	}
}

// Stable takes over that everything up to a time is stable, from a copy of the table that this one was seeded from: the copy's own
// folding has been up to there.
func (t *Table) Stable(ctx context.Context, stable crdt.HLC) error {
	for _, p := range t.partitions {
		for more := true; more; {
			result, err := p.group.Propose(ctx, &op.Command{Kind: op.Fold, Stable: stable, Limit: foldPerStep})
			if err = errors.Join(err, result.Err); err != nil {
				return err
			}
			more = result.More
		}
	}
	return nil
}

// foldPerStep is how many change-log entries one command looks at.
const foldPerStep = 2048

func (p *Partition) foldable(s partition.State, stable crdt.HLC) (bool, error) {
	if s.Folded >= s.Seq {
		return false, nil
	}
	value, err := p.table.region.cfg.Store.Get(nil, keyenc.Log(nil, p.ID, s.Folded+1))
	if err != nil {
		return false, err
	}
	c, err := partition.DecodeChange(value)
	return crdt.PeekDot(c.Delta).HLC <= stable, err
}

// Snapshot is one partition as it stood at one moment. It holds space until closed.
type Snapshot struct {
	State   partition.State
	Schema  *table.Schema // that the partition followed
	Cursors map[string]uint64

	tableID uint32
	part    *Partition
	snap    *storage.Snapshot
}

// Snapshot pins the partition as it stands.
func (p *Partition) Snapshot(ctx context.Context) (*Snapshot, error) {
	if err := p.group.Read(ctx); err != nil {
		return nil, err
	}
	s := &Snapshot{tableID: p.table.ID, part: p, snap: p.table.region.cfg.Store.Snapshot()}
	m, err := partition.Open(partition.Config{ID: p.ID, Table: p.table.ID, Store: s.snap})
	if err != nil {
		s.Close()
		return nil, err
	}
	s.State, s.Schema, s.Cursors = m.State(), m.Schema(), m.Cursors()
	return s, nil
}

// Close lets the snapshot go.
func (s *Snapshot) Close() error { return s.snap.Close() }

// Records calls yield with each record behind key after (nil: from the first), in key order, until it
// returns false: the item's key and its stored record. Both are good until yield returns.
func (s *Snapshot) Records(after table.Key, yield func(key table.Key, record []byte) bool) error {
	from := s.part.Start
	if after != nil && bytes.Compare(after, from) >= 0 {
		from = append(slices.Clone(after), 0)
	}
	it, err := s.snap.Iter(keyenc.Record(nil, s.tableID, from), s.part.end())
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if !yield(keyenc.RecordKey(it.Key()), it.Value()) {
			return nil
		}
	}
	return it.Err()
}

// end is the store's key behind the partition's last record.
func (p *Partition) end() []byte {
	for i, q := range p.table.partitions {
		if q == p && i+1 < len(p.table.partitions) {
			return keyenc.Record(nil, p.table.ID, p.table.partitions[i+1].Start)
		}
	}
	return keyenc.End(keyenc.Record(nil, p.table.ID, nil))
}
