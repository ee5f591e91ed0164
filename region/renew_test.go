package region

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// Goal: what a region that was given up has written is relayed, however it came: as a delta, or in a whole state, of which the change log
// has the stamp of another region's write alone.
func TestWhatCameAsAWholeStateIsRelayed(t *testing.T) {
	r, stop := start(t, vfs.NewMem(), 1)
	defer stop()
	tab := create(t, r, orders)
	p := tab.Partitions()[0]
	fence := table.Fence{Region: "eu-west-1", Incarnation: 2}
	alone, under := deltaOf(tab, 100, order("alone", 1, "open")), deltaOf(tab, 110, order("under", 2, "open"))
	none := deltaOf(tab, 130, order("none", 3, "open"))
	whole := func(d op.Delta, w crdt.Write, first bool) op.Delta {
		record := &crdt.Record{}
		if first {
			delta, err := crdt.Decode(d.State)
			if err != nil {
				t.Fatal(err)
			}
			record.Join(delta)
		}
		record.Write(w)
		return op.Delta{Key: d.Key, State: record.Append(nil)}
	}
	by := func(at crdt.HLC, it item.Item) crdt.Write {
		return crdt.Write{Dot: crdt.Dot{HLC: at, Actor: crdt.NewActor("ap-south-1", 1)}, Origin: crdt.Origin{Op: crdt.Update}, Item: item.AppendItem(nil, it),
			Changes: []item.Change{{Kind: item.Assign, Path: []string{"state"}, Value: item.S("paid")}}}
	}
	seeded := []op.Delta{whole(under, by(120, order("under", 2, "paid")), true), whole(none, by(130, order("none", 3, "paid")), false)}
	if err := tab.Merge(t.Context(), op.Cursor{Stream: "eu-west-1/1/1", Seq: 1}, 0, []op.Delta{alone}); err != nil {
		t.Fatal(err)
	}
	if err := tab.Merge(t.Context(), op.Cursor{Stream: "ap-south-1/1/1", Place: []byte("{}")}, 0, seeded); err != nil {
		t.Fatal(err)
	}
	schema := tab.Schema().Clone()
	schema.Fences = []table.Fence{fence}
	if err := p.propose(t.Context(), &op.Command{Kind: op.Alter, Schema: &schema, Revision: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	relayed := map[string][]byte{}
	err := p.Relay(t.Context(), fence, func(Relayed) error { return nil }, func(key table.Key, delta []byte) error {
		relayed[string(key)] = delta
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(relayed) != 2 || relayed[string(alone.Key)] == nil || relayed[string(under.Key)] == nil {
		t.Fatalf("relayed %q", relayed)
	}
	// Elsewhere, it is all there.
	got, err := crdt.Decode(relayed[string(under.Key)])
	if err != nil || !got.Seen().Contains(crdtSeen(t, seeded[0].State)) {
		t.Errorf("relayed %x, %v", relayed[string(under.Key)], err)
	}
}

func crdtSeen(t *testing.T, state []byte) crdt.Vector {
	t.Helper()
	r, err := crdt.Decode(state)
	if err != nil {
		t.Fatal(err)
	}
	return r.Seen()
}
