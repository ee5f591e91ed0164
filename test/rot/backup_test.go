package rot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/backup/archivetest"
)

// archive is a backup.Archive in memory.
type archive map[string][]byte

func (a archive) String() string { return "memory" }

func (a archive) Put(_ context.Context, name string, data []byte) error {
	a[name] = slices.Clone(data)
	return nil
}

func (a archive) Get(_ context.Context, name string, limit int64) ([]byte, error) {
	data, ok := a[name]
	if !ok {
		return nil, backup.ErrNotFound
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is too large", name)
	}
	return slices.Clone(data), nil
}

func (a archive) List(_ context.Context, prefix string, yield func(string, int64) bool) error {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if strings.HasPrefix(name, prefix) && !yield(name, int64(len(a[name]))) {
			break
		}
	}
	return nil
}

func (a archive) Delete(_ context.Context, name string) error {
	delete(a, name)
	return nil
}

// rows is a table to back up, in partitions, or to restore into.
type rows [][][]byte

func (r rows) Name() string                         { return "orders" }
func (r rows) Region() string                       { return "us-east-1" }
func (r rows) Definition() (json.RawMessage, error) { return json.RawMessage(`{"Name":"orders"}`), nil }
func (r rows) Partitions(context.Context) ([]backup.Partition, error) {
	var parts []backup.Partition
	for i := range r {
		parts = append(parts, archivetest.Partition{Number: uint64(i + 16), Stored: r[i]})
	}
	return parts, nil
}

// restored is a backup.Sink.
type restored struct{ items [][]byte }

func (r *restored) Write(_ context.Context, items [][]byte) error {
	for _, it := range items {
		r.items = append(r.items, slices.Clone(it))
	}
	return nil
}

func (r *restored) Content(context.Context) (int64, backup.ContentHash, error) {
	var h backup.ContentHash
	for _, it := range r.items {
		h.Add(it)
	}
	return int64(len(r.items)), h, nil
}

// subjectBackups returns an archive with two backups, of which the second shares objects with the first.
func subjectBackups(t *testing.T) (a archive, src rows, m *backup.Manifest) {
	t.Helper()
	rng := newRand(10)
	src = make(rows, 4)
	for i := range src {
		for j := range 20 {
			it := fmt.Appendf(nil, "item %d of partition %d ", j, i)
			for range 30 + rng.IntN(100) {
				it = append(it, byte('a'+rng.IntN(26)))
			}
			src[i] = append(src[i], it)
		}
	}
	a = archive{}
	now := func() time.Time { return time.UnixMilli(1_700_000_000_000) }
	quiet := func(backup.Progress) {}
	if _, err := backup.Create(t.Context(), a, src, "first", now, quiet); err != nil {
		t.Fatal(err)
	}
	src[3] = append(src[3], []byte("a late one"))
	m, err := backup.Create(t.Context(), a, src, "second", now, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return a, src, m
}

// judgeBackup restores the second backup.
func judgeBackup(ctx context.Context, a archive, src rows, made *backup.Manifest) (outcome, error) {
	m, err := backup.Describe(ctx, a, "second")
	if err != nil {
		return open, err
	}
	var got restored
	if err := backup.Restore(ctx, a, m, &got, func(backup.Progress) {}); err != nil {
		return read, err
	}
	if !slices.EqualFunc(got.items, slices.Concat(src...), bytes.Equal) || !reflect.DeepEqual(m, made) {
		return silent, nil
	}
	return harmless, nil
}

func TestADamagedBackupIsRefusedOrHarmless(t *testing.T) {
	a, src, m := subjectBackups(t)
	if o, err := judgeBackup(t.Context(), a, src, m); o != harmless {
		t.Fatalf("without damage: %s, %v", o, err)
	}
	used := map[string]bool{"backups/second/manifest.json": true}
	for _, p := range m.Partitions {
		for _, c := range p.Chunks {
			used[c.Object] = true
		}
	}
	rng := newRand(11)
	var counts tally
	try := func(what, name string, changed archive) {
		t.Helper()
		kind := what + " object"
		if !strings.HasPrefix(name, "objects/") {
			kind = what + " manifest"
		}
		o, err := judgeBackup(t.Context(), changed, src, m)
		counts.add(t, kind, o, fmt.Sprintf("%s %s: %v", what, name, err))
	}
	with := func(name string, data []byte) archive {
		changed := maps.Clone(a)
		changed[name] = data
		return changed
	}
	names := slices.Sorted(maps.Keys(used))
	for _, name := range names {
		data := a[name]
		for range times(300) {
			off, bit := rng.IntN(len(data)), rng.IntN(8)
			try("flipped", name, with(name, flip(data, off, bit)))
		}
		for range times(20) {
			try("cut", name, with(name, data[:rng.IntN(len(data))]))
		}
		try("cut by one byte", name, with(name, data[:len(data)-1]))
		try("longer", name, with(name, append(slices.Clone(data), 0)))
		try("zeroed", name, with(name, make([]byte, len(data))))
		gone := maps.Clone(a)
		delete(gone, name)
		try("lost", name, gone)
		for _, other := range slices.Sorted(maps.Keys(a)) {
			if other != name {
				swapped := with(name, a[other])
				swapped[other] = data
				try("swapped", name, swapped)
			}
		}
	}
	try("older", "backups/second/manifest.json", with("backups/second/manifest.json", a["backups/first/manifest.json"]))
	counts.log(t, "backups")
}
