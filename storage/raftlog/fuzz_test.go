package raftlog

import (
	"bytes"
	"errors"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

// FuzzReadFrame reads anything as a frame: it must not panic. It also writes anything as a frame and reads that back:
// whole as it is, torn when a sector of it that was not zero is, and rotten with any one bit flipped.
func FuzzReadFrame(f *testing.F) {
	const key, off = 77, segmentHeaderBytes
	frame := padFrame(append(make([]byte, frameHeaderBytes), "a body"...))
	putFrameHeader(frame, key, off, 9, 2, 6)
	f.Add(frame, uint32(0))
	f.Add(make([]byte, 1000), uint32(500))
	f.Add(bytes.Repeat([]byte("text "), 500), uint32(900))
	f.Fuzz(func(t *testing.T, b []byte, pick uint32) {
		data := append(make([]byte, off), b...)
		if h, body, v := readFrame(data, off, key); v == frameWhole && len(body) != int(h.length) {
			t.Errorf("body of %d bytes, header says %d", len(body), h.length)
		}

		frame := padFrame(append(make([]byte, frameHeaderBytes), b...))
		putFrameHeader(frame, key, off, 9, 2, len(b))
		data = append(make([]byte, off), frame...)
		h, body, v := readFrame(data, off, key)
		if v != frameWhole || !bytes.Equal(body, b) || h.seq != 9 || h.stable() != 6 {
			t.Fatalf("read back as %v %+v %x, wrote %x", v, h, body, b)
		}
		bit := int(pick) % (8 * len(frame))
		flipped := bytes.Clone(data)
		flipped[off+bit/8] ^= 1 << (bit % 8)
		// A flip can also make a sector zero that had this one bit.
		if _, _, v := readFrame(flipped, off, key); v == frameWhole || v == frameAbsent || v == frameTorn && zeroSectors(flipped[off:], off) <= h.zeros {
			t.Errorf("bit %d flipped: %v", bit, v)
		}
		sector := (off + bit/8) &^ (sectorBytes - 1)
		if part := data[max(sector, off):min(sector+sectorBytes, len(data))]; sector > 0 && !isZero(part) {
			clear(part)
			if _, _, v := readFrame(data, off, key); v != frameTorn {
				t.Errorf("sector at %d missing: %v", sector, v)
			}
		}
	})
}

// FuzzReplay puts a body with right sums behind a real log: whatever its records say, Open must not panic, and what it
// accepts must be usable.
func FuzzReplay(f *testing.F) {
	b := (&Log{groups: map[uint64]*Group{}}).NewBatch()
	b.SetSnapshot(1, &pb.SnapshotMetadata{Index: new(uint64(4)), Term: new(uint64(2)), ConfState: &pb.ConfState{Voters: []uint64{1}}})
	b.Append(1, hard(2, 1, 4), run(5, 3, 2, 20))
	b.SetConfState(1, &pb.ConfState{Voters: []uint64{1, 2}})
	b.rewrite(1, 4, 2, run(5, 3, 2, 20))
	b.buf = b.appendPosition(recordTruncate, 1, 6, 2)
	b.Remove(2)
	b.LetGo(3, 4, 1)
	f.Add(b.buf[frameHeaderBytes:], false)
	g := &Group{id: 3, conf: []byte{8, 1}, trunc: 5}
	f.Add(g.appendCheckpoint(nil), true)
	f.Add(appendRecordHead(nil, recordLink, 2), false)
	f.Fuzz(func(t *testing.T, body []byte, first bool) {
		if len(body) > minSegmentBytes/2 {
			return
		}
		key := frameKey(42, 1)
		data := segmentHeader{salt: 42, id: 1, first: 1, size: minSegmentBytes}.append(nil)
		seq := uint64(1)
		if !first {
			frame := make([]byte, frameHeaderBytes)
			putFrameHeader(frame, key, int64(len(data)), seq, 0, 0)
			data = append(data, frame...)
			seq++
		}
		frame := padFrame(append(make([]byte, frameHeaderBytes), body...))
		putFrameHeader(frame, key, int64(len(data)), seq, 0, len(body))
		data = append(data, frame...)
		data = append(data, make([]byte, minSegmentBytes-len(data))...)
		opts := testOptions(memory(t, map[string][]byte{segmentName(1): data}))
		l, err := Open(opts)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		defer l.Close()
		for _, id := range l.Groups() {
			g := l.Group(id)
			last, _ := g.LastIndex()
			if last > 1<<60 {
				return
			}
			mustCommit(t, l, true, func(b *Batch) { b.Append(id, nil, run(last+1, 1, 1, 10)) })
		}
	})
}

// FuzzOpen opens a small log with a piece of one file replaced.
func FuzzOpen(f *testing.F) {
	content, _, l := rotLog(f, true)
	var names []string
	for _, s := range l.segs {
		names = append(names, s.name)
	}
	f.Add(uint8(0), uint16(100), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, file uint8, at uint16, piece []byte) {
		name := names[int(file)%len(names)]
		data := bytes.Clone(content[name])
		off := int(at) % len(data)
		copy(data[off:], piece)
		changed := map[string][]byte{}
		for k, v := range content {
			changed[k] = v
		}
		changed[name] = data
		l, err := Open(testOptions(memory(t, changed)))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		l.Close()
	})
}
