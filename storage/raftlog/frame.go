package raftlog

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/commutatordb/commutator/internal/mutant"
)

const (
	frameHeaderBytes = 32
	frameAlign       = 32 // a header never crosses a sector, so it is written whole or not at all
	frameMagic       = 0x4d524643
	sectorBytes      = 512 // what a disk writes whole or not at all

	// maxFrameBytes bounds one batch, so that offsets within a segment fit 32 bits.
	maxFrameBytes = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frameHeader is the header of a frame; see the package comment for the bytes.
type frameHeader struct {
	seq     uint64
	lag     uint32
	length  uint32
	bodySum uint32
	zeros   uint32
}

// stable is the last frame that was known to be durable when this one was written.
func (h frameHeader) stable() uint64 { return h.seq - 1 - uint64(h.lag) }

// frameKey starts the sums of all frames in one segment.
func frameKey(salt, segment uint64) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	binary.LittleEndian.PutUint64(b[8:], segment)
	return crc32.Checksum(b[:], castagnoli)
}

// alignFrame rounds n up to the next place where a frame may begin.
func alignFrame[T int | int64](n T) T { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// putFrameHeader fills the first frameHeaderBytes of frame, which holds header, body of length bytes, and zero
// padding to a multiple of frameAlign, for its place at offset off.
func putFrameHeader(frame []byte, key uint32, off int64, seq uint64, lag uint32, length int) {
	le := binary.LittleEndian
	le.PutUint32(frame, frameMagic) // before zeros are counted: the header's part of a sector is never zero
	le.PutUint64(frame[8:], seq)
	le.PutUint32(frame[16:], lag)
	le.PutUint32(frame[20:], uint32(length))
	le.PutUint32(frame[24:], crc32.Update(key, castagnoli, frame[frameHeaderBytes:]))
	le.PutUint32(frame[28:], zeroSectors(frame, off))
	le.PutUint32(frame[4:], crc32.Update(key, castagnoli, frame[8:frameHeaderBytes]))
}

// parseFrameHeader reads a header; ok is false if its magic or sum is wrong.
func parseFrameHeader(b []byte, key uint32) (h frameHeader, ok bool) {
	le := binary.LittleEndian
	if le.Uint32(b) != frameMagic || le.Uint32(b[4:]) != crc32.Update(key, castagnoli, b[8:frameHeaderBytes]) {
		return frameHeader{}, false
	}
	return frameHeader{
		seq:     le.Uint64(b[8:]),
		lag:     le.Uint32(b[16:]),
		length:  le.Uint32(b[20:]),
		bodySum: le.Uint32(b[24:]),
		zeros:   le.Uint32(b[28:]),
	}, true
}

// verdict is what stands at a place where a frame may begin.
type verdict int

const (
	frameWhole  verdict = iota
	frameAbsent         // zeros, or the end of the segment
	frameTorn           // a write that did not reach the disk in full, never acknowledged
	frameRotten         // bytes that no crash leaves behind
)

// readFrame judges the bytes at offset off of a segment, of which data is the whole, and returns the body of a
// whole frame, which aliases data.
func readFrame(data []byte, off int64, key uint32) (h frameHeader, body []byte, v verdict) {
	if int64(len(data))-off < frameHeaderBytes {
		return h, nil, frameAbsent
	}
	h, ok := parseFrameHeader(data[off:], key)
	if !ok {
		if isZero(data[off : off+frameHeaderBytes]) {
			return h, nil, frameAbsent
		}
		return h, nil, frameRotten
	}
	end := off + alignFrame(frameHeaderBytes+int64(h.length))
	if end > int64(len(data)) {
		return h, nil, frameRotten
	}
	frame := data[off:end]
	if crc32.Update(key, castagnoli, frame[frameHeaderBytes:]) == h.bodySum || mutant.On(mutant.FrameSumIgnored) {
		return h, frame[frameHeaderBytes : frameHeaderBytes+h.length], frameWhole
	}
	if zeroSectors(frame, off) > h.zeros {
		return h, nil, frameTorn
	}
	return h, nil, frameRotten
}

// zeroSectors counts the sectors of the file in which frame, standing at offset off, has only zeros.
func zeroSectors(frame []byte, off int64) uint32 {
	var n uint32
	for len(frame) > 0 {
		part := min(sectorBytes-int(off%sectorBytes), len(frame))
		if isZero(frame[:part]) {
			n++
		}
		frame, off = frame[part:], off+int64(part)
	}
	return n
}

var zeroSector [sectorBytes]byte

func isZero(b []byte) bool {
	for len(b) > sectorBytes {
		if !bytes.Equal(b[:sectorBytes], zeroSector[:]) {
			return false
		}
		b = b[sectorBytes:]
	}
	return bytes.Equal(b, zeroSector[:len(b)])
}

// usedEnd is the offset after the last byte of data, from offset off on, that is not zero; off if there is none.
func usedEnd(data []byte, off int64) int64 {
	end := int64(len(data))
	for end-off > sectorBytes && bytes.Equal(data[end-sectorBytes:end], zeroSector[:]) {
		end -= sectorBytes
	}
	for end > off && data[end-1] == 0 {
		end--
	}
	return end
}
