package region

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/storage"
)

// What nodes of a region ask each other about partitions. Bytes of a question:
//
//	kind (1), partition, and by kind
//	  do        a command, to the end
//	  sync      the sum of the schema that is known (8)
//	  get       key, strong (1)
//	  rows      as of which entry at least, where the partition ends (optional), pin, from, to, the last ones (1), how many bytes at most
//	  pin       nothing
//	  unpin     pin
//	  middle    nothing
//	  logSize   nothing
//	  closed    attempt
//	  words     wait in ms, count, then of each: partition, entry, sum of the schema (8); the partition before means nothing
//
// and of an answer:
//
//	answered, and by kind
//	  do        result (op.Result), to the end
//	  sync      word as JSON
//	  get       0, or 1 and the item to the end
//	  rows      whether that is all (1), then key and value of each
//	  pin       pin
//	  middle    key
//	  logSize   bytes, stamp
//	  closed    nothing
//	  words     count, then partition and word as JSON of each that has news, nothing for one that is not held
//	refused, the number of an error (1), its text
//	moved, word as JSON: the partition is not what was asked about any more
//
// A kind of 255 is not region's: node passes operators' requests on with it.
//
// Numbers are uvarints; strings, keys and items have their length before them, optional ones one more than their length, 0 for none.
type questionKind byte

const (
	askDo questionKind = iota + 1
	askSync
	askGet
	askRows
	askPin
	askUnpin
	askMiddle
	askLogSize
	askWords
	askClosed
)

const (
	answered = iota
	refused
	moved
)

// errors that travel; their numbers do not change. What is none of them is refusedOther.
var refusals = []error{
	errNotHere, group.ErrUnknown, group.ErrGone, group.ErrClosed, group.ErrOverloaded, group.ErrNoLeader, ErrFull, errNoPin, ErrNoSplitKey, storage.ErrNotFound, errNotClosed,
}

const refusedOther = 255

var (
	// errNotHere is the answer of a node that does not hold the partition, or cannot answer for it yet. It had no effect.
	errNotHere = errors.New("region: the node does not hold the partition")
	// errNoPin is the answer of a node that was asked for rows of a state that it does not keep any more.
	errNoPin     = errors.New("region: what was pinned is not kept any more")
	errQuestion  = errors.New("region: not a question")
	errAnswer    = errors.New("region: not an answer")
	errRefused   = errors.New("region: another node could not answer")
	errNoAskable = errors.New("region: no other node of the region can be asked")
)

func question(kind questionKind, partition uint64) []byte {
	return binary.AppendUvarint([]byte{byte(kind)}, partition)
}

func refusal(err error) []byte {
	n := slices.IndexFunc(refusals, func(e error) bool { return errors.Is(err, e) })
	if n < 0 {
		n = refusedOther
	}
	return append([]byte{refused, byte(n)}, err.Error()...)
}

// refusalOf is the error of a refusal.
func refusalOf(b []byte) error {
	switch {
	case len(b) == 0:
		return errAnswer
	case int(b[0]) < len(refusals):
		return refusals[b[0]]
	}
	return fmt.Errorf("%w: %s", errRefused, b[1:])
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendOptional(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return append(binary.AppendUvarint(dst, uint64(len(b))+1), b...)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// reading reads what is left of a question or an answer.
type reading struct {
	b   []byte
	bad bool
}

func (r *reading) fail() { r.b, r.bad = nil, true }

func (r *reading) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reading) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reading) bytes() []byte { return r.take(r.number()) }

func (r *reading) optional() []byte {
	n := r.number()
	if n == 0 {
		return nil
	}
	return r.take(n - 1)
}

func (r *reading) bool() bool {
	b := r.take(1)
	return len(b) == 1 && b[0] == 1
}

func (r *reading) fixed() uint64 {
	b := r.take(8)
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// done tells whether all was read, and nothing was missing.
func (r *reading) done() bool { return !r.bad && len(r.b) == 0 }
