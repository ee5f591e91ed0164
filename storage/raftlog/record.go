package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	pb "go.etcd.io/raft/v3/raftpb"
)

// recordKind is the first byte of a record.
type recordKind uint8

const (
	recordHardState recordKind = iota + 1
	recordEntries
	recordSnapshot
	recordConfState
	recordTruncate
	recordRemove
	recordRewrite
	recordCheckpoint
	recordLink
	recordLetGo
)

// What the first byte of a checkpoint says of the hard state.
const (
	checkpointNone = iota
	checkpointHard
	checkpointLeft
)

const (
	recordHeadBytes = 9  // kind and group
	entryHeadBytes  = 17 // sum, length, term, type
)

// hardState is raftpb.HardState by value.
type hardState struct{ term, vote, commit uint64 }

// entryRef is where an entry of a record stands: bytes from the start of its frame to the entry's head, and
// the length of its data.
type entryRef struct {
	term uint64
	off  uint32
	size uint32
}

// record is one change to one group, as a Batch gathers it and as recovery reads it. Both hand it to Log.apply.
type record struct {
	kind    recordKind
	group   uint64 // of a link: the next segment
	index   uint64 // entries: first; snapshot, truncate, rewrite, checkpoint: truncated
	term    uint64
	last    uint64 // checkpoint
	hard    hardState
	hasHard bool
	left    bool        // checkpoint: see Batch.LetGo
	conf    []byte      // ConfState in protobuf; immutable
	refs    []entryRef  // entries, rewrite
	ents    []*pb.Entry // the same, for the cache; nil in recovery
}

func appendRecordHead(b []byte, kind recordKind, group uint64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, byte(kind)), group)
}

func appendHardState(b []byte, h hardState) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint64(le.AppendUint64(b, h.term), h.vote), h.commit)
}

func appendBytes(b, p []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(p))), p...)
}

// appendEntry appends e, entry index of group, to frame, and says where it stands.
func appendEntry(frame []byte, group, index uint64, e *pb.Entry) ([]byte, entryRef) {
	le := binary.LittleEndian
	ref := entryRef{term: e.GetTerm(), off: uint32(len(frame)), size: uint32(len(e.Data))}
	frame = le.AppendUint32(frame, 0)
	frame = le.AppendUint32(frame, ref.size)
	frame = le.AppendUint64(frame, ref.term)
	frame = append(frame, byte(e.GetType()))
	frame = append(frame, e.Data...)
	sum := crc32.Update(entryKey(group, index), castagnoli, frame[ref.off+4:])
	le.PutUint32(frame[ref.off:], sum)
	return frame, ref
}

// entryKey starts the sum of an entry, so that an entry read in place of another does not pass. It is the
// finaliser of splitmix64 over group and index.
func entryKey(group, index uint64) uint32 {
	x := group*0x9e3779b97f4a7c15 + index
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return uint32(x ^ x>>31)
}

// checkEntry reports whether b, an entry's head and data, is entry index of group.
func checkEntry(b []byte, group, index uint64) bool {
	return binary.LittleEndian.Uint32(b) == crc32.Update(entryKey(group, index), castagnoli, b[4:])
}

var errMalformed = errors.New("malformed record")

// recordReader walks the records of a frame's body. The refs of a record are overwritten by the next.
type recordReader struct {
	body []byte
	at   int
	refs []entryRef
	bad  bool
}

// next returns the next record; more is false at the end.
func (r *recordReader) next() (rec record, more bool, err error) {
	if r.at == len(r.body) {
		return record{}, false, nil
	}
	rec.kind = recordKind(r.u8())
	rec.group = r.u64()
	switch rec.kind {
	case recordHardState:
		rec.hard, rec.hasHard = r.hardState(), true
	case recordEntries:
		rec.index = r.u64()
		rec.refs = r.entries()
	case recordSnapshot:
		rec.index, rec.term = r.u64(), r.u64()
		rec.conf = r.bytes()
	case recordConfState:
		rec.conf = r.bytes()
	case recordTruncate:
		rec.index, rec.term = r.u64(), r.u64()
	case recordRemove, recordLink:
	case recordRewrite:
		rec.index, rec.term = r.u64(), r.u64()
		rec.refs = r.entries()
	case recordLetGo:
		rec.hard, rec.hasHard = hardState{term: r.u64(), vote: r.u64()}, true
	case recordCheckpoint:
		state := r.u8()
		rec.hasHard, rec.left = state != checkpointNone, state == checkpointLeft
		rec.hard = r.hardState()
		rec.index, rec.term, rec.last = r.u64(), r.u64(), r.u64()
		rec.conf = r.bytes()
	default:
		r.bad = true
	}
	if r.bad {
		return record{}, false, errMalformed
	}
	return rec, true, nil
}

// take returns the next n bytes; after a read past the end, zeros and bad.
func (r *recordReader) take(n int) []byte {
	if n > len(r.body)-r.at {
		r.bad, r.at = true, len(r.body)
		return nil
	}
	b := r.body[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *recordReader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *recordReader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *recordReader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *recordReader) hardState() hardState {
	return hardState{term: r.u64(), vote: r.u64(), commit: r.u64()}
}

// bytes copies, since what it returns outlives the segment in memory.
func (r *recordReader) bytes() []byte {
	return append([]byte(nil), r.take(int(r.u32()))...)
}

func (r *recordReader) entries() []entryRef {
	r.refs = r.refs[:0]
	for n := r.u32(); n > 0; n-- {
		off := r.at
		head := r.take(entryHeadBytes)
		if head == nil {
			return nil
		}
		size := binary.LittleEndian.Uint32(head[4:])
		if r.take(int(size)); r.bad {
			return nil
		}
		r.refs = append(r.refs, entryRef{
			term: binary.LittleEndian.Uint64(head[8:]),
			off:  uint32(frameHeaderBytes + off),
			size: size,
		})
	}
	return r.refs
}
