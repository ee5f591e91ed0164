package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"maps"
	"slices"
)

// scrubChunk is how many bytes Scrub reads between two calls of pace.
const scrubChunk = 256 << 10

// Scrub reads back everything that is on disk and in force: the witness, the MANIFEST, each table byte by
// byte against the witness, and then every value against its own checksum. The files are read past the
// block cache; the values go through it, which holds on to what is read more than once.
//
// pace is called behind each chunk with its size in bytes; it may wait, and its error ends the pass. What is
// written while the pass runs may or may not be read by it. Scrub returns how much it has read, and a
// *CorruptionError for the first damage that it finds.
func (s *Store) Scrub(ctx context.Context, pace func(bytes int) error) (read int64, err error) {
	each := func(n int) error {
		read += int64(n)
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return pace(n)
	}
	if err := s.witness.scrub(each); err != nil {
		return read, fmt.Errorf("storage: scrub: %w", err)
	}
	if err := s.scrubTables(each); err != nil {
		return read, fmt.Errorf("storage: scrub: %w", err)
	}
	if err := s.scrubValues(each); err != nil {
		return read, fmt.Errorf("storage: scrub: %w", err)
	}
	return read, nil
}

// scrub reads WITNESS and the MANIFEST that is in force.
func (w *witness) scrub(each func(int) error) error {
	w.mu.Lock()
	saved, now := w.saved, w.now
	var err error
	if saved.number != 0 {
		err = scrubFile(w, witnessName, saved, func(int) error { return nil })
	}
	w.mu.Unlock()
	if err != nil || saved.number == 0 {
		return err
	}
	if err := each(int(saved.length)); err != nil {
		return err
	}
	if err := w.checkManifest(now); err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.now.number != now.number {
			return nil // another one came into force, and this one went
		}
		return err
	}
	return each(int(now.length))
}

func (s *Store) scrubTables(each func(int) error) error {
	live, err := liveTables(s.db)
	if err != nil {
		return err
	}
	for _, number := range slices.Sorted(maps.Keys(live)) {
		want, ok := s.witness.table(number)
		if !ok {
			continue // compacted away since
		}
		if err := scrubFile(s.witness, tableName(number), want, each); err != nil {
			if _, ok := s.witness.table(number); !ok {
				continue
			}
			return err
		}
	}
	return nil
}

// table returns what the witness says of a table; ok is false for one that is gone.
func (w *witness) table(number uint64) (t fileSum, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok = w.tables[number]
	return t, ok
}

// scrubFile compares a whole file with what the witness says of it.
func scrubFile(w *witness, name string, want fileSum, each func(int) error) error {
	f, err := w.FS.Open(w.path(name))
	if errors.Is(err, iofs.ErrNotExist) {
		return &CorruptionError{File: name, Reason: "it is missing"}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var length int64
	var sum uint32
	for buf := make([]byte, min(want.length+1, scrubChunk)); ; {
		n, err := f.ReadAt(buf, length)
		length += int64(n)
		sum = crc32.Update(sum, castagnoli, buf[:n])
		if n > 0 {
			if err := each(n); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	switch {
	case length != want.length:
		return &CorruptionError{File: name, Reason: fmt.Sprintf("it has %d bytes; %d were written", length, want.length)}
	case sum != want.sum:
		return &CorruptionError{File: name, Reason: "checksum mismatch"}
	}
	return nil
}

// scrubValues reads every value, with a new iterator for each chunk: one that stays open holds on to files.
func (s *Store) scrubValues(each func(int) error) error {
	var from []byte
	for {
		it, err := s.DurableIter(from, nil)
		if err != nil {
			return err
		}
		n := 0
		ok := it.First()
		for ; ok && n < scrubChunk; ok = it.Next() {
			n += len(it.Key()) + len(it.Value())
			from = append(append(from[:0], it.Key()...), 0)
		}
		if err := it.Close(); err != nil {
			return err
		}
		if n > 0 {
			if err := each(n); err != nil {
				return err
			}
		}
		if !ok {
			return nil
		}
	}
}
