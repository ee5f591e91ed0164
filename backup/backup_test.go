package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/backup/archivetest"
	"github.com/commutatordb/commutator/backup/local"
)

// rows is a table in memory: a Source of its items, a Sink for those of a backup.
type rows struct{ items [][]byte }

func (r *rows) Name() string   { return "orders" }
func (r *rows) Region() string { return "us-east-1" }
func (r *rows) Definition() (json.RawMessage, error) {
	return json.RawMessage(`{"Name":"orders"}`), nil
}
func (r *rows) Partitions(context.Context) ([]backup.Partition, error) {
	half := len(r.items) / 2
	return []backup.Partition{archivetest.Partition{Number: 1, Stored: r.items[:half]}, archivetest.Partition{Number: 2, Stored: r.items[half:]}}, nil
}

func (r *rows) Write(_ context.Context, items [][]byte) error {
	for _, it := range items {
		r.items = append(r.items, slices.Clone(it))
	}
	return nil
}

func (r *rows) Content(context.Context) (int64, backup.ContentHash, error) {
	var h backup.ContentHash
	for _, it := range r.items {
		h.Add(it)
	}
	return int64(len(r.items)), h, nil
}

// table returns items of about 1 KB whose bytes do not compress away.
func table(n int) *rows {
	r := &rows{}
	for i := range n {
		b := []byte(fmt.Sprintf("item-%06d ", i))
		x := uint64(i)*2654435761 + 1
		for len(b) < 1000 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			b = append(b, byte(x))
		}
		r.items = append(r.items, b)
	}
	return r
}

func quiet(backup.Progress) {}

func create(t *testing.T, a backup.Archive, r *rows, id string) *backup.Manifest {
	t.Helper()
	m, err := backup.Create(t.Context(), a, r, id, time.Now, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestABackupComesBackWhole(t *testing.T) {
	a := local.Open(t.TempDir())
	src := table(20_000)
	made := create(t, a, src, "first")
	m, err := backup.Describe(t.Context(), a, "first")
	if err != nil || m.Items != 20_000 || m.Content != made.Content || len(m.Partitions) != 2 {
		t.Fatalf("described as %+v, %v", m, err)
	}
	var last backup.Progress
	dst := &rows{}
	if err := backup.Restore(t.Context(), a, m, dst, func(p backup.Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(dst.items, src.items, slices.Equal) {
		t.Error("the restored items are others")
	}
	if last.Items != 20_000 || last.Chunks != last.Total || last.Total == 0 {
		t.Errorf("the last progress is %+v", last)
	}
}

func TestASecondBackupStoresOnlyWhatChanged(t *testing.T) {
	a := local.Open(t.TempDir())
	src := table(20_000)
	create(t, a, src, "first")
	src.items[5] = append(slices.Clone(src.items[5]), "changed"...)
	var last backup.Progress
	if _, err := backup.Create(t.Context(), a, src, "second", time.Now, func(p backup.Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if stored := last.Chunks - last.Reused; stored > 2 || last.Chunks < 6 {
		t.Errorf("%d of %d chunks stored again", stored, last.Chunks)
	}
	list, err := backup.List(t.Context(), a, "orders")
	if err != nil || len(list) != 2 || list[0].ID != "first" {
		t.Errorf("list: %v, %v", list, err)
	}
	if list, err := backup.List(t.Context(), a, "other"); err != nil || len(list) != 0 {
		t.Errorf("list of another table: %v, %v", list, err)
	}
}

func TestASecondBackupWritesAnObjectCutShortAgain(t *testing.T) {
	a, src := local.Open(t.TempDir()), table(500)
	first := create(t, a, src, "first")
	object := first.Partitions[0].Chunks[0].Object
	if err := a.Put(t.Context(), object, []byte("cut")); err != nil {
		t.Fatal(err)
	}
	second := create(t, a, src, "second")
	if err := backup.Restore(t.Context(), a, second, &rows{}, quiet); err != nil {
		t.Error(err)
	}
}

func TestADamagedObjectIsRefusedByName(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"flipped": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o644)
		},
		"truncated": func(path string) error { return os.Truncate(path, 100) },
		"missing":   os.Remove,
		"empty":     func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			a := local.Open(dir)
			m := create(t, a, table(3000), "first")
			object := m.Partitions[1].Chunks[0].Object
			if err := damage(filepath.Join(dir, object)); err != nil {
				t.Fatal(err)
			}
			err := backup.Restore(t.Context(), a, m, &rows{}, quiet)
			var corrupt *backup.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Object != object {
				t.Errorf("restore of a damaged backup: %v, want a CorruptError of %s", err, object)
			}
			manifest := filepath.Join(dir, "backups", "first", "manifest.json")
			if err := damage(manifest); err != nil {
				t.Fatal(err)
			}
			_, err = backup.Describe(t.Context(), a, "first")
			if name == "missing" {
				if !errors.Is(err, backup.ErrNotFound) {
					t.Errorf("describe of a missing manifest: %v", err)
				}
			} else if !errors.As(err, &corrupt) || !strings.Contains(corrupt.Object, "first/manifest.json") {
				t.Errorf("describe of a damaged manifest: %v", err)
			}
		})
	}
}

func TestObjectsExchangedForOthersAreRefused(t *testing.T) {
	dir := t.TempDir()
	a := local.Open(dir)
	m := create(t, a, table(6000), "first")
	one, two := filepath.Join(dir, m.Partitions[0].Chunks[0].Object), filepath.Join(dir, m.Partitions[1].Chunks[0].Object)
	b, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(one, b, 0o644); err != nil {
		t.Fatal(err)
	}
	var corrupt *backup.CorruptError
	if err := backup.Restore(t.Context(), a, m, &rows{}, quiet); !errors.As(err, &corrupt) {
		t.Errorf("an exchanged object: %v", err)
	}
}

// What its own checksum does not tell, nor its size, nor how many items it has, its name does: before an item is written.
func TestAnObjectOfAnotherBackupAndOfOneSizeIsRefusedByName(t *testing.T) {
	dir := t.TempDir()
	a := local.Open(dir)
	m := create(t, a, table(20), "first")
	want := m.Partitions[0].Chunks[0]
	for n := 0; ; n++ {
		if n == 10_000 {
			t.Fatal("no other object has this size")
		}
		src := table(20)
		for i := range src.items {
			src.items[i] = fmt.Appendf(nil, "%08d%s", n, src.items[i][8:])
		}
		other := t.TempDir()
		c := create(t, local.Open(other), src, "second").Partitions[0].Chunks[0]
		if c.Size != want.Size || c.Items != want.Items || c.Object == want.Object {
			continue
		}
		if err := os.Rename(filepath.Join(other, c.Object), filepath.Join(dir, want.Object)); err != nil {
			t.Fatal(err)
		}
		break
	}
	var got rows
	err := backup.Restore(t.Context(), a, m, &got, quiet)
	var corrupt *backup.CorruptError
	if !errors.As(err, &corrupt) || corrupt.Object != want.Object || len(got.items) > 0 {
		t.Errorf("%d items restored, and %v; want a CorruptError of %s", len(got.items), err, want.Object)
	}
}

func TestWithoutAManifestThereIsNoBackup(t *testing.T) {
	a := local.Open(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := backup.Create(ctx, a, table(5000), "first", time.Now, func(backup.Progress) { cancel() }); err == nil {
		t.Fatal("a backup that was cut short succeeds")
	}
	if list, err := backup.List(t.Context(), a, ""); err != nil || len(list) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
	for _, id := range []string{"", "..", "a/b", "none"} {
		if _, err := backup.Describe(t.Context(), a, id); !errors.Is(err, backup.ErrNotFound) {
			t.Errorf("describe %q: %v", id, err)
		}
	}
}
