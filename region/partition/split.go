package partition

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// A partition is cut in two by its own log. Records, and traces of those that were deleted, stand by their keys, so they change hands where
// they are. What stands by the partition, index rows and the change log, the child needs of its own: the parent drafts it, some items at a
// time, and keeps the draft in step with every write to the items that it has come to. The command behind the last item cuts: from
// its entry on the parent ends at the child's first key, and the child begins with the draft. Clients wait for no more than one step. Source:
// docs/decisions/0023.
//
//   - Index rows of the child's items are left under the parent and go later (Prune); until then whoever reads the parent's passes over them.
//   - The child's change log begins with an entry for every item that is not folded, as what came as a whole state has: none of them is
//     shipped, for the parent's log has them. From it the child folds them.
//   - Conflict records stay where they were found.
//
// All that a child begins with is written in the batch of the parent's entry, so whoever shows the one shows the other.

// Span is what a partition knows of its own range. The zero Span is of one that was never cut.
type Span struct {
	Cut bool
	End table.Key // the least key beyond it, nil for the end of the table

	// Child is the partition that was cut off last, 0 for none: it began at End, and ended at Until then.
	Child uint64
	Until table.Key

	Draft    *draft `json:",omitempty"`
	Drafting bool   `json:"-"` // in State: there is a draft
	Ready    bool   `json:"-"` // in State: it has all its items, and the next step cuts

	// Of merges, see merge.go:
	Closed   bool      `json:",omitempty"` // it holds nothing: its left neighbour is to have its range
	Was      table.Key `json:",omitempty"` // where it ended before it was closed
	Attempt  uint64    `json:",omitempty"` // the newest at which it was closed or reopened
	Absorbed uint64    `json:",omitempty"` // the newest with which it has taken in its right neighbour
	Gone     uint64    `json:",omitempty"` // the partition that it has taken in last

	Prune  bool   // index rows of items that were cut off are left
	Pruned []byte `json:",omitempty"` // those before this key of the store are gone
}

// draft is a partition that is to be cut off.
type draft struct {
	Child        uint64
	At           table.Key
	Reached      table.Key // items from At up to here are in the draft
	Ready        bool      // all are
	Items, Bytes int64     // as State has them
	Seq          uint64
	Indexes      []IndexState
}

func (s *Span) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("partition: span: %v", err)) // plain data only
	}
	return b
}

// ranges are those of the store's keys that the draft holds.
func (d *draft) ranges() (out [][2][]byte) {
	for _, prefix := range [][]byte{keyenc.LogOf(nil, d.Child), keyenc.Indexes(nil, d.Child)} {
		out = append(out, [2][]byte{prefix, keyenc.End(prefix)})
	}
	return out
}

func (d *draft) count(stored []byte, by int64) {
	if stored == nil {
		return
	}
	size, err := item.RawSize(stored)
	if err != nil {
		panic(fmt.Sprintf("partition: stored item: %v", err))
	}
	d.Items += by
	d.Bytes += by * int64(size)
}

func (d *draft) countRow(row *table.Row) {
	for i := range d.Indexes {
		if d.Indexes[i].ID == row.Index {
			d.Indexes[i].count(row.Was, -1)
			d.Indexes[i].count(row.Item, +1)
		}
	}
}

// log notes an item that may have to be folded.
func (d *draft) log(key table.Key, record []byte, b *storage.Batch) {
	if record == nil || mutant.On(mutant.ChildUnfolded) {
		return
	}
	d.Seq++
	b.Set(keyenc.Log(nil, d.Child, d.Seq), AppendChange(nil, byte(remote), key), record[:recordOverhead])
}

// draftOf returns the draft that an item is in, nil for none.
func (m *Machine) draftOf(key table.Key) *draft {
	d := m.state.Span.Draft
	if d == nil || bytes.Compare(key, d.At) < 0 || !d.Ready && bytes.Compare(key, d.Reached) >= 0 || mutant.On(mutant.DraftNotKept) {
		return nil
	}
	return d
}

// dropDraft throws the draft away if a schema that is about to be followed has other indexes.
func (m *Machine) dropDraft(s *table.Schema, b *storage.Batch) {
	d := m.state.Span.Draft
	same := func(x, y table.Index) bool { return x.ID == y.ID && x.Name == y.Name }
	if d == nil || slices.EqualFunc(m.schema.Indexes, s.Indexes, same) {
		return
	}
	for _, kr := range d.ranges() {
		b.DeleteRange(kr[0], kr[1])
	}
	m.state.Span.Draft, m.respan = nil, true
}

// holdsAll tells whether every item that a command is about is the partition's.
func (m *Machine) holdsAll(c *op.Command) bool {
	switch c.Kind {
	case op.Put, op.Update, op.Delete, op.Expire:
		return m.cfg.holds(c.Key) || mutant.On(mutant.MovedTaken)
	}
	return !slices.ContainsFunc(c.Deltas, func(d op.Delta) bool { return !m.cfg.holds(d.Key) })
}

// split drafts the next items of the child, and cuts when it has all. It does nothing when that was done before.
func (m *Machine) split(c *op.Command, b *storage.Batch) op.Result {
	span := &m.state.Span
	switch {
	case span.Child == c.Child, span.Gone == c.Child:
		return op.Result{}
	case !m.cfg.holds(c.Key) || bytes.Equal(c.Key, m.cfg.Start):
		return op.Result{Err: op.ErrMoved}
	case span.Prune || slices.ContainsFunc(m.state.Indexes, func(x IndexState) bool { return !x.Filled }):
		return op.Result{Err: op.ErrBusy}
	}
	d := span.Draft
	if d == nil || d.Child != c.Child || !bytes.Equal(d.At, c.Key) {
		d = &draft{Child: c.Child, At: slices.Clone(c.Key), Reached: slices.Clone(c.Key)}
		for _, x := range m.state.Indexes {
			d.Indexes = append(d.Indexes, IndexState{ID: x.ID, Filled: true})
		}
		if former := span.Draft; former != nil {
			for _, kr := range former.ranges() {
				b.DeleteRange(kr[0], kr[1])
			}
		}
		// A replica that a snapshot has brought past an earlier draft has rows of that still.
		for _, kr := range d.ranges() {
			b.DeleteRange(kr[0], kr[1])
		}
		span.Draft = d
	}
	m.respan = true
	if !d.Ready {
		d.Reached = m.draftItems(d, c.Limit, b)
		d.Ready = d.Reached == nil
		return op.Result{More: true}
	}
	m.cut(b)
	return op.Result{Child: c.Child}
}

// draftItems takes the next items into the draft. It returns where to go on, nil behind the last.
func (m *Machine) draftItems(d *draft, limit int, b *storage.Batch) (next table.Key) {
	_, end := m.cfg.records()
	it, err := m.cfg.Store.Iter(keyenc.Record(nil, m.cfg.Table, d.Reached), end)
	if err != nil {
		panic(fmt.Sprintf("partition %d: split: %v", m.cfg.ID, err))
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		key, record := table.Key(slices.Clone(keyenc.RecordKey(it.Key()))), it.Value()
		if n == limit {
			return key
		}
		n++
		r, err := crdt.Decode(record)
		if err != nil {
			panic(fmt.Sprintf("partition %d: record %x: %v", m.cfg.ID, key, err))
		}
		if !r.IsFolded() {
			d.log(key, record, b)
		}
		shown := visible(record)
		d.count(shown, +1)
		m.rows = m.schema.Rows(m.rows[:0], key, nil, shown)
		for i := range m.rows {
			d.countRow(&m.rows[i])
			m.setRow(d.Child, &m.rows[i], b)
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: split: %v", m.cfg.ID, err))
	}
	return nil
}

// cut lets the draft, which has all its items, begin.
func (m *Machine) cut(b *storage.Batch) {
	s, d := &m.state, m.state.Span.Draft
	child := State{
		Applied: ChildApplied, Clock: s.Clock, Seq: d.Seq, Stable: s.Stable, Traced: s.Traced, Items: d.Items, Bytes: d.Bytes, Indexes: d.Indexes,
	}
	if mutant.On(mutant.ChildClockBehind) {
		child.Clock = 0
	}
	meta := func(name string, value []byte) { b.Set(keyenc.Meta(nil, d.Child, name), value) }
	word := func(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
	meta(metaState, child.encode())
	schema, err := json.Marshal(m.schema)
	if err != nil {
		panic(fmt.Sprintf("partition %d: schema: %v", m.cfg.ID, err))
	}
	meta(metaSchema, schema)
	if m.revision > 0 {
		meta(metaRevision, word(m.revision))
	}
	for _, stream := range slices.Sorted(maps.Keys(m.cursors)) {
		meta(metaCursor+stream, word(m.cursors[stream]))
	}
	for _, stream := range slices.Sorted(maps.Keys(m.clocks)) {
		meta(metaClock+stream, word(uint64(m.clocks[stream])))
	}
	for _, stream := range slices.Sorted(maps.Keys(m.shares)) {
		meta(metaShare+stream, word(uint64(m.shares[stream])))
	}
	s.Items, s.Bytes = s.Items-d.Items, s.Bytes-d.Bytes
	rows := false
	for _, x := range d.Indexes {
		if own := s.index(x.ID); own != nil {
			own.Items, own.Bytes = own.Items-x.Items, own.Bytes-x.Bytes
			rows = rows || x.Items > 0
		}
	}
	s.Span = Span{Cut: true, End: d.At, Child: d.Child, Until: m.cfg.End, Prune: rows, Attempt: s.Span.Attempt, Absorbed: s.Span.Absorbed, Gone: s.Span.Gone}
	m.cfg.End = d.At
}

// ChildApplied is the index of the entry that a child has applied when it begins: its log begins behind that.
const ChildApplied = 1

// prune removes index rows that are left of items that were cut off.
func (m *Machine) prune(c *op.Command, b *storage.Batch) op.Result {
	span := &m.state.Span
	if !span.Prune {
		return op.Result{}
	}
	m.respan = true
	prefix := keyenc.Indexes(nil, m.cfg.ID)
	from := prefix
	if span.Pruned != nil {
		from = span.Pruned
	}
	it, err := m.cfg.Store.Iter(from, keyenc.End(prefix))
	if err != nil {
		panic(fmt.Sprintf("partition %d: prune: %v", m.cfg.ID, err))
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n == c.Limit {
			span.Pruned = slices.Clone(it.Key())
			return op.Result{More: true}
		}
		n++
		if !holdsRow(m.schema, &m.cfg, it.Value()) {
			b.Delete(slices.Clone(it.Key()))
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: prune: %v", m.cfg.ID, err))
	}
	span.Prune, span.Pruned = false, nil
	return op.Result{}
}

// holdsRow tells whether an index row is of an item of the partition's.
func holdsRow(s *table.Schema, c *Config, projected []byte) bool {
	key, err := s.KeyOf(projected)
	return err != nil || c.holds(key)
}
