package group

import (
	"errors"
	"fmt"
	"testing"
	"testing/cryptotest"

	"github.com/commutatordb/commutator/region/op"
)

// audit has a node begin an audit of a group.
func (r *replica) audit(group int) {
	r.net.t.Helper()
	if err := r.host.submit(r.host.newProposal(r.groups[group], &op.Command{Kind: op.Audit})); err != nil {
		r.net.t.Fatal(err)
	}
}

// say digests what the node has pinned, and logs it.
func (r *replica) say() {
	r.net.t.Helper()
	for p := r.host.firstPinned(); p != nil; p = r.host.firstPinned() {
		digest, err := r.host.digest(p, func(int) error { return nil })
		if err != nil {
			r.net.t.Fatal(err)
		}
		r.host.nextPinned()
		c := &op.Command{Kind: op.Audit, Node: r.id, At: p.at, Value: digest}
		if err := r.host.submit(r.host.newProposal(p.group, c)); err != nil {
			r.net.t.Fatal(err)
		}
	}
}

// tamper changes a row of a node's that its checksums then agree with.
func (r *replica) tamper(group int) {
	r.net.t.Helper()
	b := r.store.NewBatch()
	b.Set(r.ledgers[group].key("a"), []byte("something else"))
	if err := r.store.Commit(b); err != nil {
		r.net.t.Fatal(err)
	}
}

func TestReplicasThatAreTheSameAreFoundSoUnderLoad(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	n := newNetwork(t, 3, 2)
	defer n.close()
	n.elect(0)
	n.elect(1)
	for round := range 10 {
		for i := range 20 {
			n.nodes[i%3].propose(i%2, fmt.Sprintf("%d-%d", round, i))
			if i == 10 {
				n.nodes[round%3].audit(0)
				n.nodes[round%3].audit(1)
			}
		}
		slow := n.nodes[(round+1)%3] // applies in fewer runs than the others
		slow.paused = true
		n.settle(3)
		slow.paused = false
		n.settle(3)
		for _, r := range n.nodes {
			r.say()
		}
		n.settle(3)
		for _, r := range n.nodes {
			if got := r.host.Audits(); got.Done != int64(2*(round+1)) || got.Differ != 0 || got.Digests == 0 {
				t.Fatalf("round %d, node %d: %+v", round, r.id, got)
			}
		}
	}
}

func TestTheOddOneOutOfThreeMustNotGoOn(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 2)
	n := newNetwork(t, 3, 1)
	defer n.close()
	leader := n.elect(0)
	leader.propose(0, "x")
	n.settle(3)
	odd := n.nodes[leader.id%3]
	odd.tamper(0)
	var fatal []error
	odd.host.cfg.Fatal = func(err error) { fatal = append(fatal, err) }
	leader.audit(0)
	n.settle(2)
	for _, r := range n.nodes {
		r.say()
	}
	n.settle(2)
	if len(fatal) != 1 || !errors.Is(fatal[0], ErrDiverged) {
		t.Errorf("it goes on: %v", fatal)
	}
	if p := leader.propose(0, "y"); true {
		n.settle(2)
		if !p.answered() || p.err != nil {
			t.Errorf("the others do not go on: %v", p.err)
		}
	}
}

func TestTwoThatDifferAreTold(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 3)
	n := newNetwork(t, 2, 1)
	defer n.close()
	leader := n.elect(0)
	leader.propose(0, "x")
	n.settle(3)
	leader.tamper(0)
	leader.audit(0)
	n.settle(2)
	for _, r := range n.nodes {
		r.say()
	}
	n.settle(2)
	for _, r := range n.nodes {
		if got := r.host.Audits(); got.Differ != 1 || got.Done != 0 {
			t.Errorf("node %d: %+v", r.id, got)
		}
	}
}
