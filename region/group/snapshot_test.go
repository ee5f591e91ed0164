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
	// Now all is as before but for what it sees next, until there is a piece of a snapshot among it.
	clear(n.cut)
	for range 1000 {
		for i := range n.flying {
			if m, err := DecodeMessage(n.flying[i].raw); err == nil && m.Bulk() {
				return last
			}
		}
		for _, r := range n.nodes {
			r.host.Tick()
			r.step()
			r.carry()
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

// few keeps the logs short.
func (n *network) few() {
	n.keep = 64
	for _, r := range n.nodes {
		r.host.keep = n.keep
	}
}

// Goal: a snapshot is installed whole or not at all. Method: the power fails before each operation on a file that
// installing one does, and the disk keeps none, some or all of what was not synced.
func TestASnapshotSurvivesACrashAtEveryOperation(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		reinstalled, resumed, done := 0, 0, false
		for at := 1; !done; at++ {
			t.Run(fmt.Sprint(percent, "/", at), func(t *testing.T) {
				cryptotest.SetGlobalRandom(t, 3)
				n := newNetwork(t, 3, 1)
				defer n.close()
				n.few()
				last := lag(t, n)
				last.spare = vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), 0))}
				last.mu.Lock()
				last.dieAt = last.ops + at
				last.mu.Unlock()
				for range 50 {
					if n.settle(1); last.down || last.ledgers[0].applied > n.keep {
						break
					}
				}
				last.dieAt = 0
				if !last.down {
					done = true
				} else {
					if err := last.open(); err != nil {
						t.Fatal(err)
					}
					if last.ledgers[0].applied > 10 {
						reinstalled++
					} else if names, err := last.store.Imports(); err != nil {
						t.Fatal(err)
					} else if len(names) == 1 {
						if in, err := last.store.Import(names[0], last.ledgers[0].Ranges()); err == nil && in.Last() != nil {
							resumed++
						}
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
		if reinstalled == 0 || resumed == 0 {
			t.Errorf("%d crashes came between the rows and the log, %d with a part of the snapshot here", reinstalled, resumed)
		}
	}
}

func TestAPieceThatIsNotWholeIsRefused(t *testing.T) {
	b := endPiece(appendField(appendField(beginPiece(7, []byte("before"), [][2][]byte{{[]byte("a"), []byte("z")}}), []byte("key")), []byte("value")), true)
	p, err := parsePiece(b)
	if err != nil || p.id != 7 || !p.last || string(p.after) != "before" {
		t.Fatalf("%+v, %v", p, err)
	}
	rows := 0
	if err := p.each(func(key, value []byte) error { rows++; return nil }); err != nil || rows != 1 {
		t.Fatalf("%d rows, %v", rows, err)
	}
	for i := range b {
		for _, bad := range [][]byte{b[:i], append(append(slices.Clone(b[:i]), b[i]^1), b[i+1:]...)} {
			if _, err := parsePiece(bad); err == nil {
				t.Errorf("damage at %d is not seen", i)
			}
		}
	}
}

// A follower that is started again while a snapshot comes keeps what it has, and a leader goes on from there.
func TestASnapshotGoesOnWhereItStoppedAfterARestart(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 5)
	n := newNetwork(t, 3, 1)
	defer n.close()
	n.few()
	last := lag(t, n)
	bulk := func() (sent int) {
		for _, r := range n.nodes {
			for _, s := range r.host.ships {
				sent += int(s.bytes.Load())
			}
		}
		return sent
	}
	// Some rounds of pieces, and then it goes away for a while.
	for range 3 {
		for _, r := range n.nodes {
			r.step()
			r.carry()
		}
		for range len(n.flying) {
			n.deliver(0, false)
		}
	}
	before := bulk()
	last.crash(vfs.CrashCloneCfg{})
	n.settle(resendTicks / 2)
	if err := last.open(); err != nil {
		t.Fatal(err)
	}
	names, err := last.store.Imports()
	if err != nil || len(names) != 1 || before == 0 {
		t.Fatalf("%v, %v; %d bytes were sent", names, err, before)
	}
	whole := 0
	for range 3 * resendTicks {
		n.settle(1)
		whole = max(whole, bulk())
	}
	if !slices.Equal(last.ledgers[0].names, n.leader(0).ledgers[0].names) {
		t.Errorf("%d names", len(last.ledgers[0].names))
	}
	ships := 0
	for _, r := range n.nodes {
		ships += len(r.host.ships)
	}
	if ships > 0 {
		t.Errorf("%d shipments are left", ships)
	}
}

func TestTheLogIsKeptForWhoIsBeingSentASnapshot(t *testing.T) {
	for _, enough := range []bool{true, false} {
		t.Run(fmt.Sprint(enough), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, 6)
			n := newNetwork(t, 3, 1)
			defer n.close()
			n.few()
			last := lag(t, n)
			leader := n.leader(0)
			if !enough {
				leader.host.shipLog = 1
			}
			index := leader.groups[0].ships[0].meta.GetIndex()
			// The way is cut for as long as more is written than is kept for others.
			n.cut[[2]uint64{leader.id, last.id}] = true
			for i := range 3 * n.keep {
				leader.propose(0, fmt.Sprint("more", i))
				if i%8 == 0 {
					n.settle(1)
				}
			}
			n.settle(1)
			if err := leader.store.Flush(); err != nil {
				t.Fatal(err)
			}
			leader.host.Flushed()
			n.settle(2)
			first, _ := leader.log.Group(1).FirstIndex()
			if kept := first <= index+1; kept != enough {
				t.Errorf("the log begins at %d, the snapshot is of %d", first, index)
			}
			clear(n.cut)
			n.settle(10 * resendTicks)
			if !slices.Equal(last.ledgers[0].names, n.leader(0).ledgers[0].names) {
				t.Errorf("%d names of %d", len(last.ledgers[0].names), len(n.leader(0).ledgers[0].names))
			}
		})
	}
}

func TestASnapshotOfANodeThatStaysAwayIsLetGo(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 7)
	n := newNetwork(t, 3, 1)
	defer n.close()
	n.few()
	last := lag(t, n)
	leader := n.leader(0)
	last.crash(vfs.CrashCloneCfg{})
	n.settle(giveUpTicks - 10)
	if len(leader.host.ships) != 1 {
		t.Fatalf("%d shipments", len(leader.host.ships))
	}
	n.settle(20)
	if len(leader.host.ships) > 1 || len(leader.host.ships) == 1 && leader.host.ships[0].moved < giveUpTicks {
		t.Errorf("%d shipments are left", len(leader.host.ships))
	}
}

// Goal: a snapshot arrives as it was sent, whatever is lost, doubled, late or overtaken on the way, who is started again, and however often
// another one is sent instead. Method: a follower far behind, and a seeded network.
func TestASnapshotArrivesWholeWhateverHappensOnTheWay(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			n := newNetwork(t, 3, 1)
			defer n.close()
			n.few()
			last := lag(t, n)
			for range 3000 {
				r := n.nodes[rng.IntN(3)]
				switch d := rng.IntN(100); {
				case d < 60 && len(n.flying) > 0:
					i := rng.IntN(min(len(n.flying), 8))
					switch rng.IntN(10) {
					case 0:
						n.flying = slices.Delete(n.flying, i, i+1)
					case 1:
						n.deliver(i, true)
					default:
						n.deliver(i, false)
					}
				case d < 90 && !r.down:
					r.step()
					r.carry()
				case d < 98 && !r.down:
					r.host.Tick()
				case d == 98 && rng.IntN(5) == 0 && !last.down:
					last.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(3) * 50, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
				case d == 99 && last.down:
					if err := last.open(); err != nil {
						t.Fatal(err)
					}
				case d == 99 && rng.IntN(5) == 0 && !r.down: // what is on its way counts as lost, and another snapshot is sent
					for _, s := range r.host.ships {
						s.failed.Store(true)
					}
					r.propose(0, fmt.Sprint("more", rng.IntN(1000)))
				}
				if len(n.fatal) > 0 {
					t.Fatal(n.fatal)
				}
			}
			if last.down {
				if err := last.open(); err != nil {
					t.Fatal(err)
				}
			}
			n.settle(20 * resendTicks)
			if want := n.leader(0).ledgers[0].names; !slices.Equal(last.ledgers[0].names, want) {
				t.Errorf("%d names, %d at the leader", len(last.ledgers[0].names), len(want))
			}
		})
	}
}

// Goal: however many groups are on their way to another node, they keep to one rate together, and none waits for another to be through.
func TestGroupsThatMoveAtOnceShareTheRate(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 8)
	n := newGrowing(t, 1, 1, 3)
	defer n.close()
	from := n.nodes[0].host
	for g := range n.groups {
		for i := range 40 {
			n.nodes[0].propose(g, fmt.Sprint(i))
		}
	}
	n.settle(20)
	const rate = 40 // much less than a piece
	from.shipTick, from.allowance = rate, 0
	n.wants(1, 2)
	began, ticks := from.Snapshots().SentBytes, 0
	var most int64
	for ; len(from.ships) < n.groups; ticks++ {
		n.settle(1)
	}
	for ; len(from.ships) == n.groups; ticks++ {
		n.settle(1)
		least := int64(1 << 62)
		most = 0
		for _, s := range from.ships {
			least, most = min(least, s.bytes.Load()), max(most, s.bytes.Load())
		}
		if piece := int64(400); most-least > 2*piece {
			t.Fatalf("after %d ticks %d bytes are sent of one group, %d of another", ticks, most, least)
		}
		if sent := from.Snapshots().SentBytes - began; sent > int64(rate*(ticks+2)+400) {
			t.Fatalf("%d bytes in %d ticks", sent, ticks)
		}
	}
	if most < 1000 {
		t.Errorf("%d bytes were sent of a group when the first was through", most)
	}
	n.settle(200)
	for g := range n.groups {
		if !n.members(g, 1, 2) || n.nodes[1].ledgers[g].shown(t) != 40 {
			t.Errorf("group %d has not moved", g)
		}
	}
}

// The store tells that it has flushed while it lets nobody in, and is asked for a snapshot under the host's lock: neither may wait for the other.
func TestAFlushIsToldWhateverTheHostIsAt(t *testing.T) {
	n := newNetwork(t, 1, 1)
	defer n.close()
	h := n.nodes[0].host
	h.mu.Lock()
	h.Flushed()
	h.mu.Unlock()
	if n.nodes[0].step(); h.flushed.Load() {
		t.Error("it is not heard")
	}
}
