package item

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// Number is an exact decimal. The zero Number is 0. A number that a client may store has at most 38
// significant digits and a magnitude from 1E-130 to 9.99…E+125; ParseNumber, Add and Sub hold to that.
// Sums inside the merge (AddExact) may be longer and are rounded when shown.
//
// It is kept as ordered bytes: comparing them compares the numbers, and equal numbers have equal bytes.
//
//	zero      02
//	positive  03, e+0x8000 (two bytes, big-endian), digit pairs, 00
//	negative  01, the same bytes as for the positive number, complemented, FF
//
// where the number is 0.d1d2d3… x 10^e with d1 != 0, and a digit pair is one byte of value 1 + 10*d1 + d2
// (1 to 100), trailing zero digits left out and an odd last digit paired with 0. No number's bytes are a
// prefix of another's.
type Number struct {
	b string // ordered bytes, "" for zero
}

const (
	numNegative = 1
	numZero     = 2
	numPositive = 3

	maxDigits   = 38
	maxExponent = 126  // of the form 0.d1d2… x 10^e
	minExponent = -129 // of the same form
)

// Errors of ParseNumber and of arithmetic. Their texts are the service's own.
var (
	ErrNumberOverflow  = errors.New("Number overflow. Attempting to store a number with magnitude larger than supported range")
	ErrNumberUnderflow = errors.New("Number underflow. Attempting to store a number with magnitude smaller than supported range")
	ErrNumberDigits    = errors.New("Attempting to store more than 38 significant digits in a Number")
	ErrNumberSyntax    = errors.New("The parameter cannot be converted to a numeric value")
)

const zeroOrdered = "\x02"

func (n Number) ordered() string {
	if n.b == "" {
		return zeroOrdered
	}
	return n.b
}

func numberFromOrdered(s string) Number {
	if s == zeroOrdered {
		return Number{}
	}
	return Number{s}
}

// IsZero tells whether n is 0.
func (n Number) IsZero() bool { return n.b == "" }

// Sign returns -1, 0 or 1.
func (n Number) Sign() int {
	if n.b == "" {
		return 0
	}
	return int(n.b[0]) - numZero
}

// Cmp compares two numbers by value.
func (n Number) Cmp(m Number) int { return strings.Compare(n.ordered(), m.ordered()) }

// NumberFromInt returns the number i.
func NumberFromInt(i int64) Number { return numberFromBig(big.NewInt(i), 0) }

// decimal is a number taken apart: the digits' values (not ASCII), without leading or trailing zeros,
// and e as in 0.d1d2… x 10^e.
type decimal struct {
	neg    bool
	e      int
	digits []byte
}

// ParseNumber reads a number as the service does: an optional sign, digits with an optional point, an
// optional exponent, no spaces. It returns ErrNumberSyntax, ErrNumberDigits, ErrNumberOverflow or
// ErrNumberUnderflow. Work and memory are bounded by len(s); the exponent is bounded before any use.
func ParseNumber(s string) (Number, error) {
	var buf [maxDigits + 2]byte
	d, err := parseDecimal(s, buf[:0])
	if err != nil || len(d.digits) == 0 {
		return Number{}, err
	}
	return d.number()
}

// AppendNumber appends the ordered bytes of the number that s writes; see ParseNumber.
func AppendNumber(dst []byte, s []byte) ([]byte, error) {
	var buf [maxDigits + 2]byte
	d, err := parseDecimal(s, buf[:0])
	if err != nil {
		return dst, err
	}
	if len(d.digits) == 0 {
		return append(dst, numZero), nil
	}
	if err := d.check(); err != nil {
		return dst, err
	}
	return d.append(dst), nil
}

func parseDecimal[T string | []byte](s T, buf []byte) (decimal, error) {
	var d decimal
	d.digits = buf
	i := 0
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		d.neg = s[i] == '-'
		i++
	}
	seen, point, pending := false, false, 0 // pending: zeros that count only if a digit follows
	behind := 0                             // digits behind the point
	tooLong := false
	for ; i < len(s); i++ {
		c := s[i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen = true
		if point {
			behind++
		}
		switch {
		case c == '0' && len(d.digits) == 0:
			if point {
				d.e--
			}
			continue
		case c == '0':
			pending++
		default:
			if len(d.digits)+pending+1 > maxDigits {
				tooLong = true
			} else {
				for ; pending > 0; pending-- {
					d.digits = append(d.digits, 0)
				}
				d.digits = append(d.digits, c-'0')
			}
			pending = 0
		}
		if !point {
			d.e++
		}
	}
	if !seen {
		return d, ErrNumberSyntax
	}
	if i < len(s) {
		if s[i] != 'e' && s[i] != 'E' {
			return d, ErrNumberSyntax
		}
		i++
		neg := false
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			neg = s[i] == '-'
			i++
		}
		if i == len(s) {
			return d, ErrNumberSyntax
		}
		exp := 0
		for ; i < len(s); i++ {
			if s[i] < '0' || s[i] > '9' {
				return d, ErrNumberSyntax
			}
			if exp < 1<<20 {
				exp = exp*10 + int(s[i]-'0')
			}
		}
		if neg {
			exp = -exp
		}
		if len(d.digits) > 0 || tooLong {
			d.e += exp
		} else if exp-behind >= maxExponent {
			return d, ErrNumberOverflow // 0e126, as the service has it, but not 0.0e126
		}
	}
	if tooLong {
		return d, ErrNumberDigits
	}
	if len(d.digits) == 0 {
		return decimal{}, nil
	}
	return d, nil
}

func (d decimal) check() error {
	switch {
	case len(d.digits) > maxDigits:
		return ErrNumberDigits
	case d.e > maxExponent:
		return ErrNumberOverflow
	case d.e < minExponent:
		return ErrNumberUnderflow
	}
	return nil
}

func (d decimal) number() (Number, error) {
	if err := d.check(); err != nil {
		return Number{}, err
	}
	var buf [maxDigits/2 + 4]byte
	return Number{string(d.append(buf[:0]))}, nil
}

// append writes the ordered bytes; d must have digits.
func (d decimal) append(dst []byte) []byte {
	start := len(dst)
	e := uint16(d.e + 0x8000)
	dst = append(dst, numPositive, byte(e>>8), byte(e))
	for i := 0; i < len(d.digits); i += 2 {
		pair := d.digits[i] * 10
		if i+1 < len(d.digits) {
			pair += d.digits[i+1]
		}
		dst = append(dst, pair+1)
	}
	dst = append(dst, 0)
	if d.neg {
		dst[start] = numNegative
		for i := start + 1; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

// takeApart undoes append; b is not empty. digits go to buf.
func takeApart(b string, buf []byte) decimal {
	var d decimal
	if b == "" || b[0] == numZero {
		return d
	}
	var flip byte
	if b[0] == numNegative {
		d.neg, flip = true, 0xFF
	}
	d.e = int(uint16(b[1]^flip)<<8|uint16(b[2]^flip)) - 0x8000
	d.digits = buf
	for i := 3; i < len(b)-1; i++ {
		pair := b[i] ^ flip - 1
		d.digits = append(d.digits, pair/10, pair%10)
	}
	if n := len(d.digits); n > 0 && d.digits[n-1] == 0 {
		d.digits = d.digits[:n-1]
	}
	return d
}

// validOrdered tells whether b is what append writes for some number.
func validOrdered(b string) bool {
	if b == zeroOrdered {
		return true
	}
	if len(b) < 5 || (b[0] != numPositive && b[0] != numNegative) {
		return false
	}
	var flip byte
	if b[0] == numNegative {
		flip = 0xFF
	}
	for i := 3; i < len(b)-1; i++ {
		if pair := b[i] ^ flip; pair < 1 || pair > 100 {
			return false
		}
	}
	first, last := b[3]^flip, b[len(b)-2]^flip
	return b[len(b)-1] == flip && first > 10 && last > 1
}

// String writes the number in plain digits, without an exponent, as the service answers it.
func (n Number) String() string {
	var buf [64]byte
	return string(AppendNumberText(buf[:0], n.ordered()))
}

// Int returns the number if it is whole and an int64.
func (n Number) Int() (i int64, ok bool) {
	var buf [64]byte
	i, err := strconv.ParseInt(string(AppendNumberText(buf[:0], n.ordered())), 10, 64)
	return i, err == nil
}

// AppendNumberText appends the decimal text of a number given by its ordered bytes.
func AppendNumberText(dst []byte, ordered string) []byte {
	var buf [maxDigits + 2]byte
	d := takeApart(ordered, buf[:0])
	if len(d.digits) == 0 {
		return append(dst, '0')
	}
	if d.neg {
		dst = append(dst, '-')
	}
	if d.e <= 0 {
		dst = append(dst, "0."...)
		for i := d.e; i < 0; i++ {
			dst = append(dst, '0')
		}
		return appendDigits(dst, d.digits)
	}
	if d.e >= len(d.digits) {
		dst = appendDigits(dst, d.digits)
		for i := len(d.digits); i < d.e; i++ {
			dst = append(dst, '0')
		}
		return dst
	}
	dst = appendDigits(dst, d.digits[:d.e])
	dst = append(dst, '.')
	return appendDigits(dst, d.digits[d.e:])
}

func appendDigits(dst, digits []byte) []byte {
	for _, c := range digits {
		dst = append(dst, '0'+c)
	}
	return dst
}

// numberSize is a number's share of an item's size: 1 byte, 1 for each two digits before the point and
// for each two behind it, and 1 more when negative.
// Source: DYNAMODB.md §3, "Number size".
func numberSize(ordered string) int {
	var buf [maxDigits + 2]byte
	d := takeApart(ordered, buf[:0])
	if len(d.digits) == 0 {
		return 1
	}
	n := 1
	// Digits are counted in pairs aligned at the point; zeros that only place the point are trimmed.
	whole := min(max(d.e, 0), len(d.digits))
	frac := len(d.digits) - whole
	n += (whole + 1) / 2
	n += (frac + 1) / 2
	if d.neg {
		n++
	}
	return n
}

// Neg returns -n.
func (n Number) Neg() Number {
	if n.b == "" {
		return n
	}
	b := []byte(n.b)
	b[0] = numNegative + numPositive - b[0]
	for i := 1; i < len(b); i++ {
		b[i] = ^b[i]
	}
	return Number{string(b)}
}

// Add returns n+m, or an error when the exact sum does not fit a stored number: the service refuses an
// inexact result with ErrNumberOverflow too.
func (n Number) Add(m Number) (Number, error) {
	sum := n.AddExact(m)
	var buf [maxDigits + 2]byte
	switch err := takeApart(sum.b, buf[:0]).check(); err {
	case nil:
		return sum, nil
	case ErrNumberUnderflow:
		return Number{}, err
	default:
		return Number{}, ErrNumberOverflow
	}
}

// Sub returns n-m; see Add.
func (n Number) Sub(m Number) (Number, error) { return n.Add(m.Neg()) }

// AddExact returns n+m exactly, however many digits that takes.
func (n Number) AddExact(m Number) Number {
	if n.b == "" {
		return m
	}
	if m.b == "" {
		return n
	}
	var bufN, bufM [maxDigits + 2]byte
	x, y := takeApart(n.b, bufN[:0]), takeApart(m.b, bufM[:0])
	low := min(x.e-len(x.digits), y.e-len(y.digits)) // the power of ten of the last digit of either
	if i, ok := x.int64At(low); ok {
		if j, ok := y.int64At(low); ok {
			return numberFromInt64(i+j, low)
		}
	}
	return numberFromBig(new(big.Int).Add(x.bigAt(low), y.bigAt(low)), low)
}

// SubExact returns n-m exactly.
func (n Number) SubExact(m Number) Number { return n.AddExact(m.Neg()) }

// Fits tells whether n is within what a client may store: 38 digits and the magnitude's range.
func (n Number) Fits() bool {
	return len(n.b) <= maxDigits/2+5 && takeApart(n.b, nil).check() == nil
}

// Rounded returns n as it can be shown: rounded half-even to 38 digits, and held within the range of
// magnitudes (too large: the largest number of its sign; too small: 0). ok is false when n did not fit.
func (n Number) Rounded() (shown Number, ok bool) {
	d := takeApart(n.b, nil)
	if d.check() == nil {
		return n, true
	}
	if len(d.digits) > maxDigits {
		rest := d.digits[maxDigits:]
		kept := append([]byte(nil), d.digits[:maxDigits]...)
		up := rest[0] > 5 || rest[0] == 5 && (len(rest) > 1 || kept[maxDigits-1]%2 == 1)
		for i := maxDigits - 1; up && i >= 0; i-- {
			kept[i] = (kept[i] + 1) % 10
			up = kept[i] == 0
		}
		if up { // 999… became 1000…
			kept[0] = 1
			d.e++
		}
		for len(kept) > 1 && kept[len(kept)-1] == 0 {
			kept = kept[:len(kept)-1]
		}
		d.digits = kept
	}
	if d.e < minExponent {
		return Number{}, false
	}
	if d.e > maxExponent {
		d.e = maxExponent
		d.digits = d.digits[:0]
		for range maxDigits {
			d.digits = append(d.digits, 9)
		}
	}
	return Number{string(d.append(nil))}, false
}

// int64At returns the number as a multiple of 10^low, if that is well within an int64.
func (d decimal) int64At(low int) (int64, bool) {
	if d.e-low > 18 {
		return 0, false
	}
	var v int64
	for _, c := range d.digits {
		v = v*10 + int64(c)
	}
	for i := d.e - len(d.digits); i > low; i-- {
		v *= 10
	}
	if d.neg {
		v = -v
	}
	return v, true
}

func (d decimal) bigAt(low int) *big.Int {
	text := appendDigits(nil, d.digits)
	v, _ := new(big.Int).SetString(string(text), 10)
	if shift := d.e - len(d.digits) - low; shift > 0 {
		v.Mul(v, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(shift)), nil))
	}
	if d.neg {
		v.Neg(v)
	}
	return v
}

func numberFromInt64(v int64, low int) Number {
	if v == 0 {
		return Number{}
	}
	var digits [20]byte
	i := len(digits)
	d := decimal{neg: v < 0}
	u := uint64(v)
	if d.neg {
		u = -u
	}
	for ; u > 0; u /= 10 {
		i--
		digits[i] = byte(u % 10)
	}
	d.digits = digits[i:]
	d.e = low + len(d.digits)
	d.trim()
	var buf [16]byte
	return Number{string(d.append(buf[:0]))}
}

func numberFromBig(v *big.Int, low int) Number {
	if v.Sign() == 0 {
		return Number{}
	}
	text := new(big.Int).Abs(v).Append(nil, 10)
	for i := range text {
		text[i] -= '0'
	}
	d := decimal{neg: v.Sign() < 0, e: low + len(text), digits: text}
	d.trim()
	return Number{string(d.append(nil))}
}

func (d *decimal) trim() {
	for n := len(d.digits); n > 0 && d.digits[n-1] == 0; n-- {
		d.digits = d.digits[:n-1]
	}
}
