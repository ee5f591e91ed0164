package crdt

import (
	"bytes"
	"testing"

	"github.com/commutatordb/commutator/item"
)

func num(i int64) item.Value { return item.N(item.NumberFromInt(i)) }

func TestTwoRegionsThatUpsertAnAddCountBoth(t *testing.T) {
	a, b := NewActor("us-east-1", 0), NewActor("eu-west-1", 0)
	doc := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("k")}, item.Field{Name: "views", Value: num(1)}))
	change := []item.Change{{Kind: item.Increment, Path: []string{"views"}, Value: num(1)}}
	var ra, rb Record
	da := ra.Write(Write{Dot: Dot{100, a}, Origin: Origin{Op: Update}, Item: doc, Changes: change})
	db := rb.Write(Write{Dot: Dot{101, b}, Origin: Origin{Op: Update}, Item: doc, Changes: change})
	ra.Join(db)
	rb.Join(da)
	got, ok := ra.Visible()
	want := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("k")}, item.Field{Name: "views", Value: num(2)}))
	if !ok || !bytes.Equal(got, want) {
		t.Fatalf("got %x want %x", got, want)
	}
	if !bytes.Equal(ra.Append(nil), rb.Append(nil)) {
		t.Fatalf("equal states have unequal bytes")
	}
	back, err := Decode(ra.Append(nil))
	if err != nil || !bytes.Equal(back.Append(nil), ra.Append(nil)) {
		t.Fatalf("decode: %v", err)
	}
	delta, err := Decode(da.Append(nil))
	if err != nil || !bytes.Equal(delta.Append(nil), da.Append(nil)) {
		t.Fatalf("decode delta: %v", err)
	}
}
