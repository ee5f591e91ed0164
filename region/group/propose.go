package group

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/op"
)

// A group of one voter knows its entries by their indexes: nobody else proposes. In a group of several, whoever
// leads numbers the proposals of all, so an entry carries a nonce by which its proposer knows it when it is
// applied there, and the term that it is proposed for.
//
// Bytes of an entry:
//
//	a command (its first byte is its op.Kind), or
//	nonceMark (1), nonce (8, big-endian), term (8, big-endian), a command
//
// At most once: in one term a proposal is handed to raft once. Raft passes it on to the leader in a MsgProp, which whoever
// carries messages may lose, but must not deliver twice (Message.Once). An entry of another term than the one it was proposed for
// has no effect, at any replica. So once its proposer has applied an entry of a later term, and not it, a proposal never will
// have an effect, and is proposed again: a new leader costs its clients an election, and no answer. While the term goes on, a proposal
// of which nothing is heard is not proposed again, but answered ErrUnknown. It is kept back and offered again only while raft says that
// it has not taken it (ErrProposalDropped: nothing was appended or sent).

const (
	// nonceMark is no op.Kind.
	nonceMark = 0xFF
	headBytes = 1 + 8 + 8
)

const (
	// maxProposed bounds one message of proposals to the leader.
	maxProposed = 1 << 20
	// leaderTicks is how long a proposal waits for somebody to lead: some elections.
	leaderTicks = 100
	// unknownTicks is how long it is waited for the entry of a proposal that raft has taken.
	unknownTicks = 100
	// hurryTicks is that time for a proposal whose entry a snapshot may have covered, and for one that comes when there has been no leader
	// for long.
	hurryTicks = 20
	// maxRound bounds how many commands of one group, of maxProposed bytes, go into one round: the other groups' wait for no more.
	maxRound = 1024
)

// proposal is one command on its way.
type proposal struct {
	group *Group
	cmd   *op.Command
	data  []byte // of the entry
	index uint64 // of its entry, once proposed (one voter)
	term  uint64 // of its entry; (several voters) the one that it is proposed for
	nonce uint64 // (several voters)
	until uint64 // tick at which it is no longer waited for (several voters)
	slot  uint8  // of its key: see line
	// covered says that a snapshot may have brought its effect.
	covered bool
	// ended is set by a caller that waits no longer.
	ended  atomic.Bool
	result op.Result
	err    error
	done   chan struct{} // gets one token
}

// Propose logs the command, waits until it is durable and applied, and returns what applying it gave here.
// The command belongs to the group from then on. Any replica takes it. When ctx ends first it returns
// ErrUnknown.
func (g *Group) Propose(ctx context.Context, c *op.Command) (op.Result, error) {
	p := g.host.newProposal(g, c)
	if err := g.host.submit(p); err != nil {
		return op.Result{}, err
	}
	if g.host.cfg.Tasks.Wait(ctx, p.done, 0) == task.Ended {
		p.ended.Store(true)
		return op.Result{}, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
	result, err := p.result, p.err
	g.host.recycle(p)
	return result, err
}

func (h *Host) newProposal(g *Group, c *op.Command) *proposal {
	h.mu.Lock()
	var p *proposal
	if n := len(h.pool); n > 0 {
		p = h.pool[n-1]
		h.pool = h.pool[:n-1]
	}
	h.mu.Unlock()
	if p == nil {
		p = &proposal{done: make(chan struct{}, 1)}
	}
	p.group, p.cmd, p.slot = g, c, slot(c.Key)
	p.data = make([]byte, 0, len(c.Item)+len(c.Key)+64+headBytes)
	if g.several {
		p.data = append(p.data, nonceMark, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	p.data = c.Append(p.data)
	return p
}

func (h *Host) recycle(p *proposal) {
	p.group, p.cmd, p.data, p.index, p.term, p.nonce, p.until, p.covered, p.slot = nil, nil, nil, 0, 0, 0, 0, false, 0
	p.result, p.err = op.Result{}, nil
	h.mu.Lock()
	if len(h.pool) < maxPooled {
		h.pool = append(h.pool, p)
	}
	h.mu.Unlock()
}

func (h *Host) submit(p *proposal) error {
	now := h.cfg.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return ErrClosed
	case p.group.gone.Load() || p.group.suspended.Load():
		return ErrGone
	case h.waiting >= maxWaiting || h.bytes+len(p.data) > maxWaitingBytes || p.group.line.crowded(p, now):
		return ErrOverloaded
	}
	h.waiting++
	h.bytes += len(p.data)
	p.group.line.join(p, now)
	h.inbox = append(h.inbox, p)
	h.signal()
	return nil
}

// command returns the command of an entry's bytes.
func command(data []byte) []byte {
	if len(data) >= headBytes && data[0] == nonceMark {
		return data[headBytes:]
	}
	return data
}

// late tells whether an entry is of another term than the one it was proposed for.
func late(e *pb.Entry) bool {
	data := e.GetData()
	return len(data) >= headBytes && data[0] == nonceMark && binary.BigEndian.Uint64(data[9:]) != e.GetTerm() && !mutant.On(mutant.LateApplied)
}

// stamp writes the present into a command that is stamped when it is proposed.
func (h *Host) stamp(ps []*proposal) {
	now := h.hlc()
	for _, p := range ps {
		switch p.cmd.Kind {
		case op.Put, op.Update, op.Delete, op.Expire, op.Restore, op.Merge, op.Mend:
			p.cmd.HLC = now
			op.SetHLC(command(p.data), now)
		}
	}
}

// propose hands the queued commands to raft.
func (g *Group) propose(h *Host) {
	switch {
	case len(g.queue) == 0:
	case g.several:
		g.proposeSeveral(h)
	case g.led:
		g.proposeAlone(h)
	}
}

// step gives raft proposals, in one message.
func (g *Group) step(h *Host, ps []*proposal) error {
	entries := make([]*pb.Entry, len(ps))
	for i, p := range ps {
		entries[i] = &pb.Entry{Data: p.data}
	}
	return g.node.Step(&pb.Message{Type: pb.MessageType_MsgProp.Enum(), From: new(h.cfg.NodeID), Entries: entries})
}

func (g *Group) proposeAlone(h *Host) {
	round := g.round()
	h.stamp(round)
	if err := g.step(h, round); err != nil {
		for _, p := range round {
			p.err = fmt.Errorf("group %d: propose: %w", g.ID, err)
		}
		h.answer(round)
	} else {
		g.waiting = append(g.waiting, round...)
	}
	g.queue = slices.Delete(g.queue, 0, len(round))
}

// round returns the commands that go next, at least one.
func (g *Group) round() []*proposal {
	n, size := 0, 0
	for n < min(len(g.queue), maxRound) && (n == 0 || size+len(g.queue[n].data) <= maxProposed) {
		size += len(g.queue[n].data)
		n++
	}
	return g.queue[:n]
}

func (g *Group) proposeSeveral(h *Host) {
	// Who waits no longer has been told that nothing is known: the command may as well not take effect.
	var ended []*proposal
	g.queue = slices.DeleteFunc(g.queue, func(p *proposal) bool {
		if p.ended.Load() {
			p.err = ErrUnknown
			ended = append(ended, p)
			return true
		}
		return false
	})
	h.answer(ended)
	if len(g.queue) == 0 || g.leader.Load() == raft.None {
		return
	}
	round := g.round()
	h.stamp(round)
	term := g.node.BasicStatus().HardState.GetTerm()
	for _, p := range round {
		p.nonce, p.term = h.next(), term
		binary.BigEndian.PutUint64(p.data[1:], p.nonce)
		binary.BigEndian.PutUint64(p.data[9:], p.term)
	}
	if err := g.step(h, round); err != nil {
		if !errors.Is(err, raft.ErrProposalDropped) {
			h.fatal(fmt.Errorf("group %d: propose: %w", g.ID, err))
		}
		return // not taken: the next tick, or the next leader, comes back to it
	}
	for _, p := range round {
		p.until = h.ticks + unknownTicks
		g.sent.add(p)
	}
	g.queue = slices.Delete(g.queue, 0, len(round))
}

// again queues proposals once more, before those that came later: none of them has had an effect, or ever will.
func (g *Group) again(h *Host, ps []*proposal) {
	for _, p := range ps {
		p.data = bytes.Clone(p.data) // raft may still hold the old ones
		p.until = h.ticks + leaderTicks
	}
	g.queue = slices.Insert(g.queue, 0, ps...)
	h.mark(g)
}

// expire answers what has waited too long. Only a group of several voters is ticked.
func (g *Group) expire(h *Host) {
	n := 0
	for n < len(g.queue) && g.queue[n].until <= h.ticks {
		g.queue[n].err = ErrNoLeader
		n++
	}
	if n > 0 {
		h.answer(g.queue[:n])
		g.queue = slices.Delete(g.queue, 0, n)
	}
	h.answer(g.sent.expire(h.ticks))
}

// number notes which entries raft has made of the proposals of a group of one voter: entries with data come from
// here alone, and in the order of the proposals.
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
// node, or is no longer waited for.
func (g *Group) take(e *pb.Entry) *proposal {
	if g.several {
		return g.sent.take(e)
	}
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

// sent holds the proposals of a group of several voters that raft has taken and that have no answer yet.
type sent struct {
	byNonce map[uint64]*proposal
	// order has the nonces in the order in which they were sent, those answered among them.
	// Invariant: until does not fall along it.
	order []uint64
}

func (s *sent) add(p *proposal) {
	if s.byNonce == nil {
		s.byNonce = map[uint64]*proposal{}
	}
	if s.byNonce[p.nonce] != nil {
		panic(fmt.Sprintf("group %d: nonce %x given twice", p.group.ID, p.nonce))
	}
	if len(s.order) > 2*len(s.byNonce)+64 {
		s.order = slices.DeleteFunc(s.order, func(n uint64) bool { return s.byNonce[n] == nil })
	}
	s.byNonce[p.nonce] = p
	s.order = append(s.order, p.nonce)
}

// take takes out the proposal that the entry is of, nil for none. That two nodes have drawn the same nonce is
// next to impossible; then the bytes tell them apart.
func (s *sent) take(e *pb.Entry) *proposal {
	data := e.GetData()
	if len(data) < headBytes || data[0] != nonceMark {
		return nil
	}
	nonce := binary.BigEndian.Uint64(data[1:])
	p := s.byNonce[nonce]
	if p == nil || !bytes.Equal(p.data, data) {
		return nil
	}
	delete(s.byNonce, nonce)
	return p
}

// covered notes that a snapshot may hold the effects of what was sent, of which nothing is waited for beyond the tick.
func (s *sent) covered(until uint64) {
	for _, n := range s.order {
		if p := s.byNonce[n]; p != nil {
			p.covered, p.until = true, min(p.until, until)
		}
	}
}

// before takes out what was proposed for an earlier term, and what no snapshot may hold.
func (s *sent) before(term uint64) (ps []*proposal) {
	for _, n := range s.order {
		if p := s.byNonce[n]; p != nil && p.term < term && !p.covered {
			delete(s.byNonce, n)
			ps = append(ps, p)
		}
	}
	return ps
}

// expire takes out what is no longer to be waited for.
func (s *sent) expire(now uint64) (late []*proposal) {
	n := 0
	for ; n < len(s.order); n++ {
		p := s.byNonce[s.order[n]]
		if p != nil {
			if p.until > now {
				break
			}
			delete(s.byNonce, s.order[n])
			if p.err = ErrUnknown; mutant.On(mutant.AckUnknown) {
				p.err = nil
			}
			late = append(late, p)
		}
	}
	s.order = slices.Delete(s.order, 0, n)
	return late
}

// all takes out everything.
func (s *sent) all(err error) (ps []*proposal) {
	for _, n := range s.order {
		if p := s.byNonce[n]; p != nil {
			p.err = err
			ps = append(ps, p)
		}
	}
	s.byNonce, s.order = nil, nil
	return ps
}
