package replication

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
)

// SeedRequest asks for the items of one partition of the origin's.
type SeedRequest struct {
	Region    string // who asks
	Table     string // global id
	Instance  uint64 // of the origin, as the asker knows it
	Partition uint64 // of the origin
	After     []byte // the key behind which to begin; nil: with the first
}

// SeedPart is a part of the answer: first what it stands for, then runs of whole items in the order of their keys, then Done alone.
type SeedPart struct {
	Origin *Origin
	Items  []Change // whole states instead of deltas
	Done   bool
}

// Origin is the moment of its origin's partition that a seed shows, and thereby from where to follow.
type Origin struct {
	Seq     uint64            // of the partition
	Clock   crdt.HLC          // the origin's
	Cursors map[string]uint64 // StreamName -> how far the origin had applied it
	// Clocks are of their newest writes up to there, and Shares of those of which the partition alone may have its share.
	Clocks, Shares map[string]crdt.HLC
	// Stable is up to where the partition had folded: what it no longer had then, nobody may take for unseen.
	Stable crdt.HLC

	Items, Bytes int64 // visible in the partition, for showing how far the seed has come

	Range // what the partition had
}

// Place is how far a seed from one partition has come: what its receiver keeps beside what it has merged, and goes on from. The zero
// Place has not begun.
//
// Origin is of the first moment of which there are items, however often the seed was cut off and went on with what the partition was
// by then. What is of a later moment comes a second time on the streams, and changes nothing. Source: docs/decisions/0015-seeds-go-on.md.
type Place struct {
	Origin *Origin // nil: not begun
	After  []byte  // every item up to this key has been merged
	Done   bool    // and those behind it

	Items, Bytes int64 // merged so far: how many, and their states' size
}

// Take notes a part that is merged in one with this note, or has been. It returns an error for what cannot come next.
func (p *Place) Take(part SeedPart) error {
	if o := part.Origin; o != nil {
		if p.Origin == nil || mutant.On(mutant.SeedFromLater) {
			p.Origin = o
		}
		// What was cut off meanwhile may not have been copied.
		p.Origin.Clock, p.Origin.Items, p.Origin.Bytes, p.Origin.Range = max(p.Origin.Clock, o.Clock), o.Items, o.Bytes, o.Range
		return nil
	}
	if p.Origin == nil {
		return fmt.Errorf("replication: a seed does not say of when it is")
	}
	for _, c := range part.Items {
		if bytes.Compare(c.Key, p.After) <= 0 {
			return fmt.Errorf("replication: a seed's items are not in order: %x behind %x", c.Key, p.After)
		}
		p.After = c.Key
		p.Items++
		p.Bytes += int64(len(c.Key) + len(c.Delta))
	}
	p.Done = part.Done
	return nil
}

// Encode returns the place's bytes, which are JSON.
func (p *Place) Encode() []byte {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("replication: place: %v", err)) // it holds only plain data
	}
	return b
}

// DecodePlace reads a place; nil is the zero Place.
func DecodePlace(b []byte) (p Place, err error) {
	if b == nil {
		return p, nil
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("replication: place: %w", err)
	}
	return p, nil
}

// Earlier returns what both moments cover: whoever follows from there misses nothing that is not in both.
func Earlier(a, b Origin) Origin {
	out := Origin{Seq: min(a.Seq, b.Seq), Clock: max(a.Clock, b.Clock), Cursors: map[string]uint64{}, Stable: min(a.Stable, b.Stable), Items: a.Items, Bytes: a.Bytes}
	for stream, seq := range a.Cursors {
		if other, ok := b.Cursors[stream]; ok {
			out.Cursors[stream] = min(seq, other)
		}
	}
	for stream, h := range a.Clocks {
		if other, ok := b.Clocks[stream]; ok {
			if out.Clocks == nil {
				out.Clocks = map[string]crdt.HLC{}
			}
			out.Clocks[stream] = min(h, other)
		}
	}
	return out
}
