package partition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// A partition that is empty is taken in by its left neighbour, in an entry of each one's log. Close has the empty one end where it begins: it
// holds no key, so whatever else it is told is refused as of another. Once that is so at every replica, and cannot be forgotten, Absorb moves the
// end of the left one to where the other had ended. Until then Reopen takes Close back. Source: docs/decisions/0029.
//
// Each of them is of an attempt, whose number rises: what arrives late of one that was given up has no effect.

// given is what the left neighbour is to know of a partition that was closed.
type given struct {
	End                   table.Key
	Clock, Stable, Traced crdt.HLC
	Shed                  uint64
	Cursors               map[string]uint64
	Clocks, Shares        map[string]crdt.HLC
}

// close has an empty partition hold nothing. It may be repeated, and gives the same again.
func (m *Machine) close(c *op.Command) op.Result {
	span := &m.state.Span
	switch {
	case span.Closed && span.Attempt == c.Attempt:
		return op.Result{Given: m.given()}
	case span.Closed || c.Attempt <= span.Attempt && !mutant.On(mutant.ClosedLate):
		return op.Result{Err: op.ErrLate}
	case len(m.cfg.Start) == 0:
		return op.Result{Err: op.ErrMoved} // nobody is to its left
	case span.Draft != nil || span.Prune || slices.ContainsFunc(m.state.Indexes, func(x IndexState) bool { return !x.Filled }):
		return op.Result{Err: op.ErrBusy}
	case m.state.Items > 0 || m.state.Conflicts > 0 || m.state.Folded < m.state.Seq || m.owes() || m.keeps():
		return op.Result{Err: op.ErrNotEmpty}
	}
	*span = Span{Cut: true, End: slices.Clone(m.cfg.Start), Closed: true, Was: m.cfg.End, Attempt: c.Attempt, Absorbed: span.Absorbed, Gone: span.Gone}
	m.cfg.End, m.respan = span.End, true
	return op.Result{Given: m.given()}
}

// owes is Owes of the machine.
func (m *Machine) owes() bool {
	owes, err := Owes(m.cfg.Store, m.cfg.ID, &m.state)
	if err != nil {
		panic(fmt.Sprintf("partition %d: close: %v", m.cfg.ID, err))
	}
	return owes && !mutant.On(mutant.ClosedUntrimmed)
}

// Owes tells whether a partition's change log still has changes of this region's own: some region may not have had them. What others have made is
// kept as long as followers have not said that they have passed over it, which they need not.
func Owes(r storage.Reader, id uint64, s *State) (bool, error) {
	it, err := r.Iter(keyenc.Log(nil, id, s.Trimmed+1), keyenc.Log(nil, id, s.Seq+1))
	if err != nil {
		return false, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if change, err := DecodeChange(it.Value()); err != nil || change.Local {
			return err == nil, err
		}
	}
	return false, it.Err()
}

// keeps tells whether there are records, or traces of items that were deleted.
func (m *Machine) keeps() bool {
	for _, rows := range []func() (from, to []byte){m.cfg.records, m.cfg.traces} {
		it, err := m.cfg.Store.Iter(rows())
		if err != nil {
			panic(fmt.Sprintf("partition %d: close: %v", m.cfg.ID, err))
		}
		some := it.First()
		if err := it.Close(); err != nil {
			panic(fmt.Sprintf("partition %d: close: %v", m.cfg.ID, err))
		}
		if some {
			return true
		}
	}
	return false
}

func (m *Machine) given() []byte {
	s := &m.state
	b, err := json.Marshal(given{s.Span.Was, s.Clock, s.Stable, s.Traced, s.Shed, m.cursors, m.clocks, m.shares})
	if err != nil {
		panic(fmt.Sprintf("partition %d: close: %v", m.cfg.ID, err)) // plain data only
	}
	return b
}

// reopen has a partition hold what it held before it was closed, and refuse to be closed by an attempt as old.
func (m *Machine) reopen(c *op.Command) op.Result {
	span := &m.state.Span
	if c.Attempt < span.Attempt {
		return op.Result{Err: op.ErrLate}
	}
	span.Attempt, m.respan = c.Attempt, true
	if span.Closed {
		if !mutant.On(mutant.EndNotRestored) {
			span.End = span.Was
		}
		span.Closed, span.Was = false, nil
		m.cfg.End = span.End
	}
	return op.Result{}
}

// absorb takes in the range of the right neighbour, which was closed.
func (m *Machine) absorb(c *op.Command, b *storage.Batch) op.Result {
	var of given
	span := &m.state.Span
	switch {
	case c.Attempt <= span.Absorbed:
		return op.Result{} // it was done before
	case span.Draft != nil || span.Prune: // rows that are left of items which were there would be taken for others'
		return op.Result{Err: op.ErrBusy}
	case !bytes.Equal(m.cfg.End, c.Key):
		return op.Result{Err: op.ErrMoved}
	}
	if err := json.Unmarshal(c.Value, &of); err != nil {
		return op.Result{Err: fmt.Errorf("partition %d: absorb: %w", m.cfg.ID, err)}
	}
	// There is nothing; but a node may have rows of a replica that was let go of before it was closed.
	right := Config{Table: m.cfg.Table, Start: c.Key, End: of.End}
	for _, rows := range []func() (from, to []byte){right.records, right.traces} {
		b.DeleteRange(rows())
	}
	s := &m.state
	s.Clock, s.Stable, s.Traced, s.Shed = max(s.Clock, of.Clock), max(s.Stable, of.Stable), max(s.Traced, of.Traced), s.Shed+of.Shed
	for _, stream := range slices.Sorted(maps.Keys(of.Cursors)) {
		m.advance(stream, of.Cursors[stream], b)
	}
	for _, stream := range slices.Sorted(maps.Keys(of.Clocks)) {
		m.lift(m.clocks, metaClock, op.Cursor{Stream: stream, Clock: of.Clocks[stream]}, b)
	}
	for _, stream := range slices.Sorted(maps.Keys(of.Shares)) {
		m.lift(m.shares, metaShare, op.Cursor{Stream: stream, Clock: of.Shares[stream]}, b)
	}
	span.Cut, span.End, span.Child, span.Until, span.Absorbed, span.Gone = true, of.End, 0, nil, c.Attempt, c.Child
	m.cfg.End, m.respan = of.End, true
	return op.Result{}
}
