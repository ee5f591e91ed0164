package group

import (
	"slices"
	"testing"
	"testing/cryptotest"
)

// The leader is lost with a proposal on its way to it. The proposer has the next one carry it out; what was on its way and comes after all
// comes too late.
func TestAProposalUnderWayIsCarriedOutOnceByTheNextLeader(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 21)
	n := newNetwork(t, 3, 1)
	defer n.close()
	old := n.elect(0)
	asked := n.nodes[old.id%3]
	p := asked.propose(0, "once")
	asked.step()
	i := slices.IndexFunc(n.flying, func(f flying) bool { return f.once && f.to == old.id })
	if i < 0 {
		t.Fatal("the proposal is not on its way to the leader")
	}
	held := n.flying[i]
	n.flying = slices.Delete(n.flying, i, i+1)
	n.isolate(old)
	n.settle(50)
	if !p.answered() || p.err != nil || p.result.Revision != 1 {
		t.Fatalf("with another leader: answered %v, %v, %+v", p.answered(), p.err, p.result)
	}
	clear(n.cut)
	n.settle(30)
	n.flying = append(n.flying, held)
	before := n.leader(0).groups[0].applied
	n.settle(30)
	if n.leader(0).groups[0].applied == before {
		t.Error("what was on its way has not come to the leader")
	}
	for _, r := range n.nodes {
		if got := r.ledgers[0].names; len(got) != 1 {
			t.Errorf("node %d has applied %q", r.id, got)
		}
	}
}

// Who appends an entry and is deposed before anybody else has it carries it out with the next leader, too.
func TestAProposalOfADeposedLeaderIsCarriedOut(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 22)
	n := newNetwork(t, 3, 1)
	defer n.close()
	old := n.elect(0)
	n.isolate(old)
	p := old.propose(0, "late")
	n.settle(50)
	if leader := n.leader(0); leader == nil || leader == old || p.answered() {
		t.Fatalf("no other leads, or the proposal is answered: %v", p.answered())
	}
	n.leader(0).propose(0, "first")
	n.settle(5)
	clear(n.cut)
	n.settle(20)
	if !p.answered() || p.err != nil || p.result.Revision != 2 {
		t.Fatalf("answered %v, %v, %+v", p.answered(), p.err, p.result)
	}
	for _, r := range n.nodes {
		if got := r.ledgers[0].names; !slices.Equal(got, []string{"first", "late"}) {
			t.Errorf("node %d has applied %q", r.id, got)
		}
	}
}
