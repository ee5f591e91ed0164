package table

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/item"
)

// Goal: a key and the item it was had from agree in every direction, and keys sort as their values do.

func number(t *rapid.T, label string) item.Value {
	n, err := item.ParseNumber(rapid.StringMatching(`-?[0-9]{1,12}(\.[0-9]{1,6})?(e-?[0-9]{1,2})?`).Draw(t, label))
	if err != nil {
		t.Fatal(err)
	}
	return item.N(n)
}

func keyValue(t *rapid.T, kind item.Kind, label string) item.Value {
	switch kind {
	case item.KindN:
		return number(t, label)
	case item.KindS:
		// Few letters, zero bytes among them: what is ordered must be escaped.
		return item.S(rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00\x01ü")), 1, 8, -1).Draw(t, label))
	}
	return item.B(string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xfe, 0xff}), 1, 8).Draw(t, label)))
}

func keyed(t *rapid.T) *Schema {
	kind := rapid.SampledFrom([]item.Kind{item.KindS, item.KindN, item.KindB})
	s := &Schema{Name: "t", Hash: Attribute{"pk", kind.Draw(t, "hash kind")}}
	if rapid.Bool().Draw(t, "has a sort key") {
		s.Range = Attribute{"sk", kind.Draw(t, "range kind")}
	}
	return s
}

func TestAKeyAndItsItemAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := keyed(t)
		pk, sk := keyValue(t, s.Hash.Kind, "pk"), item.Value{}
		it := item.NewItem(item.Field{Name: "pk", Value: pk}, item.Field{Name: "other", Value: item.Bool(true)})
		if s.HasRange() {
			sk = keyValue(t, s.Range.Kind, "sk")
			it = it.With("sk", sk)
		}
		key, err := s.KeyOf(item.AppendItem(nil, it))
		if err != nil {
			t.Fatal(err)
		}
		if again := s.KeyOfValues(pk, sk); !bytes.Equal(key, again) {
			t.Fatalf("KeyOf %x, KeyOfValues %x", key, again)
		}
		if prefix := HashKey(pk); !bytes.HasPrefix(key, prefix) {
			t.Fatalf("key %x does not begin with HashKey %x", key, prefix)
		}
		values, err := s.Values(key)
		if err != nil || !item.Equal(values.Partition, pk) || !item.Equal(values.Sort, sk) {
			t.Fatalf("Values = %v, %v; want %v, %v", values, err, pk, sk)
		}
		alone, err := s.KeyItem(key)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.KeyOf(alone); err != nil || !bytes.Equal(again, key) {
			t.Fatalf("the key of KeyItem is %x, %v; want %x", again, err, key)
		}
		tree, err := item.DecodeItem(alone)
		if err != nil || len(tree) != len(s.KeyNames()) {
			t.Fatalf("KeyItem = %v, %v; want the attributes %v", tree, err, s.KeyNames())
		}
	})
}

func TestKeysOfOnePartitionSortAsTheirSortKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := keyed(t)
		if !s.HasRange() {
			s.Range = Attribute{"sk", item.KindN}
		}
		pk := keyValue(t, s.Hash.Kind, "pk")
		a, b := keyValue(t, s.Range.Kind, "a"), keyValue(t, s.Range.Kind, "b")
		if got, want := bytes.Compare(s.KeyOfValues(pk, a), s.KeyOfValues(pk, b)), item.Compare(a, b); got != want {
			t.Fatalf("keys of %v and %v compare %d, the values %d", a, b, got, want)
		}
	})
}

func TestTheNextKeysAreTheLeastBeyond(t *testing.T) {
	k := Key{1, 0xFF, 0xFF}
	if got := k.AfterPrefix(); !bytes.Equal(got, Key{2}) {
		t.Errorf("behind all that begin with %x: %x", k, got)
	}
	if got := (Key{0xFF, 0xFF}).AfterPrefix(); got != nil {
		t.Errorf("behind all that begin with FFFF: %x", got)
	}
	if got := k.After(); !bytes.Equal(got, Key{1, 0xFF, 0xFF, 0}) || len(k) != 3 {
		t.Errorf("behind %x: %x", k, got)
	}
}

func TestBytesOfNoKeyAreRefused(t *testing.T) {
	s := &Schema{Hash: Attribute{"pk", item.KindS}, Range: Attribute{"sk", item.KindN}}
	key := s.KeyOfValues(item.S("a"), item.N(item.NumberFromInt(7)))
	for _, b := range []Key{nil, key[:HashSize-1], key[:HashSize], key[:len(key)-1], append(slices.Clone(key), 0)} {
		if v, err := s.Values(b); err == nil {
			t.Errorf("Values(%x) = %v", b, v)
		}
		if it, err := s.KeyItem(b); err == nil {
			t.Errorf("KeyItem(%x) = %x", b, it)
		}
	}
}

func TestItemsWithoutAKeyAreRefusedWithTheServicesWords(t *testing.T) {
	const invalid = "One or more parameter values were invalid: "
	s := &Schema{Hash: Attribute{"pk", item.KindS}, Range: Attribute{"sk", item.KindB}}
	sk := item.Field{Name: "sk", Value: item.B("x")}
	pk := item.Field{Name: "pk", Value: item.S("x")}
	for _, c := range []struct {
		it   item.Item
		want string
	}{
		{item.NewItem(sk), invalid + "Missing the key pk in the item"},
		{item.NewItem(pk), invalid + "Missing the key sk in the item"},
		{item.NewItem(sk, item.Field{Name: "pk", Value: item.N(item.NumberFromInt(1))}), invalid + "Type mismatch for key pk expected: S actual: N"},
		{item.NewItem(pk, item.Field{Name: "sk", Value: item.Null()}), invalid + "Type mismatch for key sk expected: B actual: NULL"},
		{item.NewItem(sk, item.Field{Name: "pk", Value: item.S("")}), "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk"},
		{item.NewItem(pk, item.Field{Name: "sk", Value: item.B("")}), "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty binary value. Key: sk"},
		{item.NewItem(sk, item.Field{Name: "pk", Value: item.S(strings.Repeat("x", MaxPartitionKey+1))}), invalid + "Size of hashkey has exceeded the maximum size limit of2048 bytes"},
		{item.NewItem(pk, item.Field{Name: "sk", Value: item.B(strings.Repeat("x", MaxSortKey+1))}), invalid + "Aggregated size of all range keys has exceeded the size limit of 1024 bytes"},
		{item.NewItem(item.Field{Name: "pk", Value: item.S(strings.Repeat("x", MaxPartitionKey))}, item.Field{Name: "sk", Value: item.B(strings.Repeat("x", MaxSortKey))}), ""},
	} {
		_, err := s.KeyOf(item.AppendItem(nil, c.it))
		var refused *KeyError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("the longest keys are refused: %v", err)
		case c.want != "" && (!errors.As(err, &refused) || refused.Error() != c.want):
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestAnItemThatNoIndexRowCanCarryIsRefused(t *testing.T) {
	s := &Schema{Hash: Attribute{"pk", item.KindS}, Indexes: []Index{
		{Name: "local", Hash: []Attribute{{"pk", item.KindS}}, Range: []Attribute{{"when", item.KindN}}},
		{Name: "global", Global: true, Hash: []Attribute{{"a", item.KindS}, {"b", item.KindB}}, Range: []Attribute{{"c", item.KindS}}},
	}}
	const prefix = "One or more parameter values were invalid: "
	const empty = "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty "
	for _, c := range []struct {
		name  string
		value item.Value
		want  string
	}{
		{"other", item.S(""), ""},
		{"when", item.N(item.NumberFromInt(0)), ""},
		{"a", item.S(strings.Repeat("x", MaxPartitionKey)), ""},
		{"when", item.S("now"), prefix + "Type mismatch for Index Key when Expected: N Actual: S IndexName: local"},
		{"b", item.Bool(true), prefix + "Type mismatch for Index Key b Expected: B Actual: BOOL IndexName: global"},
		{"a", item.S(""), empty + "string value. IndexName: global, IndexKey: a"},
		{"b", item.B(""), empty + "binary value. IndexName: global, IndexKey: b"},
		{"a", item.S(strings.Repeat("x", MaxPartitionKey+1)), prefix + "Size of index key a has exceeded the maximum size limit of 2048 bytes; IndexName: global"},
		{"c", item.S(strings.Repeat("x", MaxSortKey+1)), prefix + "Size of index key c has exceeded the maximum size limit of 1024 bytes; IndexName: global"},
	} {
		stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("k")}, item.Field{Name: c.name, Value: c.value}))
		err := s.CheckIndexKeys(nil, stored)
		var refused *KeyError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &refused) || refused.Message != c.want) {
			t.Errorf("%s: got  %v\nwant %s", c.name, err, c.want)
		}
		// An item that had it before the index came may be written beside it.
		if err := s.CheckIndexKeys(stored, stored); err != nil {
			t.Errorf("%s, as it was: %v", c.name, err)
		}
		// What is refused of a client has no row when it comes from a merge, and no other index suffers.
		key, _ := s.KeyOf(stored)
		for i := range s.Indexes {
			if row := s.RowKey(&s.Indexes[i], key, stored); row != nil && s.Indexes[i].Name == "global" {
				t.Errorf("%s: a row of the global index: %x", c.name, row)
			}
		}
	}
}
