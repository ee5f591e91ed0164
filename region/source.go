package region

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// ErrTruncated says that the change log no longer holds what was asked for.
var ErrTruncated = errors.New("region: the change log begins later than asked for")

// Changes returns this region's own changes behind sequence number after, about maxBytes of them, and the
// number of the last entry looked at: all of this region's changes up to it are among them or were before.
// state is the partition's as of a moment at or before the call.
func (p *Partition) Changes(after uint64, maxBytes int) (changes []partition.Change, last uint64, state partition.State, err error) {
	v := p.reader(context.Background())
	state = *v.state
	if after >= state.Seq {
		return nil, after, state, nil
	}
	if after < state.Trimmed {
		return nil, 0, state, ErrTruncated
	}
	it, err := v.Iter(keyenc.Log(nil, p.ID, after+1), keyenc.Log(nil, p.ID, state.Seq+1))
	if err != nil {
		return nil, 0, state, err
	}
	defer it.Close()
	last = after
	size := 0
	for ok := it.First(); ok && size < maxBytes; ok = it.Next() {
		seq := keyenc.LogSeq(it.Key())
		if seq != last+1 {
			return nil, 0, state, cmp.Or(v.stood(), ErrTruncated) // trimmed since state was read
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
	if err := errors.Join(it.Err(), v.stood()); err != nil {
		return nil, 0, state, err
	}
	if last == after {
		return nil, 0, state, ErrTruncated
	}
	return changes, last, state, nil
}

// Wrote tells whether a write of this region's stamped at, about the change log's entry seq, is, or was, in the log of the partition: whoever
// follows has had it, so if not, what is here is older than what was here then. at is 0 where only seq is known.
func (p *Partition) Wrote(seq uint64, at crdt.HLC) (bool, error) {
	v := p.reader(context.Background())
	s := *v.state
	switch {
	case mutant.On(mutant.OldDiskTaken):
		return true, nil
	case seq > s.Seq || at > s.Wrote:
		return false, nil
	case at <= s.Cut || at == s.Wrote:
		return true, nil
	}
	it, err := v.Iter(keyenc.Log(nil, p.ID, s.Trimmed+1), keyenc.Log(nil, p.ID, s.Seq+1))
	if err != nil {
		return false, err
	}
	defer it.Close()
	// Stamps rise with the numbers, so it is in one of the directions that they say.
	stamp := func() (h crdt.HLC, own bool, err error) {
		c, err := partition.DecodeChange(it.Value())
		return crdt.PeekDot(c.Delta).HLC, c.Local, err
	}
	for ok := it.SeekLT(keyenc.Log(nil, p.ID, seq+1)); ok; ok = it.Prev() {
		if h, own, err := stamp(); err != nil || own && h <= at {
			if err != nil || h == at {
				return err == nil, err
			}
			break
		}
	}
	for ok := it.SeekGE(keyenc.Log(nil, p.ID, seq+1)); ok; ok = it.Next() {
		if h, own, err := stamp(); err != nil || own && h >= at {
			return err == nil && h == at, err
		}
	}
	// What was cut off meanwhile was everywhere.
	return at <= p.State().Cut, errors.Join(it.Err(), v.stood())
}

// logSizeHere is LogSize by this node's replica.
func (p *Partition) logSizeHere() (bytes uint64, oldest crdt.HLC) {
	s, store := *p.own.Load(), p.table.region.cfg.Store
	if s.Trimmed == s.Seq {
		return 0, 0
	}
	from := keyenc.Log(nil, p.ID, s.Trimmed+1)
	if value, err := store.Get(nil, from); err == nil {
		if c, err := partition.DecodeChange(value); err == nil {
			oldest = crdt.PeekDot(c.Delta).HLC
		}
	}
	return store.EstimateBytes(from, keyenc.Log(nil, p.ID, s.Seq+1)), oldest
}

// Merge applies deltas or whole states of another region, in order. source says how far that brings its
// stream ("" for none); clock, when not 0, is the other region's, above which this one's is lifted. It
// returns once all of it is durable.
//
// How far a stream has come is true of the whole table, and said in one partition: by the last command, which is not proposed before all
// others are durable. (That goes for a place, too.) So a batch costs one command for each partition that it touches,
// and a crash in between leaves the stream where it was.
func (t *Table) Merge(ctx context.Context, source op.Cursor, clock crdt.HLC, deltas []op.Delta) error {
	return t.merge(ctx, op.Command{Kind: op.Merge, Source: source, Observe: clock, Deltas: deltas})
}

// Mend merges whole states of another region's that hold what was lost here: what Compare says is Behind, or what an operator says to be
// lost that is Gone. traced is Held.Traced of when they were compared. An item that may have been deleted since is left alone.
func (t *Table) Mend(ctx context.Context, source op.Cursor, traced crdt.HLC, states []op.Delta) error {
	return t.merge(ctx, op.Command{Kind: op.Mend, Source: source, Stable: traced, Deltas: states})
}

// merge proposes a command to all partitions that have a share of its deltas, each its own.
func (t *Table) merge(ctx context.Context, c op.Command) error {
	// What has a share that was cut off meanwhile is merged once more, which changes nothing.
	return t.look(ctx, func(ctx context.Context, l list) (bool, error) {
		err := t.mergeInto(ctx, l, c)
		return err == nil, err
	})
}

func (t *Table) mergeInto(ctx context.Context, l list, whole op.Command) error {
	by, touched := l.share(whole.Deltas)
	for _, p := range touched {
		if mutant.On(mutant.MergedBackward) {
			slices.Reverse(by[p])
		}
		// As the store has them, where they are looked up; each item's in their order.
		slices.SortStableFunc(by[p], func(a, b op.Delta) int { return bytes.Compare(a.Key, b.Key) })
	}
	if whole.Observe != 0 {
		touched = slices.Clone(l)
	}
	source := whole.Source
	if source.Place != nil { // it stands in the first
		touched = append(slices.DeleteFunc(touched, func(p *Partition) bool { return p == l[0] }), l[0])
	} else if len(touched) == 0 {
		touched = l[:1]
	}
	early := op.Cursor{Stream: source.Stream, Clock: source.Clock, Incarnation: source.Incarnation, Part: true}
	if mutant.On(mutant.CursorEarly) {
		early = source
	}
	merge := func(ctx context.Context, p *Partition, source op.Cursor) error {
		c := whole
		c.Deltas, c.Source = by[p], source
		result, err := p.do(ctx, &c)
		if err = errors.Join(err, result.Err); err == nil {
			t.conflicts.add(result.Conflicts)
		}
		return err
	}
	rest, last := touched[:len(touched)-1], touched[len(touched)-1]
	if err := t.each(ctx, rest, func(ctx context.Context, p *Partition) error { return merge(ctx, p, early) }); err != nil {
		return err
	}
	return merge(ctx, last, source)
}

// Restore writes whole items, as this region's own, in stored form.
func (t *Table) Restore(ctx context.Context, items [][]byte) error {
	deltas := make([]op.Delta, len(items))
	for i, it := range items {
		key, err := t.Schema().KeyOf(it)
		if err != nil {
			return err
		}
		deltas[i] = op.Delta{Key: key, State: it}
	}
	return t.spread(ctx, deltas, func(ctx context.Context, p *Partition, deltas []op.Delta) error {
		return p.propose(ctx, &op.Command{Kind: op.Restore, Deltas: deltas})
	})
}

// Cursor returns how far a stream of another region has been applied: everything up to there is in the partitions that it belongs to.
func (t *Table) Cursor(stream string) uint64 { return t.Cursors()[stream] }

// Cursors returns Cursor of every stream. Of what the partitions say of one the greatest is true, and the others were: see Merge.
func (t *Table) Cursors() map[string]uint64 {
	out := map[string]uint64{}
	for _, p := range t.partitions() {
		for stream, seq := range *p.cursors.Load() {
			out[stream] = max(out[stream], seq)
		}
	}
	return out
}

// Clock returns the newest write of a stream up to its cursor, 0 for none.
func (t *Table) Clock(stream string) crdt.HLC { return t.clocks()[stream] }

func (t *Table) clocks() map[string]crdt.HLC {
	out := map[string]crdt.HLC{}
	for _, p := range t.partitions() {
		for stream, h := range *p.clocks.Load() {
			out[stream] = max(out[stream], h)
		}
	}
	return out
}

// Level lifts the clocks of those partitions that are behind another of the table's, for want of writes. What is stable is what all of a
// region's clocks have passed, so one partition that rests would hold back the folding of all. It does nothing, and costs next to nothing,
// once all rest.
func (t *Table) Level(ctx context.Context) error {
	var newest crdt.HLC
	for _, p := range t.partitions() {
		newest = max(newest, p.State().Clock)
	}
	behind := slices.DeleteFunc(slices.Clone(t.partitions().serving()), func(p *Partition) bool { return p.State().Clock >= newest })
	if mutant.On(mutant.ClocksApart) {
		behind = nil
	}
	return t.each(ctx, behind, func(ctx context.Context, p *Partition) error {
		return p.propose(ctx, &op.Command{Kind: op.Merge, Observe: newest})
	})
}

// Place returns what was noted last, by Merge, of how far a copy of another region's partition has come, nil for nothing.
func (t *Table) Place(stream string) ([]byte, error) {
	p := t.partitions()[0]
	return partition.Place(p.reader(context.Background()), p.ID, stream)
}

// Fold has the partition fold what is stable and let go of the change log up to trim. It does nothing,
// and costs next to nothing, when there is nothing to do.
func (p *Partition) Fold(ctx context.Context, stable crdt.HLC, trim uint64) error {
	for {
		if folds, err := p.Folds(stable, trim); err != nil || !folds {
			return err
		}
		result, err := p.do(ctx, &op.Command{Kind: op.Fold, Stable: stable, Trim: trim, Limit: foldPerStep})
		if err = errors.Join(err, result.Err); err != nil {
			return err
		}
		if !result.More {
			return nil
		}
	}
}

// Folds tells whether Fold would find anything to do.
func (p *Partition) Folds(stable crdt.HLC, trim uint64) (bool, error) {
	v := p.reader(context.Background())
	state := *v.state
	if min(trim, state.Folded) > state.Trimmed || state.Overdue(crdt.At(p.table.region.cfg.Now().UnixMilli(), 0)) {
		return true, nil
	}
	return p.foldable(v, stable)
}

// Stable takes over that everything up to a time is stable, from a copy of the table that this one was seeded from: the copy's own
// folding has been up to there.
func (t *Table) Stable(ctx context.Context, stable crdt.HLC) error {
	var done list
	for !slices.Equal(done, t.partitions()) { // what is cut off from here on takes it over from its parent
		done = t.partitions()
		err := t.each(ctx, done, func(ctx context.Context, p *Partition) error {
			for more := true; more; {
				result, err := p.do(ctx, &op.Command{Kind: op.Fold, Stable: stable, Limit: foldPerStep})
				if err = errors.Join(err, result.Err); err != nil {
					return err
				}
				more = result.More
			}
			return p.Forget(ctx, stable) // it may have been deleted where it was copied from
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Forget lets the traces go of items that were deleted up to a time, or takes over that there may be none of such, and does nothing when
// that is so already.
func (p *Partition) Forget(ctx context.Context, upTo crdt.HLC) error {
	c := &op.Command{Kind: op.Forget, Stable: upTo, Limit: foldPerStep}
	for more := upTo > p.State().Traced; more; more = c.Key != nil {
		result, err := p.do(ctx, c)
		if err = errors.Join(err, result.Err); err != nil {
			return err
		}
		c.Key = result.Next
	}
	return nil
}

// foldPerStep is how many change-log entries, or traces, one command looks at.
const foldPerStep = 2048

func (p *Partition) foldable(v reader, stable crdt.HLC) (bool, error) {
	if v.state.Folded >= v.state.Seq {
		return false, nil
	}
	value, err := v.Get(nil, keyenc.Log(nil, p.ID, v.state.Folded+1))
	if err != nil {
		return false, err
	}
	c, err := partition.DecodeChange(value)
	return crdt.PeekDot(c.Delta).HLC <= stable, err
}

// Snapshot is one partition as it stood at one moment. It holds space until closed.
type Snapshot struct {
	State  partition.State
	Schema *table.Schema // that the partition followed

	// What was true of the whole table before: this partition, and every one whose snapshot is taken later, holds all of it that is its.
	Cursors map[string]uint64   // see Table.Cursor
	Clocks  map[string]crdt.HLC // the streams' newest writes up to there
	Stable  crdt.HLC            // the greatest of the partitions', this one's as in State among them
	// Shares are the newest writes of streams of which this partition alone may have its share.
	Shares map[string]crdt.HLC

	tableID uint32
	part    *Partition
	snap    pinned
}

// Snapshot pins the partition as it stands.
func (p *Partition) Snapshot(ctx context.Context) (*Snapshot, error) {
	cursors, clocks, stable := p.table.Cursors(), p.table.clocks(), p.State().Stable
	for _, q := range p.table.partitions() {
		stable = max(stable, q.State().Stable)
	}
	pin, err := p.pin(ctx)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Cursors: cursors, Clocks: clocks, tableID: p.table.ID, part: p, snap: pin}
	m, err := partition.Open(p.config(s.snap))
	if err != nil {
		s.Close()
		return nil, err
	}
	s.State, s.Schema, s.Shares = m.State(), m.Schema(), m.Shares()
	s.Stable = max(stable, s.State.Stable)
	return s, nil
}

// Snapshots pins all partitions, each as it stands at a moment of its own, in the order of their keys: every item is in one of them.
func (t *Table) Snapshots(ctx context.Context) (out []*Snapshot, err error) {
	err = t.look(ctx, func(ctx context.Context, l list) (bool, error) {
		out = nil
		at, whole := table.Key(nil), false
		for _, p := range l.serving() {
			s, err := p.Snapshot(ctx)
			if err != nil {
				closeAll(out)
				return false, err
			}
			out = append(out, s)
			if s.State.Span.Closed {
				break // just now
			}
			if whole = bytes.Compare(p.Start, at) <= 0; !whole {
				break
			}
			if at, whole = s.End(), s.End() == nil; whole {
				return true, nil
			}
		}
		closeAll(out)
		return false, nil
	})
	return out, err
}

func closeAll(snaps []*Snapshot) {
	for _, s := range snaps {
		s.Close()
	}
}

// ID is the partition's.
func (s *Snapshot) ID() uint64 { return s.part.ID }

// Start is the least key that may be in the partition, and End the least beyond it, nil for the end of the table.
func (s *Snapshot) Start() table.Key { return s.part.Start }

// End is the least key beyond the partition as it stood, nil for the end of the table.
func (s *Snapshot) End() table.Key { return s.State.Span.End }

// Close lets the snapshot go.
func (s *Snapshot) Close() error { return s.snap.close() }

// Records calls yield with each record behind key after (nil: from the first), in key order, until it
// returns false: the item's key and its stored record. Both are good until yield returns.
func (s *Snapshot) Records(after table.Key, yield func(key table.Key, record []byte) bool) error {
	from := s.part.Start
	if after != nil && bytes.Compare(after, from) >= 0 {
		from = append(slices.Clone(after), 0)
	}
	it, err := s.snap.Iter(keyenc.Record(nil, s.tableID, from), recordsEnd(s.tableID, s.End()))
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

// tracesEnd is the store's key behind a partition's last trace, likewise.
func tracesEnd(tableID uint32, end table.Key) []byte {
	if end == nil {
		return keyenc.End(keyenc.Trace(nil, tableID, nil))
	}
	return keyenc.Trace(nil, tableID, end)
}

// recordsEnd is the store's key behind a partition's last record, given where it ends.
func recordsEnd(tableID uint32, end table.Key) []byte {
	if end == nil {
		return keyenc.End(keyenc.Record(nil, tableID, nil))
	}
	return keyenc.Record(nil, tableID, end)
}
