package item

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The stored form of an item, the same on disk, in the change log and between regions:
//
//	item   = count, field...            count: uvarint; fields sorted by name
//	field  = length, name, value        length of the name in bytes: uvarint
//	value  = tag, payload
//	  01 S     length (uvarint), UTF-8
//	  02 N     length (one byte), the number's ordered bytes
//	  03 B     length (uvarint), bytes
//	  04 false, 05 true, 06 NULL        no payload
//	  07 M     an item
//	  08 L     count (uvarint), value...
//	  09 SS, 0A NS, 0B BS               count (uvarint), members without tags, sorted, each as above
//
// Equal items have equal bytes.
const (
	TagS     = 1
	TagN     = 2
	TagB     = 3
	TagFalse = 4
	TagTrue  = 5
	TagNULL  = 6
	TagM     = 7
	TagL     = 8
	TagSS    = 9
	TagNS    = 10
	TagBS    = 11
)

// MaxDepth is how many lists and maps deep a stored value may nest. DynamoDB's own limit is 32; the
// decoder allows a few more so that merging nested paths never makes an item unreadable.
const MaxDepth = 40

// ErrEncoding says that bytes are not the stored form of an item or value.
var ErrEncoding = errors.New("item: not a stored item")

// AppendItem appends the item's stored form.
func AppendItem(dst []byte, it Item) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(it)))
	for _, f := range it {
		dst = binary.AppendUvarint(dst, uint64(len(f.Name)))
		dst = append(dst, f.Name...)
		dst = AppendValue(dst, f.Value)
	}
	return dst
}

// AppendValue appends the value's stored form. v must not be absent.
func AppendValue(dst []byte, v Value) []byte {
	switch v.kind {
	case KindS:
		dst = append(dst, TagS)
	case KindN:
		dst = append(dst, TagN)
	case KindB:
		dst = append(dst, TagB)
	case KindBOOL:
		if v.flag {
			return append(dst, TagTrue)
		}
		return append(dst, TagFalse)
	case KindNULL:
		return append(dst, TagNULL)
	case KindM:
		return AppendItem(append(dst, TagM), v.fields)
	case KindL:
		dst = binary.AppendUvarint(append(dst, TagL), uint64(len(v.elems)))
		for _, e := range v.elems {
			dst = AppendValue(dst, e)
		}
		return dst
	case KindSS, KindNS, KindBS:
		dst = append(dst, TagSS+byte(v.kind-KindSS))
		dst = binary.AppendUvarint(dst, uint64(len(v.elems)))
		for _, e := range v.elems {
			dst = appendScalar(dst, e)
		}
		return dst
	default:
		panic(fmt.Sprintf("item: an absent value has no stored form (kind %d)", v.kind))
	}
	return appendScalar(dst, v)
}

func appendScalar(dst []byte, v Value) []byte {
	if v.kind == KindN {
		dst = append(dst, byte(len(v.str)))
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(v.str)))
	}
	return append(dst, v.str...)
}

// DecodeItem reads a stored item that fills b. It copies b once; nothing in the item aliases b.
// It returns ErrEncoding when b is anything else.
func DecodeItem(b []byte) (Item, error) {
	r := reader{s: string(b)}
	it := r.item(0)
	if r.bad || r.s != "" {
		return nil, ErrEncoding
	}
	return it, nil
}

// DecodeValue reads a stored value that fills b; see DecodeItem.
func DecodeValue(b []byte) (Value, error) {
	r := reader{s: string(b)}
	v := r.value(0)
	if r.bad || r.s != "" {
		return Value{}, ErrEncoding
	}
	return v, nil
}

// reader takes values off the front of s. After the first fault bad is set and the rest is empty.
type reader struct {
	s   string
	bad bool
}

func (r *reader) fail() { r.bad, r.s = true, "" }

func (r *reader) uvarint() int {
	var v uint64
	for i := 0; i < len(r.s) && i < 5; i++ {
		c := r.s[i]
		v |= uint64(c&0x7F) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				break // not the shortest form
			}
			r.s = r.s[i+1:]
			return int(v)
		}
	}
	r.fail()
	return 0
}

func (r *reader) take(n int) string {
	if n < 0 || n > len(r.s) {
		r.fail()
		return ""
	}
	out := r.s[:n]
	r.s = r.s[n:]
	return out
}

func (r *reader) count() int {
	n := r.uvarint()
	if n > len(r.s) { // every element takes at least a byte
		r.fail()
		return 0
	}
	return n
}

func (r *reader) item(depth int) []Field {
	if depth > MaxDepth {
		r.fail()
		return nil
	}
	n := r.count()
	if n == 0 {
		return nil
	}
	fields := make([]Field, 0, min(n, 64))
	for i := 0; i < n && !r.bad; i++ {
		name := r.take(r.uvarint())
		if i > 0 && name <= fields[i-1].Name {
			r.fail()
			break
		}
		fields = append(fields, Field{name, r.value(depth + 1)})
	}
	return fields
}

func (r *reader) value(depth int) Value {
	tag := r.take(1)
	if tag == "" || depth > MaxDepth {
		r.fail()
		return Value{}
	}
	switch tag[0] {
	case TagS, TagN, TagB:
		return r.scalar(Kind(tag[0]))
	case TagFalse:
		return Bool(false)
	case TagTrue:
		return Bool(true)
	case TagNULL:
		return Null()
	case TagM:
		return Value{kind: KindM, fields: r.item(depth)}
	case TagL:
		n := r.count()
		elems := make([]Value, 0, min(n, 64))
		for i := 0; i < n && !r.bad; i++ {
			elems = append(elems, r.value(depth+1))
		}
		return L(elems...)
	case TagSS, TagNS, TagBS:
		kind := KindSS + Kind(tag[0]-TagSS)
		n := r.count()
		elems := make([]Value, 0, min(n, 64))
		for i := 0; i < n && !r.bad; i++ {
			e := r.scalar(kind.Element())
			if i > 0 && Compare(elems[i-1], e) >= 0 {
				r.fail()
				break
			}
			elems = append(elems, e)
		}
		if n == 0 {
			r.fail()
		}
		return Value{kind: kind, elems: elems}
	}
	r.fail()
	return Value{}
}

func (r *reader) scalar(kind Kind) Value {
	if kind == KindN {
		n := r.take(1)
		if n == "" {
			return Value{}
		}
		s := r.take(int(n[0]))
		if !validOrdered(s) {
			r.fail()
		}
		return Value{kind: KindN, str: s}
	}
	return Value{kind: kind, str: r.take(r.uvarint())}
}
