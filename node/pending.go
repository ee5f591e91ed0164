package node

import (
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// What another region has not acknowledged yet.

// Pending returns, by region, how many changes of this region's a table's replica there has not acknowledged. Beyond pendingExactly it
// counts what others wrote, too.
func (r *replicator) Pending(d *table.Definition) map[string]uint64 {
	out := map[string]uint64{}
	r.mu.Lock()
	leads := r.term > 0
	r.mu.Unlock()
	if !leads {
		return out
	}
	for _, o := range d.Others(r.self) {
		out[o.Region] = 0
		for _, t := range r.region.Tables() {
			if t.ID != d.ID {
				continue
			}
			for _, p := range t.Partitions() {
				r.mu.Lock()
				var acked uint64
				if known := r.tables[d.GlobalID]; known != nil {
					acked = known.acked[o.Region][p.ID]
				}
				r.mu.Unlock()
				out[o.Region] += pending(p, acked)
			}
		}
	}
	return out
}

// pendingExactly is how many entries of a change log are looked at to count.
const pendingExactly = 4096

func pending(p *region.Partition, acked uint64) uint64 {
	seq := p.State().Seq
	if acked = max(acked, p.State().Trimmed); acked >= seq {
		return 0
	}
	if seq-acked > pendingExactly {
		return seq - acked
	}
	var n uint64
	for acked < seq {
		changes, last, _, err := p.Changes(acked, 1<<20)
		if err != nil {
			return seq - acked + n
		}
		n, acked = n+uint64(len(changes)), last
	}
	return n
}
