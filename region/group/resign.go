package group

import (
	"context"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/commutatordb/commutator/internal/task"
)

// Resign hands every group that this node leads to another node, and returns once it leads none, or ctx has ended: what clients want of the
// groups then need not wait for an election. Nothing keeps it from leading again later.
func (h *Host) Resign(ctx context.Context) error {
	if !h.cfg.Several {
		return nil
	}
	for {
		leads := 0
		if err := h.call(ctx, func() { leads = h.resign() }); err != nil || leads == 0 {
			return err
		}
		if h.cfg.Tasks.Wait(ctx, nil, h.cfg.Tick) == task.Ended {
			return context.Cause(ctx)
		}
	}
}

// resign asks the best follower of each group that this node leads to take over, and returns how many there are.
func (h *Host) resign() (leads int) {
	for _, g := range h.live {
		if !g.leading {
			continue
		}
		leads++
		g.handOver(h, nil)
	}
	return leads
}

// handOver asks the follower to take over that has most of the log, of those heard of lately; one of these nodes, nil for any. One that is to be
// spared takes over only from a node that is not, or that has to go.
func (g *Group) handOver(h *Host, of []uint64) {
	g.wake(h)
	var best, most uint64
	spares := func(id uint64) bool { return slices.Contains(h.spared, id) }
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == h.cfg.NodeID || pr.IsLearner || !pr.RecentActive || pr.State != tracker.StateReplicate || of != nil && !slices.Contains(of, id) || of == nil && spares(id) && spares(h.cfg.NodeID) {
			return
		}
		if best == raft.None || spares(best) && !spares(id) || spares(best) == spares(id) && pr.Match > most {
			best, most = id, pr.Match
		}
	})
	if best != raft.None {
		g.node.TransferLeader(best)
		h.mark(g)
	}
}
