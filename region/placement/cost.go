package placement

import "slices"

// cost is what it costs to have a node hold a partition; what comes first counts more.
type cost [8]float64

const (
	costNew     = iota // 1: it does not hold it yet
	costDown           // 1: it is not up
	costDrained        // 1: it is drained
	costZone           // from here on: by how much the sums of squares grow of which balance.go tells
	costTable
	costCount
	costWeights
)

func less(a, b cost) bool { return slices.Compare(a[:], b[:]) < 0 }

// cost is what it costs to have a node hold a partition besides some others, from where it does not.
func (s *plan) cost(p *part, n *node, besides []uint64) (c cost) {
	for i, is := range [...]bool{costNew: !slices.Contains(p.Voters, n.ID), costDown: !n.Up, costDrained: n.Drained} {
		if is {
			c[i] = 1
		}
	}
	own := 0
	if slices.Contains(p.want, n.ID) {
		own = 1
	}
	grows := func(by, have float64) float64 { return by * (2*have + by) }
	zone := 0
	for _, id := range besides {
		if other := s.node(id); id != n.ID && other != nil && other.Zone == n.Zone {
			zone++
		}
	}
	c[costZone] = grows(1, float64(zone))
	c[costTable] = grows(1, float64(n.of[p.Table]-own))
	c[costCount] = grows(1, float64(n.replicas-own))
	for w := range weights {
		c[costWeights+w] = grows(p.weighs(w), n.carries[w]-float64(own)*p.weighs(w))
	}
	return c
}

// candidate returns who best holds a partition besides some others, nil if nobody can at present.
func (s *plan) candidate(p *part, besides []uint64) *node {
	return s.best(p, besides, func(n *node) bool { return !slices.Contains(p.want, n.ID) && s.takes(n, p) })
}

// takes tells whether a node can be given a partition now.
func (s *plan) takes(n *node, p *part) bool {
	return n.Up && !n.bad() && (n.coming < MaxComing || slices.Contains(p.Voters, n.ID))
}

// best returns the node for which it costs least to hold a partition besides others, of those that may.
func (s *plan) best(p *part, besides []uint64, may func(*node) bool) (best *node) {
	var least cost
	for _, n := range s.nodes {
		if slices.Contains(besides, n.ID) || !may(n) {
			continue
		}
		if c := s.cost(p, n, besides); best == nil || less(c, least) {
			best, least = n, c
		}
	}
	return best
}
