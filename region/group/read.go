package group

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
)

const (
	// maxReads bounds the reads that wait at a node.
	maxReads = 65536
	// maxAsked is how many questions of one group may be on their way: what comes then is asked together.
	maxAsked = 16
	// askTicks is how long it is waited for an answer before the question is put again.
	askTicks = 3
)

// read is one caller who waits for the store to show what was acknowledged before.
type read struct {
	group *Group
	ended atomic.Bool // set by a caller that waits no longer
	bound bool        // ReadSoon's
	until uint64      // tick at which it is no longer waited for, if bound
	err   error
	done  chan struct{} // gets one token
}

// Read waits until this node's store shows every write acknowledged before the call, by whichever node, so that a
// strongly consistent read may read it. It ends with ctx, or with ErrGone, ErrClosed or ErrOverloaded; while nobody
// leads it waits.
func (g *Group) Read(ctx context.Context) error { return g.read(ctx, false) }

// ReadSoon is Read that ends with ErrNoLeader when nothing is heard of a leader for long.
func (g *Group) ReadSoon(ctx context.Context) error { return g.read(ctx, true) }

func (g *Group) read(ctx context.Context, bound bool) error {
	if g.several {
		return g.readSeveral(ctx, bound)
	}
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

func (g *Group) readSeveral(ctx context.Context, bound bool) error {
	if mutant.On(mutant.StaleLeader) && g.Leads() {
		return nil
	}
	r := &read{group: g, bound: bound, done: make(chan struct{}, 1)}
	if err := g.host.submitRead(r); err != nil {
		return err
	}
	if g.host.cfg.Tasks.Wait(ctx, r.done, 0) == task.Ended {
		r.ended.Store(true)
		return fmt.Errorf("group %d: read: %w", g.ID, context.Cause(ctx))
	}
	return r.err
}

func (h *Host) submitRead(r *read) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return ErrClosed
	case r.group.gone.Load() || r.group.suspended.Load():
		return ErrGone
	case h.reading >= maxReads:
		return ErrOverloaded
	}
	h.reading++
	h.readbox = append(h.readbox, r)
	h.signal()
	return nil
}

func (h *Host) answerReads(rs []*read, err error) {
	if len(rs) == 0 {
		return
	}
	h.mu.Lock()
	h.reading -= len(rs)
	h.mu.Unlock()
	for _, r := range rs {
		r.err = err
		r.done <- struct{}{}
	}
}

// reads are the reads that wait at a replica of several. Those that have come are put to the leader as one question:
// how far is the log committed? It answers when a majority has confirmed that it still leads, and they are served
// once this replica has applied as much. An answer to a question holds for every question put before it, too.
type reads struct {
	group *Group
	come  []*read
	asked []question // in the order in which they were put; Invariant: those answered come first
}

type question struct {
	id       uint64 // as raft carries it
	at       uint64 // tick at which it was put last
	answered bool
	index    uint64 // how far to apply, once answered
	reads    []*read
}

// ask puts the reads that have come to the leader.
func (g *Group) ask(h *Host) {
	r := &g.reads
	if len(r.come) == 0 || len(r.asked) >= maxAsked || g.leader.Load() == raft.None {
		return
	}
	r.asked = append(r.asked, question{id: h.next(), at: h.ticks, reads: r.come})
	r.come = nil
	r.put(len(r.asked) - 1)
}

func (r *reads) put(i int) {
	r.group.node.ReadIndex(binary.BigEndian.AppendUint64(nil, r.asked[i].id))
}

// answer notes what raft says.
func (r *reads) answer(states []raft.ReadState) {
	for _, s := range states {
		if len(s.RequestCtx) != 8 {
			continue
		}
		id := binary.BigEndian.Uint64(s.RequestCtx)
		last := slices.IndexFunc(r.asked, func(q question) bool { return q.id == id })
		for i := range r.asked[:last+1] { // none, for one answered before
			if q := &r.asked[i]; !q.answered {
				q.answered, q.index = true, s.Index
			}
		}
	}
}

// serve lets go the reads whose answers the store shows.
func (r *reads) serve(h *Host) {
	n := 0
	for n < len(r.asked) && r.asked[n].answered && (r.asked[n].index <= r.group.applied || mutant.On(mutant.ReadBeforeApply)) {
		h.answerReads(r.asked[n].reads, nil)
		n++
	}
	r.asked = slices.Delete(r.asked, 0, n)
}

// lost says that the questions on their way may have been lost with the leader they were put to.
func (r *reads) lost() {
	if n := len(r.asked); n > 0 && !r.asked[n-1].answered {
		r.put(n - 1)
	}
}

// tick forgets the reads that nobody waits for, or should wait for any longer, and puts the last question again when it has no answer: it
// stands for those before it.
func (r *reads) tick(h *Host) {
	forget := func(rs []*read) []*read {
		var ended, late []*read
		rs = slices.DeleteFunc(rs, func(r *read) bool {
			switch {
			case r.ended.Load():
				ended = append(ended, r)
			case r.bound && r.until <= h.ticks:
				late = append(late, r)
			default:
				return false
			}
			return true
		})
		h.answerReads(ended, nil)
		h.answerReads(late, ErrNoLeader)
		return rs
	}
	r.come = forget(r.come)
	for i := range r.asked {
		r.asked[i].reads = forget(r.asked[i].reads)
	}
	r.asked = slices.DeleteFunc(r.asked, func(q question) bool { return len(q.reads) == 0 })
	if n := len(r.asked); n > 0 && !r.asked[n-1].answered && h.ticks-r.asked[n-1].at >= askTicks {
		r.asked[n-1].at = h.ticks
		r.put(n - 1)
	}
}

// fail answers all of them.
func (r *reads) fail(h *Host, err error) {
	h.answerReads(r.come, err)
	for _, q := range r.asked {
		h.answerReads(q.reads, err)
	}
	r.come, r.asked = nil, nil
}
