package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// isolate cuts a node off.
func (n *network) isolate(r *replica) {
	for _, id := range n.voters {
		n.cut[[2]uint64{id, r.id}], n.cut[[2]uint64{r.id, id}] = true, true
	}
}

func TestAProposalOfAnIsolatedLeaderIsAnsweredUnknown(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 5)
	n := newNetwork(t, 3, 1)
	defer n.close()
	old := n.elect(0)
	n.isolate(old)
	p := old.propose(0, "lost")
	n.settle(unknownTicks - 1)
	if p.answered() {
		t.Fatalf("answered early: %v", p.err)
	}
	if old.groups[0].Leads() || old.groups[0].Leader() != 0 {
		t.Error("it still leads")
	}
	n.settle(2)
	if !p.answered() || !errors.Is(p.err, ErrUnknown) || old.host.waiting != 0 {
		t.Errorf("answered %v, %v; %d waiting", p.answered(), p.err, old.host.waiting)
	}
	if leader := n.leader(0); leader == nil || leader == old {
		t.Error("nobody else leads")
	}
	// What the others decide meanwhile replaces the entry.
	n.leader(0).propose(0, "kept")
	n.settle(5)
	clear(n.cut)
	n.settle(30)
	if got := old.ledgers[0].names; len(got) != 1 || got[0] != "kept" {
		t.Errorf("applied %q", got)
	}
}

func TestAProposalWithoutALeaderHasNoEffect(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 6)
	n := newNetwork(t, 3, 1)
	defer n.close()
	n.elect(0)
	r := n.nodes[0]
	n.isolate(r)
	for r.groups[0].Leader() != 0 {
		n.settle(1)
	}
	p, waits := r.propose(0, "refused"), r.propose(0, "given up")
	rd := r.read(0)
	n.settle(leaderTicks - 5)
	if p.answered() || rd.answered() {
		t.Fatalf("answered early: %v, %v", p.err, rd.err)
	}
	waits.ended.Store(true)
	rd.ended.Store(true)
	n.settle(10)
	if !p.answered() || !errors.Is(p.err, ErrNoLeader) || r.host.waiting != 0 || r.host.reading != 0 {
		t.Errorf("answered %v, %v; %d waiting, %d reading", p.answered(), p.err, r.host.waiting, r.host.reading)
	}
	soon := r.propose(0, "refused")
	bound := &read{group: r.groups[0], bound: true, done: make(chan struct{}, 1)}
	if err := r.host.submitRead(bound); err != nil {
		t.Fatal(err)
	}
	n.settle(hurryTicks + 1)
	if !errors.Is(soon.err, ErrNoLeader) || !errors.Is(bound.err, ErrNoLeader) {
		t.Errorf("who comes when nobody has led for long is answered %v, and of a read %v", soon.err, bound.err)
	}
	late := r.propose(0, "late")
	clear(n.cut)
	n.settle(40)
	if !late.answered() || late.err != nil || late.result.Revision != 1 {
		t.Errorf("once somebody leads: %v, %v, %+v", late.answered(), late.err, late.result)
	}
}

func TestMailIsBounded(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 8)
	n := newNetwork(t, 3, 1)
	defer n.close()
	n.elect(0)
	r := n.nodes[0]
	r.paused = true
	n.settle(1)
	for len(n.flying) == 0 {
		n.nodes[1].host.Tick()
		n.nodes[1].host.Step()
	}
	m, err := DecodeMessage(n.flying[0].raw)
	if err != nil {
		t.Fatal(err)
	}
	*m.Raft.To = r.id
	for range maxMail + 10 {
		r.host.Receive(2, m)
	}
	if len(r.host.mail) != maxMail {
		t.Errorf("%d messages wait", len(r.host.mail))
	}
	r.host.Step()
	if len(r.host.mail) != 0 || r.host.mailed != 0 {
		t.Errorf("%d messages left, of %d bytes", len(r.host.mail), r.host.mailed)
	}
}

// letGo goes all steps at a host that runs.
func letGo(t *testing.T, h *Host, g *Group) {
	t.Helper()
	ctx := t.Context()
	if err := h.LetGo(ctx, g, 0); err == nil {
		t.Error("it is let go without being suspended")
	}
	if err := errors.Join(g.Suspend(ctx), g.Resume(ctx), g.Suspend(ctx)); err != nil {
		t.Error(err)
	}
	if _, err := g.Propose(ctx, note("refused")); !errors.Is(err, ErrGone) {
		t.Errorf("Propose: %v", err)
	}
	if err := h.LetGo(ctx, g, 0); err != nil || !slices.Equal(h.LeftBehind(), []uint64{g.ID}) {
		t.Errorf("%v, left behind: %v", err, h.LeftBehind())
	}
	if _, err := h.Open(g.ID, &ledger{id: g.ID, store: h.cfg.Store}, nil, nil); err == nil {
		t.Error("it is opened while its rows are there")
	}
	if err := h.Cleared(ctx, g.ID); err != nil || len(h.LeftBehind()) > 0 {
		t.Errorf("%v, left behind: %v", err, h.LeftBehind())
	}
}

// Goal: hosts that run by themselves serve clients at any node, and end. Method: three of them, ticking fast.
func TestHostsRun(t *testing.T) {
	hosts := make([]*Host, 3)
	groups := make([]*Group, 3)
	for i := range hosts {
		fs := vfs.NewMem()
		log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: 1, NoBackground: true, SegmentBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		store, err := storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		hosts[i] = NewHost(Config{
			NodeID: uint64(i + 1), Voters: []uint64{1, 2, 3}, Log: log, Store: store, Now: time.Now, Tick: 5 * time.Millisecond,
			Send: func(to uint64, m Message) { hosts[to-1].Receive(uint64(i+1), m) },
		})
		if groups[i], err = hosts[i].Open(1, &ledger{id: 1, store: store}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running, clients sync.WaitGroup
	for _, h := range hosts {
		running.Go(func() { h.Run(ctx) })
	}
	for c := range 12 {
		clients.Go(func() {
			g := groups[c%3]
			for i := range 20 {
				if _, err := g.Propose(ctx, note(fmt.Sprint(c, "/", i))); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNoLeader) {
					t.Error(err)
				}
				if err := g.Read(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	letGo(t, hosts[2], groups[2])
	cancel()
	running.Wait()
	if _, err := groups[0].Propose(t.Context(), note("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("Propose: %v", err)
	}
	if err := groups[0].Read(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}
