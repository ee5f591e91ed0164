package node

import (
	"context"
	"time"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// One question a second to each other region, whatever the number of tables: whether it is there, what time it is there, and what of its
// has not been applied here. Source: docs/decisions/0018.

const (
	beatEvery = time.Second
	beatLimit = 2 * time.Second
	// beatsPerExchange is after how many beats definitions are exchanged though nothing has changed.
	beatsPerExchange = int(exchangeEvery / beatEvery)
)

// sent is how far a partition's log has been looked through for one follower.
type sent struct {
	looked uint64 // everything up to here has been sent, or is not this region's own
	last   uint64 // the last change that was sent; Invariant: last <= looked
}

// Beat is replication.Source's.
func (r *replicator) Beat(ctx context.Context, member string) (replication.Beat, error) {
	b := replication.Beat{ReceivedAt: r.now().UnixNano()}
	if _, err := r.current(ctx); err != nil {
		return b, err
	}
	r.comes(member)
	b.Instance = r.region.Instance()
	for _, t := range r.region.Tables() {
		d := t.Definition()
		if rep := d.Replica(member); rep == nil || rep.Status != table.Active {
			continue
		}
		for _, p := range t.Partitions() {
			if r.behind(d.GlobalID, member, p.ID, p.State().Seq) {
				b.Behind = append(b.Behind, replication.Behind{Table: d.GlobalID, Partition: p.ID})
			}
		}
	}
	b.AnsweredAt = r.now().UnixNano()
	return b, nil
}

// behind tells whether a follower has not acknowledged all of a partition's own changes up to seq.
func (r *replicator) behind(id, follower string, partition, seq uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tables[id]
	if t == nil {
		return true
	}
	s := t.sent[stream{peer: follower, partition: partition}]
	return s.looked < seq || t.acked[follower][partition] < s.last
}

// beat asks a peer whether it is there.
func (r *replicator) beat(ctx context.Context, p *peer) error {
	ctx, cancel := r.tasks.WithTimeout(ctx, beatLimit)
	defer cancel()
	asked := r.now()
	b, err := p.client.Beat(ctx, r.self)
	if err != nil {
		return err
	}
	got := r.now()
	r.noteOffset(p, measure(asked, b.ReceivedAt, b.AnsweredAt, got))
	behind := make(map[replication.Behind]bool, len(b.Behind))
	for _, x := range b.Behind {
		behind[x] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.heard = got
	if p.instance != b.Instance {
		task.Poke(p.wake)
		return nil
	}
	for s := range r.followers {
		t := r.tables[s.table]
		if s.peer != p.name || t == nil {
			continue
		}
		f := t.fresh[s]
		if f.behind = behind[replication.Behind{Table: s.table, Partition: s.partition}]; !f.behind {
			// All that there was when the answer was given is here: half the way there and back ago, for want of better knowledge.
			f.lag = max(0, got.Sub(asked)-time.Duration(b.AnsweredAt-b.ReceivedAt)) / 2
		}
		if !f.behind || f.at.IsZero() {
			f.at = got
		}
		t.fresh[s] = f
	}
	return nil
}

// fresh is how near a followed stream was to its origin when that was last heard.
type fresh struct {
	at     time.Time
	lag    time.Duration // then
	behind bool          // as of the last beat
}

// Lag is admin.Links'. Of a region's partitions the one that is most behind counts.
func (r *replicator) Lag(globalID string) map[string]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tables[globalID]
	if t == nil {
		return nil
	}
	out := map[string]time.Duration{}
	for s, f := range t.fresh {
		lag := f.lag
		if f.behind {
			lag = max(lag, r.now().Sub(f.at))
		}
		out[s.peer] = max(out[s.peer], lag)
	}
	return out
}
