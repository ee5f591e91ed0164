package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"slices"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/internal/mutant"
)

// An Import gathers rows beside the store, in tables of their own, and then puts them in the place of what the store has in some ranges: all at
// once, and without reading or writing them again. What has been gathered survives a crash up to the last table that was completed.
//
// It stands in a directory, <store>/incoming/<name>:
//
//	rows-N   tables, from 1 on, of one range each. A table deletes all that was in the part of the range that it covers, and then holds the
//	         rows that are there from now on. The tables cover the ranges without a gap.
//	HAVE     which tables are complete, and how far they come: haveFile in JSON, and its CRC-32C behind it (4 bytes, big-endian). It is
//	         replaced whole (HAVE.tmp, sync, rename, sync of the directory) behind each table.
type Import struct {
	s      *Store
	name   string
	ranges [][2][]byte

	have haveFile
	last []byte // key of the last row added, durable or not; nil for none
	// Of the table being written:
	w        *sstable.Writer // nil: there is none
	file     *importFile
	from     []byte // where it begins to cover its range
	complete bool

	passing bool // HAVE is not written
}

// haveFile is what HAVE holds.
type haveFile struct {
	Tables  []importTable
	Last    []byte // key of the last row in them, nil for none
	Range   int    // the range that comes next, or is being covered
	Covered []byte // up to where it is covered; nil: not begun
	Whole   bool   // all ranges are covered
}

type importTable struct {
	Number int
	Length int64
	Sum    uint32
}

const (
	incomingDir   = "incoming"
	haveName      = "HAVE"
	haveTemp      = haveName + ".tmp"
	importTableOf = "rows-"
	// importTableBytes is about how large a table becomes: what a crash takes of an Import is less.
	importTableBytes = 32 << 20
	importLevel      = 6 // most of a large state ends up there
)

// ErrOrder says that a row is not behind those before it, or in none of the ranges.
var ErrOrder = errors.New("storage: a row out of order, or out of range")

// Import begins to gather rows for ranges, which are in order and do not meet, or goes on with what was gathered under that name. The name
// must say what the rows are of. Import belongs to one goroutine.
func (s *Store) Import(name string, ranges [][2][]byte) (*Import, error) {
	i := &Import{s: s, name: name, ranges: ranges}
	if err := s.witness.FS.MkdirAll(i.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("storage: import: %w", err)
	}
	for _, dir := range []string{s.incoming(), s.witness.dir} {
		if err := syncDir(s.witness.FS, dir); err != nil {
			return nil, fmt.Errorf("storage: import: %w", err)
		}
	}
	if err := i.load(); err != nil {
		return nil, fmt.Errorf("storage: import: %w", err)
	}
	return i, nil
}

// Imports returns the names of those that have been begun, and neither installed nor dropped.
func (s *Store) Imports() ([]string, error) {
	names, err := s.witness.FS.List(s.incoming())
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("storage: imports: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// DropImport removes what was gathered under a name. Nobody may be at it.
func (s *Store) DropImport(name string) error {
	dir := s.witness.FS.PathJoin(s.incoming(), name)
	if err := s.witness.FS.RemoveAll(dir); err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	s.witness.unstage(dir)
	return nil
}

func (s *Store) incoming() string { return s.witness.path(incomingDir) }

func (i *Import) dir() string { return i.s.witness.FS.PathJoin(i.s.incoming(), i.name) }

func (i *Import) path(name string) string { return i.s.witness.FS.PathJoin(i.dir(), name) }

func (i *Import) table(number int) string { return i.path(fmt.Sprint(importTableOf, number)) }

// load reads how far an earlier attempt has come. One that is not whole counts as none.
func (i *Import) load() error {
	b, err := readFile(i.s.witness.FS, i.path(haveName))
	n := len(b) - sumSize
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]):
		return nil
	}
	var have haveFile
	if json.Unmarshal(b[:n], &have) != nil || have.Range > len(i.ranges) {
		return nil
	}
	for _, t := range have.Tables {
		b, err := readFile(i.s.witness.FS, i.table(t.Number))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
		if int64(len(b)) != t.Length || crc32.Checksum(b, castagnoli) != t.Sum {
			return nil
		}
	}
	for _, t := range have.Tables {
		i.s.witness.stage(i.table(t.Number), fileSum{length: t.Length, sum: t.Sum})
	}
	i.have, i.last, i.complete = have, have.Last, have.Whole
	return nil
}

// Last returns the key of the last row that it has, nil for none.
func (i *Import) Last() []byte { return i.last }

// Completed tells whether Complete has been called, now or before a restart.
func (i *Import) Completed() bool { return i.complete }

// Bytes is about how many bytes it holds on disk.
func (i *Import) Bytes() (n int64) {
	for _, t := range i.have.Tables {
		n += t.Length
	}
	if i.file != nil {
		n += i.file.at.length
	}
	return n
}

// Add adds a row behind those that it has. It returns ErrOrder, and has changed nothing, when the row is in none of the ranges or not behind
// the last.
func (i *Import) Add(key, value []byte) error {
	r := i.have.Range
	for r < len(i.ranges) && i.ranges[r][1] != nil && bytes.Compare(key, i.ranges[r][1]) >= 0 {
		r++
	}
	if r == len(i.ranges) || bytes.Compare(key, i.ranges[r][0]) < 0 || i.last != nil && bytes.Compare(key, i.last) <= 0 {
		return ErrOrder
	}
	for i.have.Range < r {
		if err := i.endRange(); err != nil {
			return err
		}
	}
	if i.w == nil {
		if err := i.begin(); err != nil {
			return err
		}
	}
	raw := binary.LittleEndian.AppendUint32(append(make([]byte, 0, len(value)+sumSize), value...), sum(key, value))
	if err := i.w.Set(key, raw); err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	i.last = append(i.last[:0:0], key...)
	if i.file.at.length < i.s.importTableBytes {
		return nil
	}
	return i.end(append(bytes.Clone(key), 0), i.have.Range)
}

// begin begins a table.
func (i *Import) begin() error {
	if i.from = i.have.Covered; i.from == nil {
		i.from = i.ranges[i.have.Range][0]
	}
	number := len(i.have.Tables) + 1
	// What stands there from before a crash may be one of the store's own by now, by another name.
	err := i.s.witness.FS.Remove(i.table(number))
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("storage: import: %w", err)
	}
	f, err := i.s.witness.FS.Create(i.table(number), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	i.file = &importFile{File: f}
	i.w = sstable.NewWriter(objstorageprovider.NewFileWritable(i.file), i.s.tableOptions.MakeWriterOptions(importLevel, i.s.db.TableFormat()))
	return nil
}

// end completes the table being written, which covers its range up to a key, and notes that range comes next.
func (i *Import) end(to []byte, next int) error {
	if !mutant.On(mutant.SnapshotKeepsRows) {
		if err := i.w.DeleteRange(i.from, to); err != nil {
			return fmt.Errorf("storage: import: %w", err)
		}
	}
	err := i.w.Close()
	i.w = nil
	if err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	number := len(i.have.Tables) + 1
	i.s.witness.stage(i.table(number), i.file.at)
	i.have.Tables = append(i.have.Tables, importTable{number, i.file.at.length, i.file.at.sum})
	i.have.Last, i.have.Range, i.have.Covered, i.file = i.last, next, to, nil
	if next < len(i.ranges) && next > 0 && bytes.Equal(to, i.ranges[next-1][1]) {
		i.have.Covered = nil
	}
	return i.save()
}

// endRange covers what is left of a range.
func (i *Import) endRange() error {
	if i.w == nil {
		if err := i.begin(); err != nil {
			return err
		}
	}
	to := i.ranges[i.have.Range][1]
	return i.end(to, i.have.Range+1)
}

// Complete says that there are no more rows. When it has returned all of them are durable.
func (i *Import) Complete() error {
	for i.have.Range < len(i.ranges) {
		if err := i.endRange(); err != nil {
			return err
		}
	}
	if i.have.Whole = true; !i.complete {
		if err := i.save(); err != nil {
			return err
		}
	}
	i.complete = true
	return nil
}

func (i *Import) save() error {
	if i.passing {
		return nil
	}
	fs := i.s.witness.FS
	b, err := json.Marshal(i.have)
	if err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	f, err := fs.Create(i.path(haveTemp), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fs.Rename(i.path(haveTemp), i.path(haveName))
	}
	if err == nil {
		err = syncDir(fs, i.dir())
	}
	if err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	return nil
}

// Install puts the rows in the place of what is in the ranges, and gives key, which is in none of them, a value: all of it at once, and
// durably. Complete has been called. What was committed before to the ranges is gone, what was committed elsewhere may not be durable yet.
func (i *Import) Install(key, value []byte) error {
	if !i.complete {
		panic(fmt.Sprintf("storage: import %s is installed before it is complete", i.name))
	}
	// The value's table is not for another attempt, which writes it again.
	note := &Import{s: i.s, name: i.name, ranges: [][2][]byte{{key, append(bytes.Clone(key), 0)}}, have: haveFile{Tables: i.have.Tables}, passing: true}
	if err := note.Add(key, value); err != nil {
		return err
	}
	if err := note.Complete(); err != nil {
		return err
	}
	paths := make([]string, 0, len(note.have.Tables))
	for _, t := range note.have.Tables {
		paths = append(paths, i.table(t.Number))
	}
	if err := i.s.db.Ingest(context.Background(), paths); err != nil {
		return fmt.Errorf("storage: import: %w", err)
	}
	return i.s.DropImport(i.name)
}

// Close leaves it for a later Import. It may be called after Install, or Drop.
func (i *Import) Close() error {
	if i.w == nil {
		return nil
	}
	err := i.w.Close() // nothing names it
	i.w = nil
	return err
}

// Drop removes all that was gathered.
func (i *Import) Drop() error { return errors.Join(i.Close(), i.s.DropImport(i.name)) }

// importFile sums what is written to a table.
type importFile struct {
	vfs.File
	at fileSum
}

// Write is vfs.File's.
func (f *importFile) Write(p []byte) (int, error) { return f.at.write(f.File, p) }
