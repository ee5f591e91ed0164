package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"github.com/commutatordb/commutator/internal/mutant"
)

// The witness is a file of ours beside Pebble's. Pebble takes a damaged MANIFEST for a shorter one: it opens
// at an older state, without a word, and removes the tables that it no longer knows of. The witness says
// how much of the MANIFEST must be there and what is in each table; it is compared before Pebble opens.
//
// Bytes of the file WITNESS, integers little-endian:
//
//	 0       8              32             56     64                     end-4
//	 | magic | MANIFEST now | MANIFEST new | count | tables, count times | sum
//
//	magic      "CMTWITN1"
//	MANIFEST   number 8, length 8, CRC-32C 4, zeros 4: the file MANIFEST-number begins with so many bytes of that
//	           sum. "new" is one that is being begun and that the marker may name already; all zero for none.
//	table      number 8, length 8, CRC-32C 4, zeros 4: the whole file; ascending by number
//	sum        CRC-32C of all before
//
// It is replaced whole (WITNESS.tmp, sync, rename, sync of the directory), in this order, so that it stands
// for every state that a crash may leave: a table is in it before the edit that names the table is written to
// the MANIFEST, and an edit is in it before Pebble takes the edit for durable. So whatever relies on a
// flush (truncation of the Raft log, removal of tables) comes behind the witness of that flush. What a
// crash leaves in the MANIFEST behind the witnessed length was relied on by nobody.
const (
	witnessName   = "WITNESS"
	witnessTemp   = witnessName + ".tmp"
	witnessMagic  = "CMTWITN1"
	witnessHeader = len(witnessMagic) + 2*witnessEntry + 8
	witnessEntry  = 24

	manifestPrefix = "MANIFEST-"
	markerName     = "manifest"
	markerPrefix   = "marker." + markerName + "."
	tableSuffix    = ".sst"
)

// fileSum is what the witness says of one file.
type fileSum struct {
	number uint64
	length int64
	sum    uint32
}

func (f fileSum) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, f.number), uint64(f.length))
	return le.AppendUint32(le.AppendUint32(b, f.sum), 0)
}

// write appends p to the file that f sums. After an error Pebble does not go on with the file.
func (f *fileSum) write(to io.Writer, p []byte) (int, error) {
	f.length += int64(len(p))
	f.sum = crc32.Update(f.sum, castagnoli, p) // before: the memory file system of the tests may change p
	return to.Write(p)
}

func parseFileSum(b []byte) fileSum {
	le := binary.LittleEndian
	return fileSum{le.Uint64(b), int64(le.Uint64(b[8:])), le.Uint32(b[16:])}
}

// witness is a vfs.FS for Pebble alone that keeps the file WITNESS of one directory in step.
type witness struct {
	vfs.FS
	dir string

	mu sync.Mutex // held while WITNESS is written, so that the newest one stays
	// Below mu.
	now, next fileSum            // MANIFESTs; next.number is 0 for none
	marked    uint64             // the MANIFEST that the marker names, when that may not be durable yet
	tables    map[uint64]fileSum // Invariant: holds every table that an edit in a MANIFEST names
	staged    map[string]fileSum // tables beside the store, by path, that may get a number
	changed   bool               // tables has some that WITNESS has not
	saved     fileSum            // WITNESS itself; its number is 0 for none
}

// openWitness compares the directory with its witness. Nothing is changed. It returns a *CorruptionError when
// something that was durable is not there as it was.
func openWitness(fs vfs.FS, dir string) (*witness, error) {
	w := &witness{FS: fs, dir: dir, tables: map[uint64]fileSum{}, staged: map[string]fileSum{}}
	names, err := fs.List(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", dir, err)
	}
	if slices.Contains(names, witnessName) {
		if err := w.load(); err != nil {
			return nil, err
		}
	}
	marker, err := atomicfs.ReadMarker(fs, dir, markerName)
	if err != nil {
		return nil, &CorruptionError{File: markerPrefix + "*", Reason: err.Error()}
	}
	if marker == "" {
		// Before a first MANIFEST has been put in force there is nothing to lose.
		if w.now.number != 0 {
			return nil, &CorruptionError{File: markerPrefix + "*", Reason: "it is missing; " + manifestName(w.now.number) + " was in force"}
		}
		for _, name := range names {
			if strings.HasSuffix(name, tableSuffix) {
				return nil, &CorruptionError{File: markerPrefix + "*", Reason: "it is missing, and " + witnessName + " too; there are tables"}
			}
		}
		w.next, w.tables = fileSum{}, map[uint64]fileSum{}
		return w, nil
	}
	number, ok := numberOf(marker, manifestPrefix, "")
	switch {
	case w.saved.number == 0:
		return nil, &CorruptionError{File: witnessName, Reason: "it is missing"}
	case ok && number == w.now.number:
	case ok && number == w.next.number && number != 0:
		w.now, w.next = w.next, fileSum{}
	default:
		return nil, &CorruptionError{File: markerPrefix + "*", Reason: fmt.Sprintf("it names %s; %s was in force", marker, manifestName(w.now.number))}
	}
	return w, w.checkManifest(w.now)
}

// load reads WITNESS.
func (w *witness) load() error {
	b, err := readFile(w.FS, w.path(witnessName))
	if err != nil {
		return fmt.Errorf("storage: open %s: %w", w.dir, err)
	}
	corrupt := func(reason string) error { return &CorruptionError{File: witnessName, Reason: reason} }
	if len(b) < witnessHeader+sumSize || string(b[:len(witnessMagic)]) != witnessMagic {
		return corrupt("it is no witness")
	}
	body := b[:len(b)-sumSize]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return corrupt("checksum mismatch")
	}
	at := len(witnessMagic)
	w.now, w.next = parseFileSum(body[at:]), parseFileSum(body[at+witnessEntry:])
	count := binary.LittleEndian.Uint64(body[witnessHeader-8:])
	rest := body[witnessHeader:]
	if uint64(len(rest)) != count*witnessEntry {
		return corrupt(fmt.Sprintf("it has %d bytes of tables for %d of them", len(rest), count))
	}
	for ; len(rest) > 0; rest = rest[witnessEntry:] {
		t := parseFileSum(rest)
		w.tables[t.number] = t
	}
	w.saved = fileSum{1, int64(len(b)), crc32.Checksum(b, castagnoli)}
	return nil
}

// checkManifest compares a MANIFEST with what the witness says of it.
func (w *witness) checkManifest(want fileSum) error {
	if mutant.On(mutant.WitnessIgnored) {
		return nil
	}
	name := manifestName(want.number)
	f, err := w.FS.Open(w.path(name))
	if errors.Is(err, iofs.ErrNotExist) {
		return &CorruptionError{File: name, Reason: "it is missing"}
	}
	if err != nil {
		return fmt.Errorf("storage: read %s: %w", name, err)
	}
	defer f.Close()
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, io.NewSectionReader(f, 0, want.length))
	switch {
	case err != nil:
		return fmt.Errorf("storage: read %s: %w", name, err)
	case n != want.length:
		return &CorruptionError{File: name, Reason: fmt.Sprintf("it has %d bytes; %d were durable", n, want.length)}
	case h.Sum32() != want.sum:
		return &CorruptionError{File: name, Reason: "checksum mismatch"}
	}
	return nil
}

// checkTables compares the tables in force with the witness, once Pebble is open, and forgets others that
// it had from before.
func (w *witness) checkTables(db *pebble.DB, loaded map[uint64]fileSum) error {
	live, err := liveTables(db)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for number, size := range live {
		// One that is not in tables may have been compacted away meanwhile, but not if it was there before.
		if t, ok := w.tables[number]; ok && t.length != size {
			return &CorruptionError{File: tableName(number), Reason: fmt.Sprintf("it has %d bytes; %d were written", size, t.length)}
		} else if _, err := w.FS.Stat(w.path(tableName(number))); !ok && err == nil {
			return &CorruptionError{File: tableName(number), Reason: "it is in force and was never written"}
		}
	}
	for number := range loaded {
		if _, ok := live[number]; !ok {
			delete(w.tables, number)
		}
	}
	return nil
}

// liveTables returns the size of each table file in force, by number.
func liveTables(db *pebble.DB) (map[uint64]int64, error) {
	levels, err := db.SSTables()
	if err != nil {
		return nil, fmt.Errorf("storage: tables: %w", err)
	}
	live := map[uint64]int64{}
	for _, level := range levels {
		for _, t := range level {
			live[uint64(t.BackingSSTNum)] = int64(t.Size)
		}
	}
	return live, nil
}

// saveLocked replaces WITNESS and makes it durable.
func (w *witness) saveLocked() error {
	b := append(make([]byte, 0, witnessHeader+witnessEntry*len(w.tables)+sumSize), witnessMagic...)
	b = w.next.append(w.now.append(b))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(w.tables)))
	numbers := make([]uint64, 0, len(w.tables))
	for number := range w.tables {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	for _, number := range numbers {
		b = w.tables[number].append(b)
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	saved := fileSum{number: 1}
	f, err := w.FS.Create(w.path(witnessTemp), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("storage: witness: %w", err)
	}
	_, err = saved.write(f, b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = w.FS.Rename(w.path(witnessTemp), w.path(witnessName))
	}
	if err == nil {
		err = syncDir(w.FS, w.dir)
	}
	if err != nil {
		return fmt.Errorf("storage: witness: %w", err)
	}
	w.changed, w.saved = false, saved
	return nil
}

// beforeEdit makes the tables that an edit may name known.
func (w *witness) beforeEdit() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.changed {
		return nil
	}
	return w.saveLocked()
}

// afterEdit makes known how long a MANIFEST is now, durably.
func (w *witness) afterEdit(f fileSum) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.number == w.now.number {
		w.now = f
	} else {
		w.next = f
	}
	return w.saveLocked()
}

// dirSynced notes that a new MANIFEST is in force for good, so that an older one never is again.
func (w *witness) dirSynced() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.marked == 0 || w.marked != w.next.number {
		return nil
	}
	w.now, w.next, w.marked = w.next, fileSum{}, 0
	return w.saveLocked()
}

func (w *witness) path(name string) string { return w.FS.PathJoin(w.dir, name) }

// Unwrap is vfs.FS's.
func (w *witness) Unwrap() vfs.FS { return w.FS }

// Create is vfs.FS's.
func (w *witness) Create(path string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(path, category)
	if err != nil {
		return nil, err
	}
	base := w.FS.PathBase(path)
	if number, ok := numberOf(base, manifestPrefix, ""); ok {
		return &manifestFile{File: f, w: w, at: fileSum{number: number}}, nil
	}
	if number, ok := numberOf(base, "", tableSuffix); ok {
		return &tableFile{File: f, w: w, at: fileSum{number: number}}, nil
	}
	if strings.HasPrefix(base, markerPrefix) {
		if _, name, ok := strings.Cut(base[len(markerPrefix):], "."); ok {
			if number, ok := numberOf(name, manifestPrefix, ""); ok {
				w.mu.Lock()
				w.marked = number
				w.mu.Unlock()
			}
		}
	}
	return f, nil
}

// Remove is vfs.FS's.
func (w *witness) Remove(path string) error {
	err := w.FS.Remove(path)
	if number, ok := numberOf(w.FS.PathBase(path), "", tableSuffix); ok && err == nil {
		w.mu.Lock()
		delete(w.tables, number)
		w.mu.Unlock()
	}
	return err
}

// Link is vfs.FS's. Pebble links a table of an Import to take it in.
func (w *witness) Link(from, to string) error {
	number, ok := numberOf(w.FS.PathBase(to), "", tableSuffix)
	if !ok {
		return w.FS.Link(from, to)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.staged[from]
	if !ok {
		return fmt.Errorf("storage: witness: %s is no table of an import", from)
	}
	if err := w.FS.Link(from, to); err != nil {
		return err // Pebble copies it, by Create
	}
	at.number = number
	w.tables[number], w.changed = at, true
	return nil
}

// stage notes what a table of an Import holds.
func (w *witness) stage(path string, sum fileSum) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.staged[path] = sum
}

// unstage forgets the tables of an Import.
func (w *witness) unstage(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.staged, func(path string, _ fileSum) bool { return w.FS.PathDir(path) == dir })
}

// OpenDir is vfs.FS's.
func (w *witness) OpenDir(path string) (vfs.File, error) {
	d, err := w.FS.OpenDir(path)
	if err != nil || path != w.dir {
		return d, err
	}
	return &witnessDir{d, w}, nil
}

type witnessDir struct {
	vfs.File
	w *witness
}

// Sync is vfs.File's.
func (d *witnessDir) Sync() error {
	if err := d.File.Sync(); err != nil {
		return err
	}
	return d.w.dirSynced()
}

// manifestFile is a MANIFEST being written. Pebble only appends to it.
type manifestFile struct {
	vfs.File
	w  *witness
	at fileSum
}

// Write is vfs.File's.
func (f *manifestFile) Write(p []byte) (int, error) {
	if err := f.w.beforeEdit(); err != nil {
		return 0, err
	}
	return f.at.write(f.File, p)
}

// Sync is vfs.File's.
func (f *manifestFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	return f.w.afterEdit(f.at)
}

// tableFile is a table being written. Pebble only appends to it, and closes it before an edit names it.
type tableFile struct {
	vfs.File
	w  *witness
	at fileSum
}

// Write is vfs.File's.
func (f *tableFile) Write(p []byte) (int, error) { return f.at.write(f.File, p) }

// Close is vfs.File's.
func (f *tableFile) Close() error {
	err := f.File.Close()
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.tables[f.at.number], f.w.changed = f.at, true
	return err
}

func manifestName(number uint64) string { return fmt.Sprintf("%s%06d", manifestPrefix, number) }

func tableName(number uint64) string { return fmt.Sprintf("%06d%s", number, tableSuffix) }

// numberOf returns the number that stands between prefix and suffix in a name of Pebble's.
func numberOf(name, prefix, suffix string) (uint64, bool) {
	name, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	if name, ok = strings.CutSuffix(name, suffix); !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(name, 10, 64)
	return n, err == nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
