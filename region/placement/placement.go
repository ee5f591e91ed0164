// Package placement says which nodes of a region are to hold which of its partitions: where those of a new table go, and which move comes next
// when nodes come and go and partitions grow.
//
// It leaves to its caller what there is and who is up, and to region/group how a group comes to other members: who is to come votes before
// who is to go is taken out.
//
// Invariants: what it says follows from its arguments alone. A partition is given one change at a time, and none that it could not carry out.
// Each change that nobody needs makes the whole more even, by one order of all ways to be placed (balance.go): said again and again of what
// does not change, it comes to an end, and nothing goes to and fro.
package placement

import (
	"cmp"
	"slices"
)

// Node is a node of the region that is not gone.
type Node struct {
	ID      uint64
	Zone    string // nodes of one zone may be lost together; "" is a zone as any other
	Up      bool   // it has been heard of lately
	Lost    bool   // it has not been up for so long that others are to hold what it holds
	Leaving bool   // it is to hold nothing
	Drained bool   // it is given nothing that another can take
}

// Partition is a partition as it is, and as it is to be.
type Partition struct {
	ID               uint64
	Table            uint32
	Nodes            []uint64 // who is to hold it, ascending; nil: every node
	Voters, Learners []uint64 // of its group, ascending; no voters: they are not known, and nothing is changed
	Bytes            int64    // of its items
	Load             float64  // writes a second
	Stays            bool     // it is not moved for the sake of balance
}

// Change says that a partition is to be held by other nodes from now on.
type Change struct {
	Partition  uint64
	Was, Nodes []uint64 // as in Partition
	Why        Reason
}

// Reason is why a partition is to be held by others.
type Reason string

// The reasons, in order of need.
const (
	Named   Reason = "there are more nodes than replicas"
	Lost    Reason = "a node is lost"
	Leaving Reason = "a node leaves"
	Missing Reason = "there are too few replicas"
	Surplus Reason = "there are too many replicas"
	Zones   Reason = "zones hold it more evenly"
	Tables  Reason = "nodes hold the table more evenly"
	Counts  Reason = "nodes hold as many replicas"
	Bytes   Reason = "nodes hold as many bytes"
	Load    Reason = "nodes are written to as much"
)

// MaxComing is how many replicas may be on their way to a node at a time: each is a copy of the whole partition, which costs who sends it and
// who takes it what their clients would have.
const MaxComing = 2

// Next returns the changes to make now, those first that are needed most; none: all is as it should be, or has to wait for what is on its way. factor
// is how many nodes are to hold a partition, if there are so many.
func Next(factor int, nodes []Node, partitions []Partition) []Change {
	s := newPlan(factor, nodes, partitions)
	s.name()
	s.replace()
	s.add()
	s.drop()
	s.balance()
	return s.changes
}

// New returns who is to hold each of n partitions of a table that is to be, nil for every node: there are no more than the factor.
func New(factor int, nodes []Node, partitions []Partition, table uint32, n int) [][]uint64 {
	s := newPlan(factor, nodes, partitions)
	out := make([][]uint64, n)
	if s.staying() <= factor {
		return out
	}
	all, last := slices.Clone(partitions), uint64(0)
	for i := range all {
		all[i].Stays, last = true, max(last, all[i].ID)
	}
	for i := range out {
		p := &part{Partition: Partition{ID: last + 1 + uint64(i), Table: table}}
		for len(p.want) < factor {
			best := s.best(p, p.want, func(n *node) bool { return !n.bad() })
			if best == nil {
				break
			}
			s.take(p, best.ID)
		}
		p.Nodes, p.Voters = p.want, p.want
		all = append(all, p.Partition)
	}
	// One after the other may leave some to be moved at once, where zones are not of one size.
	own := all[len(partitions):]
	for moved := true; moved; {
		moved = false
		for _, c := range Next(factor, nodes, all) {
			if c.Partition > last {
				p := &own[c.Partition-last-1]
				p.Nodes, p.Voters, moved = c.Nodes, c.Nodes, true
			}
		}
	}
	for i := range out {
		out[i] = own[i].Nodes
	}
	return out
}

// plan is what there will be once the changes are made that were found so far.
type plan struct {
	factor  int
	nodes   []*node // by number
	parts   []*part // by id
	changes []Change
}

type node struct {
	Node
	replicas, coming int
	of               map[uint32]int // replicas, by table
	carries          [weights]float64
}

// bad tells whether others are to hold what the node holds.
func (n *node) bad() bool { return n == nil || n.Lost || n.Leaving }

type part struct {
	Partition
	want    []uint64 // ascending
	changed bool
}

func newPlan(factor int, nodes []Node, partitions []Partition) *plan {
	s := &plan{factor: factor}
	for _, n := range nodes {
		s.nodes = append(s.nodes, &node{Node: n, of: map[uint32]int{}})
	}
	slices.SortFunc(s.nodes, func(a, b *node) int { return cmp.Compare(a.ID, b.ID) })
	for _, p := range partitions {
		s.parts = append(s.parts, &part{Partition: p})
	}
	slices.SortFunc(s.parts, func(a, b *part) int { return cmp.Compare(a.ID, b.ID) })
	for _, p := range s.parts {
		wants := p.Nodes
		if wants == nil {
			for _, n := range s.nodes {
				if !n.Leaving {
					wants = append(wants, n.ID)
				}
			}
		}
		for _, id := range wants {
			s.take(p, id)
		}
	}
	return s
}

// node returns a node, nil for one that is gone.
func (s *plan) node(id uint64) *node {
	i, ok := slices.BinarySearchFunc(s.nodes, id, func(n *node, id uint64) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return nil
	}
	return s.nodes[i]
}

// staying is how many nodes there are to hold anything, be they up or not.
func (s *plan) staying() (n int) {
	for _, of := range s.nodes {
		if !of.Leaving {
			n++
		}
	}
	return n
}

// take has a node hold a partition.
func (s *plan) take(p *part, id uint64) {
	i, _ := slices.BinarySearch(p.want, id)
	p.want = slices.Insert(slices.Clone(p.want), i, id)
	s.count(p, id, 1)
}

// give has a node not hold a partition any more.
func (s *plan) give(p *part, id uint64) {
	p.want = without(p.want, id)
	s.count(p, id, -1)
}

func (s *plan) count(p *part, id uint64, by int) {
	n := s.node(id)
	if n == nil {
		return
	}
	n.replicas += by
	n.of[p.Table] += by
	for w := range weights {
		n.carries[w] += float64(by) * p.weighs(w)
	}
	if !slices.Contains(p.Voters, id) && s.carried(p.Voters) { // or else it does not come for now
		n.coming += by
	}
}

// change notes what has become of a partition.
func (s *plan) change(p *part, why Reason) {
	p.changed = true
	s.changes = append(s.changes, Change{Partition: p.ID, Was: p.Nodes, Nodes: p.want, Why: why})
}

func without(ids []uint64, id uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(ids), func(have uint64) bool { return have == id })
}
