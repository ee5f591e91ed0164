package raftlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

// history is every state a log has gone through, and the oldest that a crash may bring back.
type history struct {
	states []string // states[0] is the empty log
	acked  int
}

// check reports whether got is a state that a crash now may leave.
func (h *history) check(got string) error {
	// The newest first: states may repeat.
	for i := len(h.states) - 1; i >= h.acked; i-- {
		if h.states[i] == got {
			return nil
		}
	}
	return fmt.Errorf("recovered is none of states %d to %d:\n%slast acknowledged:\n%s", h.acked, len(h.states)-1, got, h.states[h.acked])
}

// The power fails at every operation on the disk, with any part of what was not synced kept, also while a log is being
// recovered from an earlier failure, and after a process was killed with writes in the kernel's memory: what was
// acknowledged is there, and what is there was committed, whole, in order.
func TestPowerCutKeepsWhatWasAcknowledged(t *testing.T) {
	crashes := 0
	for seed := range uint64(60) {
		rng := newRand(seed)
		fs := vfs.NewCrashableMem()
		h := &history{states: []string{""}}
		killed := false
		for life := 0; life < 6; life++ {
			// One cut at an operation picked at random; the rest of this life goes on unaware of it.
			cutAt := int64(rng.IntN(120))
			percent := []int{0, 10, 50, 90, 100}[rng.IntN(5)]
			var crashed *vfs.MemFS
			var at history
			var ops int64
			injected := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					if ops++; ops == cutAt {
						crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
						at = history{slices.Clone(h.states), h.acked}
					}
				}
				return nil
			}))
			opts := testOptions(injected)
			l, err := Open(opts)
			if err != nil {
				t.Fatalf("seed %d life %d: %v", seed, life, err)
			}
			got := mustDump(t, l)
			if err := h.check(got); err != nil {
				t.Fatalf("seed %d life %d: %v", seed, life, err)
			}
			if last := h.states[len(h.states)-1]; killed && got != last {
				t.Fatalf("seed %d life %d: lost without a power cut; got\n%swant\n%s", seed, life, got, last)
			}
			// What recovery found is durable from here on, and the only state there is.
			h = &history{states: []string{got}}
			m := parseModel(t, l)
			for step := 0; step < 200 && (crashed == nil || rng.IntN(4) > 0); step++ {
				b := l.NewBatch()
				m.step(rng.IntN, b)
				sync := rng.IntN(2) == 0
				h.states = append(h.states, m.String())
				if err := l.Commit(b, sync); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if sync {
					h.acked = len(h.states) - 1
				}
				if rng.IntN(20) == 0 {
					if err := l.Seal(); err != nil {
						t.Fatal(err)
					}
					h.acked = len(h.states) - 1
				}
			}
			if killed = rng.IntN(3) == 0; killed {
				// The next process finds all that was written, and must not take it for durable.
				continue
			}
			if crashed == nil {
				crashed = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
				at = *h
			}
			crashes++
			mustClose(t, l)
			fs, h = crashed, &at
		}
	}
	t.Logf("%d power cuts", crashes)
}

// parseModel makes a model of what l holds.
func parseModel(t testing.TB, l *Log) model {
	t.Helper()
	m := make(model)
	for _, id := range l.Groups() {
		g := l.Group(id)
		hs, cs, err := g.InitialState()
		if err != nil {
			t.Fatal(err)
		}
		mg := &modelGroup{term: hs.GetTerm(), vote: hs.GetVote(), commit: hs.GetCommit(), voters: cs.GetVoters(), left: g.Left(),
			trunc: g.trunc, truncTerm: g.truncTerm}
		if mg.ents, err = g.Entries(g.trunc+1, g.lastLocked()+1, 1<<40); err != nil {
			t.Fatal(err)
		}
		m[id] = mg
	}
	return m
}

// With the goroutine at work the cut comes between commits.
func TestPowerCutWhileSegmentsArePreparedKeepsWhatWasAcknowledged(t *testing.T) {
	for seed := range uint64(10) {
		rng := newRand(seed)
		fs := vfs.NewCrashableMem()
		opts := testOptions(fs)
		opts.NoBackground = false
		l := mustOpen(t, opts)
		m := make(model)
		h := &history{states: []string{""}}
		for range 200 {
			b := l.NewBatch()
			m.step(rng.IntN, b)
			sync := rng.IntN(2) == 0
			h.states = append(h.states, m.String())
			if err := l.Commit(b, sync); err != nil {
				t.Fatal(err)
			}
			if sync {
				h.acked = len(h.states) - 1
			}
			if rng.IntN(10) == 0 {
				opts := opts
				opts.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
				crashed := mustOpen(t, opts)
				if err := h.check(mustDump(t, crashed)); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				mustClose(t, crashed)
			}
		}
		mustClose(t, l)
	}
}

// Any sectors of unsynced frames may be missing; that is never damage, and costs no more than those frames.
func TestMissingSectorsOfUnsyncedFramesAreTorn(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions(fs)
	opts.SegmentBytes = 64 << 10
	l := mustOpen(t, opts)
	states := []string{}
	var bounds []int64
	for i := range uint64(4) {
		mustCommit(t, l, i == 0, func(b *Batch) {
			b.Append(1, nil, run(3*i+1, 3, 1, 900))
			// Sectors that are zero by right must not be taken for missing ones.
			b.Append(2, nil, []*pb.Entry{{Term: new(uint64(1)), Index: new(i + 1), Type: pb.EntryNormal.Enum(), Data: make([]byte, 3000)}})
		})
		states = append(states, mustDump(t, l))
		bounds = append(bounds, l.off)
	}
	content := files(t, fs, "log")
	name := l.active().name
	rng := newRand(1)
	seen := make(map[int]int)
	for range 3000 {
		data := slices.Clone(content[name])
		for off := bounds[0]; off < bounds[3]; {
			end := min((off/sectorBytes+1)*sectorBytes, bounds[3])
			if rng.IntN(12) == 0 {
				clear(data[off:end])
			}
			off = end
		}
		opts.FS = memory(t, map[string][]byte{name: data})
		l := mustOpen(t, opts)
		at := slices.Index(states, mustDump(t, l))
		if at < 0 {
			t.Fatal("recovered is no state the log was in")
		}
		seen[at]++
		mustCommit(t, l, true, func(b *Batch) { b.Append(9, nil, run(1, 1, 1, 2000)) })
		want := mustDump(t, l)
		l = reopen(t, l, opts)
		if got := mustDump(t, l); got != want {
			t.Fatal("what was appended after recovery is not there")
		}
		mustClose(t, l)
	}
	if len(seen) != 4 {
		t.Errorf("recovered states %v: want all of 0 to 3", seen)
	}
	mustClose(t, l)
}

// A write or sync that fails is never tried again, and nothing is acknowledged after it. What was acknowledged before is
// there after a restart.
func TestFailedWriteOrSyncIsFinal(t *testing.T) {
	boom := errors.New("boom")
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpRename} {
		for nth := int64(1); nth < 40; nth++ {
			fs := vfs.NewCrashableMem()
			var armed atomic.Bool
			var count, after atomic.Int64
			opts := testOptions(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if !armed.Load() {
					return nil
				}
				if count.Load() >= nth && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
					after.Add(1)
				}
				if op.Kind == kind && count.Add(1) == nth {
					return boom
				}
				return nil
			})))
			l := mustOpen(t, opts)
			armed.Store(true)
			h := &history{states: []string{""}}
			rng := newRand(uint64(nth))
			m := make(model)
			var failed error
			for range 60 {
				b := l.NewBatch()
				m.step(rng.IntN, b)
				h.states = append(h.states, m.String())
				if failed = l.Commit(b, true); failed != nil {
					break
				}
				h.acked = len(h.states) - 1
			}
			if failed == nil {
				mustClose(t, l)
				continue
			}
			if !errors.Is(failed, boom) {
				t.Fatalf("kind %d op %d: %v", kind, nth, failed)
			}
			after.Store(0)
			b := l.NewBatch()
			b.Append(99, nil, run(1, 1, 1, 10))
			for _, err := range []error{l.Commit(b, true), l.Commit(b, false), l.Seal(), l.Close()} {
				if !errors.Is(err, boom) {
					t.Errorf("kind %d op %d: later call: %v", kind, nth, err)
				}
			}
			if after.Load() > 0 {
				t.Errorf("kind %d op %d: %d writes after the failure", kind, nth, after.Load())
			}
			opts.FS = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
			l = mustOpen(t, opts)
			if err := h.check(mustDump(t, l)); err != nil {
				t.Errorf("kind %d op %d: %v", kind, nth, err)
			}
			mustClose(t, l)
		}
	}
}

func TestFullDiskChangesNothingAndCanBeTriedAgain(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpFilePreallocate, errorfs.OpOpen, errorfs.OpFileWriteAt} {
		var full atomic.Bool
		fs := vfs.NewMem()
		opts := testOptions(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if full.Load() && op.Kind == kind && strings.HasSuffix(op.Path, tempSuffix) {
				return syscall.ENOSPC
			}
			return nil
		})))
		l := mustOpen(t, opts)
		mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 1, 1, 3000)) })
		before := mustDump(t, l)
		full.Store(true)
		b := l.NewBatch()
		b.Append(1, nil, run(2, 1, 1, 3000))
		for range 3 {
			if err := l.Commit(b, true); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("kind %d: Commit on a full disk: %v", kind, err)
			}
		}
		if got := mustDump(t, l); got != before {
			t.Errorf("kind %d: the group changed", kind)
		}
		full.Store(false)
		if err := l.Commit(b, true); err != nil {
			t.Fatalf("kind %d: Commit after space was freed: %v", kind, err)
		}
		want := mustDump(t, l)
		l = reopen(t, l, opts)
		if got := mustDump(t, l); got != want {
			t.Errorf("kind %d: after reopen:\n%swant:\n%s", kind, got, want)
		}
		mustClose(t, l)
	}
}

// After a sync has failed the kernel takes the pages for clean, and a sync in the next process would do nothing for them. So what
// recovery finds beyond the last durable frame is written again before it is synced.
func TestRecoveryWritesAgainWhatMayNotBeDurable(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions(fs)
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 1, 1, 100)) })
	from := l.off
	mustCommit(t, l, false, func(b *Batch) { b.Append(1, nil, run(2, 1, 1, 100)) })
	mustCommit(t, l, false, func(b *Batch) { b.Append(1, nil, run(3, 1, 1, 100)) })
	var ops []string
	opts.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.HasSuffix(op.Path, segmentSuffix) {
			return nil // a directory's
		}
		switch op.Kind {
		case errorfs.OpFileWriteAt:
			ops = append(ops, fmt.Sprint("write at ", op.Offset))
		case errorfs.OpFileSync, errorfs.OpFileSyncData:
			ops = append(ops, "sync")
		}
		return nil
	}))
	l2 := mustOpen(t, opts)
	if len(ops) != 2 || !strings.HasPrefix(ops[0], "write at ") || ops[1] != "sync" {
		t.Fatalf("%v: want a write and a sync", ops)
	}
	var at int64
	if _, err := fmt.Sscanf(ops[0], "write at %d", &at); err != nil || at > from {
		t.Errorf("%v: want a write from %d or before", ops, from)
	}
	mustClose(t, l2)
}
