// Package op owns the words between the API and the data: the command that a group logs, and the result
// of carrying it out. It leaves carrying out to region/partition and asking to region.
//
// Invariant: a command encodes to bytes and back without loss, since it travels through a Raft log; what
// a command does is a function of the partition's state and those bytes alone.
package op

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/table"
)

// Kind says what a command does. Its numbers are stored and must not change.
type Kind uint8

// The kinds of command.
const (
	Put     Kind = 1  // the whole item becomes Item
	Update  Kind = 2  // the item at Key is changed by Update
	Delete  Kind = 3  // the item at Key goes
	Expire  Kind = 4  // the item at Key goes, unless a write has not been seen (TTL)
	Merge   Kind = 5  // Deltas of another region are joined; Source says how far they go
	Restore Kind = 6  // Deltas hold whole items of a backup, which become this region's writes
	Fold    Kind = 7  // what is stable folds; the change log goes up to Trim
	Alter   Kind = 8  // the partition follows another schema from here on
	Catalog Kind = 9  // a row of the region's catalog is written
	Reindex Kind = 10 // rows of a new index are written for the items from Key on
	Rebase  Kind = 12 // Deltas hold records that an incarnation of this region left which was given up: its own writes are made again
	Mend    Kind = 14 // Deltas are whole states that hold what was lost here
	Forget  Kind = 13 // traces of items that were deleted up to Stable go, and others may never have been kept
	Split   Kind = 15 // the partition is made ready to be cut at Key, some items at a time; when it is, Child takes over from Key on
	Prune   Kind = 16 // index rows of items that are another partition's now go
	Recall  Kind = 17 // Deltas hold conflict records that an incarnation of this region left which was given up
	Close   Kind = 19 // the partition, which must be empty, holds no key any more: its left neighbour is to take its range in
	Reopen  Kind = 20 // a partition that was closed holds what it held before
	Absorb  Kind = 21 // the range that begins at Key, where the partition ends, is the partition's from here on; Value is what Close has given
	Audit   Kind = 18 // each replica of the group works out a digest of what it holds; or one is said. The group's: it changes nothing
	Held    Kind = 11 // Deltas of another region are held for being stamped too far ahead: it is noted
)

// Command is one entry of a partition's log.
type Command struct {
	Kind Kind

	// HLC is what the leader proposes; applying fixes it to max(proposed, last+1).
	HLC crdt.HLC

	Key       table.Key       // Put, Update, Delete, Expire; Reindex, Forget: where to go on; Split, Absorb: where Child begins
	Item      []byte          // Put: stored form
	Update    *expr.Update    // Update
	Condition *expr.Condition // Put, Update, Delete: nil for none

	Deltas  []Delta  // Merge, Mend, Restore, Held, Rebase, Recall
	Source  Cursor   // Merge, Mend
	Observe crdt.HLC // Merge: the origin's clock, above which this one's is lifted; 0 for none

	Lost crdt.Dot // Rebase: who wrote, and up to when the others have it

	// Stable: everything up to here is stable (Fold); traces up to here go (Forget), or were gone when the states were compared (Mend).
	Stable crdt.HLC
	Trim   uint64 // Fold: change-log entries up to here are needed by nobody
	Limit  int    // Fold, Reindex, Forget, Split, Prune: how many change-log entries, items, traces or rows to look at, at most

	Index uint32 // Reindex
	Child uint64 // Split: an id that no partition has had; Absorb: that of the partition whose range it was

	Attempt uint64 // Close, Reopen, Absorb: see table.Merging

	Schema *table.Schema // Alter
	// Revision is of the catalog's row that the schema is from, 0 for none. A schema older than the one followed
	// changes nothing.
	Revision uint64 // Alter

	Name   string // Catalog: the row
	Value  []byte // Catalog: nil deletes it; Audit: a replica's digest, nil: they are to begin; Absorb
	Node   uint64 // Audit: whose digest it is
	At     uint64 // Audit: as of which entry
	Expect uint64 // Catalog: the row's revision as the writer read it, 0 for a row not there
}

// Delta is what one write, or one whole item, adds to a partition.
type Delta struct {
	Key   table.Key
	State []byte // a crdt.Record's encoding (Merge, Mend, Held, Rebase), an item's stored form (Restore), or a conflict record as it is kept (Recall)
}

// Cursor is how far one stream of another region's change log has been applied.
type Cursor struct {
	Stream string // origin's region, incarnation and partition: see region.StreamName
	Seq    uint64 // the last sequence number applied

	// Place, if not empty, is how far a copy of that partition has come instead, in the words of whoever copies. It is kept until
	// the stream has a cursor.
	Place []byte

	// Clock is of the newest write that comes with this, 0 for none.
	Clock crdt.HLC
	// Incarnation is of the origin. What is fenced off is refused.
	Incarnation uint16
	// Part says that other partitions have shares of the batch, too, and one of those says of all how far the stream has come: Seq
	// and Place mean nothing here.
	Part bool
}

// Alone tells whether the command must find everything before it in the store: it reads more than the
// records of its own keys.
func (c *Command) Alone() bool {
	switch c.Kind {
	case Fold, Reindex, Forget, Split, Prune, Close:
		return true
	}
	return false
}

// Bytes of a command:
//
//	kind (1), HLC (8, big-endian), then by kind
//	  Put              condition, key, item to the end
//	  Update           condition, key, update
//	  Delete, Expire   condition, key
//	  Merge, Mend, Restore, Held   stream, seq, place, clock, 2 * incarnation + 1 for a part, observe, (Mend: stable,) count, (key, state)...
//	  Rebase           clock, actor, count, (key, state)...
//	  Recall           count, (key, state)...
//	  Fold             stable (8), trim, limit
//	  Alter            schema as JSON to the end, behind 1 and its revision if it has one
//	  Reindex          key, index, limit
//	  Forget           stable (8), key, limit
//	  Split            key, child, limit
//	  Prune            limit
//	  Close, Reopen    attempt
//	  Absorb           key, child, attempt, what Close has given
//	  Audit            nothing, or node, entry, digest
//	  Catalog          name, expect, 0 or (1 and value to the end)
//	condition = 0, or 1 and the stored condition
//
// Keys, states, places, names and what was given have their length before them; lengths, counts and seq are uvarints.

const hlcAt = 1

// SetHLC writes the proposed HLC into an encoded command.
func SetHLC(encoded []byte, h crdt.HLC) { binary.BigEndian.PutUint64(encoded[hlcAt:], uint64(h)) }

// Append appends the command's bytes.
func (c *Command) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, byte(c.Kind)), uint64(c.HLC))
	switch c.Kind {
	case Put, Update, Delete, Expire:
		if c.Condition == nil {
			dst = append(dst, 0)
		} else {
			dst = c.Condition.Append(append(dst, 1))
		}
		dst = appendBytes(dst, c.Key)
		switch c.Kind {
		case Put:
			dst = append(dst, c.Item...)
		case Update:
			dst = c.Update.Append(dst)
		}
	case Merge, Mend, Restore, Held:
		dst = appendBytes(dst, []byte(c.Source.Stream))
		dst = binary.AppendUvarint(dst, c.Source.Seq)
		dst = appendBytes(dst, c.Source.Place)
		dst = binary.AppendUvarint(dst, uint64(c.Source.Clock))
		incarnation := 2 * uint64(c.Source.Incarnation)
		if c.Source.Part {
			incarnation++
		}
		dst = binary.AppendUvarint(dst, incarnation)
		dst = binary.AppendUvarint(dst, uint64(c.Observe))
		if c.Kind == Mend {
			dst = binary.AppendUvarint(dst, uint64(c.Stable))
		}
		dst = appendDeltas(dst, c.Deltas)
	case Rebase:
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(c.Lost.HLC)), uint64(c.Lost.Actor))
		dst = appendDeltas(dst, c.Deltas)
	case Recall:
		dst = appendDeltas(dst, c.Deltas)
	case Fold:
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.Stable))
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, c.Trim), uint64(c.Limit))
	case Reindex:
		dst = appendBytes(dst, c.Key)
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(c.Index)), uint64(c.Limit))
	case Forget:
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.Stable))
		dst = binary.AppendUvarint(appendBytes(dst, c.Key), uint64(c.Limit))
	case Split:
		dst = binary.AppendUvarint(binary.AppendUvarint(appendBytes(dst, c.Key), c.Child), uint64(c.Limit))
	case Prune:
		dst = binary.AppendUvarint(dst, uint64(c.Limit))
	case Close, Reopen:
		dst = binary.AppendUvarint(dst, c.Attempt)
	case Absorb:
		dst = binary.AppendUvarint(binary.AppendUvarint(appendBytes(dst, c.Key), c.Child), c.Attempt)
		dst = appendBytes(dst, c.Value)
	case Audit:
		if c.Value != nil {
			dst = appendBytes(binary.AppendUvarint(binary.AppendUvarint(dst, c.Node), c.At), c.Value)
		}
	case Alter:
		schema, err := json.Marshal(c.Schema)
		if err != nil {
			panic(fmt.Sprintf("op: schema: %v", err)) // a schema holds only plain data
		}
		if c.Revision > 0 {
			dst = binary.AppendUvarint(append(dst, 1), c.Revision)
		}
		dst = append(dst, schema...)
	case Catalog:
		dst = binary.AppendUvarint(appendBytes(dst, []byte(c.Name)), c.Expect)
		if c.Value == nil {
			dst = append(dst, 0)
		} else {
			dst = append(append(dst, 1), c.Value...)
		}
	default:
		panic(fmt.Sprintf("op: unknown command kind %d", c.Kind))
	}
	return dst
}

func appendDeltas(dst []byte, deltas []Delta) []byte {
	size := 0
	for i := range deltas {
		size += len(deltas[i].Key) + len(deltas[i].State) + 2*binary.MaxVarintLen32
	}
	dst = slices.Grow(dst, size) // there may be a megabyte of them
	dst = binary.AppendUvarint(dst, uint64(len(deltas)))
	for i := range deltas {
		dst = appendBytes(appendBytes(dst, deltas[i].Key), deltas[i].State)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// ErrEncoding says that bytes are not a command.
var ErrEncoding = errors.New("op: not a command")

// Decode reads a command. Its slices alias b.
func Decode(b []byte) (*Command, error) {
	if len(b) < hlcAt+8 {
		return nil, ErrEncoding
	}
	c := &Command{Kind: Kind(b[0]), HLC: crdt.HLC(binary.BigEndian.Uint64(b[hlcAt:]))}
	d := decoder{b: b[hlcAt+8:]}
	switch c.Kind {
	case Put, Update, Delete, Expire:
		d.condition(c)
		c.Key = d.bytes()
		switch c.Kind {
		case Put:
			c.Item, d.b = d.b, nil
		case Update:
			var err error
			if c.Update, d.b, err = expr.DecodeUpdate(d.b); err != nil {
				d.bad = true
			}
		}
	case Merge, Mend, Restore, Held:
		c.Source = Cursor{Stream: string(d.bytes()), Seq: d.uvarint()}
		if place := d.bytes(); len(place) > 0 {
			c.Source.Place = place
		}
		c.Source.Clock = crdt.HLC(d.uvarint())
		incarnation := d.uvarint()
		c.Source.Incarnation, c.Source.Part = uint16(incarnation/2), incarnation%2 == 1
		d.bad = d.bad || incarnation/2 > math.MaxUint16
		c.Observe = crdt.HLC(d.uvarint())
		if c.Kind == Mend {
			c.Stable = crdt.HLC(d.uvarint())
		}
		c.Deltas = d.deltas()
	case Rebase:
		c.Lost.HLC = crdt.HLC(d.uvarint())
		actor := d.uvarint()
		c.Lost.Actor = crdt.Actor(actor)
		d.bad = d.bad || actor > math.MaxUint32
		c.Deltas = d.deltas()
	case Recall:
		c.Deltas = d.deltas()
	case Fold:
		if len(d.b) < 8 {
			return nil, ErrEncoding
		}
		c.Stable = crdt.HLC(binary.BigEndian.Uint64(d.b))
		d.b = d.b[8:]
		c.Trim, c.Limit = d.uvarint(), int(d.uvarint())
	case Forget:
		if len(d.b) < 8 {
			return nil, ErrEncoding
		}
		c.Stable = crdt.HLC(binary.BigEndian.Uint64(d.b))
		d.b = d.b[8:]
		c.Key, c.Limit = d.bytes(), int(d.uvarint())
	case Split:
		c.Key, c.Child, c.Limit = d.bytes(), d.uvarint(), int(d.uvarint())
	case Prune:
		c.Limit = int(d.uvarint())
	case Close, Reopen:
		c.Attempt = d.uvarint()
	case Absorb:
		c.Key, c.Child, c.Attempt, c.Value = d.bytes(), d.uvarint(), d.uvarint(), d.bytes()
	case Audit:
		if len(d.b) > 0 {
			c.Node, c.At, c.Value = d.uvarint(), d.uvarint(), d.bytes()
		}
	case Reindex:
		c.Key = d.bytes()
		index := d.uvarint()
		c.Index, c.Limit = uint32(index), int(d.uvarint())
		d.bad = d.bad || index > math.MaxUint32
	case Alter:
		if len(d.b) > 0 && d.b[0] == 1 {
			d.b = d.b[1:]
			if c.Revision = d.uvarint(); c.Revision == 0 {
				return nil, ErrEncoding
			}
		}
		c.Schema = &table.Schema{}
		if err := json.Unmarshal(d.b, c.Schema); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrEncoding, err)
		}
		d.b = nil
	case Catalog:
		c.Name, c.Expect = string(d.bytes()), d.uvarint()
		if len(d.b) == 0 || d.b[0] > 1 || d.b[0] == 0 && len(d.b) > 1 {
			return nil, ErrEncoding
		}
		if d.b[0] == 1 {
			c.Value = d.b[1:]
		}
		d.b = nil
	default:
		return nil, ErrEncoding
	}
	if d.bad || len(d.b) > 0 {
		return nil, ErrEncoding
	}
	return c, nil
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) deltas() (out []Delta) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		out = append(out, Delta{d.bytes(), d.bytes()})
	}
	return out
}

func (d *decoder) condition(c *Command) {
	if len(d.b) == 0 {
		d.fail()
		return
	}
	has := d.b[0]
	d.b = d.b[1:]
	if has == 0 {
		return
	}
	var err error
	if c.Condition, d.b, err = expr.DecodeCondition(d.b); err != nil || has != 1 {
		d.fail()
	}
}
