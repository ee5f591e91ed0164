// Package group owns agreement: each partition's commands as a Raft group, many groups to a node, all
// over one log (storage/raftlog), one write and one fsync for every group that is ready.
//
// It leaves what a command means to the group's Machine, and which group a key belongs to to package
// region. It is the one package that imports etcd's raft.
//
// Invariants: a proposal is answered only after its entry is durable, committed, applied, and visible in
// the store; entries are applied in the order of their indexes, each once; everything that touches a
// RawNode or a Machine runs in the Host's loop.
package group

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/internal/task"
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
	// big-endian.
	AppliedKey() []byte
}

// Errors of Propose and Read. After ErrUnknown the command may or may not take effect: the caller says
// so to whoever asked. After ErrGone and ErrClosed it has none.
var (
	ErrUnknown    = errors.New("group: the outcome of the command is not known")
	ErrGone       = errors.New("group: there is no such group here any more")
	ErrClosed     = errors.New("group: the node is closing")
	ErrOverloaded = errors.New("group: too many commands are waiting")
)

// Group is one Raft group's replica on this node. Its exported methods are safe for concurrent use.
type Group struct {
	ID   uint64
	host *Host

	ready chan struct{} // closed once this replica leads and has applied all that was committed before
	gone  atomic.Bool

	// Of the Host's loop alone:
	node    *raft.RawNode
	machine Machine
	after   func()      // called after each run that the store shows
	queue   []*proposal // to be proposed
	waiting []*proposal // proposed; Invariant: index rises, and is 0 in those not numbered yet
	touched bool        // has applied something that is not committed to the store yet
	dirty   bool        // is on the Host's list of groups to look at
	led     bool        // ready is closed
}

// proposal is one command on its way.
type proposal struct {
	group  *Group
	cmd    *op.Command
	data   []byte
	index  uint64 // of its entry, once proposed
	term   uint64
	result op.Result
	err    error
	done   chan struct{} // gets one token
}

// Propose logs the command, waits until it is durable and applied, and returns what applying it gave.
// The command belongs to the group from then on. When ctx ends first it returns ErrUnknown.
func (g *Group) Propose(ctx context.Context, c *op.Command) (op.Result, error) {
	p := g.host.newProposal(g, c)
	if err := g.host.submit(p); err != nil {
		return op.Result{}, err
	}
	if g.host.cfg.Tasks.Wait(ctx, p.done, 0) == task.Ended {
		return op.Result{}, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
	result, err := p.result, p.err
	g.host.recycle(p)
	return result, err
}

// Read waits until the store shows every write acknowledged before the call, so that a strongly
// consistent read may read it.
func (g *Group) Read(ctx context.Context) error {
	// A group of one voter: an acknowledged write is visible in this very store, from the moment that
	// this replica has replayed its log.
	select {
	case <-g.ready:
	default:
		if g.host.cfg.Tasks.Wait(ctx, g.ready, 0) == task.Ended {
			return fmt.Errorf("group %d: read: %w", g.ID, context.Cause(ctx))
		}
	}
	if g.gone.Load() {
		return ErrGone
	}
	return nil
}

// logStorage is a group's log as raft reads it, from the machine's state on: whatever the machine has
// applied was committed, though the log's own note of that may be older.
type logStorage struct {
	*raftlog.Group
	applied uint64
}

func (s logStorage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hs, cs, err := s.Group.InitialState()
	if err == nil && hs.GetCommit() < s.applied {
		hs = &pb.HardState{Term: new(hs.GetTerm()), Vote: new(hs.GetVote()), Commit: new(s.applied)}
	}
	return hs, cs, err
}

// propose hands the queued commands to raft, in one step.
func (g *Group) propose(h *Host) {
	if len(g.queue) == 0 {
		return
	}
	now := h.hlc()
	entries := make([]*pb.Entry, len(g.queue))
	for i, p := range g.queue {
		switch p.cmd.Kind {
		case op.Put, op.Update, op.Delete, op.Expire, op.Restore, op.Merge:
			p.cmd.HLC = now
			op.SetHLC(p.data, now)
		}
		entries[i] = &pb.Entry{Data: p.data}
	}
	if err := g.node.Step(&pb.Message{Type: pb.MessageType_MsgProp.Enum(), From: new(h.cfg.NodeID), Entries: entries}); err != nil {
		for _, p := range g.queue {
			p.err = fmt.Errorf("group %d: propose: %w", g.ID, err)
		}
		h.answer(g.queue)
		g.queue = g.queue[:0]
		return
	}
	g.waiting = append(g.waiting, g.queue...)
	clear(g.queue)
	g.queue = g.queue[:0]
}

// number notes which entries raft has made of the proposals: entries with data come from here alone, and
// in the order of the proposals.
func (g *Group) number(entries []*pb.Entry) {
	i := 0
	for i < len(g.waiting) && g.waiting[i].index > 0 {
		i++
	}
	for _, e := range entries {
		if len(e.GetData()) == 0 {
			continue
		}
		if i == len(g.waiting) {
			panic(fmt.Sprintf("group %d: entry %d was proposed by nobody here", g.ID, e.GetIndex()))
		}
		g.waiting[i].index, g.waiting[i].term = e.GetIndex(), e.GetTerm()
		i++
	}
}

// take returns the proposal whose entry this is, nil when it was proposed before a restart or by another
// node. Proposals whose entries were replaced by another leader's fail.
func (g *Group) take(e *pb.Entry) *proposal {
	for len(g.waiting) > 0 && g.waiting[0].index > 0 && g.waiting[0].index <= e.GetIndex() {
		p := g.waiting[0]
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
		if p.index == e.GetIndex() && p.term == e.GetTerm() {
			return p
		}
		p.err = ErrUnknown
		g.host.answer([]*proposal{p})
	}
	return nil
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
	g.queue, g.waiting = nil, nil
}
