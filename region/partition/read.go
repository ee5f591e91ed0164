package partition

import (
	"errors"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Get returns the visible item at key in stored form, nil for none. It returns a
// *storage.CorruptionError when what is there is not what was written.
func Get(r storage.Reader, tableID uint32, key table.Key) ([]byte, error) {
	var buf [256]byte
	stored, err := r.Get(nil, keyenc.Record(buf[:0], tableID, key))
	if err != nil {
		if errors.Is(err, storage.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	it, ok, err := crdt.PeekVisible(stored)
	if !ok {
		return nil, err
	}
	return it, err
}

// Rows are one partition's, as they can be read somewhere.
type Rows struct {
	From      storage.Reader
	Partition uint64
	// Of, if not nil, tells whether an index row, by what it holds, is of an item that is the partition's still: there are others left.
	Of func(projected []byte) bool
}

// RowsOf returns where a partition's rows stand, given its state.
func RowsOf(from storage.Reader, id uint64, start table.Key, s *State, schema *table.Schema) Rows {
	if !s.Span.Prune || mutant.On(mutant.RowsTwice) {
		return Rows{From: from, Partition: id}
	}
	c := &Config{Start: start, End: s.Span.End}
	return Rows{from, id, func(projected []byte) bool { return holdsRow(schema, c, projected) }}
}

// ReadPage reads a run of items, or of the index rows of some partitions' items. Where it reads items, all partitions are read from one place.
func ReadPage(tableID uint32, partitions []Rows, p op.Page) (op.PageResult, error) {
	var out op.PageResult
	rows := merged{reverse: p.Reverse}
	defer rows.close()
	if p.Index == nil {
		// The records of a table stand in one row, whichever partition's they are.
		rows.add(partitions[0].From, keyenc.Record(nil, tableID, nil), nil, p)
	} else {
		for _, rs := range partitions {
			rows.add(rs.From, keyenc.Index(nil, rs.Partition, p.Index.ID, nil), rs.Of, p)
		}
	}
	for ; rows.ok(); rows.next() {
		stored := rows.value()
		if !rows.counts() {
			continue
		}
		if p.Index == nil {
			visible, exists, err := crdt.PeekVisible(stored)
			if err != nil {
				return out, err
			}
			if !exists {
				continue
			}
			stored = visible
		}
		size, err := item.RawSize(stored)
		if err != nil {
			return out, err
		}
		key := table.Key(slices.Clone(rows.key()))
		stored = slices.Clone(stored)
		out.Looked++
		out.LookedAt += size
		pass := true
		if p.Filter != nil {
			tree, err := item.DecodeItem(stored)
			if err != nil {
				return out, err
			}
			pass = p.Filter.Eval(tree)
		}
		if pass {
			out.Items = append(out.Items, stored)
			out.Keys = append(out.Keys, key)
		}
		if p.Limit > 0 && out.Looked == p.Limit || p.Bytes > 0 && out.LookedAt >= p.Bytes {
			out.Last, out.LastItem = key, stored
			return out, nil
		}
	}
	return out, rows.err
}
