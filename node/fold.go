package node

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// What is stable, and what of the change logs nobody needs any more.

// fold has what is stable folded, and change logs cut to what somebody still needs.
//
// What counts as stable, and as needed, depends on who is a member, which another node may have changed that leads
// now. So it is worked out first, by what this node has heard until then; then the catalog is asked, and a partition
// folds only if there is no member that was not counted. One that joins later is seeded later, with all that was
// stable, and stamps whatever it writes above it: that stays true however late the command takes effect.
func (r *replicator) fold(ctx context.Context) error {
	var forgot time.Time
	for r.tasks.Wait(ctx, nil, foldEvery) != task.Ended {
		var work []folding
		forget := r.now().Sub(forgot) >= r.retention.Traces/30
		if forget {
			forgot = r.now()
		}
		for _, t := range r.region.Tables() {
			d := t.Definition()
			if len(d.Others(r.self)) > 0 {
				if err := t.Level(ctx); err != nil && ctx.Err() == nil {
					r.logger.Debug("replicator: level", "table", d.Schema.Name, "err", err)
				}
			}
			news := r.news(d.GlobalID)
			for _, p := range t.Partitions() {
				if news {
					p.Wake()
				}
				// Asking the catalog wakes it, so it is asked only if there is something to do.
				f := r.stable(d, p)
				if folds, err := p.Folds(f.stable, f.trim); folds || err != nil || forget && len(f.members) > 0 {
					work = append(work, f)
				}
			}
		}
		if len(work) == 0 {
			continue
		}
		if err := r.region.CatchUp(ctx); err != nil {
			continue
		}
		for _, f := range work {
			d, err := r.region.Definition(f.def.Schema.Name)
			if err != nil || d.ID != f.def.ID || !f.counts(d, r.self) {
				continue
			}
			if err := f.p.Fold(ctx, f.stable, f.trim); err != nil && ctx.Err() == nil {
				r.logger.Debug("replicator: fold", "table", d.Schema.Name, "err", err)
			}
			if !forget || len(f.members) == 0 {
				continue
			}
			if err := f.p.Forget(ctx, crdt.At(forgot.Add(-r.retention.Traces).UnixMilli(), 0)); err != nil && ctx.Err() == nil {
				r.logger.Debug("replicator: forget", "table", d.Schema.Name, "err", err)
			}
		}
	}
	return nil
}

// folding is what a partition may do.
type folding struct {
	def     *table.Definition
	p       *region.Partition
	members []string // other regions that count
	fences  []string // what was given up, and counts as settled
	stable  crdt.HLC // up to here it may fold
	trim    uint64   // up to here nobody needs its change log
}

// counts tells whether everybody counts for what may be folded that a definition has now.
func (f *folding) counts(d *table.Definition, self string) bool {
	for _, o := range d.Others(self) {
		if !slices.Contains(f.members, o.Region) {
			return false
		}
	}
	for _, fence := range d.Schema.Fences {
		if len(f.members) > 0 && !slices.Contains(f.fences, replication.FenceName(fence.Region, fence.Incarnation)) {
			return false
		}
	}
	for _, name := range left(d) {
		if len(f.members) > 0 && !slices.Contains(f.fences, name) {
			return false
		}
	}
	return true
}

// news tells whether more of other regions' writes has been applied to a table since the last call: its
// followers wait to hear of it, to know what is stable.
func (r *replicator) news(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tables[id]
	if t == nil {
		return false
	}
	applied := t.stability.Applied()
	if maps.Equal(applied, t.told) {
		return false
	}
	t.told = applied
	return true
}

// stable works out what a partition may do.
func (r *replicator) stable(d *table.Definition, p *region.Partition) folding {
	f := folding{def: d, p: p}
	state := p.State()
	others := d.Others(r.self)
	if len(others) == 0 {
		f.stable, f.trim = state.Clock, state.Seq
		return f
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tables[d.GlobalID]
	if t == nil {
		return f
	}
	f.members, f.fences, f.stable, f.trim = t.members, t.fences, t.stability.Stable(state.Clock), state.Seq
	for _, o := range others {
		if mutant.On(mutant.TrimUnacked) {
			break
		}
		f.trim = min(f.trim, t.acked[o.Region][p.ID])
	}
	return f
}
