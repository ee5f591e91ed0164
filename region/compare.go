package region

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Get returns an item's record, nil where none is held. The caller keeps it.
func (s *Snapshot) Get(key table.Key) ([]byte, error) {
	stored, err := s.snap.Get(nil, keyenc.Record(nil, s.tableID, key))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	return stored, err
}

// Difference is what a region that has applied all that another has falls short of the other's state of an item.
type Difference int

const (
	// Same: nothing. Merged, the other's state would change nothing that is shown.
	Same Difference = iota
	// Behind: writes. Merging the other's state brings them.
	Behind
	// Gone: the item is not held here, and the other's is from before what has been folded away here. Whether it was lost
	// here, or its delete was lost there, nobody can tell; merging does nothing.
	Gone
	// Unlike: each has seen the same writes, and they show something else. Which is right the merge cannot tell.
	Unlike
)

// Compare tells what a copy of an item falls short of another region's, given that all writes which that one has seen have been
// applied here, and that nothing newer than stable has been folded away here. own is nil where nothing is held.
func Compare(s *table.Schema, key table.Key, own, theirs []byte, stable crdt.HLC) (Difference, error) {
	if theirs == nil || bytes.Equal(own, theirs) {
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
	if own == nil {
		switch {
		case !otherThere:
			return Same, nil
		case other.Stale(stable):
			return Gone, nil
		}
		return Behind, nil
	}
	r, err := crdt.Decode(own)
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
		return Unlike, nil
	}
	forgetful := other.Newest().Compare(newest) <= 0 && other.Seen().Floor().Compare(r.Seen().Floor()) > 0
	r.Join(other)
	r.ShowKey(s.Hash.Name, func() []byte {
		item, e := s.KeyItem(key)
		err = errors.Join(err, e)
		return item
	})
	joined, still := r.Visible()
	switch {
	case err != nil:
		return 0, err
	case still == there && bytes.Equal(joined, shown) && (r.Newest() == newest || !there):
		return Same, nil
	case forgetful:
		// The other has folded, and no longer knows which older writes it had seen: it may be the one that lacks some.
		return Unlike, nil
	}
	return Behind, nil
}
