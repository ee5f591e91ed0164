package api

import (
	"errors"
	"strconv"
	"time"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// burst is for how long unused provisioned capacity is kept for later. Source: Developer Guide, "Burst and adaptive capacity".
const burst = 300 * time.Second

// bucket is capacity as it comes in and is used. What a request takes is known only when it is done, so the level may fall below
// zero: then nothing more is let in until it has come in.
type bucket struct {
	units float64
	at    time.Time
}

// refill brings the bucket up to now. A new one has what comes in a second.
func (b *bucket) refill(now time.Time, rate float64, keep time.Duration) {
	if b.at.IsZero() {
		b.units = rate
	} else if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.units += passed * rate
	}
	b.units = min(b.units, rate*keep.Seconds())
	b.at = now
}

// limit returns the units a second that the table, or a global index, may take, and what says so; 0 for no limit.
func (u *usage) limit(x *table.Index, write bool) (rate int64, onDemand bool) {
	t := u.d.Throughput
	if onDemand = u.d.Billing == table.OnDemand; onDemand {
		t = u.d.OnDemand
	}
	if x != nil && x.Global {
		if x = u.d.Schema.Index(x.Name); x == nil { // it has just gone
			return 0, onDemand
		}
		if t = x.Throughput; onDemand {
			t = x.OnDemand
		}
	}
	if write {
		return t.Write, onDemand
	}
	return t.Read, onDemand
}

// throttle refuses an access to the table (nil), or through a global index, whose capacity is used up.
func (u *usage) throttle(x *table.Index, write bool) error {
	if !u.h.cfg.EnforceThroughput {
		return nil
	}
	rate, onDemand := u.limit(x, write)
	if rate == 0 {
		return nil
	}
	u.mu.Lock()
	b := u.bucket(x, write, rate, onDemand)
	empty := b.units <= 0
	u.mu.Unlock()
	if !empty {
		return nil
	}
	return u.errThrottled(x, write, onDemand)
}

// bucket returns a bucket as of now. u is locked.
func (u *usage) bucket(x *table.Index, write bool, rate int64, onDemand bool) *bucket {
	name := bucketName{write: write}
	if x != nil && x.Global {
		name.index = x.Name
	}
	b := u.buckets[name]
	if b == nil {
		b = &bucket{}
		u.buckets[name] = b
	}
	keep := burst
	if onDemand {
		keep = time.Second // a maximum has no burst
	}
	b.refill(u.now, float64(rate), keep)
	return b
}

// throttleWrite refuses a write whose table, or any global index that it may change, has its capacity used up.
// new is the item that a Put writes, nil for other writes.
func (u *usage) throttleWrite(c *op.Command, key []byte) error {
	if u == nil {
		return nil
	}
	if err := u.accessItem(true, key); err != nil {
		return err
	}
	if !u.h.cfg.EnforceThroughput {
		return nil
	}
	s := &u.d.Schema
	for i := range s.Indexes {
		x := &s.Indexes[i]
		if !x.Global || !mayChange(s, x, c) {
			continue
		}
		if err := u.throttle(x, true); err != nil {
			u.countRow(x, c.Item, true)
			return err
		}
	}
	return nil
}

// mayChange tells whether a write may change an index, as far as the command tells.
func mayChange(s *table.Schema, x *table.Index, c *op.Command) bool {
	switch c.Kind {
	case op.Put:
		return s.RowKey(x, c.Key, c.Item) != nil
	case op.Update:
		for path := range c.Update.Paths {
			if s.Projects(x, path[0].Name) {
				return true
			}
		}
		return false
	}
	return true
}

// countRow counts an access to an index's row, of an item in stored form.
func (u *usage) countRow(x *table.Index, stored []byte, throttled bool) {
	if stored == nil || u.d.Insight(x.Name) == nil {
		return
	}
	values := func(list []table.Attribute) (out []item.Value) {
		for _, a := range list {
			v := attribute(stored, a.Name)
			if v.IsAbsent() {
				return nil
			}
			out = append(out, v)
		}
		return out
	}
	u.count(x, values(x.Hash), values(x.Range), throttled)
}

// wrote takes what a write took out of the buckets, and counts it as one of each index it left a row in.
func (u *usage) wrote(c *consumption, new []byte) {
	if u == nil {
		return
	}
	for i := range u.d.Schema.Indexes {
		if x := &u.d.Schema.Indexes[i]; x.Global {
			u.countRow(x, new, false)
		}
	}
	u.charge(c, true)
}

// charge takes what a request took out of the buckets.
func (u *usage) charge(c *consumption, write bool) {
	if u == nil || !u.h.cfg.EnforceThroughput {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	local := c.table
	for _, x := range c.indexes {
		if !x.global {
			local += x.taken // a local index lives on its table's capacity
			continue
		}
		if i := u.d.Schema.Index(x.name); i != nil {
			u.take(i, write, x.taken)
		}
	}
	u.take(nil, write, local)
}

// hold takes out of the buckets what a write will take at least, as far as its command tells: the writes of a batch are all under way
// at once, and each has to see what those before it will take. release gives it back, once what the write took is charged.
func (u *usage) hold(c *op.Command) (release func()) {
	if u == nil || !u.h.cfg.EnforceThroughput {
		return func() {}
	}
	var least consumption
	least.addWrite(&u.d.Schema, c.Key, nil, c.Item)
	u.charge(&least, true)
	return func() {
		least.table = -least.table
		for i := range least.indexes {
			least.indexes[i].taken = -least.indexes[i].taken
		}
		u.charge(&least, true)
	}
}

func (u *usage) take(x *table.Index, write bool, h halves) {
	if rate, onDemand := u.limit(x, write); rate != 0 && h != 0 {
		u.bucket(x, write, rate, onDemand).units -= float64(h) / 2
	}
}

// throttlingReason says what was throttled, how it was used, and which limit that was: ThrottlingReason of the API model.
type throttlingReason struct{ reason, resource string }

// throttled tells the errors that say: later. What they were of may be sent again.
func (h *Handler) throttled(err error) bool {
	e := (*Error)(nil)
	return errors.As(err, &e) && len(e.throttled) > 0 || h.cfg.Overloaded(err)
}

func (u *usage) errThrottled(x *table.Index, write, onDemand bool) *Error {
	r := throttlingReason{"Table", u.h.tableARN(u.h.cfg.Region.Name(), u.d.Schema.Name)}
	message := "The level of configured provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the UpdateTable API."
	if x != nil {
		r.reason, r.resource = "Index", r.resource+"/index/"+x.Name
		message = "The level of configured provisioned throughput for one or more global secondary indexes of the table was exceeded. Consider increasing your provisioning level for the under-provisioned global secondary indexes with the UpdateTable API"
	}
	if write {
		r.reason += "Write"
	} else {
		r.reason += "Read"
	}
	if onDemand {
		e := dynamoError("ThrottlingException", "Throughput exceeds the maximum OnDemandThroughput configured on table or index")
		r.reason += "MaxOnDemandThroughputExceeded"
		e.throttled = []throttlingReason{r}
		return e
	}
	r.reason += "ProvisionedThroughputExceeded"
	e := dynamoError("ProvisionedThroughputExceededException", "%s", message)
	e.throttled = []throttlingReason{r}
	return e
}

func formatMillis(ms int64) string { return strconv.FormatInt(ms, 10) }
