package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Partitions of tables are split, and empty ones merged, while everything else goes on: by hand, and as soon as they have a few items, or none.

// drawSplits decides how soon each region splits.
func (w *world) drawSplits() {
	for _, r := range w.regions {
		r.split = region.SplitConfig{Bytes: -1, Writes: -1, MergeAfter: -1}
		if !slices.Contains(w.families, "splits") {
			continue
		}
		r.split.Every = 200 * time.Millisecond
		r.split.Step = []int{1, 2, 3, 256}[w.rng.IntN(4)]
		r.split.Most = 1 + w.rng.IntN(12)
		if w.chance(0.5) {
			r.split.Bytes = int64(100 + w.rng.IntN(2000))
		}
		if w.chance(0.5) {
			r.split.MergeAfter = w.between(200*time.Millisecond, 3*time.Second)
		}
	}
}

// anyTable returns a node and a table that it has; nil if it is down, or has none.
func (w *world) anyTable() (*machine, *table.Definition) {
	r := w.regions[w.rng.IntN(len(w.regions))]
	m, name := r.nodes[w.rng.IntN(len(r.nodes))], shared
	if r.index == 0 && w.chance(0.2) {
		name = solo
	}
	if !m.up() {
		return nil, nil
	}
	d, err := m.engine.Region().Definition(name)
	if err != nil {
		return nil, nil
	}
	return m, d
}

// splitByHand orders splits from a client's task.
func (w *world) splitByHand(until time.Duration) {
	p := w.clients.proc
	for w.now < until {
		p.Wait(context.Background(), nil, w.between(20*time.Millisecond, 1500*time.Millisecond))
		m, d := w.anyTable()
		if d == nil || len(d.Partitions) > 16 {
			continue
		}
		of := d.Partitions[w.rng.IntN(len(d.Partitions))]
		id, at := of.ID, table.Key(nil)
		switch {
		case w.chance(0.5):
			at = binary.BigEndian.AppendUint64(nil, w.rng.Uint64())[:1+w.rng.IntN(8)]
		case len(of.Start) > 0 && w.chance(0.7): // it is empty then, and may be merged
			var start [8]byte
			copy(start[:], of.Start)
			at = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(start[:])+1)
		}
		ctx, cancel := p.WithTimeout(context.Background(), patience)
		err := w.call(ctx, w.clients, m, 0, func(ctx context.Context) error {
			_, err := m.engine.Region().Split(ctx, d.Schema.Name, id, at)
			return err
		})
		cancel()
		w.say("%s is asked to split %d of %s at %x: %v", m.name, id, d.Schema.Name, at, err)
		if err == nil {
			w.count.fault(faultSplit)
		}
	}
}

// mergeByHand orders merges from a client's task. Most partitions are not empty, and it is refused of them.
func (w *world) mergeByHand(until time.Duration) {
	p := w.clients.proc
	for w.now < until {
		p.Wait(context.Background(), nil, w.between(20*time.Millisecond, 1000*time.Millisecond))
		m, d := w.anyTable()
		if d == nil {
			continue
		}
		id := d.Partitions[w.rng.IntN(len(d.Partitions))].ID
		if w.chance(0.7) {
			for _, t := range m.engine.Region().Tables() {
				if t.ID != d.ID {
					continue
				}
				empty := slices.DeleteFunc(slices.Clone(t.Partitions()), func(p *region.Partition) bool { return p.State().Items > 0 })
				if len(empty) > 0 {
					id = empty[w.rng.IntN(len(empty))].ID
				}
			}
		}
		ctx, cancel := p.WithTimeout(context.Background(), patience)
		err := w.call(ctx, w.clients, m, 0, func(ctx context.Context) error { return m.engine.Region().Merge(ctx, d.Schema.Name, id) })
		cancel()
		w.say("%s is asked to merge %d of %s: %v", m.name, id, d.Schema.Name, err)
		if err == nil {
			w.count.fault(faultMerge)
		}
	}
}

// unmerged says which empty neighbours are still to be merged by themselves, "" when none.
func (r *regionOf) unmerged(t *region.Table, d *table.Definition) string {
	if r.split.MergeAfter < 0 || len(d.Partitions) <= max(1, r.partitions) {
		return ""
	}
	for i, p := range t.Partitions()[1:] {
		left, s := t.Partitions()[i].State(), p.State()
		if left.Items == 0 && left.Conflicts == 0 && s.Items == 0 && s.Conflicts == 0 {
			return fmt.Sprintf("%s: %s: partitions %d and %d are empty", r.name, d.Schema.Name, t.Partitions()[i].ID, p.ID)
		}
	}
	return ""
}

// unsplit says which split, or merge, is not done yet, "" when all are.
func (w *world) unsplit() string {
	for _, m := range w.nodes {
		for _, t := range m.engine.Region().Tables() {
			d, err := m.engine.Region().Definition(t.Schema().Name)
			if err != nil {
				return fmt.Sprintf("%s: %v", m.name, err)
			}
			open := t.Partitions()
			if len(open) != len(d.Partitions) {
				return fmt.Sprintf("%s: %s has %d partitions, and %d are open", m.name, d.Schema.Name, len(d.Partitions), len(open))
			}
			for i, pd := range d.Partitions {
				s := open[i].State().Span
				var end table.Key
				if i+1 < len(d.Partitions) {
					end = d.Partitions[i+1].Start
				}
				if pd.Split != nil || pd.Merging != nil || s.Closed || s.Prune || s.Drafting || open[i].ID != pd.ID || !slices.Equal(s.End, end) {
					return fmt.Sprintf("%s: %s: the split, or the merge, of partition %d is not done: %+v, %+v, %+v", m.name, d.Schema.Name, pd.ID, pd.Split, pd.Merging, s)
				}
			}
			if why := m.region.unmerged(t, d); why != "" {
				return why
			}
		}
	}
	return ""
}

// countSplits counts what was cut off, and what has taken in others.
func (w *world) countSplits() {
	for _, r := range w.regions {
		for _, t := range r.nodes[0].engine.Region().Tables() {
			for _, p := range t.Partitions() {
				if p.Parent != 0 {
					w.count.Splits++
				}
				if p.State().Span.Gone != 0 {
					w.count.Merges++
				}
			}
		}
	}
}
