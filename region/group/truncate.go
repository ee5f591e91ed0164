package group

import (
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/commutatordb/commutator/internal/mutant"
)

const (
	defaultKeepEntries = 4096
	// slackShare of Config.KeepEntries is what a follower keeps, should it come to lead: it does not know what others lack.
	slackShare = 16
	// activeTicks is how long a follower that is not heard of counts as one that lags.
	activeTicks = 50
)

// Flushed tells the host that the store has flushed: the log need not keep what is durable there. The store lets nobody in while it calls this:
// it must not wait, not even for mu, under which the store is asked.
func (h *Host) Flushed() {
	h.flushed.Store(true)
	h.signal()
}

func (h *Host) truncate() {
	h.batch.Reset()
	for _, g := range h.live {
		applied, err := h.durable(g.machine.AppliedKey())
		if err != nil {
			h.cfg.Logger.Error("group: what is durable is not known; the log is kept", "group", g.ID, "err", err)
			continue
		}
		if mutant.On(mutant.TruncateApplied) {
			applied = g.applied
		}
		if to := g.unneeded(applied, h); to > 0 {
			h.batch.Truncate(g.ID, to)
		}
	}
	if h.batch.Empty() {
		return
	}
	if err := h.cfg.Log.Commit(h.batch, false); err != nil {
		h.fatal(fmt.Errorf("group: truncate: %w", err))
	}
}

// durable returns the applied index that a crash right now would leave at key, 0 for none.
func (h *Host) durable(key []byte) (uint64, error) {
	it, err := h.cfg.Store.DurableIter(key, append(slices.Clone(key), 0))
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.First() || len(it.Value()) < 8 {
		return 0, it.Err()
	}
	return binary.BigEndian.Uint64(it.Value()), nil
}

// unneeded returns the last entry, up to the one whose effects are durable here, that no replica needs from this log.
func (g *Group) unneeded(durable uint64, h *Host) uint64 {
	if !g.several {
		return durable
	}
	least := g.applied - min(g.applied, h.keep)
	if !g.leading {
		return min(durable, g.applied-min(g.applied, h.keep/slackShare))
	}
	to := durable
	if index, ok := g.kept(h); ok {
		to = min(to, index)
	}
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == h.cfg.NodeID || h.ticks-h.beats[id].at > activeTicks {
			return
		}
		has := pr.Match
		if pr.State == tracker.StateSnapshot {
			has = max(has, pr.PendingSnapshot)
		}
		to = min(to, max(has, least))
	})
	return to
}
