package partition

import (
	"errors"
	"slices"

	"github.com/commutatordb/commutator/crdt"
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

// ReadPage reads a run of items or index rows.
func ReadPage(r storage.Reader, tableID uint32, p op.Page) (op.PageResult, error) {
	prefix := keyenc.Record(nil, tableID, nil)
	if p.Index != nil {
		prefix = keyenc.Index(nil, tableID, p.Index.ID, nil)
	}
	lower, upper := append(slices.Clone(prefix), p.From...), keyenc.End(prefix)
	if p.To != nil {
		upper = append(slices.Clone(prefix), p.To...)
	}
	var out op.PageResult
	it, err := r.Iter(lower, upper)
	if err != nil {
		return out, err
	}
	defer it.Close()
	ok, step := false, it.Next
	if p.Reverse {
		ok, step = it.Last(), it.Prev
	} else {
		ok = it.First()
	}
	for ; ok; ok = step() {
		stored := it.Value()
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
		key := table.Key(slices.Clone(it.Key()[len(prefix):]))
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
	return out, it.Err()
}
