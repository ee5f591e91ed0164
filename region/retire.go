package region

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// How a node lets go of a replica that it is not to have any more: once the group has done without it, in the steps of group/letgo.go. Until then it
// takes part, for it may be needed; what this node wants of the partition, others are asked for already.

// retireLimit bounds how long one replica may hold up all that reconcile does.
const retireLimit = 2 * time.Second

// retire lets go of the table's replicas that are not to be here any more, and tells whether that was all of them.
func (t *Table) retire(ctx context.Context, of []table.Partition) (all bool, err error) {
	all = true
	for _, pd := range of {
		p := t.partitions().byID(pd.ID)
		if p == nil || p.wanted.Load() {
			continue
		}
		g := p.replica.Load()
		if g == nil {
			continue
		}
		gone, err := p.retire(ctx, g)
		if err != nil {
			return false, fmt.Errorf("partition %d: its replica is not let go yet: %w", p.ID, err)
		}
		all = all && gone
	}
	return all, nil
}

// partitionsOf yields the partitions of a table, and of the former incarnation that is kept of it, with the storage id that each has its records under.
func partitionsOf(d *table.Definition) iter.Seq2[uint32, table.Partition] {
	return func(yield func(uint32, table.Partition) bool) {
		for _, pd := range d.Partitions {
			if !yield(d.ID, pd) {
				return
			}
		}
		if d.Former == nil {
			return
		}
		for _, pd := range d.Former.Partitions {
			if !yield(d.Former.ID, pd) {
				return
			}
		}
	}
}

func (p *Partition) retire(ctx context.Context, g *group.Group) (gone bool, err error) {
	r := p.table.region
	wait, cancel := r.cfg.Tasks.WithTimeout(ctx, retireLimit)
	defer cancel()
	if out, err := p.doneWithout(wait); err != nil || !out {
		return false, ignoreLate(ctx, wait, err)
	}
	// From here on it acknowledges nothing: should it be taken in again meanwhile, then without what it forgets.
	if err := g.Suspend(ctx); err != nil {
		return false, err
	}
	out, err := p.stillUnwanted(wait)
	if err == nil && out {
		out, err = p.doneWithout(wait)
	}
	if err != nil || !out {
		return false, errors.Join(ignoreLate(ctx, wait, err), g.Resume(ctx))
	}
	p.replica.Store(nil)
	if err := r.host.LetGo(ctx, g, p.word.Load().State.Applied); err != nil {
		return false, err
	}
	return true, r.clear(ctx, p.config(r.cfg.Store))
}

// ignoreLate takes an error for none that only says that it took too long for now.
func ignoreLate(ctx, wait context.Context, err error) error {
	if ctx.Err() == nil && (wait.Err() != nil || errors.Is(err, group.ErrNoLeader)) {
		return nil
	}
	return err
}

// doneWithout tells whether the partition's group is without this node, by the word of one that holds it.
func (p *Partition) doneWithout(ctx context.Context) (bool, error) {
	if err := p.syncElsewhere(ctx); err != nil {
		return false, err
	}
	w := p.word.Load()
	self := p.table.region.cfg.NodeID
	return len(w.Voters) > 0 && !slices.Contains(w.Voters, self) && !slices.Contains(w.Learners, self), nil
}

// stillUnwanted tells whether this node is not to hold the partition, as the catalog has it now.
func (p *Partition) stillUnwanted(ctx context.Context) (bool, error) {
	r := p.table.region
	if err := r.CatchUp(ctx); err != nil {
		return false, err
	}
	for _, d := range r.catalog.view.Load().tables {
		for _, pd := range partitionsOf(d.Definition) {
			if pd.ID == p.ID {
				return !slices.Contains(r.nodesOf(pd.Nodes), r.cfg.NodeID), nil
			}
		}
	}
	return false, nil // it is the table that goes
}

// clear removes the rows of a partition that this node has let go.
func (r *Region) clear(ctx context.Context, cfg partition.Config) error {
	m, err := partition.Open(cfg)
	if err != nil {
		return err
	}
	// One of which nothing is here, or not any more, does not know what was cut off it: that may be here.
	if m.Applied() > 0 {
		b := r.cfg.Store.NewBatch()
		for _, rows := range m.Ranges() {
			b.DeleteRange(rows[0], rows[1])
		}
		if err := r.cfg.Store.Commit(b); err != nil {
			return err
		}
	}
	r.cfg.Logger.Info("region: a partition's replica is let go", "partition", cfg.ID)
	return r.host.Cleared(ctx, cfg.ID)
}

// clearLeftBehind goes on with what was let go when this node stopped. Of a table that is gone removeLeftovers does it.
func (r *Region) clearLeftBehind(ctx context.Context) error {
	defs, err := r.catalog.definitions()
	if err != nil {
		return err
	}
	left := r.host.LeftBehind()
	for _, d := range defs {
		for id, pd := range partitionsOf(d.Definition) {
			if !slices.Contains(left, pd.ID) {
				continue
			}
			if err := r.clear(ctx, partition.Config{ID: pd.ID, Table: id, Start: pd.Start, End: pd.End, Store: r.cfg.Store}); err != nil {
				return err
			}
		}
	}
	return nil
}
