// Package archivetest is the suite that every backup archive passes, and what tests back up.
package archivetest

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/commutatordb/commutator/backup"
)

// Run holds an empty archive to backup.Archive's contract.
func Run(t *testing.T, a backup.Archive) {
	ctx := t.Context()
	list := func(prefix string) (names []string, bytes int64) {
		t.Helper()
		if err := a.List(ctx, prefix, func(name string, size int64) bool {
			names, bytes = append(names, name), bytes+size
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return names, bytes
	}
	if names, _ := list(""); len(names) != 0 {
		t.Fatalf("the archive is not empty: %v", names)
	}
	if _, err := a.Get(ctx, "objects/none", 10); !errors.Is(err, backup.ErrNotFound) {
		t.Errorf("Get of nothing: %v, want ErrNotFound", err)
	}
	if err := a.Delete(ctx, "objects/none"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
	objects := map[string][]byte{
		"objects/a": []byte("first"), "objects/b": {}, "backups/x/manifest.json": []byte("{}"), "objects/big": bytes.Repeat([]byte("0123456789"), 700_000),
	}
	for name, data := range objects {
		if err := a.Put(ctx, name, data); err != nil {
			t.Fatalf("Put %s: %v", name, err)
		}
	}
	for name, data := range objects {
		if got, err := a.Get(ctx, name, int64(len(data))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("Get %s: %d bytes, %v; want %d", name, len(got), err, len(data))
		}
	}
	if _, err := a.Get(ctx, "objects/a", 4); err == nil {
		t.Error("Get of five bytes with a limit of four succeeds")
	}
	if names, size := list("objects/"); !slices.Equal(names, []string{"objects/a", "objects/b", "objects/big"}) || size != 7_000_005 {
		t.Errorf("List objects/: %v, %d bytes", names, size)
	}
	n := 0
	if err := a.List(ctx, "", func(string, int64) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("a listing that is stopped goes on: %d, %v", n, err)
	}
	if err := a.Put(ctx, "objects/a", []byte("second")); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Get(ctx, "objects/a", 100); err != nil || string(got) != "second" {
		t.Errorf("a replaced object reads %q, %v", got, err)
	}
	if err := a.Delete(ctx, "objects/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(ctx, "objects/a", 100); !errors.Is(err, backup.ErrNotFound) {
		t.Errorf("a deleted object: %v", err)
	}
}
