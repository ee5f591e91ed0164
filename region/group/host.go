package group

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// Config is what a Host works with.
type Config struct {
	NodeID uint64 // of this node in its groups; from 1
	Log    *raftlog.Log
	Store  *storage.Store
	Now    func() time.Time
	Tasks  task.Runtime // nil: goroutines
	Logger *slog.Logger // nil discards
	// Fatal is called when the log or the store can no longer be trusted: the process must end, and
	// start again from what is durable. Default: panic.
	Fatal func(error)
}

const (
	// maxWaiting bounds the commands on their way at a node: past it, Propose refuses at once. It is
	// some ten times what a full group commit carries.
	maxWaiting = 16384
	// maxWaitingBytes bounds their size: some hundreds of items of the largest size.
	maxWaitingBytes = 256 << 20
	// maxBatch ends a batch of state, so that one of them stays well below a memtable.
	maxBatch = 4 << 20
	// sealAfter is how long writing must have paused for the log's last frame to be sealed.
	sealAfter = 50 * time.Millisecond
	// maxPooled is the most proposals kept for reuse.
	maxPooled = 1024
)

// Host runs all groups of a node in one loop. A Host does nothing until Run.
type Host struct {
	cfg Config

	mu      sync.Mutex
	inbox   []*proposal
	calls   []func() // to run in the loop
	waiting int      // commands submitted and not answered yet
	bytes   int      // their size
	closed  bool
	pool    []*proposal
	groups  map[uint64]*Group

	wake chan struct{} // gets a token when inbox or calls have something

	// Of the loop alone:
	dirty   []*Group
	batch   *raftlog.Batch
	state   *storage.Batch
	touched []*Group
	applied []*proposal
}

// NewHost returns a host without groups.
func NewHost(cfg Config) *Host {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { panic(err) }
	}
	if cfg.Tasks == nil {
		cfg.Tasks = task.Goroutines
	}
	return &Host{
		cfg: cfg, groups: map[uint64]*Group{}, wake: make(chan struct{}, 1),
		batch: cfg.Log.NewBatch(), state: cfg.Store.NewBatch(),
	}
}

// hlc is the present as a stamp to propose.
func (h *Host) hlc() crdt.HLC { return crdt.At(h.cfg.Now().UnixMilli(), 0) }

func (h *Host) newProposal(g *Group, c *op.Command) *proposal {
	h.mu.Lock()
	var p *proposal
	if n := len(h.pool); n > 0 {
		p = h.pool[n-1]
		h.pool = h.pool[:n-1]
	}
	h.mu.Unlock()
	if p == nil {
		p = &proposal{done: make(chan struct{}, 1)}
	}
	p.group, p.cmd = g, c
	p.data = c.Append(make([]byte, 0, len(c.Item)+len(c.Key)+64))
	return p
}

func (h *Host) recycle(p *proposal) {
	*p = proposal{done: p.done}
	h.mu.Lock()
	if len(h.pool) < maxPooled {
		h.pool = append(h.pool, p)
	}
	h.mu.Unlock()
}

func (h *Host) submit(p *proposal) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return ErrClosed
	case p.group.gone.Load():
		return ErrGone
	case h.waiting >= maxWaiting || h.bytes+len(p.data) > maxWaitingBytes:
		return ErrOverloaded
	}
	h.waiting++
	h.bytes += len(p.data)
	h.inbox = append(h.inbox, p)
	h.signal()
	return nil
}

func (h *Host) signal() { task.Poke(h.wake) }

// call runs f in the loop and waits for it.
func (h *Host) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return ErrClosed
	}
	h.calls = append(h.calls, func() { f(); close(done) })
	h.signal()
	h.mu.Unlock()
	if h.cfg.Tasks.Wait(ctx, done, 0) == task.Ended {
		return context.Cause(ctx)
	}
	return nil
}

// Open returns the group with this id, replaying its log into the machine once the loop runs. A group
// that the log does not know begins here, with this node as its only voter. after, if not nil, is called
// in the loop after each run of commands that the store shows; it must not block.
func (h *Host) Open(id uint64, m Machine, after func()) (*Group, error) {
	stored := h.cfg.Log.Group(id)
	_, conf, err := stored.InitialState()
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	if len(conf.GetVoters()) == 0 {
		b := h.cfg.Log.NewBatch()
		b.SetSnapshot(id, &pb.SnapshotMetadata{
			Index: new(uint64(1)), Term: new(uint64(1)), ConfState: &pb.ConfState{Voters: []uint64{h.cfg.NodeID}},
		})
		b.Append(id, &pb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}, nil)
		if err := h.cfg.Log.Commit(b, true); err != nil {
			return nil, fmt.Errorf("group %d: begin: %w", id, err)
		}
	}
	first, err := stored.FirstIndex()
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	last, err := stored.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	applied := max(m.Applied(), 1)
	if applied > last || applied < first-1 {
		return nil, fmt.Errorf("group %d: open: the state has applied entry %d, the log has %d to %d: one of them is not this node's", id, applied, first, last)
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID: h.cfg.NodeID, ElectionTick: 10, HeartbeatTick: 1,
		Storage: logStorage{stored, applied}, Applied: applied,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 8 << 20, MaxInflightMsgs: 256,
		CheckQuorum: true, PreVote: true, Logger: raftLogger{h.cfg.Logger},
	})
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	// The only voter need not wait for an election timeout.
	if err := node.Campaign(); err != nil {
		return nil, fmt.Errorf("group %d: campaign: %w", id, err)
	}
	g := &Group{ID: id, host: h, ready: make(chan struct{}), node: node, machine: m, after: after}
	h.mu.Lock()
	h.groups[id] = g
	h.calls = append(h.calls, func() { h.mark(g) })
	h.signal()
	h.mu.Unlock()
	return g, nil
}

// Remove forgets the group and its log, durably. What was on its way fails.
func (h *Host) Remove(ctx context.Context, g *Group) error {
	g.gone.Store(true)
	return h.call(ctx, func() {
		h.mu.Lock()
		delete(h.groups, g.ID)
		h.mu.Unlock()
		g.fail(ErrGone)
		h.dirty = slices.DeleteFunc(h.dirty, func(d *Group) bool { return d == g })
		h.forget(g.ID)
		if !g.led {
			close(g.ready)
		}
	})
}

// Forget is Remove for a group that has not been opened since the start.
func (h *Host) Forget(ctx context.Context, id uint64) error {
	return h.call(ctx, func() { h.forget(id) })
}

func (h *Host) forget(id uint64) {
	h.batch.Reset()
	h.batch.Remove(id)
	if err := h.cfg.Log.Commit(h.batch, true); err != nil {
		h.cfg.Fatal(fmt.Errorf("group %d: remove: %w", id, err))
	}
}

// Flushed tells the host that the store has flushed: the log need not keep what is durable there.
func (h *Host) Flushed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.calls = append(h.calls, h.truncate)
		h.signal()
	}
}

func (h *Host) truncate() {
	h.mu.Lock()
	groups := slices.SortedFunc(maps.Values(h.groups), func(a, b *Group) int { return cmp.Compare(a.ID, b.ID) })
	h.mu.Unlock()
	h.batch.Reset()
	for _, g := range groups {
		applied, err := h.durable(g.machine.AppliedKey())
		if err != nil {
			h.cfg.Logger.Error("group: what is durable is not known; the log is kept", "group", g.ID, "err", err)
			continue
		}
		if applied > 0 {
			h.batch.Truncate(g.ID, applied)
		}
	}
	if h.batch.Empty() {
		return
	}
	if err := h.cfg.Log.Commit(h.batch, false); err != nil {
		h.cfg.Fatal(fmt.Errorf("group: truncate: %w", err))
	}
}

// durable returns the applied index that a crash right now would leave at key, 0 for none.
func (h *Host) durable(key []byte) (uint64, error) {
	it, err := h.cfg.Store.DurableIter(key, append(slices.Clone(key), 0))
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.First() || len(it.Value()) < 8 {
		return 0, it.Err()
	}
	return binary.BigEndian.Uint64(it.Value()), nil
}

// Run carries the groups until ctx ends, and then answers whatever is left with ErrClosed.
func (h *Host) Run(ctx context.Context) error {
	seal := time.Duration(0)
	for {
		switch h.cfg.Tasks.Wait(ctx, h.wake, seal) {
		case task.Ended:
			h.close()
			return nil
		case task.Late:
			seal = 0
			if err := h.cfg.Log.Seal(); err != nil && !errors.Is(err, raftlog.ErrClosed) {
				h.cfg.Fatal(fmt.Errorf("group: seal: %w", err))
			}
		case task.Token:
			// Whoever is about to propose may do so first: what is taken now shares one sync.
			h.cfg.Tasks.Yield()
			h.Step()
			seal = sealAfter
		}
	}
}

func (h *Host) close() {
	h.mu.Lock()
	h.closed = true
	inbox, calls := h.inbox, h.calls
	h.inbox, h.calls = nil, nil
	groups := h.groups
	h.mu.Unlock()
	for _, f := range calls {
		f()
	}
	for _, p := range inbox {
		p.err = ErrClosed
	}
	h.answer(inbox)
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		groups[id].fail(ErrClosed)
	}
}

// Step does all the work there is: it takes what was submitted, has raft number it, writes and syncs the
// entries of all groups at once, applies what is committed, and answers. Run calls it; a simulator may
// call it instead.
func (h *Host) Step() {
	h.mu.Lock()
	inbox, calls := h.inbox, h.calls
	h.inbox, h.calls = nil, nil
	h.mu.Unlock()
	for _, f := range calls {
		f()
	}
	for _, p := range inbox {
		if p.group.gone.Load() {
			p.err = ErrGone
			h.answer([]*proposal{p})
			continue
		}
		p.group.queue = append(p.group.queue, p)
		h.mark(p.group)
	}
	for _, g := range h.dirty {
		if g.led {
			g.propose(h)
		}
	}
	for h.ready() {
	}
}

func (h *Host) mark(g *Group) {
	if !g.dirty {
		g.dirty = true
		h.dirty = append(h.dirty, g)
	}
}

// ready takes one round of what raft wants done, over all groups, and tells whether there was any.
func (h *Host) ready() bool {
	type work struct {
		g  *Group
		rd raft.Ready
	}
	var todo []work
	h.batch.Reset()
	sync := false
	rest := h.dirty[:0]
	for _, g := range h.dirty {
		if !g.node.HasReady() {
			g.dirty = false
			continue
		}
		rest = append(rest, g)
		rd := g.node.Ready()
		g.number(rd.Entries)
		todo = append(todo, work{g, rd})
		// A hard state that only says what is committed need not be written: a restart finds it out again.
		if rd.MustSync {
			h.batch.Append(g.ID, rd.HardState, rd.Entries)
			sync = true
		}
	}
	h.dirty = rest
	if len(todo) == 0 {
		return false
	}
	if sync {
		if err := h.cfg.Log.Commit(h.batch, true); err != nil {
			h.cfg.Fatal(fmt.Errorf("group: log: %w", err))
			return false
		}
	}
	for _, w := range todo {
		h.apply(w.g, w.rd.CommittedEntries)
		w.g.node.Advance(w.rd)
	}
	h.show()
	for _, w := range todo {
		w.g.lead(h)
	}
	return true
}

// lead opens the group for business once this replica leads and has applied an entry of its own term:
// then it has applied everything that was ever acknowledged.
func (g *Group) lead(h *Host) {
	if g.led {
		return
	}
	s := g.node.BasicStatus()
	if s.RaftState == raft.StateLeader && s.Applied >= s.HardState.GetCommit() && g.ownTerm(h, s) {
		g.led = true
		close(g.ready)
		g.propose(h)
		h.mark(g)
	}
}

func (g *Group) ownTerm(h *Host, s raft.BasicStatus) bool {
	term, err := h.cfg.Log.Group(g.ID).Term(s.Applied)
	return err == nil && term == s.HardState.GetTerm()
}

// apply runs committed entries through the group's machine into the current batch.
func (h *Host) apply(g *Group, entries []*pb.Entry) {
	for _, e := range entries {
		p := g.take(e)
		var cmd *op.Command
		switch {
		case p != nil:
			cmd = p.cmd
		case len(e.GetData()) > 0:
			var err error
			if cmd, err = op.Decode(e.GetData()); err != nil {
				h.cfg.Fatal(fmt.Errorf("group %d: entry %d: %w", g.ID, e.GetIndex(), err))
				return
			}
		}
		if !g.touched {
			g.touched = true
			h.touched = append(h.touched, g)
		}
		if cmd != nil && cmd.Alone() {
			h.show()
			g.touched = true
			h.touched = append(h.touched, g)
		}
		result := g.machine.Apply(e.GetIndex(), cmd, h.state)
		if p != nil {
			p.result = result
			h.applied = append(h.applied, p)
		}
		if h.state.Size() >= maxBatch {
			h.show()
		}
	}
}

// show commits the current batch to the store and answers the proposals whose effects it holds.
func (h *Host) show() {
	if len(h.touched) == 0 {
		return
	}
	for _, g := range h.touched {
		g.machine.Finish(h.state)
	}
	if err := h.cfg.Store.Commit(h.state); err != nil {
		h.cfg.Fatal(fmt.Errorf("group: state: %w", err))
		return
	}
	for _, g := range h.touched {
		g.touched = false
		g.machine.Committed()
		if g.after != nil {
			g.after()
		}
	}
	h.touched = h.touched[:0]
	h.answer(h.applied)
	clear(h.applied)
	h.applied = h.applied[:0]
}

// answer tells the proposers that their result is there. The proposals are theirs from then on.
func (h *Host) answer(ps []*proposal) {
	if len(ps) == 0 {
		return
	}
	h.mu.Lock()
	for _, p := range ps {
		h.waiting--
		h.bytes -= len(p.data)
	}
	h.mu.Unlock()
	for _, p := range ps {
		p.done <- struct{}{}
	}
}
