package crdt

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
)

// HLC is a hybrid logical clock reading: milliseconds since the Unix epoch in the bits above the lower
// 16, a counter in those. The top 4 bits are always 0 (valid until the year 2527), so that stored forms
// may use them.
// Source: Kulkarni et al., Logical Physical Clocks, 2014 (our own split of the bits).
type HLC uint64

// MaxHLC is the greatest reading.
const MaxHLC = HLC(1<<60 - 1)

// At returns the reading of a time in milliseconds since the Unix epoch and a counter.
func At(ms int64, counter uint16) HLC { return HLC(ms)<<16 | HLC(counter) }

// Millis returns the reading's time in milliseconds since the Unix epoch.
func (h HLC) Millis() int64 { return int64(h >> 16) }

// Counter returns the reading's counter.
func (h HLC) Counter() uint16 { return uint16(h) }

// String writes the reading as a time in UTC and the counter, such as 2026-11-22T21:38:00.123Z+5.
func (h HLC) String() string {
	return time.UnixMilli(h.Millis()).UTC().Format("2006-01-02T15:04:05.000Z") + "+" + strconv.Itoa(int(h.Counter()))
}

// Actor is who stamps: a region in one of its incarnations. The upper 22 bits are a hash of the region's
// name, the lower 10 the incarnation. Whoever forms a group of regions sees to it that no two hash alike.
type Actor uint32

// MaxIncarnation is how often a region can come back under its name.
const MaxIncarnation = 1<<10 - 1

// NewActor returns the actor of a region's incarnation. It panics when incarnation is above
// MaxIncarnation.
func NewActor(region string, incarnation uint16) Actor {
	if incarnation > MaxIncarnation {
		panic(fmt.Sprintf("crdt: incarnation %d of region %q: there are only %d", incarnation, region, MaxIncarnation))
	}
	h := fnv.New64a()
	h.Write([]byte(region))
	sum := h.Sum64()
	sum ^= sum >> 32
	return Actor(uint32(sum)&^MaxIncarnation | uint32(incarnation))
}

// Region returns the 22 bits of the region's name, the same for all its incarnations.
func (a Actor) Region() uint32 { return uint32(a) >> 10 }

// Incarnation returns which incarnation of its region the actor is.
func (a Actor) Incarnation() uint16 { return uint16(a) & MaxIncarnation }

// String writes the actor as region hash and incarnation in hexadecimal and decimal, such as 2f31a7.0.
func (a Actor) String() string { return fmt.Sprintf("%06x.%d", a.Region(), a.Incarnation()) }

// Dot identifies one write and orders all writes: by HLC, ties by actor, never by arrival. The zero Dot
// is no write and before all.
type Dot struct {
	HLC   HLC
	Actor Actor
}

// Compare orders dots.
func (d Dot) Compare(e Dot) int {
	if c := cmp.Compare(d.HLC, e.HLC); c != 0 {
		return c
	}
	if mutant.On(mutant.TieByArrival) {
		return 0
	}
	return cmp.Compare(d.Actor, e.Actor)
}

// IsZero tells whether d is no write's dot.
func (d Dot) IsZero() bool { return d == Dot{} }

// String writes the dot as its HLC and actor.
func (d Dot) String() string { return d.HLC.String() + "@" + d.Actor.String() }

func maxDot(d, e Dot) Dot {
	if d.Compare(e) < 0 {
		return e
	}
	return d
}

// Clock hands out readings that only rise. Its owner keeps Last in the state that it persists.
type Clock struct {
	Last HLC // the greatest reading handed out or observed
}

// Next returns max(proposed, Last+1) and remembers it. proposed comes from a wall clock, and the result
// is a function of it and Last alone.
func (c *Clock) Next(proposed HLC) HLC {
	c.Last = max(proposed, c.Last+1)
	return c.Last
}

// Observe lifts the clock above a reading received: whatever is stamped after this is later.
func (c *Clock) Observe(h HLC) { c.Last = max(c.Last, h) }
