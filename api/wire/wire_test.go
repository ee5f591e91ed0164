package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/commutatordb/commutator/item"
	"pgregory.net/rapid"
)

// The goal: what this package writes and reads is exactly what item's tree form means. The oracle is the
// tree, written and read here by encoding/json in the plainest way.

// treeJSON returns what encoding/json writes v's JSON from.
func treeJSON(v item.Value) any {
	k := v.Kind()
	switch k {
	case item.KindS:
		return map[string]any{"S": v.Str()}
	case item.KindN:
		return map[string]any{"N": v.Number().String()}
	case item.KindB:
		return map[string]any{"B": []byte(v.Str())}
	case item.KindBOOL:
		return map[string]any{"BOOL": v.Bool()}
	case item.KindNULL:
		return map[string]any{"NULL": true}
	case item.KindM:
		m := map[string]any{}
		for _, f := range v.Fields() {
			m[f.Name] = treeJSON(f.Value)
		}
		return map[string]any{"M": m}
	case item.KindL:
		l := []any{}
		for _, e := range v.Elems() {
			l = append(l, treeJSON(e))
		}
		return map[string]any{"L": l}
	}
	l := []any{}
	for _, e := range v.Elems() {
		for _, inner := range treeJSON(e).(map[string]any) {
			l = append(l, inner)
		}
	}
	return map[string]any{k.String(): l}
}

func marshal(t *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shuffled writes v as JSON with members and set members in any order, space in between, and some
// characters escaped that need not be.
func shuffled(t *rapid.T, v any) string {
	space := func() string { return rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r\n  "}).Draw(t, "space") }
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for name, value := range v {
			parts = append(parts, space()+shuffled(t, name)+space()+":"+space()+shuffled(t, value)+space())
		}
		return "{" + strings.Join(permuted(t, parts), ",") + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, space()+shuffled(t, e)+space())
		}
		return "[" + strings.Join(parts, ",") + "]"
	case string:
		var b strings.Builder
		b.WriteByte('"')
		for _, c := range v {
			switch {
			case c == '/' && rapid.Bool().Draw(t, "slash"):
				b.WriteString(`\/`)
			case c < ' ' || c == '"' || c == '\\' || rapid.IntRange(0, 9).Draw(t, "escape") == 0:
				if c > 0xFFFF {
					c -= 0x10000
					fmt.Fprintf(&b, `\u%04x\u%04X`, 0xD800+c>>10, 0xDC00+c&0x3FF)
				} else {
					fmt.Fprintf(&b, `\u%04x`, c)
				}
			default:
				b.WriteRune(c)
			}
		}
		return b.String() + `"`
	case []byte:
		var s string
		if err := json.Unmarshal([]byte(marshal(t, v)), &s); err != nil {
			t.Fatal(err)
		}
		return shuffled(t, s)
	}
	return marshal(t, v)
}

func permuted(t *rapid.T, parts []string) []string {
	if len(parts) < 2 {
		return parts
	}
	return rapid.Permutation(parts).Draw(t, "order")
}

var (
	texts   = rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-c]{0,12}`), rapid.StringMatching("[ -~\t\n\"\\\\\b\f\r\x00/\u00e9\u2028\U0001F600]{0,40}"))
	names   = texts.Filter(func(s string) bool { return s != "" })
	numbers = rapid.Custom(func(t *rapid.T) item.Number {
		s := rapid.StringMatching(`-?[0-9]{1,19}(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		n, err := item.ParseNumber(s)
		if err != nil {
			t.Skip(s)
		}
		return n
	})
)

func values(depth int) *rapid.Generator[item.Value] {
	return rapid.Custom(func(t *rapid.T) item.Value {
		kinds := int(item.KindBS)
		k := item.Kind(rapid.IntRange(int(item.KindS), kinds).Draw(t, "kind"))
		scalar := func(k item.Kind) item.Value {
			switch k {
			case item.KindS:
				return item.S(texts.Draw(t, "S"))
			case item.KindN:
				return item.N(numbers.Draw(t, "N"))
			}
			return item.B(string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "B")))
		}
		switch {
		case k.IsKey():
			return scalar(k)
		case k == item.KindBOOL:
			return item.Bool(rapid.Bool().Draw(t, "BOOL"))
		case k == item.KindNULL || depth == 0:
			return item.Null()
		case k == item.KindM:
			return fieldsOf(t, depth-1).AsMap()
		case k == item.KindL:
			return item.L(rapid.SliceOfN(values(depth-1), 0, 4).Draw(t, "L")...)
		}
		var members []item.Value
		for range rapid.IntRange(1, 6).Draw(t, "members") {
			members = append(members, scalar(k.Element()))
		}
		return item.NewSet(k, members)
	})
}

func fieldsOf(t *rapid.T, depth int) item.Item {
	var fields []item.Field
	for range rapid.IntRange(0, 6).Draw(t, "fields") {
		fields = append(fields, item.Field{Name: names.Draw(t, "name"), Value: values(depth).Draw(t, "value")})
	}
	return item.NewItem(fields...)
}

func TestItemIsReadIntoTheBytesOfItsTree(t *testing.T) {
	r := NewReader(nil)
	rapid.Check(t, func(t *rapid.T) {
		it := fieldsOf(t, 3)
		doc := shuffled(t, treeJSON(it.AsMap()).(map[string]any)["M"])
		r.Reset([]byte(doc))
		prefix := []byte("before")
		got, err := r.Item(prefix)
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		if err := r.End(); err != nil {
			t.Fatal(err)
		}
		if want := item.AppendItem(prefix, it); !bytes.Equal(got, want) {
			t.Fatalf("%s:\n got %q\nwant %q", doc, got, want)
		}
	})
}

func TestValueIsReadIntoItsTree(t *testing.T) {
	r := NewReader(nil)
	rapid.Check(t, func(t *rapid.T) {
		v := values(3).Draw(t, "v")
		doc := shuffled(t, treeJSON(v))
		r.Reset([]byte(doc))
		got, err := r.Value()
		if err != nil {
			t.Fatalf("%s: %v", doc, err)
		}
		if !item.Equal(got, v) {
			t.Fatalf("%s: got %+v, want %+v", doc, got, v)
		}
	})
}

func TestStoredItemIsWrittenAsItsTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		it := fieldsOf(t, 3)
		got, err := AppendItem([]byte("before "), item.AppendItem(nil, it))
		if err != nil {
			t.Fatal(err)
		}
		var g, w any
		if err := json.Unmarshal(bytes.TrimPrefix(got, []byte("before ")), &g); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if err := json.Unmarshal([]byte(marshal(t, treeJSON(it.AsMap()).(map[string]any)["M"])), &w); err != nil {
			t.Fatal(err)
		}
		if marshal(t, g) != marshal(t, w) {
			t.Fatalf("got %s\nwant %s", marshal(t, g), marshal(t, w))
		}
	})
}

func TestStoredValueIsWritten(t *testing.T) {
	for _, c := range []struct {
		v    item.Value
		want string
	}{
		{item.S("a\"\\/\b\f\n\r\t\x00\x1f\x7f<&>\u2028é😀"), `{"S":"a\"\\/\b\f\n\r\t\u0000\u001F` + "\x7f<&>\u2028é😀" + `"}`},
		{item.S(""), `{"S":""}`},
		{item.B("\x00\x01"), `{"B":"AAE="}`},
		{item.B(""), `{"B":""}`},
		{item.N(item.NumberFromInt(-120)), `{"N":"-120"}`},
		{item.N(item.Number{}), `{"N":"0"}`},
		{item.Bool(false), `{"BOOL":false}`},
		{item.Bool(true), `{"BOOL":true}`},
		{item.Null(), `{"NULL":true}`},
		{item.L(), `{"L":[]}`},
		{item.M(), `{"M":{}}`},
		{item.L(item.S("x"), item.M(item.Field{Name: `q"`, Value: item.Null()})), `{"L":[{"S":"x"},{"M":{"q\"":{"NULL":true}}}]}`},
		{item.NewSet(item.KindSS, []item.Value{item.S("b"), item.S("a")}), `{"SS":["a","b"]}`},
		{item.NewSet(item.KindNS, []item.Value{item.N(item.NumberFromInt(10)), item.N(item.NumberFromInt(9))}), `{"NS":["9","10"]}`},
		{item.NewSet(item.KindBS, []item.Value{item.B("\x01")}), `{"BS":["AQ=="]}`},
	} {
		got, err := AppendValue(nil, item.AppendValue(nil, c.v))
		if err != nil || string(got) != c.want {
			t.Errorf("got %s, %v; want %s", got, err, c.want)
		}
	}
}

func TestAppendStringReplacesWhatIsNotUTF8(t *testing.T) {
	for in, want := range map[string]string{
		"\xff":                   `"` + "\uFFFD" + `"`,
		"ok\xc3\x28\xe2\x82":     `"ok` + "\uFFFD(\uFFFD\uFFFD" + `"`,
		"\uFFFD kept":            `"` + "\uFFFD kept" + `"`,
		"0123456\"89\xffabcdefé": `"0123456\"89` + "\uFFFDabcdefé" + `"`,
	} {
		if got := AppendString(nil, in); string(got) != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestBrokenStoredBytesAreRefused(t *testing.T) {
	good := item.AppendItem(nil, item.NewItem(
		item.Field{Name: "a", Value: item.NewSet(item.KindNS, []item.Value{item.N(item.NumberFromInt(1))})},
		item.Field{Name: "b", Value: item.L(item.S("x"), item.B("y"), item.M(item.Field{Name: "c", Value: item.N(item.NumberFromInt(2))}))}))
	for n := range good {
		if out, err := AppendItem([]byte("kept"), good[:n]); !errors.Is(err, item.ErrEncoding) || string(out) != "kept" {
			t.Errorf("the first %d bytes: got %q, %v", n, out, err)
		}
	}
	if _, err := AppendItem(nil, append(good, 0)); !errors.Is(err, item.ErrEncoding) {
		t.Errorf("a byte too many: %v", err)
	}
	for _, value := range []string{"", "\x00", "\x0c", "\x02\x01\x03", "\x02\x02\x03\x80", strings.Repeat("\x08\x01", item.MaxDepth+1) + "\x06"} {
		if _, err := AppendValue(nil, []byte(value)); !errors.Is(err, item.ErrEncoding) {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// nested returns a string under n lists.
func nested(n int) string {
	return strings.Repeat(`{"L":[`, n) + `{"S":"x"}` + strings.Repeat(`]}`, n)
}

func TestRulesOfValues(t *testing.T) {
	const invalid = "One or more parameter values were invalid: "
	none := "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
	several := "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
	nesting := "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
	for _, c := range []struct{ doc, want string }{
		{`{}`, none},
		{`null`, none},
		{`{"a":""}`, none},
		{`{"s":"case"}`, none},
		{`{"S":null}`, none},
		{`{"M":{"a":{}}}`, none},
		{`{"M":{"a":null}}`, none},
		{`{"L":[{}]}`, none},
		{`{"L":[null]}`, none},
		{`{"S":"a","N":"1"}`, several},
		{`{"S":"","N":""}`, "The parameter cannot be converted to a numeric value"},
		{`{"S":"a","N":"b"}`, "The parameter cannot be converted to a numeric value: b"},
		{`{"L":[],"M":{},"NULL":true}`, several},
		{`{"NULL":false}`, invalid + "Null attribute value types must have the value of true"},
		{`{"NULL":"no"}`, invalid + "Null attribute value types must have the value of true"},
		{`{"SS":[]}`, invalid + "An string set  may not be empty"},
		{`{"NS":[]}`, invalid + "An number set  may not be empty"},
		{`{"BS":[]}`, invalid + "Binary sets should not be empty"},
		{`{"SS":["a","b","a"]}`, invalid + "Input collection [a, b, a] contains duplicates."},
		{`{"SS":["a","\u0061"]}`, invalid + "Input collection [a, a] contains duplicates."},
		{`{"NS":["1","2","1.0"]}`, "Input collection contains duplicates"},
		{`{"BS":["Yg==","Yg=="]}`, invalid + "Input collection [Yg==, Yg==]of type BS contains duplicates."},
		{`{"N":""}`, "The parameter cannot be converted to a numeric value"},
		{`{"N":"abc"}`, "The parameter cannot be converted to a numeric value: abc"},
		{`{"N":" 1"}`, "The parameter cannot be converted to a numeric value:  1"},
		{`{"N":"NaN"}`, "The parameter cannot be converted to a numeric value: NaN"},
		{`{"N":"123456789012345678901234567890123456789"}`, "Attempting to store more than 38 significant digits in a Number"},
		{`{"N":"1e126"}`, "Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{`{"N":"1e999999999999999"}`, "Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{`{"N":"-1e-131"}`, "Number underflow. Attempting to store a number with magnitude smaller than supported range"},
		{`{"NS":["1","x"]}`, "The parameter cannot be converted to a numeric value: x"},
		{nested(maxNesting), nesting},
		{nested(60), nesting},
		{`{"M":{"":{"S":"x"}}}`, textEmptyName},
		{`{"M":{"` + strings.Repeat("n", maxName+1) + `":{"S":"x"}}}`, textLongName},
		// The first broken rule counts.
		{`{"L":[{"N":"x"},{"N":"y"},{}]}`, "The parameter cannot be converted to a numeric value: x"},
	} {
		r := NewReader([]byte(c.doc + " 7"))
		_, err := r.Value()
		var v *ValidationError
		if !errors.As(err, &v) || v.Message != c.want {
			t.Errorf("%.80s: got %v, want %s", c.doc, err, c.want)
			continue
		}
		if n, err := r.Int(); n != 7 || err != nil {
			t.Errorf("%.80s: the reader does not stand behind the value: %d, %v", c.doc, n, err)
		}
	}
}

func TestTypesOfValues(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{`23`, "Unexpected value type in payload"},
		{`"x"`, "Unexpected value type in payload"},
		{`true`, "Unexpected value type in payload"},
		{`[]`, "Unrecognized collection type class com.amazonaws.dynamodb.v20120810.AttributeValue"},
		{`{"S":23}`, "NUMBER_VALUE cannot be converted to String"},
		{`{"S":-2147483648}`, "NUMBER_VALUE cannot be converted to String"},
		{`{"S":34.56}`, "DECIMAL_VALUE cannot be converted to String"},
		{`{"S":true}`, "TRUE_VALUE cannot be converted to String"},
		{`{"S":false}`, "FALSE_VALUE cannot be converted to String"},
		{`{"S":[]}`, "Unrecognized collection type class java.lang.String"},
		{`{"S":{}}`, "Start of structure or map found where not expected"},
		{`{"N":1}`, "NUMBER_VALUE cannot be converted to String"},
		{`{"B":true}`, "only base-64-encoded strings are convertible to bytes"},
		{`{"B":34.56}`, "only base-64-encoded strings are convertible to bytes"},
		{`{"B":[]}`, "Unrecognized collection type class java.nio.ByteBuffer"},
		{`{"B":{}}`, "Start of structure or map found where not expected"},
		{`{"B":"23456"}`, "Base64 encoded length is expected a multiple of 4 bytes but found: 5"},
		{`{"B":"=+/="}`, "Invalid Base64 character: '='"},
		{`{"B":"+/+="}`, "Invalid last non-pad Base64 character dectected"},
		{`{"B":"A==="}`, "Invalid last non-pad Base64 character dectected"},
		{`{"B":"===="}`, "Invalid last non-pad Base64 character dectected"},
		{`{"B":"AA==AA=="}`, "Invalid Base64 character: '='"},
		{`{"B":"AA\n=="}`, "Base64 encoded length is expected a multiple of 4 bytes but found: 5"},
		{`{"B":"AAAA\r\n\r\n"}`, "Invalid Base64 character: '\r'"},
		{`{"B":"AA-_"}`, "Invalid Base64 character: '-'"},
		{`{"BOOL":23}`, "NUMBER_VALUE cannot be converted to Boolean"},
		{`{"BOOL":34.56}`, "DECIMAL_VALUE cannot be converted to Boolean"},
		{`{"BOOL":"23"}`, "Unexpected token received from parser"},
		{`{"BOOL":[]}`, "Unrecognized collection type class java.lang.Boolean"},
		{`{"NULL":{}}`, "Start of structure or map found where not expected"},
		{`{"M":"x"}`, "Unexpected field type"},
		{`{"M":[]}`, "Unrecognized collection type java.util.Map<java.lang.String, com.amazonaws.dynamodb.v20120810.AttributeValue>"},
		{`{"M":{"a":"x"}}`, "Unexpected value type in payload"},
		{`{"L":23}`, "Unexpected field type"},
		{`{"L":{}}`, "Start of structure or map found where not expected"},
		{`{"L":["x"]}`, "Unexpected value type in payload"},
		{`{"SS":"x"}`, "Unexpected field type"},
		{`{"SS":{}}`, "Start of structure or map found where not expected"},
		{`{"SS":[1]}`, "NUMBER_VALUE cannot be converted to String"},
		{`{"SS":[null]}`, "NULL_VALUE cannot be converted to String"},
		{`{"NS":[1]}`, "NUMBER_VALUE cannot be converted to String"},
		{`{"BS":[true]}`, "only base-64-encoded strings are convertible to bytes"},
		{`{"BS":["A"]}`, "Base64 encoded length is expected a multiple of 4 bytes but found: 1"},
		// A wrong type is complained of before a broken rule that stands in front of it.
		{`{"L":[{"N":"x"},{"S":5}]}`, "NUMBER_VALUE cannot be converted to String"},
	} {
		_, err := NewReader([]byte(c.doc)).Value()
		var s *SerializationError
		if !errors.As(err, &s) || s.Message != c.want {
			t.Errorf("%s: got %v, want %s", c.doc, err, c.want)
		}
	}
}

func TestMessagesAreBounded(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for _, doc := range []string{
		`{"N":"` + long + `"}`,
		`{"SS":["` + long + `","` + long + `"]}`,
		`{"SS":[` + strings.Repeat(`"b",`, 1<<16) + `"b"]}`,
		`{"M":{"` + long + `":{"S":""},"` + long + `":{"S":""}}}`,
		`{"S":"x","` + long + `":1,"` + long + `":2}`,
	} {
		_, err := NewReader([]byte(doc)).Value()
		if err == nil || len(err.Error()) > 8*maxQuoted {
			t.Errorf("%.20s: %d bytes", doc, len(fmt.Sprint(err)))
		}
	}
}

func TestWhatIsNoJSONIsRefused(t *testing.T) {
	for _, doc := range []string{
		``, ` `, `{`, `}`, `[`, `]`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`, `{'a':1}`, `{"a":1 "b":2}`, `{1:2}`,
		`[1`, `[1,`, `[1,]`, `[,]`, `[1 2]`, `[1}`, `{"a":1]`,
		`tru`, `truE`, `nul`, `fals`, `truex`, `nullnull`, `undefined`, `NaN`, `Infinity`, `+1`, `-`, `01`, `-01`, `1.`, `.5`, `1e`, `1e+`, `0x10`, `1_000`, `1 2`,
		`"`, `"a`, `"\`, `"\"`, `"\x"`, `"\u12"`, `"\u123g"`, `"\u`, "\"\n\"", "\"\x00\"", "\"abcdefgh\x1f\"", `'a'`,
		"\"\xff\"", "\"abcdefgh\xc3\x28abcdefgh\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"\\n\xff\"", "\"\xe2\x82\"",
		`"\ud800"`, `"\udc00"`, `"\ud800\ud800"`, `"\ud800x"`, `"\ud800\u0061"`, `"\ud800\n"`, `"\ud800`, `"\ud800\u`, `"\ud800xudc00"`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `[{"x":{"a":1,"b":{},"a":2}}]`, `{"":1,"":2}`,
		`{} {}`, `1,`, "\ufeff1", `// c` + "\n1", `/**/1`, "\v1", "\u00a01",
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		strings.Repeat(`{"a":`, 100_000),
	} {
		r := NewReader([]byte(doc))
		err := r.Skip()
		if err == nil {
			err = r.End()
		}
		var s *SerializationError
		if !errors.As(err, &s) || s.Message != "" || s.Detail == "" {
			t.Errorf("%.60q: %v", doc, err)
		}
	}
}

func TestManyMembersAreCheckedForDuplicates(t *testing.T) {
	for _, n := range []int{2, 16, 17, 1000} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"k%d":{"S":"x"},`, i)
		}
		doc := "{" + b.String() + `"last":{"S":"x"}}`
		twice := "{" + b.String() + `"k1":{"S":"x"}}`
		for name, read := range map[string]func(r *Reader) error{
			"Skip": (*Reader).Skip,
			"Item": func(r *Reader) error { _, err := r.Item(nil); return err },
		} {
			if err := read(NewReader([]byte(doc))); err != nil {
				t.Errorf("%s of %d: %v", name, n, err)
			}
			var s *SerializationError
			if err := read(NewReader([]byte(twice))); !errors.As(err, &s) {
				t.Errorf("%s of %d with a duplicate: %v", name, n, err)
			}
		}
	}
}

func TestCountsOfMoreThanOneByte(t *testing.T) {
	for _, n := range []int{127, 128, 129, 300, 20000} {
		var fields []item.Field
		var list, set []item.Value
		for i := range n {
			v := item.N(item.NumberFromInt(int64(i)))
			fields = append(fields, item.Field{Name: fmt.Sprint("f", i), Value: v})
			list = append(list, v)
			set = append(set, v)
		}
		want := item.AppendItem(nil, item.NewItem(append(fields, item.Field{Name: "L", Value: item.L(list...)}, item.Field{Name: "NS", Value: item.NewSet(item.KindNS, set)})...))
		doc, err := AppendItem(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewReader(doc).Item(nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d: %v", n, err)
		}
	}
}

func TestReaderReadsWhatIsThere(t *testing.T) {
	doc := ` {"s" : "\u00e9\/x", "t":true,"f":"FALSE", "n":-12 ,"d":1.5e1,"z":null,"k":{"x":[[],{"y":"\n"}]},"e":"plain","l":["a","\tb"]} `
	r := NewReader([]byte(doc))
	var seen []string
	err := r.Object(func(name []byte) error {
		seen = append(seen, string(name))
		switch string(name) {
		case "s":
			if s, err := r.String(); s != "é/x" || err != nil {
				t.Errorf("String: %q, %v", s, err)
			}
		case "t", "f":
			if b, err := r.Bool(); b != (string(name) == "t") || err != nil {
				t.Errorf("Bool: %v, %v", b, err)
			}
		case "n", "d":
			want := map[string]int64{"n": -12, "d": 15}[string(name)]
			if r.Kind() != Number {
				t.Errorf("Kind: %c", r.Kind())
			}
			if n, err := r.Int(); n != want || err != nil {
				t.Errorf("Int: %d, %v", n, err)
			}
		case "z":
			if !r.Null() || r.Null() {
				t.Error("Null")
			}
		case "e":
			if r.Null() {
				t.Error("Null of a string")
			}
			if b, err := r.Bytes(); string(b) != "plain" || err != nil {
				t.Errorf("Bytes: %q, %v", b, err)
			}
		case "l":
			var all []string
			err := r.Array(func() error {
				b, err := r.Bytes()
				all = append(all, string(b))
				return err
			})
			if err != nil || strings.Join(all, " ") != "a \tb" {
				t.Errorf("Array: %q, %v", all, err)
			}
		default:
			return r.Skip()
		}
		return nil
	})
	if err != nil || strings.Join(seen, "") != "stfndzkel" {
		t.Fatalf("%v %v", seen, err)
	}
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
}

func TestInt(t *testing.T) {
	for doc, want := range map[string]int64{"0": 0, "-0": 0, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64, "1.9": 1, "-1.9": -1, "1E3": 1000, "1e-3": 0} {
		if n, err := NewReader([]byte(doc)).Int(); n != want || err != nil {
			t.Errorf("%s: %d, %v", doc, n, err)
		}
	}
	for doc, want := range map[string]string{
		`"23"`: "STRING_VALUE cannot be converted to Integer", `true`: "TRUE_VALUE cannot be converted to Integer", `[]`: "Unrecognized collection type class java.lang.Integer",
		`{}`: "Start of structure or map found where not expected", `9223372036854775808`: "NUMBER_VALUE cannot be converted to Integer", `1e999`: "NUMBER_VALUE cannot be converted to Integer",
	} {
		_, err := NewReader([]byte(doc)).Int()
		var s *SerializationError
		if !errors.As(err, &s) || s.Message != want {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestTypesOfRequestMembers(t *testing.T) {
	object := func(r *Reader) error { return r.Object(func([]byte) error { return r.Skip() }) }
	array := func(r *Reader) error { return r.Array(r.Skip) }
	for _, c := range []struct {
		read      func(*Reader) error
		doc, want string
	}{
		{object, `"x"`, "Unexpected field type"},
		{object, `5`, "Unexpected field type"},
		{object, `[]`, "Start of list found where not expected"},
		{array, `true`, "Unexpected field type"},
		{array, `{}`, "Start of structure or map found where not expected"},
	} {
		var s *SerializationError
		if err := c.read(NewReader([]byte(c.doc))); !errors.As(err, &s) || s.Message != c.want {
			t.Errorf("%s: %v", c.doc, err)
		}
	}
}

func TestDepthsThatAreTaken(t *testing.T) {
	if _, err := NewReader([]byte(nested(maxNesting - 1))).Value(); err != nil {
		t.Error(err)
	}
	if _, err := NewReader([]byte(`{"a":` + nested(maxNesting-1) + `}`)).Item(nil); err != nil {
		t.Error(err)
	}
	doc := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	if err := NewReader([]byte(doc)).Skip(); err != nil {
		t.Error(err)
	}
}

// A hostile document of 1 MB must not take more than its share of time or memory; the figures are far
// above what is needed, and far below what a quadratic step would need.
func TestHostileDocumentsTakeBoundedMemory(t *testing.T) {
	const size = 1 << 20
	for name, doc := range map[string]string{
		"fields":   "{" + repeatf(size/24, `"%07d":{"NULL":true}`) + "}",
		"reversed": `{"L":[` + strings.Repeat(`{"SS":["b","a"]},`, size/17) + `{"S":""}]}`,
		"set":      `{"a":{"SS":[` + repeatf(size/10, `"%07d"`) + `]}}`,
		"strings":  `{"a":{"L":[` + strings.Repeat(`{"S":"\n"},`, size/11) + `{"S":""}]}}`,
		"unknown":  `{"a":{` + repeatf(size/12, `"%07d":1`) + `}}`,
		"deep":     strings.Repeat(`{"a":{"M":`, size/10),
	} {
		r := NewReader([]byte(doc))
		if n := testing.AllocsPerRun(1, func() {
			r.Reset([]byte(doc))
			_, _ = r.Item(nil)
		}); n > 100 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// repeatf writes n numbers, the last first, with commas in between.
func repeatf(n int, format string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(format, n-i)
	}
	return strings.Join(parts, ",")
}
