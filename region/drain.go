package region

import (
	"context"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/region/group"
)

// ErrAllDrained says that somebody has to lead.
var ErrAllDrained = errors.New("region: every other node is drained already: somebody has to lead")

// Drain has a node hand over all that it leads, and lead nothing from then on, as long as another can; undo ends that, and so does its next
// start. It may be up or down. What it leads still, Holding tells. It returns ErrNoNode, ErrNodeGone, ErrAllDrained or ErrNotSeveral.
func (r *Region) Drain(ctx context.Context, id uint64, undo bool) error {
	if !r.several {
		return ErrNotSeveral
	}
	if err := r.CatchUp(ctx); err != nil {
		return err
	}
	return r.changeMember(ctx, id, func(have Member, ok bool) (*Member, error) {
		switch {
		case !ok:
			return nil, ErrNoNode
		case have.State != MemberHolds:
			return nil, ErrNodeGone
		case have.Drained != undo:
			return nil, nil
		case !undo && !slices.ContainsFunc(r.Members(), func(m Member) bool { return m.ID != id && m.State == MemberHolds && !m.Drained }):
			return nil, ErrAllDrained
		}
		have.Drained = !undo
		r.cfg.Logger.Info("region: who is to lead nothing changes", "node", id, "name", have.Name, "drained", have.Drained)
		return &have, nil
	})
}

// drained returns the nodes that are to lead nothing.
func (r *Region) drained() (ids []uint64) {
	for _, m := range r.Members() {
		if m.Drained {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// Health is how a region's groups are, its catalog and every partition, as far as one node has heard.
type Health struct {
	Groups int
	// UnderReplicated are those that lack a replica: a voter that is down, or one that is to vote and does not yet.
	UnderReplicated int
	Leaderless      int // those that nobody leads who is up
}

// Health tells how the groups are that are open at this node. It never waits.
func (r *Region) Health() (h Health) {
	up := append(r.host.Up(), r.cfg.NodeID)
	look := func(g *group.Group) {
		h.Groups++
		voters, learners := g.Members()
		if len(learners) > 0 || slices.ContainsFunc(voters, func(id uint64) bool { return !slices.Contains(up, id) }) {
			h.UnderReplicated++
		}
		if !slices.Contains(up, g.Leader()) {
			h.Leaderless++
		}
	}
	look(r.catalogGroup)
	for _, t := range r.Tables() {
		for _, p := range t.partitions() {
			look(p.group)
		}
	}
	return h
}

// Up tells whether a node of the region has been heard of in the last second; this one has.
func (r *Region) Up(node uint64) bool {
	return node == r.cfg.NodeID || slices.Contains(r.host.Up(), node)
}
