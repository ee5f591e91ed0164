package partition

import (
	"encoding/binary"
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// entry is one item as a command finds it.
type entry struct {
	key    table.Key
	stored []byte // its record, nil for none
	old    []byte // the visible item, stored form, nil for none
}

func (m *Machine) load(key table.Key) entry {
	e := entry{key: key, stored: m.record(key)}
	e.old = visible(e.stored)
	return e
}

// visible returns the item that a record shows, nil for none.
func visible(stored []byte) []byte {
	if stored == nil {
		return nil
	}
	it, ok, err := crdt.PeekVisible(stored)
	if err != nil {
		panic(fmt.Sprintf("partition: record: %v", err))
	}
	if !ok {
		return nil
	}
	return it
}

// origin says whose write a change-log entry is.
type origin byte

const (
	local  origin = 1 // this region's: shipped to the others
	remote origin = 2 // another region's: never shipped again
)

// commit is the one door to disk: it puts the item's new record (nil: none), the index rows that follow
// from it and the change-log entry with its delta in the batch.
func (m *Machine) commit(e entry, record, delta []byte, from origin, b *storage.Batch) {
	if m.writes++; m.writes%sampleEvery == 0 && len(m.sample) < sampleMost {
		m.sample = append(m.sample, e.key)
	}
	if from == remote && mutant.On(mutant.IndexNotMerged) {
		e.old = visible(record)
	}
	m.set(e, record, b)
	m.state.Seq++
	b.Set(keyenc.Log(m.scratch[:0], m.cfg.ID, m.state.Seq), AppendChange(nil, byte(from), e.key), delta)
}

// set replaces an item's record and brings the index rows and the counts in step with it.
func (m *Machine) set(e entry, record []byte, b *storage.Batch) {
	at := keyenc.Record(m.scratch[:0], m.cfg.Table, e.key)
	m.scratch = at
	m.written[string(at)] = record
	if record == nil {
		b.Delete(at)
	} else {
		b.Set(at, record)
	}
	new := visible(record)
	if beside := len(record) - len(new); beside > largeBeside && beside > len(new)/10 {
		m.large++
	}
	m.count(e.old, -1)
	m.count(new, +1)
	draft := m.draftOf(e.key)
	if draft != nil {
		m.respan = true
		draft.count(e.old, -1)
		draft.count(new, +1)
		draft.log(e.key, record, b)
	}
	if len(m.schema.Indexes) == 0 {
		return
	}
	m.rows = m.schema.Rows(m.rows[:0], e.key, e.old, new)
	for i := range m.rows {
		row := &m.rows[i]
		m.countRow(e.key, row)
		if row.Item == nil && mutant.On(mutant.IndexRowKept) {
			continue
		}
		m.setRow(m.cfg.ID, row, b)
		if draft != nil {
			draft.countRow(row)
			m.setRow(draft.Child, row, b)
		}
	}
}

// setRow writes, or removes, an index row of a partition's.
func (m *Machine) setRow(partition uint64, row *table.Row, b *storage.Batch) {
	m.scratch = keyenc.Index(m.scratch[:0], partition, row.Index, row.Key)
	if row.Item == nil {
		b.Delete(m.scratch)
	} else {
		b.Set(m.scratch, row.Item)
	}
}

func (m *Machine) count(stored []byte, by int64) {
	if stored == nil {
		return
	}
	size, err := item.RawSize(stored)
	if err != nil {
		panic(fmt.Sprintf("partition: stored item: %v", err))
	}
	m.state.Items += by
	m.state.Bytes += by * int64(size)
}

// Change is one entry of the change log.
type Change struct {
	Local bool      // written in this region
	Key   table.Key // of the item
	Delta []byte    // a crdt.Record's encoding; of Whole ones its dot only
}

// Whole tells whether what was written is in the record, and the log has no more of it than its dot: it was written by a region alone, or
// came as a whole state.
func (c *Change) Whole() bool { return len(c.Delta) == recordOverhead }

// AppendChange appends what stands before the delta in a change-log entry:
//
//	origin (1: this region's, 2: another's), length of the key (uvarint), key, delta to the end
func AppendChange(dst []byte, from byte, key table.Key) []byte {
	dst = binary.AppendUvarint(append(dst, from), uint64(len(key)))
	return append(dst, key...)
}

// DecodeChange reads a change-log entry. Its slices alias b.
func DecodeChange(b []byte) (Change, error) {
	if len(b) == 0 || b[0] != byte(local) && b[0] != byte(remote) {
		return Change{}, fmt.Errorf("partition: not a change-log entry: %.20x", b)
	}
	key, delta, err := item.CutBytes(b[1:])
	return Change{Local: b[0] == byte(local), Key: key, Delta: delta}, err
}
