package group

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// Config is what a Host works with.
type Config struct {
	NodeID uint64 // of this node in its groups; from 1
	// Voters are the nodes that a group begins with, unless Open says otherwise: the same at all of them. nil: this node alone.
	Voters []uint64
	// Home is the group by which nodes hear who is to hold the groups, 0 for none: it goes on while the disk is full, and stays where it is led.
	Home uint64
	// Several says that groups may have more voters than one, which they do if they begin with more. A node that is none of Voters begins
	// with nothing, and is taken in by those that are there.
	Several bool
	// Send takes a message to another node. It is called in the loop and beside it, and must not block; what it cannot take it
	// drops, and says so by Host.Unreachable. The message is not to be changed. Set if there are several voters.
	Send func(to uint64, m Message)
	// Tick is how often the groups' time passes, if there are several voters; default 100 ms. A follower that has
	// heard nothing for 10 to 20 ticks stands for election.
	Tick time.Duration
	// KeepEntries bounds how many entries a leader keeps for followers that lag; default 4096. What they lack beyond it, a
	// snapshot brings.
	KeepEntries uint64
	// ShipRate is how many bytes of snapshots this node sends in a second, all together; default 64 MiB. PieceBytes is about how many rows' bytes
	// travel at a time; default 1 MiB.
	ShipRate   int64
	PieceBytes int
	Log        *raftlog.Log
	Store      *storage.Store
	Now        func() time.Time
	Tasks      task.Runtime // nil: goroutines
	Logger     *slog.Logger // nil discards
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
	// ladenFrom is how many commands and messages are enough for a sync.
	ladenFrom = 64
	// sealAfter is how long writing must have paused for the log's last frame to be sealed.
	sealAfter = 50 * time.Millisecond
	// defaultTick times heartbeatTicks is how often a leader says that it leads; times electionTicks, the least time
	// after which it is given up.
	defaultTick    = 100 * time.Millisecond
	heartbeatTicks = 2
	electionTicks  = 10
	// maxPooled is the most proposals kept for reuse.
	maxPooled = 1024
)

// Host runs all groups of a node in one loop. A Host does nothing until Run.
type Host struct {
	cfg Config

	mu        sync.Mutex
	inbox     []*proposal
	calls     []func() // to run in the loop
	waiting   int      // commands submitted and not answered yet
	bytes     int      // their size
	closed    bool
	pool      []*proposal
	groups    map[uint64]*Group
	without   map[uint64]uint64 // by group that was let go here, what LetGo was told
	mail      []Message         // received
	mailed    int               // about how many bytes they take
	readbox   []*read
	reading   int         // reads submitted and not answered yet
	ticked    bool        // time is to pass
	time      uint64      // ticks, also those that the loop was too slow for
	ships     []*shipment // on their way
	taking    bool        // snapshots are coming, or something is left of some
	freight   []Message   // received, for Carry
	freighted int         // about how many bytes they take
	pinned    []*pinned   // states to be digested, in turn
	unpinned  bool        // nobody digests any more
	uncarried bool        // Carry has ended
	allowance int64       // how many bytes of snapshots may be sent until the next tick

	wake     chan struct{} // gets a token when there is something to do
	carry    chan struct{} // likewise, for Carry
	pins     chan struct{} // likewise, for audits
	shipTick int64         // by how much each tick lifts allowance
	shipLog  int64         // see maxShipLog

	shippedBytes, takenBytes atomic.Int64
	coming                   atomic.Int64 // snapshots
	full                     atomic.Bool  // see SetFull
	flushed                  atomic.Bool  // see Flushed
	sleeping                 atomic.Int64 // groups
	up                       atomic.Pointer[[]uint64]

	auditsDone, auditsDiffer, auditBytes atomic.Int64

	intakes map[uint64]*intake // Carry's, by group
	turns   uint64             // Carry's: how many pieces have been sent
	swept   bool               // Carry's: what an earlier start had left of snapshots is gone

	// Of the loop alone:
	live     []*Group          // by id
	ticks    uint64            // how many have passed
	nonce    uint64            // the last one given
	arrivals []*Group          // have arrived snapshots
	broken   bool              // Fatal was called: nothing moves any more
	start    uint64            // several voters: the number of this start, not 0
	beats    map[uint64]beat   // by node
	want     map[uint64]Wanted // by group: see Want; never changed in place
	spared   []uint64          // see Spare
	keep     uint64            // Config.KeepEntries
	dirty    []*Group
	batch    *raftlog.Batch
	state    *storage.Batch
	touched  []*Group
	applied  []*proposal
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
	if len(cfg.Voters) == 0 {
		cfg.Voters = []uint64{cfg.NodeID}
	}
	cfg.Voters = slices.Compact(slices.Sorted(slices.Values(cfg.Voters)))
	cfg.Several = cfg.Several || len(cfg.Voters) > 1
	if cfg.Tick == 0 {
		cfg.Tick = defaultTick
	}
	if cfg.KeepEntries == 0 {
		cfg.KeepEntries = defaultKeepEntries
	}
	cfg.ShipRate, cfg.PieceBytes = cmp.Or(cfg.ShipRate, defaultShipRate), cmp.Or(cfg.PieceBytes, defaultPiece)
	h := &Host{
		beats: map[uint64]beat{},
		carry: make(chan struct{}, 1), pins: make(chan struct{}, 1), shipTick: int64(float64(cfg.ShipRate) * cfg.Tick.Seconds()), shipLog: maxShipLog, intakes: map[uint64]*intake{}, taking: cfg.Several,
		cfg: cfg, groups: map[uint64]*Group{}, without: map[uint64]uint64{}, wake: make(chan struct{}, 1),
		batch: cfg.Log.NewBatch(), state: cfg.Store.NewBatch(), keep: cfg.KeepEntries,
	}
	if h.cfg.Several {
		var base [8]byte
		rand.Read(base[:]) // never fails
		h.nonce = binary.BigEndian.Uint64(base[:])
		h.start = h.nonce | 1
	}
	return h
}

// next returns a number that no other start of any node uses, but by a chance of 1 in 2^64.
func (h *Host) next() uint64 {
	h.nonce++
	return h.nonce
}

// fatal says that this node must not go on.
func (h *Host) fatal(err error) {
	h.broken = true
	h.cfg.Fatal(err)
}

// hlc is the present as a stamp to propose.
func (h *Host) hlc() crdt.HLC { return crdt.At(h.cfg.Now().UnixMilli(), 0) }

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

// Open returns the group with this id, replaying its log into the machine once the loop runs. A group that neither the log nor the
// store knows begins here, with founders as its voters (nil: Config.Voters; empty: none), if this node is one of them; all of them begin it alike. Else it
// is one that others have, and this node holds nothing of it until they take it in. after, if not nil, is called in the loop after each run of
// commands that the store shows, and when Leads, Leader or Members change; it must not block.
func (h *Host) Open(id uint64, m Machine, founders []uint64, after func()) (*Group, error) {
	if founders == nil {
		founders = h.cfg.Voters
	}
	stored := h.cfg.Log.Group(id)
	hs, conf, err := stored.InitialState()
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	if stored.Left() {
		return nil, fmt.Errorf("group %d: open: it was let go, and what is left of it is not cleared yet", id)
	}
	begun := len(conf.GetVoters()) > 0 || m.Applied() > 0
	known := begun || hs != nil && !mutant.On(mutant.FoundedAgain)
	if !known && slices.Contains(founders, h.cfg.NodeID) {
		conf = &pb.ConfState{Voters: slices.Sorted(slices.Values(founders))}
		b := h.cfg.Log.NewBatch()
		b.SetSnapshot(id, &pb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: conf})
		b.Append(id, &pb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}, nil)
		if err := h.cfg.Log.Commit(b, true); err != nil {
			return nil, fmt.Errorf("group %d: begin: %w", id, err)
		}
		begun = true
	}
	g := &Group{
		ID: id, host: h, several: h.cfg.Several, ready: make(chan struct{}), machine: m, after: after, applied: m.Applied(), bounds: m.Bounds(),
	}
	if begun {
		g.applied = max(g.applied, 1)
	}
	g.reads.group = g
	if err := h.reinstall(g, stored); err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	if conf, err = h.configuration(id, conf); err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	g.members.Store(conf)
	first, err := stored.FirstIndex()
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	last, err := stored.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	if g.applied > last || g.applied < first-1 {
		return nil, fmt.Errorf("group %d: open: the state has applied entry %d, the log has %d to %d: one of them is not this node's: %w", id, g.applied, first, last, ErrLost)
	}
	if hs, _, err = stored.InitialState(); err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	if hs.GetCommit() > last {
		return nil, fmt.Errorf("group %d: open: the log ends at %d, and %d was committed: %w", id, last, hs.GetCommit(), ErrLost)
	}
	if voters := conf.GetVoters(); !g.several && !slices.Equal(voters, []uint64{h.cfg.NodeID}) {
		return nil, fmt.Errorf("group %d: open: its voters are %v, and this node is %d, alone", id, voters, h.cfg.NodeID)
	}
	cfg := &raft.Config{
		ID: h.cfg.NodeID, ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: logStorage{stored, g}, Applied: g.applied,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 8 << 20, MaxInflightMsgs: 256,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe, Logger: raftLogger{h.cfg.Logger},
	}
	if g.several {
		cfg.MaxUncommittedEntriesSize = maxWaitingBytes
	}
	if g.node, err = raft.NewRawNode(cfg); err != nil {
		return nil, fmt.Errorf("group %d: open: %w", id, err)
	}
	// The only voter need not wait for an election timeout. Of several, each begins by standing for some of the
	// groups, so that leaders are spread; where somebody leads already, the others do not listen (PreVote).
	// For a group that has just begun with a state, somebody stands who knows that: see Stand.
	if voters := conf.GetVoters(); len(voters) > 0 && voters[id%uint64(len(voters))] == h.cfg.NodeID && (!g.several || len(founders) > 0 || g.applied > 1) {
		if err := g.node.Campaign(); err != nil {
			return nil, fmt.Errorf("group %d: campaign: %w", id, err)
		}
	}
	h.mu.Lock()
	h.groups[id] = g
	h.calls = append(h.calls, func() { h.adopt(g) })
	h.signal()
	h.mu.Unlock()
	return g, nil
}

func (h *Host) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(h.live, id, func(g *Group, id uint64) int { return cmp.Compare(g.ID, id) })
}

func (h *Host) adopt(g *Group) {
	if g.gone.Load() {
		return
	}
	i, _ := h.find(g.ID)
	h.live = slices.Insert(h.live, i, g)
	h.mark(g)
}

// Remove forgets the group and its log, durably. What was on its way fails.
func (h *Host) Remove(ctx context.Context, g *Group) error {
	g.gone.Store(true)
	return h.call(ctx, func() {
		h.takeOut(g)
		h.forget(g.ID)
	})
}

// takeOut takes a group out of the host, with all that is under way.
func (h *Host) takeOut(g *Group) {
	g.gone.Store(true)
	h.mu.Lock()
	delete(h.groups, g.ID)
	h.mu.Unlock()
	g.wake(h) // it counts no more as one that sleeps
	g.fail(ErrGone)
	g.endShips(h)
	h.dirty = slices.DeleteFunc(h.dirty, func(d *Group) bool { return d == g })
	h.live = slices.DeleteFunc(h.live, func(d *Group) bool { return d == g })
	if !g.led {
		close(g.ready)
	}
}

// Forget is Remove for a group that has not been opened since the start.
func (h *Host) Forget(ctx context.Context, id uint64) error {
	return h.call(ctx, func() { h.forget(id) })
}

func (h *Host) forget(id uint64) {
	h.mu.Lock()
	delete(h.without, id)
	h.mu.Unlock()
	h.batch.Reset()
	h.batch.Remove(id)
	if err := h.cfg.Log.Commit(h.batch, true); err != nil {
		h.fatal(fmt.Errorf("group %d: remove: %w", id, err))
		return
	}
	h.state.Delete(storage.InstalledKey(id))
	if err := h.cfg.Store.Commit(h.state); err != nil {
		h.fatal(fmt.Errorf("group %d: remove: %w", id, err))
	}
}

// Run carries the groups until ctx ends, and then answers whatever is left with ErrClosed.
func (h *Host) Run(ctx context.Context) error {
	if !h.cfg.Several {
		return h.loop(ctx)
	}
	g, ctx := task.NewGroup(ctx, h.cfg.Tasks)
	g.Go(func() error { return h.loop(ctx) })
	g.Go(func() error {
		defer h.endCarry()
		for h.cfg.Tasks.Wait(ctx, h.carry, 0) != task.Ended {
			for h.Carry() && ctx.Err() == nil {
			}
		}
		return nil
	})
	g.Go(func() error { return h.audits(ctx) })
	g.Go(func() error {
		for h.cfg.Tasks.Wait(ctx, nil, h.cfg.Tick) != task.Ended {
			h.Tick()
		}
		return nil
	})
	return g.Wait()
}

func (h *Host) loop(ctx context.Context) error {
	seal := time.Duration(0)
	for {
		switch h.cfg.Tasks.Wait(ctx, h.wake, seal) {
		case task.Ended:
			h.close()
			return nil
		case task.Late:
			seal = 0
			if err := h.cfg.Log.Seal(); err != nil && !errors.Is(err, raftlog.ErrClosed) {
				h.fatal(fmt.Errorf("group: seal: %w", err))
			}
		case task.Token:
			// Whoever is about to propose may do so first: what is taken now shares one sync. Where many have, it would only wait behind those
			// who come.
			if !h.laden() {
				h.cfg.Tasks.Yield()
			}
			h.Step()
			seal = sealAfter
		}
	}
}

func (h *Host) close() {
	h.mu.Lock()
	h.closed = true
	inbox, calls, reads := h.inbox, h.calls, h.readbox
	h.inbox, h.calls, h.readbox, h.mail = nil, nil, nil, nil
	groups := h.groups
	h.mu.Unlock()
	for _, f := range calls {
		f()
	}
	for _, p := range inbox {
		p.err = ErrClosed
	}
	h.answer(inbox)
	h.answerReads(reads, ErrClosed)
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		groups[id].fail(ErrClosed)
	}
}

// Step does all the work there is: it takes what was submitted and received, has raft number it, writes and syncs
// the entries of all groups at once, applies what is committed, and answers. Run calls it; a simulator may
// call it instead.
func (h *Host) Step() {
	if h.broken {
		return
	}
	h.mu.Lock()
	inbox, calls, mail, reads, ticked := h.inbox, h.calls, h.mail, h.readbox, h.ticked
	h.inbox, h.calls, h.mail, h.readbox, h.ticked = nil, nil, nil, nil, false
	h.mailed = 0
	h.mu.Unlock()
	for _, f := range calls {
		f()
	}
	if h.flushed.Swap(false) {
		h.truncate()
	}
	h.deliver(mail)
	if ticked {
		h.ticks++
		for _, g := range h.live {
			g.tick(h)
		}
		h.beat()
		h.balance()
	}
	for _, p := range inbox {
		if p.group.gone.Load() || p.group.suspended.Load() {
			p.err = ErrGone
			h.answer([]*proposal{p})
			continue
		}
		p.group.wake(h)
		p.until = p.group.patient(h)
		p.group.queue = append(p.group.queue, p)
		h.mark(p.group)
	}
	for _, r := range reads {
		if r.group.gone.Load() || r.group.suspended.Load() {
			h.answerReads([]*read{r}, ErrGone)
			continue
		}
		r.group.wake(h)
		r.until = r.group.patient(h)
		r.group.reads.come = append(r.group.reads.come, r)
		h.mark(r.group)
	}
	for _, g := range h.dirty {
		g.propose(h)
		g.ask(h)
	}
	for h.ready() {
		// One group's long queue takes many rounds; what others have to do since goes into the next.
		if h.pending() {
			h.signal()
			break
		}
	}
	h.leaveSnapshots()
}

// laden tells whether so much waits for Step that it is worth a sync.
func (h *Host) laden() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.inbox)+len(h.mail) >= ladenFrom
}

// pending tells whether there is more for Step to take.
func (h *Host) pending() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.inbox) > 0 || len(h.mail) > 0 || len(h.readbox) > 0 || len(h.calls) > 0 || h.ticked
}

func (h *Host) mark(g *Group) {
	if !g.dirty {
		g.dirty = true
		h.dirty = append(h.dirty, g)
	}
}

// work is what raft wants done for one group in one round.
type work struct {
	g       *Group
	rd      raft.Ready
	changes bool // entries to be applied change the members
}

// ready takes one round of what raft wants done, over all groups, and tells whether there was any.
func (h *Host) ready() bool {
	if h.broken {
		return false
	}
	var todo []work
	sync, installs, changes := false, false, false
	rest := h.dirty[:0]
	for _, g := range h.dirty {
		if g.suspended.Load() && !mutant.On(mutant.SuspendedAnswers) || !g.node.HasReady() {
			g.dirty = false
			continue
		}
		rest = append(rest, g)
		rd := g.node.Ready()
		if !g.several {
			g.number(rd.Entries)
		}
		sync = sync || rd.MustSync
		installs = installs || !raft.IsEmptySnap(rd.Snapshot)
		w := work{g: g, rd: rd, changes: slices.ContainsFunc(rd.CommittedEntries, func(e *pb.Entry) bool { return e.GetType() != pb.EntryNormal })}
		changes = changes || w.changes && !mutant.On(mutant.MembersForgotten)
		todo = append(todo, w)
	}
	h.dirty = rest
	if len(todo) == 0 {
		return false
	}
	// What a leader tells its followers does not wait for its own disk (Ongaro's thesis, 10.2.1): they write while it
	// writes. All other messages are promises about what is durable here, and wait.
	h.send(todo, true)
	if installs && !h.install(todo) {
		return false
	}
	if sync || installs || changes {
		h.batch.Reset()
		for _, w := range todo {
			if w.changes && changes {
				// Whoever has acted with new members must not, after a crash, stand for election among the old ones: raft does not, while it
				// knows of a committed change that it has not applied.
				w.rd.HardState = w.g.node.BasicStatus().HardState
			}
			if !raft.IsEmptySnap(w.rd.Snapshot) {
				h.batch.SetSnapshot(w.g.ID, w.rd.Snapshot.GetMetadata())
				h.batch.Append(w.g.ID, w.rd.HardState, w.rd.Entries)
			} else if w.rd.MustSync || w.changes && changes {
				// Any other hard state that only says what is committed need not be written: a restart finds it out again.
				h.batch.Append(w.g.ID, w.rd.HardState, w.rd.Entries)
			}
		}
		if err := h.cfg.Log.Commit(h.batch, true); err != nil {
			h.fatal(fmt.Errorf("group: log: %w", err))
			return false
		}
	}
	h.send(todo, false)
	for _, w := range todo {
		if !raft.IsEmptySnap(w.rd.Snapshot) {
			h.reload(w.g, w.rd.Snapshot.GetMetadata())
		}
		if mutant.On(mutant.AckBeforeCommit) {
			h.answer(w.g.sent.all(nil))
		}
		w.g.reads.answer(w.rd.ReadStates)
		h.apply(w.g, w.rd.CommittedEntries)
		if h.broken {
			return false
		}
		w.g.node.Advance(w.rd)
	}
	h.show()
	for _, w := range todo {
		w.g.reads.serve(h)
		w.g.lead(h, w.rd)
		w.g.propose(h)
	}
	return !h.broken
}

// apply runs committed entries through the group's machine into the current batch.
func (h *Host) apply(g *Group, entries []*pb.Entry) {
	for _, e := range entries {
		if e.GetIndex() != g.applied+1 {
			panic(fmt.Sprintf("group %d: entry %d applied behind entry %d", g.ID, e.GetIndex(), g.applied))
		}
		g.applied = e.GetIndex()
		p := g.take(e)
		if late := late(e); g.several && (late && p != nil || e.GetTerm() > g.passed) {
			g.passed = e.GetTerm()
			lost := g.sent.before(g.passed)
			if late && p != nil {
				lost, p = append(lost, p), nil
			}
			g.again(h, lost)
		}
		var cmd *op.Command
		switch {
		case late(e):
		case e.GetType() != pb.EntryNormal:
			if err := g.changeMembers(h, e); err != nil {
				h.fatal(fmt.Errorf("group %d: entry %d: %w", g.ID, e.GetIndex(), err))
				return
			}
		case p != nil:
			cmd = p.cmd
		case len(e.GetData()) > 0:
			var err error
			if cmd, err = op.Decode(command(e.GetData())); err != nil {
				h.fatal(fmt.Errorf("group %d: entry %d: %w", g.ID, e.GetIndex(), err))
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
		var audits *op.Command
		if cmd != nil && cmd.Kind == op.Audit {
			cmd, audits = nil, cmd // it is no machine's
		}
		result := g.machine.Apply(e.GetIndex(), cmd, h.state)
		if audits != nil {
			result.Revision = e.GetIndex()
		}
		if result.Child != 0 && cmd.Kind == op.Split {
			if err := g.begin(h, result.Child); err != nil {
				h.fatal(fmt.Errorf("group %d: entry %d: group %d: %w", g.ID, e.GetIndex(), result.Child, err))
				return
			}
		}
		if p != nil {
			p.result = result
			h.applied = append(h.applied, p)
		}
		if audits != nil {
			if g.applyAudit(h, e.GetIndex(), audits); h.broken {
				return
			}
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
		h.fatal(fmt.Errorf("group: state: %w", err))
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
	now := h.cfg.Now()
	h.mu.Lock()
	for _, p := range ps {
		h.waiting--
		h.bytes -= len(p.data)
		p.group.line.leave(p, now)
	}
	for _, p := range ps {
		p.group.line.measure(now)
	}
	h.mu.Unlock()
	for _, p := range ps {
		p.done <- struct{}{}
	}
}
