package op

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// Goal: a command read back from a Raft log does what the proposed one would have done. Method: random
// commands of every kind go through their bytes; what comes back must be equal and have the same bytes.

var placeholders = expr.Given(
	map[string]string{"#n": "name with spaces"},
	map[string]item.Value{
		":n": item.N(item.NumberFromInt(-17)), ":s": item.S("x"), ":b": item.B("\x00\xff"), ":set": item.NewSet(item.KindSS, []item.Value{item.S("a")}),
		":m": item.M(item.Field{Name: "k", Value: item.L(item.Null(), item.Bool(true))}),
	},
)

func conditions(t *rapid.T) *expr.Condition {
	source := rapid.SampledFrom([]string{
		"", "attribute_not_exists(pk)", "a.b[3].c = :n AND NOT #n <> :s", "size(l) BETWEEN :n AND :n OR contains(#n, :b)",
		"a IN (:n, :s, :m) AND begins_with(b, :s)",
	}).Draw(t, "condition")
	if source == "" {
		return nil
	}
	c, err := expr.ParseCondition("ConditionExpression", source, &placeholders)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func updates(t *rapid.T) *expr.Update {
	source := rapid.SampledFrom([]string{
		"SET a = :n", "SET a.b = if_not_exists(c, :m), l[2] = d - :n REMOVE #n, x.y", "ADD visits :n, tags :set DELETE former :set",
		"SET l = list_append(l, extra)",
	}).Draw(t, "update")
	u, err := expr.ParseUpdate(source, &placeholders)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var kinds = []Kind{Put, Update, Delete, Expire, Merge, Restore, Fold, Alter, Catalog, Reindex, Rebase, Mend, Forget, Split, Prune, Close, Reopen, Absorb, Recall, Audit, Held}

func commands(t *rapid.T) *Command {
	some := rapid.SliceOfN(rapid.Byte(), 1, 40)
	hlc := rapid.Map(rapid.Uint64(), func(u uint64) crdt.HLC { return crdt.HLC(u) })
	c := &Command{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), HLC: hlc.Draw(t, "hlc")}
	switch c.Kind {
	case Put:
		c.Condition, c.Key, c.Item = conditions(t), some.Draw(t, "key"), some.Draw(t, "item")
	case Update:
		c.Condition, c.Key, c.Update = conditions(t), some.Draw(t, "key"), updates(t)
	case Delete, Expire:
		c.Condition, c.Key = conditions(t), some.Draw(t, "key")
	case Merge, Mend, Restore, Held:
		c.Source = Cursor{Stream: rapid.String().Draw(t, "stream"), Seq: rapid.Uint64().Draw(t, "seq"), Clock: hlc.Draw(t, "clock"), Incarnation: rapid.Uint16().Draw(t, "incarnation"), Part: rapid.Bool().Draw(t, "part")}
		if rapid.Bool().Draw(t, "copied") {
			c.Source.Place = some.Draw(t, "place")
		}
		c.Observe = hlc.Draw(t, "observe")
		for range rapid.IntRange(0, 4).Draw(t, "deltas") {
			c.Deltas = append(c.Deltas, Delta{some.Draw(t, "key"), some.Draw(t, "state")})
		}
	case Forget:
		c.Stable, c.Key, c.Limit = hlc.Draw(t, "stable"), some.Draw(t, "key"), rapid.IntRange(0, 1<<40).Draw(t, "limit")
	case Split:
		c.Key, c.Child, c.Limit = some.Draw(t, "key"), rapid.Uint64().Draw(t, "child"), rapid.IntRange(0, 1<<40).Draw(t, "limit")
	case Prune:
		c.Limit = rapid.IntRange(0, 1<<40).Draw(t, "limit")
	case Close, Reopen:
		c.Attempt = rapid.Uint64().Draw(t, "attempt")
	case Absorb:
		c.Key, c.Child, c.Attempt, c.Value = some.Draw(t, "key"), rapid.Uint64().Draw(t, "child"), rapid.Uint64().Draw(t, "attempt"), some.Draw(t, "given")
	case Recall:
		for range rapid.IntRange(0, 4).Draw(t, "records") {
			c.Deltas = append(c.Deltas, Delta{some.Draw(t, "key"), some.Draw(t, "state")})
		}
	case Rebase:
		c.Lost = crdt.Dot{HLC: hlc.Draw(t, "lost"), Actor: crdt.Actor(rapid.Uint32().Draw(t, "actor"))}
		for range rapid.IntRange(0, 4).Draw(t, "deltas") {
			c.Deltas = append(c.Deltas, Delta{some.Draw(t, "key"), some.Draw(t, "state")})
		}
	case Fold:
		c.Stable, c.Trim, c.Limit = hlc.Draw(t, "stable"), rapid.Uint64().Draw(t, "trim"), rapid.IntRange(0, 1<<40).Draw(t, "limit")
	case Reindex:
		c.Key, c.Index, c.Limit = some.Draw(t, "key"), rapid.Uint32().Draw(t, "index"), rapid.IntRange(0, 1<<40).Draw(t, "limit")
	case Alter:
		c.Revision = rapid.Uint64().Draw(t, "revision")
		c.Schema = &table.Schema{
			Name: rapid.StringMatching("[a-z]{3,9}").Draw(t, "table"), Hash: table.Attribute{Name: "pk", Kind: item.KindB},
			Range: table.Attribute{Name: "sk", Kind: item.KindN}, Solo: rapid.Bool().Draw(t, "solo"),
			Modes: table.Modes{Table: table.LastWriterWins, Attributes: []table.AttributeMode{{Name: "n", Mode: table.Merge}}},
			Indexes: []table.Index{{
				ID: rapid.Uint32().Draw(t, "id"), Name: "x", Global: true, Hash: []table.Attribute{{Name: "a", Kind: item.KindS}},
				Projection: table.ProjectInclude, Include: []string{"b", "c"}, Backfilling: true, Throughput: table.Throughput{Read: 1, Write: 2},
			}},
		}
	case Audit:
		if rapid.Bool().Draw(t, "said") {
			c.Node, c.At, c.Value = rapid.Uint64().Draw(t, "node"), rapid.Uint64().Draw(t, "entry"), some.Draw(t, "digest")
		}
	case Catalog:
		c.Name, c.Expect = rapid.String().Draw(t, "name"), rapid.Uint64().Draw(t, "expect")
		if rapid.Bool().Draw(t, "has a value") {
			c.Value = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")
		}
	}
	return c
}

func TestCommandsComeBackFromTheirBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := commands(t)
		encoded := c.Append([]byte("before"))
		if !bytes.HasPrefix(encoded, []byte("before")) {
			t.Fatalf("Append does not append: %q", encoded)
		}
		encoded = encoded[len("before"):]
		got, err := Decode(encoded)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if again := got.Append(nil); !bytes.Equal(again, encoded) {
			t.Fatalf("kind %d: read back and written again:\n%x\nwas\n%x", c.Kind, again, encoded)
		}
		if !reflect.DeepEqual(got, c) {
			t.Fatalf("got %+v\nwant %+v", got, c)
		}
	})
}

func TestEveryKindHasBytes(t *testing.T) {
	for kind := Kind(1); kind <= Reindex; kind++ {
		c := &Command{Kind: kind, Update: &expr.Update{}, Schema: &table.Schema{}}
		got, err := Decode(c.Append(nil))
		if err != nil || got.Kind != kind {
			t.Errorf("kind %d: %+v, %v", kind, got, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a command of no kind was written")
		}
	}()
	(&Command{}).Append(nil)
}

func TestSetHLCChangesTheStampAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := commands(t)
		encoded := c.Append(nil)
		c.HLC = crdt.HLC(rapid.Uint64().Draw(t, "new"))
		SetHLC(encoded, c.HLC)
		if want := c.Append(nil); !bytes.Equal(encoded, want) {
			t.Fatalf("got %x, want %x", encoded, want)
		}
	})
}

func TestCutOrLengthenedCommandsAreRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := commands(t)
		switch c.Kind {
		case Put, Catalog: // their last part goes to the end, whatever its length
			return
		}
		encoded := c.Append(nil)
		if got, err := Decode(append(encoded, '!')); err == nil {
			t.Fatalf("with a byte more: %+v", got)
		}
		cut := rapid.IntRange(0, len(encoded)-1).Draw(t, "cut")
		if c.Kind == Audit && cut == hlcAt+8 {
			return // what is left says that an audit is to begin
		}
		if got, err := Decode(encoded[:cut]); err == nil {
			t.Fatalf("cut at %d of %d: %+v", cut, len(encoded), got)
		}
	})
}

func TestBytesOfNoCommandAreRefused(t *testing.T) {
	head := func(kind Kind, rest ...byte) []byte {
		return append(append([]byte{byte(kind)}, make([]byte, 8)...), rest...)
	}
	for name, b := range map[string][]byte{
		"nothing":                        nil,
		"a head cut short":               {byte(Put), 0, 0},
		"kind 0":                         head(0),
		"an unknown kind":                head(Reindex + 1),
		"no condition flag":              head(Put),
		"a condition flag of 2":          head(Delete, 2, 0),
		"a key longer than the rest":     head(Delete, 0, 9, 'x'),
		"a length that overflows":        head(Delete, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"more deltas than there are":     head(Merge, 0, 0, 0, 0xff, 0xff, 0x7f, 1, 'k', 1, 'v'),
		"a schema that is none":          head(Alter, '{'),
		"a revision that is none":        head(Alter, 1, 0, '{', '}'),
		"a revision that is cut short":   head(Alter, 1, 0x80),
		"a catalog row without value":    head(Catalog, 1, 'n', 0),
		"a catalog row's flag, unknown":  head(Catalog, 1, 'n', 0, 2),
		"a deleted catalog row's tail":   head(Catalog, 1, 'n', 0, 0, 'x'),
		"an index id beyond 32 bits":     head(Reindex, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 1),
		"a digest of nobody":             head(Audit, 1),
		"an update that is no such tree": head(Update, 0, 1, 'k', 1, 0xff),
	} {
		if c, err := Decode(b); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func FuzzDecode(f *testing.F) {
	seed := rapid.Custom(func(t *rapid.T) []byte { return commands(t).Append(nil) })
	for i := range 30 {
		f.Add(seed.Example(i))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		// Lengths may have been written longer than need be: from the first writing on, the bytes stand.
		first := c.Append(nil)
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("written again and refused: %v", err)
		}
		if second := again.Append(nil); !bytes.Equal(first, second) {
			t.Fatalf("got %x, want %x", second, first)
		}
	})
}
