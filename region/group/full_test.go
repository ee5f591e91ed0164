package group

import (
	"slices"
	"testing"
	"testing/cryptotest"
)

func TestAFullNodeTakesNothingTheOthersGoOnAndItCatchesUpOnceThereIsRoom(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 8)
	n := newNetwork(t, 3, 2)
	defer n.close()
	leader := n.elect(1)
	home := n.elect(0)
	full := n.nodes[leader.id%3]
	full.host.cfg.Home = full.groups[0].ID
	full.host.SetFull(true)
	taken, made := leader.propose(1, "data"), home.propose(0, "catalog")
	n.settle(20)
	if !taken.answered() || taken.err != nil || !made.answered() || made.err != nil {
		t.Fatalf("the others do not go on: %v, %v", taken.err, made.err)
	}
	if len(full.ledgers[1].names) != 0 || !slices.Equal(full.ledgers[0].names, []string{"catalog"}) {
		t.Errorf("it took %q of the data, %q of the catalog", full.ledgers[1].names, full.ledgers[0].names)
	}
	full.host.SetFull(false)
	n.settle(60)
	if !slices.Equal(full.ledgers[1].names, []string{"data"}) {
		t.Errorf("with room it has %q", full.ledgers[1].names)
	}
}
