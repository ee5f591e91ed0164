package region

import (
	"context"
	"errors"
	"time"

	"github.com/commutatordb/commutator/region/group"
)

// auditLimit bounds the audit of one group: some hundred gigabytes are digested in that.
const auditLimit = time.Hour

// Audited is what has come of Audit, by groups.
type Audited struct {
	Same   int
	Differ int // of which two voters hold something else, and most cannot say who is right
	Open   int // that could not be audited now: a replica was down, or the leader changed
}

// Audit holds the replicas of every group that this node leads against each other, one group after the other, each as of one entry of its log; it
// may take hours. A replica that most others contradict ends its node (group.ErrDiverged). In a region of one node there is nothing to do.
// It ends with ctx.
func (r *Region) Audit(ctx context.Context) (a Audited, err error) {
	if !r.several {
		return a, nil
	}
	groups := []*group.Group{r.catalogGroup}
	for _, t := range r.Tables() {
		for _, p := range t.partitions() {
			if g := p.replica.Load(); g != nil {
				groups = append(groups, g)
			}
		}
	}
	for _, g := range groups {
		if !g.Leads() {
			continue
		}
		same, err := r.audit(ctx, g)
		switch {
		case ctx.Err() != nil:
			return a, context.Cause(ctx)
		case errors.Is(err, group.ErrClosed):
			return a, err
		case err != nil:
			a.Open++
			r.cfg.Logger.Info("region: the replicas of a group are not held against each other this time", "group", g.ID, "err", err)
		case same:
			a.Same++
		default:
			a.Differ++
		}
	}
	return a, nil
}

func (r *Region) audit(ctx context.Context, g *group.Group) (bool, error) {
	ctx, cancel := r.cfg.Tasks.WithTimeout(ctx, auditLimit)
	defer cancel()
	return g.Audit(ctx)
}

// Audits tells what has come of audits of which this node has heard, since its start.
func (r *Region) Audits() group.Audits { return r.host.Audits() }
