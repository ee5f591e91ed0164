package group

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/storage"
)

// The members of a group change while it goes on, one at a time: who leads it brings them, step by step, to what Want says. A node that is
// to vote first learns what there is, and votes once it has caught up; then those stop voting that are not to vote any more; one that leads hands over first.
// Each step is an entry of the group's log, and counts from where it is applied. Nothing of the way is kept: should something else be wanted
// meanwhile, the next step goes there.
//
// Who the members are is stored with the state, in the same batch as the entry's effect: after a crash both are as of the same entry.

// caughtUp is how many entries a learner may lag behind what is committed and still become a voter.
const caughtUp = 64

// changeTicks is how long a step is waited for before it is proposed again.
const changeTicks = 20

// Wanted says who is to hold a group.
type Wanted struct {
	// Voters are to have it and to vote. At least one.
	Voters []uint64
	// Learners are to have it, and never vote.
	Learners []uint64
}

// Want says who is to hold the groups from now on, by their ids, those that are opened later too. A group of which it says nothing, or names
// no voters, keeps the members that it has. It may be said again at any time, at every node; who leads a group listens.
func (h *Host) Want(ctx context.Context, of map[uint64]Wanted) error {
	want := map[uint64]Wanted{}
	for id, w := range of {
		if len(w.Voters) > 0 {
			want[id] = Wanted{slices.Sorted(slices.Values(w.Voters)), slices.Sorted(slices.Values(w.Learners))}
		}
	}
	return h.call(ctx, func() { h.wants(want) })
}

func (h *Host) wants(of map[uint64]Wanted) {
	old := h.want
	h.want = of
	for _, g := range h.live {
		if was, is := old[g.ID], of[g.ID]; !slices.Equal(was.Voters, is.Voters) || !slices.Equal(was.Learners, is.Learners) {
			g.wake(h)
		}
	}
}

// settled tells whether the members are those that are wanted.
func (g *Group) settled(h *Host) bool {
	w, ok := h.want[g.ID]
	conf := g.members.Load()
	return !ok || sameNodes(conf.GetVoters(), w.Voters) && sameNodes(conf.GetLearners(), w.Learners)
}

// sameNodes tells whether some nodes are those that are wanted, which are in order.
func sameNodes(nodes, want []uint64) bool {
	return slices.Equal(slices.Sorted(slices.Values(nodes)), want)
}

// reconfigure takes the next step towards what is wanted, if this replica leads and no step is under way.
func (g *Group) reconfigure(h *Host) {
	w, ok := h.want[g.ID]
	if !ok || !g.leads.Load() || !g.leading || h.ticks < g.changing {
		return
	}
	// It was let go by another that led before. Nobody hears what it answers.
	if !slices.Contains(g.members.Load().GetVoters(), h.cfg.NodeID) {
		g.handOver(h, nil)
		return
	}
	if g.settled(h) {
		return
	}
	kind, node := g.next(w)
	if node == raft.None {
		return // somebody is waited for who learns: those that go may be needed until then
	}
	if node == h.cfg.NodeID { // who goes is not told of what it holds no more
		g.handOver(h, w.Voters)
		return
	}
	g.changing = h.ticks + changeTicks
	// Raft takes one at a time: while one is under way it makes an entry without meaning of this.
	c := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(node)}}}
	if err := g.node.ProposeConfChange(c); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		h.fatal(fmt.Errorf("group %d: change of its members: %w", g.ID, err))
	}
	h.mark(g)
}

// next returns the next step. Who has caught up need not wait for who has not; nobody stops voting before all have who are to vote.
func (g *Group) next(w Wanted) (kind pb.ConfChangeType, node uint64) {
	const add, learn, remove = pb.ConfChangeType_ConfChangeAddNode, pb.ConfChangeType_ConfChangeAddLearnerNode, pb.ConfChangeType_ConfChangeRemoveNode
	conf := g.members.Load()
	voters, learners := conf.GetVoters(), conf.GetLearners()
	for _, id := range learners {
		if !slices.Contains(w.Voters, id) && !slices.Contains(w.Learners, id) {
			return remove, id
		}
	}
	all := true
	for _, id := range w.Voters {
		if slices.Contains(voters, id) {
			continue
		}
		all = false
		if slices.Contains(learners, id) && g.hasCaughtUp(id) {
			return add, id
		}
	}
	for _, id := range slices.Concat(w.Voters, w.Learners) {
		if !slices.Contains(voters, id) && !slices.Contains(learners, id) {
			return learn, id
		}
	}
	for _, id := range voters {
		switch {
		case !all && !mutant.On(mutant.RemovedFirst) || slices.Contains(w.Voters, id):
		case slices.Contains(w.Learners, id):
			return learn, id // it keeps what it has
		default:
			return remove, id
		}
	}
	return 0, raft.None
}

// Heard tells whether this node has heard of another lately.
func (h *Host) Heard(ctx context.Context, node uint64) (yes bool, err error) {
	err = h.call(ctx, func() {
		b, ok := h.beats[node]
		yes = ok && h.ticks-b.at <= activeTicks
	})
	return yes, err
}

// hasCaughtUp tells whether a learner has about all that is committed.
func (g *Group) hasCaughtUp(node uint64) (yes bool) {
	commit := g.node.BasicStatus().HardState.GetCommit()
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == node {
			yes = pr.State == tracker.StateReplicate && pr.RecentActive && pr.Match+caughtUp >= commit
		}
	})
	return yes
}

// changeMembers carries out an entry that changes the members.
func (g *Group) changeMembers(h *Host, e *pb.Entry) error {
	c := &pb.ConfChangeV2{}
	if e.GetType() != pb.EntryConfChangeV2 {
		return fmt.Errorf("it is of type %v, which this version does not know", e.GetType())
	}
	if err := proto.Unmarshal(e.GetData(), c); err != nil {
		return err
	}
	conf, before := g.node.ApplyConfChange(c), g.members.Load()
	for _, id := range slices.Concat(conf.GetVoters(), conf.GetLearners()) {
		if !slices.Contains(before.GetVoters(), id) && !slices.Contains(before.GetLearners(), id) {
			g.taken(id, e.GetIndex())
		}
	}
	note, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.SnapshotMetadata{Index: new(e.GetIndex()), Term: new(e.GetTerm()), ConfState: conf})
	if err != nil {
		return err
	}
	h.state.Set(storage.InstalledKey(g.ID), note)
	g.members.Store(conf)
	g.changing = 0
	h.cfg.Logger.Info("group: its members change", "group", g.ID, "voters", conf.GetVoters(), "learners", conf.GetLearners())
	return nil
}

// configuration returns who a group's members are, as of the state in the store; before is whom it began with.
func (h *Host) configuration(id uint64, before *pb.ConfState) (*pb.ConfState, error) {
	note, err := h.cfg.Store.Get(nil, storage.InstalledKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return before, nil
	}
	meta := &pb.SnapshotMetadata{}
	if err == nil {
		err = proto.Unmarshal(note, meta)
	}
	if err != nil {
		return nil, fmt.Errorf("who its members are: %w", err)
	}
	return meta.GetConfState(), nil
}
