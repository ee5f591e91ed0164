package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var importRanges = [][2][]byte{{[]byte("b"), []byte("c")}, {[]byte("d"), []byte("e")}, {[]byte("f"), []byte("g")}}

// imported are the rows of an import: some in the first range, none in the second, some in the third.
func imported() (keys []string) {
	for _, r := range []string{"b", "f"} {
		for n := range 300 {
			keys = append(keys, fmt.Sprintf("%s%03d", r, n))
		}
	}
	return keys
}

// before and after are what the store holds round it.
func beforeImport() (pairs []string) {
	for _, r := range []string{"a", "b", "bzz", "d", "dzz", "f", "fzz", "h"} {
		pairs = append(pairs, r, "old")
	}
	return pairs
}

const oldRows = "a=old b=old bzz=old d=old dzz=old f=old fzz=old h=old"

func newRows() string {
	rows := []string{"a=old"}
	for _, k := range imported() {
		rows = append(rows, k+"=new "+strings.Repeat(k, 20))
	}
	return strings.Join(append(rows, "h=old", "note=n"), " ")
}

func everything(t *testing.T, s *Store) string {
	t.Helper()
	it, err := s.Iter([]byte("a"), []byte("z"))
	return strings.Join(walk(t, it, err), " ")
}

// runImport brings an import to its end, from wherever it stands.
func runImport(s *Store) error {
	i, err := s.Import("one", importRanges)
	if err != nil {
		return err
	}
	for _, k := range imported() {
		if k <= string(i.Last()) || i.Completed() {
			continue
		}
		if err := i.Add([]byte(k), []byte("new "+strings.Repeat(k, 20))); err != nil {
			return err
		}
	}
	if err := i.Complete(); err != nil {
		return err
	}
	return i.Install([]byte("note"), []byte("n"))
}

func TestAnImportTakesThePlaceOfWhatItsRangesHeld(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, fs)
	set(t, s, beforeImport()...)
	snap := s.Snapshot()
	if err := runImport(s); err != nil {
		t.Fatal(err)
	}
	if got := everything(t, s); got != newRows() {
		t.Errorf("got %s", got)
	}
	it, err := snap.Iter([]byte("a"), []byte("z"))
	if got := strings.Join(walk(t, it, err), " "); got != oldRows {
		t.Errorf("a snapshot of before shows %s", got)
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
	if left, err := s.Imports(); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	set(t, s, "b000", "newer")
	closeStore(t, s)
	s = openStore(t, fs)
	defer closeStore(t, s)
	if got, want := everything(t, s), strings.Replace(newRows(), "b000=new "+strings.Repeat("b000", 20), "b000=newer", 1); got != want {
		t.Errorf("after a restart: %s", got)
	}
	if _, err := s.Scrub(context.Background(), func(int) error { return nil }); err != nil {
		t.Error(err)
	}
	if err := s.Compact(); err != nil {
		t.Error(err)
	}
}

func TestARowOutOfOrderOrOutOfRangeIsRefused(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	i, err := s.Import("one", importRanges)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Drop()
	if err := i.Add([]byte("d5"), nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", "a", "b1", "d4", "d5", "e", "g", "z"} {
		if err := i.Add([]byte(key), nil); !errors.Is(err, ErrOrder) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if got := string(i.Last()); got != "d5" {
		t.Errorf("the last is %q", got)
	}
}

// powerCut cuts the power before the n-th operation on a file.
type powerCut struct {
	mu    sync.Mutex
	fs    *vfs.MemFS
	at, n int
	clone vfs.CrashCloneCfg
	after *vfs.MemFS
}

// MaybeError is errorfs.Injector's.
func (p *powerCut) MaybeError(errorfs.Op) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; p.n == p.at {
		p.after = p.fs.CrashClone(p.clone)
	}
	return nil
}

// String is errorfs.Injector's.
func (p *powerCut) String() string { return "power cut" }

// Goal: whatever a crash leaves of an import, the store opens with all of what was there or all of what is new, and the import can go on.
// Method: the power fails before each operation on a file, and none, some or all of what was not synced stays.
func TestAnImportSurvivesACrashAtEveryOperation(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		resumed, done := 0, false
		for at := 1; !done; at++ {
			mem := vfs.NewCrashableMem()
			cut := &powerCut{fs: mem, clone: vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(at), 0))}}
			options := Options{FS: errorfs.Wrap(mem, cut), Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10, NoBackground: true, ImportTableBytes: 4 << 10}
			s, err := Open(options)
			if err != nil {
				t.Fatal(err)
			}
			set(t, s, beforeImport()...)
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			cut.mu.Lock()
			cut.at = cut.n + at
			cut.mu.Unlock()
			if err := runImport(s); err != nil {
				t.Fatal(err)
			}
			cut.mu.Lock()
			after := cut.after
			cut.mu.Unlock()
			s.CloseWithoutFlush()
			if done = after == nil; done {
				break
			}
			options.FS = after
			if s, err = Open(options); err != nil {
				t.Fatalf("%d%%, operation %d: %v", percent, at, err)
			}
			if got := everything(t, s); got != oldRows && got != newRows() {
				t.Fatalf("%d%%, operation %d: neither old nor new: %s", percent, at, got)
			}
			if i, err := s.Import("one", importRanges); err != nil {
				t.Fatal(err)
			} else if i.Last() != nil {
				resumed++
			}
			if err := runImport(s); err != nil {
				t.Fatalf("%d%%, operation %d: again: %v", percent, at, err)
			}
			if got := everything(t, s); got != newRows() {
				t.Fatalf("%d%%, operation %d: again: %s", percent, at, got)
			}
			closeStore(t, s)
		}
		if resumed == 0 {
			t.Errorf("%d%%: nothing gathered has survived a crash", percent)
		}
	}
}

func TestAnImportThatHasRottedBeginsAnew(t *testing.T) {
	fs := vfs.NewMem()
	s, err := Open(Options{FS: fs, Dir: "state", ImportTableBytes: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	i, err := s.Import("one", importRanges)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range imported() {
		if err := i.Add([]byte(k), []byte("new "+strings.Repeat(k, 20))); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.Complete(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	name := fs.PathJoin("state", incomingDir, "one", importTableOf+"2")
	b, err := readFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	b = slices.Clone(b)
	b[len(b)/2] ^= 1
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	f.Write(b)
	f.Close()
	s = openStore(t, fs)
	defer closeStore(t, s)
	if i, err = s.Import("one", importRanges); err != nil || i.Last() != nil || i.Completed() {
		t.Errorf("%q, %v, %v", i.Last(), i.Completed(), err)
	}
}

// BenchmarkInstall is what it takes to put a state of 256 MB in the place of another, once its rows are here: written by batches, from rows of
// the store itself, or as an Import.
func BenchmarkInstall(b *testing.B) {
	const rows = 256 << 10
	key := func(prefix string, n int) []byte { return fmt.Appendf(nil, "%s%08d", prefix, n) }
	value := make([]byte, 1000)
	rng := rand.NewChaCha8([32]byte{})
	for _, how := range []string{"staged-range", "import"} {
		b.Run(how, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				s, err := Open(Options{FS: vfs.Default, Dir: b.TempDir()})
				if err != nil {
					b.Fatal(err)
				}
				fill := func(prefix string) {
					batch := s.NewBatch()
					for n := range rows {
						rng.Read(value)
						if batch.Set(key(prefix, n), value); batch.Size() > 4<<20 || n == rows-1 {
							if err := s.Commit(batch); err != nil {
								b.Fatal(err)
							}
						}
					}
				}
				fill("b")
				if how == "staged-range" {
					fill("x")
					s.Flush()
					b.StartTimer()
					batch := s.NewBatch()
					batch.DeleteRange([]byte("b"), []byte("c"))
					it, err := s.Iter([]byte("x"), []byte("y"))
					if err != nil {
						b.Fatal(err)
					}
					for ok := it.First(); ok; ok = it.Next() {
						batch.Set(append([]byte("b"), it.Key()[1:]...), it.Value())
					}
					it.Close()
					if err := s.Commit(batch); err != nil {
						b.Fatal(err)
					}
					s.Flush()
				} else {
					i, err := s.Import("one", importRanges[:1])
					if err != nil {
						b.Fatal(err)
					}
					for n := range rows {
						rng.Read(value)
						if err := i.Add(key("b", n), value); err != nil {
							b.Fatal(err)
						}
					}
					if err := i.Complete(); err != nil {
						b.Fatal(err)
					}
					s.Flush()
					b.StartTimer()
					if err := i.Install([]byte("note"), nil); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				s.Close()
				b.StartTimer()
			}
		})
	}
}
