package raftlog

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// housekeeper prepares the next segment and removes dead ones, beside the commits. Preparing is writing zeros: a
// sync of data in space that was written before needs no journal commit of the file system, and the zeros tell torn from
// rotten. It is done bit by bit as the active segment fills, so that commits meet a short write at the most, and not one
// as large as a segment.
type housekeeper struct {
	// Constant after init.
	log        *Log
	background bool

	mu sync.Mutex
	// Below mu.
	running bool
	closing bool
	doomed  []*segment // to be removed, oldest first
	spare   *spare
	wg      sync.WaitGroup
}

// spare is the next segment in the making. The goroutine owns file and zeroed while it is running.
type spare struct {
	file   vfs.File // nil before the goroutine has made it
	size   int64
	zeroed int64
	want   int64 // zeroed is to get this far
	ready  bool  // all of it is zero, on disk
	failed bool  // there will be none until the next segment
}

const (
	spareName = "spare" + tempSuffix
	// zeroBytes is written and synced at one time. A multiple of what writeZeros writes.
	zeroBytes = 1 << 20
)

func tempName(id uint64) string { return segmentName(id) + tempSuffix }

func (h *housekeeper) init(l *Log, background bool) { h.log, h.background = l, background }

// consumed is told how far the active segment is filled.
func (h *housekeeper) consumed(off, size int64) {
	if !h.background {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.spare == nil {
		h.spare = &spare{size: nextSegmentBytes(size, h.log.segmentBytes)}
	}
	s := h.spare
	// Ready when the active one is half full.
	want := min(s.size, int64(2*float64(s.size)*float64(off)/float64(size)))
	if s.failed || want < s.want+zeroBytes && want < s.size || s.want == s.size {
		return
	}
	s.want = want
	h.startLocked()
}

// takeSpare returns the prepared segment, its name and size, if there is one of at least need bytes, or a nil file.
// Whatever the answer, another one is prepared from then on.
func (h *housekeeper) takeSpare(need int64) (vfs.File, string, int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.spare
	if s == nil || s.failed {
		h.spare = nil
		return nil, "", 0
	}
	if !s.ready || s.size < need {
		return nil, "", 0 // it will do for the one after
	}
	h.spare = nil
	return s.file, spareName, s.size
}

// remove takes over segments that nothing is needed of.
func (h *housekeeper) remove(segs []*segment) {
	h.mu.Lock()
	h.doomed = append(h.doomed, segs...)
	if h.background {
		h.startLocked()
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	h.work()
}

func (h *housekeeper) startLocked() {
	if h.running || h.closing {
		return
	}
	h.running = true
	h.wg.Go(h.work)
}

// work runs until there is nothing to do. Each turn removes a segment or zeroes a bounded piece.
func (h *housekeeper) work() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.closing {
		switch s := h.spare; {
		case len(h.doomed) > 0:
			old := h.doomed[0]
			var gone bool
			var err error
			h.unlocked(func() { gone, err = h.removeSegment(old) })
			if err != nil {
				h.log.logger.Warn("raftlog: remove segment", "segment", old.name, "err", err)
			}
			if !gone {
				// It stays the first to go, or there would be a gap in the chain.
				h.running = false
				return
			}
			h.doomed = h.doomed[1:]
		case s != nil && !s.failed && s.zeroed < s.want:
			to := min(s.want, s.zeroed+zeroBytes)
			var err error
			h.unlocked(func() { err = h.zero(s, to) })
			s.zeroed = to
			s.ready = to == s.size && err == nil
			if err != nil {
				s.failed = true
				h.log.logger.Warn("raftlog: prepare segment", "err", err)
			}
		default:
			h.running = false
			return
		}
	}
	h.running = false
}

// unlocked calls f without mu, which the caller holds, and holds it again when f ends, in whatever way: in the simulation a power
// cut unwinds it.
func (h *housekeeper) unlocked(f func()) {
	h.mu.Unlock()
	defer h.mu.Lock()
	f()
}

// removeSegment removes one file. Its name is made to go from the disk before the next is removed, so that a crash cannot
// bring back an older segment without a newer one.
func (h *housekeeper) removeSegment(s *segment) (gone bool, err error) {
	l := h.log
	if err := l.fs.Remove(l.path(s.name)); err != nil {
		return false, err
	}
	dir, err := l.fs.OpenDir(l.dir) // not dirFile: Commit may be syncing that
	if err != nil {
		return true, errors.Join(err, s.release())
	}
	return true, errors.Join(s.release(), dir.Sync(), dir.Close())
}

// zero extends the spare's zeros to offset to. A sync that fails costs only the spare: no segment holds it yet.
func (h *housekeeper) zero(s *spare, to int64) (err error) {
	l := h.log
	if s.file == nil {
		if s.file, err = createTemp(l.fs, l.path(spareName), s.size); err != nil {
			s.file = nil
			return err
		}
	}
	if err := writeZeros(s.file, s.zeroed, to); err != nil {
		return h.dropSpare(s, err)
	}
	if err := s.file.Sync(); err != nil {
		return h.dropSpare(s, err)
	}
	return nil
}

func (h *housekeeper) dropSpare(s *spare, err error) error {
	err = errors.Join(err, s.file.Close(), h.log.fs.Remove(h.log.path(spareName)))
	s.file = nil
	return err
}

// close ends the goroutine and closes what it held.
func (h *housekeeper) close() error {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.wg.Wait()
	var errs []error
	for _, s := range h.doomed {
		errs = append(errs, s.release()) // Open will find the file and let it go again
	}
	if s := h.spare; s != nil && s.file != nil {
		errs = append(errs, h.dropSpare(s, nil))
	}
	return errors.Join(errs...)
}

func withClose(err error, f vfs.File) error {
	if cerr := f.Close(); cerr != nil {
		return fmt.Errorf("%w (and close: %w)", err, cerr)
	}
	return err
}
