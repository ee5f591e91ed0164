package api

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/internal/topk"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Where an operator has capacity enforced, or a client has accesses counted by key (Contributor Insights), requests tell a usage of
// what they are about to do and what it took. All of it is this node's own and since its start.

// usages are those of all tables that have one, by table id.
type usages struct {
	mu sync.Mutex
	by map[uint32]*tableUsage
}

// tableUsage is how one table was used.
type tableUsage struct {
	mu       sync.Mutex
	buckets  map[bucketName]*bucket
	counters map[counterName]*topk.Counter
	since    time.Time
}

type bucketName struct {
	index string // "" is the table
	write bool
}

type counterName struct {
	index     string
	whole     bool // by partition and sort key; else by partition key
	throttled bool
}

// usage is one request's view of one table's. nil limits and counts nothing.
type usage struct {
	*tableUsage
	h   *Handler
	d   *table.Definition
	now time.Time
}

// usage returns nil where nothing of the table is to be limited or counted, as is usual.
func (h *Handler) usage(t *region.Table) *usage {
	d := t.Definition()
	if !h.cfg.EnforceThroughput && len(d.Insights) == 0 {
		return nil
	}
	return &usage{h.usages.of(h, t.ID), h, d.In(h.cfg.Region.Name()), h.cfg.Now()}
}

func (u *usages) of(h *Handler, id uint32) *tableUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t := u.by[id]; t != nil {
		return t
	}
	if u.by == nil {
		u.by = map[uint32]*tableUsage{}
	}
	present := map[uint32]bool{id: true}
	for _, t := range h.cfg.Region.Tables() {
		present[t.ID] = true
	}
	for id := range u.by {
		if !present[id] {
			delete(u.by, id)
		}
	}
	t := &tableUsage{buckets: map[bucketName]*bucket{}, counters: map[counterName]*topk.Counter{}, since: h.cfg.Now()}
	u.by[id] = t
	return t
}

// access says that one item, or the items of one partition key, are about to be accessed through the table or one of its global
// indexes: hash and sort are its key's values. It returns the error that throttles the request, if the capacity is used up.
func (u *usage) access(x *table.Index, write bool, hash, sort []item.Value) error {
	if u == nil {
		return nil
	}
	err := u.throttle(x, write)
	u.count(x, hash, sort, err != nil)
	return err
}

// accessItem is access of the item that has this key, stored form.
func (u *usage) accessItem(write bool, stored []byte) error {
	if u == nil {
		return nil
	}
	s := &u.d.Schema
	var sort []item.Value
	if s.HasRange() {
		sort = []item.Value{attribute(stored, s.Range.Name)}
	}
	return u.access(nil, write, []item.Value{attribute(stored, s.Hash.Name)}, sort)
}

func attribute(stored []byte, name string) item.Value {
	v, err := item.DecodeValue(item.Attr(stored, name))
	if err != nil {
		return item.Value{} // a key that was taken from the item before
	}
	return v
}

// accessPage is access of what a page of Query, or with no terms of Scan, looks at. A scan is of no key.
func (u *usage) accessPage(x *table.Index, terms []expr.KeyTerm) error {
	if u == nil {
		return nil
	}
	of := []table.Attribute{u.d.Schema.Hash}
	if x != nil {
		of = x.Hash
	}
	var hash []item.Value
	for _, a := range of {
		if i := slices.IndexFunc(terms, func(t expr.KeyTerm) bool { return t.Name == a.Name }); i >= 0 {
			hash = append(hash, *terms[i].A)
		}
	}
	return u.access(x, false, hash, nil)
}

// count counts an access with the keys of what is accessed, where the table or the index has that switched on.
func (u *usage) count(x *table.Index, hash, sort []item.Value, throttled bool) {
	name := ""
	if x != nil {
		name = x.Name
	}
	setting := u.d.Insight(name)
	if setting == nil || setting.Off || setting.Throttled && !throttled || len(hash) == 0 {
		return
	}
	key := appendKey(nil, hash)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.counter(counterName{name, false, throttled}).Add(key)
	if len(sort) > 0 {
		u.counter(counterName{name, true, throttled}).Add(appendKey(append(key, ','), sort))
	}
}

// maxContributors is how many keys are counted at once by each rule.
const maxContributors = 500

func (u *tableUsage) counter(n counterName) *topk.Counter {
	if u.counters[n] == nil {
		u.counters[n] = topk.New(maxContributors)
	}
	return u.counters[n]
}

// appendKey appends values in the protocol's JSON, parted by commas.
func appendKey(dst []byte, values []item.Value) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		out, err := wire.AppendValue(dst, item.AppendValue(nil, v))
		if err != nil {
			continue // a value that was just read
		}
		dst = out
	}
	return dst
}

// forget drops what was counted of the table or an index: it is switched off, or on anew.
func (u *usages) forget(id uint32, index string) {
	u.mu.Lock()
	t := u.by[id]
	u.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range t.counters {
		if n.index == index {
			delete(t.counters, n)
		}
	}
}

// contributorsOf returns what was counted by each rule, and since when.
func (u *usages) contributorsOf(id uint32, s *table.Insight) (since time.Time, counted [4][]topk.Count) {
	u.mu.Lock()
	t := u.by[id]
	u.mu.Unlock()
	if t == nil {
		return time.Time{}, counted
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range counted {
		if c := t.counters[counterName{s.Index, i%2 == 1, i >= 2}]; c != nil {
			counted[i] = c.Top(maxContributors)
		}
	}
	return t.since, counted
}

// ruleNames are the names of the service's rules for a table or an index: of partition and of whole keys, accessed and throttled.
func ruleNames(d *table.Definition, s *table.Insight) []string {
	of := d.Schema.Name
	sorted := d.Schema.HasRange()
	if s.Index != "" {
		of += "-" + s.Index
		if x := d.Schema.Index(s.Index); x != nil {
			sorted = len(x.Range) > 0
		}
	}
	var out []string
	for _, rule := range [...]string{"PKC", "SKC", "PKT", "SKT"} {
		if (rule[0] == 'P' || sorted) && (rule[2] == 'T' || !s.Throttled) {
			out = append(out, strings.Join([]string{"DynamoDBContributorInsights", rule, of, formatMillis(s.Rules)}, "-"))
		}
	}
	return out
}
