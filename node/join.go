package node

import (
	"context"
	"fmt"

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
		if theirs == nil || theirs.Replica(r.self) == nil || theirs.Replica(r.self).Incarnation != d.Incarnation {
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
	if err := r.makeAgain(ctx, d, t); err != nil {
		return err
	}
	_, err = r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		if own := n.Replica(r.self); own != nil && own.Status == table.Creating && n.ID == d.ID && !n.GivenUp(r.self) {
			n.SetReplica(r.self, r.self, table.Active, uint64(r.region.Stamp()))
			n.Former = nil
		}
		return nil
	})
	return err
}

func deltas(changes []replication.Change) []op.Delta {
	out := make([]op.Delta, len(changes))
	for i, c := range changes {
		out[i] = op.Delta{Key: c.Key, State: c.Delta}
	}
	return out
}
