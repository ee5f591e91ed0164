package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

const maxBatchWrite = 25 // items in one BatchWriteItem

// batchWrite is one write of a BatchWriteItem.
type batchWrite struct {
	table   string // as the request names it
	at      int    // which of the table's writes it is, from 1
	put     bool
	stored  []byte // the item, or the key of a delete, stored form
	given   int    // how many of PutRequest and DeleteRequest there were
	missing string // the member that is missing
	t       *region.Table
	command *op.Command
	result  op.Result
	err     error
}

// batchWriteItem answers BatchWriteItem: every write by itself, all at the same time.
func batchWriteItem(q *request, ctx context.Context) error {
	q.params.writes = true
	tables, writes, err := q.readBatchWrite()
	if err != nil {
		return err
	}
	if err := q.checkBatchWrite(tables, writes); err != nil {
		return err
	}
	if err := q.resolveBatchWrite(ctx, writes); err != nil {
		return err
	}
	if why := q.h.cfg.Fenced(ctx); why != nil {
		return errFenced(q.h.cfg.Region.Name(), why)
	}
	var wg sync.WaitGroup
	for _, w := range writes {
		used := q.h.usage(w.t)
		if w.err = used.throttleWrite(w.command, w.stored); w.err != nil {
			continue
		}
		release := used.hold(w.command)
		wg.Go(func() {
			defer release()
			if w.result, w.err = w.t.Write(ctx, w.command); w.err == nil && w.result.Err == nil && used != nil {
				taken := consumption{}
				taken.addWrite(w.t.Schema(), w.command.Key, w.result.Old, w.result.New)
				used.wrote(&taken, w.result.New)
			}
		})
	}
	wg.Wait()
	for _, w := range writes {
		if w.err != nil && !q.h.throttled(w.err) {
			q.params.givenTable = w.table
			return q.lost(ctx, w.err)
		}
		if w.result.Err != nil {
			return w.result.Err
		}
	}
	if !slices.ContainsFunc(writes, (*batchWrite).done) {
		return writes[0].err
	}
	for _, w := range writes {
		if w.done() {
			q.wroteAt(w.t, w.result)
		}
	}
	q.open()
	q.member("UnprocessedItems")
	if err := q.unprocessedItems(writes); err != nil {
		return err
	}
	q.batchMetrics(writes)
	if q.wantsCapacity() {
		q.consumedAll(batchConsumption(writes))
	}
	q.close()
	return nil
}

// readBatchWrite reads the request. Its writes come sorted by table, those of one table in the request's
// order.
func (q *request) readBatchWrite() (tables map[string]int, writes []*batchWrite, err error) {
	r, p := &q.reader, &q.params
	given := false
	err = r.Object(func(name []byte) error {
		if r.Null() {
			return nil
		}
		switch m := membersByName[string(name)]; {
		case string(name) == "RequestItems":
			given = true
			tables = map[string]int{}
			return r.Map("java.util.List<com.amazonaws.dynamodb.v20120810.WriteRequest>", func(name []byte) error {
				if len(tables) == maxElements {
					return r.Skip()
				}
				t := string(name)
				tables[t] = 0
				return r.Array(func() error {
					if len(writes) == maxElements {
						return r.Skip()
					}
					tables[t]++
					w := &batchWrite{table: t, at: tables[t]}
					writes = append(writes, w)
					return q.readBatchWriteRequest(w)
				})
			})
		case m&(mReturnCapacity|mReturnMetrics) != 0:
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
	slices.SortStableFunc(writes, func(a, b *batchWrite) int { return strings.Compare(a.table, b.table) })
	return tables, writes, err
}

func (q *request) readBatchWriteRequest(w *batchWrite) error {
	r := &q.reader
	return r.MapValue("WriteRequest", func(name []byte) error {
		member := ""
		switch string(name) {
		case "PutRequest":
			member = "Item"
		case "DeleteRequest":
			member = "Key"
		}
		if member == "" {
			return r.Skip()
		}
		if r.Null() {
			return nil
		}
		w.given++
		w.put = member == "Item"
		w.missing = camel(string(name)) + "." + camel(member)
		return r.Structure(string(name), func(name []byte) (err error) {
			if string(name) != member {
				return r.Skip()
			}
			if r.Null() {
				return nil
			}
			w.missing = ""
			// A put's item goes into a command, so it has memory of its own.
			w.stored, err = r.Item(nil)
			return putAside(&q.params.itemErr, err)
		})
	})
}

// checkBatchWrite checks the request against the model and its own rules.
func (q *request) checkBatchWrite(tables map[string]int, writes []*batchWrite) error {
	p := &q.params
	var c constraints
	if p.has(mReturnCapacity) {
		c.enum(p.returnCapacity, "returnConsumedCapacity", "INDEXES", "TOTAL", "NONE")
	}
	if p.has(mReturnMetrics) {
		c.enum(p.returnMetrics, "returnItemCollectionMetrics", "SIZE", "NONE")
	}
	c.countMap(len(tables), "requestItems", 1, maxBatchWrite)
	for _, t := range slices.Sorted(maps.Keys(tables)) {
		c.tableKey(t)
		c.count(tables[t], "requestItems."+shorten(t)+".member", 1, maxBatchWrite)
	}
	for _, w := range writes {
		if w.missing != "" {
			c.required("requestItems." + shorten(w.table) + ".member." + strconv.Itoa(w.at) + ".member." + w.missing)
		}
	}
	if err := c.err(); err != nil {
		return err
	}
	if len(writes) > maxBatchWrite {
		return invalid("Too many items requested for the BatchWriteItem call")
	}
	for _, w := range writes {
		if w.given != 1 {
			return invalid("Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes")
		}
		if w.put && sizeOf(w.stored) > op.MaxItemSize {
			return errItemTooLarge()
		}
	}
	return p.checkItem()
}

// resolveBatchWrite finds the tables and makes the commands.
func (q *request) resolveBatchWrite(ctx context.Context, writes []*batchWrite) error {
	seen := make(map[string]bool, len(writes))
	for _, w := range writes {
		var err error
		if w.t, err = q.caughtUpTable(ctx, w.table); err != nil {
			return err
		}
		s := w.t.Schema()
		var key table.Key
		if w.put {
			if key, err = s.KeyOf(w.stored); err == nil {
				err = s.CheckIndexKeys(nil, w.stored)
			}
			w.command = &op.Command{Kind: op.Put, Key: key, Item: w.stored}
		} else {
			key, err = keyOf(s, w.stored)
			w.command = &op.Command{Kind: op.Delete, Key: key}
		}
		if err != nil {
			return err
		}
		id := nameOfTable(w.table) + "\x00" + string(key)
		if seen[id] {
			return invalid("%s", errBatchDuplicates)
		}
		seen[id] = true
	}
	return nil
}

// byTable calls f with each table's writes, those that keep has chosen.
func byTable(writes []*batchWrite, keep func(*batchWrite) bool, f func(name string, writes []*batchWrite)) {
	for len(writes) > 0 {
		n := 1
		for n < len(writes) && writes[n].table == writes[0].table {
			n++
		}
		var chosen []*batchWrite
		for _, w := range writes[:n] {
			if keep(w) {
				chosen = append(chosen, w)
			}
		}
		if len(chosen) > 0 {
			f(writes[0].table, chosen)
		}
		writes = writes[n:]
	}
}

func (w *batchWrite) done() bool { return w.err == nil }

// unprocessedItems writes what was not carried out, as a request that can be sent again.
func (q *request) unprocessedItems(writes []*batchWrite) error {
	q.out = append(q.out, '{')
	var errs []error
	first := true
	byTable(writes, func(w *batchWrite) bool { return !w.done() }, func(name string, writes []*batchWrite) {
		if !first {
			q.out = append(q.out, ',')
		}
		first = false
		q.out = append(wire.AppendString(q.out, name), ':', '[')
		for i, w := range writes {
			if i > 0 {
				q.out = append(q.out, ',')
			}
			if w.put {
				q.out = append(q.out, `{"PutRequest":{"Item":`...)
			} else {
				q.out = append(q.out, `{"DeleteRequest":{"Key":`...)
			}
			errs = append(errs, q.item(w.stored))
			q.out = append(q.out, '}', '}')
		}
		q.out = append(q.out, ']')
	})
	q.out = append(q.out, '}')
	return errors.Join(errs...)
}

// batchMetrics writes ItemCollectionMetrics by table, if they were asked for.
func (q *request) batchMetrics(writes []*batchWrite) {
	if q.params.returnMetrics != "SIZE" {
		return
	}
	q.member("ItemCollectionMetrics")
	q.out = append(q.out, '{')
	first := true
	keep := func(w *batchWrite) bool { return w.done() && hasCollections(w.t.Schema()) }
	byTable(writes, keep, func(name string, writes []*batchWrite) {
		if !first {
			q.out = append(q.out, ',')
		}
		first = false
		q.out = append(wire.AppendString(q.out, name), ':', '[')
		for i, w := range writes {
			if i > 0 {
				q.out = append(q.out, ',')
			}
			q.out = appendCollection(q.out, w.t.Schema(), w.stored)
		}
		q.out = append(q.out, ']')
	})
	q.out = append(q.out, '}')
}

func batchConsumption(writes []*batchWrite) []consumption {
	var out []consumption
	byTable(writes, (*batchWrite).done, func(name string, writes []*batchWrite) {
		c := consumption{name: name}
		for _, w := range writes {
			c.addWrite(w.t.Schema(), w.command.Key, w.result.Old, w.result.New)
		}
		out = append(out, c)
	})
	return out
}
