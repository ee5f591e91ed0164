package partition

import (
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/table"
)

func (m *Machine) put(c *op.Command, b *storage.Batch) op.Result {
	e := m.load(c.Key)
	if err := check(c.Condition, e.old); err != nil {
		return op.Result{Err: err, Old: e.old}
	}
	if err := m.schema.CheckIndexKeys(nil, c.Item); err != nil {
		return op.Result{Err: err}
	}
	return m.write(e, crdt.Write{Origin: crdt.Origin{Op: crdt.Put}, Item: c.Item}, c, b)
}

func (m *Machine) update(c *op.Command, b *storage.Batch) op.Result {
	e := m.load(c.Key)
	var old item.Item
	if e.old != nil {
		old = mustDecode(e.old)
	}
	if c.Condition != nil && !c.Condition.Eval(old) {
		return op.Result{Err: &op.ConditionFailed{Item: e.old}, Old: e.old}
	}
	if e.old == nil && c.Update != nil && c.Update.OnlyTakes() {
		return op.Result{} // there is nothing to take away, and that makes no item
	}
	base := old
	var changes []item.Change
	if e.old == nil {
		// The item is made: its key is assigned like any attribute, by each region that makes it.
		key, err := m.schema.Values(c.Key)
		if err != nil {
			return op.Result{Err: err}
		}
		base = base.With(m.schema.Hash.Name, key.Partition)
		changes = append(changes, item.Change{Kind: item.Assign, Path: []string{m.schema.Hash.Name}, Value: key.Partition})
		if m.schema.HasRange() {
			base = base.With(m.schema.Range.Name, key.Sort)
			changes = append(changes, item.Change{Kind: item.Assign, Path: []string{m.schema.Range.Name}, Value: key.Sort})
		}
	}
	new := base
	if c.Update != nil {
		updated, edits, err := c.Update.Apply(base, e.old != nil)
		if err != nil {
			return op.Result{Err: err, Old: e.old}
		}
		new, changes = updated, append(changes, edits...)
	}
	if updateSize(new, m.schema.KeyNames(), c.Update) > op.MaxItemSize {
		return op.Result{Err: op.ErrUpdateTooLarge, Old: e.old}
	}
	stored := item.AppendItem(nil, new)
	if err := m.schema.CheckIndexKeys(e.old, stored); err != nil {
		return op.Result{Err: err, Old: e.old}
	}
	return m.write(e, crdt.Write{Origin: crdt.Origin{Op: crdt.Update}, Item: stored, Changes: changes}, c, b)
}

func (m *Machine) delete(c *op.Command, b *storage.Batch) op.Result {
	e := m.load(c.Key)
	if err := check(c.Condition, e.old); err != nil {
		return op.Result{Err: err, Old: e.old}
	}
	w := crdt.Write{Origin: crdt.Origin{Op: crdt.Delete}}
	if c.Kind == op.Expire {
		w.Op = crdt.Expire
	}
	if e.old == nil && (m.schema.Solo || c.Kind == op.Expire) {
		return op.Result{} // nothing to delete, and no region can hold anything this one has not seen
	}
	// What is not here may be in another region, written earlier and not seen yet: the delete is the later.
	return m.write(e, w, c, b)
}

// updateSize is the size that an update is held to: the item's, or the item's without its key and with 3
// bytes, 19 for each clause that writes and 2 for each that removes, whichever is more. Source:
// DYNAMODB.md §3, "400 KB".
func updateSize(it item.Item, keys []string, u *expr.Update) int {
	size := it.Size()
	if u == nil {
		return size
	}
	clauses, removes := u.Clauses()
	measured := size + 3 + 19*(clauses-removes) + 2*removes
	for _, name := range keys {
		measured -= len(name) + it.Get(name).Size()
	}
	return max(size, measured)
}

func check(c *expr.Condition, old []byte) error {
	if c == nil {
		return nil
	}
	var it item.Item
	if old != nil {
		it = mustDecode(old)
	}
	if !c.Eval(it) {
		return &op.ConditionFailed{Item: old}
	}
	return nil
}

func mustDecode(stored []byte) item.Item {
	it, err := item.DecodeItem(stored)
	if err != nil {
		panic(fmt.Sprintf("partition: stored item: %v", err)) // its checksum was right: our own fault
	}
	return it
}

// write makes a local write of it: stamps it, merges it into the record, and commits.
func (m *Machine) write(e entry, w crdt.Write, c *op.Command, b *storage.Batch) op.Result {
	w.Dot = m.stamp(c.HLC)
	w.Conditional = c.Condition != nil
	w.Modes = m.modes
	if w.Stable = m.state.Stable; mutant.On(mutant.StableNotSaid) {
		w.Stable = 0
	}
	result := op.Result{Old: e.old, Dot: w.Dot}
	if m.schema.Solo {
		// No other region: what this one writes is stable at once.
		if w.Op == crdt.Delete || w.Op == crdt.Expire {
			delta := (&crdt.Record{}).Write(w)
			m.commit(e, nil, delta.Append(nil), local, b)
			return result
		}
		record := crdt.AppendFolded(make([]byte, 0, recordOverhead+len(w.Item)), w.Dot, w.Item)
		result.New = w.Item
		// The change log needs no copy: whoever joins is seeded first, and follows from there.
		m.commit(e, record, record[:recordOverhead], local, b)
		return result
	}
	r := m.open(e)
	if w.Op == crdt.Update {
		r.Key = m.keyItem(e.key)
	}
	delta := r.Write(w)
	record := r.Append(nil)
	if mutant.On(mutant.DropTombstone) && visible(record) == nil {
		record = nil
	}
	result.New = visible(record)
	m.commit(e, record, delta.Append(nil), local, b)
	return result
}

// recordOverhead is what a folded record adds to its item, in bytes.
const recordOverhead = 12

// open decodes an entry's record for writing or joining, folded as far as this region's stable time
// allows.
func (m *Machine) open(e entry) *crdt.Record {
	r := m.decode(e)
	if gone := r.Fold(m.state.Stable); gone {
		return &crdt.Record{}
	}
	r.Trim(m.state.Stable)
	return r
}

// decode decodes an entry's record as it is stored.
func (m *Machine) decode(e entry) *crdt.Record {
	if e.stored == nil {
		return &crdt.Record{}
	}
	r, err := crdt.Decode(e.stored)
	if err != nil {
		panic(fmt.Sprintf("partition %d: record %x: %v", m.cfg.ID, e.key, err))
	}
	return r
}

// keyItem returns an item of the key attributes alone, in stored form.
func (m *Machine) keyItem(key table.Key) []byte {
	it, err := m.schema.KeyItem(key)
	if err != nil {
		panic(fmt.Sprintf("partition %d: key %x: %v", m.cfg.ID, key, err))
	}
	return it
}
