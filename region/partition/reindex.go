package partition

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// reindex writes a new index's rows for the next items from the command's key on. Every write since the
// schema changed keeps its own rows; writing one of them again changes nothing.
func (m *Machine) reindex(c *op.Command, b *storage.Batch) op.Result {
	var x *table.Index
	for i := range m.schema.Indexes {
		if m.schema.Indexes[i].ID == c.Index {
			x = &m.schema.Indexes[i]
		}
	}
	if x == nil {
		return op.Result{Err: op.ErrNoIndex}
	}
	_, end := m.cfg.records()
	it, err := m.cfg.Store.Iter(keyenc.Record(nil, m.cfg.Table, c.Key), end)
	if err != nil {
		panic(fmt.Sprintf("partition %d: reindex: %v", m.cfg.ID, err))
	}
	defer it.Close()
	state := m.state.index(x.ID)
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		key := table.Key(slices.Clone(keyenc.RecordKey(it.Key())))
		if n == c.Limit {
			if state != nil && !state.Filled && bytes.Compare(key, state.Reached) > 0 {
				state.Reached = key
			}
			return op.Result{Next: key}
		}
		n++
		item := visible(it.Value())
		if row := m.schema.RowKey(x, key, item); row != nil {
			projected := m.schema.Project(x, item)
			m.scratch = keyenc.Index(m.scratch[:0], m.cfg.ID, x.ID, row)
			b.Set(m.scratch, projected)
			if state != nil && !state.Filled && bytes.Compare(key, state.Reached) >= 0 {
				state.count(projected, +1)
			}
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: reindex: %v", m.cfg.ID, err))
	}
	if state != nil {
		state.Filled, state.Reached = true, nil
	}
	return op.Result{}
}
