package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
)

// merge joins another region's deltas, whole states among them, into the records here. Applying a delta
// twice, or late, changes nothing. The stream's cursor moves in the same batch. To mend is the same with whole states that hold what was
// lost here: what would be a repetition, or folded away, is looked at.
func (m *Machine) merge(c *op.Command, b *storage.Batch) op.Result {
	var result op.Result
	if origin, _, _ := strings.Cut(c.Source.Stream, "/"); len(c.Deltas) > 0 && m.schema.Fenced(origin, c.Source.Incarnation) && !mutant.On(mutant.FencedTaken) {
		result.Err = op.ErrFenced
		return result
	}
	if c.Kind == op.Mend && m.schema.Solo {
		return result // what is deleted alone leaves nothing that would tell, and there is nobody to be equal to
	}
	m.observe(c.Observe)
	defer m.find()()
	for i := range c.Deltas {
		if mutant.On(mutant.MergeSkipsDelta) && i > 0 && i == len(c.Deltas)-1 {
			continue
		}
		d, err := crdt.Decode(c.Deltas[i].State)
		if err != nil {
			// The frame's checksum was right, so the sender is broken or of another version. Nothing of
			// this command has an effect that a replay would not have too.
			result.Err = fmt.Errorf("partition %d: delta of %x: %w", m.cfg.ID, c.Deltas[i].Key, err)
			return result
		}
		m.observe(d.Newest().HLC)
		e := m.load(c.Deltas[i].Key)
		if (e.stored == nil || d.IsDelta()) && d.Stale(m.state.Stable) && (c.Kind != op.Mend || m.deleted(c, e.key, d)) && !mutant.On(mutant.MergeStale) {
			continue // folded away here, or a delta that was here long ago: MERGE.md, "Stable, and folding"
		}
		r := m.open(e)
		if e.old == nil && !d.IsDelta() && !mutant.On(mutant.DeleteNotMet) {
			r = m.decode(e) // what was deleted, and is to be folded away: a state from before that must meet it
		}
		shownKey := func() []byte { return m.keyItem(e.key) }
		var conflicts []crdt.Conflict
		if seen := r.Seen(); !seen.Contains(d.Seen()) {
			conflicts = r.Join(d)
		} else if c.Kind != op.Mend || !r.Mend(d, m.schema.Hash.Name, shownKey) {
			continue // a repetition
		}
		r.ShowKey(m.schema.Hash.Name, shownKey)
		log := c.Deltas[i].State
		if !d.IsDelta() {
			log = log[:recordOverhead] // it is in the record, and would be as much again
		}
		m.commit(e, r.Append(nil), log, remote, b)
		result.Applied++
		for i := range conflicts {
			result.Conflicts = append(result.Conflicts, op.Loss{Class: conflicts[i].Class, Winner: conflicts[i].Winner.Dot.Actor, Loser: conflicts[i].Loser.Dot.Actor})
		}
		m.keep(c.HLC, e.key, conflicts, b)
	}
	m.mark(c.Source, b)
	return result
}

// find has rows looked up by one Finder until what it returns is called.
func (m *Machine) find() (end func()) {
	var err error
	if m.finder, err = m.cfg.Store.Finder(); err != nil {
		panic(fmt.Sprintf("partition %d: %v", m.cfg.ID, err))
	}
	return func() {
		if err := m.finder.Close(); err != nil {
			panic(fmt.Sprintf("partition %d: %v", m.cfg.ID, err))
		}
		m.finder = nil
	}
}

// mark keeps how far a stream has been applied, or a copy of its partition has come.
func (m *Machine) mark(source op.Cursor, b *storage.Batch) {
	if source.Part {
		m.lift(m.shares, metaShare, source, b)
		return
	}
	m.lift(m.clocks, metaClock, source, b)
	if len(source.Place) > 0 {
		m.places[source.Stream] = true
		b.Set(keyenc.Meta(nil, m.cfg.ID, metaPlace+source.Stream), source.Place)
		return
	}
	if source.Stream == "" {
		return
	}
	if m.places[source.Stream] {
		delete(m.places, source.Stream)
		b.Delete(keyenc.Meta(nil, m.cfg.ID, metaPlace+source.Stream))
	}
	m.advance(source.Stream, source.Seq, b)
}

// advance keeps how far a stream has been applied.
func (m *Machine) advance(stream string, seq uint64, b *storage.Batch) {
	if seq > m.cursors[stream] {
		m.cursors[stream] = seq
		if mutant.On(mutant.CursorNotStored) {
			return
		}
		b.Set(keyenc.Meta(nil, m.cfg.ID, metaCursor+stream), binary.BigEndian.AppendUint64(nil, seq))
	}
}

// lift keeps the newest write of a stream.
func (m *Machine) lift(clocks map[string]crdt.HLC, meta string, source op.Cursor, b *storage.Batch) {
	if source.Clock > clocks[source.Stream] {
		clocks[source.Stream] = source.Clock
		b.Set(keyenc.Meta(nil, m.cfg.ID, meta+source.Stream), binary.BigEndian.AppendUint64(nil, uint64(source.Clock)))
	}
}

// Place returns what was noted last of how far a copy of another region's partition has come here, nil for nothing.
func Place(r storage.Reader, partition uint64, stream string) ([]byte, error) {
	b, err := r.Get(nil, keyenc.Meta(nil, partition, metaPlace+stream))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// restore writes the items of a backup as this region's own.
func (m *Machine) restore(c *op.Command, b *storage.Batch) op.Result {
	var result op.Result
	for i := range c.Deltas {
		e := m.load(c.Deltas[i].Key)
		m.write(e, crdt.Write{Origin: crdt.Origin{Op: crdt.Restore}, Item: c.Deltas[i].State}, c, b)
		result.Applied++
	}
	return result
}

// maxAhead is how far ahead of the present the stamps of a former incarnation may be that later ones are stamped above: as far as other regions take
// them at once. Had its clock been further ahead, its followers would wait for this one as they did for that.
const maxAhead = crdt.HLC(500 << 16)

// rebase makes again, as this incarnation's writes, what a former one had written and nobody else has. An item for which that was done has
// a write of this incarnation's: nothing else is written here until all of it is, so doing it twice changes nothing.
func (m *Machine) rebase(c *op.Command, b *storage.Batch) op.Result {
	var result op.Result
	for i := range c.Deltas {
		old, err := crdt.Decode(c.Deltas[i].State)
		if err != nil {
			panic(fmt.Sprintf("partition %d: record %x of a former incarnation: %v", m.cfg.ID, c.Deltas[i].Key, err))
		}
		e := m.load(c.Deltas[i].Key)
		r := m.open(e)
		if r.Seen().Names(m.cfg.Actor) || mutant.On(mutant.NotMadeAgain) {
			continue
		}
		r.Key = m.keyItem(e.key)
		if newest := old.Newest().HLC; newest <= c.HLC+maxAhead || mutant.On(mutant.AheadAgain) {
			m.observe(newest)
		}
		w, conflicts, ok := r.Rebase(crdt.Lost{Record: old, Actor: c.Lost.Actor, After: c.Lost.HLC}, m.state.Stable)
		for j := range conflicts {
			if conflicts[j].Loser.Dot.Actor == c.Lost.Actor {
				m.note(c.HLC, e.key, conflicts[j], b)
			}
		}
		if ok {
			m.write(e, w, c, b)
			result.Applied++
		}
	}
	return result
}

// fold takes a new stable time and walks the change log from where it last stopped: the items whose
// newest write is stable fold, and those deleted by it are gone. It also lets go of the change log's
// entries that nobody needs, and of conflict records that are too many or too old.
func (m *Machine) fold(c *op.Command, b *storage.Batch) op.Result {
	m.state.Stable = max(m.state.Stable, c.Stable)
	it, err := m.cfg.Store.Iter(keyenc.Log(nil, m.cfg.ID, m.state.Folded+1), keyenc.Log(nil, m.cfg.ID, m.state.Seq+1))
	if err != nil {
		panic(fmt.Sprintf("partition %d: fold: %v", m.cfg.ID, err))
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		change, err := DecodeChange(it.Value())
		if err != nil {
			panic(fmt.Sprintf("partition %d: fold: %v", m.cfg.ID, err))
		}
		if crdt.PeekDot(change.Delta).HLC > m.state.Stable || n == c.Limit {
			break
		}
		n++
		m.state.Folded = keyenc.LogSeq(it.Key())
		if change.Local && change.Whole() {
			continue // written folded: see write
		}
		if !m.cfg.holds(change.Key) {
			continue // it was cut off, and is in the other partition's log
		}
		e := m.load(change.Key)
		if e.stored == nil {
			continue
		}
		r, err := crdt.Decode(e.stored)
		if err != nil {
			panic(fmt.Sprintf("partition %d: record %x: %v", m.cfg.ID, e.key, err))
		}
		if r.IsFolded() || r.Newest().HLC > m.state.Stable {
			continue // nothing to do, or a later entry of the log does it
		}
		newest := r.Newest()
		if gone := r.Fold(m.state.Stable); gone {
			m.set(e, nil, b)
			m.leaveTrace(e.key, newest, b)
		} else {
			m.set(e, r.Append(nil), b)
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: fold: %v", m.cfg.ID, err))
	}
	trim := min(c.Trim, m.state.Folded)
	if mutant.On(mutant.TrimUnfolded) {
		trim = c.Trim
	}
	if trim > m.state.Trimmed {
		m.state.Cut = max(m.state.Cut, m.lastWritten(trim))
		b.DeleteRange(keyenc.Log(nil, m.cfg.ID, m.state.Trimmed+1), keyenc.Log(nil, m.cfg.ID, trim+1))
		m.state.Trimmed = trim
	}
	m.evict(c.HLC, c.Limit, b)
	return op.Result{More: n == c.Limit}
}

// lastWritten returns the stamp of the newest write of this region's among the change log's entries up to seq, 0 for none.
func (m *Machine) lastWritten(seq uint64) crdt.HLC {
	it, err := m.cfg.Store.Iter(keyenc.Log(nil, m.cfg.ID, m.state.Trimmed+1), keyenc.Log(nil, m.cfg.ID, seq+1))
	if err != nil {
		panic(fmt.Sprintf("partition %d: fold: %v", m.cfg.ID, err))
	}
	defer it.Close()
	for ok := it.Last(); ok; ok = it.Prev() {
		change, err := DecodeChange(it.Value())
		if err != nil {
			panic(fmt.Sprintf("partition %d: fold: %v", m.cfg.ID, err))
		}
		if change.Local {
			return crdt.PeekDot(change.Delta).HLC
		}
	}
	if err := it.Err(); err != nil {
		panic(fmt.Sprintf("partition %d: fold: %v", m.cfg.ID, err))
	}
	return 0
}
