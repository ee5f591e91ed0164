package region

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// Goal: a node does with partitions that others hold what it does with its own. Method: four nodes as in cluster_test.go, and tables of which each
// has some partitions and lacks others.

// place has the catalog say who is to hold a table's partitions, and waits until they do, and nobody else.
func (c *cluster) place(name string, nodes ...[]uint64) {
	c.t.Helper()
	_, err := c.node(1).Change(c.t.Context(), name, func(d *table.Definition) error {
		for i := range d.Partitions {
			d.Partitions[i].Nodes, d.Partitions[i].Moved = nodes[i%len(nodes)], time.Now().UnixMilli() // or else it is moved on
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.placed(name)
}

func (c *cluster) placed(name string) {
	c.t.Helper()
	c.until("the partitions are where they are to be", func() bool {
		for _, m := range c.nodes {
			if m.up.Load() == nil {
				continue
			}
			for _, p := range m.table(name).Partitions() {
				voters, learners := p.Members()
				voters = slices.Sorted(slices.Values(voters))
				if p.Here() != slices.Contains(p.Nodes(), m.id) || !slices.Equal(voters, p.Nodes()) || len(learners) > 0 {
					return false
				}
			}
		}
		return true
	})
}

var spreadOut = [][]uint64{{1, 2, 3}, {2, 3, 4}, {1, 3, 4}}

// pages returns a table's items, or an index's rows, as pages of a few show them.
func (m *member) pages(tab *Table, p op.Page, strong bool) (items [][]byte) {
	t := m.c.t
	t.Helper()
	p.Limit = 7
	for {
		page, err := tab.Page(t.Context(), p, strong)
		if err != nil {
			t.Fatalf("node %d: %v", m.id, err)
		}
		if len(page.Items) > 7 {
			t.Fatalf("node %d: a page of %d items", m.id, len(page.Items))
		}
		items = append(items, page.Items...)
		if page.Last == nil {
			return items
		}
		if p.Reverse {
			p.To = page.Last
		} else {
			p.From = append(slices.Clone(page.Last), 0)
		}
	}
}

func TestEveryNodeServesWhatOthersHold(t *testing.T) {
	c := newClusterOf(t, 4, nil)
	create(t, c.node(1).Region, orders)
	c.place("orders", spreadOut...)
	for i := range 80 {
		c.nodes[i%4].write("orders", order("a", i, "open"))
	}
	want := c.node(3).pages(c.node(3).table("orders"), op.Page{}, true)
	if len(want) != 80 {
		t.Fatalf("node 3, which holds all, shows %d items", len(want))
	}
	for _, m := range c.nodes {
		tab := m.table("orders")
		for _, strong := range []bool{true, false} {
			for _, reverse := range []bool{false, true} {
				got := m.pages(tab, op.Page{Reverse: reverse}, strong)
				if reverse {
					slices.Reverse(got)
				}
				if !slices.EqualFunc(got, want, bytes.Equal) {
					t.Errorf("node %d (strong %v, reverse %v) shows %d items, or others", m.id, strong, reverse, len(got))
				}
			}
			rows := m.pages(tab, op.Page{Index: tab.Schema().Index("by-state")}, strong)
			if len(rows) != 80 {
				t.Errorf("node %d (strong %v) shows %d rows of the index", m.id, strong, len(rows))
			}
			for _, stored := range want {
				key, _ := tab.Schema().KeyOf(stored)
				if got, err := tab.Get(t.Context(), key, strong); err != nil || !bytes.Equal(got, stored) {
					t.Errorf("node %d (strong %v) has %x for %x: %v", m.id, strong, got, stored, err)
				}
				if got, err := tab.Get(t.Context(), append(key, 0), strong); err != nil || got != nil {
					t.Errorf("node %d has %x for what is not there: %v", m.id, got, err)
				}
			}
		}
		checked, err := tab.CheckIndexes(t.Context(), op.IndexCheck{Limit: 1000})
		if err != nil || checked.Items != 80 || checked.Rows != 80 || len(checked.Differences) > 0 {
			t.Errorf("node %d: its indexes: %+v, %v", m.id, checked, err)
		}
		snaps, err := tab.Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range snaps {
			if err := s.Records(nil, func(table.Key, []byte) bool { n++; return true }); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if n != 80 {
			t.Errorf("node %d: what it pins has %d items", m.id, n)
		}
		if expiry, err := tab.Expiry(t.Context(), "sk", nil, 1000, 1<<20); err != nil || expiry.Last != nil || len(expiry.Over) != 79 { // 0 is no time
			t.Errorf("node %d: %d items are over, %v", m.id, len(expiry.Over), err)
		}
		changes := 0
		c.until("a node that does not hold a partition hears what it has come to", func() bool {
			changes = 0
			for _, p := range tab.Partitions() {
				for seq := uint64(0); seq < p.State().Seq; {
					some, last, _, err := p.Changes(seq, 1000)
					if err != nil {
						t.Fatal(err)
					}
					seq = last
					changes += len(some)
				}
			}
			return changes == 80
		})
	}
}

// What a command is refused for comes back as it was said.
func TestWhatIsRefusedElsewhereIsRefusedAlike(t *testing.T) {
	c := newClusterOf(t, 4, nil)
	create(t, c.node(1).Region, orders)
	c.place("orders", []uint64{1, 2, 3})
	c.node(1).write("orders", order("a", 1, "open"))
	stored := item.AppendItem(nil, order("a", 1, "closed"))
	key, _ := orders.KeyOf(stored)
	none, err := expr.BuildCondition("attribute_not_exists(pk)", &expr.Placeholders{})
	if err != nil {
		t.Fatal(err)
	}
	result, err := c.node(4).table("orders").Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored, Condition: none})
	var failed *op.ConditionFailed
	if err != nil || !errors.As(result.Err, &failed) || failed.Item == nil {
		t.Fatalf("a condition that does not hold: %v, %v", result.Err, err)
	}
	result, err = c.node(4).table("orders").Write(t.Context(), &op.Command{Kind: op.Delete, Key: key})
	if err != nil || result.Err != nil || result.Old == nil || result.New != nil {
		t.Fatalf("a delete: %+v, %v", result, err)
	}
	if result.Dot.IsZero() {
		t.Errorf("a write without a stamp: %+v", result)
	}
}

func TestAPartitionIsSplitByANodeThatDoesNotHoldIt(t *testing.T) {
	c := newClusterOf(t, 4, nil)
	create(t, c.node(1).Region, orders)
	c.place("orders", spreadOut...)
	for i := range 60 {
		c.nodes[i%4].write("orders", order("a", i, "open"))
	}
	for round := range 3 {
		for _, p := range c.node(1).table("orders").Partitions() {
			if !p.Here() || round == 0 {
				c.until("it is to be split", func() bool {
					_, err := c.node(1).Split(t.Context(), "orders", p.ID, nil)
					if errors.Is(err, ErrNoSplitKey) {
						return true
					}
					return err == nil
				})
			}
		}
		c.until("every node shows the same", func() bool {
			for _, m := range c.nodes {
				if m.items("orders", true) != 60 {
					t.Fatalf("node %d shows %d items", m.id, m.items("orders", true))
				}
				if len(m.table("orders").Partitions()) != len(c.node(3).table("orders").Definition().Partitions) {
					return false
				}
			}
			return true
		})
	}
	if n := len(c.node(4).table("orders").Partitions()); n < 6 {
		t.Errorf("there are %d partitions", n)
	}
	c.placed("orders")
}

// A partition goes from node to node while it is written to and read.
func TestAPartitionMovesUnderTraffic(t *testing.T) {
	c := newClusterOf(t, 4, nil)
	create(t, c.node(1).Region, orders)
	c.place("orders", spreadOut...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	written := make(chan int, 1)
	go func() {
		n := 0
		defer func() { written <- n }()
		for ctx.Err() == nil {
			stored := item.AppendItem(nil, order("a", n, "open"))
			key, _ := orders.KeyOf(stored)
			m := c.nodes[n%4]
			result, err := m.table("orders").Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored})
			if err != nil || result.Err != nil {
				t.Errorf("node %d, write %d: %v, %v", m.id, n, err, result.Err)
				return
			}
			other := c.nodes[(n+1)%4]
			if got, err := other.table("orders").Get(t.Context(), key, true); err != nil || !bytes.Equal(got, stored) {
				t.Errorf("node %d, read %d: %x, %v", other.id, n, got, err)
				return
			}
			n++
		}
	}()
	for round := range 4 {
		next := make([][]uint64, len(spreadOut))
		for i := range next {
			next[i] = spreadOut[(i+round+1)%len(spreadOut)]
		}
		c.place("orders", next...)
	}
	cancel()
	n := <-written
	for _, m := range c.nodes {
		if got := m.items("orders", true); got != n {
			t.Errorf("node %d shows %d of %d items", m.id, got, n)
		}
	}
	if n == 0 {
		t.Error("nothing was written")
	}
	t.Logf("%d items were written", n)
	for _, m := range c.nodes {
		c.until("nothing is left of what was moved away", func() bool {
			for _, p := range m.table("orders").Partitions() {
				if !p.Here() && m.has(p) {
					return false
				}
			}
			return true
		})
	}
}

// has tells whether a node's store has rows of a partition.
func (m *member) has(p *Partition) bool {
	opened, err := partition.Open(p.config(m.store))
	if err != nil {
		m.c.t.Fatal(err)
	}
	for _, rows := range opened.Ranges() {
		it, err := m.store.Iter(rows[0], rows[1])
		if err != nil {
			m.c.t.Fatal(err)
		}
		there := it.First()
		if err := it.Close(); err != nil {
			m.c.t.Fatal(err)
		}
		if there {
			return true
		}
	}
	return false
}

// What is here of the parent may be nothing: before its first snapshot, or when a node stops behind the last row that it removes.
func TestWhatWasCutOffStaysWhereItsParentIsLetGo(t *testing.T) {
	c := newClusterOf(t, 4, nil)
	create(t, c.node(1).Region, orders)
	for i := range 60 {
		c.nodes[i%4].write("orders", order(fmt.Sprint(i), i, "open"))
	}
	parents := len(c.node(1).table("orders").Partitions())
	for _, p := range c.node(1).table("orders").Partitions() {
		if _, err := c.node(1).Split(t.Context(), "orders", p.ID, binary.BigEndian.AppendUint64(nil, hashOf(p.Start)+1<<60)); err != nil {
			t.Fatal(err)
		}
	}
	c.until("it is split", func() bool { return len(c.node(4).table("orders").Definition().Partitions) == 2*parents })
	// Node 4 has what was cut off, and not what it was cut off from.
	c.place("orders", []uint64{1, 2, 3}, []uint64{1, 2, 4})
	m := c.node(4)
	for _, p := range m.table("orders").Partitions() {
		if p.Here() {
			continue
		}
		if err := m.clear(t.Context(), p.config(m.store)); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.items("orders", false); n != 60 {
		t.Errorf("%d of 60 items are left", n)
	}
}

func TestANodeThatWasAskedAndIsLostIsNotWaitedFor(t *testing.T) {
	c := newClusterOf(t, 4, nil)
	create(t, c.node(1).Region, orders)
	c.place("orders", []uint64{1, 2, 3})
	c.node(4).write("orders", order("a", 1, "open"))
	for _, id := range []uint64{1, 2} {
		if id == 2 {
			c.node(1).start()
			c.node(1).ready()
		}
		c.node(id).kill()
		begun := time.Now()
		c.node(4).write("orders", order("a", int(id)+1, "open"))
		if n := c.node(4).items("orders", true); n != int(id)+1 {
			t.Errorf("%d items with node %d down", n, id)
		}
		t.Logf("with node %d down the next write took %v", id, time.Since(begun))
	}
	c.node(1).kill()
	key, _ := orders.KeyOf(item.AppendItem(nil, order("a", 1, "open")))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := c.node(4).table("orders").Get(ctx, key, true); err == nil || errors.Is(err, group.ErrGone) {
		t.Errorf("with two of three nodes down a consistent read says %v", err)
	}
}

// Goal: nothing is lost or left where it should not be, though nodes lose power while partitions move, and are split. Method: rounds of moves, each
// with one node that is killed somewhere in it; what was not flushed is gone there.
func TestPartitionsMoveWhileNodesLosePower(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			c := newClusterOf(t, 4, nil)
			create(t, c.node(1).Region, orders)
			c.place("orders", spreadOut...)
			n := 0
			write := func(by []*member, count int) {
				for range count {
					by[n%len(by)].write("orders", order(fmt.Sprint(n), n, "open"))
					n++
				}
			}
			for round := range 6 {
				write(c.nodes, rng.IntN(20))
				lost := c.nodes[rng.IntN(4)]
				rest := slices.DeleteFunc(slices.Clone(c.nodes), func(m *member) bool { return m == lost })
				by := rest[rng.IntN(3)]
				if _, err := by.Change(t.Context(), "orders", func(d *table.Definition) error {
					for i := range d.Partitions {
						d.Partitions[i].Nodes = spreadOut[(i+round)%len(spreadOut)]
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if some := by.table("orders").Partitions(); round%2 == 0 {
					p := some[rng.IntN(len(some))]
					c.until("a split is ordered", func() bool {
						_, err := by.Split(t.Context(), "orders", p.ID, nil)
						return err == nil || errors.Is(err, ErrSplitting) || errors.Is(err, ErrNoSplitKey)
					})
				}
				write(rest, rng.IntN(60))
				for _, m := range c.nodes {
					if rng.IntN(2) == 0 {
						if err := m.store.Flush(); err != nil {
							t.Fatal(err)
						}
					}
				}
				lost.kill()
				write(rest, 5)
				lost.start()
				lost.ready()
			}
			c.until("nothing is to be split any more", func() bool {
				return !slices.ContainsFunc(c.node(1).table("orders").Definition().Partitions, func(p table.Partition) bool { return p.Split != nil })
			})
			c.place("orders", spreadOut...)
			for _, m := range c.nodes {
				for _, strong := range []bool{true, false} {
					if got := m.items("orders", strong); got != n {
						t.Errorf("node %d (strong %v) shows %d of %d items", m.id, strong, got, n)
					}
				}
			}
		})
	}
}
