package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// IndexState is how much one index holds of a partition. Indexes from before this was counted have none.
type IndexState struct {
	ID    uint32
	Items int64 // rows
	Bytes int64 // the sizes of the projected items, by item.Item.Size

	// Filled is true once rows for all items have been written. Until then only rows of items before Reached are counted: those of
	// the others are when they are reached, whoever writes them first.
	Filled  bool
	Reached table.Key
}

// append draws an index's state:
//
//	id (4, big-endian), items (8), bytes (8), 1 if filled or 0, length of reached (uvarint), reached
func (x *IndexState) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, x.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(x.Items))
	b = binary.BigEndian.AppendUint64(b, uint64(x.Bytes))
	filled := byte(0)
	if x.Filled {
		filled = 1
	}
	b = binary.AppendUvarint(append(b, filled), uint64(len(x.Reached)))
	return append(b, x.Reached...)
}

func cutIndexState(b []byte) (x IndexState, rest []byte, err error) {
	const fixed = 4 + 8 + 8 + 1
	if len(b) < fixed || b[fixed-1] > 1 {
		return x, nil, fmt.Errorf("partition: not the state of an index: %.20x", b)
	}
	reached, rest, err := item.CutBytes(b[fixed:])
	if err != nil {
		return x, nil, fmt.Errorf("partition: not the state of an index: %w", err)
	}
	x = IndexState{
		ID: binary.BigEndian.Uint32(b), Items: int64(binary.BigEndian.Uint64(b[4:])), Bytes: int64(binary.BigEndian.Uint64(b[12:])),
		Filled: b[fixed-1] == 1,
	}
	if len(reached) > 0 {
		x.Reached = slices.Clone(reached)
	}
	return x, rest, nil
}

// index returns the state of an index, nil for none.
func (s *State) index(id uint32) *IndexState {
	for i := range s.Indexes {
		if s.Indexes[i].ID == id {
			return &s.Indexes[i]
		}
	}
	return nil
}

// countAnew begins to count what is new in a schema that the partition is about to follow, and forgets what is gone.
func (m *Machine) countAnew(s *table.Schema) {
	var out []IndexState
	for i := range s.Indexes {
		x := &s.Indexes[i]
		if have := m.state.index(x.ID); have != nil {
			out = append(out, *have)
		} else if !slices.ContainsFunc(m.schema.Indexes, func(old table.Index) bool { return old.ID == x.ID }) {
			out = append(out, IndexState{ID: x.ID, Filled: !x.Backfilling})
		}
	}
	m.state.Indexes = out
}

// countRow counts a row that is written or removed for the item at key.
func (m *Machine) countRow(key table.Key, row *table.Row) {
	if x := m.state.index(row.Index); x != nil && (x.Filled || bytes.Compare(key, x.Reached) < 0) {
		x.count(row.Was, -1)
		x.count(row.Item, +1)
	}
}

func (x *IndexState) count(projected []byte, by int64) {
	if projected == nil {
		return
	}
	size, err := item.RawSize(projected)
	if err != nil {
		panic(fmt.Sprintf("partition: stored item: %v", err))
	}
	x.Items += by
	x.Bytes += by * int64(size)
}
