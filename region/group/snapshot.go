package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// A follower that lacks entries which the leader's log no longer has gets the leader's state instead.
//
// Raft deals with metadata alone. The state travels in the same message, but is taken off before raft sees it: so a
// state too large for one message can come by another way, and its metadata be given to raft when it is here.
//
// A snapshot is installed in this order, and a crash leaves:
//
//	the rows, and a note of the snapshot, in one batch of the store    the old state, for nothing is flushed
//	a flush of the store                                               the new state and an old log: reinstall
//	the log's record of it                                             both
//
// Bytes of the state:
//
//	1 (1), (length of key (uvarint), key, length of value (uvarint), value)..., CRC-32C of all before (4, big-endian)
//
// Bytes of the note, under storage.InstalledKey: raftpb.SnapshotMetadata. What a change of the members leaves there says the same: the index and
// term of its entry, and who the members are from there on.

const (
	snapshotVersion = 1
	// snapshotTicks is how long it is waited for a follower to say that it has a snapshot, and snapshotTickBytes
	// adds one tick: about 10 MB/s. Then another is sent.
	snapshotTicks     = 50
	snapshotTickBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pendingSnapshot is one sent to a follower.
type pendingSnapshot struct {
	to    uint64
	until uint64 // tick at which it counts as lost
}

// arrived is a snapshot's state that has come for raft to take or to leave.
type arrived struct {
	index, term uint64
	state       []byte
}

// metadata is that of the state as it is after the last entry applied.
func (g *Group) metadata() (*pb.SnapshotMetadata, error) {
	term, err := g.host.cfg.Log.Group(g.ID).Term(g.applied)
	if err != nil {
		return nil, err
	}
	return &pb.SnapshotMetadata{Index: new(g.applied), Term: new(term), ConfState: g.members.Load()}, nil
}

// fill puts the present state into a snapshot's message, and tells whether it can be sent. It is called between two
// rounds of applying, when the store shows what has been applied and no more.
func (g *Group) fill(h *Host, m *pb.Message) bool {
	if len(h.touched) > 0 {
		panic(fmt.Sprintf("group %d: snapshot while entries are being applied", g.ID))
	}
	meta, err := g.metadata()
	var state []byte
	if err == nil && g.machine.Applied() != g.applied {
		err = errors.New("nothing has been applied since the group began")
	}
	if err == nil {
		snap := h.cfg.Store.Snapshot()
		state, err = dump(snap, g.machine.Ranges())
		err = errors.Join(err, snap.Close())
	}
	if err != nil {
		h.cfg.Logger.Error("group: no snapshot can be made", "group", g.ID, "for", m.GetTo(), "err", err)
		g.node.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		return false
	}
	// What raft has named may be older by a round.
	m.Snapshot = &pb.Snapshot{Metadata: meta, Data: state}
	g.pending = slices.DeleteFunc(g.pending, func(p pendingSnapshot) bool { return p.to == m.GetTo() })
	g.pending = append(g.pending, pendingSnapshot{m.GetTo(), h.ticks + snapshotTicks + uint64(len(state)/snapshotTickBytes)})
	return true
}

// snapshotsLost tells raft of snapshots that no answer has come to.
func (g *Group) snapshotsLost(h *Host) {
	if len(g.pending) == 0 {
		return
	}
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if !g.leading || pr.State != tracker.StateSnapshot {
			g.pending = slices.DeleteFunc(g.pending, func(p pendingSnapshot) bool { return p.to == id })
		}
	})
	for _, p := range slices.Clone(g.pending) {
		if p.until <= h.ticks {
			g.snapshotLost(p.to)
		}
	}
}

func (g *Group) snapshotLost(to uint64) {
	n := len(g.pending)
	if g.pending = slices.DeleteFunc(g.pending, func(p pendingSnapshot) bool { return p.to == to }); len(g.pending) < n {
		g.node.ReportSnapshot(to, raft.SnapshotFailure)
	}
}

// dump encodes what the ranges hold.
func dump(r storage.Reader, ranges [][2][]byte) ([]byte, error) {
	out := []byte{snapshotVersion}
	for _, kr := range ranges {
		it, err := r.Iter(kr[0], kr[1])
		if err != nil {
			return nil, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			out = append(binary.AppendUvarint(out, uint64(len(it.Key()))), it.Key()...)
			out = append(binary.AppendUvarint(out, uint64(len(it.Value()))), it.Value()...)
		}
		if err := it.Close(); err != nil {
			return nil, err
		}
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

var errSnapshot = errors.New("not a snapshot's state")

// eachRow calls f for each row of an encoded state, once all of it is known to be whole, as far as they are within
// the ranges.
func eachRow(state []byte, ranges [][2][]byte, f func(key, value []byte)) error {
	n := len(state) - 4
	if n < 1 || crc32.Checksum(state[:n], castagnoli) != binary.BigEndian.Uint32(state[n:]) {
		return errSnapshot
	}
	if state[0] != snapshotVersion {
		return fmt.Errorf("%w: version %d", errSnapshot, state[0])
	}
	cut := func(b []byte) (field, rest []byte, ok bool) {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, nil, false
		}
		return b[n : n+int(size)], b[n+int(size):], true
	}
	for rest := state[1:n]; len(rest) > 0; {
		var key, value []byte
		var ok1, ok2 bool
		if key, rest, ok1 = cut(rest); ok1 {
			value, rest, ok2 = cut(rest)
		}
		if !ok1 || !ok2 {
			return errSnapshot
		}
		if !slices.ContainsFunc(ranges, func(kr [2][]byte) bool {
			return bytes.Compare(key, kr[0]) >= 0 && (kr[1] == nil || bytes.Compare(key, kr[1]) < 0)
		}) {
			return fmt.Errorf("%w: key %x is not the group's", errSnapshot, key)
		}
		f(key, value)
	}
	return nil
}

// arrive takes the state off a snapshot's message, and returns the message for raft.
func (g *Group) arrive(m *pb.Message) (*pb.Message, error) {
	meta := m.GetSnapshot().GetMetadata()
	if err := eachRow(m.GetSnapshot().GetData(), g.machine.Ranges(), func(_, _ []byte) {}); err != nil {
		return m, err
	}
	if len(g.arrived) == 0 {
		g.host.arrivals = append(g.host.arrivals, g)
	}
	g.arrived = append(g.arrived, arrived{meta.GetIndex(), meta.GetTerm(), m.GetSnapshot().GetData()})
	return &pb.Message{
		Type: pb.MsgSnap.Enum(), To: m.To, From: m.From, Term: m.Term, Snapshot: &pb.Snapshot{Metadata: meta},
	}, nil
}

// leaveSnapshots lets go what arrived and was not taken.
func (h *Host) leaveSnapshots() {
	for _, g := range h.arrivals {
		g.arrived = nil
	}
	h.arrivals = h.arrivals[:0]
}

// install puts the states of the round's snapshots in the place of what the store has, durably.
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
		ranges := g.machine.Ranges()
		for _, kr := range ranges {
			if mutant.On(mutant.SnapshotKeepsRows) {
				break
			}
			h.state.DeleteRange(kr[0], kr[1])
		}
		err := eachRow(g.arrived[i].state, ranges, func(key, value []byte) { h.state.Set(key, value) })
		var note []byte
		if err == nil {
			note, err = proto.MarshalOptions{Deterministic: true}.Marshal(meta)
		}
		if err == nil {
			h.state.Set(storage.InstalledKey(g.ID), note)
			err = h.cfg.Store.Commit(h.state)
		}
		if err != nil {
			h.fatal(fmt.Errorf("group %d: snapshot of entry %d: %w", g.ID, meta.GetIndex(), err))
			return false
		}
	}
	// The store has no log of its own: the state must be durable before the log begins behind it.
	if mutant.On(mutant.SnapshotNoFlush) {
		return true
	}
	if err := h.cfg.Store.Flush(); err != nil {
		h.fatal(fmt.Errorf("group: snapshot: flush: %w", err))
		return false
	}
	return true
}

// reload goes on from a snapshot that is installed.
func (h *Host) reload(g *Group, meta *pb.SnapshotMetadata) {
	if err := g.machine.Reload(); err != nil {
		h.fatal(fmt.Errorf("group %d: snapshot of entry %d: %w", g.ID, meta.GetIndex(), err))
		return
	}
	if g.machine.Applied() != meta.GetIndex() {
		h.fatal(fmt.Errorf("group %d: a snapshot of entry %d holds the state after entry %d", g.ID, meta.GetIndex(), g.machine.Applied()))
		return
	}
	g.applied = meta.GetIndex()
	g.members.Store(meta.GetConfState())
	// What became of proposals whose entries it covers is not known here.
	g.sent.hurry(h.ticks + hurryTicks)
	if g.after != nil {
		g.after()
	}
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
	return h.cfg.Log.Commit(b, true)
}
