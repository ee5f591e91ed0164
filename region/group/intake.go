package group

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/storage"
)

// What comes of a snapshot is gathered beside the store (storage.Import), one at a time of a group, and survives a restart as far as it is
// durable. When all of it is here the loop gets it, and gives raft the message.

const (
	// maxFreight bounds the bytes of pieces that wait for Carry; what comes then is dropped, and sent again.
	maxFreight = 32 << 20
	// forgetTicks is how long what has come of a snapshot is kept when no more comes.
	forgetTicks = 2 * giveUpTicks
)

// intake is a snapshot that is coming.
type intake struct {
	group, id   uint64
	of          *Group // the replica that it is for: not one that comes after it
	index, term uint64
	imp         *storage.Import
	came        uint64      // when a piece last came, by Host.time
	given       bool        // the loop has it
	settled     atomic.Bool // set by the loop: installed or not wanted; imp is gone
}

func (in *intake) name() string { return fmt.Sprintf("%d-%016x", in.group, in.id) }

// takeIn takes a piece, and answers how far the snapshot has come.
func (h *Host) takeIn(m Message, now uint64) {
	from, meta := m.Raft.GetFrom(), m.Raft.GetSnapshot().GetMetadata()
	p, err := parsePiece(m.Raft.GetSnapshot().GetData())
	if err != nil {
		h.cfg.Logger.Error("group: what came of a snapshot is not whole", "group", m.Group, "from", from, "err", err)
		return
	}
	h.mu.Lock()
	g, without := h.groups[m.Group], h.without[m.Group]
	h.mu.Unlock()
	if g == nil || g.suspended.Load() {
		return // not open yet, or gone
	}
	if meta.GetIndex() < without && !mutant.On(mutant.OldSnapshotTaken) {
		return // for a replica that was let go: see LetGo
	}
	in := h.intakes[m.Group]
	if in != nil && in.of != g {
		h.dropIntake(in)
		in = nil
	}
	if in != nil && in.id != p.id && !mutant.On(mutant.SnapshotsMixed) {
		if in.given && !in.settled.Load() || meta.GetIndex() < in.index && m.Raft.GetTerm() <= in.term {
			return // it is being installed, or newer
		}
		h.dropIntake(in)
		in = nil
	}
	if in == nil {
		in = &intake{group: m.Group, of: g, id: p.id, index: meta.GetIndex(), term: m.Raft.GetTerm()}
		if err := h.beginIntake(g, in, p.ranges); err != nil {
			h.cfg.Logger.Error("group: a snapshot cannot be taken", "group", m.Group, "from", from, "err", err)
			return
		}
	}
	in.came = now
	r := receipt{id: p.id}
	switch {
	case in.given:
		r.all = true
	case in.imp.Completed(): // before a restart
	case !bytes.Equal(p.after, in.imp.Last()) && !(p.last && mutant.On(mutant.SnapshotPieceMissing)) && !mutant.On(mutant.SnapshotPastGap):
		r.refused = true
	default:
		h.takenBytes.Add(int64(len(p.rows)))
		err = p.each(func(key, value []byte) error {
			err := in.imp.Add(key, value)
			if err != nil && mutant.On(mutant.SnapshotPastGap) {
				return nil
			}
			return err
		})
		if err == nil && p.last {
			err = in.imp.Complete()
		}
		if err != nil {
			h.cfg.Logger.Error("group: what came of a snapshot cannot be kept", "group", m.Group, "from", from, "err", err)
			h.dropIntake(in)
			return
		}
	}
	if in.imp.Completed() && !in.given {
		// What the group's own rows have in memory is written now, so that the loop need not wait for it.
		if err := h.cfg.Store.Flush(); err != nil {
			h.fatal(fmt.Errorf("group %d: flush: %w", m.Group, err))
			return
		}
		in.given, r.all = true, true
		h.cfg.Logger.Info("group: a snapshot has come", "group", m.Group, "from", from, "index", in.index, "bytes", in.imp.Bytes())
		h.mu.Lock()
		h.calls = append(h.calls, func() { h.arrive(in, m.Raft) })
		h.signal()
		h.mu.Unlock()
	}
	if !r.all {
		r.have = in.imp.Last()
	}
	h.cfg.Send(from, Message{m.Group, r.message(h.cfg.NodeID, from)})
}

// beginIntake begins to gather a snapshot, or goes on with it after a restart; what was gathered of another goes.
func (h *Host) beginIntake(g *Group, in *intake, ranges [][2][]byte) error {
	if !within(ranges, g.bounds) {
		return errRanges
	}
	names, err := h.cfg.Store.Imports()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, fmt.Sprintf("%d-", in.group)) && name != in.name() {
			if err := h.cfg.Store.DropImport(name); err != nil {
				return err
			}
		}
	}
	if in.imp, err = h.cfg.Store.Import(in.name(), ranges); err != nil {
		return err
	}
	h.intakes[in.group] = in
	h.cfg.Logger.Info("group: a snapshot is coming", "group", in.group, "index", in.index, "bytes", in.imp.Bytes())
	return nil
}

var errRanges = errors.New("group: a snapshot of rows that are not the group's")

// within tells whether each range lies in one of the bounds.
func within(ranges, bounds [][2][]byte) bool {
	return !slices.ContainsFunc(ranges, func(r [2][]byte) bool {
		return !slices.ContainsFunc(bounds, func(b [2][]byte) bool {
			return bytes.Compare(r[0], b[0]) >= 0 && (b[1] == nil || r[1] != nil && bytes.Compare(r[1], b[1]) <= 0)
		})
	})
}

// dropIntake forgets what has come of a snapshot that the loop does not have.
func (h *Host) dropIntake(in *intake) {
	delete(h.intakes, in.group)
	if in.given {
		return
	}
	if err := in.imp.Drop(); err != nil {
		h.cfg.Logger.Error("group: what came of a snapshot cannot be removed", "group", in.group, "err", err)
	}
}

// forgetIntakes lets go what nobody sends any more, or nobody wants.
func (h *Host) forgetIntakes(now uint64) {
	if !h.swept && now > forgetTicks {
		h.swept = true
		h.sweep()
	}
	for _, id := range slices.Sorted(maps.Keys(h.intakes)) {
		in := h.intakes[id]
		h.mu.Lock()
		open := h.groups[id] == in.of
		h.mu.Unlock()
		if (in.given == in.settled.Load()) && (!open || now-in.came > forgetTicks) {
			h.dropIntake(in)
		}
	}
	coming := 0
	for _, in := range h.intakes {
		if !in.given {
			coming++
		}
	}
	h.coming.Store(int64(coming))
	h.mu.Lock()
	h.taking = len(h.intakes) > 0 || !h.swept
	h.mu.Unlock()
}

// sweep removes what came of snapshots before this start and is not sent any more.
func (h *Host) sweep() {
	names, err := h.cfg.Store.Imports()
	for _, name := range names {
		if err == nil && !slices.ContainsFunc(slices.Collect(maps.Values(h.intakes)), func(in *intake) bool { return in.name() == name }) {
			err = h.cfg.Store.DropImport(name)
		}
	}
	if err != nil {
		h.cfg.Logger.Error("group: what came of snapshots cannot be removed", "err", err)
	}
}

// endCarry lets go of everything when the host ends. What has come of snapshots stays, for a later start.
func (h *Host) endCarry() {
	h.mu.Lock()
	h.uncarried = true // the loop may be at work still
	ships := slices.Clone(h.ships)
	h.mu.Unlock()
	for _, s := range ships {
		h.unpin(s)
	}
	for _, in := range h.intakes {
		if !in.given {
			in.imp.Close()
		}
	}
}

// receiveFreight takes a piece or a receipt for Carry. mu is held.
func (h *Host) receiveFreightLocked(m Message) {
	if h.freighted >= maxFreight {
		return
	}
	h.freight = append(h.freight, m)
	h.freighted += m.Bytes()
	h.carryOn()
}

func isFreight(m *pb.Message) bool {
	return m.GetType() == pb.MsgSnap || m.GetType() == pb.MsgSnapStatus
}
