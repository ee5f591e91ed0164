package raftlog

import (
	"errors"
	"fmt"
	"math"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/internal/mutant"
)

// create starts a new log: its first segment.
func (l *Log) create() error {
	size := min(l.segmentBytes, firstSegmentBytes)
	f, err := createTemp(l.fs, l.path(tempName(1)), size)
	if err != nil {
		return err
	}
	if err := writeZeros(f, 0, size); err != nil {
		return withClose(err, f)
	}
	h := segmentHeader{salt: l.salt, id: 1, first: 1, size: size}
	s, end, err := l.beginSegment(f, tempName(1), h, l.checkpoint())
	if err != nil {
		return err
	}
	l.segs, l.off, l.seq, l.stable, l.sealed = []*segment{s}, end, 1, 1, true
	l.counters.segment(1, size)
	return nil
}

// rotateLocked begins a new segment with room for a frame of need bytes. The segment is complete on disk, with the
// checkpoint, before the link to it is written; frames go to it when that is durable. So after a crash a segment
// without a link to it holds nothing, and one with a link must be there.
func (l *Log) rotateLocked(need int64) error {
	if err := l.syncLocked(); err != nil {
		return err
	}
	old := l.active()
	checkpoint := l.checkpoint()
	need += segmentHeaderBytes + int64(len(checkpoint)) + frameAlign + linkFrameBytes
	h := segmentHeader{
		salt: l.salt, id: old.id + 1, first: l.seq + 2, prev: old.id, prevEnd: l.off,
		size: max(nextSegmentBytes(old.size, l.segmentBytes), (need+minSegmentBytes-1)&^(minSegmentBytes-1)),
	}
	f, temp, size := l.house.takeSpare(need)
	if f != nil {
		h.size = size
	} else {
		l.counters.spareMisses.Add(1)
		temp = tempName(h.id)
		var err error
		f, err = createSparse(l.fs, l.path(temp), h.size)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			return fmt.Errorf("raftlog: create segment: %w", err)
		case err != nil:
			return l.poisonLocked("create", temp, err)
		}
	}
	s, end, err := l.beginSegment(f, temp, h, checkpoint)
	if err != nil {
		return l.poisonLocked("begin", segmentName(h.id), err)
	}
	link := padFrame(appendRecordHead(make([]byte, frameHeaderBytes, linkFrameBytes), recordLink, h.id))
	err = l.writeLocked(link, recordHeadBytes)
	if err == nil {
		err = l.syncLocked()
	}
	if err != nil {
		s.release()
		return err
	}
	old.end = l.off
	l.segs = append(l.segs, s)
	l.seq, l.off = h.first, end
	l.stable = l.seq
	l.reclaim = true
	l.counters.segment(1, s.size)
	return nil
}

// beginSegment writes header and checkpoint to f, the file named temp, makes them durable, and gives the file its name.
// It returns the segment and where its next frame goes. It closes f if it fails.
func (l *Log) beginSegment(f vfs.File, temp string, h segmentHeader, checkpoint []byte) (*segment, int64, error) {
	s := &segment{id: h.id, name: segmentName(h.id), size: h.size, key: frameKey(h.salt, h.id), file: f}
	s.refs.Store(1)
	buf := h.append(make([]byte, 0, segmentHeaderBytes+len(checkpoint)+frameAlign))
	frame := padFrame(checkpoint)
	// The link to this segment, frame first-1, is not written yet.
	lag := uint32(min(h.first-1, 1))
	putFrameHeader(frame, s.key, segmentHeaderBytes, h.first, lag, len(checkpoint)-frameHeaderBytes)
	buf = append(buf, frame...)
	if _, err := f.WriteAt(buf, 0); err != nil {
		return nil, 0, withClose(err, f)
	}
	if err := f.Sync(); err != nil {
		return nil, 0, withClose(err, f)
	}
	if err := l.fs.Rename(l.path(temp), l.path(s.name)); err != nil {
		return nil, 0, withClose(err, f)
	}
	if mutant.On(mutant.DirNotSynced) {
		return s, int64(len(buf)), nil
	}
	if err := l.dirFile.Sync(); err != nil {
		return nil, 0, withClose(err, f)
	}
	return s, int64(len(buf)), nil
}

// checkpoint is a frame, without padding and with its header empty, that holds what every group has apart from entries.
func (l *Log) checkpoint() []byte {
	b := make([]byte, frameHeaderBytes, frameHeaderBytes+128*len(l.groups))
	for _, g := range l.all() {
		if g.onDisk {
			b = g.appendCheckpoint(b)
		}
	}
	return b
}

// appendCheckpoint is called with Log.commitMu held.
func (g *Group) appendCheckpoint(b []byte) []byte {
	b = appendRecordHead(b, recordCheckpoint, g.id)
	switch {
	case g.left:
		b = append(b, checkpointLeft)
	case g.hasHard:
		b = append(b, checkpointHard)
	default:
		b = append(b, checkpointNone)
	}
	b = appendHardState(b, g.hard)
	// Index, term and last in the places of a hard state's three numbers.
	b = appendHardState(b, hardState{g.trunc, g.truncTerm, g.lastLocked()})
	return appendBytes(b, g.conf)
}

func nextSegmentBytes(size, limit int64) int64 {
	if size > math.MaxInt64/segmentGrowth {
		return limit
	}
	return min(size*segmentGrowth, limit)
}

const (
	// keepSegments is how many full segments may stand behind the active one before groups that keep the oldest
	// alive with little data have it moved forward.
	keepSegments = 4
	// rewriteBytes bounds what is moved at one time, and so both the pause it makes and the share of the disk's
	// bandwidth it takes. A group that has more than this is not idle; truncating it is the caller's to do.
	rewriteBytes = 2 << 20
)

// rewriteLocked moves whole groups out of the oldest segments, if little data keeps these alive.
func (l *Log) rewriteLocked() error {
	room := min(rewriteBytes, l.segmentBytes/4, l.active().size-linkFrameBytes-l.off-2*frameHeaderBytes)
	for i := 0; len(l.segs)-i > keepSegments+1; i++ {
		old := l.segs[i]
		if old.live == 0 {
			continue
		}
		if old.live > room {
			return nil
		}
		b := l.NewBatch()
		for _, g := range l.all() {
			if len(g.locs) == 0 || g.locs[0].seg != old {
				continue
			}
			cost := g.bytes + 64 // the record around the entries takes less
			if cost > room {
				return nil
			}
			ents, err := g.Entries(g.trunc+1, g.lastLocked()+1, math.MaxUint64)
			if err != nil {
				return l.poisonLocked("move entries out of", old.name, err)
			}
			b.rewrite(g.id, g.trunc, g.truncTerm, ents)
			room -= cost
		}
		if b.Empty() {
			return nil
		}
		room -= 2 * frameHeaderBytes
		l.counters.rewritten.Add(int64(b.Bytes()))
		if err := l.commitLocked(b, false); err != nil {
			return err
		}
	}
	return nil
}

// retireLocked gives segments that hold nothing to the housekeeper: the oldest ones, as soon as what killed
// their last entry is durable, since recovery without them relies on it.
func (l *Log) retireLocked() {
	n := 0
	for n < len(l.segs)-1 && l.segs[n].live == 0 && l.segs[n].deadSeq <= l.stable {
		l.counters.segment(-1, -l.segs[n].size)
		n++
	}
	if n > 0 {
		l.house.remove(l.segs[:n])
		l.segs = append([]*segment(nil), l.segs[n:]...)
	}
}

func (l *Log) path(name string) string { return l.fs.PathJoin(l.dir, name) }
