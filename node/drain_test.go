package node_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/commutatordb/commutator/region"
)

func TestADrainedNodeLeadsNothingUntilItIsStartedAnew(t *testing.T) {
	w := newSite(t, 3, "us-east-1")
	w.create("us-east-1")
	nodes := w.nodes["us-east-1"]
	at := func(i int) *region.Region { return nodes[i].node.Region() }
	leads := func(i int) int { held, _ := at(1).Holding(); return held[uint64(i+1)].Leads }
	w.until("everything is led", func() bool { return at(1).Health() == region.Health{Groups: 1 + 3, Here: 1 + 3} })

	if err := at(1).Drain(t.Context(), 1, false); err != nil {
		t.Fatal(err)
	}
	w.until("the first leads nothing", func() bool { return leads(0) == 0 && leads(1)+leads(2) == 1+3 })
	if err := nodes[0].put("at the first"); err != nil || !nodes[0].has("at the first") {
		t.Errorf("it does not answer: %v", err)
	}
	if err := at(2).Drain(t.Context(), 2, false); err != nil {
		t.Fatal(err)
	}
	if err := at(2).Drain(t.Context(), 3, false); !errors.Is(err, region.ErrAllDrained) {
		t.Errorf("all of them: %v", err)
	}
	if err := at(2).Drain(t.Context(), 9, false); !errors.Is(err, region.ErrNoNode) {
		t.Errorf("one that is not there: %v", err)
	}
	w.until("the third leads everything", func() bool { return leads(2) == 1+3 })

	// Where nobody else is left, even a drained one leads.
	nodes[2].stop()
	w.until("the others see it", func() bool { h := at(1).Health(); return h.UnderReplicated == 1+3 && h.Leaderless == 0 && !at(1).Up(3) })
	if err := nodes[0].put("without the third"); err != nil {
		t.Error(err)
	}
	nodes[2].start()
	w.until("it is up again", func() bool { return at(1).Health() == region.Health{Groups: 1 + 3, Here: 1 + 3} })

	nodes[0].stop()
	nodes[0].start()
	w.until("the first is drained no more", func() bool { m, _ := at(2).Member(1); return !m.Drained })
	if err := at(2).Drain(t.Context(), 2, true); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		w.until(fmt.Sprintf("node %d leads again", i+1), func() bool { return leads(i) > 0 })
	}
}
