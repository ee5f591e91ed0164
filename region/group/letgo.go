package group

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/storage"
)

// How a node comes to hold a group no more, of which it is not to be a member. What it has acknowledged must not be forgotten while that counts,
// so it goes in steps:
//
//	Suspend            its replica hears and says nothing any more
//	                   then whoever lets it go asks another node, behind a Read there, for the members: if they name this node, Resume
//	LetGo              it is gone from the host, and of its log are left its term, its vote, and a mark
//	                   then the rows are removed from the store
//	Cleared            once that is durable, the mark goes, too
//
// After a crash LeftBehind tells of which groups the rows are to be removed, and then Cleared. A group that was cleared may be opened again: its
// replica is blank, neither votes nor stands for election until it is taken in, and does not vote twice in a term.

// Suspend has this replica hear, say and do nothing until Resume. What waits here, and what is proposed or read here from now on, ends with
// ErrGone, or with ErrUnknown if it may take effect. That one that leads falls silent the others notice in their time.
func (g *Group) Suspend(ctx context.Context) error {
	return g.host.call(ctx, func() { g.suspend(g.host) })
}

func (g *Group) suspend(h *Host) {
	if g.gone.Load() || g.suspended.Load() {
		return
	}
	g.wake(h)
	// What raft has taken in, a snapshot among it, is carried out first.
	for h.mark(g); g.node.HasReady() && h.ready(); {
	}
	g.suspended.Store(true)
	g.leading = false
	g.set(raft.None, false)
	g.fail(ErrGone)
	g.endShips(h)
}

// Resume has a suspended replica go on where it stopped.
func (g *Group) Resume(ctx context.Context) error {
	return g.host.call(ctx, func() { g.resume(g.host) })
}

func (g *Group) resume(h *Host) {
	if g.gone.Load() || !g.suspended.Swap(false) {
		return
	}
	s := g.node.BasicStatus()
	g.leading = s.RaftState == raft.StateLeader
	g.orphaned, g.awake = h.ticks, h.ticks
	g.set(s.Lead, false)
	h.mark(g)
}

// LetGo takes a suspended replica out of the host and forgets its log, durably, but for what a later one must know. The group's rows are
// to be removed from the store next, and then Cleared. without is an entry at which the members were others, as who holds the group has said: a snapshot
// from before that, which was under way all the time, is not for the replica that may come back. It may hold what stands in another group by now.
func (h *Host) LetGo(ctx context.Context, g *Group, without uint64) (err error) {
	if e := h.call(ctx, func() { err = h.letGo(g, without) }); e != nil {
		return e
	}
	return err
}

func (h *Host) letGo(g *Group, without uint64) error {
	if !g.suspended.Load() || g.gone.Load() {
		return fmt.Errorf("group %d: only what is suspended is let go", g.ID)
	}
	hs := g.node.BasicStatus().HardState
	vote := hs.GetVote()
	if mutant.On(mutant.VoteLetGo) {
		vote = raft.None
	}
	h.takeOut(g)
	h.batch.Reset()
	h.batch.LetGo(g.ID, hs.GetTerm(), vote)
	if err := h.cfg.Log.Commit(h.batch, true); err != nil {
		h.fatal(fmt.Errorf("group %d: let go: %w", g.ID, err))
		return err
	}
	h.mu.Lock()
	h.without[g.ID] = without // in memory: what is under way does not outlive this process
	h.mu.Unlock()
	return nil
}

// LeftBehind returns the groups that were let go and not cleared yet. Until they are, they cannot be opened.
func (h *Host) LeftBehind() (ids []uint64) {
	for _, id := range h.cfg.Log.Groups() {
		if h.cfg.Log.Group(id).Left() {
			ids = append(ids, id)
		}
	}
	return ids
}

// Cleared says that a group's rows, which the caller knows, have been removed from the store. It makes that durable, and has the group be one that
// can be opened again.
func (h *Host) Cleared(ctx context.Context, id uint64) error {
	if err := h.unstate(id); err != nil {
		return err
	}
	return h.call(ctx, func() { h.cleared(id) })
}

// unstate makes durable that the store has nothing of a group any more. It takes as long as a flush of the store.
func (h *Host) unstate(id uint64) error {
	b := h.cfg.Store.NewBatch()
	b.Delete(storage.InstalledKey(id))
	err := h.cfg.Store.Commit(b)
	if err == nil && !mutant.On(mutant.ClearedEarly) {
		err = h.cfg.Store.Flush()
	}
	if err != nil {
		return fmt.Errorf("group %d: clear: %w", id, err)
	}
	return nil
}

func (h *Host) cleared(id uint64) {
	stored := h.cfg.Log.Group(id)
	if !stored.Left() {
		return
	}
	hs, _, err := stored.InitialState()
	h.batch.Reset()
	if hs.GetTerm() == 0 && hs.GetVote() == raft.None {
		h.batch.Remove(id) // it had never heard of anybody
	} else {
		h.batch.Append(id, hs, nil)
	}
	if err == nil {
		err = h.cfg.Log.Commit(h.batch, true)
	}
	if err != nil {
		h.fatal(fmt.Errorf("group %d: clear: %w", id, err))
	}
}

// A node that was let go and is taken in again has forgotten what it had acknowledged. A leader that has let it go and taken it in in one term
// must not take an acknowledgement that was under way all the time for one of the new replica's. So it says by which entry the replica was
// taken in, in what it sends of the log and in snapshots (as Vote, of which Raft makes no use there), and the replica says the same of what it acknowledges.
// Other terms' acknowledgements Raft drops.

// taken notes that a node was taken in by an entry.
func (g *Group) taken(node, entry uint64) {
	if g.births == nil {
		g.births = map[uint64]uint64{}
	}
	g.births[node] = entry
}

// sign puts into a message which replica it is for, or of.
func (g *Group) sign(m *pb.Message) {
	birth := uint64(0)
	switch m.GetType() {
	case pb.MsgApp:
		birth = g.births[m.GetTo()]
	case pb.MsgAppResp:
		birth = g.birth
	}
	if birth > 0 {
		m.Vote = new(birth)
	}
}

// known reads what sign has written, and tells whether the message is of a replica that this leader counts on.
func (g *Group) known(m *pb.Message) bool {
	switch m.GetType() {
	case pb.MsgApp, pb.MsgSnap:
		g.birth = max(g.birth, m.GetVote())
	case pb.MsgAppResp:
		return m.GetVote() >= g.births[m.GetFrom()] || m.GetTerm() != g.node.BasicStatus().HardState.GetTerm() || mutant.On(mutant.OldAckCounts)
	}
	return true
}
