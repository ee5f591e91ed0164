package group

import (
	"fmt"
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// leaders returns who leads each group, 0 for nobody, and how many each node leads.
func (n *network) leaders() (by []uint64, led [4]int) {
	for g := range n.groups {
		id := uint64(0)
		if r := n.leader(g); r != nil {
			id = r.id
		}
		by = append(by, id)
		led[id]++
	}
	return by, led
}

func TestLeadersAreSpreadAndThenStay(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	n := newNetwork(t, 3, 30)
	defer n.close()
	n.asleep()
	gone := n.nodes[1]
	gone.crash(vfs.CrashCloneCfg{})
	n.settle(50)
	if _, led := n.leaders(); led != [4]int{0, 15, 0, 15} {
		t.Errorf("with one node down they lead %v", led)
	}
	if err := gone.open(); err != nil {
		t.Fatal(err)
	}
	n.settle(steadyTicks + 4*balanceTicks)
	before, led := n.leaders()
	for id := 1; id <= 3; id++ {
		if led[id] < 9 || led[id] > 11 {
			t.Errorf("with all nodes up again they lead %v", led)
		}
	}
	n.settle(10 * balanceTicks)
	if after, _ := n.leaders(); !slices.Equal(before, after) {
		t.Errorf("they lead\n%v, and later\n%v", before, after)
	}
	n.asleep()
}

func TestWhoIsSparedLeadsNothingUntilItIsNotAnyMore(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 2)
	n := newNetwork(t, 3, 12)
	defer n.close()
	n.asleep()
	spare := func(nodes ...uint64) {
		for _, r := range n.nodes {
			r.host.spared = nodes
		}
	}
	spare(2)
	n.settle(10)
	if _, led := n.leaders(); led[2] != 0 || led[0] != 0 {
		t.Errorf("they lead %v", led)
	}
	// Not even when another is lost, as long as there is one more.
	n.nodes[0].crash(vfs.CrashCloneCfg{})
	n.settle(50)
	if _, led := n.leaders(); led != [4]int{0, 0, 0, 12} {
		t.Errorf("with another down they lead %v", led)
	}
	if err := n.nodes[0].open(); err != nil {
		t.Fatal(err)
	}
	n.settle(steadyTicks + 4*balanceTicks)
	if _, led := n.leaders(); led[2] != 0 {
		t.Errorf("with that one up again they lead %v", led)
	}
	spare()
	n.settle(8 * balanceTicks)
	if _, led := n.leaders(); led[2] < 3 {
		t.Errorf("once it is spared no more they lead %v", led)
	}
	for g := range n.groups {
		p := n.nodes[1].propose(g, fmt.Sprint(g))
		n.settle(1)
		if !p.answered() || p.err != nil {
			t.Errorf("group %d: answered %v, %v", g, p.answered(), p.err)
		}
	}
}
