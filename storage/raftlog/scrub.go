package raftlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// scrubChunk is how many bytes Scrub reads between two calls of pace.
const scrubChunk = 256 << 10

// Scrub reads every frame back from the disk and checks its sums, those of entries that are in memory too. Frames
// written while it runs are for the next pass; a segment that is removed meanwhile is left out.
//
// pace is called behind each chunk with its size in bytes; it may wait, and its error ends the pass. Scrub returns
// how much it has read, and a *CorruptError for the first damage that it finds.
func (l *Log) Scrub(ctx context.Context, pace func(bytes int) error) (read int64, err error) {
	l.commitMu.Lock()
	if errors.Is(l.err, ErrClosed) {
		l.commitMu.Unlock()
		return 0, ErrClosed
	}
	segs := append([]*segment(nil), l.segs...)
	ends := make([]int64, len(segs))
	for i, s := range segs {
		ends[i] = s.end
	}
	ends[len(ends)-1] = l.off
	l.commitMu.Unlock()
	each := func(n int) error {
		read += int64(n)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return pace(n)
	}
	for i, s := range segs {
		if !s.acquire() {
			continue // removed, or the log was closed
		}
		err := scrubSegment(s, ends[i], each)
		s.release()
		if err != nil {
			return read, fmt.Errorf("raftlog: scrub: %w", err)
		}
	}
	return read, nil
}

// scrubSegment reads a segment up to end, where its last frame ends.
func scrubSegment(s *segment, end int64, each func(int) error) error {
	corrupt := func(off int64, reason string) error { return &CorruptError{s.name, off, reason} }
	if info, err := s.file.Stat(); err != nil {
		return err
	} else if info.Size() != s.size {
		return corrupt(info.Size(), fmt.Sprintf("segment has %d bytes and should have %d", info.Size(), s.size))
	}
	paced := &pacedReader{r: io.NewSectionReader(s.file, 0, end), each: each}
	r := bufio.NewReaderSize(paced, int(min(end, scrubChunk)))
	var head [segmentHeaderBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return cut(err, corrupt(0, "segment is cut off"))
	}
	h, ok := decodeSegmentHeader(head[:])
	if !ok || h.id != s.id || frameKey(h.salt, h.id) != s.key || h.size != s.size {
		return corrupt(0, "segment header is damaged")
	}
	off := int64(segmentHeaderBytes)
	for want := h.first; off < end; want++ {
		if _, err := io.ReadFull(r, head[:frameHeaderBytes]); err != nil {
			return cut(err, corrupt(off, "segment is cut off"))
		}
		fh, ok := parseFrameHeader(head[:frameHeaderBytes], s.key)
		size := alignFrame(frameHeaderBytes + int64(fh.length))
		if !ok || fh.seq != want || off+size > end {
			return corrupt(off, fmt.Sprintf("frame %d is damaged", want))
		}
		sum := summer(s.key)
		if _, err := io.CopyN(&sum, r, size-frameHeaderBytes); err != nil {
			return cut(err, corrupt(off, "segment is cut off"))
		}
		if uint32(sum) != fh.bodySum {
			return corrupt(off, fmt.Sprintf("frame %d is damaged", want))
		}
		off += size
	}
	return paced.err // of the last chunk, which was read whole
}

// cut returns corrupt when err says that there is no more to read, err otherwise.
func cut(err, corrupt error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt
	}
	return err
}

// summer is a frame's sum as far as it has been written to.
type summer uint32

func (s *summer) Write(p []byte) (int, error) {
	*s = summer(crc32.Update(uint32(*s), castagnoli, p))
	return len(p), nil
}

// pacedReader tells each of what it has read.
type pacedReader struct {
	r    io.Reader
	each func(int) error
	err  error // of each
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		if p.err = p.each(n); p.err != nil {
			return n, p.err
		}
	}
	return n, err
}
