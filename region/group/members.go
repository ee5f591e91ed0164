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

	"github.com/commutatordb/commutator/storage"
)

// The members of a group change while it goes on, one at a time: who leads it brings them, step by step, to what Want says. A node that is
// to hold a replica first learns what there is, and votes once it has caught up; one that is not to hold one any more stops voting at once.
// Each step is an entry of the group's log, and counts from where it is applied.
//
// Who the members are is stored with the state, in the same batch as the entry's effect: after a crash both are as of the same entry.

// caughtUp is how many entries a learner may lag behind what is committed and still become a voter.
const caughtUp = 64

// changeTicks is how long a step is waited for before it is proposed again.
const changeTicks = 20

// Want says which nodes are to hold the groups from now on. It may be said again at any time, at every node; who leads a group listens.
func (h *Host) Want(ctx context.Context, nodes []uint64) error {
	nodes = slices.Sorted(slices.Values(nodes))
	return h.call(ctx, func() { h.wants(nodes) })
}

func (h *Host) wants(nodes []uint64) {
	if !slices.Equal(h.want, nodes) {
		h.want = nodes
		for _, g := range h.live {
			g.wake(h)
		}
	}
}

// reconfigure takes the next step towards what is wanted, if this replica leads and no step is under way.
func (g *Group) reconfigure(h *Host) {
	if len(h.want) == 0 || !g.leads.Load() || !g.leading {
		return
	}
	if h.ticks < g.changing {
		return
	}
	conf := g.members.Load()
	if !slices.Contains(conf.GetVoters(), h.cfg.NodeID) {
		g.handOver(h, nil) // it was let go by another that led before
		return
	}
	change := func(kind pb.ConfChangeType, node uint64) {
		g.changing = h.ticks + changeTicks
		// Raft takes one at a time: while one is under way it makes an entry without meaning of this.
		c := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(node)}}}
		if err := g.node.ProposeConfChange(c); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
			h.fatal(fmt.Errorf("group %d: change of its members: %w", g.ID, err))
		}
		h.mark(g)
	}
	for _, node := range h.want {
		switch {
		case slices.Contains(conf.GetVoters(), node):
		case !slices.Contains(conf.GetLearners(), node):
			change(pb.ConfChangeType_ConfChangeAddLearnerNode, node)
			return
		case g.hasCaughtUp(node):
			change(pb.ConfChangeType_ConfChangeAddNode, node)
			return
		default:
			return // it is waited for: those that go may be needed until then
		}
	}
	for _, node := range slices.Concat(conf.GetVoters(), conf.GetLearners()) {
		switch {
		case slices.Contains(h.want, node):
		case node == h.cfg.NodeID: // who goes is not told of what it holds no more
			g.handOver(h, h.want)
			return
		case g.ID == h.cfg.Home && h.holds(node):
		default:
			change(pb.ConfChangeType_ConfChangeRemoveNode, node)
			return
		}
	}
}

// Heard tells whether this node has heard of another lately.
func (h *Host) Heard(ctx context.Context, node uint64) (yes bool, err error) {
	err = h.call(ctx, func() {
		b, ok := h.beats[node]
		yes = ok && h.ticks-b.at <= activeTicks
	})
	return yes, err
}

// holds tells whether a node holds a replica of any group but Home, as far as is known here.
func (h *Host) holds(node uint64) bool {
	return slices.ContainsFunc(h.live, func(g *Group) bool {
		conf := g.members.Load()
		return g.ID != h.cfg.Home && (slices.Contains(conf.GetVoters(), node) || slices.Contains(conf.GetLearners(), node))
	})
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
	conf := g.node.ApplyConfChange(c)
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
