package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// What is left, for a while, of an item that was deleted and folded away: its newest write. Nothing that clients see depends on it. It
// tells copies that are held against each other who is right: an item that one region has and another does not was either lost there, and
// then there is no trace of a delete; or its delete was lost where it still is. Source: docs/decisions/0013.

const traceSize = 12 // clock, actor; big-endian

// leaveTrace notes that an item is gone whose newest write is given.
func (m *Machine) leaveTrace(key table.Key, newest crdt.Dot, b *storage.Batch) {
	if mutant.On(mutant.NoTrace) {
		return
	}
	m.scratch = keyenc.Trace(m.scratch[:0], m.cfg.Table, key)
	trace := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(newest.HLC)), uint32(newest.Actor))
	m.written[string(m.scratch)] = trace
	b.Set(m.scratch, trace)
}

// deleted tells, of another's state of an item of which nothing is held here, whether the item was deleted since, or may have been: what
// held for the whole state when it was compared need not hold any more. Where there is no trace of a later delete, there may have been one
// if traces of that age have gone since. (If they were gone before, then it was known that nothing tells.)
func (m *Machine) deleted(c *op.Command, key table.Key, theirs *crdt.Record) bool {
	if theirs.IsDelta() || theirs.Newest().HLC <= m.state.Traced && c.Stable < m.state.Traced && !mutant.On(mutant.TracesGone) {
		return true
	}
	m.scratch = keyenc.Trace(m.scratch[:0], m.cfg.Table, key)
	trace := m.row(m.scratch)
	if trace == nil || mutant.On(mutant.TraceIgnored) {
		return false
	}
	newest, err := decodeTrace(trace)
	if err != nil {
		panic(fmt.Sprintf("partition %d: trace of %x: %v", m.cfg.ID, key, err))
	}
	return newest.Compare(theirs.Newest()) >= 0
}

// Trace returns the newest write of an item that was deleted and folded away, zero where there is no trace of one.
func Trace(r storage.Reader, tableID uint32, key table.Key) (crdt.Dot, error) {
	b, err := r.Get(nil, keyenc.Trace(nil, tableID, key))
	if errors.Is(err, storage.ErrNotFound) {
		return crdt.Dot{}, nil
	}
	if err != nil {
		return crdt.Dot{}, err
	}
	return decodeTrace(b)
}

func decodeTrace(b []byte) (crdt.Dot, error) {
	if len(b) != traceSize {
		return crdt.Dot{}, fmt.Errorf("partition: a trace of %d bytes", len(b))
	}
	return crdt.Dot{HLC: crdt.HLC(binary.BigEndian.Uint64(b)), Actor: crdt.Actor(binary.BigEndian.Uint32(b[8:]))}, nil
}

// forget lets traces of deletes go that are as old as the command says, from its key on. That others of that age may be missing holds
// from the first step on.
func (m *Machine) forget(c *op.Command, b *storage.Batch) op.Result {
	m.state.Traced = max(m.state.Traced, c.Stable)
	from, to := m.cfg.traces()
	if at := keyenc.Trace(nil, m.cfg.Table, c.Key); bytes.Compare(at, from) > 0 {
		from = at
	}
	it, err := m.cfg.Store.Iter(from, to)
	if err != nil {
		panic(fmt.Sprintf("partition %d: forget: %v", m.cfg.ID, err))
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if n == c.Limit {
			return op.Result{Next: bytes.Clone(keyenc.TraceKey(it.Key()))}
		}
		n++
		newest, err := decodeTrace(it.Value())
		if err != nil {
			panic(fmt.Sprintf("partition %d: forget: %v", m.cfg.ID, err))
		}
		if newest.HLC <= c.Stable {
			m.written[string(it.Key())] = nil
			b.Delete(bytes.Clone(it.Key()))
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: forget: %v", m.cfg.ID, err))
	}
	return op.Result{}
}
