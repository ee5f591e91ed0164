package group

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// Goal: an answer means durable, applied once and visible. Method: Step is driven by hand over a real log
// and a real store on memory disks, so that the test knows what had happened when an answer came.

// notes is a machine that writes down the names of the catalog commands it is given.
type notes struct {
	key     []byte
	store   *storage.Store
	applied uint64
	names   []string // since it was opened
	during  func()   // nil, or called as commands are applied
}

func openNotes(t *testing.T, store *storage.Store, id uint64) *notes {
	t.Helper()
	n := &notes{key: fmt.Appendf(nil, "notes/%d", id), store: store}
	value, err := store.Get(nil, n.key)
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	if err == nil {
		n.applied = binary.BigEndian.Uint64(value)
	}
	return n
}

func (n *notes) Apply(index uint64, c *op.Command, b *storage.Batch) op.Result {
	if index != max(n.applied, 1)+1 {
		panic(fmt.Sprintf("entry %d behind entry %d", index, n.applied))
	}
	n.applied = index
	if c == nil {
		return op.Result{}
	}
	n.names = append(n.names, c.Name)
	if n.during != nil {
		n.during()
	}
	b.Set(append(slices.Clone(n.key), c.Name...), []byte("noted"))
	return op.Result{Revision: index}
}

func (n *notes) Finish(b *storage.Batch) { b.Set(n.key, binary.BigEndian.AppendUint64(nil, n.applied)) }
func (n *notes) Committed()              {}
func (n *notes) Bounds() [][2][]byte     { return n.Ranges() }
func (n *notes) Ranges() [][2][]byte     { return [][2][]byte{{n.key, append(slices.Clone(n.key), 0xFF)}} }
func (n *notes) Reload() error           { return errors.New("one voter needs no snapshot") }
func (n *notes) Applied() uint64         { return n.applied }
func (n *notes) AppliedKey() []byte      { return n.key }

// syncs counts the syncs of a file system's files, and fails them when told to.
type syncs struct {
	vfs.FS
	n     atomic.Int64
	fails atomic.Bool
}

var errDisk = errors.New("the disk is gone")

func (s *syncs) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return syncFile{f, s}, err
}

func (s *syncs) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := s.FS.OpenReadWrite(name, c, o...)
	return syncFile{f, s}, err
}

func (s *syncs) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, c)
	return syncFile{f, s}, err
}

type syncFile struct {
	vfs.File
	s *syncs
}

func (f syncFile) synced() error {
	if f.s.fails.Load() {
		return errDisk
	}
	f.s.n.Add(1)
	return nil
}

func (f syncFile) Sync() error     { return errors.Join(f.synced(), f.File.Sync()) }
func (f syncFile) SyncData() error { return errors.Join(f.synced(), f.File.SyncData()) }

// node is a host with what it stands on.
type node struct {
	t     *testing.T
	fs    *vfs.MemFS
	disk  *syncs
	log   *raftlog.Log
	store *storage.Store
	host  *Host
	fatal []error
}

func openNode(t *testing.T, fs *vfs.MemFS) *node {
	t.Helper()
	n := &node{t: t, fs: fs, disk: &syncs{FS: fs}}
	var err error
	if n.log, err = raftlog.Open(raftlog.Options{FS: n.disk, Dir: "log", Salt: 1, NoBackground: true, SegmentBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if n.store, err = storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10}); err != nil {
		t.Fatal(err)
	}
	n.host = NewHost(Config{NodeID: 1, Log: n.log, Store: n.store, Now: func() time.Time { return time.UnixMilli(1000) }, Fatal: func(err error) { n.fatal = append(n.fatal, err) }})
	return n
}

func (n *node) open(id uint64) (*Group, *notes) {
	n.t.Helper()
	m := openNotes(n.t, n.store, id)
	g, err := n.host.Open(id, m, nil, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	n.host.Step()
	return g, m
}

// crash ends the node as a loss of power would, and returns what the disk then has.
func (n *node) crash() *vfs.MemFS {
	n.t.Helper()
	fs := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})
	n.close()
	return fs
}

func (n *node) close() {
	if err := n.store.CloseWithoutFlush(); err != nil {
		n.t.Error(err)
	}
	if err := n.log.Close(); err != nil && len(n.fatal) == 0 {
		n.t.Error(err)
	}
}

func note(name string) *op.Command { return &op.Command{Kind: op.Catalog, Name: name} }

// propose submits without waiting.
func (n *node) propose(g *Group, c *op.Command) *proposal {
	n.t.Helper()
	p := n.host.newProposal(g, c)
	if err := n.host.submit(p); err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (p *proposal) answered() bool { return len(p.done) > 0 }

func TestProposalsOfManyGroupsShareOneSync(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	var groups []*Group
	for id := range uint64(8) {
		g, _ := n.open(id + 1)
		groups = append(groups, g)
	}
	before := n.log.Metrics()
	var waiting []*proposal
	for i, g := range groups {
		for j := range 5 {
			waiting = append(waiting, n.propose(g, note(fmt.Sprint(i, j))))
		}
	}
	n.host.Step()
	after := n.log.Metrics()
	if got := after.Syncs - before.Syncs; got != 1 {
		t.Errorf("%d syncs", got)
	}
	if got := after.Entries - before.Entries; got != 40 {
		t.Errorf("%d entries", got)
	}
	for i, p := range waiting {
		if !p.answered() || p.err != nil || p.result.Revision == 0 {
			t.Errorf("proposal %d: answered %v, %v, %+v", i, p.answered(), p.err, p.result)
		}
	}
}

func TestAnAnswerIsDurableAndVisible(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	g, _ := n.open(1)
	syncs := n.disk.n.Load()
	p := n.propose(g, note("a"))
	if p.answered() {
		t.Fatal("answered before anything was done")
	}
	n.host.Step()
	if !p.answered() || p.err != nil {
		t.Fatalf("answered %v, %v", p.answered(), p.err)
	}
	if got := n.disk.n.Load(); got <= syncs {
		t.Errorf("answered behind %d syncs, as many as before", got)
	}
	if _, err := n.store.Get(nil, []byte("notes/1a")); err != nil {
		t.Errorf("answered, and not visible: %v", err)
	}
	n = openNode(t, n.crash())
	defer n.close()
	if _, m := n.open(1); !slices.Equal(m.names, []string{"a"}) {
		t.Errorf("after a crash: %q", m.names)
	}
}

func TestAFailedSyncIsFatalAndNeverAnswered(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	g, m := n.open(1)
	n.disk.fails.Store(true)
	p := n.propose(g, note("lost"))
	n.host.Step()
	if len(n.fatal) == 0 || !errors.Is(n.fatal[0], errDisk) {
		t.Fatalf("Fatal got %v", n.fatal)
	}
	if p.answered() && p.err == nil || len(m.names) > 0 {
		t.Errorf("answered %v, applied %q", p.answered(), m.names)
	}
	// A disk that comes back is not to be believed: what it lost, nobody knows.
	n.disk.fails.Store(false)
	batch := n.log.NewBatch()
	batch.Remove(77)
	if err := n.log.Commit(batch, true); err == nil {
		t.Error("the log goes on after a failed sync")
	}
	if p.answered() && p.err == nil {
		t.Error("answered")
	}
}

func TestAReplayAppliesEachEntryOnce(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	g, _ := n.open(1)
	want := []string{}
	for i := range 10 {
		n.propose(g, note(fmt.Sprint(i)))
		n.host.Step()
		if i == 4 {
			if err := n.store.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if i > 4 {
			want = append(want, fmt.Sprint(i))
		}
	}
	for range 3 { // the store lost what was not flushed; the log has it, each time again
		n = openNode(t, n.crash())
		g, m := n.open(1)
		select {
		case <-g.ready:
		default:
			t.Fatal("not ready after a step")
		}
		if !slices.Equal(m.names, want) {
			t.Fatalf("replayed %q, want %q", m.names, want)
		}
	}
	p := n.propose(n.host.groups[1], note("more"))
	n.host.Step()
	if !p.answered() || p.err != nil {
		t.Errorf("behind the replay: %v, %v", p.answered(), p.err)
	}
	n.close()
}

func TestTheLogIsTruncatedToWhatIsFlushed(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	g, m := n.open(1)
	first := func() uint64 {
		t.Helper()
		i, err := n.log.Group(1).FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	for i := range 10 {
		n.propose(g, note(fmt.Sprint(i)))
	}
	n.host.Step()
	before := first()
	n.host.Flushed()
	n.host.Step()
	if first() != before {
		t.Fatalf("truncated from %d to %d, and nothing was flushed", before, first())
	}
	if err := n.store.Flush(); err != nil {
		t.Fatal(err)
	}
	flushed := m.applied
	n.propose(g, note("later"))
	n.host.Flushed()
	n.host.Step()
	if first() != flushed+1 {
		t.Errorf("the log begins at %d, flushed is %d", first(), flushed)
	}
	n = openNode(t, n.crash())
	defer n.close()
	if _, m := n.open(1); !slices.Equal(m.names, []string{"later"}) {
		t.Errorf("replayed %q", m.names)
	}
}

func TestAStateFromAnotherLogIsRefused(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	m := openNotes(t, n.store, 1)
	m.applied = 1000
	if _, err := n.host.Open(1, m, nil, nil); err == nil || !strings.Contains(err.Error(), "one of them is not this node's") {
		t.Errorf("got %v", err)
	}
}

func TestARemovedGroupFailsWhatWaits(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	g, m := n.open(1)
	kept, _ := n.open(2)
	n.propose(g, note("before"))
	n.host.Step()
	// Submitted before, taken up by the same step: the removal comes first.
	waits, other := n.propose(g, note("waits")), n.propose(kept, note("other"))
	removed := make(chan error, 1)
	go func() { removed <- n.host.Remove(t.Context(), g) }()
	<-n.removal()
	n.host.Step()
	if err := <-removed; err != nil {
		t.Fatal(err)
	}
	if !waits.answered() || !errors.Is(waits.err, ErrGone) || !slices.Equal(m.names, []string{"before"}) {
		t.Errorf("answered %v, %v; applied %q", waits.answered(), waits.err, m.names)
	}
	if !other.answered() || other.err != nil {
		t.Errorf("another group's: %v, %v", other.answered(), other.err)
	}
	if _, err := g.Propose(t.Context(), note("after")); !errors.Is(err, ErrGone) {
		t.Errorf("Propose: %v", err)
	}
	if err := g.Read(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("Read: %v", err)
	}
	if n.host.waiting != 0 {
		t.Errorf("%d still count as waiting", n.host.waiting)
	}
	n = openNode(t, n.crash())
	defer n.close()
	if first, err := n.log.Group(1).LastIndex(); err != nil || first != 0 {
		t.Errorf("its log ends at %d, %v", first, err)
	}
}

// removal returns a channel that is closed once the host has a call to make.
func (n *node) removal() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		for {
			n.host.mu.Lock()
			there := len(n.host.calls) > 0
			n.host.mu.Unlock()
			if there {
				return
			}
			<-n.host.wake
		}
	}()
	return c
}

func TestMoreThanMayWaitIsRefusedAtOnce(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	g, m := n.open(1)
	for range maxWaiting {
		n.propose(g, note("x"))
	}
	if _, err := g.Propose(t.Context(), note("one more")); !errors.Is(err, ErrOverloaded) {
		t.Errorf("got %v", err)
	}
	n.host.Step()
	if len(m.names) != maxWaiting || n.host.waiting != 0 {
		t.Errorf("%d applied, %d waiting", len(m.names), n.host.waiting)
	}
	p := n.propose(g, note("again"))
	if n.host.Step(); !p.answered() || p.err != nil {
		t.Errorf("with room again: %v", p.err)
	}
}

func TestWhatIsLeftAtTheEndIsAnsweredClosed(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	g, m := n.open(1)
	left := n.propose(g, note("left"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	<-n.host.wake // Run may choose to step first otherwise
	if err := n.host.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !left.answered() || !errors.Is(left.err, ErrClosed) || len(m.names) > 0 {
		t.Errorf("answered %v, %v; applied %q", left.answered(), left.err, m.names)
	}
	if _, err := g.Propose(t.Context(), note("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("Propose: %v", err)
	}
	if err := n.host.Remove(t.Context(), g); !errors.Is(err, ErrClosed) {
		t.Errorf("Remove: %v", err)
	}
}

func TestACallerWhoGivesUpDoesNotKnowTheOutcome(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	g, m := n.open(1)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the client hung up")
	cancel(cause)
	if _, err := g.Propose(ctx, note("a")); !errors.Is(err, ErrUnknown) || !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	n.host.Step()
	if !slices.Equal(m.names, []string{"a"}) || n.host.waiting != 0 {
		t.Errorf("applied %q, %d waiting", m.names, n.host.waiting)
	}
}

func TestWritesAreStampedWhenTheyAreProposed(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	g, _ := n.open(1)
	p := n.propose(g, &op.Command{Kind: op.Put, HLC: 7, Key: []byte("k"), Item: []byte("i")})
	fold := n.propose(g, &op.Command{Kind: op.Fold, HLC: 7})
	n.host.Step()
	want := crdt.At(1000, 0)
	if p.cmd.HLC != want || fold.cmd.HLC != 7 {
		t.Errorf("stamped %v and %v, want %v and 7", p.cmd.HLC, fold.cmd.HLC, want)
	}
	entries, err := n.log.Group(1).Entries(p.index, p.index+1, 1<<20)
	if err != nil || len(entries) != 1 || !bytes.Equal(entries[0].GetData(), p.cmd.Append(nil)) {
		t.Errorf("the log has %v, %v", entries, err)
	}
}

func TestAReadWaitsForTheReplay(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	g, err := n.host.Open(1, openNotes(t, n.store, 1), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("before the loop has run: %v", err)
	}
	n.host.Step()
	if err := g.Read(ctx); err != nil {
		t.Errorf("after it: %v", err)
	}
}
