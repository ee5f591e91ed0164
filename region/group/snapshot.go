package group

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// A follower that lacks entries which the leader's log no longer has gets the leader's state instead.
//
// Raft deals with metadata alone. The state goes another way (ship.go, intake.go): in pieces, beside the loops of both, and only when the
// follower has all of it is raft there given the message. It takes it or leaves it, as it does with any.
//
// A snapshot is installed in this order, and a crash leaves:
//
//	the rows, beside the store (storage.Import)                        the old state, and what has come of the new one
//	the rows, and a note of the snapshot, in the old ones' place        the new state and an old log: reinstall
//	the log's record of it                                             both
//
// Bytes of the note, under storage.InstalledKey: raftpb.SnapshotMetadata. What a change of the members leaves there says the same: the index and
// term of its entry, and who the members are from there on.

// arrived is a snapshot's state that has come for raft to take or to leave.
type arrived struct {
	index, term uint64
	in          *intake
}

// metadata is that of the state as it is after the last entry applied.
func (g *Group) metadata() (*pb.SnapshotMetadata, error) {
	term, err := g.host.cfg.Log.Group(g.ID).Term(g.applied)
	if err != nil {
		return nil, err
	}
	return &pb.SnapshotMetadata{Index: new(g.applied), Term: new(term), ConfState: g.members.Load()}, nil
}

// arrive gives raft a snapshot whose state is here.
func (h *Host) arrive(in *intake, m *pb.Message) {
	i, ok := h.find(in.group)
	if !ok || h.live[i] != in.of || in.of.suspended.Load() {
		h.settle(in)
		return
	}
	g, meta := h.live[i], m.GetSnapshot().GetMetadata()
	g.known(m)
	if len(g.arrived) == 0 {
		h.arrivals = append(h.arrivals, g)
	}
	g.arrived = append(g.arrived, arrived{meta.GetIndex(), meta.GetTerm(), in})
	m = &pb.Message{Type: pb.MsgSnap.Enum(), To: m.To, From: m.From, Term: m.Term, Snapshot: &pb.Snapshot{Metadata: meta}}
	if err := g.node.Step(m); err != nil {
		h.cfg.Logger.Debug("group: a snapshot was refused", "group", g.ID, "from", m.GetFrom(), "err", err)
	}
	h.mark(g)
}

// leaveSnapshots lets go what arrived and was not taken.
func (h *Host) leaveSnapshots() {
	for _, g := range h.arrivals {
		for _, a := range g.arrived {
			h.settle(a.in)
		}
		g.arrived = nil
	}
	h.arrivals = h.arrivals[:0]
}

// settle ends an intake whose state has been installed, or is not wanted.
func (h *Host) settle(in *intake) {
	if in.settled.Load() {
		return
	}
	if err := in.imp.Drop(); err != nil {
		h.cfg.Logger.Error("group: what came of a snapshot cannot be removed", "group", in.group, "err", err)
	}
	in.settled.Store(true)
}

// install puts the states of the round's snapshots in the place of what the store has, durably. It writes no rows, and takes milliseconds.
func (h *Host) install(todo []work) bool {
	for _, w := range todo {
		if raft.IsEmptySnap(w.rd.Snapshot) {
			continue
		}
		g, meta := w.g, w.rd.Snapshot.GetMetadata()
		i := slices.IndexFunc(g.arrived, func(a arrived) bool { return a.index == meta.GetIndex() && a.term == meta.GetTerm() })
		if i < 0 {
			panic(fmt.Sprintf("group %d: raft has a snapshot of entry %d that never came", g.ID, meta.GetIndex()))
		}
		if meta.GetIndex() <= g.applied {
			panic(fmt.Sprintf("group %d: a snapshot of entry %d behind entry %d", g.ID, meta.GetIndex(), g.applied))
		}
		note, err := proto.MarshalOptions{Deterministic: true}.Marshal(meta)
		if err == nil {
			err = g.arrived[i].in.imp.Install(storage.InstalledKey(g.ID), note)
		}
		if err != nil {
			h.fatal(fmt.Errorf("group %d: snapshot of entry %d: %w", g.ID, meta.GetIndex(), err))
			return false
		}
		g.arrived[i].in.settled.Store(true)
	}
	return true
}

// reload goes on from a snapshot that is installed.
func (h *Host) reload(g *Group, meta *pb.SnapshotMetadata) {
	var old [][2][]byte
	if g.machine.Applied() > 0 {
		old = g.machine.Ranges()
	}
	if err := g.machine.Reload(); err != nil {
		h.fatal(fmt.Errorf("group %d: snapshot of entry %d: %w", g.ID, meta.GetIndex(), err))
		return
	}
	if g.machine.Applied() != meta.GetIndex() {
		h.fatal(fmt.Errorf("group %d: a snapshot of entry %d holds the state after entry %d", g.ID, meta.GetIndex(), g.machine.Applied()))
		return
	}
	if err := h.deleteRows(beyond(old, g.machine.Ranges())); err != nil {
		h.fatal(fmt.Errorf("group %d: snapshot of entry %d: %w", g.ID, meta.GetIndex(), err))
		return
	}
	g.applied = meta.GetIndex()
	g.members.Store(meta.GetConfState())
	// What became of proposals whose entries it covers is not known here.
	g.sent.covered(h.ticks + hurryTicks)
	if g.after != nil {
		g.after()
	}
}

// deleteRows removes rows, durably. They are of what was a group's and is none of it any more; whoever has it now may not be here.
func (h *Host) deleteRows(ranges [][2][]byte) error {
	if len(ranges) == 0 {
		return nil
	}
	b := h.cfg.Store.NewBatch()
	for _, r := range ranges {
		b.DeleteRange(r[0], r[1])
	}
	if err := h.cfg.Store.Commit(b); err != nil {
		return err
	}
	return h.cfg.Store.Flush()
}

// beyond returns what of some ranges is in none of others.
func beyond(ranges, others [][2][]byte) (out [][2][]byte) {
	out = slices.Clone(ranges)
	for _, o := range others {
		var left [][2][]byte
		for _, r := range out {
			if bytes.Compare(o[1], r[0]) <= 0 || bytes.Compare(r[1], o[0]) <= 0 {
				left = append(left, r)
				continue
			}
			if bytes.Compare(r[0], o[0]) < 0 {
				left = append(left, [2][]byte{r[0], o[0]})
			}
			if bytes.Compare(o[1], r[1]) < 0 {
				left = append(left, [2][]byte{o[1], r[1]})
			}
		}
		out = left
	}
	return out
}

// reinstall repeats the last step of an installation that a crash has cut short: the state is the snapshot's, and the
// log does not know it.
func (h *Host) reinstall(g *Group, log *raftlog.Group) error {
	note, err := h.cfg.Store.Get(nil, storage.InstalledKey(g.ID))
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	meta := &pb.SnapshotMetadata{}
	if err := proto.Unmarshal(note, meta); err != nil {
		return fmt.Errorf("note of the last snapshot: %w", err)
	}
	if g.machine.Applied() != meta.GetIndex() {
		return nil // the state has gone on from there, which it does behind the log's record only
	}
	if term, err := log.Term(meta.GetIndex()); err == nil && term == meta.GetTerm() {
		return nil
	}
	hs, _, err := log.InitialState()
	if err != nil {
		return err
	}
	if hs.GetCommit() > meta.GetIndex() {
		return fmt.Errorf("the state is a snapshot's of entry %d, which the log does not have, though it was committed to %d", meta.GetIndex(), hs.GetCommit())
	}
	b := h.cfg.Log.NewBatch()
	b.SetSnapshot(g.ID, meta)
	if hs.GetTerm() < meta.GetTerm() { // a group that begins with a state
		b.Append(g.ID, &pb.HardState{Term: new(meta.GetTerm()), Commit: new(meta.GetIndex())}, nil)
	}
	return h.cfg.Log.Commit(b, true)
}

// begin notes that another group begins with what the present batch holds, with the members that this one has, as if it were a
// snapshot's state: Open finds it.
func (g *Group) begin(h *Host, child uint64) error {
	note, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: g.members.Load()})
	if err == nil {
		h.state.Set(storage.InstalledKey(child), note)
	}
	return err
}
