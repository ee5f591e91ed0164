package group

import (
	"context"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Who leads is spread over the nodes by number: each node tells the others how many groups it leads (sleep.go), and one that leads more than
// another hands it some of those that both hold. A node that is spared leads nothing: what it comes to lead it hands over at once.
//
// A group is handed only to who has everything, and has been there for a while; and only for a difference that handing over does not turn
// round, so that nothing is handed back. Who leads Config.Home has begun work that another would begin anew: that group stays.

const (
	// balanceTicks is how often a node looks whether it leads too many.
	balanceTicks = 20
	// maxHandedOver is how many groups it hands over then at most: clients of each wait for some milliseconds.
	maxHandedOver = 8
	// slackOf is what share of its groups a node may lead more than another.
	slackOf = 16
	// steadyTicks is for how long a node must have been there to be given groups for the sake of balance.
	steadyTicks = 50
)

// Spare says which nodes are to lead nothing from now on, if others can. It may be said again at any time, at every node.
func (h *Host) Spare(ctx context.Context, nodes []uint64) error {
	return h.call(ctx, func() { h.spared = nodes })
}

// leads is how many groups this node leads.
func (h *Host) leads() (n uint64) {
	for _, g := range h.live {
		if g.leading {
			n++
		}
	}
	return n
}

// balance hands over groups of which this node leads too many.
func (h *Host) balance() {
	if slices.Contains(h.spared, h.cfg.NodeID) {
		for _, g := range h.live {
			if g.leading {
				g.handOver(h, nil)
			}
		}
		return
	}
	if h.ticks%balanceTicks != h.cfg.NodeID%balanceTicks {
		return
	}
	own, handed := h.leads(), 0
	given := map[uint64]uint64{} // by node: groups that it will say it leads
	for _, g := range h.live {
		if handed == maxHandedOver {
			return
		}
		to := raft.None
		count := func(id uint64) uint64 { return h.beats[id].leads + given[id] }
		for _, id := range g.heirs(h) {
			if to == raft.None || count(id) < count(to) {
				to = id
			}
		}
		if to == raft.None || own < count(to)+2+own/slackOf && !mutant.On(mutant.HandedBack) {
			continue
		}
		g.wake(h)
		g.node.TransferLeader(to)
		h.mark(g)
		own--
		given[to]++
		handed++
	}
}

// heirs returns who could lead the group as well as this node, in order; none if it does not lead, or is to go on leading.
func (g *Group) heirs(h *Host) (ids []uint64) {
	if !g.leads.Load() || !g.leading || g.ID == h.cfg.Home {
		return nil
	}
	s := g.node.BasicStatus()
	if s.LeadTransferee != raft.None {
		return nil
	}
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id != h.cfg.NodeID && !pr.IsLearner && pr.State == tracker.StateReplicate && pr.Match+caughtUp >= s.HardState.GetCommit() &&
			h.steady(id) && !slices.Contains(h.spared, id) {
			ids = append(ids, id)
		}
	})
	slices.Sort(ids)
	return ids
}

// steady tells whether a node has been there for a while.
func (h *Host) steady(id uint64) bool {
	b := h.beats[id]
	return b.start != 0 && !h.missed(id) && h.ticks-b.since >= steadyTicks
}
