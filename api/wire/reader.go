// Package wire owns the JSON of the DynamoDB protocol: a strict reader that walks a request's tokens
// straight into item's stored form, and the way back from stored bytes to an answer's JSON. No tree
// stands in between, except for the values of expressions, which need one (Value).
//
// It leaves to package api what a request's members are, in which order they are validated, how large a
// body may be, and HTTP; to package item the two forms of a value and the rules of numbers.
//
// Invariants: what is accepted is RFC 8259 JSON in valid UTF-8, with no name twice in one object, no
// half surrogate, and at most maxDepth levels; names are matched exactly, case and all. What Item appends
// is what item.AppendItem would: fields and set members sorted and unique, numbers canonical. Work is
// bounded by the document's length times its logarithm, and by its length times its depth; memory by a
// small multiple of its length.
package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how many objects and arrays may be open at once. An attribute value takes two for each of
// its 32 levels, and a request a few more around it. What lies between is read so that the service's own
// complaint, a ValidationException about nesting, can be made; what lies beyond is no request.
const maxDepth = 512

// SerializationError says that the document is no JSON, or not of the types that the protocol has: the
// service's SerializationException. The Reader cannot go on after it.
type SerializationError struct {
	// Message is the service's own text. It is empty when the document is no JSON, for which the service
	// sends none.
	Message string
	// Detail says what is wrong, for people.
	Detail string
	// Offset is where in the document, in bytes.
	Offset int
}

func (e *SerializationError) Error() string {
	text := e.Message
	if text == "" {
		text = e.Detail
	}
	return "wire: byte " + strconv.Itoa(e.Offset) + ": " + text
}

// ValidationError says that a value is of the right type and breaks a rule: the service's
// ValidationException. Message is the service's text. The Reader stands behind the value, so the caller
// may read on and complain about this in its turn.
type ValidationError struct {
	Message string
}

func (e *ValidationError) Error() string { return "wire: " + e.Message }

// Kind is the type of a JSON value, told from its first byte.
type Kind byte

// The kinds of JSON values. Invalid stands for anything that begins no value, and for the end.
const (
	Invalid Kind = 0
	Object  Kind = '{'
	Array   Kind = '['
	String  Kind = '"'
	Number  Kind = '0'
	True    Kind = 't'
	False   Kind = 'f'
	Null    Kind = 'n'
)

// Reader walks one JSON document. It is meant to be reused: Reset keeps its scratch space. It is not for
// concurrent use, and it neither changes nor keeps the document beyond the next Reset.
type Reader struct {
	b     []byte
	i     int // of the next byte
	depth int // objects and arrays open here

	names [][]byte // members' names of the open objects, outermost first
	text  []byte   // strings that had escapes, decoded
	spans []span   // fields and set members of the open containers of an item
	moved []byte   // scratch for bringing them into order
	value []byte   // scratch for Value

	taken   int   // by Value, in bytes as stored
	invalid error // the first ValidationError within the current Item or Value
}

// maxScratch is how much of each scratch buffer is kept for the next document, in bytes or elements; the
// few requests that need more must not pin their memory in a pool.
const maxScratch = 1 << 16

// NewReader returns a Reader of the document b.
func NewReader(b []byte) *Reader {
	r := new(Reader)
	r.Reset(b)
	return r
}

// Reset makes r read the document b from its start. Reset(nil) lets go of the last document.
func (r *Reader) Reset(b []byte) {
	clear(r.names[:cap(r.names)]) // they alias the last document
	r.b, r.i, r.depth, r.taken, r.invalid = b, 0, 0, 0, nil
	r.names = reuse(r.names)
	r.text = reuse(r.text)
	r.spans = reuse(r.spans)
	r.moved = reuse(r.moved)
	r.value = reuse(r.value)
}

func reuse[T any](s []T) []T {
	if cap(s) > maxScratch {
		return nil
	}
	return s[:0]
}

// Kind tells what the next value is, without consuming it.
func (r *Reader) Kind() Kind {
	r.space()
	if r.i == len(r.b) {
		return Invalid
	}
	switch c := r.b[r.i]; c {
	case '{', '[', '"', 't', 'f', 'n':
		return Kind(c)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return Number
	}
	return Invalid
}

// Object reads an object and calls field for each member, in the document's order. field must consume
// the member's value, by Skip if it does not know the name. name is good until the object ends.
func (r *Reader) Object(field func(name []byte) error) error {
	return r.object(field)
}

// Map is Object for a map whose values are of a class of the protocol, such as AttributeValue.
func (r *Reader) Map(class string, field func(name []byte) error) error {
	if k := r.Kind(); k != Object {
		return r.wrongClass(k, "java.util.Map<java.lang.String, "+className(class)+">", "Unexpected field type")
	}
	return r.object(field)
}

// MapValue is Object for a structure of a class that stands in a map or a list.
func (r *Reader) MapValue(class string, field func(name []byte) error) error {
	if k := r.Kind(); k != Object {
		return r.wrongClass(k, "class "+className(class), "Unexpected value type in payload")
	}
	return r.object(field)
}

// Structure is Object for a structure of a class that is a member of another.
func (r *Reader) Structure(class string, field func(name []byte) error) error {
	if err := r.Field(class); err != nil {
		return err
	}
	return r.object(field)
}

// Field checks that the next value can be a structure of a class that is a member of another, as Structure
// does, and consumes nothing.
func (r *Reader) Field(class string) error {
	if k := r.Kind(); k != Object {
		return r.wrongClass(k, "class "+className(class), "Unexpected field type")
	}
	return nil
}

func className(class string) string {
	if strings.Contains(class, ".") {
		return class
	}
	return "com.amazonaws.dynamodb.v20120810." + class
}

// wrongClass returns the error for a value of kind k where an object of a class belongs: scalar is what is
// said of a string, a number or a boolean.
func (r *Reader) wrongClass(k Kind, class, scalar string) error {
	switch k {
	case Invalid:
		return r.syntax("a value is missing")
	case Array:
		return r.mistyped("Unrecognized collection type " + class)
	}
	return r.mistyped(scalar)
}

func (r *Reader) object(field func(name []byte) error) error {
	if err := r.open(Object, "structure"); err != nil {
		return err
	}
	mark := len(r.names)
	text := len(r.text)
	for first := true; ; first = false {
		name, ok, err := r.member(first)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		r.names = append(r.names, name)
		if err := field(name); err != nil {
			return err
		}
	}
	r.text = r.text[:text]
	return r.closeNames(mark)
}

// Array reads an array and calls elem before each element, which elem must consume.
func (r *Reader) Array(elem func() error) error {
	if err := r.open(Array, "list"); err != nil {
		return err
	}
	for first := true; ; first = false {
		ok, err := r.element(first)
		if err != nil || !ok {
			return err
		}
		if err := elem(); err != nil {
			return err
		}
	}
}

// String reads a string.
func (r *Reader) String() (string, error) {
	mark := len(r.text)
	s, err := r.Bytes()
	r.text = r.text[:mark]
	return string(s), err
}

// Bytes reads a string without allocating. The result is the caller's to read until the object around it
// ends.
func (r *Reader) Bytes() ([]byte, error) {
	if k := r.Kind(); k != String {
		return nil, r.wrongScalar(k, "String")
	}
	return r.string()
}

// Bool reads a boolean. Like the service it takes the words true, false, yes and no in strings too.
func (r *Reader) Bool() (bool, error) {
	switch k := r.Kind(); k {
	case True:
		return true, r.literal("true")
	case False:
		return false, r.literal("false")
	case String:
		at := r.i
		s, err := r.String()
		if err != nil {
			return false, err
		}
		switch strings.ToLower(s) {
		case "true", "yes":
			return true, nil
		case "false", "no":
			return false, nil
		}
		return false, &SerializationError{Message: "Unexpected token received from parser", Offset: at}
	default:
		return false, r.wrongScalar(k, "Boolean")
	}
}

// Int reads a number that fits an int64. Like the service it drops a fraction.
func (r *Reader) Int() (int64, error) {
	k := r.Kind()
	if k != Number {
		return 0, r.wrongScalar(k, "Integer")
	}
	at := r.i
	s, err := r.number()
	if err != nil {
		return 0, err
	}
	if n, err := strconv.ParseInt(string(s), 10, 64); err == nil {
		return n, nil
	}
	// Beyond 2^53 a number with a fraction or an exponent loses digits here; no member of the protocol is
	// that large.
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil || f <= -1<<63 || f >= 1<<63 {
		return 0, &SerializationError{Message: "NUMBER_VALUE cannot be converted to Integer", Offset: at}
	}
	return int64(f), nil
}

// Float reads a number that may have a fraction.
func (r *Reader) Float() (float64, error) {
	k := r.Kind()
	if k != Number {
		return 0, r.wrongScalar(k, "Double")
	}
	at := r.i
	s, err := r.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil {
		return 0, &SerializationError{Message: "NUMBER_VALUE cannot be converted to Double", Offset: at}
	}
	return f, nil
}

// Null consumes a null, if that is the next value, and tells whether it was. Null members count as
// absent, so callers ask this first.
func (r *Reader) Null() bool {
	return r.Kind() == Null && r.literal("null") == nil
}

// Skip consumes the next value, whatever it is, and checks it as JSON.
func (r *Reader) Skip() error {
	switch r.Kind() {
	case Object:
		return r.Object(func([]byte) error { return r.Skip() })
	case Array:
		return r.Array(r.Skip)
	case String:
		mark := len(r.text)
		_, err := r.string()
		r.text = r.text[:mark]
		return err
	case Number:
		_, err := r.number()
		return err
	case True:
		return r.literal("true")
	case False:
		return r.literal("false")
	case Null:
		return r.literal("null")
	}
	return r.syntax("a value is missing")
}

// End returns an error unless only space is left.
func (r *Reader) End() error {
	r.space()
	if r.i < len(r.b) {
		return r.syntax("something follows the document")
	}
	return nil
}

// syntax returns the error for what is no JSON.
func (r *Reader) syntax(detail string) error {
	return &SerializationError{Detail: detail, Offset: r.i}
}

// mistyped returns the error for JSON of another type than the protocol has here.
func (r *Reader) mistyped(message string) error {
	return &SerializationError{Message: message, Offset: r.i}
}

// wrongScalar returns the error for a value of kind k where one of Java's type want belongs. The texts
// are those that the service was recorded with.
func (r *Reader) wrongScalar(k Kind, want string) error {
	switch k {
	case Object:
		return r.mistyped("Start of structure or map found where not expected")
	case Array:
		if want == "Blob" {
			return r.mistyped("Unrecognized collection type class java.nio.ByteBuffer")
		}
		return r.mistyped("Unrecognized collection type class java.lang." + want)
	case Invalid:
		return r.syntax("a value is missing")
	}
	if want == "Blob" {
		return r.mistyped("only base-64-encoded strings are convertible to bytes")
	}
	name := map[Kind]string{String: "STRING_VALUE", True: "TRUE_VALUE", False: "FALSE_VALUE", Null: "NULL_VALUE", Number: "NUMBER_VALUE"}[k]
	if k == Number {
		at := r.i
		if s, err := r.number(); err != nil {
			return err
		} else if bytes.ContainsAny(s, ".eE") {
			name = "DECIMAL_VALUE"
		}
		r.i = at
	}
	return r.mistyped(name + " cannot be converted to " + want)
}

// open consumes the bracket that begins a value of kind k. what is what the protocol has here, for the
// error: an AttributeValue, another structure, a list or a map of AttributeValues.
func (r *Reader) open(k Kind, what string) error {
	got := r.Kind()
	switch {
	case got == k:
		if r.depth++; r.depth > maxDepth {
			return r.syntax("too many objects and arrays within each other")
		}
		r.i++
		return nil
	case got == Invalid:
		return r.syntax("a value is missing")
	case got == Object:
		return r.mistyped("Start of structure or map found where not expected")
	case got == Array && what == "AttributeValue":
		return r.mistyped("Unrecognized collection type class com.amazonaws.dynamodb.v20120810.AttributeValue")
	case got == Array && what == "map":
		return r.mistyped("Unrecognized collection type java.util.Map<java.lang.String, com.amazonaws.dynamodb.v20120810.AttributeValue>")
	case got == Array:
		return r.mistyped("Start of list found where not expected")
	case what == "AttributeValue":
		return r.mistyped("Unexpected value type in payload")
	}
	return r.mistyped("Unexpected field type")
}

// member consumes what stands before a member's value: a comma unless it is the first, the name and the
// colon. ok is false when the object ended instead.
func (r *Reader) member(first bool) (name []byte, ok bool, err error) {
	r.space()
	if r.i < len(r.b) && r.b[r.i] == '}' {
		r.i++
		r.depth--
		return nil, false, nil
	}
	if !first {
		if r.i == len(r.b) || r.b[r.i] != ',' {
			return nil, false, r.syntax("a comma or the end of the object is missing")
		}
		r.i++
		r.space()
	}
	if r.i == len(r.b) || r.b[r.i] != '"' {
		return nil, false, r.syntax("a member's name is missing")
	}
	if name, err = r.string(); err != nil {
		return nil, false, err
	}
	r.space()
	if r.i == len(r.b) || r.b[r.i] != ':' {
		return nil, false, r.syntax("a colon is missing")
	}
	r.i++
	return name, true, nil
}

// element consumes what stands before an array's element. ok is false when the array ended instead.
func (r *Reader) element(first bool) (ok bool, err error) {
	r.space()
	switch {
	case r.i < len(r.b) && r.b[r.i] == ']':
		r.i++
		r.depth--
		return false, nil
	case first:
		return true, nil
	case r.i == len(r.b) || r.b[r.i] != ',':
		return false, r.syntax("a comma or the end of the array is missing")
	}
	r.i++
	return true, nil
}

// closeNames forgets the names from mark on, those of the object that ends here, and returns an error if
// two are the same.
func (r *Reader) closeNames(mark int) error {
	names := r.names[mark:]
	r.names = r.names[:mark]
	const few = 16 // up to here comparing each with each is faster than sorting
	if len(names) <= few {
		for i, a := range names {
			for _, b := range names[:i] {
				if bytes.Equal(a, b) {
					return r.duplicate(a)
				}
			}
		}
		return nil
	}
	slices.SortFunc(names, bytes.Compare)
	for i := 1; i < len(names); i++ {
		if bytes.Equal(names[i-1], names[i]) {
			return r.duplicate(names[i])
		}
	}
	return nil
}

// duplicate returns the error for a name that an object has twice. The service's own parser takes one of
// the two; which one another program on the way took is anybody's guess, so nobody can mean it.
func (r *Reader) duplicate(name []byte) error {
	return r.syntax("an object has the name " + strconv.Quote(shortened(name)) + " twice")
}

// maxQuoted is how much of a client's own text goes into an error's message, in bytes.
const maxQuoted = 1 << 10

func shortened(s []byte) string {
	if len(s) <= maxQuoted {
		return string(s)
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return string(s[:cut]) + "..."
}

func (r *Reader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

func (r *Reader) literal(word string) error {
	if len(r.b)-r.i < len(word) || string(r.b[r.i:r.i+len(word)]) != word {
		return r.syntax("no value begins like this")
	}
	r.i += len(word)
	return nil
}

// number consumes a number and returns its text.
func (r *Reader) number() ([]byte, error) {
	start := r.i
	if r.b[r.i] == '-' {
		r.i++
	}
	zero := r.i < len(r.b) && r.b[r.i] == '0'
	if n := r.digits(); n == 0 || zero && n > 1 {
		return nil, r.syntax("not a number")
	}
	if r.i < len(r.b) && r.b[r.i] == '.' {
		r.i++
		if r.digits() == 0 {
			return nil, r.syntax("not a number")
		}
	}
	if r.i < len(r.b) && r.b[r.i]|0x20 == 'e' {
		r.i++
		if r.i < len(r.b) && (r.b[r.i] == '+' || r.b[r.i] == '-') {
			r.i++
		}
		if r.digits() == 0 {
			return nil, r.syntax("not a number")
		}
	}
	return r.b[start:r.i], nil
}

func (r *Reader) digits() int {
	start := r.i
	for r.i < len(r.b) && r.b[r.i]-'0' <= 9 {
		r.i++
	}
	return r.i - start
}

const (
	low  = 0x0101010101010101
	high = 0x8080808080808080
)

// notable marks the bytes of an 8-byte word at which a JSON string cannot be copied blindly: quotes,
// backslashes and control characters. Only the lowest mark is exact: a borrow may set marks above it.
func notable(w uint64) uint64 {
	quote := w ^ low*'"'
	slash := w ^ low*'\\'
	return ((quote-low)&^quote | (slash-low)&^slash | (w-low*' ')&^w) & high
}

// string consumes a string, whose opening quote is the next byte, and returns its text: a part of the
// document, or of r.text when there were escapes.
func (r *Reader) string() ([]byte, error) {
	b := r.b
	start := r.i + 1
	i := start
	var seen uint64 // all bytes or'ed: is any not ASCII?
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		if m := notable(w); m != 0 {
			n := bits.TrailingZeros64(m) / 8
			seen |= w & (1<<(8*n) - 1)
			i += n
			break
		}
		seen |= w
		i += 8
	}
	for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' ' {
		seen |= uint64(b[i])
		i++
	}
	r.i = i
	if seen&high != 0 && !utf8.Valid(b[start:i]) {
		return nil, r.syntax("a string is not UTF-8")
	}
	switch {
	case i == len(b):
		return nil, r.syntax("a string has no end")
	case b[i] == '"':
		r.i++
		return b[start:i:i], nil
	case b[i] == '\\':
		return r.escaped(start)
	}
	return nil, r.syntax("a control character stands in a string")
}

// escaped goes on with a string that began at start and has its first escape at r.i.
func (r *Reader) escaped(start int) ([]byte, error) {
	mark := len(r.text)
	for {
		end := r.i
		for end < len(r.b) && r.b[end] != '"' && r.b[end] != '\\' && r.b[end] >= ' ' {
			end++
		}
		if !utf8.Valid(r.b[start:end]) {
			return nil, r.syntax("a string is not UTF-8")
		}
		r.text = append(r.text, r.b[start:end]...)
		r.i = end
		switch {
		case end == len(r.b):
			return nil, r.syntax("a string has no end")
		case r.b[end] == '"':
			r.i++
			return r.text[mark:len(r.text):len(r.text)], nil
		case r.b[end] != '\\':
			return nil, r.syntax("a control character stands in a string")
		}
		if err := r.escape(); err != nil {
			return nil, err
		}
		start = r.i
	}
}

// escape consumes one escape and appends what it stands for to r.text.
func (r *Reader) escape() error {
	if r.i+1 == len(r.b) {
		return r.syntax("a string has no end")
	}
	c := r.b[r.i+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		u, ok := r.hex(r.i + 2)
		if !ok {
			return r.syntax("not an escape")
		}
		n := 6
		if utf16.IsSurrogate(u) {
			second, _ := r.hex(r.i + 8)
			if r.i+7 >= len(r.b) || r.b[r.i+6] != '\\' || r.b[r.i+7] != 'u' {
				second = 0
			}
			if u = utf16.DecodeRune(u, second); u == utf8.RuneError {
				return r.syntax("half a surrogate pair")
			}
			n = 12
		}
		r.text = utf8.AppendRune(r.text, u)
		r.i += n
		return nil
	default:
		return r.syntax("not an escape")
	}
	r.text = append(r.text, c)
	r.i += 2
	return nil
}

// hex reads the four hexadecimal digits at i.
func (r *Reader) hex(i int) (rune, bool) {
	if i+4 > len(r.b) {
		return 0, false
	}
	var u rune
	for _, c := range r.b[i : i+4] {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}
