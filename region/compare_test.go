package region

import (
	"testing"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// Goal: a copy that lacks what another has is told from one that does not, folded or not. Method: one history of an item, of
// which copies have applied some writes.
func TestACopyIsHeldAgainstAnothers(t *testing.T) {
	east, west := crdt.NewActor("us-east-1", 1), crdt.NewActor("eu-west-1", 1)
	schema := &table.Schema{Name: "t", Hash: table.Attribute{Name: "pk", Kind: item.KindS}}
	key := schema.KeyOfValues(item.S("k"), item.Value{})
	stored := func(fields ...item.Field) []byte {
		return item.AppendItem(nil, item.NewItem(append(fields, item.Field{Name: "pk", Value: item.S("k")})...))
	}
	set := func(attr string) crdt.Write {
		return crdt.Write{Origin: crdt.Origin{Op: crdt.Update}, Changes: []item.Change{{Kind: item.Assign, Path: []string{attr}, Value: item.S("x")}}}
	}
	// The writes, in order, each by somebody who had seen those before it.
	var whole crdt.Record
	var deltas []*crdt.Record
	write := func(at crdt.HLC, by crdt.Actor, w crdt.Write, shown []byte) {
		w.Dot, w.Item = crdt.Dot{HLC: at, Actor: by}, shown
		delta, err := crdt.Decode(whole.Write(w).Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		deltas = append(deltas, delta)
	}
	a, b, c := item.Field{Name: "a", Value: item.S("x")}, item.Field{Name: "b", Value: item.S("x")}, item.Field{Name: "c", Value: item.S("x")}
	write(10, east, crdt.Write{Origin: crdt.Origin{Op: crdt.Put}}, stored())
	write(20, west, set("a"), stored(a))
	write(30, east, set("b"), stored(a, b))
	write(40, west, set("c"), stored(a, b, c))
	write(50, east, crdt.Write{Origin: crdt.Origin{Op: crdt.Delete}}, nil)
	// copyOf has applied those writes and folded at stable.
	copyOf := func(stable crdt.HLC, applied ...int) []byte {
		var r crdt.Record
		for _, i := range applied {
			r.Join(deltas[i])
		}
		r.ShowKey("pk", func() []byte { return stored() })
		if len(applied) == 0 || r.Fold(stable) {
			return nil
		}
		return r.Append(nil)
	}
	for name, d := range map[string]struct {
		own, theirs []byte
		stable      crdt.HLC // what is older is also older than traces are kept, but where it is said
		want        Difference
	}{
		"both the same":                             {copyOf(0, 0, 1), copyOf(0, 0, 1), 0, Same},
		"folded there":                              {copyOf(0, 0, 1), copyOf(20, 0, 1), 0, Same},
		"folded here":                               {copyOf(20, 0, 1), copyOf(0, 0, 1), 20, Same},
		"newer here":                                {copyOf(0, 0, 1, 2), copyOf(0, 0, 1), 0, Same},
		"newer here, and folded":                    {copyOf(30, 0, 1, 2), copyOf(20, 0, 1), 30, Same},
		"nothing there":                             {copyOf(0, 0), nil, 0, Same},
		"deleted there and nothing here":            {nil, copyOf(0, 0, 1, 2, 3, 4), 0, Same},
		"older here":                                {copyOf(0, 0), copyOf(0, 0, 1), 0, Behind},
		"older here, all folded":                    {copyOf(20, 0, 1), copyOf(30, 0, 1, 2), 20, Behind},
		"deleted there":                             {copyOf(40, 0, 1, 2, 3), copyOf(0, 0, 1, 2, 3, 4), 40, Behind},
		"an older write is missing here":            {copyOf(0, 0, 1, 3), copyOf(0, 0, 1, 2, 3), 0, Behind},
		"an older write is missing there":           {copyOf(0, 0, 1, 2, 3), copyOf(0, 0, 1, 3), 0, Same},
		"nothing here":                              {nil, copyOf(0, 0, 1), 19, Behind},
		"nothing here, or folded away":              {nil, copyOf(20, 0, 1), 20, Gone},
		"a write is missing there, beneath another": {copyOf(0, 0, 1, 2, 3), copyOf(0, 0, 2, 3), 0, Same},
		"a write is missing here, beneath another":  {copyOf(0, 0, 2, 3), copyOf(0, 0, 1, 2, 3), 0, Behind},
		"one lacks a write, both have folded":       {copyOf(40, 0, 1, 2, 3), copyOf(40, 0, 2, 3), 40, Unlike},
		"one lacks a write, the other has folded":   {copyOf(0, 0, 1, 2, 3), copyOf(40, 0, 2, 3), 0, Unlike},
		"the other lacks one, and has folded older": {copyOf(0, 0, 1, 2, 3), copyOf(30, 0, 2), 0, Unlike},
	} {
		got, err := Compare(schema, key, Held{Record: d.own, Stable: d.stable, Traced: d.stable}, d.theirs)
		if err != nil || got != d.want {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, d.want)
		}
	}
	for name, d := range map[string]struct {
		own    Held
		theirs []byte
		want   Difference
	}{
		"lost here":                            {Held{Stable: 40, Traced: 19}, copyOf(20, 0, 1), Behind},
		"lost here, and older than traces are": {Held{Stable: 40, Traced: 20}, copyOf(20, 0, 1), Gone},
		"lost here, deleted before":            {Held{Stable: 40, Deleted: crdt.Dot{HLC: 5, Actor: east}}, copyOf(20, 0, 1), Behind},
		"deleted here":                         {Held{Stable: 60, Deleted: crdt.Dot{HLC: 50, Actor: east}}, copyOf(40, 0, 1, 2, 3), Same},
		"deleted here, and traces go":          {Held{Stable: 60, Traced: 45, Deleted: crdt.Dot{HLC: 50, Actor: east}}, copyOf(40, 0, 1, 2, 3), Same},
		"deleted there":                        {Held{Record: copyOf(40, 0, 1, 2, 3), Stable: 60}, crdt.AppendDeleted(nil, crdt.Dot{HLC: 50, Actor: east}), Behind},
		"deleted there, not folded here":       {Held{Record: copyOf(0, 0, 1, 2)}, crdt.AppendDeleted(nil, crdt.Dot{HLC: 50, Actor: east}), Behind},
		"deleted there long ago":               {Held{Record: copyOf(0, 0, 1, 2)}, crdt.AppendDeleted(nil, crdt.Dot{HLC: 5, Actor: east}), Same},
		"deleted on both sides":                {Held{Record: copyOf(0, 0, 1, 2, 3, 4)}, crdt.AppendDeleted(nil, crdt.Dot{HLC: 50, Actor: east}), Same},
	} {
		got, err := Compare(schema, key, d.own, d.theirs)
		if err != nil || got != d.want {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, d.want)
		}
	}
	if _, err := Compare(schema, key, Held{}, deltas[0].Append(nil)); err == nil {
		t.Error("a delta is taken for a state")
	}
	if _, err := Compare(schema, key, Held{Record: copyOf(0, 0)}, []byte("rot")); err == nil {
		t.Error("rot is taken for a state")
	}
}
