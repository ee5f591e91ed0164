package storage

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Goal: nothing that a flush made durable goes missing without a word, whatever happens to Pebble's own
// files. Method: a small store of several tables and edits, on a memory disk, with one file changed.

// rotStore is the directory of a store that was closed, with everything that happens to one: flushes, a
// compaction, deletions, and a restart. older is the same directory one flush earlier.
func rotStore(t testing.TB) (content, older map[string][]byte, want string) {
	t.Helper()
	fs := vfs.NewMem()
	rng := rand.New(rand.NewPCG(1, 1))
	open := func() *Store {
		s, err := Open(Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for round := range 7 {
		b := s.NewBatch()
		for i := range 30 {
			value := make([]byte, 40+rng.IntN(100))
			for j := range value {
				value[j] = byte(rng.Uint32())
			}
			b.Set(fmt.Appendf(nil, "key %d", i*(round+1)), value)
		}
		b.DeleteRange(fmt.Appendf(nil, "key %d", round*3), fmt.Appendf(nil, "key %d", round*3+1))
		if err := errors.Join(s.Commit(b), s.Flush()); err != nil {
			t.Fatal(err)
		}
		if round == 3 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
		}
		if round == 5 {
			older = readDir(t, fs)
		}
	}
	want = dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return readDir(t, fs), older, want
}

func readDir(t testing.TB, fs vfs.FS) map[string][]byte {
	t.Helper()
	names, err := fs.List("state")
	if err != nil {
		t.Fatal(err)
	}
	content := map[string][]byte{}
	for _, name := range names {
		b, err := readFile(fs, "state/"+name)
		if errors.Is(err, iofs.ErrNotExist) {
			continue // an open store's: Pebble has removed it meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		content[name] = b
	}
	return content
}

func writeDir(t testing.TB, content map[string][]byte) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("state", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range content {
		f, err := fs.Create("state/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(data)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}

func dump(t testing.TB, s *Store) string {
	t.Helper()
	out, err := tryDump(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryDump(s *Store) (string, error) {
	it, err := s.Iter(nil, nil)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&out, "%x=%x\n", it.Key(), it.Value())
	}
	return out.String(), it.Close()
}

// judge opens a directory and tells what came of it: "open", "read" and "scrub" say where the damage was found,
// "harmless" that there is none to be seen, "silent" that data changed without a word.
func judge(t testing.TB, content map[string][]byte, want string) (string, error) {
	t.Helper()
	s, err := Open(Options{FS: writeDir(t, content), Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 64 << 10, Fatal: func(error) {}})
	if err != nil {
		return "open", err
	}
	defer s.CloseWithoutFlush()
	_, scrubbed := s.Scrub(t.Context(), func(int) error { return nil })
	got, err := tryDump(s)
	switch {
	case err != nil:
		return "read", err
	case scrubbed != nil:
		return "scrub", scrubbed
	case got != want:
		return "silent", nil
	}
	return "harmless", nil
}

func TestAFlippedBitIsDetectedOrHarmless(t *testing.T) {
	content, _, want := rotStore(t)
	rng := rand.New(rand.NewPCG(2, 2))
	outcomes := map[string]map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(content)) {
		kind := strings.TrimRight(strings.TrimLeft(name, "0123456789."), "0123456789-")
		if outcomes[kind] == nil {
			outcomes[kind] = map[string]int{}
		}
		stride := 1
		if kind == "sst" || kind == "OPTIONS" {
			stride = 23
		}
		for off := 0; off < len(content[name]); off += stride {
			data := slices.Clone(content[name])
			bit := rng.IntN(8)
			data[off] ^= 1 << bit
			changed := maps.Clone(content)
			changed[name] = data
			outcome, err := judge(t, changed, want)
			outcomes[kind][outcome]++
			found := kind == "WITNESS" || kind == "sst" || name == manifestInForce(t, content)
			var corrupt *CorruptionError
			if (outcome == "read" || outcome == "scrub") && !errors.As(err, &corrupt) {
				t.Errorf("bit %d of byte %d of %s: %s says %v", bit, off, name, outcome, err)
			}
			if outcome == "silent" || outcome == "harmless" && found {
				t.Errorf("bit %d of byte %d of %s: %s, %v", bit, off, name, outcome, err)
			}
		}
	}
	for kind, n := range outcomes {
		t.Logf("%-10s %v", kind, n)
	}
}

// manifestInForce is the MANIFEST that the marker names; another one may be left.
func manifestInForce(t testing.TB, content map[string][]byte) string {
	t.Helper()
	for name := range content {
		if strings.HasPrefix(name, markerPrefix) {
			return name[strings.LastIndexByte(name, '.')+1:]
		}
	}
	t.Fatal("no marker")
	return ""
}

// Whole files go missing, end early, are zeros, or are those of an earlier day.
func TestLostCutOrOlderFilesAreDetectedOrHarmless(t *testing.T) {
	content, older, want := rotStore(t)
	names := slices.Sorted(maps.Keys(content))
	try := func(what string, changed map[string][]byte) {
		t.Helper()
		outcome, err := judge(t, changed, want)
		t.Logf("%-40s %-8s %v", what, outcome, err)
		if outcome == "silent" {
			t.Errorf("%s: data changed without a word", what)
		}
	}
	for _, name := range names {
		with := func(data []byte) map[string][]byte {
			changed := maps.Clone(content)
			changed[name] = data
			return changed
		}
		gone := with(nil)
		delete(gone, name)
		try("without "+name, gone)
		data := content[name]
		if len(data) > 0 {
			try("half of "+name, with(data[:len(data)/2]))
			try("zeros for "+name, with(make([]byte, len(data))))
			try("empty "+name, with(nil))
			try("one byte less of "+name, with(data[:len(data)-1]))
		}
		for _, other := range names {
			if other > name && len(content[other]) > 0 && len(data) > 0 {
				swapped := with(content[other])
				swapped[other] = data
				try("swapped "+name+" and "+other, swapped)
			}
		}
		if o, ok := older[name]; ok && !slices.Equal(o, data) {
			try("older "+name, with(o))
		}
	}
	// The marker goes back to an older MANIFEST, which is there and whole.
	changed := maps.Clone(content)
	for _, name := range names {
		if strings.HasPrefix(name, markerPrefix) {
			delete(changed, name)
		}
	}
	changed["marker.manifest.000001.MANIFEST-000001"] = nil
	if changed["MANIFEST-000001"] == nil {
		t.Fatal("no older MANIFEST")
	}
	try("an older marker", changed)
	for _, name := range names {
		if name == witnessName {
			delete(changed, name)
		}
	}
	try("an older marker, no witness", changed)
}

// A store that is refused is left as it was: Pebble never came to remove what it does not know of.
func TestARefusedStoreKeepsTheEvidence(t *testing.T) {
	content, _, _ := rotStore(t)
	name := manifestInForce(t, content)
	content[name] = content[name][:len(content[name])/2]
	fs := writeDir(t, content)
	_, err := Open(Options{FS: fs, Dir: "state"})
	var corrupt *CorruptionError
	if !errors.As(err, &corrupt) || corrupt.File != name {
		t.Errorf("%s cut in half: %v", name, err)
	}
	if got := readDir(t, fs); !maps.EqualFunc(got, content, slices.Equal) {
		t.Error("files changed")
	}
}

func TestScrubReadsEverythingAndKeepsThePace(t *testing.T) {
	content, _, _ := rotStore(t)
	fs := writeDir(t, content)
	s := openStore(t, fs)
	defer closeStore(t, s)
	var tables, paced int64
	for name, data := range content {
		if strings.HasSuffix(name, tableSuffix) {
			tables += int64(len(data))
		}
	}
	read, err := s.Scrub(t.Context(), func(n int) error { paced += int64(n); return nil })
	if err != nil || read != paced || read < tables {
		t.Errorf("read %d bytes of %d in tables, paced %d, %v", read, tables, paced, err)
	}
	if read, err := s.Scrub(t.Context(), func(n int) error { return io.ErrNoProgress }); !errors.Is(err, io.ErrNoProgress) || read == 0 {
		t.Errorf("stopped after %d bytes: %v", read, err)
	}
	// A table rots under a store that is open, and has been read before.
	for name, data := range content {
		if !strings.HasSuffix(name, tableSuffix) {
			continue
		}
		f, err := fs.OpenReadWrite("state/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		at := len(data) / 3
		for _, b := range []byte{data[at] ^ 4, data[at]} {
			if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
				t.Fatal(err)
			}
			_, err := s.Scrub(t.Context(), func(int) error { return nil })
			var corrupt *CorruptionError
			if damaged := b != data[at]; damaged && (!errors.As(err, &corrupt) || corrupt.File != name) || !damaged && err != nil {
				t.Errorf("%s with %02x at %d: %v", name, b, at, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Each block of the other table has its right checksum, and the size is the same: only the whole file's sum tells.
func TestSwappedTablesOfOneSizeAreFoundByScrub(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, fs)
	value := make([]byte, 50)
	rng := rand.New(rand.NewPCG(3, 3))
	for round := range 2 {
		b := s.NewBatch()
		for i := range 20 {
			for j := range value {
				value[j] = byte(rng.Uint32()) // does not compress
			}
			b.Set(fmt.Appendf(nil, "key %d.%02d", round, i), value)
		}
		if err := errors.Join(s.Commit(b), s.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	content := readDir(t, fs)
	var names []string
	for name := range content {
		if strings.HasSuffix(name, tableSuffix) {
			names = append(names, name)
		}
	}
	if len(names) != 2 || len(content[names[0]]) != len(content[names[1]]) {
		t.Fatalf("tables %v are not two of one size", names)
	}
	content[names[0]], content[names[1]] = content[names[1]], content[names[0]]
	s = openStore(t, writeDir(t, content))
	defer s.CloseWithoutFlush()
	var corrupt *CorruptionError
	if _, err := s.Scrub(t.Context(), func(int) error { return nil }); !errors.As(err, &corrupt) || corrupt.File == "" {
		t.Errorf("scrub: %v", err)
	}
}
