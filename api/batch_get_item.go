package api

import (
	"context"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

const (
	maxBatchGet   = 100      // keys in one BatchGetItem
	maxBatchBytes = 16 << 20 // of items in its answer; what is beyond stays unprocessed
)

// batchGet is what BatchGetItem asks of one table.
type batchGet struct {
	params
	keys       [][]byte // stored forms
	t          *region.Table
	ordered    []table.Key
	projection *expr.Projection
	done       int // keys looked up
}

// batchGetItem answers BatchGetItem.
func batchGetItem(q *request, ctx context.Context) error {
	gets, err := q.readBatchGet()
	if err != nil {
		return err
	}
	if err := checkBatchGet(q, gets); err != nil {
		return err
	}
	for _, g := range gets {
		if err := g.resolve(q, ctx); err != nil {
			return err
		}
	}
	q.open()
	q.member("Responses")
	q.out = append(q.out, '{')
	var taken []consumption
	bytes := 0
	var throttled error
	for i, g := range gets {
		if i > 0 {
			q.out = append(q.out, ',')
		}
		q.out = append(wire.AppendString(q.out, g.tableName), ':', '[')
		c := consumption{name: g.tableName}
		first := true
		used := q.h.usage(g.t)
		for _, key := range g.ordered {
			if bytes > maxBatchBytes {
				break
			}
			if throttled = used.accessItem(false, g.keys[g.done]); throttled != nil {
				break // what is left is for another request
			}
			stored, err := g.t.Get(ctx, key, g.consistent)
			if err != nil {
				q.params.givenTable = g.tableName
				return q.lost(ctx, err)
			}
			size := sizeOf(stored)
			if bytes += size; bytes > maxBatchBytes {
				break
			}
			g.done++
			took := readUnits(size, g.consistent)
			used.charge(&consumption{table: took}, false)
			c.add(nil, took)
			if stored == nil {
				continue
			}
			if !first {
				q.out = append(q.out, ',')
			}
			first = false
			if err := q.projected(stored, g.projection); err != nil {
				return err
			}
		}
		q.out = append(q.out, ']')
		taken = append(taken, c)
	}
	if throttled != nil && !slices.ContainsFunc(gets, func(g *batchGet) bool { return g.done > 0 }) {
		return throttled
	}
	q.out = append(q.out, '}')
	q.member("UnprocessedKeys")
	if err := q.unprocessedKeys(gets); err != nil {
		return err
	}
	q.consumedAll(taken)
	q.close()
	return nil
}

// consumedAll writes ConsumedCapacity of several tables, if it was asked for.
func (q *request) consumedAll(taken []consumption) {
	if !q.wantsCapacity() {
		return
	}
	q.member("ConsumedCapacity")
	q.out = append(q.out, '[')
	for i := range taken {
		if i > 0 {
			q.out = append(q.out, ',')
		}
		q.out = taken[i].append(q.out, q.params.returnCapacity == "INDEXES")
	}
	q.out = append(q.out, ']')
}

// readBatchGet reads the request. The tables come in the order of their names.
func (q *request) readBatchGet() ([]*batchGet, error) {
	r, p := &q.reader, &q.params
	var gets []*batchGet
	given := false
	err := r.Object(func(name []byte) error {
		if r.Null() {
			return nil
		}
		switch m := membersByName[string(name)]; {
		case string(name) == "RequestItems":
			given = true
			return r.Map("KeysAndAttributes", func(name []byte) error {
				if len(gets) == maxElements {
					return r.Skip()
				}
				g := &batchGet{params: params{tableName: string(name)}}
				gets = append(gets, g)
				return q.readBatchGetTable(g)
			})
		case m == mReturnCapacity:
			p.given |= m
			return q.readMember(m)
		}
		return r.Skip()
	})
	if err == nil {
		err = r.End()
	}
	if err == nil && !given {
		var c constraints
		c.required("requestItems")
		err = c.err()
	}
	slices.SortFunc(gets, func(a, b *batchGet) int { return strings.Compare(a.tableName, b.tableName) })
	return gets, err
}

// readBatchGetTable reads a KeysAndAttributes. Its other members are read as those of a request of their
// own.
func (q *request) readBatchGetTable(g *batchGet) error {
	r := &q.reader
	outer := q.params
	defer func() { q.params = outer }()
	q.params = g.params
	err := r.MapValue("KeysAndAttributes", func(name []byte) error {
		if r.Null() {
			return nil
		}
		if string(name) == "Keys" {
			q.params.given |= mKey
			return r.Array(func() error {
				if len(g.keys) == maxElements {
					return r.Skip()
				}
				key, err := r.Item(nil)
				g.keys = append(g.keys, key)
				return putAside(&q.params.itemErr, err)
			})
		}
		m := membersByName[string(name)]
		if m&(mConsistentRead|mProjectionExpression|mNames|mAttributesToGet) == 0 {
			return r.Skip()
		}
		q.params.given |= m
		return q.readMember(m)
	})
	g.params = q.params
	return err
}

// checkBatchGet checks the request against the model.
func checkBatchGet(q *request, gets []*batchGet) error {
	var c constraints
	if q.params.has(mReturnCapacity) {
		c.enum(q.params.returnCapacity, "returnConsumedCapacity", "INDEXES", "TOTAL", "NONE")
	}
	c.countMap(len(gets), "requestItems", 1, maxBatchGet)
	total := 0
	for _, g := range gets {
		c.tableKey(g.tableName)
		at := "requestItems." + shorten(g.tableName) + ".member.keys"
		if !g.has(mKey) {
			c.required(at)
		} else {
			c.count(len(g.keys), at, 1, maxBatchGet)
		}
		if g.has(mAttributesToGet) {
			c.count(len(g.attributesToGet), "requestItems."+shorten(g.tableName)+".member.attributesToGet", 1, 0)
		}
		total += len(g.keys)
	}
	if err := c.err(); err != nil {
		return err
	}
	if total > maxBatchGet {
		return invalid("Too many items requested for the BatchGetItem call")
	}
	for _, g := range gets {
		if err := g.checkMixing([]member{mProjectionExpression}, []member{mAttributesToGet}); err != nil {
			return err
		}
		if err := g.checkItem(); err != nil {
			return err
		}
		seen := make(map[string]bool, len(g.keys))
		for _, key := range g.keys {
			if seen[string(key)] {
				return invalid("%s", errBatchDuplicates)
			}
			seen[string(key)] = true
		}
		if err := g.checkPlaceholders(); err != nil {
			return err
		}
		var err error
		if g.projection, err = g.parseProjection(); err != nil {
			return err
		}
		if err := g.placeholders.CheckUsed(); err != nil {
			return err
		}
	}
	return nil
}

const errBatchDuplicates = "Provided list of item keys contains duplicates"

// resolve finds the table and the keys in it.
func (g *batchGet) resolve(q *request, ctx context.Context) error {
	var err error
	if g.t, err = q.caughtUpTable(ctx, g.tableName); err != nil {
		return err
	}
	for _, stored := range g.keys {
		key, err := keyOf(g.t.Schema(), stored)
		if err != nil {
			return err
		}
		g.ordered = append(g.ordered, key)
	}
	if g.projection == nil {
		return nil
	}
	return checkKeyPaths(g.t.Schema(), g.projection.Paths)
}

// unprocessedKeys writes what was left, as a request that can be sent again.
func (q *request) unprocessedKeys(gets []*batchGet) error {
	q.out = append(q.out, '{')
	first := true
	for _, g := range gets {
		if g.done == len(g.keys) {
			continue
		}
		if !first {
			q.out = append(q.out, ',')
		}
		first = false
		q.out = append(wire.AppendString(q.out, g.tableName), `:{"Keys":[`...)
		for i, key := range g.keys[g.done:] {
			if i > 0 {
				q.out = append(q.out, ',')
			}
			if err := q.item(key); err != nil {
				return err
			}
		}
		q.out = append(q.out, ']')
		if g.consistent {
			q.out = append(q.out, `,"ConsistentRead":true`...)
		}
		if g.has(mProjectionExpression) {
			q.out = wire.AppendString(append(q.out, `,"ProjectionExpression":`...), g.params.projection)
		}
		if g.has(mNames) {
			q.out = append(q.out, `,"ExpressionAttributeNames":{`...)
			for i, n := range g.placeholders.Names {
				if i > 0 {
					q.out = append(q.out, ',')
				}
				q.out = wire.AppendString(append(wire.AppendString(q.out, n.Placeholder), ':'), n.Name)
			}
			q.out = append(q.out, '}')
		}
		for i, name := range g.attributesToGet {
			if i == 0 {
				q.out = append(q.out, `,"AttributesToGet":[`...)
			} else {
				q.out = append(q.out, ',')
			}
			q.out = wire.AppendString(q.out, name)
			if i == len(g.attributesToGet)-1 {
				q.out = append(q.out, ']')
			}
		}
		q.out = append(q.out, '}')
	}
	q.out = append(q.out, '}')
	return nil
}
