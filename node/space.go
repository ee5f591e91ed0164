package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
)

const (
	// defaultReserve is the space that is left for what goes on without writes of clients: the log of what other nodes take, flushes, and
	// compactions, which make room by taking some first.
	defaultReserve = 128 << 20
	// spaceEvery is how often it is looked how much there is, and spaceNear how often when it comes to an end: what is written in that time must be
	// well below the reserve.
	spaceEvery = time.Second
	spaceNear  = 100 * time.Millisecond
)

// space stops writes before the disk is full: past that, a log that cannot be written ends the process. Writes go on once a quarter
// more than the reserve is free.
type space struct {
	fs      vfs.FS
	dir     string
	reserve uint64 // bytes
	region  *region.Region
	tasks   task.Runtime
	logger  *slog.Logger

	free atomic.Uint64 // bytes, when last looked
}

// Run looks until ctx ends. A file system that cannot tell is not watched.
func (s *space) Run(ctx context.Context) error {
	for {
		switch err := s.look(ctx); {
		case errors.Is(err, vfs.ErrUnsupported):
			return nil
		case err != nil:
			s.logger.Error("node: how much space the disk has left is not known", "err", err)
		}
		wait := spaceEvery
		if s.free.Load() < 4*s.reserve {
			wait = spaceNear
		}
		if s.tasks.Wait(ctx, nil, wait) == task.Ended {
			return nil
		}
	}
}

// look does what the space that is left asks for.
func (s *space) look(ctx context.Context) error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return fmt.Errorf("node: space of %s: %w", s.dir, err)
	}
	s.free.Store(usage.AvailBytes)
	switch full := s.region.Full(); {
	case !full && usage.AvailBytes < s.reserve:
		s.region.SetFull(true)
		s.logger.Error("node: THE DISK IS FULL: writes are refused until there is space; reads go on", "free", usage.AvailBytes, "reserve", s.reserve)
	case full && usage.AvailBytes >= s.reserve+s.reserve/4:
		s.region.SetFull(false)
		s.logger.Info("node: the disk has space again: writes are taken", "free", usage.AvailBytes)
	}
	if !s.region.Full() || s.region.Alone() {
		return nil
	}
	// Other nodes that have room take writes, and this one would have to log them at once if it led.
	ctx, cancel := s.tasks.WithTimeout(ctx, spaceEvery)
	defer cancel()
	if err := s.region.Resign(ctx); err != nil && ctx.Err() == nil {
		s.logger.Debug("node: not all that this node leads could be handed over", "err", err)
	}
	return nil
}

// collectors are what /metrics shows of it.
func (s *space) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "commutator_disk_free_bytes", Help: "Space left on the disk of the data; 0 where it is not known."}, func() float64 { return float64(s.free.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "commutator_disk_full", Help: "1 while writes are refused for want of space."}, func() float64 {
			if s.region.Full() {
				return 1
			}
			return 0
		}),
	}
}
