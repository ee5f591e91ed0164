package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lag has the last node miss more than the others keep, and returns it with a snapshot for it about to be received.
func lag(t *testing.T, n *network) *replica {
	t.Helper()
	n.elect(0)
	n.settle(2)
	last := n.nodes[2]
	if last.groups[0].Leads() {
		last = n.nodes[1]
	}
	p := last.propose(0, "before")
	n.settle(1)
	if !p.answered() || p.err != nil {
		t.Fatal(p.err)
	}
	for _, id := range n.voters {
		n.cut[[2]uint64{id, last.id}], n.cut[[2]uint64{last.id, id}] = true, true
	}
	for i := range n.keep + 20 {
		n.leader(0).propose(0, fmt.Sprint(i))
		if i%8 == 0 {
			n.settle(1)
		}
	}
	n.settle(activeTicks + 20) // it counts as gone
	for _, r := range n.nodes {
		if r != last {
			if err := r.store.Flush(); err != nil {
				t.Fatal(err)
			}
			r.host.Flushed()
			r.host.Step()
			if first, _ := r.log.Group(1).FirstIndex(); first <= n.keep/2 {
				t.Fatalf("node %d keeps its log from %d on", r.id, first)
			}
		}
	}
	// Now all is as before but for what it sees next, until there is a snapshot among it.
	clear(n.cut)
	for range 1000 {
		for i := range n.flying {
			if m, err := DecodeMessage(n.flying[i].raw); err == nil && m.Bulk() {
				for len(n.flying) > 0 {
					n.deliver(0, false)
				}
				return last
			}
		}
		for _, r := range n.nodes {
			r.host.Tick()
			r.host.Step()
		}
		for range len(n.flying) {
			if m, err := DecodeMessage(n.flying[0].raw); err == nil && m.Bulk() {
				break
			}
			n.deliver(0, false)
		}
	}
	t.Fatal("no snapshot is sent")
	return nil
}

// Goal: a snapshot is installed whole or not at all. Method: the power fails before each operation on a file that
// installing one does, and the disk keeps none, some or all of what was not synced.
func TestASnapshotSurvivesACrashAtEveryOperation(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		reinstalled, done := 0, false
		for at := 1; !done; at++ {
			t.Run(fmt.Sprint(percent, "/", at), func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, 3)
				n := newNetwork(t, 3, 1)
				defer n.close()
				n.keep = 64
				for _, r := range n.nodes {
					r.host.keep = n.keep
				}
				last := lag(t, n)
				last.spare = vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), 0))}
				last.mu.Lock()
				last.dieAt = last.ops + at
				last.mu.Unlock()
				last.step()
				if !last.down {
					done = true
				} else {
					if err := last.open(); err != nil {
						t.Fatal(err)
					}
					if last.ledgers[0].applied > 10 {
						reinstalled++
					}
				}
				n.settle(60)
				p := last.propose(0, "after")
				n.settle(3)
				want := n.leader(0).ledgers[0].names
				if !p.answered() || p.err != nil || !slices.Equal(last.ledgers[0].names, want) || len(want) < int(n.keep) {
					t.Errorf("answered %v, %v; %d names of %d", p.answered(), p.err, len(last.ledgers[0].names), len(want))
				}
				if first, _ := last.log.Group(1).FirstIndex(); first < n.keep/2 {
					t.Errorf("the log begins at %d: there was no snapshot", first)
				}
			})
			if t.Failed() {
				return
			}
		}
		if reinstalled == 0 {
			t.Error("no crash came between the flush and the log")
		}
	}
}

func TestASnapshotThatIsNotWholeIsRefused(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 4)
	n := newNetwork(t, 3, 1)
	defer n.close()
	n.elect(0)
	n.nodes[0].propose(0, "a")
	n.settle(2)
	l := n.nodes[0].ledgers[0]
	state, err := dump(n.nodes[0].store, l.Ranges())
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	if err := eachRow(state, l.Ranges(), func(_, _ []byte) { rows++ }); err != nil || rows != 2 {
		t.Fatalf("%d rows, %v", rows, err)
	}
	for i := range state {
		for _, bad := range [][]byte{state[:i], append(append(slices.Clone(state[:i]), state[i]^1), state[i+1:]...)} {
			if err := eachRow(bad, l.Ranges(), func(_, _ []byte) { t.Fatal("a row of it is used") }); err == nil {
				t.Errorf("damage at %d is not seen", i)
			}
		}
	}
	other := &ledger{id: 2, store: l.store}
	if err := eachRow(state, other.Ranges(), func(_, _ []byte) { t.Fatal("a row of it is used") }); err == nil {
		t.Error("another group's rows are taken")
	}
}
