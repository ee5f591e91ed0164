package sim

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// minAway is how long a region is away at least for which a seed's change logs have a bound that is soon reached.
const (
	minAway     = 15 * time.Second
	retainEvery = 10 * time.Second // as package node has it
)

// retention is what nodes keep for regions that are away.
func (w *world) retention() node.Retention {
	q := node.Retention{Traces: 5 * time.Second}
	if w.capped {
		q.MaxBytes, q.MinAway = 1<<10, minAway
	}
	return q
}

// goOnWithout has regions go on without one of them, mostly while it is cut off and its clients write there, and lets it come back.
func (w *world) goOnWithout(asked, r *regionOf) {
	cut := w.capped || w.chance(0.8)
	if cut {
		w.say("%s is away", r.name)
		w.cutOffRegion(r, true)
		w.pause(0, 2*time.Second)
	}
	if w.capped {
		before := w.newest(r)
		w.pause(minAway+retainEvery, 2*minAway)
		if w.newest(r) == before { // too little was written, or not flushed
			w.cutOffRegion(r, false)
			w.pause(minAway, minAway+time.Second)
			if w.newest(r) == before {
				return
			}
		}
		w.count.fault(faultLogFull)
	} else {
		w.giveUp(asked, r)
		w.count.fault(faultGivenUp)
	}
	if !w.capped && w.chance(0.3) { // it hears of it, or of the next, while it begins anew
		w.giveUp(asked, r)
	}
	w.pause(0, 3*time.Second)
	if cut {
		w.cutOffRegion(r, false)
		w.say("%s is back", r.name)
	}
	for !w.anew(r) {
		w.pause(50*time.Millisecond, 200*time.Millisecond)
	}
	w.say("%s has begun anew", r.name)
}

// newest is the greatest incarnation of a region's replica that any node knows.
func (w *world) newest(r *regionOf) (n uint16) {
	for _, m := range w.nodes {
		if m.engine != nil {
			if d, err := m.engine.Region().Definition(shared); err == nil && d.Replica(r.name) != nil {
				n = max(n, d.Replica(r.name).Incarnation)
			}
		}
	}
	return n
}

// anew tells whether every node counts a region's replica, of the incarnation that is the newest.
func (w *world) anew(r *regionOf) bool {
	newest := uint16(0)
	for _, m := range w.nodes {
		if !m.up() {
			return false
		}
		d, err := m.engine.Region().Definition(shared)
		if err != nil || d.Replica(r.name) == nil || d.Replica(r.name).Status != table.Active || d.Replica(r.name).Incarnation < newest || newest > 0 && d.Replica(r.name).Incarnation > newest {
			return false
		}
		newest = d.Replica(r.name).Incarnation
	}
	return true
}

// giveUp has a region go on without another.
func (w *world) giveUp(asked, r *regionOf) {
	for i := 0; ; i++ {
		a := w.request(asked.nodes[i%len(asked.nodes)], operator+"GiveUpRegion", fmt.Sprintf(`{"Region":%q,"TableName":%q,"Force":true}`, r.name, shared))
		if a.ok() {
			return
		}
		if a.err == nil && a.status < 500 {
			w.violate("%s does not go on without %s: %v", asked.name, r.name, a)
			return
		}
		w.clients.proc.Wait(context.Background(), nil, 200*time.Millisecond)
	}
}

// portion is how far one region had what an incarnation of another's had written, when that asked.
type portion struct {
	start, end table.Key
	*replication.Origin
}

// renewal is an incarnation's beginning.
type renewal struct {
	at     time.Duration // when it first asked
	shares []portion
}

type incarnation struct {
	region *regionOf
	number uint16
}

// renewed notes how far another region has what a former incarnation of the asking one had written, and all that it had.
func (w *world) renewed(ctx context.Context, p *peer, q replication.RelayRequest, o *replication.Origin) {
	of := incarnation{p.from.region, q.Incarnation}
	n := w.history.renewals[of]
	if n == nil {
		n = &renewal{at: w.now}
		w.history.renewals[of] = n
	}
	d, err := p.node().engine.Region().Definition(shared)
	for i := 0; err == nil && i < len(d.Partitions); i++ {
		if d.Partitions[i].ID == q.Partition {
			s := portion{start: d.Partitions[i].Start, Origin: o}
			if i+1 < len(d.Partitions) {
				s.end = d.Partitions[i+1].Start
			}
			n.shares = append(n.shares, s)
		}
	}
	t, err := p.from.engine.Region().Opened(ctx, shared)
	if err != nil || t.Former() == nil {
		return
	}
	former := t.Former()
	for former.CatchUp(ctx) == nil && !former.Closed() {
		p.from.proc.Wait(ctx, nil, 20*time.Millisecond)
	}
	for _, part := range former.Partitions() {
		stream := replication.StreamName(p.from.region.name, p.from.engine.Region().Instance(), part.ID)
		for seq := part.State().Trimmed; seq < part.State().Seq; {
			changes, upTo, _, err := part.Changes(seq, 1<<20)
			if err != nil {
				break
			}
			seq = upTo
			for _, c := range changes {
				dot := stamped{crdt.PeekDot(c.Delta), string(c.Key)}
				have := w.history.changes[dot]
				if have == nil {
					have = &change{origin: p.from.region, delta: bytes.Clone(c.Delta), marks: marksIn(c.Delta)}
					w.history.changes[dot] = have
					w.history.dots = append(w.history.dots, dot)
				}
				have.stream, have.former = stream, of
			}
		}
	}
}

// alone tells whether a change was never had by any region but the one that made it, whose incarnation was given up: what it did was
// done again.
func (w *world) alone(dot stamped) bool {
	c := w.history.changes[dot]
	if c == nil || c.former.region == nil {
		return false
	}
	had := func(s *portion) bool {
		at := s.Clocks[c.stream]
		if key := []byte(dot.key); bytes.Compare(key, s.start) >= 0 && (s.end == nil || bytes.Compare(key, s.end) < 0) {
			at = max(at, s.Shares[c.stream])
		}
		return dot.HLC <= at
	}
	for of, n := range w.history.renewals {
		if of != c.former && !(c.lost && of.region == c.former.region && of.number > c.former.number) {
			continue
		}
		for i := range n.shares {
			if had(&n.shares[i]) {
				return false
			}
		}
	}
	return true
}

// again tells whether a change does again what a former incarnation had done: it carries no mark of an operation of its own.
func (w *world) again(c *change) bool {
	return w.renewedOnce(c.origin) && slices.ContainsFunc(c.marks, func(m string) bool {
		o := w.history.byMark[m]
		return o != nil && (o.region != c.origin || w.history.lonely[m] != nil)
	})
}

func (w *world) renewedOnce(r *regionOf) bool {
	for of := range w.history.renewals {
		if of.region == r {
			return true
		}
	}
	return false
}
