package storage

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Goal: a Finder tells what Get tells, in whatever order it is asked, wherever the rows are.
func TestAFinderFindsWhatIsThere(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	key := func(i int) string { return fmt.Sprintf("row-%03d", i) }
	for i := range 300 {
		set(t, s, key(3*i), fmt.Sprint("value ", i))
		switch i {
		case 100:
			if err := s.Compact(); err != nil {
				t.Fatal(err)
			}
		case 200:
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := s.NewBatch()
	for i := 0; i < 900; i += 9 {
		b.Delete([]byte(key(i)))
	}
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot()
	defer snap.Close()
	for name, r := range map[string]Reader{"store": s, "snapshot": snap} {
		f, err := r.Finder()
		if err != nil {
			t.Fatal(err)
		}
		for n := range 1800 {
			i := n // first in order, then not
			if n >= 900 {
				i = n * 7 % 900
			}
			want, wantErr := r.Get(nil, []byte(key(i)))
			got, err := f.Get([]byte(">"), []byte(key(i)))
			if !errors.Is(err, wantErr) || err == nil && string(got) != ">"+string(want) {
				t.Fatalf("%s: %s: %q, %v; Get: %q, %v", name, key(i), got, err, want, wantErr)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFinderSeesWhatWasThereWhenItWasMade(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	set(t, s, "a", "before")
	f, err := s.Finder()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set(t, s, "a", "after", "b", "after")
	if got, err := f.Get(nil, []byte("a")); err != nil || string(got) != "before" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := f.Get(nil, []byte("b")); !errors.Is(err, ErrNotFound) {
		t.Errorf("what came later: %v", err)
	}
}

func TestAFinderReportsCorruption(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	defer closeStore(t, s)
	if err := s.db.Set([]byte("a"), []byte("not a value and its sum"), pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	f, err := s.Finder()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var corrupt *CorruptionError
	if got, err := f.Get(nil, []byte("a")); !errors.As(err, &corrupt) || string(corrupt.Key) != "a" || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
}
