// Package storage keeps bytes on disk: one store for the state of every partition of a node, on Pebble
// over a vfs.FS. Records, index rows, change-log entries and applied indexes of one step go to it in one
// atomic batch.
//
// It leaves what a write means to package region/partition, where rows stand to storage/keyenc, and
// durability to storage/raftlog: Pebble's own WAL is off, so a committed batch is durable only from the
// next flush on; what came after is replayed from the Raft log (DESIGN.md §8).
//
// Invariants: batches become visible and are flushed in the order of their commits; every value carries
// a CRC-32C of its key and itself, checked on every read; what a flush made durable is there at the next
// Open, or Open says that it is not.
package storage

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Options say where a store is and how much memory it may take. Zero values mean the defaults.
type Options struct {
	FS         vfs.FS
	Dir        string
	CacheBytes int64 // block cache; default 256 MiB
	// MemTableBytes is the size at which state is flushed; default 64 MiB. The Raft log is kept, and
	// replayed after a crash, from the last flush on.
	MemTableBytes uint64
	// ImportTableBytes is about how large a table of an Import becomes; default 32 MiB.
	ImportTableBytes int64
	// NoBackground leaves compaction to Compact, for simulation.
	NoBackground bool
	Logger       *slog.Logger
	// Flushed is called, if set, after each flush, from a goroutine of Pebble's: it must not block. With NoBackground
	// it is called by Flush itself.
	Flushed func()
	// Corrupt is called, if set, when a value is not what was written, from whatever goroutine reads it. The reader gets the error, too.
	Corrupt func(error)
	// Fatal is called when the store can no longer be trusted: a failed write or sync, or corruption.
	// Default: panic.
	Fatal func(error)
}

// ErrNotFound says that a key has no value.
var ErrNotFound = errors.New("storage: not found")

// CorruptionError says that stored bytes are not what was written: a file's, or a value's when File is "".
type CorruptionError struct {
	File   string // name within the store's directory
	Key    []byte // nil where no one key is at fault
	Reason string
}

func (e *CorruptionError) Error() string {
	switch {
	case e.File != "":
		return fmt.Sprintf("storage: corrupt file %s: %s", e.File, e.Reason)
	case e.Key == nil:
		return fmt.Sprintf("storage: corrupt: %s", e.Reason)
	}
	return fmt.Sprintf("storage: corrupt value at key %x: %s", e.Key, e.Reason)
}

// Store is a node's state on disk. Its methods are safe for concurrent use.
type Store struct {
	db      *pebble.DB
	witness *witness
	flushed func() // called by Flush; nil when Pebble calls it

	corrupt func(error)

	tableOptions     *pebble.Options // of tables that an Import writes
	importTableBytes int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumSize = 4

// Open opens the store, making it where there is none. It returns a *CorruptionError, and has changed nothing,
// when Pebble's own files are not all there as they were (witness.go).
func Open(o Options) (*Store, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 256 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	w, err := openWitness(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	loaded := maps.Clone(w.tables)
	cache := pebble.NewCache(o.CacheBytes)
	defer cache.Unref()
	logger := pebbleLogger{o.Logger, o.Fatal}
	stop := 24
	if o.NoBackground {
		stop = 1 << 20 // nothing would ever end the wait
	}
	opts := &pebble.Options{
		FS:                          w,
		Cache:                       cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       stop,
		MaxOpenFiles:                512,
		DisableAutomaticCompactions: o.NoBackground,
		Logger:                      logger,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { o.Logger.Error("storage: background work failed", "err", err) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				o.Fatal(&CorruptionError{File: o.FS.PathBase(info.Path), Reason: info.Details.Error()})
			},
			FlushEnd: func(info pebble.FlushInfo) {
				if info.Err == nil && info.Done && o.Flushed != nil && !o.NoBackground {
					o.Flushed()
				}
			},
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	// Of flushing and compacting, compressing was most: this takes half the time of the default, and no more room.
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	db, err := pebble.Open(o.Dir, opts)
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", o.Dir, err)
	}
	err = w.checkTables(db, loaded)
	if err == nil {
		// Pebble syncs the name of a directory that it makes; one that was killed before it could left that to us.
		err = syncDir(o.FS, o.FS.PathDir(o.Dir))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	opts.EnsureDefaults()
	s := &Store{db: db, witness: w, corrupt: o.Corrupt, tableOptions: opts, importTableBytes: cmp.Or(o.ImportTableBytes, importTableBytes)}
	if o.NoBackground {
		s.flushed = o.Flushed
	}
	return s, nil
}

// Close flushes, so that the next start has nothing to replay, and closes.
func (s *Store) Close() error {
	err := s.db.Flush()
	return errors.Join(err, s.db.Close())
}

// CloseWithoutFlush closes as a crash would leave things, for tests of replay.
func (s *Store) CloseWithoutFlush() error { return s.db.Close() }

// Flush makes everything committed so far durable.
func (s *Store) Flush() error {
	err := s.db.Flush()
	if err == nil && s.flushed != nil {
		s.flushed()
	}
	return err
}

// Compact rewrites all of the state into as few files as it needs.
func (s *Store) Compact() error {
	return s.db.Compact(context.Background(), []byte{0}, bytes.Repeat([]byte{0xFF}, 8), false)
}

// Reader is what can be read from: the store as it is now, or a Snapshot.
type Reader interface {
	// Get returns a copy of the key's value appended to dst, or ErrNotFound, or a CorruptionError.
	Get(dst, key []byte) ([]byte, error)
	// Iter walks keys in [lower, upper). The caller closes it.
	Iter(lower, upper []byte) (*Iter, error)
	// Finder is Get for many keys. The caller closes it.
	Finder() (*Finder, error)
}

// Get is Reader's.
func (s *Store) Get(dst, key []byte) ([]byte, error) { return s.get(s.db, dst, key) }

// Iter is Reader's.
func (s *Store) Iter(lower, upper []byte) (*Iter, error) {
	return s.newIter(s.db, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
}

// DurableIter is Iter over what has been flushed only: what a crash right now would leave.
func (s *Store) DurableIter(lower, upper []byte) (*Iter, error) {
	return s.newIter(s.db, &pebble.IterOptions{LowerBound: lower, UpperBound: upper, OnlyReadGuaranteedDurable: true})
}

// Snapshot is the store as it was at one moment. It holds space until closed.
type Snapshot struct {
	s    *Store
	snap *pebble.Snapshot
}

// Snapshot pins the present.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{s, s.db.NewSnapshot()} }

// Get is Reader's.
func (s *Snapshot) Get(dst, key []byte) ([]byte, error) { return s.s.get(s.snap, dst, key) }

// Iter is Reader's.
func (s *Snapshot) Iter(lower, upper []byte) (*Iter, error) {
	return s.s.newIter(s.snap, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
}

// Close lets the snapshot go.
func (s *Snapshot) Close() error { return s.snap.Close() }

func (s *Store) get(r pebble.Reader, dst, key []byte) ([]byte, error) {
	raw, closer, err := r.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, ErrNotFound
		}
		return nil, fmt.Errorf("storage: get %x: %w", key, typed(err))
	}
	value, err := check(key, raw)
	if err != nil {
		s.found(err)
	} else {
		dst = append(dst, value...)
	}
	closer.Close()
	return dst, err
}

// found tells of a value that is not what was written.
func (s *Store) found(err error) {
	if s.corrupt != nil {
		s.corrupt(err)
	}
}

// typed makes a *CorruptionError of Pebble's word for one.
func typed(err error) error {
	var corrupt *CorruptionError
	if err == nil || errors.As(err, &corrupt) || !pebble.IsCorruptionError(err) {
		return err
	}
	return &CorruptionError{Reason: err.Error()}
}

func sum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

func check(key, raw []byte) ([]byte, error) {
	n := len(raw) - sumSize
	if n < 0 {
		return nil, &CorruptionError{Key: append([]byte(nil), key...), Reason: "too short"}
	}
	if sum(key, raw[:n]) != binary.LittleEndian.Uint32(raw[n:]) && !mutant.On(mutant.ValueSumIgnored) {
		return nil, &CorruptionError{Key: append([]byte(nil), key...), Reason: "checksum mismatch"}
	}
	return raw[:n:n], nil
}

// Batch gathers what one step writes. It is reused with Reset and belongs to one goroutine.
type Batch struct {
	db *pebble.DB
	b  *pebble.Batch
	n  int
}

// NewBatch returns an empty batch.
func (s *Store) NewBatch() *Batch { return &Batch{db: s.db, b: s.db.NewBatch()} }

// Set gives the key a value made of parts, one behind the other. Nothing is retained.
func (b *Batch) Set(key []byte, parts ...[]byte) {
	size := sumSize
	crc := crc32.Checksum(key, castagnoli)
	for _, p := range parts {
		size += len(p)
		crc = crc32.Update(crc, castagnoli, p)
	}
	op := b.b.SetDeferred(len(key), size)
	copy(op.Key, key)
	at := 0
	for _, p := range parts {
		at += copy(op.Value[at:], p)
	}
	binary.LittleEndian.PutUint32(op.Value[at:], crc)
	if err := op.Finish(); err != nil {
		panic(fmt.Sprintf("storage: batch: %v", err)) // only a misuse of Pebble's batch can fail here
	}
	b.n++
}

// Delete removes the key.
func (b *Batch) Delete(key []byte) {
	op := b.b.DeleteDeferred(len(key))
	copy(op.Key, key)
	if err := op.Finish(); err != nil {
		panic(fmt.Sprintf("storage: batch: %v", err))
	}
	b.n++
}

// DeleteRange removes every key in [from, to).
func (b *Batch) DeleteRange(from, to []byte) {
	if err := b.b.DeleteRange(from, to, nil); err != nil {
		panic(fmt.Sprintf("storage: batch: %v", err))
	}
	b.n++
}

// Empty tells whether nothing has been put in.
func (b *Batch) Empty() bool { return b.n == 0 }

// Size is how many bytes the batch holds.
func (b *Batch) Size() int { return b.b.Len() }

// Reset empties the batch for use again.
func (b *Batch) Reset() {
	b.b.Reset()
	b.n = 0
}

// Commit makes the batch visible, all of it at once. It is not durable yet; see the package comment.
func (s *Store) Commit(b *Batch) error {
	if err := b.b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("storage: commit: %w", err)
	}
	b.b.Close()
	b.b, b.n = s.db.NewBatch(), 0
	return nil
}

// Iter walks keys in order. Key and Value are good until the next move.
type Iter struct {
	s     *Store
	it    *pebble.Iterator
	paged *paged // nil: it walks the store
	value []byte
	err   error
}

func (s *Store) newIter(r pebble.Reader, o *pebble.IterOptions) (*Iter, error) {
	it, err := r.NewIterWithContext(context.Background(), o)
	if err != nil {
		return nil, fmt.Errorf("storage: iterate: %w", err)
	}
	return &Iter{s: s, it: it}, nil
}

// First moves to the first key; Last to the last; SeekGE to the first at or behind key; SeekLT to the
// last before it. Each tells whether there is one whose value could be read; Err says why not.
func (i *Iter) First() bool {
	if i.paged != nil {
		return i.page(i.paged.seekGE(i.paged.lower))
	}
	return i.at(i.it.First())
}

// Last moves to the last key.
func (i *Iter) Last() bool {
	if i.paged != nil {
		return i.page(i.paged.seekLT(i.paged.upper))
	}
	return i.at(i.it.Last())
}

// SeekGE moves to the first key >= key.
func (i *Iter) SeekGE(key []byte) bool {
	if i.paged != nil {
		return i.page(i.paged.seekGE(key))
	}
	return i.at(i.it.SeekGE(key))
}

// SeekLT moves to the last key < key.
func (i *Iter) SeekLT(key []byte) bool {
	if i.paged != nil {
		return i.page(i.paged.seekLT(key))
	}
	return i.at(i.it.SeekLT(key))
}

// Next moves to the following key.
func (i *Iter) Next() bool {
	if i.paged != nil {
		return i.page(i.paged.step(false))
	}
	return i.at(i.it.Next())
}

// Prev moves to the key before.
func (i *Iter) Prev() bool {
	if i.paged != nil {
		return i.page(i.paged.step(true))
	}
	return i.at(i.it.Prev())
}

func (i *Iter) at(valid bool) bool {
	if !valid || i.err != nil {
		if i.err == nil {
			i.err = typed(i.it.Error())
		}
		return false
	}
	raw, err := i.it.ValueAndErr()
	if err != nil {
		i.err = typed(err)
		return false
	}
	if i.value, i.err = check(i.it.Key(), raw); i.err != nil {
		i.s.found(i.err)
	}
	return i.err == nil
}

// Key returns the key stood on.
func (i *Iter) Key() []byte {
	if i.paged != nil {
		return i.paged.rows[i.paged.at].Key
	}
	return i.it.Key()
}

// Value returns the value stood on.
func (i *Iter) Value() []byte { return i.value }

// Err returns what stopped the walk, nil when it was the end.
func (i *Iter) Err() error { return i.err }

// Close ends the walk and returns Err.
func (i *Iter) Close() error {
	if i.paged != nil {
		return i.err
	}
	return errors.Join(i.err, typed(i.it.Close()))
}

var _ io.Closer = (*Iter)(nil)

// Metrics are sizes for people and dashboards.
type Metrics struct {
	DiskBytes     uint64
	MemTableBytes uint64
	CacheBytes    int64
	Compactions   int64
	Flushes       int64
}

// Metrics returns the sizes now.
func (s *Store) Metrics() Metrics {
	m := s.db.Metrics()
	return Metrics{
		DiskBytes: m.DiskSpaceUsage(), MemTableBytes: m.MemTable.Size, CacheBytes: m.BlockCache.Size,
		Compactions: m.Compact.Count, Flushes: m.Flush.Count,
	}
}

// EstimateBytes returns about how many bytes on disk the range [from, to) takes.
func (s *Store) EstimateBytes(from, to []byte) uint64 {
	n, err := s.db.EstimateDiskUsage(from, to)
	if err != nil {
		return 0
	}
	return n
}

type pebbleLogger struct {
	l     *slog.Logger
	fatal func(error)
}

func (p pebbleLogger) Infof(format string, args ...any) {
	p.l.Debug(fmt.Sprintf("pebble: "+format, args...))
}
func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.Error(fmt.Sprintf("pebble: "+format, args...))
}
func (p pebbleLogger) Fatalf(format string, args ...any) {
	p.fatal(fmt.Errorf("storage: pebble: "+format, args...))
}
