package group

import (
	"errors"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

func TestANodeThatLacksWhatItAcknowledgedEndsItself(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	n := newNetwork(t, 3, 1)
	defer n.close()
	leader := n.elect(0)
	old := n.nodes[leader.id%3]
	copied := old.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	for range 5 {
		leader.propose(0, "later")
		n.settle(1)
	}
	old.shut()
	old.fs = copied
	if err := old.open(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		for _, r := range n.nodes {
			r.host.Tick()
			r.step()
		}
		for range len(n.flying) {
			n.deliver(0, false)
		}
	}
	if len(n.fatal) == 0 || !errors.Is(n.fatal[0], ErrLost) {
		t.Errorf("%v", n.fatal)
	}
}

func TestAReplicaThatKnowsOfNoMembersDoesNotVote(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 2)
	n := newGrowing(t, 3, 1, 1)
	defer n.close()
	n.elect(0)
	blank := n.nodes[3]
	for _, kind := range []pb.MessageType{pb.MsgPreVote, pb.MsgVote} {
		blank.host.Receive(1, Message{1, &pb.Message{Type: kind.Enum(), From: new(uint64(1)), To: new(uint64(4)), Term: new(uint64(9)), Index: new(uint64(100)), LogTerm: new(uint64(9))}})
		blank.step()
	}
	for _, f := range n.flying {
		if f.from == 4 {
			t.Error("it answers")
		}
	}
}
