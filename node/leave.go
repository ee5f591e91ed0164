package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// The end of a replica: every other region has what was written here, and then it is gone.

// noteGone marks replicas as gone whose regions were told to delete them and have.
func (r *replicator) noteGone(ctx context.Context, d *table.Definition) {
	for _, o := range d.Others(r.self) {
		p := r.peer(o.Region)
		if o.Status != table.Deleting || p == nil {
			continue
		}
		r.mu.Lock()
		gone := p.defs != nil && p.defs[d.GlobalID] == nil
		r.mu.Unlock()
		if !gone {
			continue
		}
		_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
			if have := n.Replica(o.Region); have != nil && have.Status == table.Deleting {
				// Right behind the word that it goes, by whomever it is noted: nobody's late note may take back a replica that was made since.
				n.SetReplica(r.self, o.Region, table.Gone, 0)
				if n.Status == table.Active {
					n.Status = table.Updating
				}
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			r.logger.Error("replicator: a replica that is gone could not be noted", "table", d.Schema.Name, "peer", o.Region, "err", err)
		}
	}
}

// leave ends this region's replica: once every other region knows and has all that was written here, it
// is gone.
func (r *replicator) leave(ctx context.Context, d *table.Definition) error {
	// What the others have given up they do not take.
	if err := r.shipped(ctx, d); err != nil && !d.GivenUp(r.self) {
		return err
	}
	if err := r.region.Bury(ctx, d.GlobalID, d.Replica(r.self).Version); err != nil {
		return err
	}
	_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		n.SetReplica(r.self, r.self, table.Gone, 0)
		return nil
	})
	return err
}

// disassociate ends this region's replica and leaves its table: once every other region knows and has all that was written here, and
// all that was written there before this one was asked to go is here, it is a table of this region alone. The others note that the
// replica is gone when they hear of it no more.
func (r *replicator) disassociate(ctx context.Context, d *table.Definition) error {
	asked := d.Replica(r.self).Version
	if err := r.shipped(ctx, d); err != nil {
		return err
	}
	for _, o := range d.Others(r.self) {
		if err := r.drain(ctx, r.peer(o.Region), d); err != nil {
			return fmt.Errorf("what region %s wrote is not all here yet: %w", o.Region, err)
		}
	}
	if err := r.region.Bury(ctx, d.GlobalID, asked); err != nil {
		return err
	}
	_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		if n.GlobalID == d.GlobalID && n.Leaving && n.Status != table.Deleting {
			n.Leave(r.self, region.NewID())
			if n.Status == table.Active {
				n.Status = table.Updating
			}
		}
		return nil
	})
	return err
}

// drain follows a peer's partitions until all is here that was written there before the call.
func (r *replicator) drain(ctx context.Context, p *peer, d *table.Definition) error {
	t, err := r.region.Opened(ctx, d.Schema.Name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	theirs, instance := p.defs[d.GlobalID], p.instance
	r.mu.Unlock()
	if theirs == nil {
		return nil // it has no replica any more
	}
	var ranges []replication.Range
	for _, part := range theirs.Partitions { // a parent comes before what was cut off it
		s := stream{p.name, d.GlobalID, instance, part.ID, theirs.Incarnation}
		err := insist(func() error {
			fctx, cancel := context.WithCancel(ctx)
			defer cancel()
			end := &drained{sink: sink{r: r, t: t, s: s, stream: replication.StreamName(s.peer, s.instance, s.partition)}, cancel: cancel}
			err := p.client.Follow(fctx, replication.Resume{Region: r.self, Table: s.table, Instance: s.instance, Partition: s.partition, Seq: t.Cursor(end.stream), Incarnation: d.Incarnation}, end)
			if end.reached {
				ranges = append(ranges, end.of)
				return nil
			}
			return cmp.Or(err, context.Cause(ctx), errors.New("the stream ended"))
		})
		if err != nil {
			return err
		}
	}
	if !replication.Covers(ranges) {
		task.Poke(p.wake)
		return errCut
	}
	return nil
}

// insist asks another region again while the node that was asked does not answer for it: the next is asked then.
func insist(ask func() error) (err error) {
	for range maxNodesAsked {
		if err = ask(); !errors.Is(err, replication.ErrNotLeader) {
			break
		}
	}
	return err
}

// maxNodesAsked is more than a region has nodes, mostly: one that leads is among them.
const maxNodesAsked = 8

// drained is a sink until the first progress: a new stream begins with all that there is, and then says so.
type drained struct {
	sink
	cancel  context.CancelFunc
	reached bool
	of      replication.Range
}

// Progress is replication.Sink's.
func (k *drained) Progress(p replication.Progress) {
	k.sink.Progress(p)
	k.reached, k.of = true, p.Range
	k.cancel()
}

// shipped returns an error until every other region knows that this one leaves and has all that was written here.
func (r *replicator) shipped(ctx context.Context, d *table.Definition) error {
	for _, o := range d.Others(r.self) {
		p := r.peer(o.Region)
		if p == nil {
			return fmt.Errorf("region %s is not known here", o.Region)
		}
		r.mu.Lock()
		theirs, known := p.defs[d.GlobalID], p.defs != nil
		r.mu.Unlock()
		if !known {
			return fmt.Errorf("region %s has not been heard from", o.Region)
		}
		if theirs == nil {
			continue // it has no replica any more
		}
		if mine := theirs.Replica(r.self); mine == nil || mine.Status == table.Active {
			return fmt.Errorf("region %s does not know yet", o.Region)
		}
		if o.Status == table.Creating {
			// What it is filled with may be from before the last writes here.
			return fmt.Errorf("region %s joins still", o.Region)
		}
		if o.Status != table.Active {
			continue
		}
		for _, f := range d.Schema.Fences {
			if !theirs.IsSettled(f) {
				return fmt.Errorf("region %s may lack what %s had written when it was given up", o.Region, f.Region)
			}
		}
		t, err := r.region.Opened(ctx, d.Schema.Name)
		if errors.Is(err, region.ErrNotActive) {
			continue // closed already: begun before a restart
		}
		if err != nil {
			return err
		}
		// What other nodes of this region have written is to be shipped, too.
		if err := t.CatchUp(ctx); err != nil {
			return err
		}
		for _, part := range t.Partitions() {
			if r.unshipped(d.GlobalID, o.Region, part) {
				return fmt.Errorf("region %s does not have all that was written here yet", o.Region)
			}
		}
	}
	return nil
}

// unshipped tells whether a partition has changes of this region's own that a follower has not applied.
func (r *replicator) unshipped(id, follower string, p *region.Partition) bool {
	r.mu.Lock()
	var acked uint64
	if t := r.tables[id]; t != nil {
		acked = t.acked[follower][p.ID]
	}
	r.mu.Unlock()
	for {
		changes, last, state, err := p.Changes(acked, 1)
		if err != nil || len(changes) > 0 {
			return true
		}
		if acked = last; acked >= state.Seq {
			return false
		}
	}
}
