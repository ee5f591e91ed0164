package placement

import (
	"cmp"
	"slices"
)

// What is changed because it has to be: a partition is held by who is gone or going, by too few or by too many. Whoever lacks most comes first.

// free tells whether a partition can be given a change: its group can carry it out, and what it was given before is done, or cannot be done
// since who was to come is lost.
func (s *plan) free(p *part) bool {
	if p.changed || !s.carried(p.Voters) {
		return false
	}
	coming, lost := 0, 0
	for _, id := range p.want {
		if !slices.Contains(p.Voters, id) {
			if coming++; s.node(id).bad() {
				lost++
			}
		}
	}
	return lost > 0 || coming == 0 && len(p.Voters) == len(p.want) && len(p.Learners) == 0
}

// carried tells whether more than half of some voters are up.
func (s *plan) carried(voters []uint64) bool { return 2*s.healthy(voters) > len(voters) }

// healthy is how many of some nodes are up.
func (s *plan) healthy(ids []uint64) (n int) {
	for _, id := range ids {
		if of := s.node(id); of != nil && of.Up {
			n++
		}
	}
	return n
}

// needy returns the partitions that can be given a change and need one, those first that have fewest voters that are up.
func (s *plan) needy(needs func(*part) bool) (out []*part) {
	for _, p := range s.parts {
		if s.free(p) && needs(p) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *part) int { return cmp.Compare(s.healthy(a.Voters), s.healthy(b.Voters)) })
	return out
}

// name says of each partition that every node is to hold who does, once there are more nodes than replicas.
func (s *plan) name() {
	if s.staying() <= s.factor {
		return
	}
	for _, p := range s.parts {
		if p.Nodes != nil || len(p.Voters) == 0 {
			continue
		}
		for _, id := range p.want {
			if !slices.Contains(p.Voters, id) {
				s.give(p, id)
			}
		}
		for _, id := range p.Voters {
			if !slices.Contains(p.want, id) {
				s.take(p, id) // it leaves, and does so when another has taken its place
			}
		}
		s.change(p, Named)
	}
}

// replace has others hold what is held by nodes that are lost, or leave.
func (s *plan) replace() {
	for _, why := range []Reason{Lost, Leaving} {
		going := func(id uint64) bool {
			n := s.node(id)
			return why == Lost && n != nil && n.Lost && !n.Leaving || why == Leaving && (n == nil || n.Leaving)
		}
		for _, p := range s.needy(func(p *part) bool { return p.Nodes != nil && slices.ContainsFunc(p.want, going) }) {
			from := p.want[slices.IndexFunc(p.want, going)]
			rest := without(p.want, from)
			if len(rest) < s.factor {
				if to := s.candidate(p, rest); to != nil {
					s.give(p, from)
					s.take(p, to.ID)
					s.change(p, why)
					continue
				}
				// Who is lost may come back, and who leaves waits for who may take its place, if there is anybody.
				if why == Lost || s.spare(p) {
					continue
				}
			}
			if s.carried(rest) {
				s.give(p, from)
				s.change(p, why)
			}
		}
	}
}

// spare tells whether a node that is neither lost nor leaving is not to hold a partition.
func (s *plan) spare(p *part) bool {
	return slices.ContainsFunc(s.nodes, func(n *node) bool { return !n.bad() && !slices.Contains(p.want, n.ID) })
}

// add has another node hold what too few hold.
func (s *plan) add() {
	for _, p := range s.needy(func(p *part) bool { return p.Nodes != nil && len(p.want) < s.factor }) {
		if to := s.candidate(p, p.want); to != nil {
			s.take(p, to.ID)
			s.change(p, Missing)
		}
	}
}

// drop has nodes not hold what too many hold.
func (s *plan) drop() {
	for _, p := range s.needy(func(p *part) bool { return p.Nodes != nil && len(p.want) > s.factor }) {
		var from *node
		var most cost
		for _, id := range p.want {
			n, rest := s.node(id), without(p.want, id)
			if n == nil || !s.carried(rest) {
				continue
			}
			if c := s.cost(p, n, rest); from == nil || less(most, c) {
				from, most = n, c
			}
		}
		if from != nil {
			s.give(p, from.ID)
			s.change(p, Surplus)
		}
	}
}
