package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/commutatordb/commutator/internal/task"
)

// urgency is in what order what goes on between regions has its turn, at either end, where there is a choice.
type urgency int

const (
	live   urgency = iota // what is written now, as it is applied here
	repair                // what copies are held against each other for, and made equal with
	copied                // what a new replica is filled with
)

const (
	// patience is how long a step waits at most, looking every look, for a moment without anything more urgent. It bounds what a
	// copy can be slowed down to, by what never ends: one step in that time.
	patience = 5 * time.Millisecond
	look     = time.Millisecond
)

// order has what is less urgent give way.
type order struct {
	tasks task.Runtime
	busy  [copied]atomic.Int64 // by urgency, how many are at work
}

func (o *order) begin(u urgency) { o.busy[u].Add(1) }
func (o *order) end(u urgency)   { o.busy[u].Add(-1) }

// giveWay waits for a moment in which nothing more urgent is at work, but not for long.
func (o *order) giveWay(ctx context.Context, u urgency) {
	for waited := time.Duration(0); o.before(u) && waited < patience && ctx.Err() == nil; waited += look {
		o.tasks.Wait(ctx, nil, look)
	}
}

func (o *order) before(u urgency) bool {
	for i := range o.busy[:u] {
		if o.busy[i].Load() > 0 {
			return true
		}
	}
	return false
}

// reading returns send as one who reads for a repair calls it: while what was read is on its way, nothing is at work here.
func reading[P any](o *order, send func(P) error) func(P) error {
	return func(p P) error {
		o.end(repair)
		defer o.begin(repair)
		return send(p)
	}
}
