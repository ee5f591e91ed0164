package storage

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func openStore(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func set(t *testing.T, s *Store, pairs ...string) {
	t.Helper()
	b := s.NewBatch()
	for i := 0; i < len(pairs); i += 2 {
		b.Set([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
}

func walk(t *testing.T, it *Iter, err error) (out []string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		out = append(out, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAValueIsReadBackFromItsParts(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	b := s.NewBatch()
	if !b.Empty() {
		t.Error("a new batch is not empty")
	}
	b.Set([]byte("k"), []byte("one"), nil, []byte(" and two"))
	b.Set([]byte("empty"))
	if b.Empty() {
		t.Error("a batch with values is empty")
	}
	if _, err := s.Get(nil, []byte("k")); !errors.Is(err, ErrNotFound) {
		t.Errorf("before the commit: %v", err)
	}
	if err := s.Commit(b); err != nil || !b.Empty() {
		t.Fatal(err, b.Empty())
	}
	if got, err := s.Get([]byte("> "), []byte("k")); err != nil || string(got) != "> one and two" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := s.Get(nil, []byte("empty")); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	b.Set([]byte("never"), []byte("x"))
	b.Reset()
	b.Delete([]byte("k"))
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"k", "never"} {
		if _, err := s.Get(nil, []byte(gone)); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", gone, err)
		}
	}
}

// Bytes are changed below the store, as a disk or a bug would, with sums of Pebble's own that are right.
func TestBytesThatWereNotWrittenAreCorruption(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, fs)
	set(t, s, "a", "value of a", "b", "value of b", "c", "value of c", "d", "value of d", "e", "value of e")
	db := s.db
	raw := func(key string) []byte {
		value, closer, err := db.Get([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		defer closer.Close()
		return slices.Clone(value)
	}
	flipped := raw("b")
	flipped[3] ^= 0x10
	c, d := raw("c"), raw("d")
	for key, value := range map[string][]byte{"b": flipped, "c": d, "d": c, "e": []byte("xyz")} {
		if err := db.Set([]byte(key), value, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	s = openStore(t, fs)
	defer closeStore(t, s)
	if got, err := s.Get(nil, []byte("a")); err != nil || string(got) != "value of a" {
		t.Errorf("a: %q, %v", got, err)
	}
	for _, key := range []string{"b", "c", "d", "e"} {
		var corrupt *CorruptionError
		if got, err := s.Get(nil, []byte(key)); !errors.As(err, &corrupt) || string(corrupt.Key) != key || len(got) > 0 {
			t.Errorf("%s: %q, %v", key, got, err)
		}
		it, err := s.Iter([]byte(key), nil)
		if err != nil {
			t.Fatal(err)
		}
		if it.First() || !errors.As(it.Err(), &corrupt) {
			t.Errorf("a walk from %s: %v", key, it.Err())
		}
		if it.Next() || it.Last() {
			t.Errorf("a walk from %s goes on", key)
		}
		if err := it.Close(); !errors.As(err, &corrupt) {
			t.Errorf("Close of the walk from %s: %v", key, err)
		}
	}
}

func TestWalksKeepToTheirBoundsBothWays(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	set(t, s, "a", "1", "b", "2", "c", "3", "d", "4")
	it, err := s.Iter([]byte("b"), []byte("d"))
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for name, c := range map[string]struct {
		move func() bool
		want string
	}{
		"First": {it.First, "b"}, "Last": {it.Last, "c"},
		"SeekGE before": {func() bool { return it.SeekGE([]byte("a")) }, "b"}, "SeekGE on": {func() bool { return it.SeekGE([]byte("c")) }, "c"},
		"SeekGE beyond": {func() bool { return it.SeekGE([]byte("d")) }, ""}, "SeekLT beyond": {func() bool { return it.SeekLT([]byte("z")) }, "c"},
		"SeekLT on": {func() bool { return it.SeekLT([]byte("c")) }, "b"}, "SeekLT before": {func() bool { return it.SeekLT([]byte("b")) }, ""},
		"First, Next": {func() bool { return it.First() && it.Next() }, "c"}, "Last, Prev": {func() bool { return it.Last() && it.Prev() }, "b"},
		"First, Prev": {func() bool { return it.First() && it.Prev() }, ""}, "Last, Next": {func() bool { return it.Last() && it.Next() }, ""},
	} {
		if ok := c.move(); ok != (c.want != "") || ok && string(it.Key()) != c.want {
			t.Errorf("%s: %v, want %q", name, ok, c.want)
		}
	}
	if err := it.Err(); err != nil {
		t.Error(err)
	}
	b := s.NewBatch()
	b.DeleteRange([]byte("b"), []byte("d"))
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	rest, err := s.Iter(nil, nil)
	if got := walk(t, rest, err); !slices.Equal(got, []string{"a=1", "d=4"}) {
		t.Errorf("got %q", got)
	}
}

func TestOnlyWhatIsFlushedIsDurable(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openStore(t, fs)
	durable := func(want ...string) {
		t.Helper()
		it, err := s.DurableIter(nil, nil)
		if got := walk(t, it, err); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	set(t, s, "a", "1")
	durable()
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	set(t, s, "a", "2", "b", "3")
	durable("a=1")
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
	if err := s.CloseWithoutFlush(); err != nil {
		t.Error(err)
	}
	s = openStore(t, after)
	defer closeStore(t, s)
	it, err := s.Iter(nil, nil)
	if got := walk(t, it, err); !slices.Equal(got, []string{"a=1"}) {
		t.Errorf("after a crash: %q", got)
	}
}

func TestASnapshotStaysAsItWas(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	set(t, s, "a", "1", "b", "2")
	snap := s.Snapshot()
	set(t, s, "a", "changed", "c", "3")
	b := s.NewBatch()
	b.Delete([]byte("b"))
	if err := errors.Join(s.Commit(b), s.Flush()); err != nil {
		t.Fatal(err)
	}
	it, err := snap.Iter(nil, nil)
	if got := walk(t, it, err); !slices.Equal(got, []string{"a=1", "b=2"}) {
		t.Errorf("got %q", got)
	}
	if got, err := snap.Get(nil, []byte("b")); err != nil || string(got) != "2" {
		t.Errorf("%q, %v", got, err)
	}
	if err := snap.Close(); err != nil {
		t.Error(err)
	}
}

func TestAFlushIsTold(t *testing.T) {
	told := make(chan struct{}, 10)
	s, err := Open(Options{FS: vfs.NewMem(), Dir: "state", CacheBytes: 1 << 20, Flushed: func() { told <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	set(t, s, "a", "1")
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	<-told
}
