package raftlog

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// rotLog is the directory of a log of several segments, as a power cut leaves it after a synced commit, what it holds,
// and the segments, oldest first.
func rotLog(t testing.TB, seal bool) (content map[string][]byte, want string, l *Log) {
	t.Helper()
	fs := vfs.NewMem()
	l = mustOpen(t, testOptions(fs))
	t.Cleanup(func() { l.Close() })
	for i := range uint64(24) {
		mustCommit(t, l, i%3 > 0, func(b *Batch) {
			b.Append(1, hard(1, 1, i), run(2*i+1, 2, 1, 150))
			b.Append(2, nil, []*pb.Entry{{Term: new(uint64(3)), Index: new(i + 1), Type: pb.EntryNormal.Enum(), Data: make([]byte, int(i)*25)}})
			if i == 10 {
				b.SetConfState(2, &pb.ConfState{Voters: []uint64{1, 2, 3}})
			}
		})
	}
	if seal {
		if err := l.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.segs) < 4 {
		t.Fatalf("%d segments are too few for this test", len(l.segs))
	}
	return files(t, fs, "log"), mustDump(t, l), l
}

// openDamaged opens a log with one file changed, or removed if data is nil.
func openDamaged(t testing.TB, content map[string][]byte, name string, data []byte) (string, error) {
	t.Helper()
	changed := maps.Clone(content)
	changed[name] = data
	if data == nil {
		delete(changed, name)
	}
	l, err := Open(testOptions(memory(t, changed)))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return mustDump(t, l), nil
}

// Every byte of every file is changed in turn, with no seal to help: the log is refused, or whole. In the last frame every
// bit is.
func TestFlippedBitIsDetectedOrHarmless(t *testing.T) {
	content, want, l := rotLog(t, false)
	rng := newRand(3)
	detected, harmless, silent := 0, 0, 0
	try := func(name string, off int, bit int) {
		data := slices.Clone(content[name])
		data[off] ^= 1 << bit
		switch got, err := openDamaged(t, content, name, data); {
		case errors.Is(err, ErrCorrupt):
			detected++
			var c *CorruptError
			if !errors.As(err, &c) || content[c.File] == nil {
				t.Fatalf("flip at %s %d: error names no file: %v", name, off, err)
			}
		case err != nil:
			t.Fatalf("flip at %s %d: %v", name, off, err)
		case got == want:
			harmless++
		default:
			silent++
			t.Errorf("flip of bit %d at %s %d passed for another log", bit, name, off)
		}
	}
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for name, data := range content {
		for off := 0; off < len(data); off += stride {
			try(name, off, rng.IntN(8))
		}
	}
	for off := int(l.off) - 600; off < int(l.off); off++ {
		for bit := range 8 {
			try(l.active().name, off, bit)
		}
	}
	t.Logf("%d flips detected, %d harmless, %d silent", detected, harmless, silent)
}

// Larger damage than a bit, anywhere in what was written: random bytes over a run of any length.
func TestOverwrittenBytesAreDetectedOrHarmless(t *testing.T) {
	content, want, _ := rotLog(t, false)
	names := slices.Sorted(maps.Keys(content))
	rng := newRand(4)
	detected := 0
	for range 2000 {
		name := names[rng.IntN(len(names))]
		data := slices.Clone(content[name])
		off := rng.IntN(len(data))
		for i := off; i < min(len(data), off+1+rng.IntN(700)); i++ {
			data[i] = byte(1 + rng.IntN(255))
		}
		switch got, err := openDamaged(t, content, name, data); {
		case errors.Is(err, ErrCorrupt):
			detected++
		case err != nil || got != want:
			t.Fatalf("damage at %s %d: %v\n%s", name, off, err, got)
		}
	}
	t.Logf("%d of 2000 detected", detected)
}

// Zeros are what torn looks like, so a zeroed sector needs a later frame to be told from it: with a seal there always is one.
func TestZeroedSectorIsDetectedOnceSealed(t *testing.T) {
	content, want, _ := rotLog(t, true)
	for name, whole := range content {
		for off := 0; off < len(whole); off += sectorBytes {
			data := slices.Clone(whole)
			clear(data[off : off+sectorBytes])
			if slices.Equal(data, whole) {
				continue
			}
			if got, err := openDamaged(t, content, name, data); !errors.Is(err, ErrCorrupt) && (err != nil || got != want) {
				t.Errorf("sector at %s %d: %v\n%s", name, off, err, got)
			}
		}
	}
}

// The documented window, so that it is known when it changes: a zeroed sector in the last synced frame passes as torn.
func TestZeroedSectorInTheLastFramePassesAsTornBeforeTheSeal(t *testing.T) {
	content, want, l := rotLog(t, false)
	name := l.active().name
	data := slices.Clone(content[name])
	off := (l.off - 300) &^ (sectorBytes - 1)
	clear(data[off : off+sectorBytes])
	if got, err := openDamaged(t, content, name, data); err != nil || got == want {
		t.Errorf("got %v; the package comment says that this is taken for torn", err)
	}
}

func TestCutOffMissingOrExchangedFilesAreDetected(t *testing.T) {
	content, _, l := rotLog(t, false)
	for name, whole := range content {
		for size := 0; size < len(whole); size += 61 {
			if _, err := openDamaged(t, content, name, whole[:size:size]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut to %d bytes: %v", name, size, err)
			}
		}
		if _, err := openDamaged(t, content, name, append(slices.Clone(whole), 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
		if _, err := openDamaged(t, content, name, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s removed: %v", name, err)
		}
		for other, data := range content {
			if other == name {
				continue
			}
			if _, err := openDamaged(t, content, name, data); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s exchanged for %s: %v", name, other, err)
			}
		}
	}
	// Two of them, and all but the newest.
	two := maps.Clone(content)
	delete(two, l.segs[1].name)
	if _, err := openDamaged(t, two, l.segs[2].name, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("two segments removed: %v", err)
	}
	newest := map[string][]byte{l.active().name: content[l.active().name]}
	if _, err := Open(testOptions(memory(t, newest))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("all but the newest removed: %v", err)
	}
}

// A segment that nothing links to yet was begun when all before it was durable.
func TestFramesMissingBeforeAnUnlinkedSegmentAreDetected(t *testing.T) {
	fs := vfs.NewCrashableMem()
	var unlinked map[string][]byte
	var renamed bool
	l := mustOpen(t, testOptions(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWriteAt && renamed && unlinked == nil {
			unlinked = files(t, fs, "log") // the link is about to be written
		}
		renamed = renamed || op.Kind == errorfs.OpRename && strings.HasSuffix(op.Path, segmentName(2)+tempSuffix)
		return nil
	}))))
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 1, 1, 1500)) })
	want, last := mustDump(t, l), l.off-200
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(2, 1, 1, 3000)) })
	mustClose(t, l)
	if len(unlinked) != 2 {
		t.Fatalf("%d files before the link was written", len(unlinked))
	}
	if got, err := openDamaged(t, unlinked, segmentName(1), unlinked[segmentName(1)]); err != nil || got != want {
		t.Errorf("without damage: %v\n%s", err, got)
	}
	data := slices.Clone(unlinked[segmentName(1)])
	clear(data[last&^(sectorBytes-1):])
	if _, err := openDamaged(t, unlinked, segmentName(1), data); !errors.Is(err, ErrCorrupt) {
		t.Errorf("last frames before the new segment are zero: %v", err)
	}
}

// An open that is refused changes nothing: it is refused again, for the same reason.
func TestRefusedOpenLeavesTheEvidence(t *testing.T) {
	content, _, l := rotLog(t, false)
	name := l.segs[1].name
	data := slices.Clone(content[name])
	data[700] ^= 4
	content[name] = data
	fs := memory(t, content)
	_, first := Open(testOptions(fs))
	_, second := Open(testOptions(fs))
	if first == nil || second == nil || first.Error() != second.Error() {
		t.Errorf("first %v\nsecond %v", first, second)
	}
	if got := files(t, fs, "log"); !maps.EqualFunc(got, content, slices.Equal) {
		t.Error("files changed")
	}
}

// Damage under an entry that is not in memory is found when it is read.
func TestDamagedEntryIsNotReturned(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions(fs)
	opts.SegmentBytes = 64 << 10
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 20, 1, 500)) })
	l = reopen(t, l, opts)
	defer l.Close()
	g := l.Group(1)
	loc := g.locs[7]
	f, err := fs.OpenReadWrite("log/"+loc.seg.name, writeCategory)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < loc.bytes(); off++ {
		var b [1]byte
		if _, err := f.ReadAt(b[:], int64(loc.off)+off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b[:], int64(loc.off)+off); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Entries(5, 12, 1<<20); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d: %v", off, err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b[:], int64(loc.off)+off); err != nil {
			t.Fatal(err)
		}
	}
	if ents, err := g.Entries(5, 12, 1<<20); err != nil || len(ents) != 7 {
		t.Errorf("whole again: %d entries, %v", len(ents), err)
	}
}
