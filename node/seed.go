package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// A copy of another region's table, part by part. Source: docs/decisions/0015.

const (
	// seedPartBytes is about the size of a part.
	seedPartBytes = 128 << 10
	// maxSeeds is how many tables are copied at a time. More would each be slower, and hold a snapshot at its source for longer.
	maxSeeds = 4
)

// seeding is how far the copy of a table has come, for showing it.
type seeding struct {
	from  string
	begun time.Time
	parts map[string]replication.Place // by the source's stream
	first int64                        // bytes that were here when it went on
}

// seed copies every item of a table from a peer, and takes over where to follow all origins from. What was copied before, and cut off,
// is not copied again.
func (r *replicator) seed(ctx context.Context, p *peer, id string, t *region.Table) error {
	if r.tasks.Wait(ctx, r.seedSlots, 0) == task.Ended {
		return context.Cause(ctx)
	}
	defer task.Poke(r.seedSlots)
	// What a replica that lags does not show yet would be copied again.
	if err := t.CatchUp(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	theirs, instance := p.defs[id], p.instance
	r.mu.Unlock()
	if theirs == nil {
		return fmt.Errorf("seed from %s: it has no such table", p.name)
	}
	defer r.showSeed(id, nil)
	show := &seeding{from: p.name, begun: r.now(), parts: map[string]replication.Place{}}
	var origin *replication.Origin
	var ranges []replication.Range
	seqs, clocks := map[string]uint64{}, map[string]crdt.HLC{} // of the source's own partitions
	for _, part := range theirs.Partitions {
		stream := replication.StreamName(p.name, instance, part.ID)
		place, err := r.seedPart(ctx, p, replication.SeedRequest{Region: r.self, Table: id, Instance: instance, Partition: part.ID}, stream, t, show)
		if err != nil {
			return fmt.Errorf("seed from %s: %w", p.name, err)
		}
		seqs[stream], clocks[stream] = place.Origin.Seq, place.Origin.Clocks[stream]
		ranges = append(ranges, place.Origin.Range)
		if origin == nil {
			origin = place.Origin
			continue
		}
		if place.Origin.Stable != origin.Stable {
			// What was folded away in this partition, and not in those before it, the streams do not bring again.
			return errors.Join(fmt.Errorf("seed from %s: what is stable there has changed meanwhile", p.name), r.forget(ctx, t, slices.Sorted(maps.Keys(seqs))))
		}
		earlier := replication.Earlier(*origin, *place.Origin)
		origin = &earlier
	}
	if !replication.Covers(ranges) {
		task.Poke(p.wake)
		// One that was copied before it took its neighbour in is copied again; what was cut off is yet to be known.
		var again []string
		for i, part := range theirs.Partitions {
			if end := ranges[i].End; part.Absorbed != 0 && end != nil && (i+1 == len(ranges) || bytes.Compare(end, theirs.Partitions[i+1].Start) < 0) {
				again = append(again, replication.StreamName(p.name, instance, part.ID))
			}
		}
		return errors.Join(fmt.Errorf("seed from %s: %w", p.name, errCut), r.forget(ctx, t, again))
	}
	if err := t.Merge(ctx, op.Cursor{}, origin.Clock, nil); err != nil {
		return fmt.Errorf("seed from %s: %w", p.name, err)
	}
	// What the source had folded away this region has seen as well, though nothing of it came: a write here that did not say so would
	// bring it back, where it is not folded away yet. Up to when that is, and how far the source had applied other regions' streams, it
	// says of its whole table: every part that was copied after the first holds all of that, too.
	if err := t.Stable(ctx, origin.Stable); err != nil {
		return fmt.Errorf("seed from %s: %w", p.name, err)
	}
	// All is here: now, and not before, the cursors are true.
	maps.Copy(seqs, origin.Cursors)
	for stream := range origin.Cursors {
		clocks[stream] = origin.Clocks[stream]
	}
	for _, stream := range slices.Sorted(maps.Keys(seqs)) {
		if err := t.Merge(ctx, op.Cursor{Stream: stream, Seq: seqs[stream], Clock: clocks[stream]}, 0, nil); err != nil {
			return fmt.Errorf("seed from %s: %w", p.name, err)
		}
	}
	items, bytes := show.sum()
	r.logger.Info("replicator: seeded", "table", t.Schema().Name, "from", p.name, "items", items, "bytes", bytes, "took", r.now().Sub(show.begun))
	return nil
}

// forget has copies of partitions begin anew.
func (r *replicator) forget(ctx context.Context, t *region.Table, streams []string) error {
	for _, stream := range streams {
		if err := t.Merge(ctx, op.Cursor{Stream: stream}, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

// seedPart copies one partition of a peer's, from where it was left off.
func (r *replicator) seedPart(ctx context.Context, p *peer, q replication.SeedRequest, stream string, t *region.Table, show *seeding) (replication.Place, error) {
	incarnation := t.Definition().Replica(p.name).Incarnation
	noted, err := t.Place(stream)
	if err != nil {
		return replication.Place{}, err
	}
	place, err := replication.DecodePlace(noted)
	if err != nil || place.Done {
		return place, err
	}
	q.After = place.After
	show.first += place.Bytes
	if q.After != nil {
		r.logger.Info("replicator: a seed goes on", "table", t.Schema().Name, "from", p.name, "items", place.Items, "of", place.Origin.Items)
	}
	come := newParts(r.tasks)
	g, ctx := task.NewGroup(ctx, r.tasks)
	g.Go(func() error {
		come.end(p.client.Seed(ctx, q, func(part replication.SeedPart) error { return come.put(ctx, part) }))
		return nil
	})
	g.Go(func() error {
		for {
			parts, err := come.take(ctx)
			if parts == nil {
				return err
			}
			var items []replication.Change
			for _, part := range parts {
				if err := place.Take(part); err != nil {
					return err
				}
				items = append(items, part.Items...)
			}
			r.showSeed(q.Table, show.with(stream, place))
			r.order.giveWay(ctx, copied)
			if err := t.Merge(ctx, op.Cursor{Stream: stream, Place: place.Encode(), Incarnation: incarnation}, 0, deltas(items)); err != nil {
				return err
			}
		}
	})
	if err := g.Wait(); err != nil {
		return place, err
	}
	if !place.Done {
		return place, fmt.Errorf("partition %d: the answer ended before its last part", q.Partition)
	}
	return place, nil
}

// errCut says that partitions of another region's have been cut, or merged, and those that there are now are not known here yet.
var errCut = errors.New("its table has other partitions meanwhile")

func rangeOf(s *region.Snapshot) replication.Range {
	return replication.Range{Start: s.Start(), End: s.End()}
}

func (s *seeding) with(stream string, p replication.Place) *seeding {
	next := *s
	next.parts = maps.Clone(s.parts)
	next.parts[stream] = p
	s.parts = next.parts
	return &next
}

func (s *seeding) sum() (items, bytes int64) {
	for _, p := range s.parts {
		items, bytes = items+p.Items, bytes+p.Bytes
	}
	return items, bytes
}

func (r *replicator) showSeed(id string, s *seeding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s == nil {
		delete(r.seeds, id)
	} else {
		r.seeds[id] = s
	}
}

// Seeding is admin.Links'.
func (r *replicator) Seeding(globalID string) *admin.Seeding {
	r.mu.Lock()
	s := r.seeds[globalID]
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	out := &admin.Seeding{From: s.from, Since: s.begun}
	for _, p := range s.parts {
		out.Items, out.Bytes = out.Items+p.Items, out.Bytes+p.Bytes
		out.OfItems, out.OfBytes = out.OfItems+p.Origin.Items, out.OfBytes+p.Origin.Bytes
	}
	if took := r.now().Sub(s.begun); took > 0 {
		out.BytesPerSecond = int64(float64(out.Bytes-s.first) / took.Seconds())
	}
	return out
}

// Seed is replication.Source's.
func (r *replicator) Seed(ctx context.Context, q replication.SeedRequest, send func(replication.SeedPart) error) error {
	term, err := r.current(ctx)
	if err != nil {
		return err
	}
	if q.Instance != r.region.Instance() {
		return replication.ErrInstance
	}
	_, p, err := r.openFor(q.Region, q.Table, q.Partition)
	if err != nil {
		return err
	}
	snap, err := p.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Close()
	if snap.Schema.Solo {
		return replication.ErrNoTable // not a global one yet: writes do not wait for each other to be seen
	}
	state := snap.State
	snap.Clocks[replication.StreamName(r.self, r.region.Instance(), q.Partition)] = state.Wrote
	origin := &replication.Origin{Seq: state.Seq, Clock: state.Clock, Cursors: snap.Cursors, Clocks: snap.Clocks, Stable: snap.Stable, Items: state.Items, Bytes: state.Bytes, Range: rangeOf(snap)}
	if err := send(replication.SeedPart{Origin: origin}); err != nil {
		return err
	}
	var part replication.SeedPart
	size := 0
	var sendErr error
	skip := mutant.On(mutant.SeedSkips) && q.After != nil
	err = snap.Records(q.After, func(key table.Key, record []byte) bool {
		if skip {
			skip = false
			return true
		}
		part.Items = append(part.Items, replication.Change{Key: slices.Clone([]byte(key)), Delta: slices.Clone(record)})
		if size += len(key) + len(record); size >= r.seedBytes {
			if sendErr = replication.ErrNotLeader; !r.over(term) {
				r.order.giveWay(ctx, copied)
				sendErr = send(part)
			}
			part, size = replication.SeedPart{}, 0
		}
		return sendErr == nil
	})
	if err == nil {
		err = sendErr
	}
	if err == nil && len(part.Items) > 0 {
		err = send(part)
	}
	if err != nil {
		return err
	}
	return send(replication.SeedPart{Done: true})
}
