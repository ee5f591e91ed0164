package storage

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Finder looks up many rows of the store as it was when the Finder was made. It asks the filters of every level first, so a row that is
// not there costs no read of a block, as it would by Get; rows that are asked for in the order of their keys share the way to them. It
// belongs to one goroutine.
type Finder struct {
	s  *Store
	it *pebble.Iterator
}

// Finder is Reader's.
func (s *Store) Finder() (*Finder, error) { return s.newFinder(s.db) }

// Finder is Reader's.
func (s *Snapshot) Finder() (*Finder, error) { return s.s.newFinder(s.snap) }

func (s *Store) newFinder(r pebble.Reader) (*Finder, error) {
	it, err := r.NewIterWithContext(context.Background(), &pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, fmt.Errorf("storage: find: %w", err)
	}
	return &Finder{s: s, it: it}, nil
}

// Get is Reader's.
func (f *Finder) Get(dst, key []byte) ([]byte, error) {
	if !f.it.SeekPrefixGE(key) { // a key is its own prefix
		if err := f.it.Error(); err != nil {
			return nil, fmt.Errorf("storage: get %x: %w", key, typed(err))
		}
		return nil, ErrNotFound
	}
	raw, err := f.it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("storage: get %x: %w", key, typed(err))
	}
	value, err := check(key, raw)
	if err != nil {
		f.s.found(err)
		return dst, err
	}
	return append(dst, value...), nil
}

// Close lets go of what the Finder holds.
func (f *Finder) Close() error { return typed(f.it.Close()) }
