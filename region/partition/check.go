package partition

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// CheckIndexes holds index rows against the items, in what cfg.Store shows, which must be of one moment. It goes through the items, and
// asks for each one's rows; then through the rows, and asks for each one's item. An index that is still being filled may lack rows. When it
// gets from the beginning to the end in one go, it compares the counts too. It keeps no more than the differences.
func CheckIndexes(cfg Config, c op.IndexCheck) (op.IndexCheckResult, error) {
	m, err := Open(cfg)
	if err != nil {
		return op.IndexCheckResult{}, err
	}
	k := indexChecker{m: m, left: c.Limit, counted: map[uint32]*IndexState{}}
	from := c.From
	first, end := m.cfg.records()
	if from == nil {
		from = first
	}
	rows := keyenc.Indexes(nil, cfg.ID)
	whole := bytes.Equal(from, first)
	if !bytes.HasPrefix(from, rows) {
		if next, err := k.items(from, end); err != nil || next != nil {
			k.out.Next = next
			return k.out, err
		}
		from = rows
	}
	if k.out.Next, err = k.rows(from); err == nil && k.out.Next == nil && whole {
		k.counts()
	}
	return k.out, err
}

// Covers tells whether a check of the partition may go on from there: see op.IndexCheck.
func Covers(cfg Config, from []byte) (bool, error) {
	m, err := Open(cfg)
	if err != nil {
		return false, err
	}
	first, end := m.cfg.records()
	return bytes.HasPrefix(from, keyenc.Indexes(nil, m.cfg.ID)) || bytes.Compare(from, first) >= 0 && bytes.Compare(from, end) < 0, nil
}

type indexChecker struct {
	m       *Machine
	left    int // items and rows that may still be looked at
	counted map[uint32]*IndexState
	out     op.IndexCheckResult
}

func (k *indexChecker) differs(x *table.Index, reason op.IndexReason, key, row table.Key) {
	k.out.Differences = append(k.out.Differences, op.IndexDifference{Index: x.Name, Reason: reason, Key: slices.Clone(key), Row: slices.Clone(row)})
}

// each calls f for what stands in [from, to). It returns where to go on if it may look at no more.
func (k *indexChecker) each(from, to []byte, f func(key, value []byte) error) (next []byte, err error) {
	it, err := k.m.cfg.Store.Iter(from, to)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if k.left == 0 {
			return slices.Clone(it.Key()), nil
		}
		k.left--
		if err := f(it.Key(), it.Value()); err != nil {
			return nil, err
		}
	}
	return nil, it.Err()
}

// items asks for the rows of every item whose record's key is in [from, to).
func (k *indexChecker) items(from, to []byte) (next []byte, err error) {
	s := k.m.schema
	return k.each(from, to, func(at, record []byte) error {
		stored, ok, err := crdt.PeekVisible(record)
		if err != nil || !ok {
			return err
		}
		k.out.Items++
		key := table.Key(keyenc.RecordKey(at))
		for i := range s.Indexes {
			x := &s.Indexes[i]
			row := s.RowKey(x, key, stored)
			if row == nil {
				continue
			}
			have, err := k.m.cfg.Store.Get(nil, keyenc.Index(nil, k.m.cfg.ID, x.ID, row))
			switch {
			case errors.Is(err, storage.ErrNotFound):
				if !x.Backfilling {
					k.differs(x, op.RowMissing, key, row)
				}
			case err != nil:
				return err
			case !bytes.Equal(have, s.Project(x, stored)):
				k.differs(x, op.RowDiffers, key, row)
			}
		}
		return nil
	})
}

// rows asks for the item of every index row from a row's key on. That a row holds what its item makes has been seen with the item.
func (k *indexChecker) rows(from []byte) (next []byte, err error) {
	s := k.m.schema
	return k.each(from, keyenc.End(keyenc.Indexes(nil, k.m.cfg.ID)), func(at, projected []byte) error {
		id, row := keyenc.IndexID(at), table.Key(keyenc.IndexKey(at))
		i := slices.IndexFunc(s.Indexes, func(x table.Index) bool { return x.ID == id })
		if i >= 0 && k.m.state.Span.Prune && !holdsRow(s, &k.m.cfg, projected) {
			return nil // left of an item that is another partition's now
		}
		k.out.Rows++
		if i < 0 {
			k.differs(&table.Index{Name: fmt.Sprintf("(no index has the id %d)", id)}, op.RowStale, nil, row)
			return nil
		}
		x := &s.Indexes[i]
		size, err := item.RawSize(projected)
		if err != nil {
			return err
		}
		if k.counted[id] == nil {
			k.counted[id] = &IndexState{ID: id}
		}
		k.counted[id].Items++
		k.counted[id].Bytes += int64(size)
		key, err := s.KeyOf(projected)
		if err != nil {
			k.differs(x, op.RowStale, nil, row)
			return nil
		}
		if !k.m.cfg.holds(key) {
			k.differs(x, op.RowStale, key, row)
			return nil
		}
		stored, err := Get(k.m.cfg.Store, k.m.cfg.Table, key)
		if err != nil {
			return err
		}
		if !bytes.Equal(s.RowKey(x, key, stored), row) {
			k.differs(x, op.RowStale, key, row)
		}
		return nil
	})
}

// counts compares what was counted along with the writes with what is there.
func (k *indexChecker) counts() {
	for i := range k.m.schema.Indexes {
		x := &k.m.schema.Indexes[i]
		state := k.m.state.index(x.ID)
		if state == nil || !state.Filled {
			continue
		}
		have := IndexState{}
		if counted := k.counted[x.ID]; counted != nil {
			have = *counted
		}
		if have.Items != state.Items || have.Bytes != state.Bytes {
			k.differs(x, op.RowCount, nil, nil)
		}
	}
}
