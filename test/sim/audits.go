package sim

import (
	"context"
	"time"

	"github.com/commutatordb/commutator/region"
)

// audits has nodes hold what they lead against the other replicas, while things break: whatever breaks, and whoever applies when, at one
// entry of the log all replicas hold the same.
func (w *world) audits(until time.Duration) {
	p := w.clients.proc
	for w.pause(200*time.Millisecond, 2*time.Second); w.now < until; w.pause(200*time.Millisecond, 2*time.Second) {
		at := w.nodes[w.rng.IntN(len(w.nodes))]
		if at.engine == nil {
			continue
		}
		ctx, cancel := p.WithTimeout(context.Background(), patience)
		var a region.Audited
		err := w.call(ctx, w.clients, at, 0, func(ctx context.Context) (err error) {
			a, err = at.engine.Region().Audit(ctx)
			return err
		})
		cancel()
		if err != nil {
			continue
		}
		w.count.Audited += a.Same
		if a.Differ > 0 {
			w.violate("%s has found replicas of %d groups different", at.name, a.Differ)
		}
	}
}
