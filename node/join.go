package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// A new replica: filled from another region's, then ACTIVE.

// join fills this region's new replica of a table: once every member knows that this region joins, from
// one of them; then it is ACTIVE and follows all.
func (r *replicator) join(ctx context.Context, d *table.Definition) error {
	others := d.Others(r.self)
	var source *peer
	for _, o := range others {
		p := r.peer(o.Region)
		if p == nil {
			return fmt.Errorf("region %s is not known here", o.Region)
		}
		// Ask again: the answer must be from after this region's own word of the join.
		if err := r.exchange(ctx, p); err != nil {
			return fmt.Errorf("region %s does not know yet: %w", o.Region, err)
		}
		r.mu.Lock()
		theirs := p.defs[d.GlobalID]
		r.mu.Unlock()
		if theirs == nil || theirs.Replica(r.self) == nil {
			if o.Status == table.Creating {
				continue // joins as well, and holds nothing
			}
			return fmt.Errorf("region %s does not know yet", o.Region)
		}
		if o.Status == table.Active && source == nil {
			source = p
		}
	}
	t, err := r.region.Opened(ctx, d.Schema.Name)
	if err != nil {
		return err
	}
	if source != nil {
		if err := r.seed(ctx, source, d.GlobalID, t); err != nil {
			return err
		}
	} else if len(others) > 0 {
		return fmt.Errorf("no region has an active replica to seed from")
	}
	_, err = r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		if own := n.Replica(r.self); own != nil && own.Status == table.Creating {
			n.SetReplica(r.self, r.self, table.Active, uint64(r.region.Stamp()))
		}
		return nil
	})
	return err
}

// seed copies every item of a table from a peer, and takes over where to follow all origins from.
func (r *replicator) seed(ctx context.Context, p *peer, id string, t *region.Table) error {
	r.mu.Lock()
	theirs, instance := p.defs[id], p.instance
	r.mu.Unlock()
	if theirs == nil {
		return fmt.Errorf("seed from %s: it has no such table", p.name)
	}
	items := 0
	var first *replication.SeedPart // the end of the first partition
	cursors := map[string]uint64{}  // of the source's own partitions
	for _, part := range theirs.Partitions {
		err := p.client.Seed(ctx, r.self, id, part.ID, func(s replication.SeedPart) error {
			if !s.Done {
				items += len(s.Items)
				return t.Merge(ctx, op.Cursor{}, 0, deltas(s.Items))
			}
			switch {
			case first == nil:
				first = &s
			case s.Stable > first.Stable:
				return errors.New("what is stable there has changed meanwhile")
			}
			cursors[replication.StreamName(p.name, instance, part.ID)] = s.Seq
			return t.Merge(ctx, op.Cursor{}, s.Clock, nil)
		})
		if err != nil {
			return fmt.Errorf("seed from %s: %w", p.name, err)
		}
	}
	if first == nil {
		return fmt.Errorf("seed from %s: its table has no partition", p.name)
	}
	// What the source had folded away this region has seen as well, though nothing of it came: a write here that did not say so would
	// bring it back, where it is not folded away yet. Up to when that is, and how far the source had applied other regions' streams, it
	// says of its whole table: every part that was copied after the first holds all of that, too.
	if err := t.Stable(ctx, first.Stable); err != nil {
		return fmt.Errorf("seed from %s: %w", p.name, err)
	}
	maps.Copy(cursors, first.Cursors)
	for _, stream := range slices.Sorted(maps.Keys(cursors)) {
		if err := t.Merge(ctx, op.Cursor{Stream: stream, Seq: cursors[stream]}, 0, nil); err != nil {
			return fmt.Errorf("seed from %s: %w", p.name, err)
		}
	}
	r.logger.Info("replicator: seeded", "table", t.Schema().Name, "from", p.name, "items", items)
	return nil
}

func deltas(changes []replication.Change) []op.Delta {
	out := make([]op.Delta, len(changes))
	for i, c := range changes {
		out[i] = op.Delta{Key: c.Key, State: c.Delta}
	}
	return out
}
