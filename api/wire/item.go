package wire

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/commutatordb/commutator/item"
)

// maxNesting is how many levels deep a value may lie; an item's attributes are on the first. 31 lists or
// maps around a string are taken, 32 refused.
// Source: answers of the service recorded in June 2026 (eu-west-2).
const maxNesting = 32

// maxName is the length of the longest attribute name, in bytes.
const maxName = 65535

// The service's texts; those of numbers are item's. Two spaces stand where the service has them.
const (
	textNone      = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
	textSeveral   = "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
	textInvalid   = "One or more parameter values were invalid: "
	textNull      = textInvalid + "Null attribute value types must have the value of true"
	textNesting   = "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
	textEmptyName = textInvalid + "An attribute name may not be empty"
	textLongName  = textInvalid + "An attribute name may not be longer than 65535 bytes"
)

// Item reads an object of attribute values and appends its stored form (see item.AppendItem) to dst. dst
// is returned as it was when there is an error.
func (r *Reader) Item(dst []byte) ([]byte, error) {
	// Stored bytes are at most half as many again as their JSON (members of a number set); offsets into
	// them must fit a span.
	if len(dst)+2*len(r.b) > math.MaxInt32 {
		return dst, r.syntax("the document is too long")
	}
	out, err := r.fields(dst, 0)
	if err = r.settle(err); err != nil {
		return dst, err
	}
	return out, nil
}

// Value reads one attribute value, as expressions need it.
func (r *Reader) Value() (item.Value, error) {
	if 2*len(r.b) > math.MaxInt32 {
		return item.Value{}, r.syntax("the document is too long")
	}
	out, err := r.attribute(r.value[:0], 1)
	if err = r.settle(err); err != nil {
		return item.Value{}, err
	}
	r.value = out
	if r.taken += len(out); r.taken > maxValues {
		return item.Value{}, &ValidationError{"The values of a request have exceeded the maximum allowed size"}
	}
	return item.DecodeValue(out)
}

// maxValues bounds what Value takes from one document, in bytes as stored: as trees, values are many times as
// large. Source: Developer Guide, "Quotas", all substitution variables of an expression.
const maxValues = 2 << 20

// refuse notes a broken rule; the first one counts. Reading goes on, so that what is no JSON at all is
// still found and complained of first, as the service does.
func (r *Reader) refuse(text string) {
	if r.invalid == nil {
		r.invalid = &ValidationError{text}
	}
}

// settle ends an Item or Value: err from reading it comes before any rule that it broke.
func (r *Reader) settle(err error) error {
	if err == nil {
		err = r.invalid
	}
	r.invalid = nil
	return err
}

// span is where a field or a set's member lies in the bytes being written, what it is ordered by, and
// the first eight bytes of that, which decide most comparisons. It is small because sorting moves it.
type span struct {
	start, end  int32
	key, keyEnd int32
	prefix      uint64
}

func newSpan(dst []byte, start, key, keyEnd int) span {
	s := span{start: int32(start), end: int32(len(dst)), key: int32(key), keyEnd: int32(keyEnd)}
	if keyEnd-key >= 8 {
		s.prefix = binary.BigEndian.Uint64(dst[key:])
		return s
	}
	for i, c := range dst[key:keyEnd] {
		s.prefix |= uint64(c) << (56 - 8*i)
	}
	return s
}

func (s span) compare(t span, dst []byte) int {
	if s.prefix != t.prefix {
		return cmp.Compare(s.prefix, t.prefix)
	}
	return bytes.Compare(dst[s.key:s.keyEnd], dst[t.key:t.keyEnd])
}

// fields reads an object of attribute values that lie at level+1 and appends it as an item.
func (r *Reader) fields(dst []byte, level int) ([]byte, error) {
	if err := r.open(Object, "map"); err != nil {
		return dst, err
	}
	count := len(dst)
	dst = append(dst, 0)
	mark := len(r.spans)
	for first := true; ; first = false {
		text := len(r.text)
		name, ok, err := r.member(first)
		if err != nil {
			return dst, err
		}
		if !ok {
			break
		}
		switch {
		case len(name) == 0:
			r.refuse(textEmptyName)
		case len(name) > maxName:
			r.refuse(textLongName)
		}
		start := len(dst)
		dst = binary.AppendUvarint(dst, uint64(len(name)))
		key := len(dst)
		dst = append(dst, name...)
		r.text = r.text[:text]
		s := newSpan(dst, start, key, len(dst))
		if dst, err = r.attribute(dst, level+1); err != nil {
			return dst, err
		}
		s.end = int32(len(dst))
		r.spans = append(r.spans, s)
	}
	spans := r.spans[mark:]
	r.spans = r.spans[:mark]
	if twice := r.arrange(dst, spans); twice != nil {
		return dst, r.duplicate(twice)
	}
	return setCount(dst, count, len(spans)), nil
}

// setCount replaces the one byte at dst[at], left for it, by n as a uvarint.
func setCount(dst []byte, at, n int) []byte {
	if n < 0x80 {
		dst[at] = byte(n)
		return dst
	}
	return slices.Replace(dst, at, at+1, binary.AppendUvarint(nil, uint64(n))...)
}

// arrange sorts the spans and brings the bytes they cover, which follow each other in dst, into the same
// order. If two keys are the same it returns one of them, and dst is as it was.
func (r *Reader) arrange(dst []byte, spans []span) (twice []byte) {
	sorted := true
	for i := 1; i < len(spans) && sorted; i++ {
		sorted = spans[i-1].compare(spans[i], dst) < 0
	}
	if sorted {
		return nil
	}
	start := spans[0].start
	sortSpans(spans, dst)
	r.moved = r.moved[:0]
	for i, s := range spans {
		if i > 0 && spans[i-1].compare(s, dst) == 0 {
			return dst[s.key:s.keyEnd:s.keyEnd]
		}
		r.moved = append(r.moved, dst[s.start:s.end]...)
	}
	copy(dst[start:], r.moved)
	return nil
}

// sortSpans sorts by key. Maps and sets are small, mostly: insertion, with the comparison in line, takes a
// third of the time of slices.SortFunc then.
func sortSpans(spans []span, dst []byte) {
	const few = 24
	if len(spans) > few {
		slices.SortFunc(spans, func(a, b span) int { return a.compare(b, dst) })
		return
	}
	for i := 1; i < len(spans); i++ {
		s := spans[i]
		j := i
		for ; j > 0 && (s.prefix < spans[j-1].prefix || s.prefix == spans[j-1].prefix && s.compare(spans[j-1], dst) < 0); j-- {
			spans[j] = spans[j-1]
		}
		spans[j] = s
	}
}

// attribute reads one attribute value, an object with one member that names its type, and appends its
// stored form. Once refuse was called what is appended means nothing.
func (r *Reader) attribute(dst []byte, level int) ([]byte, error) {
	if r.Null() {
		r.refuse(textNone)
		return dst, nil
	}
	if err := r.open(Object, "AttributeValue"); err != nil {
		return dst, err
	}
	if level > maxNesting {
		r.refuse(textNesting)
	}
	var named uint16 // a bit for each item.Kind that is a member's name
	types := 0       // how many of them are not null
	names, text := len(r.names), len(r.text)
	for first := true; ; first = false {
		name, ok, err := r.member(first)
		if err != nil {
			return dst, err
		}
		if !ok {
			break
		}
		kind := kindOf(name)
		if kind == item.KindAbsent { // skipped, as the service does with any member it does not know
			r.names = append(r.names, name)
			if err := r.Skip(); err != nil {
				return dst, err
			}
			continue
		}
		if named>>kind&1 != 0 {
			return dst, r.duplicate(name)
		}
		named |= 1 << kind
		if r.Null() {
			continue
		}
		types++
		if dst, err = r.typed(dst, kind, level); err != nil {
			return dst, err
		}
	}
	r.text = r.text[:text]
	switch types {
	case 0:
		r.refuse(textNone)
	case 1:
	default:
		r.refuse(textSeveral)
	}
	if len(r.names) > names {
		return dst, r.closeNames(names)
	}
	return dst, nil
}

func kindOf(name []byte) item.Kind {
	switch string(name) {
	case "S":
		return item.KindS
	case "N":
		return item.KindN
	case "B":
		return item.KindB
	case "BOOL":
		return item.KindBOOL
	case "NULL":
		return item.KindNULL
	case "M":
		return item.KindM
	case "L":
		return item.KindL
	case "SS":
		return item.KindSS
	case "NS":
		return item.KindNS
	case "BS":
		return item.KindBS
	}
	return item.KindAbsent
}

// typed reads what stands behind an attribute value's type and appends the tag and the payload.
func (r *Reader) typed(dst []byte, kind item.Kind, level int) ([]byte, error) {
	switch kind {
	case item.KindS:
		dst, _, err := r.scalar(append(dst, item.TagS), kind)
		return dst, err
	case item.KindN:
		dst, _, err := r.scalar(append(dst, item.TagN), kind)
		return dst, err
	case item.KindB:
		dst, _, err := r.scalar(append(dst, item.TagB), kind)
		return dst, err
	case item.KindBOOL:
		yes, err := r.Bool()
		if yes {
			return append(dst, item.TagTrue), err
		}
		return append(dst, item.TagFalse), err
	case item.KindNULL:
		yes, err := r.Bool()
		if err == nil && !yes {
			r.refuse(textNull)
		}
		return append(dst, item.TagNULL), err
	case item.KindM:
		return r.fields(append(dst, item.TagM), level)
	case item.KindL:
		return r.list(append(dst, item.TagL), level)
	default:
		return r.set(append(dst, item.TagSS+byte(kind-item.KindSS)), kind)
	}
}

// list reads an array of attribute values that lie at level+1.
func (r *Reader) list(dst []byte, level int) ([]byte, error) {
	if err := r.open(Array, "list"); err != nil {
		return dst, err
	}
	count := len(dst)
	dst = append(dst, 0)
	for n := 0; ; n++ {
		ok, err := r.element(n == 0)
		if err != nil {
			return dst, err
		}
		if !ok {
			return setCount(dst, count, n), nil
		}
		if dst, err = r.attribute(dst, level+1); err != nil {
			return dst, err
		}
	}
}

// set reads an array of scalars and appends their count and, sorted, the scalars.
func (r *Reader) set(dst []byte, kind item.Kind) ([]byte, error) {
	if err := r.open(Array, "list"); err != nil {
		return dst, err
	}
	count := len(dst)
	dst = append(dst, 0)
	mark := len(r.spans)
	for first := true; ; first = false {
		ok, err := r.element(first)
		if err != nil {
			return dst, err
		}
		if !ok {
			break
		}
		start := len(dst)
		var key int
		if dst, key, err = r.scalar(dst, kind.Element()); err != nil {
			return dst, err
		}
		r.spans = append(r.spans, newSpan(dst, start, key, len(dst)))
	}
	spans := r.spans[mark:]
	r.spans = r.spans[:mark]
	if len(spans) == 0 {
		r.refuse(emptySet(kind))
	}
	if r.arrange(dst, spans) != nil {
		r.refuse(duplicates(dst, spans, kind))
	}
	return setCount(dst, count, len(spans)), nil
}

func emptySet(kind item.Kind) string {
	switch kind {
	case item.KindSS:
		return textInvalid + "An string set  may not be empty"
	case item.KindNS:
		return textInvalid + "An number set  may not be empty"
	}
	return textInvalid + "Binary sets should not be empty"
}

// duplicates returns the text about a set whose members, in dst at spans, are not all different. The
// missing space is the service's.
func duplicates(dst []byte, spans []span, kind item.Kind) string {
	if kind == item.KindNS {
		return "Input collection contains duplicates"
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var list []byte
	for i, s := range spans {
		if i > 0 {
			list = append(list, ", "...)
		}
		member := dst[s.key:s.keyEnd]
		if len(list)+len(member) > maxQuoted {
			list = append(list, "..."...)
			break
		}
		if kind == item.KindBS {
			list = base64.StdEncoding.AppendEncode(list, member)
		} else {
			list = append(list, member...)
		}
	}
	if kind == item.KindBS {
		return textInvalid + "Input collection [" + string(list) + "]of type BS contains duplicates."
	}
	return textInvalid + "Input collection [" + string(list) + "] contains duplicates."
}

// scalar reads an S, N or B and appends its payload: its length and, from dst[key] on, its bytes.
func (r *Reader) scalar(dst []byte, kind item.Kind) (out []byte, key int, err error) {
	k := r.Kind()
	if k != String {
		if kind == item.KindB {
			return dst, 0, r.wrongScalar(k, "Blob")
		}
		return dst, 0, r.wrongScalar(k, "String")
	}
	text := len(r.text)
	s, err := r.string()
	r.text = r.text[:text] // s stays good until the next string is read
	if err != nil {
		return dst, 0, err
	}
	switch kind {
	case item.KindN:
		return r.numeric(dst, s)
	case item.KindB:
		return r.binary(dst, s)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...), len(dst), nil
}

func (r *Reader) numeric(dst, s []byte) (out []byte, key int, err error) {
	dst = append(dst, 0)
	key = len(dst)
	dst, err = item.AppendNumber(dst, s)
	if err != nil {
		text := err.Error()
		if errors.Is(err, item.ErrNumberSyntax) && len(s) > 0 {
			text += ": " + shortened(s)
		}
		r.refuse(text)
	}
	dst[key-1] = byte(len(dst) - key)
	return dst, key, nil
}

func isBase64(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '+' || c == '/' || c == '='
}

// strictBase64 wants padding, and zeros in the bits that the last character has too many.
var strictBase64 = base64.StdEncoding.Strict()

func (r *Reader) binary(dst, s []byte) (out []byte, key int, err error) {
	if len(s)%4 != 0 {
		return dst, 0, r.mistyped("Base64 encoded length is expected a multiple of 4 bytes but found: " + strconv.Itoa(len(s)))
	}
	size := len(s) / 4 * 3
	for i := len(s); i > max(0, len(s)-2) && s[i-1] == '='; i-- {
		size--
	}
	dst = binary.AppendUvarint(dst, uint64(size))
	key = len(dst)
	dst, err = strictBase64.AppendDecode(dst, s)
	if err != nil || len(dst)-key != size { // the decoder alone would skip line ends
		for i, c := range s {
			if !isBase64(c) || c == '=' && i+1 < len(s) && s[i+1] != '=' {
				return dst, 0, r.mistyped("Invalid Base64 character: '" + string(rune(c)) + "'")
			}
		}
		return dst, 0, r.mistyped("Invalid last non-pad Base64 character dectected")
	}
	return dst, key, nil
}
