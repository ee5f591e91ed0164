package region

import (
	"slices"
)

// replicas is a group as this node knows it.
type replicas interface {
	Members() (voters, learners []uint64)
	Leader() uint64
}

// Health is how a region's groups are, its catalog and every partition, as far as one node has heard.
type Health struct {
	Groups int
	// UnderReplicated are those that lack a replica: a voter that is down, or one that is to vote and does not yet.
	UnderReplicated int
	Leaderless      int // those that nobody leads who is up
}

// Health tells how the groups are of what is open at this node. It never waits.
func (r *Region) Health() (h Health) {
	up := append(r.host.Up(), r.cfg.NodeID)
	look := func(g replicas) {
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
			look(p)
		}
	}
	return h
}

// Up tells whether a node of the region has been heard of in the last second; this one has.
func (r *Region) Up(node uint64) bool {
	return node == r.cfg.NodeID || slices.Contains(r.host.Up(), node)
}
