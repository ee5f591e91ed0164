package item

import "encoding/binary"

// These functions read the stored form in place, for the paths on which no tree is built: a key out of
// an item, its size, its walk into JSON. Slices they return alias their argument. Each returns
// ErrEncoding when the bytes are not what they should be.

// CutCount takes a count off the front of b.
func CutCount(b []byte) (n int, rest []byte, err error) {
	v, size := binary.Uvarint(b)
	if size <= 0 || v > uint64(len(b)) {
		return 0, nil, ErrEncoding
	}
	return int(v), b[size:], nil
}

// CutBytes takes a length (uvarint) and that many bytes off the front of b.
func CutBytes(b []byte) (s, rest []byte, err error) {
	n, b, err := CutCount(b)
	if err != nil || n > len(b) {
		return nil, nil, ErrEncoding
	}
	return b[:n:n], b[n:], nil
}

// CutNumber takes a number's length byte and ordered bytes off the front of b.
func CutNumber(b []byte) (ordered, rest []byte, err error) {
	if len(b) == 0 || int(b[0]) >= len(b) {
		return nil, nil, ErrEncoding
	}
	n := 1 + int(b[0])
	return b[1:n:n], b[n:], nil
}

// CutField takes a field's name and its value, with the tag, off the front of b.
func CutField(b []byte) (name, value, rest []byte, err error) {
	name, b, err = CutBytes(b)
	if err != nil {
		return nil, nil, nil, err
	}
	value, rest, err = CutValue(b)
	return name, value, rest, err
}

// CutValue takes one stored value, tag and all, off the front of b.
func CutValue(b []byte) (value, rest []byte, err error) {
	rest, err = skipValue(b, 0)
	if err != nil {
		return nil, nil, err
	}
	n := len(b) - len(rest)
	return b[:n:n], rest, nil
}

func skipValue(b []byte, depth int) (rest []byte, err error) {
	if len(b) == 0 || depth > MaxDepth {
		return nil, ErrEncoding
	}
	tag := b[0]
	b = b[1:]
	switch tag {
	case TagS, TagB:
		_, b, err = CutBytes(b)
		return b, err
	case TagN:
		_, b, err = CutNumber(b)
		return b, err
	case TagFalse, TagTrue, TagNULL:
		return b, nil
	case TagM, TagL, TagSS, TagNS, TagBS:
		n, b, err := CutCount(b)
		for i := 0; i < n && err == nil; i++ {
			switch tag {
			case TagM:
				if _, b, err = CutBytes(b); err == nil {
					b, err = skipValue(b, depth+1)
				}
			case TagL:
				b, err = skipValue(b, depth+1)
			case TagNS:
				_, b, err = CutNumber(b)
			default:
				_, b, err = CutBytes(b)
			}
		}
		return b, err
	}
	return nil, ErrEncoding
}

// Attr finds a top-level attribute's stored value, tag and all, in a stored item. It returns nil when
// the item has no such attribute or b is no item.
func Attr(b []byte, name string) []byte {
	n, b, err := CutCount(b)
	if err != nil {
		return nil
	}
	for ; n > 0; n-- {
		key, value, rest, err := CutField(b)
		if err != nil || string(key) > name {
			return nil
		}
		if string(key) == name {
			return value
		}
		b = rest
	}
	return nil
}

// RawKind returns the type of a stored value; KindAbsent for none.
func RawKind(value []byte) Kind {
	if len(value) == 0 {
		return KindAbsent
	}
	switch tag := value[0]; tag {
	case TagS, TagN, TagB:
		return Kind(tag)
	case TagFalse, TagTrue:
		return KindBOOL
	case TagNULL:
		return KindNULL
	case TagM, TagL:
		return KindM + Kind(tag-TagM)
	case TagSS, TagNS, TagBS:
		return KindSS + Kind(tag-TagSS)
	}
	return KindAbsent
}

// RawSize is Item.Size of a stored item, in bytes.
func RawSize(b []byte) (int, error) {
	n, b, err := CutCount(b)
	size := 0
	for ; n > 0 && err == nil; n-- {
		var name []byte
		var add int
		if name, b, err = CutBytes(b); err == nil {
			add, b, err = rawValueSize(b, 0)
			size += len(name) + add
		}
	}
	if err == nil && len(b) > 0 {
		err = ErrEncoding
	}
	return size, err
}

func rawValueSize(b []byte, depth int) (size int, rest []byte, err error) {
	if len(b) == 0 || depth > MaxDepth {
		return 0, nil, ErrEncoding
	}
	tag := b[0]
	b = b[1:]
	var s []byte
	switch tag {
	case TagS, TagB:
		s, b, err = CutBytes(b)
		return len(s), b, err
	case TagN:
		s, b, err = CutNumber(b)
		return numberSize(string(s)), b, err
	case TagFalse, TagTrue, TagNULL:
		return 1, b, nil
	case TagM, TagL:
		size = 3
	case TagSS, TagNS, TagBS:
	default:
		return 0, nil, ErrEncoding
	}
	n, b, err := CutCount(b)
	for ; n > 0 && err == nil; n-- {
		var add int
		switch tag {
		case TagM:
			if s, b, err = CutBytes(b); err == nil {
				add, b, err = rawValueSize(b, depth+1)
				size += 1 + len(s) + add
			}
		case TagL:
			add, b, err = rawValueSize(b, depth+1)
			size += 1 + add
		case TagNS:
			s, b, err = CutNumber(b)
			size += numberSize(string(s))
		default:
			s, b, err = CutBytes(b)
			size += len(s)
		}
	}
	return size, b, err
}

// AppendRawOrdered appends the ordered form (see Value.AppendOrdered) of a stored S, N or B.
func AppendRawOrdered(dst, value []byte) ([]byte, error) {
	if len(value) == 0 {
		return dst, ErrEncoding
	}
	if value[0] == TagN {
		s, _, err := CutNumber(value[1:])
		return append(dst, s...), err
	}
	s, _, err := CutBytes(value[1:])
	if err != nil {
		return dst, err
	}
	for _, c := range s {
		if c == 0 {
			dst = append(dst, 0, 0xFF)
		} else {
			dst = append(dst, c)
		}
	}
	return append(dst, 0, 1), nil
}

// Valid tells whether b is the stored form of one value and nothing else, as DecodeValue would, without
// building it.
func Valid(b []byte) bool {
	rest, ok := validValue(b, 0)
	return ok && len(rest) == 0
}

// ValidItem is Valid for an item.
func ValidItem(b []byte) bool {
	rest, ok := validItem(b, 0)
	return ok && len(rest) == 0
}

func validItem(b []byte, depth int) (rest []byte, ok bool) {
	n, b, ok := validCount(b)
	if !ok || depth > MaxDepth {
		return nil, false
	}
	var last []byte
	for i := 0; i < n; i++ {
		name, after, ok := validBytes(b)
		if !ok || i > 0 && string(name) <= string(last) {
			return nil, false
		}
		if b, ok = validValue(after, depth+1); !ok {
			return nil, false
		}
		last = name
	}
	return b, true
}

func validValue(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 || depth > MaxDepth {
		return nil, false
	}
	tag := b[0]
	b = b[1:]
	switch tag {
	case TagS, TagN, TagB:
		_, rest, ok = validScalar(tag, b)
		return rest, ok
	case TagFalse, TagTrue, TagNULL:
		return b, true
	case TagM:
		return validItem(b, depth)
	case TagL:
		n, b, ok := validCount(b)
		for ; n > 0 && ok; n-- {
			b, ok = validValue(b, depth+1)
		}
		return b, ok
	case TagSS, TagNS, TagBS:
		n, b, ok := validCount(b)
		if n == 0 {
			return nil, false
		}
		var last []byte
		for i := 0; i < n && ok; i++ {
			var member []byte
			member, b, ok = validScalar(tag-TagSS+TagS, b)
			if i > 0 && string(member) <= string(last) {
				return nil, false
			}
			last = member
		}
		return b, ok
	}
	return nil, false
}

func validScalar(tag byte, b []byte) (payload, rest []byte, ok bool) {
	if tag != TagN {
		return validBytes(b)
	}
	payload, rest, err := CutNumber(b)
	return payload, rest, err == nil && validOrdered(string(payload))
}

func validCount(b []byte) (n int, rest []byte, ok bool) {
	v, size := binary.Uvarint(b)
	if size <= 0 || size > 5 || size > 1 && b[size-1] == 0 || v > uint64(len(b)-size) {
		return 0, nil, false
	}
	return int(v), b[size:], true
}

func validBytes(b []byte) (s, rest []byte, ok bool) {
	n, b, ok := validCount(b)
	if !ok {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}
