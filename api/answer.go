package api

import (
	"fmt"
	"strconv"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// The answer's JSON is written member by member into q.out.

func (q *request) open() { q.out = append(q.out, '{') }

func (q *request) close() { q.out = append(q.out, '}') }

// member begins a member of the object that is open.
func (q *request) member(name string) {
	if q.out[len(q.out)-1] != '{' {
		q.out = append(q.out, ',')
	}
	q.out = append(append(append(q.out, '"'), name...), '"', ':')
}

// item writes a stored item.
func (q *request) item(stored []byte) error {
	out, err := wire.AppendItem(q.out, stored)
	if err != nil {
		return fmt.Errorf("api: a stored item: %w", err)
	}
	q.out = out
	return nil
}

func (q *request) int(name string, n int) {
	q.member(name)
	q.out = strconv.AppendInt(q.out, int64(n), 10)
}

// consumed writes ConsumedCapacity, if it was asked for.
func (q *request) consumed(c *consumption) {
	if q.wantsCapacity() {
		q.member("ConsumedCapacity")
		q.out = c.append(q.out, q.params.returnCapacity == "INDEXES")
	}
}

func (q *request) wantsCapacity() bool {
	return q.params.returnCapacity == "TOTAL" || q.params.returnCapacity == "INDEXES"
}

// collectionMetrics writes ItemCollectionMetrics, if they were asked for and the table has item
// collections (local indexes). stored has the partition key.
func (q *request) collectionMetrics(s *table.Schema, stored []byte) {
	if q.params.returnMetrics == "SIZE" && hasCollections(s) {
		q.member("ItemCollectionMetrics")
		q.out = appendCollection(q.out, s, stored)
	}
}

func hasCollections(s *table.Schema) bool {
	for i := range s.Indexes {
		if !s.Indexes[i].Global {
			return true
		}
	}
	return false
}

// appendCollection writes one collection's metrics. Its size is estimated as the service does for any
// collection under 1 GB.
func appendCollection(dst []byte, s *table.Schema, stored []byte) []byte {
	dst = append(wire.AppendString(append(dst, `{"ItemCollectionKey":{`...), s.Hash.Name), ':')
	dst, err := wire.AppendValue(dst, item.Attr(stored, s.Hash.Name))
	if err != nil {
		panic(fmt.Sprintf("api: a key: %v", err)) // its item's key was taken from it before
	}
	return append(dst, `},"SizeEstimateRangeGB":[0.0,1.0]}`...)
}
