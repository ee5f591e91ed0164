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

// Partitions of tables are split while everything else goes on: by hand, and as soon as they have a few items.

// drawSplits decides how soon each region splits.
func (w *world) drawSplits() {
	for _, r := range w.regions {
		r.split = region.SplitConfig{Bytes: -1, Writes: -1}
		if !slices.Contains(w.families, "splits") {
			continue
		}
		r.split.Every = 200 * time.Millisecond
		r.split.Step = []int{1, 2, 3, 256}[w.rng.IntN(4)]
		r.split.Most = 1 + w.rng.IntN(12)
		if w.chance(0.5) {
			r.split.Bytes = int64(100 + w.rng.IntN(2000))
		}
	}
}

// splitByHand orders splits from a client's task.
func (w *world) splitByHand(until time.Duration) {
	p := w.clients.proc
	for w.now < until {
		p.Wait(context.Background(), nil, w.between(20*time.Millisecond, 1500*time.Millisecond))
		r := w.regions[w.rng.IntN(len(w.regions))]
		m, name := r.nodes[w.rng.IntN(len(r.nodes))], shared
		if r.index == 0 && w.chance(0.2) {
			name = solo
		}
		if !m.up() {
			continue
		}
		d, err := m.engine.Region().Definition(name)
		if err != nil || len(d.Partitions) > 16 {
			continue
		}
		id, at := d.Partitions[w.rng.IntN(len(d.Partitions))].ID, table.Key(nil)
		if w.chance(0.5) {
			at = binary.BigEndian.AppendUint64(nil, w.rng.Uint64())[:1+w.rng.IntN(8)]
		}
		ctx, cancel := p.WithTimeout(context.Background(), patience)
		err = w.call(ctx, w.clients, m, 0, func(ctx context.Context) error {
			_, err := m.engine.Region().Split(ctx, name, id, at)
			return err
		})
		cancel()
		w.say("%s is asked to split %d of %s at %x: %v", m.name, id, name, at, err)
		if err == nil {
			w.count.fault(faultSplit)
		}
	}
}

// unsplit says which split is not done yet, "" when all are.
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
				if pd.Split != nil || s.Prune || s.Drafting || open[i].ID != pd.ID || !slices.Equal(s.End, end) {
					return fmt.Sprintf("%s: %s: the split of partition %d is not done: %+v, %+v", m.name, d.Schema.Name, pd.ID, pd.Split, s)
				}
			}
		}
	}
	return ""
}

// countSplits counts what was cut off.
func (w *world) countSplits() {
	for _, r := range w.regions {
		for _, t := range r.nodes[0].engine.Region().Tables() {
			for _, p := range t.Partitions() {
				if p.Parent != 0 {
					w.count.Splits++
				}
			}
		}
	}
}
