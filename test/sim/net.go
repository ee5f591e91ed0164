package sim

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/region/group"
)

// network is every way between two machines. Within a region and from clients messages are single; between regions they come in
// connections, whose order holds unless a fault says otherwise.
type network struct {
	w    *world
	cuts map[[2]*machine]bool // one way each
	seq  uint64
	near quality // within a region
	far  quality // between regions
	last quality // from clients and back
	// slow is that of every way to and from one region, if there is such a one.
	slow   quality
	slowed *regionOf
}

// quality is how a kind of way is at present. Probabilities are per message, or per batch of a stream.
type quality struct {
	delay          [2]time.Duration
	loss, dup      float64
	late           float64 // delayed lateBy times as long
	swap, breaking float64 // streams only: two batches change places; the connection breaks
	corrupt        float64 // a frame's bits flip: the receiver's checksum refuses it
}

const (
	lateBy   = 20
	stopPoll = 10 * time.Millisecond
	// callLimit is when a caller who set no limit is told that nobody answers.
	callLimit = 15 * time.Second
)

func newNetwork(w *world) network {
	return network{
		w: w, cuts: map[[2]*machine]bool{},
		near: quality{delay: [2]time.Duration{200 * time.Microsecond, 2 * time.Millisecond}},
		far:  quality{delay: [2]time.Duration{5 * time.Millisecond, 60 * time.Millisecond}},
		last: quality{delay: [2]time.Duration{100 * time.Microsecond, 2 * time.Millisecond}},
	}
}

func (n *network) quality(a, b *machine) *quality {
	switch {
	case a.region == nil || b.region == nil:
		return &n.last
	case a.region == b.region:
		return &n.near
	case n.slowed != nil && (a.region == n.slowed || b.region == n.slowed):
		return &n.slow
	}
	return &n.far
}

// errUnreachable is what a caller hears of a machine that is down or cut off.
var errUnreachable = errors.New("sim: no answer")

// send has do called when a message arrives, if it does.
func (w *world) send(from, to *machine, do func()) {
	q := w.net.quality(from, to)
	if w.net.cuts[[2]*machine{from, to}] {
		w.count.fault(faultCutLoss)
		return
	}
	if q.loss > 0 && w.chance(q.loss) {
		if q == &w.net.last {
			w.count.fault(faultClientLoss)
		} else {
			w.count.fault(faultLoss)
		}
		return
	}
	w.arrive(w.delay(q), to, do)
}

func (w *world) delay(q *quality) time.Duration {
	d := w.between(q.delay[0], q.delay[1])
	if q.late > 0 && w.chance(q.late) {
		w.count.fault(faultLate)
		d *= lateBy
	}
	return d
}

// raft carries a message within a region.
func (w *world) raft(from, to *machine, m group.Message) {
	w.led(from, m)
	b, err := m.Append(nil)
	if err != nil {
		w.violate("%s: a message to %s cannot be written: %v", from.name, to.name, err)
		return
	}
	times := 1
	if q := &w.net.near; !m.Once() && q.dup > 0 && w.chance(q.dup) {
		w.count.fault(faultDup)
		times = 2
	}
	for range times {
		w.send(from, to, func() {
			if !to.up() {
				return
			}
			got, err := group.DecodeMessage(b)
			if err != nil {
				w.violate("%s: a message from %s cannot be read: %v", to.name, from.name, err)
				return
			}
			w.note('m', uint64(len(b)), to.id, from.id)
			to.engine.Receive(from.id, got)
		})
	}
}

// call has serve run at a machine, in a task of its own, and waits for the answer, in a task of the caller's.
func (w *world) call(ctx context.Context, from, to *machine, limit time.Duration, serve func(ctx context.Context) error) error {
	p := from.proc
	done := make(chan struct{}, 1)
	var answer error
	reply := func(err error) {
		w.send(to, from, func() {
			answer = err
			select {
			case done <- struct{}{}:
			default:
			}
		})
	}
	w.send(from, to, func() {
		if !to.serves() {
			reply(errUnreachable)
			return
		}
		q, served := to.proc, to.served
		q.Go(func() {
			ctx, cancel := q.WithTimeout(served, 2*callLimit)
			defer cancel()
			err := serve(ctx)
			if !q.dead {
				reply(err)
			}
		})
	})
	if limit <= 0 {
		limit = callLimit
	}
	switch p.Wait(ctx, done, limit) {
	case 0:
		return answer
	case 1:
		return errUnreachable
	}
	return context.Cause(ctx)
}

// ask carries a question to another node of a region, and its answer back.
func (w *world) ask(ctx context.Context, from, to *machine, q []byte) (answer []byte, err error) {
	err = w.call(ctx, from, to, 0, func(ctx context.Context) error {
		answer = to.engine.Answer(ctx, q)
		return nil
	})
	return answer, err
}

// conn is a connection between two machines: what is sent arrives in order, or the connection breaks.
type conn struct {
	w      *world
	seq    uint64
	a, b   *machine
	ctx    context.Context
	cancel context.CancelCauseFunc
	next   [2]time.Duration // the last arrival, each way
	onLost func(error)      // tells a that it is over
}

var errBroken = errors.New("sim: the connection is broken")

func (w *world) connect(a, b *machine, onLost func(error)) *conn {
	w.net.seq++
	c := &conn{w: w, seq: w.net.seq, a: a, b: b, onLost: onLost}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	a.conns[c], b.conns[c] = true, true
	return c
}

func sortedConns(m map[*conn]bool) []*conn {
	return slices.SortedFunc(maps.Keys(m), func(a, b *conn) int { return cmp.Compare(a.seq, b.seq) })
}

// send carries one message, to b or back.
func (c *conn) send(toB bool, batch bool, do func()) {
	if c.ctx.Err() != nil {
		return
	}
	w := c.w
	from, to, way := c.b, c.a, 0
	if toB {
		from, to, way = c.a, c.b, 1
	}
	q := w.net.quality(from, to)
	if w.net.cuts[[2]*machine{from, to}] || q.loss > 0 && w.chance(q.loss/10) { // TCP hides most loss
		w.count.fault(faultCutStream)
		w.after(w.between(time.Second, 5*time.Second), func() { c.close(errBroken) })
		c.next[way] = w.now + time.Hour // nothing more gets through
		return
	}
	if q.breaking > 0 && w.chance(q.breaking) {
		w.count.fault(faultBreak)
		c.close(errBroken)
		return
	}
	if batch && q.corrupt > 0 && w.chance(q.corrupt) {
		w.count.fault(faultCorrupt)
		c.close(errBroken)
		return
	}
	if batch && q.loss > 0 && w.chance(q.loss/4) {
		w.count.fault(faultGap) // a splice: the receiver must see the gap
		// If nothing follows that shows it, for want of credit that the lost batch was to bring, the connection breaks in the end.
		w.after(w.between(5*time.Second, 10*time.Second), func() { c.close(errBroken) })
		return
	}
	at := max(w.now+w.delay(q), c.next[way]+1)
	if batch && q.swap > 0 && w.chance(q.swap) {
		w.count.fault(faultSwap)
		at += 2 * q.delay[1] // overtaken by what follows
	} else {
		c.next[way] = at
	}
	arrive := func() {
		switch {
		case c.ctx.Err() != nil:
		case !to.up():
			c.lost()
		default:
			do()
		}
	}
	w.arrive(at-w.now, to, arrive)
	if batch && q.dup > 0 && w.chance(q.dup) {
		w.count.fault(faultRepeat)
		w.arrive(at-w.now+w.between(0, q.delay[1]), to, arrive)
	}
}

// close ends the connection at both ends.
func (c *conn) close(err error) {
	if c.ctx.Err() != nil {
		return
	}
	delete(c.a.conns, c)
	delete(c.b.conns, c)
	c.cancel(err)
	c.a.proc.touch()
	c.b.proc.touch()
	if c.onLost != nil {
		c.onLost(err)
	}
}

// lost has the connection end because one of its machines is gone.
func (c *conn) lost() { c.close(errBroken) }
