package item

import (
	"bytes"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNumberParsesAndPrintsAsTheServiceDoes(t *testing.T) {
	for _, c := range []struct {
		in, out string
		size    int
	}{
		{"0", "0", 1}, {"-0", "0", 1}, {"000", "0", 1}, {"0.0", "0", 1}, {"0e5", "0", 1}, {"0.0e126", "0", 1}, {"0e125", "0", 1},
		{"1", "1", 2}, {"-1", "-1", 3}, {"+7", "7", 2}, {"007", "7", 2}, {"1.5E2", "150", 2}, {"150", "150", 2},
		{"1.50", "1.5", 3}, {"100", "100", 2}, {"12345", "12345", 4}, {".5", "0.5", 2}, {"5.", "5", 2},
		{"0.001", "0.001", 2}, {"-0.001", "-0.001", 3}, {"1e-3", "0.001", 2},
		{"99999999999999999999999999999999999999", "99999999999999999999999999999999999999", 20},
		{"1e125", "1" + strings.Repeat("0", 125), 2},
		{"9.9999999999999999999999999999999999999E+125", strings.Repeat("9", 38) + strings.Repeat("0", 88), 20},
		{"1E-130", "0." + strings.Repeat("0", 129) + "1", 2},
		{"1" + strings.Repeat("0", 60), "1" + strings.Repeat("0", 60), 2},
	} {
		n, err := ParseNumber(c.in)
		if err != nil {
			t.Errorf("ParseNumber(%q): %v", c.in, err)
			continue
		}
		if n.String() != c.out {
			t.Errorf("ParseNumber(%q) prints %q, want %q", c.in, n, c.out)
		}
		if got := N(n).Size(); got != c.size {
			t.Errorf("size of %q is %d, want %d", c.in, got, c.size)
		}
	}
}

func TestNumberRefusesWhatTheServiceRefuses(t *testing.T) {
	for in, want := range map[string]error{
		"": ErrNumberSyntax, "-": ErrNumberSyntax, ".": ErrNumberSyntax, " 1": ErrNumberSyntax, "1 ": ErrNumberSyntax,
		"1e": ErrNumberSyntax, "1e+": ErrNumberSyntax, "NaN": ErrNumberSyntax, "Infinity": ErrNumberSyntax, "0x1": ErrNumberSyntax,
		"1.2.3": ErrNumberSyntax, "1,0": ErrNumberSyntax, "--1": ErrNumberSyntax,
		"1e126": ErrNumberOverflow, "0e126": ErrNumberOverflow, "0.0e127": ErrNumberOverflow, "1e999999999999999999999": ErrNumberOverflow, "-1e126": ErrNumberOverflow,
		"1e-131": ErrNumberUnderflow, "1e-99999999999999": ErrNumberUnderflow,
		"123456789012345678901234567890123456789": ErrNumberDigits,
	} {
		if _, err := ParseNumber(in); !errors.Is(err, want) {
			t.Errorf("ParseNumber(%q) = %v, want %v", in, err, want)
		}
	}
}

func genNumber(t *rapid.T) Number {
	digits := rapid.StringMatching(`-?[0-9]{1,20}(\.[0-9]{1,18})?`).Draw(t, "digits")
	exp := rapid.SampledFrom([]string{"", "e3", "E-7", "e60", "e-60"}).Draw(t, "exp")
	n, err := ParseNumber(digits + exp)
	if err != nil {
		t.Fatalf("%q: %v", digits+exp, err)
	}
	return n
}

func rat(t *rapid.T, n Number) *big.Rat {
	r, ok := new(big.Rat).SetString(n.String())
	if !ok {
		t.Fatalf("%q is no number", n)
	}
	return r
}

func TestNumberOrderAndSumsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genNumber(t), genNumber(t)
		if got, want := a.Cmp(b), rat(t, a).Cmp(rat(t, b)); got != want {
			t.Fatalf("%s cmp %s = %d, want %d", a, b, got, want)
		}
		sum := a.AddExact(b)
		if want := new(big.Rat).Add(rat(t, a), rat(t, b)); rat(t, sum).Cmp(want) != 0 {
			t.Fatalf("%s + %s = %s", a, b, sum)
		}
		if d := sum.SubExact(b); d != a {
			t.Fatalf("(%s + %s) - %s = %s", a, b, b, d)
		}
		if !validOrdered(a.ordered()) {
			t.Fatalf("%s has bytes %x", a, a.ordered())
		}
		if again, err := ParseNumber(a.String()); err != nil || again != a {
			t.Fatalf("%s parses back as %s, %v", a, again, err)
		}
	})
}

func TestNumberSumsOutsideTheRangeAreRefusedAndShownRounded(t *testing.T) {
	big38, _ := ParseNumber(strings.Repeat("9", 38))
	tenth, _ := ParseNumber("0.1")
	if _, err := big38.Add(tenth); !errors.Is(err, ErrNumberOverflow) {
		t.Errorf("38 nines + 0.1: %v, want overflow", err)
	}
	sum := big38.AddExact(tenth)
	if shown, ok := sum.Rounded(); ok || shown != big38 {
		t.Errorf("38 nines + 0.1 shown as %s, %v", shown, ok)
	}
	half, _ := ParseNumber("0.5")
	if shown, ok := big38.AddExact(half).Rounded(); ok || shown.String() != "1"+strings.Repeat("0", 38) {
		t.Errorf("38 nines + 0.5 shown as %s, %v", shown, ok)
	}
	top, _ := ParseNumber("9e125")
	if shown, ok := top.AddExact(top).Rounded(); ok || shown.String() != strings.Repeat("9", 38)+strings.Repeat("0", 88) {
		t.Errorf("1.8e126 shown as %s, %v", shown, ok)
	}
}

func genValue(t *rapid.T, depth int) Value {
	kinds := []Kind{KindS, KindN, KindB, KindBOOL, KindNULL, KindSS, KindNS, KindBS}
	if depth < 3 {
		kinds = append(kinds, KindM, KindL)
	}
	text := rapid.StringN(0, 6, -1)
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case KindS:
		return S(text.Draw(t, "s"))
	case KindN:
		return N(genNumber(t))
	case KindB:
		return B(string(rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "b")))
	case KindBOOL:
		return Bool(rapid.Bool().Draw(t, "bool"))
	case KindNULL:
		return Null()
	case KindM:
		var fields []Field
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			fields = append(fields, Field{text.Draw(t, "name"), genValue(t, depth+1)})
		}
		return M(fields...)
	case KindL:
		var elems []Value
		for range rapid.IntRange(0, 4).Draw(t, "elems") {
			elems = append(elems, genValue(t, depth+1))
		}
		return L(elems...)
	default:
		var members []Value
		for range rapid.IntRange(1, 4).Draw(t, "members") {
			switch kind {
			case KindSS:
				members = append(members, S(text.Draw(t, "member")))
			case KindNS:
				members = append(members, N(genNumber(t)))
			default:
				members = append(members, B(text.Draw(t, "member")))
			}
		}
		return NewSet(kind, members)
	}
}

func TestStoredFormKeepsEveryItemAndItsSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it := M(Field{"a", genValue(t, 0)}, Field{"b", genValue(t, 0)}).AsItem()
		b := AppendItem(nil, it)
		again, err := DecodeItem(b)
		if err != nil || !Equal(again.AsMap(), it.AsMap()) {
			t.Fatalf("decoded %v, %v; want %v", again, err, it)
		}
		if size, err := RawSize(b); err != nil || size != it.Size() {
			t.Fatalf("RawSize = %d, %v; want %d", size, err, it.Size())
		}
		want := AppendValue(nil, it.Get("b"))
		if got := Attr(b, "b"); !bytes.Equal(got, want) || RawKind(got) != it.Get("b").Kind() {
			t.Fatalf("Attr(b) = %x, want %x", got, want)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if _, err := DecodeItem(b[:cut]); err == nil {
			t.Fatalf("%d of %d bytes decode", cut, len(b))
		}
	})
}

func TestOrderedKeysCompareAsTheirValuesDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{KindS, KindN, KindB}).Draw(t, "kind")
		gen := func() Value {
			switch kind {
			case KindN:
				return N(genNumber(t))
			case KindS:
				return S(rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 2, 0x61, 0xFF}), 0, 4, -1).Draw(t, "s"))
			}
			return B(string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 0xFE, 0xFF}), 0, 4).Draw(t, "b")))
		}
		a, b := gen(), gen()
		ka, kb := a.AppendOrdered(nil), b.AppendOrdered(nil)
		if got, want := bytes.Compare(ka, kb), Compare(a, b); got != want {
			t.Fatalf("%v against %v: bytes say %d, values %d", a, b, got, want)
		}
		back, rest, err := CutOrdered(slices.Concat(ka, kb), kind)
		if err != nil || !Equal(back, a) || !bytes.Equal(rest, kb) {
			t.Fatalf("cut %v, %x, %v", back, rest, err)
		}
		raw, err := AppendRawOrdered(nil, AppendValue(nil, a))
		if err != nil || !bytes.Equal(raw, ka) {
			t.Fatalf("raw ordered %x, %v; want %x", raw, err, ka)
		}
	})
}

func FuzzDecodeItem(f *testing.F) {
	f.Add(AppendItem(nil, NewItem(Field{"a", S("x")}, Field{"b", L(Bool(true), Null())})))
	f.Fuzz(func(t *testing.T, b []byte) {
		it, err := DecodeItem(b)
		if err != nil {
			return
		}
		if again := AppendItem(nil, it); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes, and encodes as %x", b, again)
		}
		if size, err := RawSize(b); err != nil || size != it.Size() {
			t.Fatalf("RawSize = %d, %v; want %d", size, err, it.Size())
		}
	})
}

func FuzzParseNumber(f *testing.F) {
	f.Add("1.5E2")
	f.Add("-0.000")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseNumber(s)
		if err != nil {
			return
		}
		if again, err := ParseNumber(n.String()); err != nil || again != n {
			t.Fatalf("%q is %s, which parses as %s, %v", s, n, again, err)
		}
	})
}

func TestValidAgreesWithTheDecoder(t *testing.T) {
	v := M(
		Field{"a", L(N(NumberFromInt(-12)), Bool(true), Null(), M())},
		Field{"b", NewSet(KindNS, []Value{N(NumberFromInt(1)), N(NumberFromInt(2))})},
		Field{"c", NewSet(KindSS, []Value{S("x"), S("y")})},
		Field{"d", B("\x00\xff")},
	)
	good := AppendValue(nil, v)
	if !Valid(good) || !ValidItem(good[1:]) {
		t.Fatal("a stored value is said not to be one")
	}
	for i := range good {
		for _, flip := range []byte{1, 2, 0x80, 0xff} {
			bad := append([]byte(nil), good...)
			bad[i] ^= flip
			if _, err := DecodeValue(bad); (err == nil) != Valid(bad) {
				t.Errorf("byte %d ^ %#x: decoder says %v, Valid %v", i, flip, err, Valid(bad))
			}
		}
		if Valid(good[:i]) {
			t.Errorf("cut at %d: Valid", i)
		}
	}
}
