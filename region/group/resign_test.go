package group

import (
	"testing"
	"testing/cryptotest"
)

func TestWhoResignsLeadsNothingTwoTicksLaterAndAnotherLeads(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 7)
	n := newNetwork(t, 3, 4)
	defer n.close()
	for g := range n.groups {
		n.elect(g)
	}
	r := n.leader(0)
	// One that has not kept up is not handed anything.
	lags := n.nodes[r.id%3]
	n.isolate(lags)
	r.propose(0, "kept")
	n.settle(40)
	clear(n.cut)
	led := 0
	for g := range n.groups {
		if n.leader(g) == r {
			led++
		}
	}
	if got := r.host.resign(); got != led || led == 0 {
		t.Fatalf("it led %d groups, and resigns from %d", led, got)
	}
	n.settle(2)
	for g := range n.groups {
		if l := n.leader(g); l == nil || l == r {
			t.Errorf("group %d is led by %v", g, l)
		}
	}
	if got := r.host.resign(); got != 0 {
		t.Errorf("it leads %d groups still", got)
	}
	p := r.propose(0, "later")
	n.settle(3)
	if !p.answered() || p.err != nil {
		t.Errorf("asked at the node that has resigned: answered %v, %v", p.answered(), p.err)
	}
}
