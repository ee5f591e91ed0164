package region

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Held is what a region holds of an item.
type Held struct {
	Record []byte // nil for none; then
	// Deleted is its newest write, if it was deleted and folded away and there is a trace of that. There is one of every delete later than Traced.
	Deleted crdt.Dot
	Traced  crdt.HLC
	// Stable: nothing newer has been folded away.
	Stable crdt.HLC
}

// Get returns what is held of an item. The caller keeps it.
func (s *Snapshot) Get(key table.Key) (Held, error) {
	h := Held{Stable: s.State.Stable, Traced: s.State.Traced}
	stored, err := s.snap.Get(nil, keyenc.Record(nil, s.tableID, key))
	if !errors.Is(err, storage.ErrNotFound) {
		h.Record = stored
		return h, err
	}
	h.Deleted, err = partition.Trace(s.snap, s.tableID, key)
	return h, err
}

// Shown is what another region is told of the item: its record, or of a deleted one that it was deleted; nil where nothing is known of it.
func (h *Held) Shown() []byte {
	if h.Record == nil && !h.Deleted.IsZero() {
		return crdt.AppendDeleted(nil, h.Deleted)
	}
	return h.Record
}

// Difference is what a region that has applied all that another has falls short of the other's state of an item.
type Difference int

const (
	// Same: nothing. Merged, the other's state would change nothing that is shown.
	Same Difference = iota
	// Behind: writes. Merging the other's state brings them.
	Behind
	// Gone: the item is not held here, and the other's is from before what has been folded away here, of so long ago that no trace of it
	// need be left. Whether it was lost here, or its delete was lost there, nobody can tell; merging does nothing.
	Gone
	// Unlike: each has seen the same writes, they show something else, and so would both merged. Which is right the merge cannot tell.
	Unlike
)

// Compare tells what a copy of an item falls short of what another region tells of it, given that all writes which that one has seen have
// been applied here.
func Compare(s *table.Schema, key table.Key, own Held, theirs []byte) (Difference, error) {
	if theirs == nil || bytes.Equal(own.Record, theirs) {
		return Same, nil
	}
	other, err := crdt.Decode(theirs)
	if err != nil {
		return 0, fmt.Errorf("region: another's record of %x: %w", key, err)
	}
	if other.IsDelta() {
		return 0, fmt.Errorf("region: another's record of %x: %w", key, crdt.ErrEncoding)
	}
	otherShown, otherThere := other.Visible()
	if own.Record == nil {
		switch newest := other.Newest(); {
		case !otherThere:
			return Same, nil
		case newest.Compare(own.Deleted) <= 0:
			return Same, nil // it was deleted, which the other lacks
		case other.Stale(own.Stable) && newest.HLC <= own.Traced:
			return Gone, nil
		}
		return Behind, nil
	}
	r, err := crdt.Decode(own.Record)
	if err != nil {
		return 0, fmt.Errorf("region: record of %x: %w", key, err)
	}
	shown, there := r.Visible()
	alike := there == otherThere && bytes.Equal(shown, otherShown)
	newest := r.Newest()
	has, given := r.Seen().Contains(other.Seen()), other.Seen().Contains(r.Seen())
	switch {
	case alike && newest == other.Newest(), has && !given, !there && !otherThere:
		return Same, nil
	case has:
		return unequal(s, key, r, other)
	}
	forgetful := other.Newest().Compare(newest) <= 0 && other.Seen().Floor().Compare(r.Seen().Floor()) > 0
	r.Join(other)
	shownKey, err := s.KeyItem(key)
	if err != nil {
		return 0, fmt.Errorf("region: key %x: %w", key, err)
	}
	r.ShowKey(s.Hash.Name, func() []byte { return shownKey })
	joined, still := r.Visible()
	switch {
	case still == there && bytes.Equal(joined, shown) && (r.Newest() == newest || !there):
		return Same, nil
	case forgetful:
		// The other has folded, and no longer knows which older writes it had seen: it may be the one that lacks some.
		return Unlike, nil
	}
	return Behind, nil
}

// unequal tells what a record falls short of another that has seen the same writes and shows something else.
func unequal(s *table.Schema, key table.Key, own, other *crdt.Record) (Difference, error) {
	shownKey, err := s.KeyItem(key)
	if err != nil {
		return 0, fmt.Errorf("region: key %x: %w", key, err)
	}
	of := func() []byte { return shownKey }
	here, there := *own, *other
	mended := here.Mend(other, s.Hash.Name, of)
	there.Mend(own, s.Hash.Name, of)
	a, isA := here.Visible()
	b, isB := there.Visible()
	switch {
	case isA != isB || !bytes.Equal(a, b):
		return Unlike, nil
	case mended:
		return Behind, nil
	}
	return Same, nil // it is the other that lacks something
}
