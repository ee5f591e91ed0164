package region

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// Which partitions a table has here, and which of them holds a key. A partition that is cut says so in its own log, which each node applies in
// its own time: it shows the child in the list at the moment from which it holds no more than its share. So the list is right about what the
// replicas here have, if not always the newest; who has asked one that another is cut off is told by op.ErrMoved, and looks again.

// list is a table's open partitions in the order of their keys. It is never changed in place.
type list []*Partition

// partitions returns those that are open here.
func (t *Table) partitions() list { return *t.open.Load() }

// Partitions returns the table's partitions in key order, as this node has them.
func (t *Table) Partitions() []*Partition { return t.partitions() }

// of returns the partition that begins last at or before a key, but for one that is closed: what that had its left neighbour has, or is about to.
func (l list) of(key table.Key) *Partition {
	i, ok := slices.BinarySearchFunc(l, key, func(p *Partition, key table.Key) int { return bytes.Compare(p.Start, key) })
	if !ok {
		i--
	}
	for i > 0 && l[i].closed() {
		i--
	}
	return l[max(i, 0)]
}

// serving returns the partitions that are not closed.
func (l list) serving() list {
	if !slices.ContainsFunc(l, (*Partition).closed) {
		return l
	}
	return slices.DeleteFunc(slices.Clone(l), (*Partition).closed)
}

func (l list) byID(id uint64) *Partition {
	for _, p := range l {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// within returns the partitions that hold keys in [from, to), at least one; nil is the end of the table.
func (l list) within(from, to table.Key) list {
	l = l.serving()
	first, end := 0, len(l)
	for first+1 < end && bytes.Compare(l[first+1].Start, from) <= 0 {
		first++
	}
	for end > first+1 && to != nil && bytes.Compare(l[end-1].Start, to) >= 0 {
		end--
	}
	return l[first:end]
}

// cover tells whether every key in [from, to) is in one of the partitions.
func (l list) cover(from, to table.Key) bool {
	at := from
	for _, p := range l {
		if bytes.Compare(p.Start, at) > 0 {
			return false
		}
		end := p.End()
		if end == nil {
			return true
		}
		if bytes.Compare(end, at) > 0 {
			at = end
		}
	}
	return to != nil && len(l) > 0 && bytes.Compare(at, to) >= 0
}

// PartitionOf returns the partition that holds the key, as far as is known here.
func (t *Table) PartitionOf(key table.Key) *Partition { return t.partitions().of(key) }

// movedLimit is how long it is looked for the partition that holds a key.
const movedLimit = 10 * time.Second

// look calls try with the partitions that are open here, again whenever they have become others while it waited for them, or as long as there
// is a gap between them, which a snapshot of a parent's may leave until the child is known here. try tells whether it is content.
func (t *Table) look(ctx context.Context, try func(context.Context, list) (bool, error)) error {
	l := t.partitions()
	if ok, err := try(ctx, l); ok || err != nil && !t.changedFrom(l, err) {
		return err
	}
	ctx, cancel := t.region.cfg.Tasks.WithTimeout(ctx, movedLimit)
	defer cancel()
	changed, stop := t.region.Watch()
	defer stop()
	for {
		now := t.open.Load()
		ok, err := try(ctx, *now)
		if ok || err != nil && !t.changedFrom(*now, err) {
			return err
		}
		if t.open.Load() == now && t.region.cfg.Tasks.Wait(ctx, changed, lookAgain) == task.Ended {
			return group.ErrNoLeader
		}
	}
}

// lookAgain is how long it is waited at most for word that the partitions are others.
const lookAgain = 50 * time.Millisecond

// changedFrom tells whether an error is that of a partition that has moved since the list was taken.
func (t *Table) changedFrom(l list, err error) bool {
	return errors.Is(err, op.ErrMoved) || errors.Is(err, group.ErrGone) && !slices.Equal(t.partitions(), l)
}

// readable waits until this node may answer a read of the keys in [from, to), and returns the partitions that hold them.
func (t *Table) readable(ctx context.Context, from, to table.Key, strong bool) (parts list, err error) {
	err = t.look(ctx, func(ctx context.Context, l list) (ok bool, err error) {
		parts, ok, err = t.readableOf(ctx, l, from, to, strong)
		return ok, err
	})
	return parts, err
}

// readableOf is readable with the partitions that are open here; ok is false if they are not all there are.
func (t *Table) readableOf(ctx context.Context, l list, from, to table.Key, strong bool) (parts list, ok bool, err error) {
	parts = l.within(from, to)
	if !parts.cover(from, to) {
		return nil, false, nil
	}
	if t.region.several {
		err = t.each(ctx, parts, func(ctx context.Context, p *Partition) error { return p.readable(ctx, strong) })
		return parts, err == nil && parts.cover(from, to), err
	}
	for _, p := range parts { // which hardly ever waits
		if err := p.readable(ctx, strong); err != nil {
			return nil, false, err
		}
	}
	return parts, parts.cover(from, to), nil
}

// spread has propose carry deltas to the partitions that hold their keys, at once; those that were another's, once more.
func (t *Table) spread(ctx context.Context, deltas []op.Delta, propose func(context.Context, *Partition, []op.Delta) error) error {
	return t.look(ctx, func(ctx context.Context, l list) (bool, error) {
		by, touched := l.share(deltas)
		moved := make([]bool, len(touched))
		err := t.each(ctx, touched, func(ctx context.Context, p *Partition) error {
			err := propose(ctx, p, by[p])
			if err != nil && t.changedFrom(l, err) {
				moved[slices.Index(touched, p)], err = true, nil
			}
			return err
		})
		deltas = nil
		for i, p := range touched {
			if moved[i] {
				deltas = append(deltas, by[p]...)
			}
		}
		return err == nil && deltas == nil, err
	})
}

// share deals deltas out to the partitions, and returns those that get any, in order.
func (l list) share(deltas []op.Delta) (by map[*Partition][]op.Delta, touched list) {
	by = map[*Partition][]op.Delta{}
	for _, d := range deltas {
		p := l.of(d.Key)
		by[p] = append(by[p], d)
	}
	for _, p := range l {
		if by[p] != nil {
			touched = append(touched, p)
		}
	}
	return by, touched
}

// openPartition opens a partition, if it is not open yet and the table is not going, and this node's replica of it if it is to have one, or has
// one still. What a child begins with comes from its parent's log, so its replica must not be opened before the parent's here has come
// past that: opened says no then.
func (t *Table) openPartition(pd table.Partition) (opened bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, r := t.partitions(), t.region
	p := l.byID(pd.ID)
	if t.going {
		return p != nil, nil
	}
	fresh := p == nil
	if fresh {
		p = &Partition{ID: pd.ID, Start: pd.Start, Parent: pd.Parent, first: pd.End, table: t, watchers: map[chan struct{}]bool{}}
		p.word.Store(&word{})
	}
	p.nodes.Store(&pd.Nodes)
	p.wanted.Store(!r.several || slices.Contains(p.Nodes(), r.cfg.NodeID))
	if p.replica.Load() == nil {
		if opened, err := p.openReplica(pd, l); err != nil || !opened {
			return false, err
		}
	}
	if p.state.Load() == nil {
		// Until somebody says what it has come to.
		p.show(&partition.State{Span: partition.Span{End: pd.End}}, &table.Schema{}, nil, nil)
	}
	if fresh {
		r.mu.Lock()
		r.parts[p.ID] = p
		r.mu.Unlock()
		i, _ := slices.BinarySearchFunc(l, p.Start, func(q *Partition, start table.Key) int { return bytes.Compare(q.Start, start) })
		l = slices.Insert(slices.Clone(l), i, p)
		t.open.Store(&l)
	}
	return true, nil
}

// mayHold tells whether this node's replica, one that is to come among them, has a key for its own.
func (p *Partition) mayHold(key table.Key) bool {
	if p.replica.Load() == nil {
		return p.wanted.Load() && p.holds(key)
	}
	return p.has(key)
}

// openReplica opens this node's replica of a partition, if there is to be one, or is one still; l has those that are open. It tells whether
// nothing is left to do.
func (p *Partition) openReplica(pd table.Partition, l list) (opened bool, err error) {
	r := p.table.region
	m, err := partition.Open(p.config(r.cfg.Store))
	if err != nil {
		return false, err
	}
	_, conf, err := r.cfg.Log.Group(pd.ID).InitialState()
	if err != nil {
		return false, err
	}
	if !p.wanted.Load() && len(conf.GetVoters()) == 0 && m.Applied() == 0 {
		return true, nil
	}
	founders := pd.Founders
	var parent *Partition
	if pd.Parent != 0 {
		parent = l.byID(pd.Parent)
		// Not its parent alone: that may have gone from here, and what it was cut off not have heard of it.
		if m.Applied() == 0 && (parent == nil || slices.ContainsFunc(l, func(q *Partition) bool { return q != p && q.mayHold(pd.Start) })) {
			return false, nil
		}
		founders = []uint64{}
	}
	p.publish(m)
	if parent != nil && m.Applied() == partition.ChildApplied {
		p.caught.Store(parent.caught.Load()) // it begins with what the parent had
		// The child's log must not be durable before what it begins with: after a crash, a snapshot might take the parent past the cut. Most
		// was flushed when the draft was ready.
		if !mutant.On(mutant.CutNotFlushed) {
			if err := r.cfg.Store.Flush(); err != nil {
				return false, err
			}
		}
	}
	g, err := r.host.Open(pd.ID, m, founders, func() { p.publish(m) })
	if err != nil {
		return false, err
	}
	p.replica.Store(g)
	if parent != nil && m.Applied() == partition.ChildApplied && parent.Leads() {
		g.Stand()
	}
	return true, nil
}

// openPartitions opens those of a definition that can be, and what was cut off them that the definition does not have yet. It tells whether
// that is all.
func (t *Table) openPartitions(of []table.Partition) (all bool, err error) {
	before := t.open.Load()
	for {
		missing := 0
		for _, pd := range of {
			opened, err := t.openPartition(pd)
			if err != nil {
				return false, err
			}
			if !opened {
				missing++
			}
		}
		n := len(t.partitions())
		for _, p := range t.partitions() {
			if err := t.openChild(p, p.State().Span); err != nil {
				return false, err
			}
		}
		if all = missing == 0; all || len(t.partitions()) == n {
			break
		}
	}
	if t.open.Load() != before {
		t.region.tellWatchers()
	}
	return all, nil
}

// openChild opens what was cut off a partition last.
func (t *Table) openChild(p *Partition, s partition.Span) error {
	if s.Child == 0 || t.partitions().byID(s.Child) != nil || t.gone(s.Child) {
		return nil // if it is open, the catalog says who is to hold it
	}
	_, err := t.openPartition(table.Partition{ID: s.Child, Start: s.End, End: s.Until, Parent: p.ID, Nodes: *p.nodes.Load()})
	return err
}

// cut is called when a partition has been cut, in the Host's loop if that is so of the replica here: what was cut off begins.
func (t *Table) cut(p *Partition, s partition.Span) {
	if err := t.openChild(p, s); err != nil {
		t.region.cfg.Fatal(err)
		return
	}
	t.region.catalogChanged()
}
