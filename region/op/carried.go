package op

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/table"
)

// Bytes of a result, which a node that carries out a command for another sends back:
//
//	error, old, new, clock (8, big-endian), actor (4, big-endian), applied, conflicts (count, then class (a string), winner (4), loser (4) of each),
//	more (1), child, partition, next, revision, given
//	error = its number (1), and by its kind two strings
//
// Strings, items and keys are 0 for none, or their length and one more, before them; numbers are uvarints.

// The numbers of errors. Their meanings do not change.
const (
	noError = iota
	otherError
	conditionFailed
	expressionError
	keyError
	staleError
	firstPlain // and from here on those of plainErrors
)

// plainErrors have nothing to say but what they are.
var plainErrors = []error{ErrUpdateTooLarge, ErrNoIndex, ErrFenced, ErrClosed, ErrMoved, ErrBusy, ErrNotEmpty, ErrLate}

// Append appends the result's bytes.
func (r *Result) Append(dst []byte) []byte {
	dst = appendError(dst, r.Err)
	dst = appendOptional(appendOptional(dst, r.Old), r.New)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Dot.HLC))
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Dot.Actor))
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(r.Applied)), uint64(len(r.Conflicts)))
	for _, l := range r.Conflicts {
		dst = appendOptional(dst, []byte(l.Class))
		dst = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, uint32(l.Winner)), uint32(l.Loser))
	}
	more := byte(0)
	if r.More {
		more = 1
	}
	dst = binary.AppendUvarint(binary.AppendUvarint(append(dst, more), r.Child), r.Partition)
	return appendOptional(binary.AppendUvarint(appendOptional(dst, r.Next), r.Revision), r.Given)
}

func appendError(dst []byte, err error) []byte {
	var condition *ConditionFailed
	var expression *expr.Error
	var key *table.KeyError
	var stale *Stale
	switch {
	case err == nil:
		return append(dst, noError)
	case errors.As(err, &condition):
		return appendOptional(append(dst, conditionFailed), condition.Item)
	case errors.As(err, &expression):
		return appendOptional(append(dst, expressionError), []byte(expression.Message))
	case errors.As(err, &key):
		return appendOptional(appendOptional(append(dst, keyError), []byte(key.Message)), []byte(key.Update))
	case errors.As(err, &stale):
		return binary.AppendUvarint(append(dst, staleError), stale.Revision)
	}
	if i := slices.IndexFunc(plainErrors, func(e error) bool { return errors.Is(err, e) }); i >= 0 {
		return append(dst, byte(firstPlain+i))
	}
	return appendOptional(append(dst, otherError), []byte(err.Error()))
}

func appendOptional(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return append(binary.AppendUvarint(dst, uint64(len(b))+1), b...)
}

var errResult = errors.New("op: not a result")

// DecodeResult reads a result. It keeps parts of b.
func DecodeResult(b []byte) (Result, error) {
	d := decoder{b: b}
	var r Result
	r.Err = d.error()
	r.Old, r.New = d.optional(), d.optional()
	r.Dot.HLC = crdt.HLC(d.fixed(8))
	r.Dot.Actor = crdt.Actor(d.fixed(4))
	r.Applied = int(d.uvarint())
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		r.Conflicts = append(r.Conflicts, Loss{Class: crdt.Class(d.optional()), Winner: crdt.Actor(d.fixed(4)), Loser: crdt.Actor(d.fixed(4))})
	}
	r.More = d.fixed(1) == 1
	r.Child, r.Partition = d.uvarint(), d.uvarint()
	r.Next, r.Revision, r.Given = table.Key(d.optional()), d.uvarint(), d.optional()
	if d.bad || len(d.b) > 0 {
		return Result{}, errResult
	}
	return r, nil
}

// fixed reads a number of n bytes, big-endian.
func (d *decoder) fixed(n int) (v uint64) {
	if len(d.b) < n {
		d.fail()
		return 0
	}
	for _, c := range d.b[:n] {
		v = v<<8 | uint64(c)
	}
	d.b = d.b[n:]
	return v
}

// optional reads bytes that may be nil.
func (d *decoder) optional() []byte {
	n := d.uvarint()
	if n == 0 {
		return nil
	}
	if n--; uint64(len(d.b)) < n {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) error() error {
	switch n := d.fixed(1); {
	case n == noError:
		return nil
	case n == otherError:
		return errors.New(string(d.optional()))
	case n == conditionFailed:
		return &ConditionFailed{Item: d.optional()}
	case n == expressionError:
		return &expr.Error{Message: string(d.optional())}
	case n == keyError:
		return &table.KeyError{Message: string(d.optional()), Update: string(d.optional())}
	case n == staleError:
		return &Stale{Revision: d.uvarint()}
	case n-firstPlain < uint64(len(plainErrors)):
		return plainErrors[n-firstPlain]
	}
	d.fail()
	return nil
}
