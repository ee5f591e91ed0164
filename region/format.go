package region

import (
	"context"
	"fmt"

	"github.com/commutatordb/commutator/internal/format"
)

// The nodes of a region are given a newer program one after the other, and meanwhile both must read what either writes. So a newer format is
// written only when all are through: once every node's program knows it, each node notes on its disk that its data is of it from now on, so
// that an older program will not open it, and says so in its row of the catalog; and once every row says so, it may be written. From the first
// note on, nobody goes back.

// Format is the newest format that may be written here: every node of the region reads it, and will after a restart.
func (r *Region) Format() int {
	if !r.several {
		return int(r.format.Load())
	}
	return r.least(func(m Member) int { return max(m.Format, format.Oldest) })
}

// least returns the least of what the nodes of the region say, format.Oldest while one has not said anything.
func (r *Region) least(of func(Member) int) int {
	nodes := r.catalog.view.Load().nodes
	least := format.Known
	for _, id := range r.cfg.Voters {
		if _, ok := nodes[id]; !ok {
			return format.Oldest
		}
	}
	for _, n := range nodes {
		if n.State != MemberGone {
			least = min(least, of(n.Member))
		}
	}
	return least
}

// highest returns the newest format that any node's data may have.
func (r *Region) highest() int {
	highest := format.Oldest
	for _, n := range r.catalog.view.Load().nodes {
		highest = max(highest, n.Format)
	}
	return highest
}

// keepFormat raises the format of this node's data once every node of the region knows a newer one.
func (r *Region) keepFormat(ctx context.Context) error {
	own, _ := r.Member(r.cfg.NodeID)
	to := max(r.least(func(m Member) int { return max(m.Knows, format.Oldest) }), own.Format)
	if from := int(r.format.Load()); to > from {
		if r.cfg.RaiseFormat != nil {
			if err := r.cfg.RaiseFormat(to); err != nil {
				return fmt.Errorf("region: format %d: %w", to, err)
			}
		}
		r.format.Store(int64(to))
		r.cfg.Logger.Info("region: every node knows a newer format, and this node's data is of it from now on: an older version will not start on it", "from", from, "to", to)
	}
	if own.Instance != 0 && own.Format < int(r.format.Load()) {
		return r.enrol(ctx)
	}
	return nil
}
