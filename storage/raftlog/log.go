package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Options configures a Log. FS and Dir are required; zero means the default elsewhere.
type Options struct {
	// FS is used for all access to the disk.
	FS vfs.FS
	// Dir is made if it is not there. Only one Log may use it at a time: the caller holds the lock.
	Dir string
	// SegmentBytes is the size segments grow to: 4 KiB to 1 GiB, default 64 MiB. A larger batch gets a segment
	// of its own size.
	SegmentBytes int64
	// Salt enters every checksum of a new log, so that data made by a client cannot pass for a frame when a
	// damaged log is searched. A random number; a log that exists keeps its own.
	Salt uint64
	// NoBackground leaves it to Commit to make and remove segments, and no goroutine is ever started: for
	// simulation, and for file systems in memory, where space prepared ahead gains nothing.
	NoBackground bool
	// Logger is told of torn tails and of housekeeping that failed; nil discards.
	Logger *slog.Logger
}

// Log is the log of all Raft groups of a node; see the package comment. Its methods may be called from any
// goroutine; Commits run one after the other.
//
// Once a write or sync has failed, nobody knows what is on disk: that Commit and all later ones return the error,
// nothing more is written, and the caller ends the process. Groups go on answering from what was committed before.
//
// A Log starts a goroutine only from Commit, for as long as there is a segment to prepare or remove; Close waits
// for it.
type Log struct {
	// Constant after Open.
	fs           vfs.FS
	dir          string
	segmentBytes int64
	salt         uint64
	logger       *slog.Logger
	dirFile      vfs.File // to sync names
	house        housekeeper
	counters     counters

	// Lock order: commitMu, then mu, Group.mu or housekeeper.mu, of which no two are held together.
	commitMu sync.Mutex
	// Below commitMu.
	err     error      // of the write or sync that failed, or ErrClosed
	segs    []*segment // oldest first; frames go to the last
	off     int64      // where the next frame goes
	seq     uint64     // of the last frame written
	stable  uint64     // Invariant: stable <= seq; frames up to it are durable
	sealed  bool       // the last frame is a seal, or opens the log, and is durable
	epoch   uint64     // of Group.check fields
	cache   cacheQueue
	reclaim bool // a segment was begun since the last look for groups that pin old ones

	mu     sync.RWMutex
	groups map[uint64]*Group
}

// Open recovers the log in opts.Dir, or starts a new one if there is no segment there. It returns a *CorruptError
// if something that was acknowledged is damaged or missing; nothing is changed then, and opening
// again will say the same.
func Open(opts Options) (*Log, error) {
	if opts.SegmentBytes == 0 {
		opts.SegmentBytes = defaultSegmentBytes
	}
	if opts.SegmentBytes < minSegmentBytes || opts.SegmentBytes > maxSegmentBytes {
		return nil, fmt.Errorf("raftlog: segment size %d is not within %d and %d", opts.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		fs:           opts.FS,
		dir:          opts.Dir,
		segmentBytes: alignFrame(opts.SegmentBytes),
		salt:         opts.Salt,
		logger:       opts.Logger,
		groups:       make(map[uint64]*Group),
	}
	if err := l.open(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("raftlog: open %s: %w", opts.Dir, err)
	}
	l.house.init(l, !opts.NoBackground)
	return l, nil
}

func (l *Log) open() error {
	if err := l.openDir(); err != nil {
		return err
	}
	ids, err := l.listSegments()
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return l.create()
	}
	return l.recover(ids)
}

// Group returns the group's log, empty if the group is new. Nothing is written until a Commit.
func (l *Log) Group(id uint64) *Group {
	if g := l.lookup(id); g != nil {
		return g
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[id]
	if g == nil {
		g = &Group{id: id}
		l.groups[id] = g
	}
	return g
}

// lookup returns the group, or nil.
func (l *Log) lookup(id uint64) *Group {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.groups[id]
}

// Groups returns the ids of all groups with something in the log, ascending.
func (l *Log) Groups() []uint64 {
	var ids []uint64
	for _, g := range l.all() {
		g.mu.RLock()
		if g.onDisk {
			ids = append(ids, g.id)
		}
		g.mu.RUnlock()
	}
	return ids
}

// all returns the groups in the order of their ids.
func (l *Log) all() []*Group {
	l.mu.RLock()
	defer l.mu.RUnlock()
	gs := make([]*Group, 0, len(l.groups))
	for _, id := range slices.Sorted(maps.Keys(l.groups)) {
		gs = append(gs, l.groups[id])
	}
	return gs
}

// Commit writes b as one frame and, with sync, makes it and everything before it durable; then the groups show it.
// Without sync a crash may lose it, whole, together with all that was committed after the last sync. An empty batch
// with sync only syncs. It retains b's entries, not b.
//
// It returns ErrTooLarge, ErrClosed, or an error that matches syscall.ENOSPC if there is no room for another
// segment: then nothing has changed and b may be tried again. Any other error is final; see Log. It panics if b would
// leave a gap in a group's log, or replace what was truncated.
func (l *Log) Commit(b *Batch, sync bool) error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if l.err != nil {
		return l.err
	}
	if b.Empty() {
		if sync {
			return l.syncLocked()
		}
		return nil
	}
	if len(b.buf) > maxFrameBytes {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(b.buf))
	}
	l.checkLocked(b.recs)
	if err := l.commitLocked(b, sync); err != nil {
		return err
	}
	if l.reclaim {
		l.reclaim = false
		if err := l.rewriteLocked(); err != nil {
			return err
		}
	}
	l.cache.evict(cacheBytes)
	l.counters.cached.Store(l.cache.used)
	l.retireLocked()
	l.house.consumed(l.off, l.active().size)
	return nil
}

// commitLocked writes b, with a segment of its own if there is no room in this one.
func (l *Log) commitLocked(b *Batch, sync bool) error {
	length := len(b.buf) - frameHeaderBytes
	frame := padFrame(b.buf)
	b.buf = frame[:len(b.buf)]
	if l.off+int64(len(frame)) > l.active().size-linkFrameBytes {
		if err := l.rotateLocked(int64(len(frame))); err != nil {
			return err
		}
	}
	off := l.off
	if err := l.writeLocked(frame, length); err != nil {
		return err
	}
	if sync && !mutant.On(mutant.SkipSync) {
		if err := l.syncLocked(); err != nil {
			return err
		}
	}
	entries := l.applyLocked(b.recs, off)
	l.counters.entries.Add(entries)
	return nil
}

// Seal makes everything committed durable and puts an empty frame after it, so that rot of any kind in the last
// batch is found; see the package comment for what it adds. It is for when writing has paused, and does nothing when
// nothing was committed since the last one. Errors are those of Commit.
func (l *Log) Seal() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if l.err != nil {
		return l.err
	}
	return l.sealLocked()
}

func (l *Log) sealLocked() error {
	if l.sealed {
		return nil
	}
	if err := l.syncLocked(); err != nil {
		return err
	}
	if l.off+frameHeaderBytes > l.active().size-linkFrameBytes {
		if err := l.rotateLocked(frameHeaderBytes); err != nil {
			return err
		}
	}
	if err := l.writeLocked(make([]byte, frameHeaderBytes), 0); err != nil {
		return err
	}
	if err := l.syncLocked(); err != nil {
		return err
	}
	l.sealed = true
	return nil
}

// Close seals the log, waits for housekeeping and closes the files. Later calls return ErrClosed; entries that are
// not in memory can no longer be read. It returns the error that made the log unusable, if one did.
func (l *Log) Close() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if errors.Is(l.err, ErrClosed) {
		return ErrClosed
	}
	err := l.err
	if err == nil {
		err = l.sealLocked()
	}
	l.err = ErrClosed
	return errors.Join(err, l.house.close(), l.closeFiles())
}

func (l *Log) closeFiles() error {
	var errs []error
	for _, s := range l.segs {
		errs = append(errs, s.release())
	}
	if l.dirFile != nil {
		errs = append(errs, l.dirFile.Close())
	}
	return errors.Join(errs...)
}

func (l *Log) active() *segment { return l.segs[len(l.segs)-1] }

// padFrame appends zeros to header and body, so that the next frame is aligned.
func padFrame(b []byte) []byte {
	return append(b, zeroChunk[:alignFrame(len(b))-len(b)]...)
}

// writeLocked writes frame, of which the header is not filled in yet, where the next one goes.
func (l *Log) writeLocked(frame []byte, length int) error {
	s := l.active()
	putFrameHeader(frame, s.key, l.off, l.seq+1, uint32(l.seq-l.stable), length)
	if _, err := s.file.WriteAt(frame, l.off); err != nil {
		return l.poisonLocked("write", s.name, err)
	}
	l.seq++
	l.off += int64(len(frame))
	l.sealed = false
	l.counters.frames.Add(1)
	l.counters.written.Add(int64(len(frame)))
	return nil
}

// syncLocked makes all frames written durable. Those in segments before the active one are.
func (l *Log) syncLocked() error {
	if l.stable == l.seq {
		return nil
	}
	if err := l.active().file.SyncData(); err != nil {
		return l.poisonLocked("sync", l.active().name, err)
	}
	l.stable = l.seq
	l.counters.syncs.Add(1)
	return nil
}

func (l *Log) poisonLocked(op, name string, err error) error {
	l.err = fmt.Errorf("raftlog: %s %s: %w", op, name, err)
	return l.err
}

// checkLocked panics if recs cannot follow what the groups have: written, they could not be replayed.
func (l *Log) checkLocked(recs []record) {
	l.epoch++
	for i := range recs {
		rec := &recs[i]
		g := l.Group(rec.group)
		if g.checkEpoch != l.epoch {
			g.checkEpoch, g.checkTrunc, g.checkLast = l.epoch, g.trunc, g.lastLocked()
		}
		switch rec.kind {
		case recordEntries:
			if rec.index <= g.checkTrunc || rec.index > g.checkLast+1 {
				panic(fmt.Sprintf("raftlog: group %d: append of %d entries at %d to a log of (%d, %d]",
					rec.group, len(rec.refs), rec.index, g.checkTrunc, g.checkLast))
			}
			g.checkLast = rec.index + uint64(len(rec.refs)) - 1
		case recordSnapshot:
			g.checkTrunc, g.checkLast = rec.index, rec.index
		case recordTruncate:
			if rec.index > g.checkTrunc && rec.index <= g.checkLast {
				g.checkTrunc = rec.index
			}
		case recordRemove, recordLetGo:
			g.checkTrunc, g.checkLast = 0, 0
		}
	}
}

// applyLocked changes the groups as recs say, which stand in the active segment at off, in the last frame, and
// returns how many entries came.
func (l *Log) applyLocked(recs []record, off int64) (entries int64) {
	for i := range recs {
		rec := &recs[i]
		g := l.Group(rec.group)
		l.cache.used += g.apply(*rec, l.active(), off, l.seq)
		switch rec.kind {
		case recordEntries:
			entries += int64(len(rec.refs))
			if len(rec.ents) > 0 {
				l.cache.push(g, rec.index+uint64(len(rec.refs))-1)
			}
		case recordRemove:
			l.forget(rec.group)
		}
	}
	return entries
}

func (l *Log) forget(group uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.groups, group)
}
