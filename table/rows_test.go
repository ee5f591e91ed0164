package table

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/item"
)

// Goal: index rows are a function of the items alone. Method: random items replace each other; the rows
// kept by applying Rows to a map must equal those made from scratch, whatever the way there.

var indexed = Schema{
	Name: "t", Hash: Attribute{"pk", item.KindS}, Range: Attribute{"sk", item.KindN},
	Indexes: []Index{
		{ID: 1, Name: "local-all", Hash: []Attribute{{"pk", item.KindS}}, Range: []Attribute{{"a", item.KindS}}, Projection: ProjectAll},
		{ID: 2, Name: "local-include", Hash: []Attribute{{"pk", item.KindS}}, Range: []Attribute{{"n", item.KindN}}, Projection: ProjectInclude, Include: []string{"x"}},
		{ID: 3, Name: "global-keys", Global: true, Hash: []Attribute{{"a", item.KindS}}, Projection: ProjectKeys, Include: []string{"y"}},
		{ID: 4, Name: "global-many", Global: true, Hash: []Attribute{{"a", item.KindS}, {"b", item.KindB}}, Range: []Attribute{{"n", item.KindN}, {"c", item.KindS}}, Projection: ProjectInclude, Include: []string{"x", "y"}},
		{ID: 9, Name: "global-by-sort-key", Global: true, Hash: []Attribute{{"sk", item.KindN}}, Range: []Attribute{{"pk", item.KindS}}, Projection: ProjectKeys},
	},
}

func maybe(t *rapid.T, it item.Item, name string, values ...item.Value) item.Item {
	if i := rapid.IntRange(-1, len(values)-1).Draw(t, name); i >= 0 {
		return it.With(name, values[i])
	}
	return it
}

func indexedItem(t *rapid.T) item.Item {
	one, two := item.N(item.NumberFromInt(1)), item.N(item.NumberFromInt(2))
	it := item.NewItem(item.Field{Name: "pk", Value: item.S(rapid.SampledFrom([]string{"p", "q"}).Draw(t, "pk"))},
		item.Field{Name: "sk", Value: rapid.SampledFrom([]item.Value{one, two}).Draw(t, "sk")})
	it = maybe(t, it, "a", item.S("a1"), item.S("a2"), item.S(""), one)
	it = maybe(t, it, "b", item.B("b1"), item.B("\x00"), item.S("b1"))
	it = maybe(t, it, "c", item.S("c1"), item.S("c2"))
	it = maybe(t, it, "n", one, two, item.Null())
	it = maybe(t, it, "x", item.L(one), two)
	it = maybe(t, it, "y", item.S("y"))
	return maybe(t, it, "z", item.S("z"), item.Bool(false))
}

func rowName(index uint32, key Key) string { return fmt.Sprintf("%d/%x", index, []byte(key)) }

// fromScratch makes an item's rows by the rule itself: each index whose attributes are all there, with the
// values they name, has one row with the attributes it projects.
func fromScratch(s *Schema, rows map[string]string, key Key, stored []byte) {
	it, err := item.DecodeItem(stored)
	if err != nil {
		panic(err)
	}
	for i := range s.Indexes {
		x := &s.Indexes[i]
		whole := true
		names := s.KeyNames()
		var hash []item.Value
		row := Key{}
		for j, a := range x.KeyAttributes() {
			v := it.Get(a.Name)
			whole = whole && v.Kind() == a.Kind && (a.Kind == item.KindN || v.Str() != "")
			if !whole {
				break
			}
			names = append(names, a.Name)
			if j < len(x.Hash) {
				hash = append(hash, v)
				continue
			}
			row = v.AppendOrdered(row)
		}
		if !whole {
			continue
		}
		if x.Projection == ProjectInclude {
			names = append(names, x.Include...)
		}
		row = append(append(HashKey(hash...), row...), key[HashSize:]...)
		var kept []item.Field
		for _, f := range it {
			if x.Projection == ProjectAll || slices.Contains(names, f.Name) {
				kept = append(kept, f)
			}
		}
		rows[rowName(x.ID, row)] = string(item.AppendItem(nil, item.NewItem(kept...)))
	}
}

func TestIndexRowsFollowTheItems(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &indexed
		items := map[string][]byte{}
		rows := map[string]string{}
		for range rapid.IntRange(1, 20).Draw(t, "writes") {
			stored := item.AppendItem(nil, indexedItem(t))
			key, err := s.KeyOf(stored)
			if err != nil {
				t.Fatal(err)
			}
			old := items[string(key)]
			if old != nil && rapid.IntRange(0, 3).Draw(t, "deletes") == 0 {
				stored = nil
			}
			seen := map[string]bool{}
			for _, row := range s.Rows(nil, key, old, stored) {
				name := rowName(row.Index, row.Key)
				if seen[name] {
					t.Fatalf("row %s is written twice", name)
				}
				seen[name] = true
				was, there := rows[name]
				switch {
				case row.Item == nil && !there:
					t.Fatalf("row %s goes and was not there", name)
				case row.Item == nil:
					delete(rows, name)
				case there && was == string(row.Item):
					t.Fatalf("row %s is written and has not changed", name)
				default:
					rows[name] = string(row.Item)
				}
			}
			if items[string(key)] = stored; stored == nil {
				delete(items, string(key))
			}
			want := map[string]string{}
			for key, stored := range items {
				fromScratch(s, want, Key(key), stored)
			}
			if !maps.Equal(rows, want) {
				t.Fatalf("rows\n%q\nwant\n%q", rows, want)
			}
		}
	})
}

func TestRowsAppendAndLeaveAnUnchangedItemAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored := item.AppendItem(nil, indexedItem(t))
		key, err := indexed.KeyOf(stored)
		if err != nil {
			t.Fatal(err)
		}
		before := []Row{{Index: 77}}
		if rows := indexed.Rows(before, key, stored, slices.Clone(stored)); len(rows) != 1 || rows[0].Index != 77 {
			t.Fatalf("rows of an item that stays: %v", rows)
		}
		if rows := indexed.Rows(nil, key, nil, nil); len(rows) != 0 {
			t.Fatalf("rows of no item: %v", rows)
		}
	})
}

func TestAnIndexProjectsWhatItSays(t *testing.T) {
	for index, want := range map[string]string{
		"local-all": "pk sk a n b c x y z", "local-include": "pk sk n x", "global-keys": "pk sk a",
		"global-many": "pk sk a b n c x y", "global-by-sort-key": "pk sk",
	} {
		x := indexed.Index(index)
		for _, name := range []string{"pk", "sk", "a", "b", "c", "n", "x", "y", "z"} {
			wanted := false
			for _, w := range strings.Fields(want) {
				wanted = wanted || w == name
			}
			if got := indexed.Projects(x, name); got != wanted {
				t.Errorf("index %s projects %s: %v", index, name, got)
			}
		}
	}
}

func TestDefinedAttributesAreThereOnce(t *testing.T) {
	want := []Attribute{{"pk", item.KindS}, {"sk", item.KindN}, {"a", item.KindS}, {"n", item.KindN}, {"b", item.KindB}, {"c", item.KindS}}
	if got := indexed.Defined(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := indexed.NextIndexID(); got != 10 {
		t.Errorf("the next index is %d", got)
	}
	if got := (&Schema{}).NextIndexID(); got != 1 {
		t.Errorf("the first index is %d", got)
	}
}
