package node

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

const (
	expireEvery = 30 * time.Second // between two passes over one table
	// expireRate is how many bytes of items a second a pass reads: live traffic goes first.
	expireRate  = 8 << 20
	expireBlock = 1 << 20 // bytes of items that are looked at in one go
	// expireTogether is how many items are ended at a time: they share syncs.
	expireTogether = 32
	// expireGrace is how long an item is left to the region that wrote it last. Each region may end it; one is enough.
	expireGrace = 5 * time.Minute
)

// expirer ends items whose time is over, by the attribute that the table names for it (TTL). Of a region's nodes the one that leads does so.
type expirer struct {
	every   time.Duration
	expired map[string]*atomic.Int64 // by table, since the start; below replicator.mu
}

// looked is what a pass over a table has come to.
type looked struct {
	id   uint32
	ttl  string
	seqs uint64 // the sum of the partitions' change-log numbers before it
	next int64  // the earliest time at which an item that it has seen will be over, s since the Unix epoch; 0 for none
}

// expireAll passes over the tables that have TTL again and again. A table to which nothing was written since its last pass, and of which
// nothing has come to its end, is passed over.
func (r *replicator) expireAll(ctx context.Context) error {
	done := map[string]looked{}
	for r.tasks.Wait(ctx, nil, r.expire.every) != task.Ended {
		for _, t := range r.region.Tables() {
			d := t.Definition()
			if d.TTL == "" || d.Status == table.Creating || d.Status == table.Deleting {
				delete(done, d.Schema.Name)
				continue
			}
			now := r.now().Unix()
			l := looked{id: d.ID, ttl: d.TTL}
			for _, p := range t.Partitions() {
				l.seqs += p.State().Seq
			}
			if last := done[d.Schema.Name]; last.id == l.id && last.ttl == l.ttl && last.seqs == l.seqs && (last.next == 0 || last.next > now) {
				continue
			}
			next, err := r.expirePass(ctx, t, d, now)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				r.logger.Warn("expire: a pass was not finished", "table", d.Schema.Name, "err", err)
				continue
			}
			l.next = next
			done[d.Schema.Name] = l
		}
	}
	return nil
}

// expirePass ends what is over of a table, and returns when to look again though nothing is written: 0 for never.
func (r *replicator) expirePass(ctx context.Context, t *region.Table, d *table.Definition, now int64) (next int64, err error) {
	sooner := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	for after := table.Key(nil); ; {
		e, err := t.Expiry(ctx, d.TTL, after, now, expireBlock)
		if err != nil {
			return 0, err
		}
		if e.Next != 0 {
			sooner(e.Next)
		}
		var over []region.Expired
		for _, x := range e.Over {
			if grace := x.At + int64(expireGrace/time.Second); now < grace && !r.own(d, x.Newest) {
				sooner(grace)
				continue
			}
			over = append(over, x)
		}
		if err := r.end(ctx, t, d, over); err != nil {
			return 0, err
		}
		if after = e.Last; after == nil {
			return next, nil
		}
		if r.tasks.Wait(ctx, nil, time.Duration(e.Bytes)*time.Second/expireRate) == task.Ended {
			return 0, context.Cause(ctx)
		}
	}
}

// own tells whether it is for this region to end an item first: it wrote it last, or who did has no replica any more.
func (r *replicator) own(d *table.Definition, newest crdt.Dot) bool {
	for _, o := range d.Others(r.self) {
		if newest.Actor.Region() == crdt.NewActor(o.Region, 0).Region() {
			return false
		}
	}
	return true
}

// end ends items, if they still say what they said.
func (r *replicator) end(ctx context.Context, t *region.Table, d *table.Definition, over []region.Expired) error {
	counted := r.countExpired(d.Schema.Name)
	for len(over) > 0 {
		n := min(len(over), expireTogether)
		g, gctx := task.NewGroup(ctx, r.tasks)
		for _, x := range over[:n] {
			g.Go(func() error {
				c, err := x.Command(d.TTL)
				if err != nil {
					return err
				}
				result, err := t.Write(gctx, c)
				var changed *op.ConditionFailed
				if err != nil || errors.As(result.Err, &changed) {
					return err
				}
				if result.Err == nil && result.Old != nil {
					counted.Add(1)
				}
				return result.Err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		over = over[n:]
	}
	return nil
}

func (r *replicator) countExpired(name string) *atomic.Int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.expire.expired[name] == nil {
		r.expire.expired[name] = &atomic.Int64{}
	}
	return r.expire.expired[name]
}

var expiredDesc = prometheus.NewDesc("commutator_expired_items_total", "Items that this region has ended because their time was over (TTL), since the start.", []string{"table"}, nil)
