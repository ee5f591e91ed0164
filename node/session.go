package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/api"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
)

// seen is api.Config's: it waits until all that another region had written to a table, or to one partition of it, up to a moment has been
// applied here.
func (r *replicator) seen(ctx context.Context, id string, w api.SessionWrite) error {
	arrived := make(chan struct{}, 1)
	r.mu.Lock()
	t := r.tables[id]
	if t == nil || !slices.Contains(t.members, w.Region) {
		leads := r.term > 0
		r.mu.Unlock()
		if !leads {
			return fmt.Errorf("this node does not know how far region %s has come", w.Region)
		}
		return fmt.Errorf("region %s has no replica of the table that is known here", w.Region)
	}
	t.waiting = append(t.waiting, arrived)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		t.waiting = slices.DeleteFunc(t.waiting, func(c chan struct{}) bool { return c == arrived })
		r.mu.Unlock()
	}()
	for {
		applied, lost := r.appliedOf(t, w)
		switch {
		case lost:
			return api.ErrLost
		case applied >= w.Clock:
			return nil
		}
		if r.tasks.Wait(ctx, arrived, 0) == task.Ended {
			return context.Cause(ctx)
		}
	}
}

// appliedOf returns up to which time a region's writes to a table have been applied here, and whether it is another instance now
// than the one meant: then nobody can tell.
func (r *replicator) appliedOf(t *replicated, w api.SessionWrite) (applied crdt.HLC, lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.peers[w.Region]; p != nil && p.defs != nil && p.instance != w.Instance {
		return 0, true
	}
	if w.Partition != 0 {
		return t.stability.AppliedOf(w.Region, w.Partition), false
	}
	return t.stability.Applied()[w.Region], false
}
