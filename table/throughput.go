package table

import "time"

// Throughput is capacity, in units a second: provisioned (zeros where billing is on demand), the most on demand (zeros for no
// limit), or warm.
type Throughput struct{ Read, Write int64 }

// Least returns t, each part lifted to that of o.
func (t Throughput) Least(o Throughput) Throughput {
	return Throughput{max(t.Read, o.Read), max(t.Write, o.Write)}
}

// WarmOnDemand is the throughput that a table or an index on demand can instantly take without having been asked for it.
// Source: Developer Guide, "DynamoDB warm throughput".
var WarmOnDemand = Throughput{Read: 12000, Write: 4000}

// Warm returns what a table or an index can instantly take: never less than it could once, which is before, nor than its
// billing implies.
func Warm(before Throughput, billing Billing, provisioned Throughput) Throughput {
	if billing == OnDemand {
		return before.Least(WarmOnDemand)
	}
	return before.Least(provisioned)
}

// Scaled tells when provisioned throughput was changed. Times are in ms since the Unix epoch, 0 for never.
type Scaled struct {
	Up, Down int64
	Downs    int64 // decreases on the UTC day of Down
}

const day = 24 * 60 * 60 * 1000 // ms; the epoch began at midnight UTC

// Today returns how many decreases there were on the UTC day of now.
func (s Scaled) Today(now time.Time) int64 {
	if s.Down/day != now.UnixMilli()/day {
		return 0
	}
	return s.Downs
}

// Limits of decreases. Source: Developer Guide, "Quotas": four at any time in a day, then one an hour.
const (
	freeDecreases = 4
	decreasePause = time.Hour
)

// NextDecrease returns from when on throughput may be decreased once more: now, unless that has been done often today.
func (s Scaled) NextDecrease(now time.Time) time.Time {
	if s.Today(now) < freeDecreases {
		return now
	}
	next := time.UnixMilli(s.Down).Add(decreasePause)
	if midnight := time.UnixMilli((now.UnixMilli()/day + 1) * day); midnight.Before(next) {
		next = midnight
	}
	if next.Before(now) {
		return now
	}
	return next.UTC()
}

// Change notes a change of throughput. One that decreases either part is a decrease, one that increases either an increase; it
// may be both.
func (s Scaled) Change(from, to Throughput, now time.Time) Scaled {
	if to.Read > from.Read || to.Write > from.Write {
		s.Up = now.UnixMilli()
	}
	if from.Decreases(to) {
		s.Downs, s.Down = s.Today(now)+1, now.UnixMilli()
	}
	return s
}

// Decreases tells whether either part of to is less.
func (t Throughput) Decreases(to Throughput) bool { return to.Read < t.Read || to.Write < t.Write }
