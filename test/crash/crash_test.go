package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var (
	seed   = flag.Uint64("seed", 1, "of the workload and of what a crash leaves")
	rounds = flag.Int("rounds", 400, "things that each client does")
	point  = flag.Int64("point", 0, "crash at this operation only; 0: at every one")
)

const (
	wantPoints = 3000 // at least: docs/reliability.md promises them
	lives      = 4    // the workload is stopped and started between, so that this is crashed too
)

// draws are the shares of what was not synced that a crash leaves, in percent; -1 for any.
var draws = []int{0, 100, -1}

// writeOps are the operations that change what is on the disk, or make it durable.
var writeOps = []errorfs.OpKind{
	errorfs.OpCreate, errorfs.OpLink, errorfs.OpRemove, errorfs.OpRemoveAll, errorfs.OpRename, errorfs.OpReuseForWrite, errorfs.OpMkdirAll,
	errorfs.OpFilePreallocate, errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo,
}

// each calls f before every operation on mem that changes the disk.
func each(mem *vfs.MemFS, f func(op errorfs.Op)) vfs.FS {
	return errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpOpen {
			if _, err := mem.Stat(op.Path); err != nil {
				f(op) // by OpenReadWrite, which makes the file; or of one that is not there
			}
		} else if slices.Contains(writeOps, op.Kind) {
			f(op)
		}
		return nil
	}))
}

// kindOf names what an operation is part of.
func kindOf(op errorfs.Op) string {
	syncs := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
	writes := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt
	verb := map[errorfs.OpKind]string{
		errorfs.OpOpen: "create", errorfs.OpCreate: "create", errorfs.OpLink: "link", errorfs.OpRemove: "remove", errorfs.OpRemoveAll: "remove",
		errorfs.OpRename: "rename", errorfs.OpReuseForWrite: "reuse", errorfs.OpMkdirAll: "make", errorfs.OpFilePreallocate: "preallocate",
	}[op.Kind]
	switch {
	case syncs:
		verb = "sync"
	case writes:
		verb = "write"
	}
	switch {
	case strings.HasSuffix(op.Path, ".seg.tmp") && op.Kind == errorfs.OpRename:
		return "begin a segment"
	case strings.Contains(op.Path, ".seg"):
		return verb + " a segment"
	case strings.HasSuffix(op.Path, ".sst"):
		return verb + " a table"
	case strings.Contains(op.Path, "marker.manifest") && op.Kind == errorfs.OpCreate:
		return "put a MANIFEST in force"
	case strings.Contains(op.Path, "MANIFEST-"):
		return verb + " a MANIFEST"
	case strings.Contains(op.Path, "WITNESS"):
		return verb + " the witness"
	case op.Path == LogDir, op.Path == StateDir, op.Path == ".", op.Path == "/", op.Path == "":
		return verb + " a directory"
	}
	return verb + " another file"
}

// crashed is a disk as a power cut left it, and what may be on it.
type crashed struct {
	index   int64 // of the operation that the cut came before
	draw    int
	op      string
	percent int
	fs      *vfs.MemFS
	spans   []Span
}

func (c crashed) String() string {
	return fmt.Sprintf("operation %d (%s), draw %d, %d%% of what was not synced left, seed %d", c.index, c.op, c.draw, c.percent, *seed)
}

func (c crashed) rng() *rand.Rand {
	return rand.New(rand.NewPCG(*seed, uint64(c.index)<<8|uint64(c.draw)))
}

// cut takes the disk as a crash now would leave it.
func cut(mem *vfs.MemFS, index int64, draw int, op errorfs.Op, ledgers []*Ledger) crashed {
	c := crashed{index: index, draw: draw, op: fmt.Sprintf("kind %d on %s", op.Kind, op.Path), percent: draws[draw]}
	rng := c.rng()
	if c.percent < 0 {
		c.percent = 1 + rng.IntN(99)
	}
	c.spans = Acked(ledgers)
	c.fs = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: c.percent, RNG: rng})
	Asked(ledgers, c.spans)
	return c
}

// recover starts an engine on what a crash left, and looks at it. again, if not nil, is called before every
// operation of the restart.
func (c crashed) recover(ctx context.Context, again func(errorfs.Op)) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // only a region that hangs takes it
	defer cancel()
	var fs vfs.FS = c.fs
	if again != nil {
		fs = each(c.fs, again)
	}
	e, err := Open(fs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Run(ctx); err != nil {
		return err
	}
	if err := Check(ctx, e, c.spans); err != nil {
		return err
	}
	if c.index%16 == 0 {
		return e.Scrub(ctx)
	}
	return nil
}

// The power fails before every operation that the workload has the disk do, with none, all, or some of what
// was not synced kept; for one in eight it fails again while the region recovers from that.
func TestPowerCutAtEveryOperationLosesNothingAcknowledged(t *testing.T) {
	if testing.Short() {
		*rounds /= 8
	}
	// Each restart leaves a megabyte of garbage and keeps next to nothing.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	mem := vfs.NewCrashableMem()
	w := NewWorkload(*seed)
	var points, reopened, twice atomic.Int64
	kinds := map[string]int{}

	jobs := make(chan crashed, 2*len(draws)) // bounded: each is a whole disk
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for c := range jobs {
				if t.Failed() {
					continue
				}
				reopened.Add(1)
				if c.index%8 != 0 {
					if err := c.recover(t.Context(), nil); err != nil {
						t.Errorf("power cut before %v\n%v", c, err)
					}
					continue
				}
				// The second cut: what the ledgers say is the same, since nothing more was acknowledged.
				rng := c.rng()
				at, n := 1+rng.Int64N(60), atomic.Int64{}
				var second *vfs.MemFS
				var once sync.Mutex
				cutAgain := func() {
					once.Lock()
					defer once.Unlock()
					if second == nil {
						second = c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
					}
				}
				err := c.recover(t.Context(), func(errorfs.Op) {
					if n.Add(1) == at {
						cutAgain()
					}
				})
				if err != nil {
					t.Errorf("power cut before %v\n%v", c, err)
				}
				cutAgain() // unless it has
				again := c
				again.fs = second
				reopened.Add(1)
				twice.Add(1)
				if err := again.recover(t.Context(), nil); err != nil {
					t.Errorf("power cut before %v, and again before operation %d of the recovery\n%v", c, at, err)
				}
			}
		})
	}

	var one sync.Mutex // of the cuts: operations of Pebble's goroutines come side by side
	fs := each(mem, func(op errorfs.Op) {
		one.Lock()
		defer one.Unlock()
		index := points.Add(1)
		kinds[kindOf(op)]++
		if *point != 0 && index != *point {
			return
		}
		for draw := range draws {
			jobs <- cut(mem, index, draw, op, w.Ledgers)
		}
	})
	var entries, frames, syncs, flushes, compactions int64
	for range lives {
		e, err := Open(fs)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(e.Run(t.Context()), w.Run(t.Context(), e, *rounds/lives), e.Failed()); err != nil {
			t.Error(err)
		}
		log, state := e.Log.Metrics(), e.Store.Metrics()
		entries, frames, syncs = entries+log.Entries, frames+log.Frames, syncs+log.Syncs
		flushes, compactions = flushes+state.Flushes, compactions+state.Compactions
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	close(jobs)
	workers.Wait()

	t.Logf("%d crash points, %d restarts, %d of them after a second crash", points.Load(), reopened.Load(), twice.Load())
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%6d %s", kinds[kind], kind)
	}
	t.Logf("the workload: %d entries in %d frames, %d syncs, %d flushes, %d compactions", entries, frames, syncs, flushes, compactions)
	if *point != 0 || testing.Short() {
		return
	}
	if points.Load() < wantPoints || reopened.Load() < 3*wantPoints {
		t.Errorf("%d crash points and %d restarts: want %d and %d", points.Load(), reopened.Load(), wantPoints, 3*wantPoints)
	}
	for _, what := range []string{"begin a segment", "remove a segment", "write the witness", "put a MANIFEST in force", "write a table", "sync a table"} {
		if kinds[what] == 0 {
			t.Errorf("the workload did not %s", what)
		}
	}
	if flushes < 10 || compactions < 2 {
		t.Errorf("%d flushes and %d compactions are too few", flushes, compactions)
	}
}

// The checks find what they are there for: a ledger that is wrong by one state.
func TestCheckFindsALostOrInventedWrite(t *testing.T) {
	mem := vfs.NewCrashableMem()
	w := NewWorkload(*seed)
	e, err := Open(mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.Run(t.Context()), w.Run(t.Context(), e, 16)); err != nil {
		t.Fatal(err)
	}
	whole := cut(mem, 0, 1, errorfs.Op{}, w.Ledgers)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range w.Ledgers[1:] {
		spans := Acked(w.Ledgers)
		Asked(w.Ledgers, spans)
		for i := range spans {
			if spans[i].Client == l.Client {
				spans[i].states = []State{spans[i].states[0].with("orders/99", "never")}
			}
		}
		c := whole
		c.fs, c.spans = whole.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), spans
		if err := c.recover(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "client "+l.Client) {
			t.Errorf("%s lost a write: %v", l.Client, err)
		}
	}
}
