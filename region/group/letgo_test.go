package group

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// Goal: a replica goes to another node and comes back, whatever step the power fails at, and nothing is lost or promised twice. Method: the steps
// are taken one by one, over a real log and a real store, and the disk keeps what it must keep, or all that was written.
func TestAReplicaIsMovedAndBackWhateverStepThePowerFailsAt(t *testing.T) {
	steps := []func(r *replica) error{
		func(*replica) error { return nil },
		func(r *replica) error { r.groups[0].suspend(r.host); return nil },
		func(r *replica) error { return r.host.letGo(r.groups[0], 0) },
		func(r *replica) error { r.removeRows(0); return nil },
		func(r *replica) error { return r.host.unstate(1) },
		func(r *replica) error { r.host.cleared(1); return nil },
		func(r *replica) error { return r.begin(0) },
	}
	for at := range steps {
		for _, kept := range []int{0, 100} {
			t.Run(fmt.Sprint("behind step ", at, ", ", kept, " percent kept"), func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, 31)
				n := newGrowing(t, 3, 1, 1)
				defer n.close()
				leader := n.elect(0)
				moved := n.nodes[leader.id%3]
				others := slices.DeleteFunc([]uint64{1, 2, 3, 4}, func(id uint64) bool { return id == moved.id })
				for i := range 20 {
					leader.propose(0, fmt.Sprint("before ", i))
				}
				n.settle(3)
				if err := moved.store.Flush(); err != nil {
					t.Fatal(err)
				}
				term := leader.groups[0].term
				n.wants(others...)
				n.settle(60)
				if !n.members(0, others...) {
					t.Fatal("it is not moved")
				}
				take := func(steps []func(*replica) error) {
					for _, step := range steps {
						if err := step(moved); err != nil {
							t.Fatal(err)
						}
					}
				}
				take(steps[:at+1])
				moved.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(1, 1))})
				n.settle(3)
				n.elect(0).propose(0, "without it")
				n.settle(3)
				if err := moved.open(); err != nil {
					t.Fatal(err)
				}
				if at < 2 {
					take(steps)
				}
				if hs, _, err := moved.log.Group(1).InitialState(); err != nil || hs.GetTerm() < term {
					t.Errorf("it had heard of term %d, and knows of %d, %v", term, hs.GetTerm(), err)
				}
				if got := len(moved.ledgers[0].names); got != 0 {
					t.Errorf("it begins with %d commands", got)
				}
				n.settle(30)
				if len(moved.groups[0].members.Load().GetVoters()) > 0 {
					t.Error("who is not wanted is taken in")
				}
				n.wants(1, 2, 3)
				n.settle(60)
				if !n.members(0, 1, 2, 3) {
					t.Fatal("it does not come back")
				}
				n.nodes[3].letGo(0)
				// It counts as any other does.
				gone := n.elect(0)
				if gone == moved {
					gone = n.nodes[moved.id%3]
				}
				gone.crash(vfs.CrashCloneCfg{})
				p := n.elect(0).propose(0, "after")
				n.settle(3)
				if !p.answered() || p.err != nil || p.result.Revision != 22 || moved.ledgers[0].shown(t) != 22 {
					t.Errorf("answered %v, %v, %+v; %d of 22 shown where it came back", p.answered(), p.err, p.result, moved.ledgers[0].shown(t))
				}
			})
		}
	}
}

func TestWhoWasLetGoDoesNotVoteTwiceInATerm(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 32)
	n := newGrowing(t, 3, 1, 1)
	defer n.close()
	leader := n.elect(0)
	moved := n.nodes[leader.id%3]
	others := slices.DeleteFunc([]uint64{1, 2, 3, 4}, func(id uint64) bool { return id == moved.id })
	n.wants(others...)
	n.settle(60)
	before, _, err := moved.log.Group(1).InitialState()
	if err != nil || before.GetVote() != leader.id {
		t.Fatalf("%v, %v: node %d was elected", before, err, leader.id)
	}
	moved.letGo(0)
	n.wants(1, 2, 3)
	n.settle(60)
	if !n.members(0, 1, 2, 3) {
		t.Fatal("it does not come back")
	}
	if after, _, err := moved.log.Group(1).InitialState(); err != nil || after.GetTerm() != before.GetTerm() || after.GetVote() != before.GetVote() {
		t.Fatalf("its term and vote are %v, %v, not %v", after, err, before)
	}
	// Another stands in the same term. It is refused.
	n.flying = nil
	last, _ := moved.log.Group(1).LastIndex()
	rival := moved.id%3 + 1
	if rival == leader.id {
		rival = rival%3 + 1
	}
	moved.groups[0].node.ForgetLeader()
	moved.host.Receive(rival, Message{1, &pb.Message{Type: pb.MsgVote.Enum(), From: new(rival), To: new(moved.id), Term: new(before.GetTerm()), Index: new(last + 9), LogTerm: new(before.GetTerm())}})
	moved.step()
	answers := 0
	for _, f := range n.flying {
		if m, err := DecodeMessage(f.raw); err == nil && m.Raft.GetType() == pb.MsgVoteResp {
			answers++
			if !m.Raft.GetReject() {
				t.Errorf("it votes for %d, and has voted for %d in the same term", rival, leader.id)
			}
		}
	}
	if answers != 1 {
		t.Errorf("%d answers", answers)
	}
}

func TestFoundersThatWereLetGoDoNotBeginTheGroupAnew(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 33)
	n := newGrowing(t, 3, 2, 1)
	defer n.close()
	n.elect(0)
	n.wants(3, 4, 5)
	n.settle(100)
	if !n.members(0, 3, 4, 5) {
		t.Fatal("it is not moved")
	}
	for _, r := range n.nodes[:2] {
		r.letGo(0)
	}
	for _, r := range n.nodes[2:] {
		r.crash(vfs.CrashCloneCfg{})
	}
	n.nodes[0].groups[0].Stand()
	n.settle(100)
	for _, r := range n.nodes[:2] {
		if r.groups[0].leading || r.groups[0].node.BasicStatus().RaftState != raft.StateFollower {
			t.Errorf("node %d stands for election, or leads, and holds nothing", r.id)
		}
	}
}

func TestASuspendedReplicaAcknowledgesNothing(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 34)
	n := newNetwork(t, 3, 1)
	defer n.close()
	leader := n.elect(0)
	quiet, down := n.nodes[leader.id%3], n.nodes[(leader.id+1)%3]
	lost := quiet.propose(0, "on its way")
	quiet.step()
	quiet.groups[0].suspend(quiet.host)
	if !lost.answered() || !errors.Is(lost.err, ErrUnknown) {
		t.Errorf("what was on its way: answered %v, %v", lost.answered(), lost.err)
	}
	if err := quiet.host.submit(quiet.host.newProposal(quiet.groups[0], note("refused"))); !errors.Is(err, ErrGone) {
		t.Errorf("a proposal: %v", err)
	}
	if err := quiet.host.submitRead(&read{group: quiet.groups[0], done: make(chan struct{}, 1)}); !errors.Is(err, ErrGone) {
		t.Errorf("a read: %v", err)
	}
	n.settle(3)
	down.crash(vfs.CrashCloneCfg{})
	n.flying = nil
	p := leader.propose(0, "a")
	n.drops = func(to uint64, m Message) bool {
		if m.Raft.GetFrom() == quiet.id && !m.Beat() {
			t.Errorf("it says %v", m.Raft.GetType())
		}
		return false
	}
	n.settle(5)
	if p.answered() {
		t.Fatal("a proposal is answered with one acknowledgement of three")
	}
	n.drops = nil
	// It goes on.
	quiet.groups[0].resume(quiet.host)
	n.settle(40)
	if !p.answered() || p.err != nil {
		t.Errorf("once it goes on: answered %v, %v", p.answered(), p.err)
	}
	again := quiet.propose(0, "b")
	n.settle(3)
	if !again.answered() || again.err != nil {
		t.Errorf("what is proposed there: answered %v, %v", again.answered(), again.err)
	}
}

func TestASuspendedLeaderIsReplacedAndFollowsOnceItGoesOn(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 35)
	n := newNetwork(t, 3, 1)
	defer n.close()
	old := n.elect(0)
	old.groups[0].suspend(old.host)
	if old.groups[0].Leads() || old.host.leads() > 0 {
		t.Error("it leads still")
	}
	leader := n.elect(0)
	p := leader.propose(0, "a")
	n.settle(3)
	old.groups[0].resume(old.host)
	n.asleep()
	if !p.answered() || p.err != nil || old.ledgers[0].shown(t) != 1 || n.leader(0) == nil {
		t.Errorf("answered %v, %v; %d of 1 shown", p.answered(), p.err, old.ledgers[0].shown(t))
	}
	if err := old.host.letGo(old.groups[0], 0); err == nil {
		t.Error("it is let go without being suspended")
	}
}

// A leader lets a node go and takes it in again in one term, and what the node had acknowledged before comes only then.
func TestAnAcknowledgementFromBeforeItWasLetGoDoesNotCount(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 36)
	n := newNetwork(t, 3, 1)
	defer n.close()
	leader := n.elect(0)
	moved, other := n.nodes[leader.id%3], n.nodes[(leader.id+1)%3]
	var late []flying
	leader.propose(0, "a")
	for range 3 {
		leader.host.Tick()
		leader.step()
		for range len(n.flying) {
			n.deliver(0, false)
		}
		moved.step()
		other.step()
		late = append(late, slices.DeleteFunc(slices.Clone(n.flying), func(f flying) bool {
			m, err := DecodeMessage(f.raw)
			return err != nil || f.from != moved.id || m.Raft.GetType() != pb.MsgAppResp || m.Raft.GetIndex() == 0
		})...)
	}
	n.settle(3)
	if len(late) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	n.wants(leader.id, other.id)
	n.settle(20)
	moved.letGo(0)
	n.isolate(moved)
	n.wants(1, 2, 3)
	n.settle(3)
	clear(n.cut)
	n.flying = append(n.flying, late...)
	for range late {
		n.deliver(len(n.flying)-1, false)
	}
	leader.step()
	leader.groups[0].node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == moved.id && pr.Match > 0 {
			t.Fatalf("the leader takes it that node %d has entry %d", id, pr.Match)
		}
	})
	n.settle(60)
	if !n.members(0, 1, 2, 3) || leader.groups[0].term != moved.groups[0].term || moved.ledgers[0].shown(t) != 1 {
		t.Errorf("it does not come back: %d of 1 shown", moved.ledgers[0].shown(t))
	}
}

// A node is let go while a snapshot is on its way to it, is taken in again in the same term, and the snapshot comes only then.
func TestASnapshotFromBeforeItWasLetGoIsNotTaken(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 38)
	n := newGrowing(t, 3, 1, 1)
	defer n.close()
	leader := n.elect(0)
	moved := n.nodes[3]
	leader.propose(0, "a")
	n.settle(3)
	var late []Message
	n.drops = func(to uint64, m Message) bool {
		if to != moved.id || m.Raft.GetType() != pb.MsgSnap {
			return false
		}
		late = append(late, m)
		return true
	}
	n.wants(1, 2, 3, 4)
	n.settle(3)
	if len(late) == 0 {
		t.Fatal("no snapshot was sent")
	}
	n.wants(1, 2, 3)
	n.settle(20)
	moved.letGo(0)
	n.isolate(moved)
	n.wants(1, 2, 3, 4)
	n.settle(3)
	for _, m := range late {
		moved.host.Receive(leader.id, m)
	}
	moved.carry()
	if len(moved.host.intakes) > 0 {
		t.Fatal("it is taken")
	}
	clear(n.cut)
	n.drops = nil
	n.settle(60)
	if !n.members(0, 1, 2, 3, 4) || moved.ledgers[0].shown(t) != 1 {
		t.Errorf("it does not come back: %d of 1 shown", moved.ledgers[0].shown(t))
	}
}

func TestWhatIsSentOfAGroupEndsWithIt(t *testing.T) {
	for _, let := range []bool{false, true} {
		t.Run(fmt.Sprint("let go ", let), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 37)
			n := newGrowing(t, 3, 1, 1)
			defer n.close()
			leader := n.elect(0)
			for i := range 20 {
				leader.propose(0, fmt.Sprint(i))
			}
			n.settle(3)
			n.drops = func(_ uint64, m Message) bool { return m.Raft.GetType() == pb.MsgSnapStatus } // no receipt comes
			n.wants(1, 2, 3, 4)
			n.settle(5)
			if len(leader.host.ships) != 1 || len(n.nodes[3].host.intakes) != 1 {
				t.Fatalf("%d are sent, %d come", len(leader.host.ships), len(n.nodes[3].host.intakes))
			}
			if let { // something else is wanted
				n.wants(1, 2, 3)
				n.settle(5)
				n.nodes[3].letGo(0)
				n.settle(2)
				if left := len(n.nodes[3].host.intakes); left > 0 {
					t.Errorf("%d come still", left)
				}
			} else { // the group itself goes
				leader.host.takeOut(leader.groups[0])
				leader.carry()
			}
			if left := len(leader.host.ships); left > 0 {
				t.Errorf("%d are sent still", left)
			}
		})
	}
}

func TestNothingIsPinnedOnceCarryHasEnded(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 38)
	n := newGrowing(t, 3, 1, 1)
	defer n.close()
	leader := n.elect(0)
	leader.propose(0, "a")
	n.settle(3)
	leader.host.endCarry()
	n.wants(1, 2, 3, 4)
	n.settle(10)
	if left := len(leader.host.ships); left > 0 {
		t.Errorf("%d are pinned", left)
	}
}
