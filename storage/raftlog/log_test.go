package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// testOptions is a log small enough that a test sees many segments.
func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "log", SegmentBytes: minSegmentBytes, Salt: 42, NoBackground: true}
}

func mustOpen(t testing.TB, opts Options) *Log {
	t.Helper()
	l, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t testing.TB, l *Log, sync bool, fill func(*Batch)) {
	t.Helper()
	b := l.NewBatch()
	fill(b)
	if err := l.Commit(b, sync); err != nil {
		t.Fatal(err)
	}
}

func reopen(t testing.TB, l *Log, opts Options) *Log {
	t.Helper()
	mustClose(t, l)
	return mustOpen(t, opts)
}

// run makes n entries from index first on, whose data tells index and term.
func run(first uint64, n int, term uint64, size int) []*pb.Entry {
	ents := make([]*pb.Entry, n)
	for i := range ents {
		index := first + uint64(i)
		data := bytes.Repeat([]byte(fmt.Sprintf("%d/%d.", index, term)), size/4+1)[:size]
		if size == 0 {
			data = nil
		}
		ents[i] = &pb.Entry{Term: new(term), Index: new(index), Type: pb.EntryNormal.Enum(), Data: data}
	}
	return ents
}

func hard(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// dump shows all a log holds, so that two logs can be compared.
func dump(l *Log) (string, error) {
	var out bytes.Buffer
	for _, id := range l.Groups() {
		g := l.Group(id)
		hs, cs, err := g.InitialState()
		if err != nil {
			return "", err
		}
		first, _ := g.FirstIndex()
		last, _ := g.LastIndex()
		before, err := g.Term(first - 1)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "group %d hard %d/%d/%d voters %v after %d/%d:", id, hs.GetTerm(), hs.GetVote(), hs.GetCommit(),
			cs.GetVoters(), first-1, before)
		if g.Left() {
			fmt.Fprint(&out, " left")
		}
		ents, err := g.Entries(first, last+1, math.MaxUint64)
		if err != nil {
			return "", err
		}
		for i, e := range ents {
			if e.GetIndex() != first+uint64(i) {
				return "", fmt.Errorf("group %d: entry %d at %d", id, e.GetIndex(), first+uint64(i))
			}
			if term, err := g.Term(e.GetIndex()); err != nil || term != e.GetTerm() {
				return "", fmt.Errorf("group %d: Term(%d) = %d, %v; entry has %d", id, e.GetIndex(), term, err, e.GetTerm())
			}
			fmt.Fprint(&out, brief(e))
		}
		fmt.Fprintln(&out)
	}
	return out.String(), nil
}

func brief(e *pb.Entry) string {
	return fmt.Sprintf(" %d/%d/%d/%d:%08x", e.GetIndex(), e.GetTerm(), e.GetType(), len(e.Data), crc32.ChecksumIEEE(e.Data))
}

func mustDump(t testing.TB, l *Log) string {
	t.Helper()
	s, err := dump(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCommittedStateSurvivesReopen(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) {
		b.SetSnapshot(7, &pb.SnapshotMetadata{ConfState: &pb.ConfState{Voters: []uint64{1, 2}}})
		b.Append(7, hard(2, 1, 3), run(1, 5, 2, 100))
		b.Append(3, nil, run(1, 2, 1, 0))
		b.Append(9, hard(1, 0, 0), nil)
	})
	mustCommit(t, l, true, func(b *Batch) {
		b.Append(7, nil, run(4, 3, 3, 50)) // replaces 4 and 5
		b.SetConfState(7, &pb.ConfState{Voters: []uint64{1, 2, 3}})
		b.Truncate(7, 2)
		b.Remove(9)
	})
	want := mustDump(t, l)
	l = reopen(t, l, opts)
	defer mustClose(t, l)
	if got := mustDump(t, l); got != want {
		t.Errorf("after reopen:\n%swant:\n%s", got, want)
	}
	if got := l.Groups(); !slices.Equal(got, []uint64{3, 7}) {
		t.Errorf("groups %v", got)
	}
}

func TestStorageAnswersAsRaftExpects(t *testing.T) {
	l := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	hs, cs, err := l.Group(1).InitialState()
	if hs != nil || cs == nil || err != nil {
		t.Fatalf("InitialState of a new group: %v, %v, %v", hs, cs, err)
	}
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 10, 4, 10)); b.Truncate(1, 3) })
	mustCommit(t, l, true, func(b *Batch) { b.Truncate(1, 3); b.Truncate(1, 99) }) // both change nothing
	g := l.Group(1)
	for _, tt := range []struct {
		i    uint64
		term uint64
		err  error
	}{{2, 0, raft.ErrCompacted}, {3, 4, nil}, {4, 4, nil}, {10, 4, nil}, {11, 0, raft.ErrUnavailable}} {
		if term, err := g.Term(tt.i); term != tt.term || err != tt.err {
			t.Errorf("Term(%d) = %d, %v; want %d, %v", tt.i, term, err, tt.term, tt.err)
		}
	}
	each := uint64(2 + 2 + 2 + 2 + 10)
	for _, tt := range []struct {
		lo, hi, max uint64
		n           int
		err         error
	}{
		{3, 5, 1000, 0, raft.ErrCompacted},
		{4, 12, 1000, 0, raft.ErrUnavailable},
		{4, 11, math.MaxUint64, 7, nil},
		{4, 11, 0, 1, nil},
		{4, 11, 3 * each, 3, nil},
		{4, 11, 4*each - 1, 3, nil},
		{5, 5, 100, 0, nil},
	} {
		ents, err := g.Entries(tt.lo, tt.hi, tt.max)
		if len(ents) != tt.n || err != tt.err {
			t.Errorf("Entries(%d, %d, %d) = %d entries, %v; want %d, %v", tt.lo, tt.hi, tt.max, len(ents), err, tt.n, tt.err)
		}
	}
	if _, err := g.Snapshot(); err != raft.ErrSnapshotTemporarilyUnavailable {
		t.Errorf("Snapshot: %v", err)
	}
}

// A one-node group must be able to elect itself and commit over this storage: the interface as raft uses it.
func TestRawNodeRunsOverTheLog(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) {
		b.SetSnapshot(1, &pb.SnapshotMetadata{ConfState: &pb.ConfState{Voters: []uint64{5}}})
	})
	for round := range 3 {
		node, err := raft.NewRawNode(&raft.Config{ID: 5, ElectionTick: 10, HeartbeatTick: 1, Storage: l.Group(1),
			MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 10})
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Campaign(); err != nil {
			t.Fatal(err)
		}
		committed := 0
		for i := 0; i < 200; i++ {
			if i < 50 && node.BasicStatus().RaftState == raft.StateLeader {
				if err := node.Propose([]byte(fmt.Sprint(round, i))); err != nil {
					t.Fatal(err)
				}
			}
			if !node.HasReady() {
				continue
			}
			rd := node.Ready()
			mustCommit(t, l, rd.MustSync, func(b *Batch) { b.Append(1, rd.HardState, rd.Entries) })
			for _, e := range rd.CommittedEntries {
				if len(e.Data) > 0 {
					committed++
				}
			}
			node.Advance(rd)
		}
		last, _ := l.Group(1).LastIndex()
		if committed < 40 || last < uint64(committed) {
			t.Fatalf("round %d: %d committed, last index %d", round, committed, last)
		}
		l = reopen(t, l, opts)
	}
	mustClose(t, l)
}

func TestSegmentsGoWhenNothingInThemIsNeeded(t *testing.T) {
	for _, background := range []bool{false, true} {
		fs := vfs.NewMem()
		opts := testOptions(fs)
		opts.NoBackground = !background
		l := mustOpen(t, opts)
		for i := uint64(1); i <= 400; i++ {
			mustCommit(t, l, true, func(b *Batch) {
				b.Append(1, hard(1, 1, i), run(i, 1, 1, 200))
				if i > 10 {
					b.Truncate(1, i-10)
				}
			})
		}
		want := mustDump(t, l)
		l = reopen(t, l, opts)
		if got := mustDump(t, l); got != want {
			t.Errorf("after reopen:\n%swant:\n%s", got, want)
		}
		mustCommit(t, l, true, func(b *Batch) { b.Truncate(1, 400) })
		mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(401, 1, 1, 3500)) })
		if m := l.Metrics(); m.Segments > 3 {
			t.Errorf("background %v: %d segments stay", background, m.Segments)
		}
		mustClose(t, l)
	}
}

func TestIdleGroupDoesNotPinSegments(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) { b.Append(2, hard(1, 1, 1), run(1, 3, 1, 100)) })
	for i := uint64(1); i <= 400; i++ {
		mustCommit(t, l, true, func(b *Batch) {
			b.Append(1, nil, run(i, 1, 1, 200))
			if i > 10 {
				b.Truncate(1, i-10)
			}
		})
	}
	m := l.Metrics()
	if m.Segments > keepSegments+3 || m.Rewritten == 0 {
		t.Errorf("%d segments, %d bytes moved", m.Segments, m.Rewritten)
	}
	want := mustDump(t, l)
	l = reopen(t, l, opts)
	defer mustClose(t, l)
	if got := mustDump(t, l); got != want {
		t.Errorf("after reopen:\n%swant:\n%s", got, want)
	}
}

func TestBatchLargerThanASegmentGetsItsOwn(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 3, 1, 100_000)) })
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(4, 3, 1, 100)) })
	want := mustDump(t, l)
	l = reopen(t, l, opts)
	defer mustClose(t, l)
	if got := mustDump(t, l); got != want {
		t.Error("content differs after reopen")
	}
}

func TestEntriesStayValidAfterTruncation(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	l := mustOpen(t, opts)
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 20, 1, 300)) })
	for _, from := range []string{"cache", "disk"} {
		first, _ := l.Group(1).FirstIndex()
		ents, err := l.Group(1).Entries(first, first+5, math.MaxUint64)
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, l, true, func(b *Batch) { b.Truncate(1, first+4) })
		mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(15, 6, 2, 10)) })
		for i, e := range ents {
			want := run(first+uint64(i), 1, 1, 300)[0]
			if e.GetIndex() != want.GetIndex() || !bytes.Equal(e.Data, want.Data) {
				t.Errorf("from %s: entry %d changed", from, want.GetIndex())
			}
		}
		l = reopen(t, l, opts) // the next round reads the disk
	}
	mustClose(t, l)
}

func TestCacheIsBoundedAndEvictedEntriesComeFromDisk(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	opts.SegmentBytes = 1 << 20
	l := mustOpen(t, opts)
	defer mustClose(t, l)
	mustCommit(t, l, true, func(b *Batch) {
		b.Append(1, nil, run(1, 50, 1, 1000))
		b.Append(2, nil, run(1, 50, 1, 1000))
	})
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(51, 50, 1, 1000)) })
	want := mustDump(t, l)
	before := l.cache.used
	for _, limit := range []int64{before, 60_000, 10_000, 0} {
		l.cache.evict(limit)
		if l.cache.used > limit {
			t.Errorf("cache has %d bytes, limit %d", l.cache.used, limit)
		}
		if got := mustDump(t, l); got != want {
			t.Errorf("content differs with a cache of %d bytes", limit)
		}
	}
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(90, 5, 2, 1000)) })
	if want := cacheCost(run(90, 5, 2, 1000)); l.cache.used != want {
		t.Errorf("cache has %d bytes, want %d", l.cache.used, want)
	}
	mustDump(t, l)
}

func TestGapInAGroupsLogPanicsBeforeAnythingIsWritten(t *testing.T) {
	l := mustOpen(t, testOptions(vfs.NewMem()))
	defer mustClose(t, l)
	mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(1, 5, 1, 10)); b.Truncate(1, 2) })
	mustCommit(t, l, true, func(b *Batch) { b.Truncate(1, 2) })
	before := l.Metrics().Frames
	for _, first := range []uint64{7, 100} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("append at %d after 5 went through", first)
				}
			}()
			b := l.NewBatch()
			b.Append(1, nil, run(first, 1, 1, 10))
			l.Commit(b, true)
		}()
	}
	if l.Metrics().Frames != before {
		t.Error("a frame was written")
	}
}

func TestCallsAfterCloseReturnErrClosed(t *testing.T) {
	l := mustOpen(t, testOptions(vfs.NewMem()))
	mustClose(t, l)
	if err := l.Commit(l.NewBatch(), true); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if err := l.Seal(); !errors.Is(err, ErrClosed) {
		t.Errorf("Seal: %v", err)
	}
	if err := l.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("Close: %v", err)
	}
}

// checkInvariants recounts what the log keeps count of.
func checkInvariants(t testing.TB, l *Log) {
	t.Helper()
	var cached int64
	live := make(map[*segment]int64)
	for _, g := range l.all() {
		if len(g.cache) > len(g.locs) || g.missing != 0 {
			t.Fatalf("group %d: %d cached of %d, %d missing", g.id, len(g.cache), len(g.locs), g.missing)
		}
		cached += cacheCost(g.cache)
		var bytes int64
		for i, loc := range g.locs {
			bytes += loc.bytes()
			live[loc.seg] += loc.bytes()
			if i > 0 && loc.seg.id < g.locs[i-1].seg.id {
				t.Fatalf("group %d: entry %d is in an older segment than the one before", g.id, g.trunc+1+uint64(i))
			}
		}
		if g.bytes != bytes {
			t.Fatalf("group %d counts %d bytes and has %d", g.id, g.bytes, bytes)
		}
	}
	if l.cache.used != cached {
		t.Fatalf("cache counts %d bytes and has %d", l.cache.used, cached)
	}
	for _, s := range l.segs {
		if s.live != live[s] {
			t.Fatalf("segment %d counts %d bytes and has %d", s.id, s.live, live[s])
		}
		delete(live, s)
	}
	if len(live) > 0 {
		t.Fatalf("entries are in segments that the log does not have: %v", live)
	}
}

// A segment prepared beside the commits is used, and is whole, also when it is larger than one piece of preparing.
func TestPreparedSegmentIsUsed(t *testing.T) {
	fs := vfs.NewMem()
	opts := testOptions(fs)
	opts.NoBackground, opts.SegmentBytes = false, 3<<20
	l := mustOpen(t, opts)
	for i := uint64(1); i <= 80; i++ {
		mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(i, 1, 1, 100_000)) })
		l.house.wg.Wait()
	}
	if m := l.Metrics(); m.SpareMisses > 0 || m.Segments < 3 {
		t.Errorf("%d segments, %d not prepared", m.Segments, m.SpareMisses)
	}
	want := mustDump(t, l)
	l = reopen(t, l, opts)
	defer mustClose(t, l)
	if got := mustDump(t, l); got != want {
		t.Error("content differs after reopen")
	}
	for name := range files(t, fs, "log") {
		if _, ok := parseSegmentName(name); !ok {
			t.Errorf("%s stays", name)
		}
	}
}

// Groups are read while commits truncate them and their segments are removed: what is returned is right, or gone.
func TestReadersMeetTruncationAndRemoval(t *testing.T) {
	opts := testOptions(vfs.NewMem())
	opts.NoBackground = false
	l := mustOpen(t, opts)
	const n = 300
	for i := uint64(1); i <= n; i++ {
		mustCommit(t, l, true, func(b *Batch) { b.Append(1, nil, run(i, 1, 1, 300)) })
	}
	l = reopen(t, l, opts) // the first n entries are on disk only
	defer mustClose(t, l)
	var readers sync.WaitGroup
	var done atomic.Bool
	for r := range uint64(2) {
		readers.Go(func() {
			rng := newRand(r)
			for !done.Load() {
				lo := 1 + rng.Uint64N(n)
				ents, err := l.Group(1).Entries(lo, lo+1+rng.Uint64N(20), 4000)
				if err != nil && err != raft.ErrCompacted && err != raft.ErrUnavailable {
					t.Errorf("Entries: %v", err)
					return
				}
				for i, e := range ents {
					want := run(lo+uint64(i), 1, 1, 300)[0]
					if e.GetIndex() != want.GetIndex() || !bytes.Equal(e.Data, want.Data) {
						t.Errorf("entry %d is not what was written", want.GetIndex())
						return
					}
				}
				l.Group(1).Term(lo)
				l.Metrics()
			}
		})
	}
	for i := uint64(1); i < n; i++ {
		mustCommit(t, l, i%2 == 0, func(b *Batch) {
			b.Truncate(1, i)
			b.Append(1, nil, run(n+i, 1, 1, 300))
		})
	}
	done.Store(true)
	readers.Wait()
}

// files returns the content of a log's directory.
func files(t testing.TB, fs vfs.FS, dir string) map[string][]byte {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]byte)
	for _, name := range names {
		f, err := fs.Open(fs.PathJoin(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		out[name] = data
	}
	return out
}

// memory returns a file system with the given files in dir "log".
func memory(t testing.TB, content map[string][]byte) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range content {
		f, err := fs.Create("log/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(data)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return fs
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }
