package group

import (
	"fmt"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestANodeIsTakenInAndAnotherLetGo(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 11)
	n := newGrowing(t, 3, 1, 2)
	defer n.close()
	old := n.elect(0)
	for i := range 20 {
		old.propose(0, fmt.Sprint("before ", i))
	}
	n.settle(3)
	if n.nodes[3].groups[0].Leads() || len(n.nodes[3].ledgers[0].names) > 0 {
		t.Fatal("who was not taken in yet has something")
	}
	n.wants(1, 2, 3, 4)
	n.settle(60)
	for g := range n.groups {
		if !n.members(g, 1, 2, 3, 4) {
			t.Fatalf("the members of group %d are not all four", g)
		}
	}
	if got := len(n.nodes[3].ledgers[0].names); got != 20 {
		t.Errorf("the new node has %d of 20 commands", got)
	}
	// The leader goes: it hands over first.
	old = n.elect(0)
	var rest []uint64
	for _, id := range []uint64{1, 2, 3, 4} {
		if id != old.id {
			rest = append(rest, id)
		}
	}
	n.wants(rest...)
	n.settle(60)
	if !n.members(0, rest...) {
		t.Fatalf("the members are not %v", rest)
	}
	n.isolate(old)
	p := n.elect(0).propose(0, "after")
	n.settle(3)
	if !p.answered() || p.err != nil || p.result.Revision != 21 {
		t.Errorf("without the node that was let go: %v, %v, %+v", p.answered(), p.err, p.result)
	}
	// Who was let go cannot disturb the rest, whatever it believes.
	term := n.leader(0).groups[0].term
	clear(n.cut)
	n.settle(100)
	if leader := n.leader(0); leader == nil || leader == old || leader.groups[0].term != term {
		t.Error("a node that was let go has brought about an election")
	}
}

func TestMembersAreAsOfTheStateAfterACrash(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 12)
	n := newGrowing(t, 3, 2, 1)
	defer n.close()
	n.elect(0)
	n.wants(1, 4, 5)
	n.settle(100)
	if !n.members(0, 1, 4, 5) {
		t.Fatal("the members do not change")
	}
	for _, r := range n.nodes {
		r.crash(vfs.CrashCloneCfg{})
	}
	restart := func(nodes ...*replica) {
		for _, r := range nodes {
			if err := r.open(); err != nil {
				t.Fatal(err)
			}
		}
	}
	restart(n.nodes...)
	leader := n.elect(0)
	if !n.members(0, 1, 4, 5) || leader.id == 2 || leader.id == 3 {
		t.Errorf("after a crash node %d leads, and the members are not what they were", leader.id)
	}
}

// What a node has acted upon it must not forget: two of three elect a leader, two of four must not.
func TestTwoOfFourDoNotElectAfterACrashThoughTheyBeganAsTwoOfThree(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 14)
	n := newGrowing(t, 3, 1, 1)
	defer n.close()
	n.elect(0)
	n.wants(1, 2, 3, 4)
	n.settle(60)
	if !n.members(0, 1, 2, 3, 4) {
		t.Fatal("the members do not change")
	}
	for _, r := range n.nodes {
		r.crash(vfs.CrashCloneCfg{})
	}
	for _, r := range n.nodes[1:3] {
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		n.settle(1)
		for _, r := range n.nodes[1:3] {
			if r.groups[0].leading {
				t.Fatalf("node %d is elected by two of four", r.id)
			}
		}
	}
}

func TestANodeThatDoesNotCatchUpDoesNotVote(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 13)
	n := newGrowing(t, 3, 1, 1)
	defer n.close()
	n.elect(0)
	n.isolate(n.nodes[3])
	n.wants(1, 2, 4)
	n.settle(100)
	voters, learners := n.leader(0).groups[0].Members()
	if len(voters) != 3 || len(learners) != 1 || learners[0] != 4 {
		t.Errorf("with node 4 cut off %v vote and %v learn", voters, learners)
	}
	if !n.leader(0).groups[0].Leads() {
		t.Error("nobody leads")
	}
	clear(n.cut)
	n.settle(100)
	if !n.members(0, 1, 2, 4) {
		t.Error("the members do not change once node 4 is there")
	}
}
