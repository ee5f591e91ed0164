package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/commutatordb/commutator/internal/task"
)

// How far clocks of regions may be apart. Source: REPLICATION.md §2. One that is further ahead than the last of these has its writes
// held by the others, and takes none any more once it knows.
const (
	warnClockOffset  = 100 * time.Millisecond
	alarmClockOffset = 250 * time.Millisecond
	maxClockOffset   = 500 * time.Millisecond

	// offsetGood is for how long a measurement counts.
	offsetGood = 6 * exchangeEvery
)

// offset is how far another region's clock is ahead of this one's, as the last exchange told: by between by-within and by+within.
type offset struct {
	by, within time.Duration
	at         time.Time // zero: never measured
}

// measure works an offset out of the four times of an exchange or a beat: sent and got by this region's clock, the other two by the other's.
func measure(sent time.Time, received, answered int64, got time.Time) offset {
	if received == 0 {
		return offset{}
	}
	there := time.Duration(received - sent.UnixNano())
	back := time.Duration(answered - got.UnixNano())
	away := got.Sub(sent) - time.Duration(answered-received)
	return offset{by: (there + back) / 2, within: max(0, away) / 2, at: got}
}

// noteOffset takes note of a measurement, warns when clocks drift apart, and fences this region when it is ahead of most.
func (r *replicator) noteOffset(p *peer, o offset) {
	if o.at.IsZero() {
		return
	}
	r.mu.Lock()
	was := grade(p.offset)
	p.offset = o
	fence := r.fence()
	changed := (fence == nil) != (r.fencedBy.Load() == nil)
	r.fencedBy.Store(fence)
	r.mu.Unlock()
	if now := grade(o); now != was {
		log := r.logger.Info
		switch now {
		case warnClockOffset:
			log = r.logger.Warn
		case alarmClockOffset, maxClockOffset:
			log = r.logger.Error
		}
		log("replicator: how far a region's clock is from this one's", "peer", p.name, "ahead", o.by, "within", o.within)
	}
	if changed && fence != nil {
		r.logger.Error("replicator: this region takes no writes: its clock is ahead of most regions'", "ahead of", fence.of, "by", fence.by)
	} else if changed {
		r.logger.Warn("replicator: this region takes writes again: its clock is near most regions'")
	}
}

// grade is the greatest of the bounds that an offset is surely beyond, 0 for none.
func grade(o offset) time.Duration {
	d := max(o.by, -o.by) - o.within
	for _, bound := range []time.Duration{maxClockOffset, alarmClockOffset, warnClockOffset} {
		if d > bound {
			return bound
		}
	}
	return 0
}

// fence says that this region's clock is ahead.
type fence struct {
	of []string      // regions
	by time.Duration // of the nearest of them, at least
}

// fence tells whether this region's clock is ahead of that of most regions, itself counted: then what it stamps would win over
// everything written elsewhere until their clocks come so far, and they hold it until then. Of two regions none can say which is
// right; there the other holds what comes. r is locked.
func (r *replicator) fence() *fence {
	f := &fence{}
	now := r.now()
	for name, p := range r.peers {
		if ahead := -p.offset.by - p.offset.within; ahead > maxClockOffset && now.Sub(p.offset.at) < offsetGood {
			if f.of = append(f.of, name); len(f.of) == 1 || ahead < f.by {
				f.by = ahead
			}
		}
	}
	if len(f.of) < (len(r.peers)+1)/2+1 {
		return nil
	}
	slices.Sort(f.of)
	return f
}

// Fenced is api.Config's: why this region takes no writes, if so. It waits until the region has asked the others whether its disk is what
// they know of it.
func (r *replicator) Fenced(ctx context.Context) error {
	if r.tasks.Wait(ctx, r.asked, 0) == task.Ended {
		return context.Cause(ctx)
	}
	f := r.fencedBy.Load()
	if f == nil {
		return nil
	}
	return fmt.Errorf("its clock is %s ahead of that of %s", f.by.Round(time.Millisecond), strings.Join(f.of, " and "))
}
