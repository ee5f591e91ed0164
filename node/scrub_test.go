package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// fastTime is a task.Runtime in which waiting takes no time but moves the clock, and which ends a context at a time.
type fastTime struct {
	task.Runtime
	at     time.Time
	end    time.Time
	cancel context.CancelFunc
}

func (f *fastTime) Wait(ctx context.Context, _ <-chan struct{}, d time.Duration) task.Woken {
	if ctx.Err() != nil || !f.at.Add(d).Before(f.end) {
		f.cancel()
		return task.Ended
	}
	f.at = f.at.Add(d)
	return task.Late
}

// scrubbed returns a scrubber of a little data on fs, which runs for so long.
func scrubbed(t *testing.T, fs vfs.FS, d time.Duration) (context.Context, *scrubber, *bytes.Buffer) {
	t.Helper()
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: 1, NoBackground: true})
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(store.CloseWithoutFlush(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	rng := rand.New(rand.NewPCG(1, 1))
	b := store.NewBatch()
	for i := range 2000 {
		value := make([]byte, 1000)
		for j := range value {
			value[j] = byte(rng.Uint32())
		}
		b.Set(fmt.Appendf(nil, "key %d", i), value)
	}
	if err := errors.Join(store.Commit(b), store.Flush()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	clock := &fastTime{at: time.Unix(1_700_000_000, 0)}
	clock.end, clock.cancel = clock.at.Add(d), cancel
	var logged bytes.Buffer
	return ctx, &scrubber{
		log: log, store: store, now: func() time.Time { return clock.at }, tasks: clock,
		logger: slog.New(slog.NewTextHandler(&logged, nil)), fatal: func(err error) { t.Errorf("fatal: %v", err) },
		audit: func(context.Context) (region.Audited, error) { return region.Audited{}, nil },
	}, &logged
}

func TestScrubReadsAllDataOnceADay(t *testing.T) {
	ctx, s, _ := scrubbed(t, vfs.NewMem(), 73*time.Hour)
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.passes.Load(); n != 4 {
		t.Errorf("%d passes in 73 hours", n)
	}
	if n := s.bytes.Load(); n < 4*2*2_000_000 {
		t.Errorf("%d bytes in 4 passes over the files and values of 2 MB", n)
	}
	if last := time.Unix(s.last.Load(), 0); last.Before(time.Unix(1_700_000_000, 0).Add(72 * time.Hour)) {
		t.Errorf("the last pass was completed at %v", last)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s.collectors()...)
	if families, err := r.Gather(); err != nil || len(families) != 3 {
		t.Errorf("%d metrics, %v", len(families), err)
	}
}

func TestScrubStopsWhenTold(t *testing.T) {
	ctx, s, logged := scrubbed(t, vfs.NewMem(), scrubAfter+2*time.Second)
	if err := s.Run(ctx); err != nil || s.passes.Load() != 0 || s.bytes.Load() == 0 {
		t.Errorf("%v, %d passes, %d bytes, %s", err, s.passes.Load(), s.bytes.Load(), logged)
	}
}

func TestDamageFoundByScrubIsFatal(t *testing.T) {
	for _, dir := range []string{"state", "log"} {
		fs := vfs.NewMem()
		ctx, s, logged := scrubbed(t, fs, 24*time.Hour)
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".sst") && !strings.HasSuffix(name, ".seg") {
				continue
			}
			f, err := fs.OpenReadWrite(dir+"/"+name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte{0xA5, 0x5A}, 70)
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		var fatal error
		s.fatal = func(err error) { fatal = err }
		err = s.Run(ctx)
		if err == nil || fatal == nil || !strings.Contains(logged.String(), "damaged") || s.passes.Load() != 0 {
			t.Errorf("%s: %v, fatal %v, logged %s", dir, err, fatal, logged)
		}
		var value *storage.CorruptionError
		if !errors.As(err, &value) && !errors.Is(err, raftlog.ErrCorrupt) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
