package region

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
)

// losses counts the conflicts that Merge has found since the node's start, those kept by other regions among them.
type losses struct {
	mu sync.Mutex
	by map[op.Loss]int64
}

func (l *losses) add(found []op.Loss) {
	if len(found) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = map[op.Loss]int64{}
	}
	for _, f := range found {
		l.by[f]++
	}
}

// Loss says whose write lost against whose, by the names of their regions, and what kind of conflict that was.
type Loss struct {
	Class         crdt.Class
	Winner, Loser string
}

// ConflictsFound returns how many conflicts of each kind Merge has found since the node's start, those kept by
// other regions among them.
func (t *Table) ConflictsFound() map[Loss]int64 {
	t.conflicts.mu.Lock()
	defer t.conflicts.mu.Unlock()
	out := make(map[Loss]int64, len(t.conflicts.by))
	for l, n := range t.conflicts.by {
		out[Loss{l.Class, t.RegionOf(l.Winner), t.RegionOf(l.Loser)}] += n
	}
	return out
}

// RegionOf names the region of an actor, which only carries a hash of it.
func (t *Table) RegionOf(a crdt.Actor) string {
	own := t.region.Name()
	if crdt.NewActor(own, 0).Region() == a.Region() {
		return own
	}
	for _, r := range t.Definition().Replicas {
		if crdt.NewActor(r.Region, 0).Region() == a.Region() {
			return r.Region
		}
	}
	return a.String()
}

// Held records deltas of another region that are held for being stamped too far ahead.
func (t *Table) Held(ctx context.Context, deltas []op.Delta) error {
	return t.spread(ctx, deltas, func(ctx context.Context, p *Partition, deltas []op.Delta) error {
		result, err := p.do(ctx, &op.Command{Kind: op.Held, Deltas: deltas})
		if err = errors.Join(err, result.Err); err == nil {
			t.conflicts.add(result.Conflicts)
		}
		return err
	})
}

// ConflictsKept returns how many conflict records the table has, and how many conflicts it keeps no record of for want of room.
func (t *Table) ConflictsKept() (kept, shed uint64) {
	for _, p := range t.partitions() {
		s := p.State()
		kept += s.Conflicts
		shed += s.Shed
	}
	return kept, shed
}

// Conflicts calls yield with the table's conflict records from the newest on, until it returns false.
func (t *Table) Conflicts(ctx context.Context, yield func(op.Conflict) bool) error {
	type source struct {
		it *storage.Iter
		ok bool // it stands at the newest record of its partition that is left
	}
	var open []*source
	defer func() {
		for _, s := range open {
			s.it.Close()
		}
	}()
	for _, p := range t.partitions() {
		prefix := keyenc.Conflicts(nil, p.ID)
		it, err := p.reader(ctx).Iter(prefix, keyenc.End(prefix))
		if err != nil {
			return err
		}
		open = append(open, &source{it, it.Last()})
	}
	for {
		var newest *source
		for _, s := range open {
			switch {
			case !s.ok && s.it.Err() != nil:
				return s.it.Err()
			case s.ok && (newest == nil || bytes.Compare(s.it.Key()[keyenc.ConflictAt:], newest.it.Key()[keyenc.ConflictAt:]) > 0):
				newest = s
			}
		}
		if newest == nil {
			return nil
		}
		c, err := op.DecodeConflict(newest.it.Value())
		if err != nil {
			return fmt.Errorf("region: conflict record %x: %w", newest.it.Key(), err)
		}
		if !yield(c) {
			return nil
		}
		newest.ok = newest.it.Prev()
	}
}
