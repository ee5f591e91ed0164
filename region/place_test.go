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
