package crdt

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/item"
)

// Goal: an item told by how it differs from another one is that item, and there is one way to tell it.
func TestAnItemIsToldByHowItDiffersFromAnother(t *testing.T) {
	anItem := rapid.Custom(func(t *rapid.T) []byte {
		var fields []item.Field
		for i := range 5 {
			if v := rapid.IntRange(-1, 2).Draw(t, "value"); v >= 0 {
				fields = append(fields, item.Field{Name: fmt.Sprint("a", i), Value: num(int64(v))})
			}
		}
		return item.AppendItem(nil, item.NewItem(fields...))
	})
	rapid.Check(t, func(t *rapid.T) {
		from, to := anItem.Draw(t, "from"), anItem.Draw(t, "to")
		other, lacks := difference(from, to)
		if got, ok := patched(from, other, lacks); !ok || !bytes.Equal(got, to) {
			t.Fatalf("%x from %x: %x, %q make %x, %v", to, from, other, lacks, got, ok)
		}
		if bytes.Equal(from, to) && (len(other) > 1 || len(lacks) > 0) {
			t.Fatalf("equal items differ by %x, %q", other, lacks)
		}
		// Whatever else makes an item of it is refused, or is what difference returns.
		other = anItem.Draw(t, "other")
		lacks = nil
		for range rapid.IntRange(0, 3).Draw(t, "lacks") {
			lacks = append(lacks, fmt.Append(nil, "a", rapid.IntRange(0, 5).Draw(t, "name")))
		}
		if to, ok := patched(from, other, lacks); ok {
			o, l := difference(from, to)
			if !bytes.Equal(o, other) || fmt.Sprintf("%q", l) != fmt.Sprintf("%q", lacks) {
				t.Fatalf("from %x: %x, %q and %x, %q make the same", from, other, lacks, o, l)
			}
		}
	})
}
