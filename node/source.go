package node

import (
	"context"
	"errors"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// openFor returns an open partition of a global table in which a region has a replica.
func (r *replicator) openFor(member, id string, partition uint64) (*region.Table, *region.Partition, error) {
	for _, t := range r.region.Tables() {
		d := t.Definition()
		if d.GlobalID != id {
			continue
		}
		switch rep := d.Replica(member); {
		case rep != nil && rep.Status == table.Stale, d.GivenUp(r.self):
			return nil, nil, replication.ErrStaleMember
		case rep == nil || !rep.Live():
			return nil, nil, replication.ErrNotMember
		}
		for _, p := range t.Partitions() {
			if p.ID == partition {
				return t, p, nil
			}
		}
	}
	return nil, nil, replication.ErrNoTable
}

// Log is replication.Source's.
func (r *replicator) Log(from replication.Resume) (replication.Log, error) {
	r.mu.Lock()
	term := r.term
	r.mu.Unlock()
	if term == 0 {
		return nil, replication.ErrNotLeader
	}
	if from.Instance != r.region.Instance() {
		return nil, replication.ErrInstance
	}
	t, p, err := r.openFor(from.Region, from.Table, from.Partition)
	if err != nil {
		return nil, err
	}
	if wrote, err := p.Wrote(from.Seq, from.Clock); err != nil {
		return nil, err
	} else if !wrote {
		r.doubt(t, p, from)
		return nil, replication.ErrAhead
	}
	l := &changeLog{r: r, term: term, t: t, p: p, table: from.Table, follower: from.Region, incarnation: from.Incarnation}
	if err := l.member(); err != nil {
		return nil, err
	}
	l.filling = t.Definition().Replica(from.Region).Status == table.Creating
	l.Acked(from.Seq)
	return l, nil
}

// changeLog is one partition's change log for one follower.
type changeLog struct {
	r        *replicator
	term     uint64 // in which it was opened
	t        *region.Table
	p        *region.Partition
	table    string
	follower string
	// incarnation is of the follower's replica.
	incarnation uint16
	// filling says that the replica was not known to be filled yet: what was acknowledged then does not count.
	filling bool
}

// member returns an error unless the follower is one that this region counts.
func (l *changeLog) member() error {
	d := l.t.Definition()
	rep := d.Replica(l.follower)
	switch {
	case rep == nil || rep.Incarnation < l.incarnation:
		return replication.ErrNotMember // or not heard of yet
	case l.filling && rep.Status != table.Creating:
		return replication.ErrNotMember // it comes again, and says how far it is
	case rep.Incarnation > l.incarnation, rep.Status == table.Stale, d.GivenUp(l.r.self):
		return replication.ErrStaleMember
	}
	return nil
}

// Read is replication.Log's.
//
// The replica here may lag behind another of this region, and so may all it says. Even so it is true: what is not
// applied here yet comes behind all that is, in the one order that every replica applies, so it gets a later number, a
// greater stamp than the clock here, and has seen what other regions' writes were applied here before.
func (l *changeLog) Read(after uint64, maxBytes int) (replication.Batch, replication.Progress, error) {
	var progress replication.Progress
	if l.r.over(l.term) {
		return replication.Batch{}, progress, replication.ErrNotLeader
	}
	if err := l.member(); err != nil {
		return replication.Batch{}, progress, err
	}
	// The applied times are taken before the log is read: what they cover has been applied by then.
	l.r.mu.Lock()
	if t := l.r.tables[l.table]; t != nil {
		progress.Applied = t.stability.Applied()
	}
	l.r.mu.Unlock()
	changes, last, state, err := l.p.Changes(after, maxBytes)
	if errors.Is(err, region.ErrTruncated) {
		err = replication.ErrTruncated
	}
	progress.Seq, progress.Clock, progress.SentAt = state.Seq, state.Clock, l.r.now().UnixNano()
	progress.Range = replication.Range{Start: l.p.Start, End: state.Span.End}
	if err != nil {
		return replication.Batch{}, progress, err
	}
	batch := replication.Batch{After: after, Seq: last}
	for _, c := range changes {
		batch.Changes = append(batch.Changes, replication.Change{Key: c.Key, Delta: c.Delta})
	}
	l.looked(last, len(changes) > 0)
	return batch, progress, nil
}

// looked notes how far the log has been looked through, and whether there was something to send.
func (l *changeLog) looked(last uint64, some bool) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	t := l.r.tables[l.table]
	if t == nil || l.r.term != l.term {
		return
	}
	at := stream{peer: l.follower, partition: l.p.ID}
	s := t.sent[at]
	s.looked = last
	if some {
		s.last = last
	}
	t.sent[at] = s
}

// Gather is replication.Log's.
func (l *changeLog) Gather(ctx context.Context) { l.r.tasks.Wait(ctx, nil, gather) }

// gather is how long a stream waits behind a batch that had all there was. At few writes it costs none of them anything.
const gather = 4 * time.Millisecond

// Watch is replication.Log's.
func (l *changeLog) Watch() (<-chan struct{}, func()) { return l.p.Watch() }

// Acked is replication.Log's.
func (l *changeLog) Acked(seq uint64) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	t := l.r.tables[l.table]
	if t == nil || l.r.term != l.term || t.incarnations[l.follower] != l.incarnation {
		return
	}
	if t.acked[l.follower] == nil {
		t.acked[l.follower] = map[uint64]uint64{}
	}
	if mutant.On(mutant.AckTooFar) {
		seq++
	}
	t.acked[l.follower][l.p.ID] = max(t.acked[l.follower][l.p.ID], seq)
}
