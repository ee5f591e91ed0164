package sim

import (
	"context"
	"slices"
	"time"
)

// Regions have more nodes than replicas of a partition, so that most of what a node is asked, others hold.

// drawPlaced decides of each region how many nodes hold a partition.
func (w *world) drawPlaced() {
	if !slices.Contains(w.families, "placed") {
		return
	}
	for _, r := range w.regions {
		if len(r.nodes) < 2 {
			continue
		}
		for w.chance(0.5) && len(r.nodes) < 5 {
			id := uint64(len(r.nodes) + 1)
			r.founders = append(r.founders, id)
			r.add(w, id)
		}
		r.replicas = 1 + w.rng.IntN(min(3, len(r.nodes)))
		if slices.Contains(w.families, "nodes") {
			r.replicas = 3 // nodes lose their disks
		}
		w.say("%s has %d nodes, of which %d hold each partition", r.name, len(r.nodes), r.replicas)
	}
}

// movePartitions has partitions held by other nodes, by hand, from a client's task.
func (w *world) movePartitions(until time.Duration) {
	p := w.clients.proc
	for w.now < until {
		p.Wait(context.Background(), nil, w.between(50*time.Millisecond, 2*time.Second))
		r := w.regions[w.rng.IntN(len(w.regions))]
		m := r.nodes[w.rng.IntN(len(r.nodes))]
		if !m.up() {
			continue
		}
		d, err := m.engine.Region().Definition(shared)
		if err != nil {
			continue
		}
		of := d.Partitions[w.rng.IntN(len(d.Partitions))]
		if len(of.Nodes) == 0 {
			continue
		}
		from, to := of.Nodes[w.rng.IntN(len(of.Nodes))], r.nodes[w.rng.IntN(len(r.nodes))].id
		ctx, cancel := p.WithTimeout(context.Background(), patience)
		err = w.call(ctx, w.clients, m, 0, func(ctx context.Context) error {
			return m.engine.Region().Move(ctx, shared, of.ID, from, to)
		})
		cancel()
		w.say("%s is asked to move partition %d from %d to %d: %v", m.name, of.ID, from, to, err)
		if err == nil {
			w.count.fault(faultMoved)
		}
	}
}
