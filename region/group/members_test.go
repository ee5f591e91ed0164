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

func TestEachGroupGoesWhereItIsWanted(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 15)
	n := newGrowing(t, 3, 2, 4)
	defer n.close()
	n.elect(0)
	n.wantsOf(map[uint64]Wanted{1: {Voters: []uint64{1, 2, 3, 4, 5}}, 2: {Voters: []uint64{2, 4, 5}}, 3: {Voters: []uint64{1, 4, 5}}})
	n.settle(100)
	if !n.members(0, 1, 2, 3, 4, 5) || !n.members(1, 2, 4, 5) || !n.members(2, 1, 4, 5) || !n.members(3, 1, 2, 3) {
		t.Fatal("the members are not those that are wanted; or those have changed of whom nothing is said")
	}
	for i, r := range n.nodes {
		r.propose(0, fmt.Sprint(i))
	}
	// All sleep that are held by three of five nodes, and what has come to sleep wakes for another word.
	sleep := func(group int, nodes ...uint64) bool {
		for _, id := range nodes {
			if !n.nodes[id-1].groups[group].asleep {
				return false
			}
		}
		return true
	}
	n.settle(100)
	if !sleep(0, 1, 2, 3, 4, 5) || !sleep(1, 2, 4, 5) || !sleep(2, 1, 4, 5) || !sleep(3, 1, 2, 3) {
		t.Fatal("not all groups sleep")
	}
	n.wantsOf(map[uint64]Wanted{2: {Voters: []uint64{1, 4, 5}}, 3: {Voters: []uint64{1, 4, 5}}})
	n.settle(1)
	if !sleep(2, 1, 4, 5) {
		t.Error("a group wakes for which nothing has changed")
	}
	n.settle(100)
	if !n.members(1, 1, 4, 5) || !n.members(0, 1, 2, 3, 4, 5) || !sleep(1, 1, 4, 5) {
		t.Error("the group that was to move has not moved, or does not sleep again")
	}
}

func TestALearnerForGoodServesAndNeverVotes(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 16)
	n := newGrowing(t, 3, 2, 1)
	defer n.close()
	n.elect(0)
	n.wantsOf(map[uint64]Wanted{1: {Voters: []uint64{1, 2, 3}, Learners: []uint64{4, 5}}})
	n.settle(60)
	learns := func(voters, learners []uint64) {
		t.Helper()
		for _, r := range n.nodes {
			if v, l := r.groups[0].Members(); !sameNodes(v, voters) || !sameNodes(l, learners) {
				t.Fatalf("node %d: %v vote and %v learn, not %v and %v", r.id, v, l, voters, learners)
			}
		}
	}
	learns([]uint64{1, 2, 3}, []uint64{4, 5})
	for i, r := range n.nodes {
		n.asleep() // with the learners
		p, rd := r.propose(0, fmt.Sprint(i)), r.read(0)
		n.settle(2)
		if !p.answered() || p.err != nil || p.result.Revision != uint64(i+1) || !rd.answered() || rd.err != nil {
			t.Errorf("node %d: answered %v, %v, %+v, read %v, %v", r.id, p.answered(), p.err, p.result, rd.answered(), rd.err)
		}
	}
	// One that is started anew hears of what has come meanwhile, though the group sleeps.
	n.asleep()
	n.nodes[4].crash(vfs.CrashCloneCfg{})
	n.settle(3)
	n.nodes[0].propose(0, "without it")
	n.settle(3)
	if err := n.nodes[4].open(); err != nil {
		t.Fatal(err)
	}
	n.asleep()
	if got := n.nodes[4].ledgers[0].shown(t); got != 6 {
		t.Errorf("the learner shows %d of 6 commands", got)
	}
	// Who votes comes to learn, and the other way round, and keeps what it has. The leader is among them.
	old := n.leader(0)
	var stay []uint64
	for id := uint64(1); id <= 3; id++ {
		if id != old.id {
			stay = append(stay, id)
		}
	}
	sent := old.host.Snapshots().SentBytes
	n.wantsOf(map[uint64]Wanted{1: {Voters: append(stay, 4), Learners: []uint64{old.id, 5}}})
	n.settle(60)
	learns(append(stay, 4), []uint64{old.id, 5})
	for _, r := range n.nodes {
		if r.groups[0].Leads() && (r == old || r.id == 5) {
			t.Errorf("node %d leads, and only learns", r.id)
		}
		sent -= r.host.Snapshots().SentBytes
	}
	if sent != 0 {
		t.Errorf("%d bytes of snapshots were sent to who has everything", -sent)
	}
	// Without two of the three that vote nobody is elected, whoever else is there.
	for _, id := range []uint64{stay[0], 4} {
		n.nodes[id-1].crash(vfs.CrashCloneCfg{})
	}
	n.settle(100)
	if r := n.leader(0); r != nil {
		t.Errorf("node %d leads, with one of three votes", r.id)
	}
}

func TestWhoDoesNotCatchUpHoldsUpNobodyElse(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 17)
	n := newGrowing(t, 3, 2, 1)
	defer n.close()
	n.elect(0)
	n.isolate(n.nodes[3])
	n.wants(1, 4, 5)
	n.settle(60)
	if voters, learners := n.leader(0).groups[0].Members(); !sameNodes(voters, []uint64{1, 2, 3, 5}) || !sameNodes(learners, []uint64{4}) {
		t.Fatalf("with node 4 cut off %v vote and %v learn", voters, learners)
	}
	// Something else is wanted.
	n.wants(1, 3, 5)
	n.settle(60)
	if !n.members(0, 1, 3, 5) {
		t.Error("the members are not those that are wanted now")
	}
}
