package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	segmentMagic       = 0x31474f4c52544d43 // "CMTRLOG1"
	segmentHeaderBytes = 64
	segmentSuffix      = ".seg"
	tempSuffix         = ".tmp"
	linkFrameBytes     = 64 // a segment keeps room for it at its end

	defaultSegmentBytes = 64 << 20
	minSegmentBytes     = 4 << 10
	maxSegmentBytes     = 1 << 30
	// firstSegmentBytes is small, so that a new log opens at once; segments then grow by segmentGrowth up to
	// Options.SegmentBytes, as there is something to hold.
	firstSegmentBytes = 512 << 10
	segmentGrowth     = 4

	writeCategory vfs.DiskWriteCategory = "raftlog"
)

// segment is one file of the log.
type segment struct {
	id   uint64
	name string // within the directory
	size int64
	key  uint32 // of frames
	file vfs.File
	refs atomic.Int32 // readers, and one for the log; the last one closes file

	// Below Log.commitMu.
	live    int64  // bytes of entries that are still in a group's index
	deadSeq uint64 // the frame that last took some away
	end     int64  // behind the link; 0 in the active segment
}

// acquire keeps the file open until release; it returns false if it is closed already.
func (s *segment) acquire() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *segment) release() error {
	if s.refs.Add(-1) == 0 {
		return s.file.Close()
	}
	return nil
}

// segmentHeader is the start of a segment; see the package comment for the bytes.
type segmentHeader struct {
	salt    uint64
	id      uint64
	first   uint64
	prev    uint64
	prevEnd int64
	size    int64
}

func (h segmentHeader) append(b []byte) []byte {
	le := binary.LittleEndian
	start := len(b)
	for _, v := range []uint64{segmentMagic, h.salt, h.id, h.first, h.prev, uint64(h.prevEnd), uint64(h.size)} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, 0)
	return le.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseSegmentHeader reads and checks the header of segment id, of which data is the whole.
func parseSegmentHeader(data []byte, id uint64) (segmentHeader, error) {
	bad := func(off int64, reason string) (segmentHeader, error) {
		return segmentHeader{}, &CorruptError{segmentName(id), off, reason}
	}
	if len(data) < segmentHeaderBytes {
		return bad(int64(len(data)), "segment is cut off within its header")
	}
	h, ok := decodeSegmentHeader(data)
	switch {
	case !ok:
		return bad(0, "segment header is damaged")
	case h.id != id:
		return bad(16, fmt.Sprintf("segment header is that of %s", segmentName(h.id)))
	case h.size != int64(len(data)):
		return bad(int64(len(data)), fmt.Sprintf("segment has %d bytes and should have %d", len(data), h.size))
	}
	return h, nil
}

// decodeSegmentHeader reads a header; ok is false if its magic or sum is wrong.
func decodeSegmentHeader(b []byte) (h segmentHeader, ok bool) {
	le := binary.LittleEndian
	if le.Uint64(b) != segmentMagic || le.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return h, false
	}
	return segmentHeader{
		salt:    le.Uint64(b[8:]),
		id:      le.Uint64(b[16:]),
		first:   le.Uint64(b[24:]),
		prev:    le.Uint64(b[32:]),
		prevEnd: int64(le.Uint64(b[40:])),
		size:    int64(le.Uint64(b[48:])),
	}, true
}

func segmentName(id uint64) string { return fmt.Sprintf("%016x%s", id, segmentSuffix) }

// parseSegmentName returns the id in a segment's name; ok is false for any other file.
func parseSegmentName(name string) (id uint64, ok bool) {
	hex, found := strings.CutSuffix(name, segmentSuffix)
	if !found || len(hex) != 16 {
		return 0, false
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	return id, err == nil && id > 0 && segmentName(id) == name
}

// createTemp makes an empty file whose space is set aside on disk, so that a full disk shows here and not
// in the middle of a frame. A file system that cannot set space aside says so, and is taken as it is.
func createTemp(fs vfs.FS, path string, size int64) (vfs.File, error) {
	if err := fs.Remove(path); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	f, err := fs.OpenReadWrite(path, writeCategory)
	if err != nil {
		return nil, err
	}
	if err := f.Preallocate(0, size); errors.Is(err, syscall.ENOSPC) {
		return nil, errors.Join(err, f.Close(), fs.Remove(path))
	}
	return f, nil
}

// createSparse makes a file that reads as zeros. It takes no time, but the first sync of each part of it costs more.
func createSparse(fs vfs.FS, path string, size int64) (vfs.File, error) {
	f, err := createTemp(fs, path, size)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt([]byte{0}, size-1); err != nil {
		return nil, errors.Join(err, f.Close(), fs.Remove(path))
	}
	return f, nil
}

// writeZeros writes f full of zeros from offset from to offset to.
func writeZeros(f vfs.File, from, to int64) error {
	for from < to {
		n := min(to-from, int64(len(zeroChunk)))
		if _, err := f.WriteAt(zeroChunk[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

var zeroChunk [256 << 10]byte
