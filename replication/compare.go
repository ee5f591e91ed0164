package replication

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
)

// Copy is what a region shows others of its copy of a table, so that they can hold theirs against it. Whoever asks
// must have a replica. Its methods return ErrNoTable, ErrNotMember or ErrNotLeader.
type Copy interface {
	// Digest hands the digests of all leaves that hold anything to send, in order, as of one moment at or after the call.
	Digest(ctx context.Context, q DigestRequest, send func(DigestPart) error) error
	// List hands the visible items of some leaves to send, in order of their keys, as of one moment at or after the call. The
	// last part is empty.
	List(ctx context.Context, q ListRequest, send func([]Entry) error) error
	// Fetch hands whole states, as Seed does, of some keys to send, in their order, as of one moment at or after the call; an
	// empty one where nothing is held. Those that would be too much for one answer are left out: at least one is not. The
	// last part is Done, and nothing else.
	Fetch(ctx context.Context, q FetchRequest, send func(SeedPart) error) error
}

// Bounds of what one request may ask for.
const (
	MaxLeafBits = 18
	MaxLeaves   = 1024 // of one ListRequest
	MaxKeys     = 256  // of one FetchRequest
)

// DigestRequest asks for the digests of a table's leaves.
type DigestRequest struct {
	Region string // who asks
	Table  string // global id
	Bits   int    // there are 1<<Bits leaves
}

// DigestPart is a run of them. What is below End and not among Leaves, in this part or before, holds nothing.
type DigestPart struct {
	Leaves []Leaf
	End    uint32 // 1<<Bits in the last part
	Bytes  uint64 // that were read for it
}

// ListRequest asks for what some leaves hold.
type ListRequest struct {
	Region string
	Table  string
	Bits   int
	Leaves []uint32 // in order
	Values bool     // whole items instead of their sums
}

// FetchRequest asks for whole states.
type FetchRequest struct {
	Region string
	Table  string
	Keys   [][]byte
}

// Entry is one visible item.
type Entry struct {
	Key    []byte
	Newest crdt.Dot // of its record
	Sum    Sum      // SumOf; zero in a list with values
	Item   []byte   // stored form, in a list with values
}

// Sum stands for one item: its key, the newest write that its record has seen, and what it shows.
type Sum [16]byte

// SumOf is the first half of the SHA-256 of an item's key, newest dot and stored form.
func SumOf(key []byte, newest crdt.Dot, item []byte) (s Sum) {
	b := make([]byte, 0, 512)
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	b = AppendDot(b, newest)
	whole := sha256.Sum256(append(b, item...))
	copy(s[:], whole[:])
	return s
}

// AppendDot appends a dot's 12 bytes.
func AppendDot(b []byte, d crdt.Dot) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(d.HLC)), uint32(d.Actor))
}

// Digest stands for a set of items: how many they are, and the sum of their sums, 128 bits wide. It depends neither on
// their order nor on how they were gathered. The zero Digest is that of nothing.
type Digest struct {
	Items  uint64
	Hi, Lo uint64
}

// Add adds one item.
func (d *Digest) Add(s Sum) {
	d.Join(Digest{1, binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:])})
}

// Join adds the items of another digest, which must be none of this one's.
func (d *Digest) Join(o Digest) {
	lo, carry := bits.Add64(d.Lo, o.Lo, 0)
	d.Items, d.Lo, d.Hi = d.Items+o.Items, lo, d.Hi+o.Hi+carry
}

// Leaf is the digest of what is in one range of a table's keys.
type Leaf struct {
	At uint32
	Digest
}

// leafItems is about how many items a leaf should hold: a leaf that differs is listed whole.
const leafItems = 64

// LeafBits returns into how many leaves, as a power of two, a table of so many items is to be divided.
func LeafBits(items int64) int {
	return min(bits.Len64(uint64(max(items, 0)/leafItems)), MaxLeafBits)
}

// LeafOf returns the leaf that a key is in: the leading bits of the hash that the key begins with (table.Key). So
// leaves are ranges of keys, the same in every region, wherever its partitions begin.
func LeafOf(key []byte, bits int) uint32 {
	var hash [8]byte
	copy(hash[:], key)
	return uint32(binary.BigEndian.Uint64(hash[:]) >> (64 - bits))
}

// LeafStart returns what no key of the leaf, and every key of those before it, is less than.
func LeafStart(leaf uint32, bits int) []byte {
	if bits == 0 {
		return make([]byte, 8)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(leaf)<<(64-bits))
}

// Unequal returns the leaves that two runs of digests, each in order, do not agree on.
func Unequal(a, b []Leaf) (out []uint32) {
	if mutant.On(mutant.DigestsAgree) {
		return nil
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].At < b[0].At:
			out = append(out, a[0].At)
			a = a[1:]
		case len(a) == 0 || b[0].At < a[0].At:
			out = append(out, b[0].At)
			b = b[1:]
		default:
			if a[0].Digest != b[0].Digest {
				out = append(out, a[0].At)
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// Reach tells whether a region has applied every write that a vector covers. applied says, for each of the table's
// regions that count, up to when it has applied that region's writes, itself among them; 0 when that is not known. Writes
// of regions that are not among them are on no way here any more.
func Reach(applied map[string]crdt.HLC, v crdt.Vector) bool {
	if mutant.On(mutant.ReachIgnored) {
		return true
	}
	for _, h := range applied {
		if v.Floor().HLC > h {
			return false
		}
	}
	for actor, h := range v.All() {
		for region, upTo := range applied {
			if crdt.NewActor(region, 0).Region() == actor.Region() && h > upTo {
				return false
			}
		}
	}
	return true
}

// Check refuses a request that asks for more than one may, or for what there cannot be.
func (q *ListRequest) Check() bool {
	return q.Bits >= 0 && q.Bits <= MaxLeafBits && len(q.Leaves) <= MaxLeaves && slices.IsSorted(q.Leaves) &&
		(len(q.Leaves) == 0 || q.Leaves[len(q.Leaves)-1]>>q.Bits == 0)
}
