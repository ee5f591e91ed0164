package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// asleep settles until every group sleeps at every node.
func (n *network) asleep() {
	n.t.Helper()
	for range 20 {
		n.settle(10)
		all := true
		for _, r := range n.nodes {
			all = all && (r.down || int(r.host.sleeping.Load()) == n.groups)
		}
		if all {
			return
		}
	}
	for _, r := range n.nodes {
		n.t.Logf("node %d: %d of %d groups sleep", r.id, r.host.sleeping.Load(), n.groups)
	}
	n.t.Fatal("not all groups sleep")
}

func TestGroupsThatHaveNothingToDoSendNothing(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	n := newNetwork(t, 3, 8)
	defer n.close()
	for i := range n.groups {
		n.nodes[i%3].propose(i, "a")
	}
	n.asleep()
	for range 100 {
		for _, r := range n.nodes {
			r.host.Tick()
			r.step()
		}
		for _, f := range n.flying {
			if m, err := DecodeMessage(f.raw); err != nil || m.Group != beatGroup {
				t.Fatalf("%d sends %+v to %d, %v", f.from, m, f.to, err)
			}
		}
		if len(n.flying) > 6 {
			t.Fatalf("%d messages", len(n.flying))
		}
		for len(n.flying) > 0 {
			n.deliver(0, false)
		}
	}
}

func TestASleepingGroupAnswersAtOnce(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 2)
	n := newNetwork(t, 3, 3)
	defer n.close()
	for _, r := range n.nodes {
		n.asleep()
		for g := range n.groups {
			p := r.propose(g, fmt.Sprint(r.id))
			n.settle(1)
			if !p.answered() || p.err != nil {
				t.Errorf("node %d, group %d: answered %v, %v", r.id, g, p.answered(), p.err)
			}
		}
		n.asleep()
		for g := range n.groups {
			rd := r.read(g)
			n.settle(1)
			if !rd.answered() || rd.err != nil {
				t.Errorf("node %d, group %d: a read answered %v, %v", r.id, g, rd.answered(), rd.err)
			}
		}
	}
}

func TestSleepingGroupsElectWhenTheirLeaderIsGone(t *testing.T) {
	for _, crash := range []bool{true, false} {
		t.Run(fmt.Sprint("crash ", crash), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 3)
			n := newNetwork(t, 3, 6)
			defer n.close()
			n.asleep()
			gone := n.leader(0)
			if gone == nil {
				t.Fatal("nobody leads")
			}
			if crash {
				gone.crash(vfs.CrashCloneCfg{})
			} else {
				gone.paused = true
			}
			// Until it is missed, and the others have heard of each other's votes: two seconds, by the default tick.
			n.settle(missedTicks + heartbeatTicks + 8)
			for g := range n.groups {
				leads := 0
				for _, r := range n.nodes {
					if r != gone && r.groups[g].Leads() {
						leads++
					}
				}
				if leads != 1 {
					t.Errorf("group %d is led by %d of the other nodes", g, leads)
				}
			}
			gone.paused = false
			if crash {
				if err := gone.open(); err != nil {
					t.Fatal(err)
				}
			}
			n.asleep()
		})
	}
}

func TestSleepingGroupsElectWhenTheirLeaderStartsAnewAtOnce(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 4)
	n := newNetwork(t, 3, 6)
	defer n.close()
	n.asleep()
	again := n.leader(0)
	again.crash(vfs.CrashCloneCfg{})
	if err := again.open(); err != nil {
		t.Fatal(err)
	}
	n.settle(heartbeatTicks + 8)
	for g := range n.groups {
		if n.leader(g) == nil {
			t.Errorf("group %d has no leader", g)
		}
	}
}

func TestAGroupDoesNotSleepWhileAFollowerLacksWhatItHas(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 5)
	n := newNetwork(t, 3, 1)
	defer n.close()
	n.asleep()
	leader := n.leader(0)
	lags := n.nodes[leader.id%3]
	n.drops = func(to uint64, m Message) bool { return to == lags.id && m.Raft.GetType() == pb.MsgApp }
	leader.propose(0, "a")
	for range 5 * sleepTicks {
		n.settle(1)
		if leader.groups[0].asleep {
			t.Fatal("it sleeps")
		}
	}
	n.drops = nil
	n.asleep()
	if got := lags.ledgers[0].shown(t); got != 1 {
		t.Errorf("%d of 1 shown", got)
	}
}

// Goal: who stands when a leader is gone may lack what another has, and the election does not wait for that one's own time. Method: the leader's
// last entry has come to one of the two others alone.
func TestWhoeverHasMoreThanTheOneThatStandsIsElectedAtOnce(t *testing.T) {
	for seed := range uint64(8) {
		cryptotest.SetGlobalRandom(t, seed)
		n := newNetwork(t, 3, 2)
		n.asleep()
		gone := n.leader(0)
		left := slices.DeleteFunc(slices.Clone(n.voters), func(id uint64) bool { return id == gone.id })
		stands := left[n.nodes[0].groups[0].ID%2]
		n.drops = func(to uint64, m Message) bool { return to == stands && m.Group == 1 && m.Raft.GetType() == pb.MsgApp }
		gone.propose(0, "for one alone")
		gone.step()
		for range len(n.flying) {
			n.deliver(0, false)
		}
		for _, id := range left {
			n.nodes[id-1].step()
		}
		n.drops, gone.paused = nil, true
		gone.crash(vfs.CrashCloneCfg{})
		ticks := 0
		for ; n.leader(0) == nil; ticks++ {
			n.settle(1)
		}
		if ticks > missedTicks+heartbeatTicks+3 {
			t.Errorf("seed %d: elected after %d ticks", seed, ticks)
		}
		n.close()
	}
}

// Goal: what waits for groups whose leader is gone goes on soon after that is noticed, wherever the nodes are in their time, whatever had come to
// whom, and though one is to lead nothing. Method: nodes tick in turns, messages come late by part of a tick.
func TestALostLeaderIsReplacedWithinTicksOfBeingMissed(t *testing.T) {
	for seed := range uint64(15) {
		cryptotest.SetGlobalRandom(t, seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		n := newNetwork(t, 3, 24)
		for _, r := range n.nodes {
			r.host.spared = []uint64{3}
		}
		n.asleep()
		n.settle(60)
		n.asleep()
		some := func() {
			for _, r := range n.nodes {
				if !r.down {
					r.step()
				}
			}
			for range rng.IntN(len(n.flying) + 1) {
				n.deliver(0, false)
			}
		}
		tick := func() {
			for _, i := range rng.Perm(3) {
				if r := n.nodes[i]; !r.down {
					r.host.Tick()
				}
				for range 4 {
					some()
				}
			}
		}
		for g := range 18 {
			n.nodes[rng.IntN(3)].propose(g, "before")
		}
		for range 1 + rng.IntN(8) {
			tick()
		}
		var ps []*proposal
		for g := range n.groups {
			ps = append(ps, n.nodes[0].propose(g, "a"), n.nodes[2].propose(g, "b"))
		}
		some()
		n.nodes[1].crash(vfs.CrashCloneCfg{})
		ticks := 0
		for ; slices.ContainsFunc(ps, func(p *proposal) bool { return !p.answered() }) && ticks < 100; ticks++ {
			tick()
		}
		if ticks > missedTicks+heartbeatTicks+4 {
			t.Errorf("seed %d: the last of %d proposals is answered after %d ticks", seed, len(ps), ticks)
		}
		n.close()
	}
}
