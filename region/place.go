package region

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/placement"
	"github.com/commutatordb/commutator/table"
)

// Who is to hold which partition stands in the catalog, and the node that leads the catalog says so there: now and again it looks at what there
// is, as far as it has heard, asks region/placement what is to come next, and writes that. What it says, the groups carry out
// (region/group/members.go). It keeps nothing that another node could not find out when that one comes to lead. Source: docs/decisions/0028.

const (
	defaultReplicas     = 3
	defaultReplaceAfter = 10 * time.Minute
	// placeEvery is how often it is looked what is to be placed anew.
	placeEvery = time.Second
	// rateOver is over how long the writes to a partition are counted that its load is told by.
	rateOver = time.Minute
	// movedFor is how long a partition stays where an operator has moved it, as far as nobody needs it to be moved.
	movedFor = 24 * time.Hour
)

// Errors of Move.
var (
	ErrEverywhere = errors.New("region: every node is to hold the partition: there are no more nodes than replicas")
	ErrOnTheWay   = errors.New("region: the partition is on its way, or is being split or merged, and can be moved when that is done")
	ErrHolds      = errors.New("region: the node is to hold the partition already")
	ErrHoldsNot   = errors.New("region: the node is not to hold the partition")
	ErrNodeDown   = errors.New("region: the node is not up, or leaves")
)

// placer is what the node that leads the catalog has seen since it did.
type placer struct {
	silent map[uint64]time.Duration // by node: how long nothing has been heard of it, in looks: a clock may jump
	looks  int
	rates  map[uint64]rate // by partition
}

// rate is how often a partition is written to.
type rate struct {
	by      uint64 // the node that counts
	counted uint64 // writes, when it was looked at last
	perS    float64
}

// counted returns how often a partition was written to since the start of the node that says so.
func (p *Partition) counted() (by, writes uint64) {
	if p.Here() {
		return p.table.region.cfg.NodeID, p.load.total()
	}
	w := p.word.Load()
	return w.Leader, w.Writes // as whoever leads is asked first
}

// keepPlaced has partitions held by those who are to hold them, while this node leads the catalog.
func (r *Region) keepPlaced(ctx context.Context) error {
	if r.cfg.Tasks.Wait(ctx, r.opened, 0) == task.Ended {
		return nil
	}
	var p *placer
	for r.cfg.Tasks.Wait(ctx, nil, placeEvery) == task.Late {
		switch {
		case !r.Leads():
			p = nil
			continue
		case p == nil:
			p = &placer{silent: map[uint64]time.Duration{}, rates: map[uint64]rate{}}
		}
		p.look(r)
		if err := r.place(ctx, p); err != nil && ctx.Err() == nil && !errors.Is(err, group.ErrClosed) {
			r.cfg.Logger.Debug("region: partitions are not placed", "err", err)
		}
	}
	return nil
}

// look notes who is up, and what is written.
func (p *placer) look(r *Region) {
	for _, m := range r.Members() {
		if p.silent[m.ID] += placeEvery; r.Up(m.ID) {
			p.silent[m.ID] = 0
		}
	}
	if p.looks++; time.Duration(p.looks)*placeEvery%rateOver != 0 {
		return
	}
	old := p.rates
	p.rates = map[uint64]rate{}
	for _, t := range r.Tables() {
		for _, of := range t.partitions() {
			was, now := old[of.ID], rate{}
			now.by, now.counted = of.counted()
			if now.perS = was.perS; now.by == was.by && now.counted >= was.counted {
				now.perS = float64(now.counted-was.counted) / rateOver.Seconds()
			}
			p.rates[of.ID] = now
		}
	}
}

// place writes the changes that are to be made now.
func (r *Region) place(ctx context.Context, p *placer) error {
	by := map[string]map[uint64]placement.Change{} // by table, by partition
	of := r.partitionsOf()
	for _, c := range placement.Next(r.cfg.Replicas, r.placeable(p), r.placedNow(p.rates)) {
		name := of[c.Partition]
		if by[name] == nil {
			by[name] = map[uint64]placement.Change{}
		}
		by[name][c.Partition] = c
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(by)) {
		errs = append(errs, r.placeTable(ctx, name, by[name]))
	}
	return errors.Join(errs...)
}

// placeTable writes changes of a table's partitions, of those that are as they were.
func (r *Region) placeTable(ctx context.Context, name string, changes map[uint64]placement.Change) error {
	var made []placement.Change
	_, err := r.Change(ctx, name, func(d *table.Definition) error {
		made = nil
		for i := range d.Partitions {
			pd := &d.Partitions[i]
			c, ok := changes[pd.ID]
			if !ok || !slices.Equal(pd.Nodes, c.Was) || d.Status == table.Deleting || !r.mayHold(c) {
				continue
			}
			pd.Nodes, pd.Moved = c.Nodes, 0 // where an operator has put it, it is no more
			made = append(made, c)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	for _, c := range made {
		r.cfg.Logger.Info("region: a partition is to be held by others", "table", name, "partition", c.Partition, "was", c.Was, "nodes", c.Nodes, "why", c.Why)
	}
	return nil
}

// mayHold tells whether the catalog still has those that are to hold a partition, and have not held it.
func (r *Region) mayHold(c placement.Change) bool {
	return !slices.ContainsFunc(c.Nodes, func(id uint64) bool {
		m, ok := r.Member(id)
		return !slices.Contains(c.Was, id) && c.Was != nil && (!ok || m.State != MemberHolds)
	})
}

// placeable returns the nodes of the region as placement sees them; p is nil where nobody has watched who is lost.
func (r *Region) placeable(p *placer) (out []placement.Node) {
	members := r.Members()
	for _, m := range members {
		if m.State == MemberGone {
			continue
		}
		out = append(out, placement.Node{
			Lost: p != nil && p.silent[m.ID] >= r.cfg.ReplaceAfter,
			ID:   m.ID, Zone: m.Zone, Leaving: m.State == MemberLeaving, Drained: m.Drained,
			Up: r.Up(m.ID) && !m.New, // who has not said what it is, is not there yet
		})
	}
	for _, id := range r.wanted() {
		if !slices.ContainsFunc(members, func(m Member) bool { return m.ID == id }) {
			out = append(out, placement.Node{ID: id})
		}
	}
	return out
}

// partitionsOf returns by partition the name of its table.
func (r *Region) partitionsOf() map[uint64]string {
	out := map[uint64]string{}
	for name, d := range r.catalog.view.Load().tables {
		for _, pd := range d.Partitions {
			out[pd.ID] = name
		}
	}
	return out
}

// placedNow returns the region's partitions as placement sees them. Of what is not open here it knows no voters.
func (r *Region) placedNow(rates map[uint64]rate) (out []placement.Partition) {
	open, now := *r.tables.Load(), r.cfg.Now()
	for name, d := range r.catalog.view.Load().tables {
		t := open[name]
		for i, pd := range d.Partitions {
			p := placement.Partition{ID: pd.ID, Table: d.ID, Nodes: pd.Nodes, Load: rates[pd.ID].perS, Stays: pd.Split != nil || merging(d.Partitions, i) || now.Sub(time.UnixMilli(pd.Moved)) < movedFor}
			if t != nil && t.ID == d.ID && d.Status != table.Deleting {
				if of := t.partitions().byID(pd.ID); of != nil {
					_, p.Learners = of.Members()
					p.Voters = votersOf(of)
					p.Bytes = of.State().Bytes
				}
			}
			out = append(out, p)
		}
	}
	return out
}

// begun returns what a table begins with: partitions with the given id and those that follow it, and who is to hold them.
func (r *Region) begun(tableID uint32, first uint64) []table.Partition {
	out := table.Split(first, r.initial())
	if !r.several {
		return out
	}
	for i, nodes := range placement.New(r.cfg.Replicas, r.placeable(nil), r.placedNow(nil), tableID, len(out)) {
		out[i].Nodes, out[i].Founders = nodes, nodes
		if nodes == nil {
			out[i].Founders = r.wanted()
		}
	}
	return out
}

// name says of each partition which nodes hold it that all do, before one more joins than there are replicas.
func (r *Region) name(ctx context.Context) error {
	all := r.wanted()
	if len(all) != r.cfg.Replicas {
		return nil // they are fewer then, or it was done
	}
	for _, name := range slices.Sorted(maps.Keys(r.catalog.view.Load().tables)) {
		_, err := r.Change(ctx, name, func(d *table.Definition) error {
			for i := range d.Partitions {
				if d.Partitions[i].Nodes == nil {
					d.Partitions[i].Nodes = all
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNoTable) {
			return err
		}
	}
	return nil
}

// Move has one node hold a partition instead of another. It returns when that is to happen for sure, not when it has. For movedFor it is not moved
// on for the sake of balance. It returns ErrNoTable, ErrNotActive, ErrNoPartition, ErrEverywhere, ErrOnTheWay, ErrHolds, ErrHoldsNot, ErrNoNode, ErrNodeDown or
// ErrNotSeveral.
func (r *Region) Move(ctx context.Context, name string, id, from, to uint64) error {
	if !r.several {
		return ErrNotSeveral
	}
	t, err := r.Table(ctx, name)
	if err != nil {
		return err
	}
	p := t.partitions().byID(id)
	if p == nil {
		return ErrNoPartition
	}
	was, err := r.Change(ctx, name, func(d *table.Definition) error {
		i := slices.IndexFunc(d.Partitions, func(p table.Partition) bool { return p.ID == id })
		if d.ID != t.ID || d.Status == table.Deleting {
			return ErrNotActive
		}
		if i < 0 {
			return ErrNoPartition
		}
		pd := &d.Partitions[i]
		_, learners := p.Members()
		m, ok := r.Member(to)
		switch {
		case pd.Nodes == nil:
			return ErrEverywhere
		case !slices.Contains(pd.Nodes, from):
			return ErrHoldsNot
		case slices.Contains(pd.Nodes, to):
			return ErrHolds
		case !ok || m.State == MemberGone:
			return ErrNoNode
		case m.State != MemberHolds || m.New || !r.Up(to):
			return ErrNodeDown
		case pd.Split != nil || merging(d.Partitions, i) || !slices.Equal(votersOf(p), pd.Nodes) || len(learners) > 0:
			return ErrOnTheWay
		}
		pd.Nodes = slices.Sorted(slices.Values(append(slices.DeleteFunc(pd.Nodes, func(n uint64) bool { return n == from }), to)))
		pd.Moved = r.cfg.Now().UnixMilli()
		return nil
	})
	if err == nil {
		i := slices.IndexFunc(was.Partitions, func(p table.Partition) bool { return p.ID == id })
		r.cfg.Logger.Info("region: a partition is to be held by others", "table", name, "partition", id, "nodes", was.Partitions[i].Nodes, "why", "an operator moves it")
	}
	return err
}
