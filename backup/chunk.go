package backup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/commutatordb/commutator/internal/mutant"
)

// A chunk's object is chunkMagic and then one zstd frame of its items, each with its length before it
// (uvarint). Chunks are cut where a hash of the item's own bytes says so, so that a change to one item
// changes its chunk and leaves the others as the last backup wrote them.
const (
	chunkMagic = "CMTCHNK1"
	minChunk   = 1 << 20 // bytes before compression
	maxChunk   = 8 << 20
	cutMask    = 1<<10 - 1 // a cut behind one item of about 1024, past minChunk
	maxObject  = maxChunk + 2<<20
)

// ContentHash is a hash of a set of items that does not depend on their order: the sum, 128 bits wide,
// of their SHA-256. Two tables with the same items have the same.
type ContentHash struct{ hi, lo uint64 }

// Add adds an item, in stored form.
func (h *ContentHash) Add(item []byte) {
	sum := sha256.Sum256(item)
	h.add(binary.BigEndian.Uint64(sum[:8]), binary.BigEndian.Uint64(sum[8:16]))
}

func (h *ContentHash) add(hi, lo uint64) {
	h.lo += lo
	if h.lo < lo {
		hi++
	}
	h.hi += hi
}

// String writes the hash in hexadecimal.
func (h ContentHash) String() string { return fmt.Sprintf("%016x%016x", h.hi, h.lo) }

// chunker gathers items into chunks.
type chunker struct {
	raw   []byte
	items int
}

// add takes an item and tells whether the chunk ends behind it.
func (c *chunker) add(item []byte) (full bool) {
	c.raw = append(binary.AppendUvarint(c.raw, uint64(len(item))), item...)
	c.items++
	if len(c.raw) >= maxChunk {
		return true
	}
	if len(c.raw) < minChunk {
		return false
	}
	sum := sha256.Sum256(item)
	return binary.BigEndian.Uint64(sum[16:])&cutMask == 0
}

// object returns the gathered chunk's object, and begins the next.
func (c *chunker) object(e *zstd.Encoder) (object []byte, items int) {
	object = e.EncodeAll(c.raw, []byte(chunkMagic))
	items = c.items
	c.raw, c.items = c.raw[:0], 0
	return object, items
}

func objectName(object []byte) string {
	sum := sha256.Sum256(object)
	return objectPrefix + hex.EncodeToString(sum[:])
}

// readChunk reads a chunk's items, in stored form, checking everything that the manifest says of it. It
// returns a *CorruptError that names the object.
func readChunk(ctx context.Context, a Archive, c Chunk, d *zstd.Decoder) ([][]byte, error) {
	corrupt := func(format string, args ...any) error {
		return &CorruptError{a.String(), c.Object, fmt.Sprintf(format, args...)}
	}
	object, err := a.Get(ctx, c.Object, maxObject)
	if errors.Is(err, ErrNotFound) {
		return nil, corrupt("it is missing")
	}
	if err != nil {
		return nil, err
	}
	if int64(len(object)) != c.Size {
		return nil, corrupt("it has %d bytes, and had %d", len(object), c.Size)
	}
	if objectName(object) != c.Object && !mutant.On(mutant.ChunkHashIgnored) {
		return nil, corrupt("its checksum is wrong")
	}
	if len(object) < len(chunkMagic) || string(object[:len(chunkMagic)]) != chunkMagic {
		return nil, corrupt("it is no chunk")
	}
	raw, err := d.DecodeAll(object[len(chunkMagic):], nil)
	if err != nil {
		return nil, corrupt("%v", err)
	}
	items := make([][]byte, 0, c.Items)
	for len(raw) > 0 {
		n, used := binary.Uvarint(raw)
		if used <= 0 || n > uint64(len(raw)-used) {
			return nil, corrupt("an item ends too soon")
		}
		end := used + int(n)
		items = append(items, raw[used:end:end])
		raw = raw[end:]
	}
	if len(items) != c.Items {
		return nil, corrupt("it has %d items, and had %d", len(items), c.Items)
	}
	return items, nil
}
