package partition

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Bounds of a partition's conflict records. Beyond the first two the oldest go, some with every fold; beyond twice as much, which
// only a flood between two folds can come to, new ones are not kept. Either way they are counted as shed. Source of the
// age: DESIGN.md §7.
const (
	maxConflicts     = 20_000
	maxConflictBytes = 64 << 20
	maxConflictAge   = 30 * 24 * time.Hour
)

// keep keeps the conflicts whose losing write was acknowledged by this region, in whichever incarnation; the others are kept where
// theirs was.
func (m *Machine) keep(now crdt.HLC, key table.Key, conflicts []crdt.Conflict, b *storage.Batch) {
	for i := range conflicts {
		if conflicts[i].Loser.Dot.Actor.Region() == m.cfg.Actor.Region() && !mutant.On(mutant.ConflictsForgotten) {
			m.note(now, key, conflicts[i], b)
		}
	}
}

// held records writes of another region that are held. Where they were acknowledged nobody knows of it, so it is here that they
// are kept.
func (m *Machine) held(c *op.Command, b *storage.Batch) op.Result {
	var result op.Result
	for i := range c.Deltas {
		d, err := crdt.Decode(c.Deltas[i].State)
		if err != nil {
			result.Err = fmt.Errorf("partition %d: delta of %x: %w", m.cfg.ID, c.Deltas[i].Key, err)
			return result
		}
		found := crdt.Held(m.open(m.load(c.Deltas[i].Key)), d)
		m.note(c.HLC, c.Deltas[i].Key, found, b)
		result.Conflicts = append(result.Conflicts, op.Loss{Class: found.Class, Winner: m.cfg.Actor, Loser: found.Loser.Dot.Actor})
	}
	return result
}

// recall keeps conflict records that a former incarnation had kept, as they were. Doing it twice changes nothing.
func (m *Machine) recall(c *op.Command, b *storage.Batch) op.Result {
	var result op.Result
	for i := range c.Deltas {
		record, err := op.DecodeConflict(c.Deltas[i].State)
		if err != nil {
			panic(fmt.Sprintf("partition %d: conflict record of a former incarnation: %v", m.cfg.ID, err))
		}
		if m.file(record, c.Deltas[i].State, b) {
			result.Applied++
		}
	}
	return result
}

// note keeps what was found, now, of an item.
func (m *Machine) note(now crdt.HLC, key table.Key, found crdt.Conflict, b *storage.Batch) {
	c := op.Conflict{ID: found.ID(key), Key: key, Detected: now, Conflict: found}
	value, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("partition %d: conflict: %v", m.cfg.ID, err)) // plain data only
	}
	m.file(c, value, b)
}

// file puts a conflict record into the batch, if there is room for it, and tells whether it was not there.
func (m *Machine) file(c op.Conflict, value []byte, b *storage.Batch) bool {
	at := keyenc.Conflict(nil, m.cfg.ID, uint64(c.Detected), c.ID[:])
	if m.kept[string(at)] || m.has(at) {
		return false // found twice at one moment
	}
	if m.state.Conflicts >= 2*maxConflicts || m.state.ConflictBytes >= 2*maxConflictBytes {
		m.state.Shed++
		return false
	}
	m.kept[string(at)] = true
	b.Set(at, value)
	m.state.Conflicts++
	m.state.ConflictBytes += uint64(len(value))
	if m.state.Oldest == 0 || c.Detected < m.state.Oldest {
		m.state.Oldest = c.Detected
	}
	return true
}

func (m *Machine) has(key []byte) bool {
	_, err := m.cfg.Store.Get(nil, key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		panic(fmt.Sprintf("partition %d: read %x: %v", m.cfg.ID, key, err))
	}
	return err == nil
}

// Overdue tells whether conflict records have grown too many or, at the time now, too old.
func (s *State) Overdue(now crdt.HLC) bool {
	return s.Conflicts > maxConflicts || s.ConflictBytes > maxConflictBytes || s.Oldest != 0 && s.Oldest < aged(now)
}

func aged(now crdt.HLC) crdt.HLC {
	return crdt.At(max(0, now.Millis()-maxConflictAge.Milliseconds()), 0)
}

// evict takes conflict records away that are too old, or too many, the oldest first, so many at most. The store shows all there
// are: a fold begins a run of its own.
func (m *Machine) evict(now crdt.HLC, limit int, b *storage.Batch) {
	if !m.state.Overdue(now) {
		return
	}
	prefix := keyenc.Conflicts(nil, m.cfg.ID)
	it, err := m.cfg.Store.Iter(prefix, keyenc.End(prefix))
	if err != nil {
		panic(fmt.Sprintf("partition %d: conflicts: %v", m.cfg.ID, err))
	}
	defer it.Close()
	m.state.Oldest = 0
	for ok := it.First(); ok; ok = it.Next() {
		m.state.Oldest = crdt.HLC(keyenc.ConflictTime(it.Key()))
		if limit == 0 || !m.state.Overdue(now) {
			break
		}
		if m.state.Oldest >= aged(now) {
			m.state.Shed++ // there was no room for it; what is too old was kept as long as it was to be
		}
		b.Delete(it.Key())
		m.state.Conflicts--
		m.state.ConflictBytes -= uint64(len(it.Value()))
		m.state.Oldest = 0
		limit--
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: conflicts: %v", m.cfg.ID, err))
	}
}
