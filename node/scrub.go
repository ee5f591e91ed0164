package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

const (
	scrubEvery  = 24 * time.Hour // between the beginnings of two passes
	scrubWithin = 18 * time.Hour // a pass takes, at most about: what is written meanwhile makes it longer
	scrubAfter  = time.Minute    // the first one begins: a start has other things to read
	// scrubRate is the least that a pass reads in a second: with little data there is no need to take all day.
	scrubRate = 1 << 20
)

// scrubber reads all of a node's data back from the disk, slowly, again and again: damage in what nobody asks for
// must be found while there is another copy.
type scrubber struct {
	log    *raftlog.Log
	store  *storage.Store
	now    func() time.Time
	tasks  task.Runtime
	logger *slog.Logger
	fatal  func(error) // see Config.Fatal
	audit  func(context.Context) (region.Audited, error)

	passes, bytes atomic.Int64
	last          atomic.Int64 // when the last pass was completed, s since the Unix epoch; 0 for never
}

// Run scrubs until ctx ends. Whatever keeps a pass from reading everything as it was written is fatal: this copy is
// not to be served, or voted with, any more.
func (s *scrubber) Run(ctx context.Context) error {
	wait := scrubAfter
	for s.tasks.Wait(ctx, nil, wait) == task.Late {
		began := s.now()
		read, err := s.pass(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			err = fmt.Errorf("node: scrub: %w", err)
			s.logger.Error("node: data on this disk is damaged; the node must be rebuilt from another copy", "err", err)
			s.fatal(err)
			return err
		}
		s.passes.Add(1)
		s.last.Store(s.now().Unix())
		s.logger.Info("node: all data was read back and is whole", "bytes", read, "took", s.now().Sub(began))
		if a, err := s.audit(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.logger.Warn("node: what this node leads was not held against its other replicas", "err", err)
		} else if a != (region.Audited{}) {
			s.logger.Info("node: what this node leads was held against its other replicas", "same", a.Same, "different", a.Differ, "notAsked", a.Open, "took", s.now().Sub(began))
		}
		wait = max(scrubEvery-s.now().Sub(began), scrubAfter)
	}
	return nil
}

// pass reads everything once, at the rate that scrubWithin asks for.
func (s *scrubber) pass(ctx context.Context) (read int64, err error) {
	// The state is read twice: its files, and the values in them.
	size := 2*int64(s.store.Metrics().DiskBytes) + s.log.Metrics().SegmentBytes
	rate := max(size/int64(scrubWithin/time.Second), scrubRate)
	pace := func(n int) error {
		read += int64(n)
		s.bytes.Add(int64(n))
		if s.tasks.Wait(ctx, nil, max(time.Duration(n)*time.Second/time.Duration(rate), 1)) == task.Ended {
			return context.Cause(ctx)
		}
		return nil
	}
	_, err = s.log.Scrub(ctx, pace)
	if err == nil {
		_, err = s.store.Scrub(ctx, pace)
	}
	return read, err
}

// collectors are what /metrics shows of it.
func (s *scrubber) collectors() []prometheus.Collector {
	value := func(v *atomic.Int64) func() float64 { return func() float64 { return float64(v.Load()) } }
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "commutator_scrub_passes_total", Help: "Times that all data was read back from the disk, since the start."}, value(&s.passes)),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "commutator_scrub_bytes_total", Help: "Bytes read back from the disk to look for damage, since the start."}, value(&s.bytes)),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "commutator_scrub_completed_timestamp_seconds", Help: "When all data was last read back and found whole; 0 when not since the start."}, value(&s.last)),
	}
}
