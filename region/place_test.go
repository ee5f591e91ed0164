package region

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/commutatordb/commutator/region/placement"
)

// Goal: each partition is held by as many nodes as there are to be replicas, and an operator is told what cannot be. Method: a region of five
// nodes in this process, and what stands in its catalog.

func TestATableBeginsWhereItIsSpreadEvenly(t *testing.T) {
	c := newClusterOf(t, 5, func(cfg *Config) { cfg.Partitions = 5 })
	c.until("all are up and say so", func() bool {
		return len(c.node(4).Members()) == 5 && !slices.ContainsFunc(c.nodes, func(m *member) bool { return !c.node(4).Up(m.id) })
	})
	create(t, c.node(4).Region, orders)
	d, err := c.node(4).Definition("orders")
	if err != nil {
		t.Fatal(err)
	}
	held := map[uint64]int{}
	for _, p := range d.Partitions {
		if len(p.Nodes) != 3 || !slices.IsSorted(p.Nodes) || !slices.Equal(p.Founders, p.Nodes) {
			t.Errorf("partition %d is to be held by %v, and begins with %v", p.ID, p.Nodes, p.Founders)
		}
		for _, id := range p.Nodes {
			held[id]++
		}
	}
	for id := range uint64(5) {
		if held[id+1] != 3 {
			t.Errorf("node %d is to hold %d partitions of 5", id+1, held[id+1])
		}
	}
	for i := range 20 {
		c.node(uint64(i%5)+1).write("orders", order("a", i, "open"))
	}
}

func TestAMoveIsRefusedThatCannotBe(t *testing.T) {
	c := newClusterOf(t, 3, nil)
	create(t, c.node(1).Region, orders)
	d, err := c.node(1).Definition("orders")
	if err != nil {
		t.Fatal(err)
	}
	id := d.Partitions[0].ID
	for _, of := range []struct {
		table     string
		partition uint64
		from, to  uint64
		want      error
	}{
		{"orders", id, 1, 2, ErrEverywhere},
		{"orders", 999, 1, 2, ErrNoPartition},
		{"nothing", id, 1, 2, ErrNoTable},
	} {
		if err := c.node(1).Move(t.Context(), of.table, of.partition, of.from, of.to); !errors.Is(err, of.want) {
			t.Errorf("%s, %d, from %d to %d: %v, want %v", of.table, of.partition, of.from, of.to, err, of.want)
		}
	}
}

func TestANodeIsLostOnceItWasSilentForLong(t *testing.T) {
	c := newClusterOf(t, 3, nil)
	leader := c.leader()
	gone := c.others(leader)[0]
	gone.kill()
	c.until("it is down", func() bool { return !leader.Up(gone.id) })
	p := &placer{silent: map[uint64]time.Duration{}, rates: map[uint64]rate{}}
	leader.cfg.ReplaceAfter = 3 * placeEvery
	for looks := range 5 {
		i := slices.IndexFunc(leader.placeable(p), func(n placement.Node) bool { return n.ID == gone.id })
		if n := leader.placeable(p)[i]; n.Lost != (looks >= 3) || n.Up {
			t.Errorf("after %d looks: %+v", looks, n)
		}
		p.look(leader.Region)
	}
	gone.start()
	c.until("it is up", func() bool { return leader.Up(gone.id) })
	if p.look(leader.Region); slices.ContainsFunc(leader.placeable(p), func(n placement.Node) bool { return n.Lost || !n.Up }) {
		t.Errorf("it is back: %+v", leader.placeable(p))
	}
}

// settled tells whether, as this node has heard, everything is held by those who are to hold it.
func (m *member) settled() bool {
	d, err := m.Definition("orders")
	if err != nil {
		return false
	}
	t := m.table("orders")
	for _, pd := range d.Partitions {
		if p := t.partitions().byID(pd.ID); p == nil || !slices.Equal(votersOf(p), pd.Nodes) {
			return false
		}
	}
	return true
}

// holds returns the number of partitions that each node is to hold.
func (m *member) holds() map[uint64]int {
	d, err := m.Definition("orders")
	if err != nil {
		m.c.t.Fatal(err)
	}
	out := map[uint64]int{}
	for _, pd := range d.Partitions {
		for _, id := range pd.Nodes {
			out[id]++
		}
	}
	return out
}

func TestWhatALostNodeHeldOthersHoldAndItTakesItsShareWhenItIsBack(t *testing.T) {
	c := newClusterOf(t, 5, func(cfg *Config) { cfg.Partitions, cfg.ReplaceAfter = 5, 2*time.Second })
	c.until("all are up", func() bool {
		return !slices.ContainsFunc(c.nodes, func(m *member) bool { return len(m.Members()) < 5 || len(m.host.Up()) < 4 })
	})
	create(t, c.node(1).Region, orders)
	for i := range 50 {
		c.nodes[i%5].write("orders", order("a", i, "open"))
	}
	c.until("all is as it is to be", c.node(1).settled)
	leader := c.leader()
	lost := c.others(leader)[0]
	lost.kill()
	c.until("others hold what it held", func() bool { return leader.holds()[lost.id] == 0 && leader.settled() })
	if h := leader.holds(); len(h) != 4 {
		t.Errorf("held: %v", h)
	}
	for _, m := range c.others(lost) {
		if n := m.items("orders", true); n != 50 {
			t.Errorf("node %d finds %d items", m.id, n)
		}
	}
	lost.start()
	c.until("it has its share again", func() bool { return leader.holds()[lost.id] >= 2 && leader.settled() })
	lost.ready()
	if n := lost.items("orders", true); n != 50 {
		t.Errorf("it finds %d items", n)
	}
	c.until("nothing is to be moved any more", func() bool {
		h := leader.Health()
		return h.UnderReplicated == 0 && h.Moving == 0
	})
}

func TestAPartitionIsMovedAndStays(t *testing.T) {
	c := newClusterOf(t, 5, func(cfg *Config) { cfg.Partitions = 1 })
	create(t, c.node(1).Region, orders)
	for i := range 20 {
		c.nodes[i%5].write("orders", order("a", i, "open"))
	}
	c.until("all is as it is to be", c.node(1).settled)
	d, err := c.node(1).Definition("orders")
	if err != nil {
		t.Fatal(err)
	}
	p, from, to := d.Partitions[0], d.Partitions[0].Nodes[0], uint64(1)
	for slices.Contains(p.Nodes, to) {
		to++
	}
	for _, of := range []struct {
		from, to uint64
		want     error
	}{{to, from, ErrHoldsNot}, {from, p.Nodes[1], ErrHolds}, {from, 9, ErrNoNode}} {
		if err := c.node(2).Move(t.Context(), "orders", p.ID, of.from, of.to); !errors.Is(err, of.want) {
			t.Errorf("from %d to %d: %v, want %v", of.from, of.to, err, of.want)
		}
	}
	if err := c.node(2).Move(t.Context(), "orders", p.ID, from, to); err != nil {
		t.Fatal(err)
	}
	c.until("it has moved", func() bool { return c.node(1).holds()[to] == 1 && c.node(1).holds()[from] == 0 && c.node(1).settled() })
	for _, m := range c.nodes {
		if n := m.items("orders", true); n != 20 {
			t.Errorf("node %d finds %d items", m.id, n)
		}
	}
	if next := placement.Next(3, c.node(1).placeable(nil), c.node(1).placedNow(nil)); len(next) > 0 {
		t.Errorf("it is to be moved again: %v", next)
	}
}
