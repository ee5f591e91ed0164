// Package group owns agreement: each partition's commands as a Raft group, many groups to a node, all
// over one log (storage/raftlog), one write and one fsync for every group that is ready.
//
// It leaves what a command means to the group's Machine, which group a key belongs to to package region, and
// the way of a message to another node to whoever set Config.Send. It is the one package that imports etcd's
// raft.
//
// Invariants: a proposal is answered with a result only after its entry is committed, applied here, and visible
// in this node's store; entries are applied in the order of their indexes, each once; everything that touches a
// RawNode or a Machine runs in the Host's loop.
//
// A group has one voter or several. The only voter leads from the start, and neither asks nor waits for anybody.
// Of several, one leads; the others hand it what is proposed (propose.go) and ask it how far a read must see
// (read.go).
package group

import (
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// Machine is what a group's commands are applied to. Its methods are called by the Host's loop only.
type Machine interface {
	// Apply carries out the command of the entry at index (nil: an entry without one), writing to b.
	Apply(index uint64, c *op.Command, b *storage.Batch) op.Result
	// Finish writes to b how far Apply has come. It ends every run of Apply.
	Finish(b *storage.Batch)
	// Committed says that the store shows what the last run wrote.
	Committed()
	// Applied is the index of the last entry applied.
	Applied() uint64
	// AppliedKey is the store's key that Finish writes; its value begins with Applied, eight bytes,
	// big-endian. It lies within Ranges.
	AppliedKey() []byte
	// Ranges are the ranges of the store's keys, [from, to), that hold the machine's whole state, and nothing
	// else's. They are the same at every replica that has applied as much, and do not meet.
	Ranges() [][2][]byte
	// Bounds are ranges within which those of Ranges lie at any replica, however much it has applied.
	Bounds() [][2][]byte
	// Reload reads the state anew: a snapshot's rows have taken the place of what was in Ranges.
	Reload() error
}

// Errors of Propose and Read. After ErrUnknown the command may or may not take effect: the caller says
// so to whoever asked. After the others it has none.
var (
	ErrUnknown    = errors.New("group: the outcome of the command is not known")
	ErrGone       = errors.New("group: there is no such group here any more")
	ErrClosed     = errors.New("group: the node is closing")
	ErrOverloaded = errors.New("group: too many commands are waiting")
	// ErrLost is Config.Fatal's: this node's log lacks what it has acknowledged.
	ErrLost     = errors.New("group: the disk is an older copy")
	ErrNoLeader = errors.New("group: the group has had no leader for some time")
)

// Group is one Raft group's replica on this node. Its exported methods are safe for concurrent use.
type Group struct {
	ID      uint64
	host    *Host
	several bool // it may have more than one voter
	members atomic.Pointer[pb.ConfState]
	bounds  [][2][]byte // the machine's

	line      line          // under the Host's lock
	ready     chan struct{} // one voter: closed once this replica has applied all that was committed before
	gone      atomic.Bool
	suspended atomic.Bool // see Suspend; set by the loop
	leads     atomic.Bool
	leader    atomic.Uint64

	// Of the Host's loop alone:
	node     *raft.RawNode
	machine  Machine
	after    func()            // called after each run that the store shows, and when another replica leads
	applied  uint64            // index of the last entry applied; the store shows it between two rounds
	passed   uint64            // several voters: the term of the last entry applied since the start
	queue    []*proposal       // to be proposed
	waiting  []*proposal       // one voter: proposed; Invariant: index rises, and is 0 in those not numbered yet
	sent     sent              // several voters: proposed
	reads    reads             // several voters
	touched  bool              // has applied something that is not committed to the store yet
	dirty    bool              // is on the Host's list of groups to look at
	led      bool              // ready is closed
	changing uint64            // the tick until which a change of the members is waited for
	leading  bool              // raft's state is leader
	term     uint64            // as of the last change that raft told of
	ships    []*shipment       // snapshots on their way to followers
	arrived  []arrived         // snapshots received, for raft to take or leave
	asleep   bool              // see sleep.go
	audit    audit             // the newest
	awake    uint64            // the tick at which there was last something to do
	orphaned uint64            // the tick at which it was last left without a leader
	stands   uint64            // until this tick it stands for election while nobody leads
	birth    uint64            // by which entry this replica was taken in, if it has heard of that; see sign
	births   map[uint64]uint64 // the same of others, by node
}

// Leads tells whether this replica leads and has applied everything that was acknowledged before it did. By the
// time the caller looks at the answer, another may lead.
func (g *Group) Leads() bool { return g.leads.Load() }

// Leader returns the node that leads, as far as is known here, 0 for none.
func (g *Group) Leader() uint64 { return g.leader.Load() }

// Members returns the nodes that hold a replica, as far as this one has heard: those that vote, and those that are about to. Neither must be
// changed.
func (g *Group) Members() (voters, learners []uint64) {
	conf := g.members.Load()
	return conf.GetVoters(), conf.GetLearners()
}

// logStorage is a group's log as raft reads it, from the machine's state on: whatever the machine has
// applied was committed, though the log's own note of that may be older.
type logStorage struct {
	*raftlog.Group
	g *Group
}

func (s logStorage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hs, _, err := s.Group.InitialState()
	if err == nil && hs.GetCommit() < s.g.applied {
		hs = &pb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(s.g.applied)}
	}
	return hs, s.g.members.Load(), err
}

// Entries is raft.Storage's. What cannot be read as it was written ends the node before raft hears of it.
func (s logStorage) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	es, err := s.Group.Entries(lo, hi, maxSize)
	if errors.Is(err, raftlog.ErrCorrupt) {
		s.g.host.fatal(fmt.Errorf("group %d: %w", s.g.ID, err))
	}
	return es, err
}

// Snapshot names the present state; what is in it goes another way (ship.go).
func (s logStorage) Snapshot() (*pb.Snapshot, error) {
	m, err := s.g.metadata()
	if err != nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &pb.Snapshot{Metadata: m}, nil
}

// lead notes who leads now, by what the last round brought, and opens the group for business.
func (g *Group) lead(h *Host, rd raft.Ready) {
	if rd.HardState != nil && rd.HardState.GetTerm() != g.term {
		g.term = rd.HardState.GetTerm()
		g.set(g.leader.Load(), false)
	}
	if rd.SoftState != nil {
		g.leading = rd.SoftState.RaftState == raft.StateLeader
		g.set(rd.SoftState.Lead, g.leads.Load() && g.leading)
		if g.several && rd.SoftState.Lead != raft.None {
			if mutant.On(mutant.ProposeTwice) {
				g.again(h, g.sent.all(nil))
			}
			g.reads.lost()
			h.mark(g)
			g.propose(h)
			g.ask(h)
		}
	}
	if !g.leading || g.leads.Load() {
		return
	}
	// A leader that has applied an entry of its own term has applied everything that was acknowledged before it
	// led.
	s := g.node.BasicStatus()
	if s.RaftState != raft.StateLeader || !g.several && s.Applied < s.HardState.GetCommit() || !g.ownTerm(h, s) {
		return
	}
	g.set(h.cfg.NodeID, true)
	if !g.several && !g.led {
		g.led = true
		close(g.ready)
		g.propose(h)
		h.mark(g)
	}
}

func (g *Group) set(leader uint64, leads bool) {
	if g.leader.Load() == leader && g.leads.Load() == leads {
		return
	}
	if leader == 0 {
		g.orphaned = g.host.ticks
	}
	g.leader.Store(leader)
	g.leads.Store(leads)
	if g.after != nil {
		g.after()
	}
}

// patient returns the tick until which who comes now is to wait for somebody to lead.
func (g *Group) patient(h *Host) uint64 {
	if g.leader.Load() != 0 {
		return h.ticks + leaderTicks
	}
	return max(g.orphaned+leaderTicks, h.ticks+hurryTicks)
}

func (g *Group) ownTerm(h *Host, s raft.BasicStatus) bool {
	term, err := h.cfg.Log.Group(g.ID).Term(s.Applied)
	return err == nil && term == s.HardState.GetTerm()
}

// tick lets the group's time pass.
func (g *Group) tick(h *Host) {
	if g.asleep || g.suspended.Load() {
		return
	}
	g.node.Tick()
	g.expire(h)
	g.reads.tick(h)
	g.followShips(h)
	g.stand(h)
	g.reconfigure(h)
	g.rest(h)
	h.mark(g)
}

// standTicks is how long a replica that is asked to lead stands for election.
const standTicks = 20

// Stand has this replica stand for election until somebody leads, for some time, instead of waiting until one is missed: for a group that
// has just begun.
func (g *Group) Stand() {
	h := g.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if !g.several || h.closed {
		return
	}
	h.calls = append(h.calls, func() {
		g.stands = h.ticks + standTicks
		g.stand(h)
	})
	h.signal()
}

func (g *Group) stand(h *Host) {
	if g.stands <= h.ticks || g.gone.Load() || g.suspended.Load() {
		return
	}
	s := g.node.BasicStatus()
	if s.Lead != raft.None {
		g.stands = 0
		return
	}
	if s.RaftState == raft.StateCandidate {
		return // the votes are on their way
	}
	// Nobody is disturbed by it: see raft's PreVote.
	if err := g.node.Campaign(); err != nil {
		h.cfg.Logger.Debug("group: it cannot be stood for election", "group", g.ID, "err", err)
	}
	h.mark(g)
}

// outdoes tells whether this replica is asked for its vote, while nobody leads, by one that lacks what it has: then it stands itself, rather
// than have all wait for its time.
func (g *Group) outdoes(h *Host, m *pb.Message) bool {
	if t := m.GetType(); t != pb.MsgPreVote && t != pb.MsgVote || g.node.BasicStatus().Lead != raft.None {
		return false
	}
	log := h.cfg.Log.Group(g.ID)
	last, err := log.LastIndex()
	if err != nil {
		return false
	}
	term, err := log.Term(last)
	return err == nil && (term > m.GetLogTerm() || term == m.GetLogTerm() && last > m.GetIndex())
}

// fail answers everything on its way with err.
func (g *Group) fail(err error) {
	for _, p := range g.queue {
		p.err = err
	}
	for _, p := range g.waiting {
		p.err = ErrUnknown
	}
	g.host.answer(g.queue)
	g.host.answer(g.waiting)
	g.host.answer(g.sent.all(ErrUnknown))
	g.queue, g.waiting = nil, nil
	g.reads.fail(g.host, err)
}
