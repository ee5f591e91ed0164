package placement

import (
	"cmp"
	"math"
	"slices"
)

// How evenly partitions are placed is told by sums of squares, which are the least where all are alike: of each partition's replicas by zone, of
// each table's by node, of all by node. They count in that order: a partition is moved if that makes the first one less that it changes. What is
// left is how many bytes nodes hold, and how much is written to them. Both are never quite alike and change all the time, so a partition is
// moved, or two change places, only if two nodes are far apart, if that brings them much closer, and if no count gets worse by it.
//
// Why it ends: no move makes the counts more, in their order, and those that are for them make them less. While they stay, each move for bytes
// makes the sum of the squares of bytes less; and a move for load, which makes that of loads less, leaves the nodes that it touches far
// from no other in bytes, so there is no more to do for bytes than there was.

// What nodes carry beside replicas.
const (
	weighBytes = iota
	weighLoad
	weights
)

func (p *part) weighs(w int) float64 {
	if w == weighBytes {
		return float64(p.Bytes)
	}
	return p.Load
}

var (
	// Two nodes are far apart if they are so by this share of what nodes carry on average, and by this at all.
	farShare = [weights]float64{weighBytes: 0.25, weighLoad: 0.5}
	farLeast = [weights]float64{weighBytes: 1 << 30, weighLoad: 1000}
)

// closer is the share of their distance that two nodes must be brought closer by, to be worth a move.
const closer = 0.25

// balance moves what nobody needs to be moved.
func (s *plan) balance() {
	for s.even() || s.weigh(weighBytes, Bytes) || s.weigh(weighLoad, Load) {
	}
}

// movable tells whether a partition can be moved for the sake of balance.
func (s *plan) movable(p *part) bool {
	return p.Nodes != nil && !p.Stays && s.free(p) && s.healthy(p.want) == len(p.want) &&
		!slices.ContainsFunc(p.want, func(id uint64) bool { return s.node(id).bad() })
}

// counts are by how much a move makes the sums of squares more that are counted: by zone, of the table, of all.
type counts [3]float64

func (a counts) compare(b counts) int { return slices.Compare(a[:], b[:]) }

// moves tells what it does to the counts that a partition is moved; rest are the others that hold it.
func (s *plan) moves(p *part, rest []uint64, from, to *node) (c counts) {
	less, more := s.cost(p, from, rest), s.cost(p, to, rest)
	for i := range c {
		c[i] = more[costZone+i] - less[costZone+i]
	}
	return c
}

// receives tells whether a node may be given a partition for the sake of balance.
func (s *plan) receives(n *node, p *part) bool {
	return !slices.Contains(p.want, n.ID) && !n.Drained && s.takes(n, p)
}

func (s *plan) move(p *part, from, to *node, why Reason) {
	s.give(p, from.ID)
	s.take(p, to.ID)
	s.change(p, why)
}

// even makes the move that makes the counts least, if one makes them less.
func (s *plan) even() bool {
	var what *part
	var from, to *node
	var least counts
	for _, p := range s.parts {
		if !s.movable(p) {
			continue
		}
		for _, id := range p.want {
			a, rest := s.node(id), without(p.want, id)
			for _, b := range s.nodes {
				if !s.receives(b, p) {
					continue
				}
				if c := s.moves(p, rest, a, b); c.compare(least) < 0 {
					what, from, to, least = p, a, b, c
				}
			}
		}
	}
	if what == nil {
		return false
	}
	why := Counts
	switch {
	case least[0] < 0:
		why = Zones
	case least[1] < 0:
		why = Tables
	}
	s.move(what, from, to, why)
	return true
}

// weigh brings two nodes closer that are far apart, by one move or by having two partitions change places.
func (s *plan) weigh(w int, why Reason) bool {
	far := s.far(w)
	type pair struct{ a, b *node }
	var pairs []pair
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			if a.carries[w]-b.carries[w] > far && !b.bad() {
				pairs = append(pairs, pair{a, b})
			}
		}
	}
	slices.SortStableFunc(pairs, func(x, y pair) int {
		return cmp.Compare(y.a.carries[w]-y.b.carries[w], x.a.carries[w]-x.b.carries[w])
	})
	for _, at := range pairs {
		if p, q := s.exchange(w, at.a, at.b); p != nil {
			s.move(p, at.a, at.b, why)
			if q != nil {
				s.move(q, at.b, at.a, why)
			}
			return true
		}
	}
	return false
}

// far is from what distance on two nodes are far apart.
func (s *plan) far(w int) float64 {
	sum, n := 0.0, 0
	for _, of := range s.nodes {
		if !of.bad() {
			sum, n = sum+of.carries[w], n+1
		}
	}
	return max(farLeast[w], farShare[w]*sum/float64(max(n, 1)))
}

// exchange returns what a node that carries much more than another is best to give to it, and what to take for it, nil for nothing.
func (s *plan) exchange(w int, a, b *node) (p, q *part) {
	out, back := s.between(w, a, b), s.between(w, b, a)
	half := (a.carries[w] - b.carries[w]) / 2
	least := half * (1 - closer)
	try := func(give, take *part) {
		by, c := give.weighs(w), s.moves(give, without(give.want, a.ID), a, b)
		if take != nil {
			by -= take.weighs(w)
			if d := s.moves(take, without(take.want, b.ID), b, a); take.Table == give.Table {
				c = counts{c[0] + d[0]}
			} else {
				c = counts{c[0] + d[0], c[1] + d[1]}
			}
		}
		if off := math.Abs(by - half); off < least && c.compare(counts{}) <= 0 && (w == weighBytes || s.stillClose(give, take, a, b)) {
			p, q, least = give, take, off
		}
	}
	for _, give := range out {
		try(give, nil)
	}
	if p != nil {
		return p, nil
	}
	for _, give := range out {
		// Of those that would do, the ones nearest to the best.
		i, _ := slices.BinarySearchFunc(back, give.weighs(w)-half, func(q *part, at float64) int { return cmp.Compare(q.weighs(w), at) })
		for j := max(0, i-tried); j < min(len(back), i+tried); j++ {
			try(give, back[j])
		}
	}
	return p, q
}

// tried is how many partitions are looked at on either side of the one that would be best to take for another.
const tried = 8

// between returns the partitions that one node could give to another, by what they weigh.
func (s *plan) between(w int, from, to *node) (out []*part) {
	for _, p := range s.parts {
		if slices.Contains(p.want, from.ID) && s.receives(to, p) && s.movable(p) {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(p, q *part) int { return cmp.Compare(p.weighs(w), q.weighs(w)) })
	return out
}

// stillClose tells whether two nodes are far from no other in bytes once one has given a partition to the other, and has taken another for it.
func (s *plan) stillClose(give, take *part, a, b *node) bool {
	by := give.weighs(weighBytes)
	if take != nil {
		by -= take.weighs(weighBytes)
	}
	far := s.far(weighBytes)
	holds := func(n *node) float64 {
		switch n {
		case a:
			return n.carries[weighBytes] - by
		case b:
			return n.carries[weighBytes] + by
		}
		return n.carries[weighBytes]
	}
	for _, n := range s.nodes {
		if !n.bad() && (math.Abs(holds(n)-holds(a)) > far || math.Abs(holds(n)-holds(b)) > far) {
			return false
		}
	}
	return true
}
