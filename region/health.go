package region

import "slices"

// replicas is a group as this node knows it.
type replicas interface {
	Members() (voters, learners []uint64)
	Leader() uint64
}

// votersOf returns who votes in a group, by number.
func votersOf(g replicas) []uint64 {
	voters, _ := g.Members()
	return slices.Sorted(slices.Values(voters))
}

// Health is how a region's groups are, its catalog and every partition, as far as one node has heard.
type Health struct {
	Groups int
	Here   int // those of which this node has a replica
	// UnderReplicated are those that lack a replica: a voter that is down, or one that is to vote and does not yet.
	UnderReplicated int
	Moving          int // those whose voters are not those that are to hold them, yet
	Leaderless      int // those that nobody leads who is up
	Merging         int // partitions that are on their way into their left neighbours
}

// Health tells how the groups are of what is open at this node. It never waits.
func (r *Region) Health() (h Health) {
	up := append(r.host.Up(), r.cfg.NodeID)
	wanted := r.wantedOf()
	look := func(id uint64, g replicas) {
		h.Groups++
		voters := votersOf(g)
		votes := func(id uint64) bool { return slices.Contains(voters, id) && slices.Contains(up, id) }
		all := func(ids []uint64) bool { return !slices.ContainsFunc(ids, func(id uint64) bool { return !votes(id) }) }
		if !all(voters) || !all(wanted[id].Voters) {
			h.UnderReplicated++
		}
		if w := wanted[id].Voters; len(w) > 0 && !slices.Equal(voters, slices.Sorted(slices.Values(w))) {
			h.Moving++
		}
		if !slices.Contains(up, g.Leader()) {
			h.Leaderless++
		}
	}
	look(catalogGroup, r.catalogGroup)
	h.Here++
	for _, d := range r.catalog.view.Load().tables {
		for _, pd := range d.Partitions {
			if pd.Merging != nil {
				h.Merging++
			}
		}
	}
	for _, t := range r.Tables() {
		for _, p := range t.partitions() {
			look(p.ID, p)
			if p.replica.Load() != nil {
				h.Here++
			}
		}
	}
	return h
}

// Merges tells how many merges of partitions have ended while this node led the catalog, since its start, and how many were given up.
func (r *Region) Merges() (done, undone int64) { return r.merged.Load(), r.unmerged.Load() }

// Share is what a node has of the region's groups: its catalog, and every partition.
type Share struct {
	Votes  int   // groups in which it votes
	Wanted int   // groups in which it is to vote
	Leads  int   // groups that it leads
	Bytes  int64 // of the items in the partitions in which it votes
}

// Holding returns by node what it has, as far as this one has heard, and how many groups there are. Of a table that is not open here it
// knows of no votes.
func (r *Region) Holding() (by map[uint64]*Share, groups int) {
	by = map[uint64]*Share{}
	of := func(id uint64) *Share {
		if by[id] == nil {
			by[id] = &Share{}
		}
		return by[id]
	}
	count := func(g replicas, bytes int64) {
		for _, id := range votersOf(g) {
			of(id).Votes++
			of(id).Bytes += bytes
		}
		if leader := g.Leader(); leader != 0 {
			of(leader).Leads++
		}
	}
	wanted := r.wantedOf()
	wants := func(group uint64) {
		groups++
		for _, id := range wanted[group].Voters {
			of(id).Wanted++
		}
	}
	count(r.catalogGroup, 0)
	wants(catalogGroup)
	open := *r.tables.Load()
	for name, d := range r.catalog.view.Load().tables {
		for _, pd := range d.Partitions {
			wants(pd.ID)
		}
		if t := open[name]; t != nil && t.ID == d.ID {
			for _, p := range t.partitions() {
				count(p, p.State().Bytes)
			}
		}
	}
	return by, groups
}

// Up tells whether a node of the region has been heard of in the last second; this one has.
func (r *Region) Up(node uint64) bool {
	return node == r.cfg.NodeID || slices.Contains(r.host.Up(), node)
}
