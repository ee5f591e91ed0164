package region

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// How a table comes to fewer partitions: one that is empty is taken in by its left neighbour. That it is to, and how far it has come, is in the
// catalog; the node that leads it takes the next step, in the logs of both (region/partition/merge.go), from wherever a crash or another leader has
// left it. Every step may be taken twice. Source: docs/decisions/0029.
//
//	MergeWanted     until the same nodes hold both, and all of them are up
//	MergeClosing    Close, and then every node is asked whether it has that for good; if one does not say so in time: MergeReopening
//	MergeReopening  Reopen, and it stays a partition
//	MergeClosed     Absorb, and then the partition's row goes

const (
	defaultMergeAfter = 10 * time.Minute
	// closeLimit is how long requests for the range of a partition wait at most until it is open again, unless its group has no leader.
	closeLimit = time.Second
	// gatherLimit is how long it is waited for the nodes that are to hold both.
	gatherLimit = time.Minute
)

// Errors of Merge.
var (
	ErrMerging  = errors.New("region: the partition, or its right neighbour, is being merged already")
	ErrNoLeft   = errors.New("region: the table's first partition has no left neighbour that could take it in")
	ErrNotEmpty = errors.New("region: only an empty partition is merged")
	ErrApart    = errors.New("region: not every node that is to hold the partition and its left neighbour is up and holds them")
)

// errNotClosed is the answer of a node that has not closed the partition, or is not sure to have.
var errNotClosed = errors.New("region: the node has not closed the partition")

// merging tells whether a partition, or its right neighbour, is on its way into its left one.
func merging(of []table.Partition, i int) bool {
	return of[i].Merging != nil || i+1 < len(of) && of[i+1].Merging != nil
}

// Merge has a partition, which must be empty, taken in by its left neighbour. It returns when that is begun, not when it is done; it is given up if it
// cannot be done soon, and then the partition is what it was. It returns ErrNoTable, ErrNotActive, ErrNoPartition, ErrNoLeft, ErrMerging, ErrSplitting,
// ErrNotEmpty, which says what there is, or ErrApart.
func (r *Region) Merge(ctx context.Context, name string, id uint64) error {
	t, err := r.Table(ctx, name)
	if err != nil {
		return err
	}
	p := t.partitions().byID(id)
	if p == nil {
		return ErrNoPartition
	}
	if err := p.vacant(ctx); err != nil {
		return err
	}
	return r.orderMerge(ctx, t, id)
}

// vacant returns ErrNotEmpty, and what there is, unless the partition is empty.
func (p *Partition) vacant(ctx context.Context) error {
	if err := p.sync(ctx); err != nil {
		return err
	}
	v := p.reader(ctx)
	switch s := v.state; {
	case s.Items > 0:
		return fmt.Errorf("%w: it has %d items", ErrNotEmpty, s.Items)
	case s.Conflicts > 0:
		return fmt.Errorf("%w: it keeps %d conflict records", ErrNotEmpty, s.Conflicts)
	case s.Folded < s.Seq:
		return fmt.Errorf("%w: it keeps %d changes that a region has not had, or of which that is not known yet", ErrNotEmpty, s.Seq-s.Folded)
	}
	if owes, err := partition.Owes(v, p.ID, v.state); err != nil {
		return err
	} else if owes {
		return fmt.Errorf("%w: it keeps changes that a region has not said to have had", ErrNotEmpty)
	}
	for _, rows := range []struct {
		what     string
		from, to []byte
	}{
		{"items that were deleted, until every region knows", keyenc.Record(nil, p.table.ID, p.Start), recordsEnd(p.table.ID, v.state.Span.End)},
		{"traces of items that were deleted in the last 30 days", keyenc.Trace(nil, p.table.ID, p.Start), tracesEnd(p.table.ID, v.state.Span.End)},
	} {
		it, err := v.Iter(rows.from, rows.to)
		if err != nil {
			return err
		}
		some := it.First()
		if err := it.Close(); err != nil {
			return err
		}
		if some {
			return fmt.Errorf("%w: it keeps %s", ErrNotEmpty, rows.what)
		}
	}
	return v.stood()
}

// orderMerge writes that a partition is to be merged. The nodes that hold its left neighbour are to hold it, too.
func (r *Region) orderMerge(ctx context.Context, t *Table, id uint64) error {
	_, attempt, err := r.allocate(ctx, 0, 1) // the id of no partition: numbers of both rise together, see table.Partition.Absorbed
	if err != nil {
		return err
	}
	_, err = r.Change(ctx, t.Schema().Name, func(d *table.Definition) error {
		i := slices.IndexFunc(d.Partitions, func(p table.Partition) bool { return p.ID == id })
		switch {
		case d.ID != t.ID || d.Status != table.Active && d.Status != table.Updating || d.GivenUp(r.cfg.Name):
			return ErrNotActive
		case i < 0:
			return ErrNoPartition
		case i == 0:
			return ErrNoLeft
		case merging(d.Partitions, i) || merging(d.Partitions, i-1):
			return ErrMerging
		case d.Partitions[i].Split != nil || d.Partitions[i-1].Split != nil:
			return ErrSplitting
		case slices.ContainsFunc(r.nodesOf(d.Partitions[i-1].Nodes), func(node uint64) bool { return !r.Up(node) }):
			return ErrApart
		}
		d.Partitions[i].Nodes = slices.Clone(d.Partitions[i-1].Nodes)
		d.Partitions[i].Merging = &table.Merging{Attempt: attempt}
		return nil
	})
	return err
}

// merger is what the node that leads the catalog has seen since it did, in looks, of which there is one every SplitConfig.Every: a clock may jump.
type merger struct {
	quiet map[uint64]resting       // by partition
	since map[uint64]time.Duration // by attempt: how long it has been under way
}

// resting is for how long a partition has been empty and was not written to.
type resting struct {
	seq uint64 // of the change log
	of  time.Duration
}

// keepMerged carries out the merges of the catalog, and orders those that are due, while this node leads it.
func (r *Region) keepMerged(ctx context.Context) error {
	changed, stop := r.Watch()
	defer stop()
	if r.cfg.Tasks.Wait(ctx, r.opened, 0) == task.Ended {
		return nil
	}
	var m *merger
	for due := r.cfg.Now(); ; {
		look := false
		wait := r.cfg.Split.Every
		if now := r.cfg.Now(); now.Before(due) && due.Sub(now) <= wait {
			wait = due.Sub(now)
		} else {
			look, due = true, now.Add(wait)
		}
		switch {
		case !r.Leads():
			m = nil
		case m == nil:
			m = &merger{quiet: map[uint64]resting{}, since: map[uint64]time.Duration{}}
			fallthrough
		default:
			if look {
				m.look(r)
			}
			for _, t := range r.Tables() {
				if err := r.mergeTable(ctx, t, m); err != nil && ctx.Err() == nil {
					r.cfg.Logger.Debug("region: merge", "table", t.Schema().Name, "err", err)
				}
			}
		}
		if r.cfg.Tasks.Wait(ctx, changed, max(wait, time.Millisecond)) == task.Ended {
			return nil
		}
	}
}

// look notes which partitions rest.
func (m *merger) look(r *Region) {
	every := r.cfg.Split.Every
	quiet, since := map[uint64]resting{}, map[uint64]time.Duration{}
	for _, t := range r.Tables() {
		for _, p := range t.partitions() {
			s, q := p.State(), m.quiet[p.ID]
			if s.Items > 0 || s.Conflicts > 0 || s.Folded < s.Seq || s.Seq != q.seq || s.Span.Prune || s.Span.Drafting {
				q = resting{seq: s.Seq}
			} else {
				q.of += every
			}
			quiet[p.ID] = q
		}
		for _, pd := range t.Definition().Partitions {
			if pd.Merging != nil {
				since[pd.Merging.Attempt] = m.since[pd.Merging.Attempt] + every
			}
		}
	}
	m.quiet, m.since = quiet, since
}

// mergeTable does what is to be done of a table's merges, one at a time, and orders one that is due.
func (r *Region) mergeTable(ctx context.Context, t *Table, m *merger) error {
	d, err := r.definition(t.Schema().Name)
	if err != nil || d.ID != t.ID || d.Status == table.Deleting {
		return err
	}
	for i, pd := range d.Partitions {
		if pd.Merging != nil && i > 0 {
			return r.merge(ctx, t, d.Partitions[i-1].ID, pd, m)
		}
	}
	return r.mergeDue(ctx, t, d.Definition, m)
}

// merge takes the steps of a merge, as far as that goes.
func (r *Region) merge(ctx context.Context, t *Table, leftID uint64, pd table.Partition, m *merger) error {
	left, p := t.partitions().byID(leftID), t.partitions().byID(pd.ID)
	if left == nil || p == nil {
		return errors.New("a partition that is to be merged is not open here yet")
	}
	at := *pd.Merging
	var given []byte
	if at.State == table.MergeWanted {
		if err := r.together(left, p); err != nil {
			if m.since[at.Attempt] < gatherLimit {
				return err
			}
			r.cfg.Logger.Warn("region: a partition is not merged", "table", t.Schema().Name, "partition", p.ID, "into", left.ID, "err", err)
			return r.undone(r.stepMerge(ctx, t, p.ID, &at, nil))
		}
		if err := r.stepMerge(ctx, t, p.ID, &at, &table.Merging{Attempt: at.Attempt, State: table.MergeClosing}); err != nil {
			return err
		}
	}
	if at.State == table.MergeClosing || at.State == table.MergeClosed && mutant.On(mutant.ReopenedLate) {
		next := table.MergeClosed
		var err error
		if given, err = r.closePartition(ctx, left, p, at.Attempt); err != nil {
			r.cfg.Logger.Warn("region: a partition is not merged: it could not be closed at every node in time", "table", t.Schema().Name, "partition", p.ID, "into", left.ID, "err", err)
			next = table.MergeReopening
		}
		if err := r.stepMerge(ctx, t, p.ID, &at, &table.Merging{Attempt: at.Attempt, State: next}); err != nil {
			return err
		}
	}
	switch at.State {
	case table.MergeReopening:
		if err := p.propose(ctx, &op.Command{Kind: op.Reopen, Attempt: at.Attempt}); err != nil {
			return err
		}
		return r.undone(r.stepMerge(ctx, t, p.ID, &at, nil))
	case table.MergeClosed:
		if given == nil {
			result, err := p.do(ctx, &op.Command{Kind: op.Close, Attempt: at.Attempt})
			if err = errors.Join(err, result.Err); err != nil {
				return err
			}
			given = result.Given
		}
		if err := left.propose(ctx, &op.Command{Kind: op.Absorb, Key: p.Start, Child: p.ID, Attempt: at.Attempt, Value: given}); err != nil {
			return err
		}
		return r.endMerge(ctx, t, left.ID, p.ID, at)
	}
	return nil
}

// undone counts a merge that was given up, unless that is another node's.
func (r *Region) undone(err error) error {
	if err == nil {
		r.unmerged.Add(1)
	}
	return err
}

// errOvertaken says that another node has gone on with a merge.
var errOvertaken = errors.New("another node goes on with it")

// stepMerge writes that a merge has come from one state to another; nil: the partition stays.
func (r *Region) stepMerge(ctx context.Context, t *Table, id uint64, from *table.Merging, to *table.Merging) error {
	_, err := r.Change(ctx, t.Schema().Name, func(d *table.Definition) error {
		i := slices.IndexFunc(d.Partitions, func(p table.Partition) bool { return p.ID == id })
		if d.ID != t.ID || i < 0 || d.Partitions[i].Merging == nil || *d.Partitions[i].Merging != *from {
			return errOvertaken
		}
		d.Partitions[i].Merging = to
		return nil
	})
	if err == nil && to != nil {
		*from = *to
	}
	return err
}

// endMerge takes the row of a partition away that was taken in.
func (r *Region) endMerge(ctx context.Context, t *Table, left, id uint64, at table.Merging) error {
	_, err := r.Change(ctx, t.Schema().Name, func(d *table.Definition) error {
		i := slices.IndexFunc(d.Partitions, func(p table.Partition) bool { return p.ID == id })
		if d.ID != t.ID || i < 1 || d.Partitions[i].Merging == nil || *d.Partitions[i].Merging != at || d.Partitions[i-1].ID != left {
			return errOvertaken
		}
		d.Partitions[i-1].Absorbed = at.Attempt
		d.Partitions = slices.Delete(d.Partitions, i, i+1)
		for j := range d.Partitions {
			// All that was written before it was cut off has been applied everywhere, or the partition would not have been empty.
			if d.Partitions[j].Parent == id {
				d.Partitions[j].Parent, d.Partitions[j].Behind = left, 0
			}
		}
		return nil
	})
	if err == nil {
		r.merged.Add(1)
		r.cfg.Logger.Info("region: a partition was merged", "table", t.Schema().Name, "partition", id, "into", left)
	}
	return err
}

// together returns an error unless the nodes that are to hold two partitions do, both of them, and are up.
func (r *Region) together(left, p *Partition) error {
	nodes := left.Nodes()
	if !slices.Equal(nodes, p.Nodes()) {
		return ErrApart
	}
	for _, of := range []*Partition{left, p} {
		_, learners := of.Members()
		if r.several && (len(learners) > 0 || !slices.Equal(votersOf(of), nodes) || slices.ContainsFunc(nodes, func(id uint64) bool { return !r.Up(id) })) {
			return ErrApart
		}
		if s := of.State().Span; s.Prune || s.Drafting {
			return op.ErrBusy
		}
	}
	return nil
}

// closePartition closes a partition, and returns what its left neighbour is to know, once each node that has a replica of either has that
// for good: what a node may yet apply of the one would meet what it applies of the other.
func (r *Region) closePartition(ctx context.Context, left, p *Partition, attempt uint64) (given []byte, err error) {
	ctx, cancel := r.cfg.Tasks.WithTimeout(ctx, closeLimit)
	defer cancel()
	result, err := p.do(ctx, &op.Command{Kind: op.Close, Attempt: attempt})
	if err = errors.Join(err, result.Err); err != nil || mutant.On(mutant.AbsorbedEarly) {
		return result.Given, err
	}
	// Who comes to hold one of them from here on is sent it as it is then.
	var nodes []uint64
	for _, of := range []*Partition{left, p} {
		if err := of.sync(ctx); err != nil {
			return nil, err
		}
		voters, learners := of.Members()
		nodes = slices.Concat(nodes, voters, learners)
	}
	slices.Sort(nodes)
	g, ctx := task.NewGroup(ctx, r.cfg.Tasks)
	for _, id := range slices.Compact(nodes) {
		g.Go(func() error {
			err := r.askClosedAt(ctx, id, p, attempt)
			if err != nil {
				err = fmt.Errorf("node %d: %w", id, err)
			}
			return err
		})
	}
	return result.Given, g.Wait()
}

func (r *Region) askClosedAt(ctx context.Context, node uint64, p *Partition, attempt uint64) error {
	if node == r.cfg.NodeID {
		return p.closedHere(ctx, attempt)
	}
	_, err := r.askNode(ctx, node, binary.AppendUvarint(question(askClosed, p.ID), attempt), closeLimit)
	return err
}

// closedHere waits, but not for long, until the partition is closed here for good: after a crash, too, whatever of its log is applied again then.
func (p *Partition) closedHere(ctx context.Context, attempt uint64) error {
	r := p.table.region
	ctx, cancel := r.cfg.Tasks.WithTimeout(ctx, closeLimit)
	defer cancel()
	changed, stop := p.Watch()
	defer stop()
	for {
		if p.replica.Load() == nil {
			return p.nothingHere()
		}
		if s := p.own.Load().Span; s.Closed && s.Attempt == attempt {
			break
		}
		if r.cfg.Tasks.Wait(ctx, changed, 0) == task.Ended {
			return errNotClosed
		}
	}
	if mutant.On(mutant.AbsorbedUnflushed) {
		return nil
	}
	return r.cfg.Store.Flush()
}

// nothingHere returns an error if anything is left of a replica that this node had.
func (p *Partition) nothingHere() error {
	m, err := partition.Open(p.config(p.table.region.cfg.Store))
	if err != nil {
		return err
	}
	if m.Applied() > 0 || slices.Contains(p.table.region.host.LeftBehind(), p.ID) {
		return errNotClosed
	}
	return nil
}

// mergeDue orders a merge of two neighbours that are both empty, and have been for long.
func (r *Region) mergeDue(ctx context.Context, t *Table, d *table.Definition, m *merger) error {
	after := r.cfg.Split.MergeAfter
	if after < 0 || d.Status != table.Active || len(table.IDs(d.Partitions)) <= r.initial() {
		return nil
	}
	for i := 1; i < len(d.Partitions); i++ {
		id := d.Partitions[i].ID
		p, rests := t.partitions().byID(id), m.quiet[id]
		if p == nil || rests.of < after || m.quiet[d.Partitions[i-1].ID].of < after {
			continue
		}
		m.quiet[id] = resting{seq: rests.seq} // if it fails, it is tried again after as long
		if err := p.vacant(ctx); err != nil {
			return err
		}
		return r.orderMerge(ctx, t, id)
	}
	return nil
}

// gone tells whether a partition of the table was taken in by another, as the catalog here has it.
func (t *Table) gone(id uint64) bool { return t.takenIn()(id) }

// takenIn returns gone for many.
func (t *Table) takenIn() func(id uint64) bool {
	var of []table.Partition
	for _, d := range t.region.catalog.view.Load().tables {
		for tableID, pd := range partitionsOf(d.Definition) {
			if tableID == t.ID {
				of = append(of, pd)
			}
		}
	}
	ids, last := table.IDs(of), uint64(0)
	for _, pd := range of {
		last = max(last, pd.Absorbed)
	}
	return func(id uint64) bool { return id < last && !slices.Contains(ids, id) }
}

// removeMerged removes what this node has of partitions that were taken in by others.
func (t *Table) removeMerged(ctx context.Context) error {
	missing := func() (out list) {
		gone := t.takenIn()
		for _, p := range t.partitions() {
			if gone(p.ID) {
				out = append(out, p)
			}
		}
		return out
	}
	if missing() == nil {
		return nil
	}
	// One that was just cut off, the catalog here may not have heard of.
	if err := t.region.CatchUp(ctx); err != nil {
		return err
	}
	for _, p := range missing() {
		if err := t.removePartition(ctx, p); err != nil {
			return fmt.Errorf("partition %d: what is left of it: %w", p.ID, err)
		}
	}
	return nil
}

func (t *Table) removePartition(ctx context.Context, p *Partition) error {
	r := t.region
	t.mu.Lock()
	rest := slices.DeleteFunc(slices.Clone(t.partitions()), func(q *Partition) bool { return q == p })
	t.open.Store(&rest)
	t.mu.Unlock()
	p.gone.Store(true)
	r.mu.Lock()
	delete(r.parts, p.ID)
	r.mu.Unlock()
	p.tell()
	r.tellWatchers()
	g := p.replica.Load()
	if g == nil {
		return nil
	}
	if err := r.host.Remove(ctx, g); err != nil {
		return err
	}
	return r.removeRows(nil, []uint64{p.ID})
}
