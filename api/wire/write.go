package wire

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"

	"github.com/commutatordb/commutator/item"
)

// AppendItem appends a stored item as JSON: {"name":{"S":"text"},…}, its attributes sorted by name. It
// returns dst and item.ErrEncoding when stored is no stored item.
func AppendItem(dst, stored []byte) ([]byte, error) {
	out, rest, err := appendFields(dst, stored, 0)
	return whole(dst, out, rest, err)
}

// AppendValue appends a stored value as JSON: {"S":"text"}. It returns dst and item.ErrEncoding when
// stored is no stored value.
func AppendValue(dst, stored []byte) ([]byte, error) {
	out, rest, err := appendValue(dst, stored, 0)
	return whole(dst, out, rest, err)
}

func whole(dst, out, rest []byte, err error) ([]byte, error) {
	if err == nil && len(rest) > 0 {
		err = item.ErrEncoding
	}
	if err != nil {
		return dst, fmt.Errorf("wire: %w", err)
	}
	return out, nil
}

func appendFields(dst, b []byte, depth int) (out, rest []byte, err error) {
	n, b, err := item.CutCount(b)
	if err != nil {
		return dst, nil, err
	}
	dst = append(dst, '{')
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		var name []byte
		if name, b, err = item.CutBytes(b); err != nil {
			return dst, nil, err
		}
		dst = append(appendString(dst, name), ':')
		if dst, b, err = appendValue(dst, b, depth+1); err != nil {
			return dst, nil, err
		}
	}
	return append(dst, '}'), b, nil
}

// appendValue appends the value at the front of b, which lies depth lists and maps deep.
func appendValue(dst, b []byte, depth int) (out, rest []byte, err error) {
	if len(b) == 0 || depth > item.MaxDepth {
		return dst, nil, item.ErrEncoding
	}
	tag := b[0]
	b = b[1:]
	switch tag {
	case item.TagS, item.TagN, item.TagB:
		dst = append(append(dst, `{"`...), "SNB"[tag-item.TagS])
		dst, b, err = appendScalar(append(dst, `":`...), b, tag)
	case item.TagFalse:
		return append(dst, `{"BOOL":false}`...), b, nil
	case item.TagTrue:
		return append(dst, `{"BOOL":true}`...), b, nil
	case item.TagNULL:
		return append(dst, `{"NULL":true}`...), b, nil
	case item.TagM:
		dst, b, err = appendFields(append(dst, `{"M":`...), b, depth)
	case item.TagL:
		dst, b, err = appendList(append(dst, `{"L":[`...), b, tag, depth)
	case item.TagSS, item.TagNS, item.TagBS:
		dst = append(append(dst, `{"`...), "SNB"[tag-item.TagSS])
		dst, b, err = appendList(append(dst, `S":[`...), b, tag, depth)
	default:
		return dst, nil, item.ErrEncoding
	}
	return append(dst, '}'), b, err
}

// appendList appends the elements of a list, or the members of a set, and the bracket that ends them.
func appendList(dst, b []byte, tag byte, depth int) (out, rest []byte, err error) {
	n, b, err := item.CutCount(b)
	if err != nil {
		return dst, nil, err
	}
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if tag == item.TagL {
			dst, b, err = appendValue(dst, b, depth+1)
		} else {
			dst, b, err = appendScalar(dst, b, tag-item.TagSS+item.TagS)
		}
		if err != nil {
			return dst, nil, err
		}
	}
	return append(dst, ']'), b, nil
}

// The ordered bytes of 0 and, in length, of any number of one digit; item.AppendNumberText must not be
// given fewer.
const (
	zeroNumber     = "\x02"
	shortestNumber = "\x03\x80\x01\x0B\x00"
)

// appendScalar appends the payload of an S, N or B as a JSON string.
func appendScalar(dst, b []byte, tag byte) (out, rest []byte, err error) {
	if tag == item.TagN {
		ordered, b, err := item.CutNumber(b)
		if err != nil || len(ordered) < len(shortestNumber) && string(ordered) != zeroNumber {
			return dst, nil, item.ErrEncoding
		}
		dst = item.AppendNumberText(append(dst, '"'), string(ordered))
		return append(dst, '"'), b, nil
	}
	s, b, err := item.CutBytes(b)
	if err != nil {
		return dst, nil, err
	}
	if tag == item.TagS {
		return appendString(dst, s), b, nil
	}
	dst = base64.StdEncoding.AppendEncode(append(dst, '"'), s)
	return append(dst, '"'), b, nil
}

// AppendString appends s as a JSON string. Like the service it escapes quotes, backslashes and control
// characters and nothing else. What is not UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte { return appendString(dst, []byte(s)) }

func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	done := 0 // s[:done] is in dst
	for i := 0; i < len(s); {
		for i+8 <= len(s) {
			w := binary.LittleEndian.Uint64(s[i:])
			if m := notable(w) | w&high; m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i == len(s) {
			break
		}
		c := s[i]
		switch {
		case c >= utf8.RuneSelf:
			u, size := utf8.DecodeRune(s[i:])
			if u == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[done:i]...), "\uFFFD"...)
				done = i + 1
			}
			i += size
			continue
		case c >= ' ' && c != '"' && c != '\\':
			i++
			continue
		}
		dst = append(dst, s[done:i]...)
		i++
		done = i
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			const hex = "0123456789ABCDEF"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}
