package expr

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/commutatordb/commutator/item"
)

func num(s string) item.Value {
	n, err := item.ParseNumber(s)
	if err != nil {
		panic(err)
	}
	return item.N(n)
}

func strSet(members ...string) item.Value {
	var vs []item.Value
	for _, m := range members {
		vs = append(vs, item.S(m))
	}
	return item.NewSet(item.KindSS, vs)
}

func f(name string, v item.Value) item.Field { return item.Field{Name: name, Value: v} }

func placeholders() *Placeholders {
	p := Given(map[string]string{"#n": "name", "#dot": "a.b"}, map[string]item.Value{
		":one": num("1"), ":two": num("2"), ":ten": num("10"), ":zero": num("0"), ":s": item.S("abc"), ":ab": item.S("ab"),
		":set": strSet("x", "y"), ":z": strSet("z"), ":x": strSet("x"), ":list": item.L(num("7")), ":empty": item.L(), ":map": item.M(), ":t": item.Bool(true),
		":S": item.S("S"), ":bad": item.S("STRING"), ":null": item.Null(), ":xs": item.S("x"),
	})
	return &p
}

var thing = item.NewItem(
	f("pk", item.S("k")), f("n", num("5")), f("name", item.S("abcdef")), f("tags", strSet("x", "y")),
	f("l", item.L(num("1"), num("2"), item.M(f("deep", item.S("d"))))), f("m", item.M(f("a", num("1")), f("b", item.M(f("c", item.S("x")))))),
	f("a.b", item.Bool(true)), f("nothing", item.Null()),
)

func TestConditionsHoldAsTheServiceSays(t *testing.T) {
	for src, want := range map[string]bool{
		"n = :one": false, "n > :two": true, "n < :ten": true, "n >= :ten": false, "n <> :one": true, ":two < n": true,
		"n BETWEEN :one AND :ten": true, "n IN (:one, :two)": false, "#n = :s OR n > :one": true,
		"begins_with(#n, :ab)": true, "contains(#n, :s)": true, "contains(tags, :xs)": true, "contains(tags, :s)": false, "contains(l, :two)": true,
		"attribute_exists(m.b.c)": true, "attribute_exists(m.x)": false, "attribute_not_exists(m.b.d)": true, "attribute_not_exists(l[3])": true, "attribute_exists(l[2].deep)": true,
		"attribute_type(#n, :S)": true, "attribute_type(n, :S)": false, "size(#n) > :two": true, "size(l) = :one": false, "size(tags) = :two": true, "size(n) > :zero": false,
		"NOT n = :one AND (n > :one)": true, "n = :s": false, "n <> :s": true, "gone = :one": false, "gone <> :one": true, "gone < :one": false,
		"gone = elsewhere": false, "#dot = :t": true, "nothing = :null": true, "not (n = :one or n = :two) and n <= :ten": true,
		"tags = :set": true, "(n) = :one": false, "((n = :one) OR n > :one) AND n > :one": true, "m.a = :one": true, "l[0] = m.a": true,
		"n between :one and :ten and attribute_exists(pk)": true, "a<:one": false, "n=:one or n<>:one": true,
	} {
		c, err := ParseCondition("ConditionExpression", src, placeholders())
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := c.Eval(thing); got != want {
			t.Errorf("%s = %v, want %v", src, got, want)
		}
		b := c.Append(nil)
		again, rest, err := DecodeCondition(append(b, 9))
		if err != nil || len(rest) != 1 || again.Eval(thing) != want || !bytes.Equal(again.Append(nil), b) {
			t.Errorf("%s: stored and read back: %v, %v", src, rest, err)
		}
	}
}

func TestBadConditionsAreRefusedWithTheServicesWords(t *testing.T) {
	for src, want := range map[string]string{
		"":                              "The expression can not be empty;",
		"n =":                           `Syntax error; token: "<EOF>", near: "="`,
		"n = :one garbage":              `Syntax error; token: "garbage", near: ":one garbage"`,
		"n == :one":                     `Syntax error; token: "=", near: "== :one"`,
		"status = :one":                 "Attribute name is a reserved keyword; reserved keyword: status",
		"m.Name = :one":                 "Attribute name is a reserved keyword; reserved keyword: Name",
		"#x = :one":                     "An expression attribute name used in the document path is not defined; attribute name: #x",
		"n = :y":                        "An expression attribute value used in expression is not defined; attribute value: :y",
		"begins_with(n, :one)":          "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N",
		"contains(n)":                   "Incorrect number of operands for operator or function; operator or function: contains, number of operands: 1",
		"foo(n)":                        "Invalid function name; function: foo",
		"if_not_exists(n, :one)":        "The function is not allowed in a condition expression; function: if_not_exists",
		"attribute_type(n, :bad)":       "Invalid attribute type name found; type: STRING, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}",
		"((n = :one))":                  "The expression has redundant parentheses;",
		"((n)) = :one":                  "The expression has redundant parentheses;",
		"n BETWEEN :ten AND :one":       "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:10}, upper bound operand: AttributeValue: {N:1}",
		"n BETWEEN :one AND :s":         "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {N:1}, upper bound operand: AttributeValue: {S:abc}",
		"n < :t":                        "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL",
		"n = n":                         "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [n]",
		"attribute_exists(:one)":        "Operator or function requires a document path; operator or function: attribute_exists",
		"n = :one AND":                  `Syntax error; token: "<EOF>", near: "AND"`,
		"$n = :one":                     `Syntax error; token: "$", near: "$n"`,
		strings.Repeat("n", MaxSize+1):  "Expression size has exceeded the maximum allowed size; expression size: 4097",
		strings.Repeat("(", 4000) + "n": "The expression is nested too deeply;",
	} {
		_, err := ParseCondition("ConditionExpression", src, placeholders())
		if want = "Invalid ConditionExpression: " + want; err == nil || err.Error() != want {
			t.Errorf("%.40s: %v\nwant %s", src, err, want)
		}
	}
}

func TestUpdatesGiveTheItemAndItsChanges(t *testing.T) {
	for _, c := range []struct {
		src  string
		path string
		want item.Value
		kind item.ChangeKind
	}{
		{"SET n = :ten", "n", num("10"), item.Assign},
		{"SET n = n + :two", "n", num("7"), item.Increment},
		{"SET n = n - :two", "n", num("3"), item.Increment},
		{"SET n = :two + n", "n", num("7"), item.Increment},
		{"SET n = :ten - n", "n", num("5"), item.Assign},
		{"SET fresh = if_not_exists(fresh, :zero) + :two", "fresh", num("2"), item.Increment},
		{"SET fresh = if_not_exists(fresh, :ten) + :two", "fresh", num("12"), item.Assign},
		{"SET n = if_not_exists(n, :ten) + :two", "n", num("7"), item.Increment},
		{"SET m.a = m.a + :one", "m.a", num("2"), item.Increment},
		{"SET q = n + :one", "q", num("6"), item.Assign},
		{"SET l = list_append(l, :list)", "l", item.L(num("1"), num("2"), item.M(f("deep", item.S("d"))), num("7")), item.Append},
		{"SET l = list_append(:list, l)", "l", item.L(num("7"), num("1"), num("2"), item.M(f("deep", item.S("d")))), item.Assign},
		{"SET fresh = list_append(if_not_exists(fresh, :empty), :list)", "fresh", item.L(num("7")), item.Append},
		{"SET l[1] = :ten", "l", item.L(num("1"), num("10"), item.M(f("deep", item.S("d")))), item.Assign},
		{"SET l[9] = :ten, l[8] = :two", "l", item.L(num("1"), num("2"), item.M(f("deep", item.S("d"))), num("2"), num("10")), item.Assign},
		{"SET l[2].deep = :one", "l", item.L(num("1"), num("2"), item.M(f("deep", num("1")))), item.Assign},
		{"REMOVE l[0], l[1]", "l", item.L(item.M(f("deep", item.S("d")))), item.Assign},
		{"REMOVE n", "n", item.Value{}, item.Assign},
		{"REMOVE m.b.c", "m", item.M(f("a", num("1")), f("b", item.M())), item.Assign},
		{"ADD n :two", "n", num("7"), item.Increment},
		{"ADD fresh :two", "fresh", num("2"), item.Increment},
		{"ADD tags :z", "tags", strSet("x", "y", "z"), item.AddElements},
		{"DELETE tags :x", "tags", strSet("y"), item.RemoveElements},
		{"DELETE tags :set", "tags", item.Value{}, item.RemoveElements},
		{"DELETE fresh :set", "fresh", item.Value{}, item.RemoveElements},
		{"SET m.b.z = :one", "m", item.M(f("a", num("1")), f("b", item.M(f("c", item.S("x")), f("z", num("1"))))), item.Assign},
		{"set n = :one remove tags add q :two", "n", num("1"), item.Assign},
	} {
		u, err := ParseUpdate(c.src, placeholders())
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		b := u.Append(nil)
		u, rest, err := DecodeUpdate(b)
		if err != nil || len(rest) > 0 || !bytes.Equal(u.Append(nil), b) {
			t.Fatalf("%s: stored and read back: %v, %v", c.src, rest, err)
		}
		got, changes, err := u.Apply(thing, true)
		if err != nil {
			t.Errorf("%s: %v", c.src, err)
			continue
		}
		if v := got.LookupKeys(strings.Split(c.path, ".")); !item.Equal(v, c.want) {
			t.Errorf("%s: %s = %v, want %v", c.src, c.path, v, c.want)
		}
		if changes[0].Kind != c.kind {
			t.Errorf("%s: change %v, want kind %d", c.src, changes[0], c.kind)
		}
		if changes[0].Kind == item.Assign && !item.Equal(got.LookupKeys(changes[0].Path), changes[0].Value) {
			t.Errorf("%s: assigns %v, the item has %v", c.src, changes[0], got.LookupKeys(changes[0].Path))
		}
	}
}

func TestBadUpdatesAreRefused(t *testing.T) {
	for src, want := range map[string]string{
		"SET n = :one, n = :two":          "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [n], path two: [n]",
		"SET m.a = :one REMOVE m":         "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [m, a], path two: [m]",
		"SET m.a = :one, m[0] = :two":     "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [m, a], path two: [m, [0]]",
		"SET n = :one SET q = :one":       `The "SET" section can only be used once in an update expression;`,
		"ADD n :s":                        "Incorrect operand type for operator or function; operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND",
		"DELETE n :one":                   "Incorrect operand type for operator or function; operator: DELETE, operand type: NUMBER, typeSet: ALLOWED_FOR_DELETE_OPERAND",
		"SET n = n + :s":                  "Incorrect operand type for operator or function; operator or function: +, operand type: S",
		"SET n = size(n)":                 "The function is not allowed in an update expression; function: size",
		"SET n = if_not_exists(:one, :s)": "Operator or function requires a document path; operator or function: if_not_exists",
		"n = :one":                        `Syntax error; token: "n", near: "n ="`,
		"SET":                             `Syntax error; token: "<EOF>", near: "SET"`,
		"REMOVE n :one":                   `Syntax error; token: ":one", near: "n :one"`,
	} {
		_, err := ParseUpdate(src, placeholders())
		if want = "Invalid UpdateExpression: " + want; err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", src, err, want)
		}
	}
	for src, want := range map[string]*Error{
		"SET q = gone":                   errNoAttribute,
		"SET q = gone + :one":            errNoAttribute,
		"SET #n = #n + :one":             ErrOperandType,
		"ADD #n :one":                    ErrOperandType,
		"ADD n :set":                     ErrOperandType,
		"SET gone.a = :one":              errPath,
		"SET n.a = :one":                 errPath,
		"SET l[9].a = :one":              errPath,
		"REMOVE gone.a":                  errPath,
		"SET q = list_append(n, :list)":  ErrOperandType,
		"SET m[0] = :one":                errPath,
		"DELETE n :set":                  ErrOperandType,
		"SET q = list_append(z1, :list)": errNoAttribute,
	} {
		u, err := ParseUpdate(src, placeholders())
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if _, _, err := u.Apply(thing, true); err != want {
			t.Errorf("%s: %v, want %v", src, err, want)
		}
	}
	// What an update makes is no deeper and no longer than an item may be.
	deep := item.L()
	for range maxPath - 2 { // with the list around them, and the attribute on the first level
		deep = item.L(deep)
	}
	ph := Given(nil, map[string]item.Value{":deep": deep, ":many": item.L(slices.Repeat([]item.Value{item.Null()}, 150000)...)})
	for src, want := range map[string]error{
		"SET q = :deep": nil, "SET m.a = :deep": nil, "SET m.b.c = :deep": errNesting, "SET l[2].deep = :deep": errNesting,
		"SET q = list_append(:many, :many)": nil, "SET q = list_append(:many, list_append(:many, :many))": errTooLarge, "SET a1 = :many, a2 = :many, a3 = :many": errTooLarge,
	} {
		u, err := ParseUpdate(src, &ph)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := u.Apply(thing, true); err != want {
			t.Errorf("%s: %v, want %v", src, err, want)
		}
	}
	u, err := ParseUpdate("REMOVE a.b", &Placeholders{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Apply(nil, false); err != nil {
		t.Errorf("REMOVE a.b on a missing item: %v", err)
	}
}

func TestProjectionGivesTheNamedParts(t *testing.T) {
	for src, want := range map[string]item.Item{
		"n, #n":            item.NewItem(f("n", num("5")), f("name", item.S("abcdef"))),
		"m.b":              item.NewItem(f("m", item.M(f("b", item.M(f("c", item.S("x"))))))),
		"m.b.c, m.a":       item.NewItem(f("m", item.M(f("a", num("1")), f("b", item.M(f("c", item.S("x"))))))),
		"l[1], l[0]":       item.NewItem(f("l", item.L(num("1"), num("2")))),
		"l[2].deep, l[7]":  item.NewItem(f("l", item.L(item.M(f("deep", item.S("d")))))),
		"gone, n.a, l.x":   nil,
		"#dot":             item.NewItem(f("a.b", item.Bool(true))),
		"pk, gone.m, l[8]": item.NewItem(f("pk", item.S("k"))),
	} {
		pr, err := ParseProjection(src, placeholders())
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got := pr.Apply(thing); !item.Equal(got.AsMap(), want.AsMap()) {
			t.Errorf("%s = %v, want %v", src, got, want)
		}
	}
	if _, err := ParseProjection("m, m.a", placeholders()); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("m, m.a: %v", err)
	}
}

func TestKeyConditionsBecomeTerms(t *testing.T) {
	for src, want := range map[string][]KeyTerm{
		"pk = :s":                               {{"pk", OpEQ, new(item.S("abc")), nil}},
		"pk = :s AND sk BETWEEN :one AND :two":  {{"pk", OpEQ, new(item.S("abc")), nil}, {"sk", OpBetween, new(num("1")), new(num("2"))}},
		"(pk = :s) AND (begins_with(sk, :ab))":  {{"pk", OpEQ, new(item.S("abc")), nil}, {"sk", OpBeginsWith, new(item.S("ab")), nil}},
		":one < sk AND :s = pk":                 {{"sk", OpGT, new(num("1")), nil}, {"pk", OpEQ, new(item.S("abc")), nil}},
		"pk = :s AND sk >= :one and #n = :zero": {{"pk", OpEQ, new(item.S("abc")), nil}, {"sk", OpGE, new(num("1")), nil}, {"name", OpEQ, new(num("0")), nil}},
	} {
		got, err := ParseKeyCondition(src, placeholders())
		if err != nil || !slices.EqualFunc(got, want, func(a, b KeyTerm) bool {
			return a.Name == b.Name && a.Op == b.Op && item.Equal(*a.A, *b.A) && (a.B == nil) == (b.B == nil) && (a.B == nil || item.Equal(*a.B, *b.B))
		}) {
			t.Errorf("%s: %v, %v", src, got, err)
		}
	}
	for _, src := range []string{"pk <> :s", "pk = :s OR sk = :s", "NOT pk = :s", "pk IN (:s)", "pk = :s AND pk = :one", "m.a = :one", "size(pk) = :one", "pk = sk", "contains(pk, :s)"} {
		if _, err := ParseKeyCondition(src, placeholders()); err == nil {
			t.Errorf("%s is taken", src)
		}
	}
}

func TestUnusedPlaceholdersAreRefused(t *testing.T) {
	given := Given(map[string]string{"#a": "a", "#b": "b"}, map[string]item.Value{":v": num("1")})
	ph := &given
	if _, err := ParseCondition("ConditionExpression", "#a = :v", ph); err != nil {
		t.Fatal(err)
	}
	if err := ph.CheckUsed(); err == nil || err.Error() != "Value provided in ExpressionAttributeNames unused in expressions: keys: {#b}" {
		t.Errorf("CheckUsed: %v", err)
	}
}

func TestReservedWordsAreAllThere(t *testing.T) {
	if len(reserved) != 573 {
		t.Errorf("%d reserved words, want 573", len(reserved))
	}
	if !Reserved("status") || !Reserved("ABORT") || Reserved("visits") {
		t.Error("status, ABORT are reserved, visits is not")
	}
}

// FuzzExpressions: whatever is written, parsing and evaluating end, with the service's own errors; and what is
// taken can be stored and read back.
func FuzzExpressions(fz *testing.F) {
	fz.Add("SET a = a + :one REMOVE l[0]", "NOT (a = :one) AND size(b) > :two OR c IN (:s)")
	fz.Add("SET m.b = if_not_exists(#n, :zero) - (:one), l[1] = list_append(l, :list) ADD n :two DELETE tags :x", "((n) = :one) and (contains(tags, :xs) or not n between :one and :ten)")
	fz.Add("set _a = :nope, a = :one, a[0] = :one", "((a = a)) AND foo(status, #x) = :nope")
	fz.Add("REMOVE a.b[0].c, #dot", "pk = :s AND begins_with(sk, :ab)")
	fz.Fuzz(func(t *testing.T, update, condition string) {
		ours := func(source string, err error) {
			if e := (*Error)(nil); err != nil && !errors.As(err, &e) {
				t.Fatalf("%q: %T %v", source, err, err)
			}
		}
		u, err := ParseUpdate(update, placeholders())
		ours(update, err)
		if err == nil {
			_, _, err = u.Apply(thing, true)
			ours(update, err)
			b := u.Append(nil)
			if again, rest, err := DecodeUpdate(b); err != nil || len(rest) > 0 || !bytes.Equal(again.Append(nil), b) {
				t.Fatalf("%q: stored and read back: %x, %v", update, rest, err)
			}
		}
		c, err := ParseCondition("FilterExpression", condition, placeholders())
		ours(condition, err)
		if err == nil {
			holds := c.Eval(thing)
			again, rest, err := DecodeCondition(c.Append(nil))
			if err != nil || len(rest) > 0 || again.Eval(thing) != holds {
				t.Fatalf("%q: stored and read back: %x, %v", condition, rest, err)
			}
		}
		_, err = ParseKeyCondition(condition, placeholders())
		ours(condition, err)
		p, err := ParseProjection(condition, placeholders())
		ours(condition, err)
		if err == nil {
			p.Apply(thing)
		}
	})
}

func FuzzDecodeExpressions(fz *testing.F) {
	u, _ := ParseUpdate("SET a = if_not_exists(a, :zero) + :one, l[1] = :s REMOVE n ADD tags :z", placeholders())
	fz.Add(u.Append(nil))
	c, _ := ParseCondition("c", "NOT (a = :one) AND size(b) > :two OR c IN (:s)", placeholders())
	fz.Add(c.Append(nil))
	fz.Fuzz(func(t *testing.T, b []byte) {
		if u, _, err := DecodeUpdate(b); err == nil {
			u.Apply(thing, true)
		}
		if c, _, err := DecodeCondition(b); err == nil {
			c.Eval(thing)
		}
	})
}
