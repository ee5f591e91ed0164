package raftlog

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Group is the log of one Raft group: a raft.Storage. It shows what Commit has finished writing, no more. Its
// methods may be called at any time from any goroutine.
type Group struct {
	id uint64

	mu sync.RWMutex
	// Below mu. Written only under Log.commitMu as well, so that Commit may read them without mu.
	onDisk  bool // some record of the group is in the log
	hard    hardState
	hasHard bool
	left    bool   // see Batch.LetGo
	conf    []byte // ConfState in protobuf; immutable; nil if none was set
	// trunc is the last index that is no longer there, truncTerm its term; both 0 in a new group.
	trunc     uint64
	truncTerm uint64
	// missing counts entries after trunc that a checkpoint knew and no segment read so far holds. It is 0 once
	// recovery is done, so only what recovery calls minds it.
	missing uint64
	// locs[i] is where entry trunc+missing+1+i stands.
	// Invariant: its segments do not decrease, so the first entry is in the oldest segment the group needs.
	locs []location
	// cache holds the newest len(cache) entries. Invariant: len(cache) <= len(locs).
	cache []*pb.Entry
	bytes int64 // of all entries as they stand in segments

	// Below Log.commitMu: what trunc and the last index will be after the part of a batch checked so far.
	checkEpoch            uint64
	checkTrunc, checkLast uint64
}

var _ raft.Storage = (*Group)(nil)

// location is where an entry stands in the log.
type location struct {
	term uint64
	seg  *segment
	off  uint32 // of the entry's head in the segment
	size uint32 // of its data
}

// bytes is how much of the segment the entry takes.
func (l location) bytes() int64 { return entryHeadBytes + int64(l.size) }

func (g *Group) lastLocked() uint64 { return g.trunc + g.missing + uint64(len(g.locs)) }

// InitialState returns the saved hard state, nil if there is none, and ConfState, empty if there is none.
func (g *Group) InitialState() (*pb.HardState, *pb.ConfState, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var hs *pb.HardState
	if g.hasHard {
		hs = &pb.HardState{Term: new(g.hard.term), Vote: new(g.hard.vote), Commit: new(g.hard.commit)}
	}
	cs := new(pb.ConfState)
	if err := proto.Unmarshal(g.conf, cs); err != nil {
		return nil, nil, fmt.Errorf("raftlog: group %d: decode ConfState: %w", g.id, err)
	}
	return hs, pb.EnsureConfState(cs), nil
}

// Left tells whether the group was let go (Batch.LetGo), and has had no hard state since.
func (g *Group) Left() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.left
}

// Bytes is how much of segments the group's entries take.
func (g *Group) Bytes() int64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.bytes
}

// FirstIndex is the index after the last truncated one.
func (g *Group) FirstIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.trunc + 1, nil
}

// LastIndex is the index of the last entry, or the last truncated index if there is none.
func (g *Group) LastIndex() (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.lastLocked(), nil
}

// Term returns the term of entry i, from memory. It returns raft.ErrCompacted before the last truncated index
// and raft.ErrUnavailable after the last entry.
func (g *Group) Term(i uint64) (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	switch {
	case i < g.trunc:
		return 0, raft.ErrCompacted
	case i == g.trunc:
		return g.truncTerm, nil
	case i > g.lastLocked():
		return 0, raft.ErrUnavailable
	}
	return g.locs[i-g.trunc-1].term, nil
}

// Snapshot returns raft.ErrSnapshotTemporarilyUnavailable: the state machine's owner, which can make one,
// embeds *Group and answers this method itself.
func (g *Group) Snapshot() (*pb.Snapshot, error) {
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// Entries returns entries [lo, hi), as many of the first as fit maxSize bytes in protobuf form, and at least one.
// The slice is the caller's; the entries are shared and must not be changed, and stay valid after they are
// truncated. Recent ones come from memory, older ones are read from disk and checked. It returns raft.ErrCompacted,
// raft.ErrUnavailable, a *CorruptError if the disk no longer holds what was written, or the file's error.
func (g *Group) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	g.mu.RLock()
	if lo <= g.trunc {
		g.mu.RUnlock()
		return nil, raft.ErrCompacted
	}
	if lo > hi || hi > g.lastLocked()+1 {
		g.mu.RUnlock()
		return nil, raft.ErrUnavailable
	}
	locs := g.locs[lo-g.trunc-1 : hi-g.trunc-1]
	locs = locs[:countWithin(locs, lo, maxSize)]
	out := make([]*pb.Entry, len(locs))
	cachedFrom := g.lastLocked() + 1 - uint64(len(g.cache))
	if lo >= cachedFrom {
		copy(out, g.cache[lo-cachedFrom:])
		g.mu.RUnlock()
		return out, nil
	}
	cold := slices.Clone(locs[:min(uint64(len(locs)), cachedFrom-lo)])
	copy(out[len(cold):], g.cache)
	held, ok := acquireAll(cold)
	g.mu.RUnlock()
	defer releaseAll(held)
	if !ok {
		return nil, ErrClosed
	}
	if err := readEntries(out[:len(cold)], g.id, lo, cold); err != nil {
		return nil, err
	}
	return out, nil
}

// countWithin is how many of locs, of which the first has index lo, fit maxSize bytes in protobuf form; at least
// one if there is one.
func countWithin(locs []location, lo, maxSize uint64) int {
	var sum uint64
	for i, loc := range locs {
		sum += protoSize(loc, lo+uint64(i))
		if sum > maxSize && i > 0 {
			return i
		}
	}
	return len(locs)
}

// protoSize is the size of an entry as raft counts it: raftpb.Entry in protobuf form.
func protoSize(loc location, index uint64) uint64 {
	n := 2 + 1 + varintBytes(loc.term) + 1 + varintBytes(index)
	if loc.size > 0 {
		n += 1 + varintBytes(uint64(loc.size)) + uint64(loc.size)
	}
	return n
}

func varintBytes(v uint64) uint64 { return uint64(bits.Len64(v|1)+6) / 7 }

// acquireAll keeps the files of all locs open until releaseAll. ok is false if the log was closed.
func acquireAll(locs []location) (held []*segment, ok bool) {
	for _, loc := range locs {
		if n := len(held); n > 0 && held[n-1] == loc.seg {
			continue
		}
		if !loc.seg.acquire() {
			return held, false
		}
		held = append(held, loc.seg)
	}
	return held, true
}

func releaseAll(held []*segment) {
	for _, s := range held {
		s.release()
	}
}

const (
	// readGapBytes of other groups' entries are read along rather than read around: about what a disk reads in
	// the time of one more call.
	readGapBytes = 16 << 10
	// readSpanBytes bounds one read, and what stays in memory as long as one of its entries is held.
	readSpanBytes = 1 << 20
)

// readEntries fills out with the entries at locs, the first of which is entry lo of group.
func readEntries(out []*pb.Entry, group, lo uint64, locs []location) error {
	slab := make([]struct {
		entry       pb.Entry
		term, index uint64
		kind        pb.EntryType
	}, len(locs))
	for len(locs) > 0 {
		n := readSpan(locs)
		seg, start, last := locs[0].seg, int64(locs[0].off), locs[n-1]
		buf := make([]byte, int64(last.off)+last.bytes()-start)
		if _, err := seg.file.ReadAt(buf, start); err != nil {
			return fmt.Errorf("raftlog: group %d: read %s: %w", group, seg.name, err)
		}
		for i, loc := range locs[:n] {
			off := int64(loc.off) - start
			b := buf[off : off+loc.bytes() : off+loc.bytes()]
			index := lo + uint64(i)
			if !checkEntry(b, group, index) {
				return &CorruptError{seg.name, int64(loc.off), fmt.Sprintf("entry %d of group %d is damaged", index, group)}
			}
			s := &slab[i]
			s.term, s.index, s.kind = binary.LittleEndian.Uint64(b[8:]), index, pb.EntryType(b[16])
			s.entry.Term, s.entry.Index, s.entry.Type = &s.term, &s.index, &s.kind
			if loc.size > 0 {
				s.entry.Data = b[entryHeadBytes:]
			}
			out[i] = &s.entry
		}
		out, slab, locs, lo = out[n:], slab[n:], locs[n:], lo+uint64(n)
	}
	return nil
}

// readSpan is how many of locs to read in one call.
func readSpan(locs []location) int {
	end := int64(locs[0].off) + locs[0].bytes()
	for i, loc := range locs[1:] {
		next := int64(loc.off) + loc.bytes()
		if loc.seg != locs[0].seg || int64(loc.off) < end || int64(loc.off)-end > readGapBytes ||
			next-int64(locs[0].off) > readSpanBytes {
			return i + 1
		}
		end = next
	}
	return len(locs)
}

// truncatable returns the term of index if the log can be truncated to it.
func (g *Group) truncatable(index uint64) (term uint64, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if index <= g.trunc || index > g.lastLocked() {
		return 0, false
	}
	return g.locs[index-g.trunc-1].term, true
}

// apply changes the group in memory as rec says, of which the frame stands in seg at frameOff with number seq.
// It returns by how much the cache grew, in bytes. Log.commitMu is held, or recovery is the only one.
func (g *Group) apply(rec record, seg *segment, frameOff int64, seq uint64) (cached int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.onDisk = true
	switch rec.kind {
	case recordHardState:
		g.hard, g.hasHard, g.left = rec.hard, true, false
	case recordConfState:
		g.conf = rec.conf
	case recordSnapshot:
		cached = g.dropFromLocked(g.trunc+1, seq)
		g.trunc, g.truncTerm, g.conf = rec.index, rec.term, rec.conf
	case recordEntries:
		cached = g.dropFromLocked(rec.index, seq)
		g.appendLocked(rec.refs, seg, frameOff)
		if rec.ents != nil {
			g.cache = append(g.cache, rec.ents...)
			cached += cacheCost(rec.ents)
		}
	case recordTruncate:
		if rec.index > g.trunc && rec.index <= g.lastLocked() {
			cached = g.dropToLocked(rec.index, seq)
			g.trunc, g.truncTerm = rec.index, rec.term
		}
	case recordRemove:
		cached = g.dropFromLocked(g.trunc+1, seq)
		g.hard, g.hasHard, g.left, g.conf, g.trunc, g.truncTerm = hardState{}, false, false, nil, 0, 0
		g.onDisk = false
	case recordLetGo:
		cached = g.dropFromLocked(g.trunc+1, seq)
		g.hard, g.hasHard, g.left, g.conf, g.trunc, g.truncTerm = rec.hard, true, true, nil, 0, 0
	case recordRewrite:
		// The entries are the same, so those in the cache still stand for them.
		g.unlinkLocked(g.locs, seq)
		g.locs, g.missing = g.locs[:0], 0
		g.trunc, g.truncTerm = rec.index, rec.term
		g.appendLocked(rec.refs, seg, frameOff)
	case recordCheckpoint:
		g.hard, g.hasHard, g.left, g.conf = rec.hard, rec.hasHard, rec.left, rec.conf
		g.trunc, g.truncTerm = rec.index, rec.term
		g.missing = rec.last - rec.index
	}
	return cached
}

func (g *Group) appendLocked(refs []entryRef, seg *segment, frameOff int64) {
	for _, r := range refs {
		loc := location{term: r.term, seg: seg, off: uint32(frameOff) + r.off, size: r.size}
		g.locs = append(g.locs, loc)
		g.bytes += loc.bytes()
		seg.live += loc.bytes()
	}
}

// dropFromLocked forgets the entries from index on, killed by frame seq, and returns minus what the cache lost.
func (g *Group) dropFromLocked(index, seq uint64) int64 {
	g.missing = min(g.missing, index-g.trunc-1)
	keep := int(index - g.trunc - g.missing - 1)
	if keep >= len(g.locs) {
		return 0
	}
	uncached := max(keep-(len(g.locs)-len(g.cache)), 0)
	lost := cacheCost(g.cache[uncached:])
	clear(g.cache[uncached:])
	g.cache = g.cache[:uncached]
	g.unlinkLocked(g.locs[keep:], seq)
	g.locs = g.locs[:keep]
	return -lost
}

// dropToLocked forgets the entries up to and with index, killed by frame seq, and returns minus what the cache lost.
func (g *Group) dropToLocked(index, seq uint64) int64 {
	n := index - g.trunc
	absent := min(g.missing, n)
	g.missing -= absent
	n -= absent
	g.unlinkLocked(g.locs[:n], seq)
	g.locs = dropFront(g.locs, int(n))
	return -g.uncacheLocked(len(g.cache) - len(g.locs))
}

// uncacheLocked takes the oldest n entries out of the cache and returns what that freed.
func (g *Group) uncacheLocked(n int) int64 {
	if n <= 0 {
		return 0
	}
	freed := cacheCost(g.cache[:n])
	clear(g.cache[:n])
	g.cache = dropFront(g.cache, n)
	return freed
}

func (g *Group) unlinkLocked(locs []location, seq uint64) {
	for _, loc := range locs {
		loc.seg.live -= loc.bytes()
		loc.seg.deadSeq = seq
		g.bytes -= loc.bytes()
	}
}

// dropFront removes the first n of s without keeping an array that is far too large for the rest, or copying
// more elements than it removes.
func dropFront[T any](s []T, n int) []T {
	rest := s[n:]
	switch {
	case len(rest) > n:
		return rest // append moves it when the array is full
	case cap(s) > 1024 && cap(s) > 8*len(rest):
		return append(make([]T, 0, 2*len(rest)), rest...)
	}
	copy(s, rest)
	clear(s[len(rest):])
	return s[:len(rest)]
}
