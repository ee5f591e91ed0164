package region

import (
	"context"
	"errors"
	"slices"
)

// ErrAllDrained says that somebody has to lead.
var ErrAllDrained = errors.New("region: every other node is drained already: somebody has to lead")

// Drain has a node hand over all that it leads, and lead nothing from then on, as long as another can; undo ends that, and so does its next
// start. It may be up or down. What it leads still, Holding tells. It returns ErrNoNode, ErrNodeGone, ErrAllDrained or ErrNotSeveral.
func (r *Region) Drain(ctx context.Context, id uint64, undo bool) error {
	return r.askedMember(ctx, id, func(have Member, ok bool) (*Member, error) {
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
