package region

import (
	"testing"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
)

// BenchmarkElsewhere is what it takes to ask for what another node holds, without a network: a consistent read of one item, one that need not be,
// a page of a hundred, and a write, at a node that holds the partition and at one that does not.
func BenchmarkElsewhere(b *testing.B) {
	c := newClusterOf(b, 4, nil)
	create(b, c.node(1).Region, orders)
	c.place("orders", []uint64{1, 2, 3})
	for i := range 200 {
		c.node(1).write("orders", order("a", i, "open"))
	}
	stored := item.AppendItem(nil, order("a", 7, "open"))
	key, err := orders.KeyOf(stored)
	if err != nil {
		b.Fatal(err)
	}
	for _, at := range []struct {
		name string
		m    *member
	}{{"held", c.node(2)}, {"elsewhere", c.node(4)}} {
		tab := at.m.table("orders")
		run := func(name string, f func() error) {
			b.Run(name+"/"+at.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("get", func() error {
			_, err := tab.Get(b.Context(), key, false)
			return err
		})
		run("get consistent", func() error {
			_, err := tab.Get(b.Context(), key, true)
			return err
		})
		run("page", func() error {
			_, err := tab.Page(b.Context(), op.Page{Limit: 100}, false)
			return err
		})
		run("put", func() error {
			_, err := tab.Write(b.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored})
			return err
		})
	}
}
