package raftlog

import (
	"errors"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func noPace(int) error { return nil }

// Every byte of every frame rots in turn under a log that is open, and was read already: a pass finds it.
func TestScrubFindsAnyFlippedBit(t *testing.T) {
	for name, seal := range map[string]bool{"sealed": true, "live": false} {
		t.Run(name, func(t *testing.T) {
			_, _, l := rotLog(t, seal)
			if read, err := l.Scrub(t.Context(), noPace); err != nil || read == 0 {
				t.Fatalf("%d bytes, %v", read, err)
			}
			rng := newRand(5)
			tried := 0
			for i, s := range l.segs {
				end := s.end
				if i == len(l.segs)-1 {
					end = l.off
				}
				for off := int64(0); off < end; off += 1 + int64(rng.IntN(5)) {
					flip(t, s, off, 1<<rng.IntN(8), func() {
						tried++
						var c *CorruptError
						if _, err := l.Scrub(t.Context(), noPace); !errors.As(err, &c) || c.File != s.name {
							t.Errorf("flip at %s %d: %v", s.name, off, err)
						}
					})
				}
			}
			t.Logf("%d flips", tried)
		})
	}
}

// flip changes a byte of a segment's file while f runs.
func flip(t *testing.T, s *segment, off int64, bits byte, f func()) {
	t.Helper()
	var b [1]byte
	if _, err := s.file.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		b[0] ^= bits
		if _, err := s.file.WriteAt(b[:], off); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			f()
		}
	}
}

func TestScrubOfAnEarlierOpensSegmentsAndWhatFollows(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions(fs)
	l := mustOpen(t, opts)
	for i := range uint64(30) {
		mustCommit(t, l, i%2 == 0, func(b *Batch) { b.Append(1, hard(1, 1, i), run(3*i+1, 3, 1, 300)) })
	}
	l = reopen(t, l, opts)
	for i := range uint64(10) {
		mustCommit(t, l, true, func(b *Batch) { b.Append(1, hard(1, 1, i), run(91+3*i, 3, 1, 300)) })
	}
	var paced int64
	read, err := l.Scrub(t.Context(), func(n int) error { paced += int64(n); return nil })
	if err != nil || read != paced || read < 120*300 {
		t.Errorf("read %d, paced %d, %v", read, paced, err)
	}
	if _, err := l.Scrub(t.Context(), func(int) error { return io.ErrNoProgress }); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("stopped: %v", err)
	}
	mustClose(t, l)
	if _, err := l.Scrub(t.Context(), noPace); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
