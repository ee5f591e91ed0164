package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// What another region has written, from its stream into the tables here.

// follow follows one partition of a peer until ctx ends.
func (r *replicator) follow(ctx context.Context, p *peer, s stream, name string) error {
	for ctx.Err() == nil {
		if err := r.awaitParent(ctx, s); err != nil {
			break
		}
		err := r.followOnce(ctx, p, s, name)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, replication.ErrAhead) {
			r.logger.Error("replicator: a region has lost changes that are here; it is not followed until it has begun anew", "peer", p.name, "table", name, "partition", s.partition)
		}
		if errors.Is(err, replication.ErrInstance) || errors.Is(err, replication.ErrStaleMember) || errors.Is(err, replication.ErrNoTable) {
			task.Poke(p.wake) // what is known of the peer is out of date
		}
		r.logger.Debug("replicator: a stream ended", "from", p.name, "table", name, "err", err)
		r.tasks.Wait(ctx, nil, retryAfter)
	}
	return nil
}

// awaitParent waits until all is applied that was written to a partition's items before it was cut off another: each item's writes are applied
// in their order.
func (r *replicator) awaitParent(ctx context.Context, s stream) error {
	if mutant.On(mutant.ChildFirst) {
		return nil
	}
	told := make(chan struct{}, 1)
	r.mu.Lock()
	t := r.tables[s.table]
	if t != nil {
		t.waiting = append(t.waiting, told)
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.waiting = slices.DeleteFunc(t.waiting, func(c chan struct{}) bool { return c == told })
		}()
	}
	passed := r.parentPassedLocked(s)
	r.mu.Unlock()
	for !passed {
		if r.tasks.Wait(ctx, told, time.Second) == task.Ended {
			return context.Cause(ctx)
		}
		r.mu.Lock()
		passed = r.parentPassedLocked(s)
		r.mu.Unlock()
	}
	return nil
}

func (r *replicator) parentPassedLocked(s stream) bool {
	p, t := r.peers[s.peer], r.tables[s.table]
	if p == nil || t == nil || p.defs[s.table] == nil {
		return true // it is about to end
	}
	all := p.defs[s.table].Partitions
	i := slices.IndexFunc(all, func(q table.Partition) bool { return q.ID == s.partition })
	if i < 0 || all[i].Parent == 0 || !slices.ContainsFunc(all, func(q table.Partition) bool { return q.ID == all[i].Parent }) {
		return true // what is gone had nothing left that was not applied
	}
	return t.stability.Passed(s.peer, all[i].Parent, all[i].Behind)
}

func (r *replicator) followOnce(ctx context.Context, p *peer, s stream, name string) error {
	t, err := r.region.Opened(ctx, name)
	if err != nil {
		return err
	}
	// Begun from where a replica that lags has come to, the stream might be one that the peer's log no longer has.
	if err := t.CatchUp(ctx); err != nil {
		return err
	}
	streamName := replication.StreamName(s.peer, s.instance, s.partition)
	from := replication.Resume{Region: r.self, Table: s.table, Instance: s.instance, Partition: s.partition, Seq: t.Cursor(streamName), Clock: t.Clock(streamName), Incarnation: t.Definition().Incarnation}
	if mutant.On(mutant.ResumeTooFar) {
		from.Seq++
	}
	err = p.client.Follow(ctx, from, &sink{r: r, t: t, s: s, stream: streamName})
	if errors.Is(err, replication.ErrTruncated) {
		return r.lost(ctx, t.Definition(), fmt.Sprintf("region %s keeps what this one has not had, and its change log begins behind that", p.name))
	}
	return err
}

// sink is where one followed stream goes.
type sink struct {
	r      *replicator
	t      *region.Table
	s      stream
	stream string
}

// Apply is replication.Sink's.
func (k *sink) Apply(ctx context.Context, b replication.Batch) error {
	var newest crdt.HLC
	for _, c := range b.Changes {
		newest = max(newest, crdt.PeekDot(c.Delta).HLC)
		// A region ships what it has written itself, and nothing in another's name.
		if a := crdt.PeekDot(c.Delta).Actor; a.Region() != crdt.NewActor(k.s.peer, 0).Region() {
			return fmt.Errorf("replicator: region %s ships a write of actor %s", k.s.peer, a)
		}
	}
	if err := k.hold(ctx, b, newest); err != nil {
		return err
	}
	k.r.order.begin(live)
	defer k.r.order.end(live)
	cursor := op.Cursor{Stream: k.stream, Seq: b.Seq, Clock: newest, Incarnation: k.s.incarnation}
	rest := deltas(b.Changes)
	for k.beside() {
		n := upTo(rest, k.r.mergeBytes)
		if n == len(rest) {
			break
		}
		// How far the stream has come is said with the last of it.
		part := op.Cursor{Stream: k.stream, Clock: newest, Incarnation: k.s.incarnation, Part: true}
		if mutant.On(mutant.PartSaysAll) {
			part = cursor
		}
		if err := k.t.Merge(ctx, part, 0, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return k.t.Merge(ctx, cursor, 0, rest)
}

const (
	// besideBytes is about how much is merged at once while clients write to the table here, too: a write that comes meanwhile waits for it.
	besideBytes = 256 << 10
	// besideFor is how long a write counts as one of several.
	besideFor = time.Second
)

// beside tells whether what is merged goes beside writes of this region's clients.
func (k *sink) beside() bool { return k.t.Wrote() > crdt.At(k.r.now().Add(-besideFor).UnixMilli(), 0) }

// upTo returns how many of some deltas, at least one, are no more than so many bytes; 0 for none.
func upTo(deltas []op.Delta, most int) (n int) {
	for size := 0; n < len(deltas); n++ {
		if size += len(deltas[n].Key) + len(deltas[n].State); n > 0 && size > most {
			break
		}
	}
	return n
}

// hold waits while the batch is stamped too far ahead of this node's clock: applied, it would win over
// everything written here until then.
func (k *sink) hold(ctx context.Context, b replication.Batch, newest crdt.HLC) error {
	if mutant.On(mutant.FutureApplied) {
		return nil
	}
	said := false
	defer func() {
		if said {
			k.count(-1)
		}
	}()
	for {
		ahead := time.Duration(newest.Millis()-k.r.now().UnixMilli()) * time.Millisecond
		if ahead <= maxClockOffset {
			return nil
		}
		if !said {
			said = true
			k.count(+1)
			k.r.logger.Error("replicator: a region's clock is ahead; its writes are held", "peer", k.s.peer, "ahead", ahead)
			if err := k.note(ctx, b); err != nil {
				return err
			}
		}
		k.r.tasks.Wait(ctx, nil, min(ahead-maxClockOffset, time.Second))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// count counts the peer's streams whose writes are held.
func (k *sink) count(by int) {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	if p := k.r.peers[k.s.peer]; p != nil {
		p.held += by
	}
}

// note records the batch's writes that are held.
func (k *sink) note(ctx context.Context, b replication.Batch) error {
	limit := crdt.At(k.r.now().Add(maxClockOffset).UnixMilli(), 0)
	k.r.mu.Lock()
	t := k.r.tables[k.s.table]
	known := t == nil || t.noted[k.stream] >= b.Seq
	if !known {
		t.noted[k.stream] = b.Seq
	}
	k.r.mu.Unlock()
	if known {
		return nil // the stream has begun anew with what was held before
	}
	var held []op.Delta
	for _, d := range deltas(b.Changes) {
		if crdt.PeekDot(d.State).HLC > limit {
			held = append(held, d)
		}
	}
	return k.t.Held(ctx, held)
}

// Progress is replication.Sink's.
func (k *sink) Progress(p replication.Progress) {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	if t := k.r.tables[k.s.table]; t != nil {
		t.stability.Heard(k.s.peer, k.s.partition, p)
		now := k.r.now()
		t.fresh[k.s] = fresh{at: now, lag: now.Sub(time.Unix(0, p.SentAt)), behind: t.fresh[k.s].behind}
		for _, c := range t.waiting {
			task.Poke(c)
		}
	}
}
