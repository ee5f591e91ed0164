package partition

import (
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
		return op.Result{} // deleted meanwhile
	}
	prefix := keyenc.Record(nil, m.cfg.Table, nil)
	it, err := m.cfg.Store.Iter(keyenc.Record(nil, m.cfg.Table, c.Key), keyenc.End(prefix))
	if err != nil {
		panic(fmt.Sprintf("partition %d: reindex: %v", m.cfg.ID, err))
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		key := table.Key(slices.Clone(keyenc.RecordKey(it.Key())))
		if n == c.Limit {
			return op.Result{Next: key}
		}
		n++
		item := visible(it.Value())
		if row := m.schema.RowKey(x, key, item); row != nil {
			m.scratch = keyenc.Index(m.scratch[:0], m.cfg.Table, x.ID, row)
			b.Set(m.scratch, m.schema.Project(x, item))
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: reindex: %v", m.cfg.ID, err))
	}
	return op.Result{}
}
