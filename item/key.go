package item

import (
	"errors"
	"strings"
)

// Key is an item's primary key: the partition key's value and, in a table that has one, the sort key's.
type Key struct {
	Partition Value
	Sort      Value // absent in a table without a sort key
}

// Ordered returns the key's ordered bytes: those of the partition key, then those of the sort key.
func (k Key) Ordered() []byte {
	b := k.Partition.AppendOrdered(make([]byte, 0, len(k.Partition.str)+len(k.Sort.str)+8))
	if !k.Sort.IsAbsent() {
		b = k.Sort.AppendOrdered(b)
	}
	return b
}

// ErrOrdered says that bytes are not an ordered key.
var ErrOrdered = errors.New("item: not an ordered key")

// AppendOrdered appends the ordered form of an S, N or B: bytes that compare as the values do, and of
// which none is a prefix of another's, so that a second key may follow.
//
//	N     the number's ordered bytes (see Number)
//	S, B  the bytes with 00 written as 00 FF, then 00 01
func (v Value) AppendOrdered(dst []byte) []byte {
	if v.kind == KindN {
		return append(dst, v.str...)
	}
	s := v.str
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			break
		}
		dst = append(dst, s[:i]...)
		dst = append(dst, 0, 0xFF)
		s = s[i+1:]
	}
	dst = append(dst, s...)
	return append(dst, 0, 1)
}

// CutOrdered takes one value of the given kind off the front of ordered bytes and returns the rest.
// It returns ErrOrdered when there is none.
func CutOrdered(b []byte, kind Kind) (v Value, rest []byte, err error) {
	if kind == KindN {
		n, err := orderedNumberLen(b)
		if err != nil {
			return Value{}, nil, err
		}
		return Value{kind: KindN, str: string(b[:n])}, b[n:], nil
	}
	var out []byte
	for i := 0; i+1 < len(b); i++ {
		if b[i] != 0 {
			out = append(out, b[i])
			continue
		}
		switch b[i+1] {
		case 1:
			return Value{kind: kind, str: string(out)}, b[i+2:], nil
		case 0xFF:
			out = append(out, 0)
			i++
		default:
			return Value{}, nil, ErrOrdered
		}
	}
	return Value{}, nil, ErrOrdered
}

func orderedNumberLen(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, ErrOrdered
	}
	if b[0] == numZero {
		return 1, nil
	}
	end := byte(0)
	if b[0] == numNegative {
		end = 0xFF
	}
	for i := 3; i < len(b); i++ {
		if b[i] == end {
			if !validOrdered(string(b[:i+1])) {
				return 0, ErrOrdered
			}
			return i + 1, nil
		}
	}
	return 0, ErrOrdered
}
