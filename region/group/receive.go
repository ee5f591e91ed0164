package group

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/commutatordb/commutator/internal/mutant"
)

const (
	// maxMail bounds the messages that wait for the loop, and maxMailBytes what they take: beyond it they are
	// dropped, as a network may.
	maxMail      = 8192
	maxMailBytes = 64 << 20
	// messageBytes is about what a message takes beside its entries.
	messageBytes = 128
)

// Message is what one replica of a group tells another. It may be lost, late, or out of order, and, unless Once
// says so, come twice.
type Message struct {
	Group uint64
	Raft  *pb.Message // not to be changed
}

// Once tells that the message must not be delivered twice: its commands would take effect twice. A stream that
// ends when it breaks, and whose messages are not sent again, is enough.
func (m Message) Once() bool {
	return m.Raft.GetType() == pb.MsgProp && !mutant.On(mutant.ProposalTwice)
}

// Beat tells that the message is no group's: the node says that it is there.
func (m Message) Beat() bool { return m.Group == beatGroup }

// Bulk tells that the message is a piece of a snapshot: many of them may be on their way.
func (m Message) Bulk() bool { return m.Raft.GetType() == pb.MsgSnap }

// Append appends the message's bytes:
//
//	group (8, big-endian), raftpb.Message
func (m Message) Append(dst []byte) ([]byte, error) {
	dst, err := proto.MarshalOptions{}.MarshalAppend(binary.BigEndian.AppendUint64(dst, m.Group), m.Raft)
	if err != nil {
		return nil, fmt.Errorf("group %d: encode message: %w", m.Group, err)
	}
	return dst, nil
}

// DecodeMessage reads a message. It keeps nothing of b.
func DecodeMessage(b []byte) (Message, error) {
	if len(b) < 8 {
		return Message{}, errors.New("group: not a message")
	}
	m := Message{Group: binary.BigEndian.Uint64(b), Raft: &pb.Message{}}
	if err := proto.Unmarshal(b[8:], m.Raft); err != nil {
		return Message{}, fmt.Errorf("group %d: decode message: %w", m.Group, err)
	}
	return m, nil
}

// Bytes is about how many bytes the message takes.
func (m Message) Bytes() int {
	n := messageBytes + len(m.Raft.GetSnapshot().GetData())
	for _, e := range m.Raft.GetEntries() {
		n += len(e.GetData())
	}
	return n
}

// Receive takes messages that node from has sent. It never waits; what there is no room for is dropped.
func (h *Host) Receive(from uint64, ms ...Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range ms {
		switch {
		case h.closed || len(h.mail) >= maxMail || h.mailed >= maxMailBytes:
			return
		case m.Raft.GetTo() != h.cfg.NodeID || from == h.cfg.NodeID:
		case isFreight(m.Raft):
			h.receiveFreightLocked(m)
		case raft.IsLocalMsg(m.Raft.GetType()):
		default:
			h.mail = append(h.mail, m)
			h.mailed += m.Bytes()
		}
	}
	h.signal()
}

// Tick lets time pass by one tick once the loop comes to it. Run calls it; a simulator may call it instead. Ticks that
// the loop is too slow for are not made up for: it shall first hear what others had to say meanwhile.
func (h *Host) Tick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ticked = true
	h.time++
	h.allowance = min(h.allowance+h.shipTick, h.shipTick+int64(h.cfg.PieceBytes))
	if len(h.ships) > 0 || h.taking {
		h.carryOn()
	}
	h.signal()
}

// Unreachable says that messages to a node may have been lost.
func (h *Host) Unreachable(node uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.calls = append(h.calls, func() {
		for _, g := range h.live {
			if g.leading && !g.asleep {
				g.node.ReportUnreachable(node)
				h.mark(g)
			}
		}
	})
	h.signal()
}

// deliver hands messages to raft.
func (h *Host) deliver(mail []Message) {
	for _, m := range mail {
		h.heard(m)
		i, ok := h.find(m.Group)
		if !ok {
			continue // not open yet, or gone
		}
		g := h.live[i]
		rm := m.Raft
		if g.suspended.Load() && !mutant.On(mutant.SuspendedAnswers) || !g.known(rm) {
			continue
		}
		if g.told(h, rm) {
			if g.asleep {
				continue
			}
			rm = proto.CloneOf(rm)
			rm.Context = nil
		}
		if t := rm.GetType(); t != pb.MsgHeartbeatResp && (g.asleep || t != pb.MsgHeartbeat) {
			g.wake(h) // an answer to a heartbeat from before it slept wakes nobody
		}
		if h.refuses(g, rm) {
			continue
		}
		if lost(h, g, rm) {
			return
		}
		if g.outdoes(h, rm) {
			g.stands = h.ticks + standTicks
		}
		// Raft refuses what comes from nobody it knows, and proposals while nobody leads: both are lost.
		if err := g.node.Step(rm); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
			h.cfg.Logger.Debug("group: a message was refused", "group", g.ID, "from", rm.GetFrom(), "err", err)
		}
		h.mark(g)
	}
}

// SetFull says whether this node's disk has room for more. While it has not, its replicas take nothing from their leaders, as if cut off
// from them; the region's catalog goes on, for what is deleted makes room.
func (h *Host) SetFull(full bool) { h.full.Store(full) }

// Full tells what SetFull said last.
func (h *Host) Full() bool { return h.full.Load() }

// refuses tells whether a replica must not answer. One that knows of no members holds nothing: it is being taken in, or has lost what it had.
func (h *Host) refuses(g *Group, m *pb.Message) bool {
	t := m.GetType()
	if h.full.Load() && g.ID != h.cfg.Home && (t == pb.MsgSnap || t == pb.MsgApp && len(m.GetEntries()) > 0) {
		return true
	}
	return (t == pb.MsgVote || t == pb.MsgPreVote) && len(g.members.Load().GetVoters()) == 0 && !mutant.On(mutant.BlankVotes)
}

// lost ends a node whose leader knows that it has acknowledged more than its log has.
func lost(h *Host, g *Group, m *pb.Message) bool {
	if m.GetType() != pb.MsgHeartbeat || m.GetTerm() < g.node.BasicStatus().HardState.GetTerm() {
		return false
	}
	last, err := h.cfg.Log.Group(g.ID).LastIndex()
	if err != nil || m.GetCommit() <= last {
		return false
	}
	h.fatal(fmt.Errorf("group %d: entry %d was acknowledged here, and the log ends at %d: %w", g.ID, m.GetCommit(), last, ErrLost))
	return true
}

// send sends what raft wants sent: first what may go before the log is durable, then the rest.
func (h *Host) send(todo []work, first bool) {
	for _, w := range todo {
		if !w.g.several {
			continue
		}
		for _, m := range w.rd.Messages {
			t := m.GetType()
			if early := t == pb.MsgApp || t == pb.MsgHeartbeat || mutant.On(mutant.SendBeforeLog); early != first {
				continue
			}
			if t == pb.MsgSnap {
				w.g.ship(h, m)
				continue
			}
			w.g.sign(m)
			h.cfg.Send(m.GetTo(), Message{w.g.ID, m})
		}
	}
}
