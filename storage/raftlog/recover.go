package raftlog

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// openDir makes the directory, its name and those in it durable, whoever made them: that may have been a process
// that was killed before it could.
func (l *Log) openDir() error {
	if err := l.fs.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	parent, err := l.fs.OpenDir(l.fs.PathDir(l.dir))
	if err != nil {
		return err
	}
	if err := errors.Join(parent.Sync(), parent.Close()); err != nil {
		return err
	}
	if l.dirFile, err = l.fs.OpenDir(l.dir); err != nil {
		return err
	}
	return l.dirFile.Sync()
}

// listSegments returns the ids of the segments, ascending, and removes files that never became one.
func (l *Log) listSegments() ([]uint64, error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for _, name := range names {
		if id, ok := parseSegmentName(name); ok {
			ids = append(ids, id)
		} else if strings.HasSuffix(name, tempSuffix) {
			if err := l.fs.Remove(l.path(name)); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// recover replays the segments, oldest first, and makes the newest ready for more frames.
func (l *Log) recover(ids []uint64) error {
	var buf []byte
	for i := 0; i < len(ids); i++ {
		s, h, data, err := l.openSegment(ids[i], buf)
		if err != nil {
			return err
		}
		buf = data
		if i == 0 {
			l.salt = h.salt
		} else if err := l.checkSuccessor(h); err != nil {
			return errors.Join(err, s.release())
		}
		s.key = frameKey(l.salt, s.id)
		l.segs = append(l.segs, s)
		l.counters.segment(1, s.size)
		r := replay{log: l, seg: s, data: data, want: h.first, oldest: i == 0}
		if err := r.run(); err != nil {
			return err
		}
		l.seq, l.off = r.want-1, r.off
		if r.linked != 0 {
			s.end = r.off
		}
		switch rest := ids[i+1:]; {
		case r.linked != 0 && len(rest) == 0:
			return &CorruptError{segmentName(r.linked), 0, "segment is missing; " + s.name + " links to it"}
		case r.linked != 0 && rest[0] != r.linked:
			return &CorruptError{segmentName(r.linked), 0, "segment is missing; " + segmentName(rest[0]) + " is there"}
		case r.linked != 0:
		case len(rest) > 1:
			return r.corrupt(r.off, "link to the next segment is missing")
		default:
			if len(rest) == 1 {
				if err := l.dropUnlinked(rest[0], &r); err != nil {
					return err
				}
			}
			if err := r.settle(); err != nil {
				return err
			}
			return l.checkComplete()
		}
	}
	return nil // not reached: the last segment has a link or not
}

// openSegment opens and reads a segment, into buf if it is large enough, and checks its header.
func (l *Log) openSegment(id uint64, buf []byte) (*segment, segmentHeader, []byte, error) {
	name := segmentName(id)
	f, err := l.fs.OpenReadWrite(l.path(name), writeCategory)
	if err != nil {
		return nil, segmentHeader{}, nil, err
	}
	fail := func(err error) (*segment, segmentHeader, []byte, error) {
		return nil, segmentHeader{}, nil, withClose(err, f)
	}
	info, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	_ = f.Prefetch(0, info.Size()) // a hint
	data := slices.Grow(buf[:0], int(info.Size()))[:info.Size()]
	if n, err := f.ReadAt(data, 0); err != nil && !(err == io.EOF && n == len(data)) {
		return fail(err)
	}
	h, err := parseSegmentHeader(data, id)
	if err != nil {
		return fail(err)
	}
	s := &segment{id: id, name: name, size: h.size, file: f}
	s.refs.Store(1)
	return s, h, data, nil
}

// checkSuccessor checks that the segment with header h follows the one replayed last.
func (l *Log) checkSuccessor(h segmentHeader) error {
	prev := l.active()
	name := segmentName(h.id)
	switch {
	case h.salt != l.salt:
		return &CorruptError{name, 8, "segment is of another log"}
	case h.prev != prev.id:
		return &CorruptError{segmentName(h.prev), 0, "segment is missing; " + name + " follows it"}
	case h.first != l.seq+1:
		return &CorruptError{prev.name, l.off, fmt.Sprintf("frames %d to %d are missing", l.seq+1, h.first-1)}
	}
	return nil
}

// dropUnlinked removes segment id, to which the crash came before the link. r has read the segment before it.
func (l *Log) dropUnlinked(id uint64, r *replay) error {
	s, h, data, err := l.openSegment(id, nil)
	if err != nil {
		return err
	}
	defer s.release()
	fh, _, v := readFrame(data, segmentHeaderBytes, frameKey(l.salt, id))
	end := segmentHeaderBytes + alignFrame(frameHeaderBytes+int64(fh.length))
	switch {
	case h.salt != l.salt || h.prev != r.seg.id:
		return &CorruptError{segmentName(h.prev), 0, "segment is missing; " + s.name + " follows it"}
	case h.first != r.want+1 || h.prevEnd != r.off:
		return r.corrupt(r.off, fmt.Sprintf("frames %d to %d are missing", r.want, h.first-1))
	case v != frameWhole || fh.seq != h.first:
		return &CorruptError{s.name, segmentHeaderBytes, "checkpoint is damaged"}
	case usedEnd(data, end) != end:
		return r.corrupt(r.off, "link to the next segment is missing")
	}
	l.logger.Info("raftlog: drop a segment that was not begun", "segment", s.name)
	if err := l.fs.Remove(l.path(s.name)); err != nil {
		return err
	}
	// It must not come back when frames stand where its link was to be.
	return l.dirFile.Sync()
}

// checkComplete returns an error if an entry was counted by the oldest checkpoint and not found since.
func (l *Log) checkComplete() error {
	for _, g := range l.all() {
		if g.missing > 0 {
			return &CorruptError{l.segs[0].name, segmentHeaderBytes,
				fmt.Sprintf("entries %d to %d of group %d are in no segment; one before this is missing", g.trunc+1, g.trunc+g.missing, g.id)}
		}
	}
	return nil
}

// replay reads one segment.
type replay struct {
	log    *Log
	seg    *segment
	data   []byte
	oldest bool

	off    int64  // of the next frame
	want   uint64 // its number
	linked uint64 // the segment that follows; 0 if there is no link
	// unsure are the frames that no later one shows to be durable. Invariant: without a gap, the last ends at off.
	unsure []frameAt
	sealed bool // the last frame is a seal
	reader recordReader
}

type frameAt struct {
	seq uint64
	off int64
}

func (r *replay) corrupt(off int64, reason string) error {
	return &CorruptError{r.seg.name, off, reason}
}

// run replays frames until the link or the tail.
func (r *replay) run() error {
	r.off = segmentHeaderBytes
	for first := true; r.linked == 0; first = false {
		h, body, v := readFrame(r.data, r.off, r.seg.key)
		switch {
		case v == frameRotten:
			return r.corrupt(r.off, fmt.Sprintf("frame %d is damaged", r.want))
		case v != frameWhole && first:
			return r.corrupt(r.off, "checkpoint is damaged")
		case v != frameWhole:
			return r.checkTail()
		case h.seq != r.want:
			return r.corrupt(r.off, fmt.Sprintf("frame %d stands where %d belongs", h.seq, r.want))
		}
		r.log.seq = r.want
		if err := r.frame(body, first); err != nil {
			return r.corrupt(r.off, fmt.Sprintf("frame %d: %v", r.want, err))
		}
		durable := slices.IndexFunc(r.unsure, func(f frameAt) bool { return f.seq > h.stable() })
		if durable < 0 {
			durable = len(r.unsure)
		}
		r.unsure = append(slices.Delete(r.unsure, 0, durable), frameAt{r.want, r.off})
		r.sealed = len(body) == 0
		r.off += alignFrame(frameHeaderBytes + int64(h.length))
		r.want++
	}
	return nil
}

// frame replays the records of one frame; first is the checkpoint a segment begins with.
func (r *replay) frame(body []byte, first bool) error {
	r.reader = recordReader{body: body, refs: r.reader.refs}
	groups := 0
	for {
		rec, more, err := r.reader.next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch {
		case r.linked != 0 || first != (rec.kind == recordCheckpoint):
			return fmt.Errorf("record of kind %d is out of place", rec.kind)
		case rec.kind == recordLink:
			r.linked = rec.group
		case first && !r.oldest:
			groups++
			if err := r.log.checkCheckpoint(rec); err != nil {
				return err
			}
		default:
			if err := r.log.checkReplay(rec); err != nil {
				return err
			}
			r.log.applyLocked([]record{rec}, r.off)
		}
	}
	if first && !r.oldest && groups != len(r.log.Groups()) {
		return fmt.Errorf("checkpoint has %d groups, the log before it %d", groups, len(r.log.Groups()))
	}
	return nil
}

// checkReplay reports whether rec can follow what its group has.
func (l *Log) checkReplay(rec record) error {
	g := l.Group(rec.group)
	trunc, last := g.trunc, g.lastLocked()
	ok := true
	switch rec.kind {
	case recordEntries:
		ok = rec.index > trunc && rec.index <= last+1
	case recordRewrite:
		ok = rec.index == trunc && uint64(len(rec.refs)) == last-trunc
	case recordCheckpoint:
		ok = !g.onDisk && rec.last >= rec.index
	}
	if !ok {
		return fmt.Errorf("record of kind %d at index %d does not fit group %d, which has (%d, %d]", rec.kind, rec.index, rec.group, trunc, last)
	}
	return nil
}

// checkCheckpoint reports whether a group is as a later segment's checkpoint says it was.
func (l *Log) checkCheckpoint(rec record) error {
	g := l.Group(rec.group)
	if !g.onDisk || g.hasHard != rec.hasHard || g.left != rec.left || g.hard != rec.hard || g.trunc != rec.index || g.truncTerm != rec.term ||
		g.lastLocked() != rec.last || string(g.conf) != string(rec.conf) {
		return fmt.Errorf("group %d is not as the checkpoint has it", rec.group)
	}
	return nil
}

// checkTail looks, where frame r.want is torn or absent, for a frame that was written when it was durable.
func (r *replay) checkTail() error {
	used := usedEnd(r.data, r.off)
	for off := r.off + frameAlign; off+frameHeaderBytes <= int64(len(r.data)) && off < used; off += frameAlign {
		if h, ok := parseFrameHeader(r.data[off:], r.seg.key); ok && h.stable() >= r.want {
			return r.corrupt(r.off, fmt.Sprintf("frame %d is damaged: frame %d at offset %d came after it", r.want, h.seq, off))
		}
	}
	return nil
}

// settle makes the segment ready for more frames: what is torn is zero again, and what was read is durable.
func (r *replay) settle() error {
	l := r.log
	if used := usedEnd(r.data, r.off); used > r.off {
		l.logger.Warn("raftlog: drop a torn write", "segment", r.seg.name, "offset", r.off, "bytes", used-r.off)
		if err := writeZeros(r.seg.file, r.off, used); err != nil {
			return err
		}
	}
	// The frames after the last that is known to be durable may be in the kernel's memory only, and not even marked
	// for writing there, if a sync of them failed before the restart. So they are written once more.
	from := r.unsure[0].off
	if _, err := r.seg.file.WriteAt(r.data[from:r.off], from); err != nil {
		return err
	}
	if err := r.seg.file.SyncData(); err != nil {
		return err
	}
	l.stable, l.sealed = l.seq, r.sealed
	return nil
}
