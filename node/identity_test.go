package node

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// firstStart makes a node's directory as Open does, up to a first durable entry of the log.
func firstStart(fs vfs.FS) (id identity, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r) // Pebble's word for a directory that cannot be synced
		}
	}()
	if err := fs.MkdirAll("a/data", 0o755); err != nil {
		return id, err
	}
	if id, err = openIdentity(fs, "a/data", "us-east-1", "one", time.Unix(1_700_000_000, 0)); err != nil {
		return id, err
	}
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "a/data/" + logDir, Salt: id.Salt, SegmentBytes: 8 << 10, NoBackground: true})
	if err != nil {
		return id, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	var failed error
	store, err := storage.Open(storage.Options{FS: fs, Dir: "a/data/" + stateDir, CacheBytes: 64 << 10, MemTableBytes: 64 << 10, Fatal: func(err error) { failed = err }})
	if err != nil {
		return id, err
	}
	defer func() { err = errors.Join(err, store.CloseWithoutFlush()) }()
	b := log.NewBatch()
	b.Remove(7)
	return id, errors.Join(log.Commit(b, true), failed)
}

// changing are the operations that a crash may come between.
func changing(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpFileClose, errorfs.OpLock, errorfs.OpFileFlush:
		return false
	}
	return op.Kind.ReadOrWrite() == errorfs.OpIsWrite
}

// The power fails before every operation of the first start, and of the second: the node starts again, as who it
// was if it was anybody.
func TestPowerCutWhileADirectoryIsMadeLeavesOneThatOpens(t *testing.T) {
	fs := vfs.NewCrashableMem()
	points := 0
	var made identity
	check := func(crashed *vfs.MemFS, percent int, op errorfs.Op) {
		t.Helper()
		again, err := firstStart(crashed)
		if err != nil || made.Format != 0 && again != made {
			t.Errorf("before operation %d (kind %d on %s), %d%% left: %+v, %v; was %+v", points, op.Kind, op.Path, percent, again, err, made)
		}
	}
	var one sync.Mutex // Pebble has goroutines of its own
	injected := errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !changing(op) {
			return nil
		}
		one.Lock()
		defer one.Unlock()
		points++
		rng := rand.New(rand.NewPCG(1, uint64(points)))
		for _, percent := range []int{0, 100, 1 + rng.IntN(99)} {
			check(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), percent, op)
		}
		return nil
	}))
	for range 2 {
		id, err := firstStart(injected)
		if err != nil {
			t.Fatal(err)
		}
		one.Lock()
		made = id
		one.Unlock()
		check(fs.CrashClone(vfs.CrashCloneCfg{}), 0, errorfs.Op{})
	}
	t.Logf("%d crash points", points)
}

// The process is killed before every operation of the first start; the next one finds what was written, and has to
// make it durable though it did not write it. Then the power fails.
func TestPowerCutAfterAKilledFirstStartKeepsTheIdentity(t *testing.T) {
	killed := errors.New("killed")
	for at := 1; ; at++ {
		fs := vfs.NewCrashableMem()
		var n atomic.Int64
		_, err := firstStart(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if changing(op) {
				if n.Add(1) >= int64(at) {
					return killed
				}
			}
			return nil
		})))
		if err == nil {
			t.Logf("killed at %d operations", at-1)
			return
		}
		made, err := firstStart(fs)
		if err != nil {
			t.Fatalf("killed at operation %d: %v", at, err)
		}
		again, err := firstStart(fs.CrashClone(vfs.CrashCloneCfg{}))
		if err != nil || again != made {
			t.Errorf("killed at operation %d: %+v, %v; was %+v", at, again, err, made)
		}
	}
}

// Every bit of the identity is flipped, and it is cut at every length: it is refused, or read as it was.
func TestADamagedIdentityIsRefusedOrHarmless(t *testing.T) {
	fs := vfs.NewMem()
	made, err := firstStart(fs)
	if err != nil {
		t.Fatal(err)
	}
	const path = "a/data/" + identityFile
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	refused, harmless := 0, 0
	try := func(data []byte, what string) {
		t.Helper()
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(slices.Clone(data))
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		switch got, err := openIdentity(fs, "a/data", "us-east-1", "one", time.Unix(1_800_000_000, 0)); {
		case err != nil:
			refused++
		case got == made:
			harmless++
		default:
			t.Errorf("%s: read as %+v; was %+v", what, got, made)
		}
	}
	for off := range whole {
		for bit := range 8 {
			data := slices.Clone(whole)
			data[off] ^= 1 << bit
			try(data, fmt.Sprintf("bit %d of byte %d", bit, off))
		}
		try(whole[:off], fmt.Sprintf("cut to %d bytes", off))
	}
	try(make([]byte, len(whole)), "zeros")
	if err := fs.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(fs, "a/data", "us-east-1", "one", time.Unix(1_800_000_000, 0)); err == nil {
		t.Error("data without an identity was opened")
	}
	t.Logf("%d refused, %d harmless", refused, harmless)
}
