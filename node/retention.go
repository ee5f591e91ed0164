package node

import (
	"context"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
)

// Retention bounds the change logs that a node keeps for regions that are away. At a bound the region that is furthest behind is given
// up, if it cannot be reached and the others may decide that by themselves: see table.Definition.MayGiveUp. One that can be reached, and
// is slow, is waited for until the bound has been exceeded by a quarter, for its sake alone, for ten times as long. Writes go on in any case.
type Retention struct {
	MaxBytes int64         `yaml:"maxBytes"` // of all change logs on this node's disk; default 50 GiB
	MaxAge   time.Duration `yaml:"maxAge"`   // of a change that somebody has not got; 0: no bound
	// Traces is how long a trace is kept of an item that was deleted and folded away; default 30 days.
	Traces time.Duration `yaml:"-"`
	// MinAway is how long a region must not have been reached, to be given up; default 1 min.
	MinAway time.Duration `yaml:"-"`
}

const (
	defaultRetention = 50 << 30
	defaultMinAway   = time.Minute
	defaultTraces    = 30 * 24 * time.Hour
	retainEvery      = 10 * time.Second
)

func (q *Retention) fillIn() {
	if q.MaxBytes == 0 {
		q.MaxBytes = defaultRetention
	}
	if q.Traces == 0 {
		q.Traces = defaultTraces
	}
	if q.MinAway == 0 {
		q.MinAway = defaultMinAway
	}
}

// retain watches the change logs, and gives a region up when they come to a bound.
func (r *replicator) retain(ctx context.Context) error {
	was := 0
	var slow string     // who is waited for beyond slowLimit
	var since time.Time // and since when
	for r.tasks.Wait(ctx, nil, min(retainEvery, r.retention.MinAway)) != task.Ended {
		bytes, oldest := r.kept("")
		age := time.Duration(0)
		if oldest > 0 {
			age = r.now().Sub(time.UnixMilli(oldest.Millis()))
		}
		full, grade := r.retention.full(bytes, age)
		name, away := "", false
		if grade > 0 {
			name, away = r.slowest()
		}
		switch {
		case grade > was && grade >= 80:
			r.logger.Error("replicator: the change logs come to their bound; the runbook \"A region is away for long\" says what to do", "bytes", bytes, "percent", full, "oldest", age, "waiting for", name)
		case grade > was:
			r.logger.Warn("replicator: the change logs grow for want of a region", "bytes", bytes, "percent", full, "oldest", age, "waiting for", name)
		}
		was = grade
		if grade < slowLimit || name != slow {
			slow, since = name, r.now()
		}
		if grade < 100 || !away && !mutant.On(mutant.SlowGivenUp) && (grade < slowLimit || r.now().Sub(since) < slowFor*r.retention.MinAway) {
			continue
		}
		slow = "" // it begins anew, which takes time as well
		if _, refused, err := r.giveUp(ctx, name, "", false, r.retention.MinAway); err != nil || len(refused) > 0 {
			r.logger.Error("replicator: the change logs are at their bound, and the region that they are kept for cannot be given up by this one", "region", name, "tables", refused, "err", err)
		}
	}
	return nil
}

// slowLimit is how full change logs are, in percent of their bound, when a region is given up that can be reached: once that has been so for
// slowFor times MinAway. One that has just come back needs some time.
const (
	slowLimit = 125
	slowFor   = 10
)

// full returns how full change logs are, in percent of their bounds, and the greatest of the marks that this is at or beyond.
func (q *Retention) full(bytes uint64, age time.Duration) (percent, mark int) {
	percent = int(100 * float64(bytes) / float64(q.MaxBytes))
	if q.MaxAge > 0 && age >= q.MaxAge {
		percent = max(percent, int(100*float64(age)/float64(q.MaxAge)))
	}
	for _, m := range []int{50, 80, 100, slowLimit} {
		if percent >= m {
			mark = m
		}
	}
	return percent, mark
}

// kept returns about how many bytes on disk the change logs of a global table take, or ("") of all of them, and the time of the oldest
// change in them, 0 for none.
func (r *replicator) kept(id string) (bytes uint64, oldest crdt.HLC) {
	for _, t := range r.region.Tables() {
		d := t.Definition()
		if id != "" && d.GlobalID != id || len(d.Replicas) == 0 {
			continue
		}
		for _, p := range t.Partitions() {
			n, first := p.LogSize()
			bytes += n
			if first > 0 && (oldest == 0 || first < oldest) {
				oldest = first
			}
		}
	}
	return bytes, oldest
}

// slowest returns the region for which the change logs are kept, "" for none: the one that is furthest behind of those that have not told
// that they have a log's first change. away tells that it has neither been reached for long nor has asked for anything. One that
// can be reached is slow, or has just come back.
func (r *replicator) slowest() (name string, away bool) {
	begin := map[string]crdt.HLC{} // by global id
	for _, t := range r.region.Tables() {
		id := t.Definition().GlobalID
		_, begin[id] = r.kept(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	furthest := crdt.MaxHLC
	for id, t := range r.tables {
		for _, region := range t.members {
			at := t.stability.Reached(region)
			if at < begin[id] && (at < furthest || at == furthest && region < name) {
				name, furthest = region, at
			}
		}
	}
	if p := r.peers[name]; p != nil {
		away = p.err != nil && r.now().Sub(later(later(p.heard, p.came), r.begunAt)) > r.retention.MinAway
	}
	return name, away
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
