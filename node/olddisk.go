package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// A region that was started on an older copy of its disk has lost what it wrote and had since, and the others have not. What it writes would
// get numbers, in its change log, that others know as those of other writes, and would not have seen what they take for seen. So it
// gives its own replicas up, and begins them anew. Source: docs/decisions/0021.

// askAtStart is how long a region that has started waits with its first write for the others' word of what they have of it.
const askAtStart = 3 * time.Second

// ask lets this region take writes once all others that have replicas of its tables have told what they have of it, or have not been heard
// from for so long that they seem to be away.
func (r *replicator) ask(ctx context.Context) error {
	defer close(r.asked)
	for until := r.now().Add(askAtStart); ; {
		left := until.Sub(r.now())
		if left <= 0 || left > askAtStart || !r.inDoubt() || r.tasks.Wait(ctx, r.answered, min(left, askAtStart/100)) == task.Ended {
			return nil
		}
	}
}

// inDoubt tells whether something is still to be heard, or a table that was found to be old can still be written to.
func (r *replicator) inDoubt() bool {
	defs, err := r.region.Definitions()
	if err != nil {
		return false // reported by reconcile
	}
	open := slices.ContainsFunc(r.region.Tables(), func(t *region.Table) bool { return t.Definition().GivenUp(r.self) && !t.Closed() })
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range defs {
		for _, o := range d.Others(r.self) {
			if p := r.peers[o.Region]; p == nil || !p.compared {
				return true
			}
		}
	}
	return open
}

// had is what a region that has just started is told: how far its streams were applied here, and where the change logs here begin.
func (r *replicator) had(theirs replication.Tables, defs map[string]*table.Definition) (had []replication.Had, begins []replication.Begin) {
	for _, t := range r.region.Tables() {
		d := t.Definition()
		if defs[d.GlobalID] == nil || d.GivenUp(r.self) {
			continue
		}
		// Not of the partitions alone that it says to have: one may have been split off since its disk was copied.
		cursors := t.Cursors()
		for _, stream := range slices.Sorted(maps.Keys(cursors)) {
			if part, ok := replication.PartitionOf(stream, theirs.Region, theirs.Instance); ok {
				had = append(had, replication.Had{Table: d.GlobalID, Partition: part, Seq: cursors[stream], Clock: t.Clock(stream)})
			}
		}
		for _, p := range t.Partitions() {
			if trimmed := p.State().Trimmed; trimmed > 0 {
				begins = append(begins, replication.Begin{Table: d.GlobalID, Partition: p.ID, Seq: trimmed})
			}
		}
	}
	return had, begins
}

// compared holds what this region has against what another has of it.
func (r *replicator) compared(ctx context.Context, p *peer, theirs replication.Tables) error {
	if theirs.Instance == 0 {
		return nil
	}
	for _, t := range r.region.Tables() {
		d, why := t.Definition(), ""
		if rep := d.Replica(r.self); rep == nil || rep.Status != table.Active || d.GivenUp(r.self) {
			continue
		}
		for _, h := range theirs.Had {
			if h.Table != d.GlobalID {
				continue
			}
			if wrote, err := r.wrote(ctx, t, h); err != nil {
				return err
			} else if !wrote {
				why = "region " + p.name + " has had writes of this one's that are not here"
			}
		}
		if len(theirs.Begins) > 0 { // this replica may be behind those that count
			if err := t.CatchUp(ctx); err != nil {
				return err
			}
		}
		rep := d.Replica(p.name)
		for _, b := range theirs.Begins {
			if b.Table == d.GlobalID && rep != nil && rep.Live() && t.Cursor(replication.StreamName(p.name, theirs.Instance, b.Partition)) < b.Seq {
				why = "region " + p.name + " has had word that writes of its are here that are not"
			}
		}
		if why != "" {
			if err := r.lost(ctx, d, why); err != nil && !errors.Is(err, errAlone) {
				return err
			}
		}
	}
	r.mu.Lock()
	p.compared = true
	r.mu.Unlock()
	return nil
}

// wrote tells whether what another region has had of a partition here was written here.
func (r *replicator) wrote(ctx context.Context, t *region.Table, h replication.Had) (bool, error) {
	if err := t.CatchUp(ctx); err != nil {
		return false, err
	}
	for _, part := range t.Partitions() {
		if part.ID == h.Partition {
			return part.Wrote(h.Seq, h.Clock)
		}
	}
	// It is a former incarnation's, or was split off since the disk was copied.
	if slices.ContainsFunc(t.Definition().Partitions, func(p table.Partition) bool { return p.Split != nil && p.Split.Child == h.Partition }) {
		return false, nil
	}
	known, err := r.region.Numbered(ctx, h.Partition)
	return known || mutant.On(mutant.SplitOffForgotten), err
}

// doubt looks again at what another region says to have had of a partition, once this replica has caught up with its region.
func (r *replicator) doubt(t *region.Table, p *region.Partition, from replication.Resume) {
	r.mu.Lock()
	ctx := r.ctx
	r.mu.Unlock()
	r.start(ctx, from.Table+"/"+from.Region+" has had more", func() error {
		if err := t.CatchUp(ctx); err != nil {
			return err
		}
		if wrote, err := p.Wrote(from.Seq, from.Clock); wrote || err != nil {
			return err
		}
		return r.lost(ctx, t.Definition(), "region "+from.Region+" has had writes of this one's that are not here")
	})
}

// errAlone says that a table cannot begin anew: no other region has it whole.
var errAlone = errors.New("this region's copy of the table is an older one, and no other region has an active replica to begin anew from")

// lost gives up what this region has of a table.
func (r *replicator) lost(ctx context.Context, d *table.Definition, why string) error {
	did := false
	_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		did = false
		own := n.Replica(r.self)
		switch {
		case n.ID != d.ID || n.GivenUp(r.self) || own == nil || own.Status != table.Active:
			return nil
		case !slices.ContainsFunc(n.Others(r.self), func(o table.Replica) bool { return o.Status == table.Active }):
			return errAlone
		}
		n.GiveUp(r.self, r.self, uint64(r.region.Stamp()))
		did = true
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return nil
	}
	if err != nil || did {
		r.logger.Error("replicator: THE COPY OF A TABLE HERE IS AN OLDER ONE; it begins anew, filled from the other regions. The runbook \"A region on an old disk\" says more", "table", d.Schema.Name, "why", why, "err", err)
	}
	task.Poke(r.wake)
	return err
}
