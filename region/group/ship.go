package group

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/commutatordb/commutator/storage"
)

// A leader's state goes to a follower in pieces of rows, in the order of their keys, from a snapshot of the store that is pinned in the loop
// between two rounds of applying. Everything else happens beside the loop, in Carry: it reads a piece, sends it, and reads the next once few
// enough are on their way without a receipt. A piece says which row it comes behind; a follower that has another as its last refuses it, and
// says which. So a lost piece, a broken connection and a follower that was started again are one case: the leader goes on from there.

const (
	// defaultPiece is about how many bytes of rows a piece has.
	defaultPiece = 1 << 20
	// maxFlying is how many pieces of a shipment may be on their way.
	maxFlying = 4
	// maxShipments is how many snapshots a node sends at once: each pins what the store would let go. Raft asks again for one that finds no room.
	maxShipments = 4
	// defaultShipRate is how much of snapshots a node sends in a second, all together: what clients want shall have most of disk and network.
	defaultShipRate = 64 << 20
	// resendTicks is how long a receipt is waited for before pieces are sent again.
	resendTicks = 10
	// giveUpTicks is how long a follower may make no progress before what is pinned for it is let go, and raft begins anew.
	giveUpTicks = 600
	// installTicks is how long a follower that has all may take to say that it goes on from there.
	installTicks = 30
	// progressTicks is how often it is logged how far a shipment has come.
	progressTicks = 50
	// maxShipLog is how many bytes of a group's log are kept for a follower that is being sent a snapshot. Past it the log goes, and a new one
	// has to be sent.
	maxShipLog = 1 << 30
)

// Snapshots is what a node sends and takes of snapshots.
type Snapshots struct {
	Sending, Coming       int   // now
	SentBytes, TakenBytes int64 // since the start; those sent again too
}

// Snapshots tells what this node sends and takes of snapshots.
func (h *Host) Snapshots() Snapshots {
	h.mu.Lock()
	sending := len(h.ships)
	h.mu.Unlock()
	return Snapshots{sending, int(h.coming.Load()), h.shippedBytes.Load(), h.takenBytes.Load()}
}

// shipment is a snapshot on its way to a follower.
type shipment struct {
	// Constant:
	id       uint64 // no other shipment's
	group    *Group
	to, term uint64
	meta     *pb.SnapshotMetadata
	birth    uint64      // of the follower's replica: see sign
	ranges   [][2][]byte // in order
	snap     *storage.Snapshot
	whole    uint64 // about how many bytes it has on disk

	over   atomic.Bool  // set by the loop: nobody waits for it any more
	failed atomic.Bool  // set by Carry: it will not arrive
	came   atomic.Bool  // set by Carry: the follower has all of it
	bytes  atomic.Int64 // sent, those sent again too

	// Of the loop alone:
	cameBy uint64 // tick until which the follower is waited for once it has all; 0: it has not

	// Of Carry alone:
	acked  []byte   // the follower has every row up to this one's key; nil: none
	flying []flight // on their way, in order
	moved  uint64   // when the follower last got further, by Host.time
	sent   uint64   // when a piece was last sent
	turn   uint64   // the same among those of all shipments, by Host.turns
	told   uint64   // when it was last logged
}

// flight is a piece on its way.
type flight struct {
	key  []byte // of its last row
	last bool
}

// ship begins to send the present state to a follower that raft wants to have a snapshot. It is called between two rounds of applying, when
// the store shows what has been applied and no more.
func (g *Group) ship(h *Host, m *pb.Message) {
	if len(h.touched) > 0 {
		panic(fmt.Sprintf("group %d: snapshot while entries are being applied", g.ID))
	}
	// What raft has named may be older by a round.
	meta, err := g.metadata()
	if err == nil && g.machine.Applied() != g.applied {
		err = errors.New("nothing has been applied since the group began")
	}
	if err != nil {
		h.cfg.Logger.Error("group: no snapshot can be made", "group", g.ID, "for", m.GetTo(), "err", err)
		g.node.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		return
	}
	ranges := slices.Clone(g.machine.Ranges())
	slices.SortFunc(ranges, func(a, b [2][]byte) int { return bytes.Compare(a[0], b[0]) })
	s := &shipment{id: h.next(), group: g, to: m.GetTo(), term: m.GetTerm(), meta: meta, birth: g.births[m.GetTo()], ranges: ranges}
	h.mu.Lock()
	full := h.closed || h.uncarried || len(h.ships) >= maxShipments
	if !full {
		s.snap = h.cfg.Store.Snapshot()
		s.moved, s.told = h.time, h.time
		h.ships = append(h.ships, s)
	}
	h.mu.Unlock()
	if full {
		g.node.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		return
	}
	for _, r := range ranges {
		s.whole += h.cfg.Store.EstimateBytes(r[0], r[1])
	}
	g.shipped(s.to) // a former one
	g.ships = append(g.ships, s)
	h.cfg.Logger.Info("group: a snapshot is being sent", "group", g.ID, "to", s.to, "index", meta.GetIndex(), "bytes", s.whole)
	h.carryOn()
}

// shipped ends what is on its way to a node.
func (g *Group) shipped(to uint64) {
	g.ships = slices.DeleteFunc(g.ships, func(s *shipment) bool {
		if s.to == to {
			s.over.Store(true)
		}
		return s.to == to
	})
}

// endShips ends all that is on its way. Should the group go on, raft begins anew.
func (g *Group) endShips(h *Host) {
	for _, s := range g.ships {
		g.node.ReportSnapshot(s.to, raft.SnapshotFailure)
		s.over.Store(true)
	}
	g.ships = nil
	h.carryOn()
}

// followShips tells raft what has become of shipments, and ends those that nobody waits for.
func (g *Group) followShips(h *Host) {
	if len(g.ships) == 0 {
		return
	}
	waits := map[uint64]bool{}
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		waits[id] = g.leading && pr.State == tracker.StateSnapshot
	})
	for _, s := range slices.Clone(g.ships) {
		if s.came.Load() && s.cameBy == 0 {
			s.cameBy = h.ticks + installTicks
		}
		switch {
		case !waits[s.to]:
		case s.failed.Load():
			g.node.ReportSnapshot(s.to, raft.SnapshotFailure)
		case s.cameBy > 0 && s.cameBy <= h.ticks:
			g.node.ReportSnapshot(s.to, raft.SnapshotFinish) // its word that it goes on from there may be lost
		default:
			continue
		}
		g.shipped(s.to)
		h.carryOn()
	}
}

// kept returns the entry behind which the log must be kept for those who are being sent a snapshot, if that is not too much; else they begin anew.
func (g *Group) kept(h *Host) (index uint64, ok bool) {
	for _, s := range g.ships {
		if h.cfg.Log.Group(g.ID).Bytes() > h.shipLog {
			h.cfg.Logger.Warn("group: too much has been written while a snapshot was being sent; another one will be", "group", g.ID, "to", s.to)
			s.failed.Store(true)
			continue
		}
		if i := s.meta.GetIndex(); !ok || i < index {
			index, ok = i, true
		}
	}
	return index, ok
}

// carryOn has Carry look whether there is something to do.
func (h *Host) carryOn() {
	select {
	case h.carry <- struct{}{}:
	default:
	}
}

// Carry moves snapshots on, in and out, by some pieces, and tells whether there is more to do at once. Run calls it, beside the loop; a
// simulator may call it instead. It belongs to one task.
func (h *Host) Carry() (more bool) {
	h.mu.Lock()
	freight, ships, now := h.freight, slices.Clone(h.ships), h.time
	h.freight, h.freighted = nil, 0
	h.mu.Unlock()
	for _, m := range freight {
		if m.Raft.GetType() == pb.MsgSnap {
			h.takeIn(m, now)
		} else if r, ok := parseReceipt(m.Raft.GetContext()); ok {
			for _, s := range ships {
				if s.id == r.id && s.to == m.Raft.GetFrom() {
					s.receive(r, now)
				}
			}
		}
	}
	// What may be sent goes round: who was sent something last comes last.
	slices.SortStableFunc(ships, func(a, b *shipment) int { return cmp.Compare(a.turn, b.turn) })
	for _, s := range ships {
		if s.over.Load() || s.failed.Load() {
			h.unpin(s)
			continue
		}
		more = h.sendSome(s, now) || more
	}
	h.forgetIntakes(now)
	return more
}

// unpin lets go what a shipment pins.
func (h *Host) unpin(s *shipment) {
	h.mu.Lock()
	h.ships = slices.DeleteFunc(h.ships, func(o *shipment) bool { return o == s })
	h.mu.Unlock()
	if err := s.snap.Close(); err != nil {
		h.cfg.Logger.Error("group: a snapshot cannot be let go", "group", s.group.ID, "err", err)
	}
}

// receive notes how far the follower is.
func (s *shipment) receive(r receipt, now uint64) {
	switch at := slices.IndexFunc(s.flying, func(f flight) bool { return bytes.Equal(f.key, r.have) && f.last == r.all }); {
	case r.all:
		s.came.Store(true)
		s.flying = nil
	case r.refused:
		if !bytes.Equal(s.acked, r.have) {
			s.moved = now
		}
		s.acked, s.flying = bytes.Clone(r.have), nil
	case at >= 0:
		s.moved = now
		s.acked, s.flying = s.flying[at].key, s.flying[at+1:]
	}
}

// sendSome sends a piece, if there is room for one on the way, and tells whether another may be sent at once.
func (h *Host) sendSome(s *shipment, now uint64) (more bool) {
	n := len(s.flying)
	switch {
	case s.came.Load():
		return false
	case now-s.moved > giveUpTicks:
		h.cfg.Logger.Warn("group: a snapshot does not arrive", "group", s.group.ID, "to", s.to, "sent", s.bytes.Load())
		s.failed.Store(true)
		h.carryOn()
		return false
	case n > 0 && now-s.sent >= resendTicks:
		s.flying, n = nil, 0
	}
	if now-s.told >= progressTicks {
		s.told = now
		h.cfg.Logger.Info("group: a snapshot is on its way", "group", s.group.ID, "to", s.to, "sent", s.bytes.Load(), "bytes", s.whole)
	}
	if n >= maxFlying || n > 0 && s.flying[n-1].last {
		return false
	}
	h.mu.Lock()
	allowed := h.allowance > 0
	h.mu.Unlock()
	if !allowed { // the next tick brings more
		if n == 0 {
			s.moved = now // it is not the follower that is slow
		}
		return false
	}
	h.turns++
	s.turn = h.turns
	after := s.acked
	if n > 0 {
		after = s.flying[n-1].key
	}
	b, f, err := s.read(after, h.cfg.PieceBytes)
	if err != nil {
		h.cfg.Logger.Error("group: a snapshot cannot be read", "group", s.group.ID, "to", s.to, "err", err)
		s.failed.Store(true)
		h.carryOn()
		return false
	}
	h.cfg.Send(s.to, Message{s.group.ID, &pb.Message{
		Type: pb.MsgSnap.Enum(), From: new(h.cfg.NodeID), To: new(s.to), Term: new(s.term), Vote: new(s.birth), Snapshot: &pb.Snapshot{Metadata: s.meta, Data: b},
	}})
	h.mu.Lock()
	h.allowance -= int64(len(b))
	h.mu.Unlock()
	s.bytes.Add(int64(len(b)))
	h.shippedBytes.Add(int64(len(b)))
	s.flying, s.sent = append(s.flying, f), now
	return true
}

// read makes the piece behind a row of the snapshot, nil: the first.
func (s *shipment) read(after []byte, size int) (b []byte, f flight, err error) {
	b, f = beginPiece(s.id, after, s.ranges), flight{key: after}
	head := len(b)
	for _, r := range s.ranges {
		from := r[0]
		if after != nil && bytes.Compare(after, from) >= 0 {
			from = append(bytes.Clone(after), 0)
		}
		if r[1] != nil && bytes.Compare(from, r[1]) >= 0 {
			continue
		}
		it, err := s.snap.Iter(from, r[1])
		if err != nil {
			return nil, f, err
		}
		ok := it.First()
		for ; ok && len(b) < head+size; ok = it.Next() {
			b = appendField(appendField(b, it.Key()), it.Value())
			f.key = append(f.key[:0:0], it.Key()...)
		}
		if err := it.Close(); err != nil {
			return nil, f, err
		}
		if ok {
			return endPiece(b, false), f, nil
		}
	}
	f.last = true
	return endPiece(b, true), f, nil
}
