package crash

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// Where an engine's data is.
const (
	LogDir   = "log"
	StateDir = "state"
)

// Engine is one region on one file system: all of it that touches the disk.
type Engine struct {
	Log    *raftlog.Log
	Store  *storage.Store
	Region *region.Region

	failed atomic.Pointer[error] // what Fatal was first called with
	cancel context.CancelFunc
	done   chan error
}

// clock gives every engine a time of its own that only moves when it is looked at.
type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time { return time.UnixMilli(1_700_000_000_000 + c.ms.Add(1)) }

// Open opens log, store and region. Everything is small, so that a short workload has segments, flushes and
// compactions. Nothing moves before Run.
func Open(fs vfs.FS) (e *Engine, err error) {
	e = &Engine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
			e = nil
		}
	}()
	fatal := func(err error) { e.failed.CompareAndSwap(nil, &err) }
	if e.Log, err = raftlog.Open(raftlog.Options{FS: fs, Dir: LogDir, Salt: 7, SegmentBytes: 16 << 10, NoBackground: true}); err != nil {
		return e, err
	}
	var opened atomic.Pointer[region.Region]
	e.Store, err = storage.Open(storage.Options{FS: fs, Dir: StateDir, CacheBytes: 256 << 10, MemTableBytes: 64 << 10, Fatal: fatal, Flushed: func() {
		if r := opened.Load(); r != nil {
			r.Flushed()
		}
	}})
	if err != nil {
		return e, err
	}
	e.Region, err = region.Open(region.Config{
		Name: "us-east-1", Actor: crdt.NewActor("us-east-1", 1), NodeID: 1, Log: e.Log, Store: e.Store,
		Now: (&clock{}).now, Fatal: fatal,
	})
	if err != nil {
		return e, err
	}
	opened.Store(e.Region)
	return e, nil
}

// Run starts the region and waits until it has replayed its log.
func (e *Engine) Run(ctx context.Context) error {
	ctx, e.cancel = context.WithCancel(ctx)
	e.done = make(chan error, 1)
	go func() { e.done <- e.Region.Run(ctx) }()
	return errors.Join(e.Region.Ready(ctx), e.Failed())
}

// Failed returns what the engine has called fatal, nil for nothing.
func (e *Engine) Failed() error {
	if err := e.failed.Load(); err != nil {
		return fmt.Errorf("fatal: %w", *err)
	}
	return nil
}

// Close stops the region and closes the files without a flush: the next start replays the log.
func (e *Engine) Close() error { return e.close() }

func (e *Engine) close() error {
	var errs []error
	if e.cancel != nil {
		e.cancel()
		errs = append(errs, <-e.done)
	}
	if e.Store != nil {
		errs = append(errs, e.Store.CloseWithoutFlush())
	}
	if e.Log != nil {
		errs = append(errs, e.Log.Close())
	}
	return errors.Join(errs...)
}

// Scrub reads everything back from the disk.
func (e *Engine) Scrub(ctx context.Context) error {
	pace := func(int) error { return nil }
	_, err := e.Log.Scrub(ctx, pace)
	_, err2 := e.Store.Scrub(ctx, pace)
	return errors.Join(err, err2, e.Failed())
}
