package region

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// Goal: a table shows the same before, while and after its empty partitions are merged, wherever a merge was interrupted. Method: nodes as in
// cluster_test.go, and merges that are ordered, or begun as far as a leader that is gone may have brought them.

// merging returns a cluster with a table of one partition that has been cut at every one of some keys, all of whose items are below the first.
func newMerging(t *testing.T, nodes uint64, config func(*Config), at ...byte) (*cluster, *Table) {
	c := newClusterOf(t, nodes, func(cfg *Config) {
		cfg.Partitions, cfg.Split.Every = 1, 50*time.Millisecond
		cfg.Split.MergeAfter = -1
		if config != nil {
			config(cfg)
		}
	})
	tab := create(t, c.node(1).Region, orders)
	for n := 0; n < 40; n++ {
		if o := order(fmt.Sprint("a", n), n, "open"); keyOf(t, tab, o)[0] < at[0] {
			c.node(1).write("orders", o)
		}
	}
	for i := len(at) - 1; i >= 0; i-- { // from the right
		id := c.node(1).table("orders").Partitions()[0].ID
		if _, err := c.node(1).Split(t.Context(), "orders", id, table.Key{at[i]}); err != nil {
			t.Fatal(err)
		}
		c.count(len(at) - i + 1)
	}
	return c, c.node(1).table("orders")
}

func keyOf(t *testing.T, tab *Table, it item.Item) table.Key {
	t.Helper()
	key, err := tab.Schema().KeyOf(item.AppendItem(nil, it))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// count waits until every node that is up has so many partitions open, without a gap, and nothing is under way.
func (c *cluster) count(n int) {
	c.t.Helper()
	c.until(fmt.Sprint(n, " partitions"), func() bool {
		for _, m := range c.nodes {
			if m.up.Load() == nil {
				continue
			}
			d, err := m.Definition("orders")
			tab := (*m.tables.Load())["orders"]
			if err != nil || tab == nil || len(d.Partitions) != n || len(tab.Partitions()) != n || !tab.partitions().cover(nil, nil) {
				return false
			}
			for i, pd := range d.Partitions {
				s := tab.Partitions()[i].State().Span
				if pd.Split != nil || pd.Merging != nil || s.Prune || s.Closed {
					return false
				}
			}
		}
		return true
	})
}

// same checks that every node that is up shows so many items and index rows, takes writes everywhere, and has the same rows as the others.
func (c *cluster) same(items int) {
	c.t.Helper()
	for _, m := range c.nodes {
		if m.up.Load() == nil {
			continue
		}
		tab := m.table("orders")
		if got := len(m.pages(tab, op.Page{}, true)); got != items {
			c.t.Errorf("node %d shows %d items, want %d", m.id, got, items)
		}
		if got := len(m.pages(tab, op.Page{Index: tab.Schema().Index("by-state")}, true)); got != items {
			c.t.Errorf("node %d shows %d index rows, want %d", m.id, got, items)
		}
		if found, err := tab.CheckIndexes(c.t.Context(), op.IndexCheck{Limit: 1 << 20}); err != nil || len(found.Differences) > 0 {
			c.t.Errorf("node %d: %v, %v", m.id, found.Differences, err)
		}
	}
}

func items(t *testing.T, m *member) int {
	t.Helper()
	return len(m.pages(m.table("orders"), op.Page{}, true))
}

func TestAnEmptyPartitionIsTakenInByItsLeftNeighbour(t *testing.T) {
	for _, nodes := range []uint64{1, 3, 5} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			c, tab := newMerging(t, nodes, nil, 0x40, 0x80, 0xc0)
			had := items(t, c.node(1))
			ids := func() (out []uint64) {
				for _, p := range tab.Partitions() {
					out = append(out, p.ID)
				}
				return out
			}()
			// From the middle, the right, and the left.
			for i, id := range []uint64{ids[2], ids[3], ids[1]} {
				if err := c.nodes[i%int(nodes)].Merge(t.Context(), "orders", id); err != nil {
					t.Fatal(id, err)
				}
				c.count(3 - i)
				c.same(had)
			}
			for n := 100; n < 140; n++ {
				c.nodes[n%int(nodes)].write("orders", order(fmt.Sprint("b", n), n, "closed"))
			}
			c.same(had + 40)
			// And it can be cut again.
			if _, err := c.node(1).Split(t.Context(), "orders", ids[0], table.Key{0x80}); err != nil {
				t.Fatal(err)
			}
			c.count(2)
			c.same(had + 40)
			c.nodes[0].kill()
			c.nodes[0].start()
			c.nodes[0].ready()
			c.count(2)
			c.same(had + 40)
		})
	}
}

func TestWhatStandsInTheWayOfAMergeIsSaid(t *testing.T) {
	c, tab := newMerging(t, 3, nil, 0x80)
	first, second := tab.Partitions()[0].ID, tab.Partitions()[1].ID
	refused := func(id uint64, want error) {
		t.Helper()
		if err := c.node(2).Merge(t.Context(), "orders", id); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		} else {
			t.Log(err)
		}
	}
	refused(999, ErrNoPartition)
	refused(first, ErrNotEmpty)
	var above item.Item
	for n := 0; above == nil || keyOf(t, tab, above)[0] < 0x80; n++ {
		above = order(fmt.Sprint("c", n), n, "open")
	}
	c.node(2).write("orders", above)
	refused(second, ErrNotEmpty)
	if _, err := tab.Write(t.Context(), &op.Command{Kind: op.Delete, Key: keyOf(t, tab, above)}); err != nil {
		t.Fatal(err)
	}
	refused(second, ErrNotEmpty) // changes
	c.trim(second)
	if err := c.node(2).Merge(t.Context(), "orders", second); err != nil {
		t.Fatal(err)
	}
	c.count(1)
}

// trim has a partition fold and let go of its change log, as node does.
func (c *cluster) trim(id uint64) {
	c.t.Helper()
	for _, p := range c.node(1).table("orders").Partitions() {
		if p.ID != id {
			continue
		}
		if err := p.sync(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		s := p.State()
		if err := p.Fold(c.t.Context(), s.Clock, s.Seq); err != nil {
			c.t.Fatal(err)
		}
	}
}

func TestNeighboursThatRestEmptyAreMergedByThemselves(t *testing.T) {
	c, _ := newMerging(t, 3, nil, 0x20, 0x40, 0x80, 0xc0)
	had := items(t, c.node(1))
	if had == 0 {
		t.Fatal("the first partition is to have items")
	}
	c.stopAll()
	c.config = func(cfg *Config) {
		cfg.Partitions, cfg.Split.Every, cfg.Split.MergeAfter = 2, 20*time.Millisecond, 200*time.Millisecond
	}
	c.startAll()
	c.count(2) // not the first, which has items, nor below what a table begins with
	c.same(had)
}

func (c *cluster) stopAll() {
	for _, m := range c.nodes {
		m.kill()
	}
}

func (c *cluster) startAll() {
	for _, m := range c.nodes {
		m.start()
	}
	for _, m := range c.nodes {
		m.ready()
	}
}

// hand takes the steps of a merge by hand, of a table's second partition into its first.
type hand struct {
	c       *cluster
	attempt uint64
	given   []byte
}

func (h *hand) parts() (left, right *Partition) {
	of := h.c.node(1).table("orders").Partitions()
	return of[0], of[1]
}

func (h *hand) row(state table.MergeState) {
	h.c.t.Helper()
	_, right := h.parts()
	_, err := h.c.node(1).Change(h.c.t.Context(), "orders", func(d *table.Definition) error {
		for i := range d.Partitions {
			if d.Partitions[i].ID == right.ID {
				d.Partitions[i].Merging = &table.Merging{Attempt: h.attempt, State: state}
			}
		}
		return nil
	})
	if err != nil {
		h.c.t.Fatal(err)
	}
}

// close closes the right one, everywhere.
func (h *hand) close() {
	h.c.t.Helper()
	_, right := h.parts()
	result, err := right.do(h.c.t.Context(), &op.Command{Kind: op.Close, Attempt: h.attempt})
	if err = errors.Join(err, result.Err); err != nil {
		h.c.t.Fatal(err)
	}
	h.given = result.Given
	for _, m := range h.c.nodes {
		if err := m.table("orders").Partitions()[1].closedHere(h.c.t.Context(), h.attempt); err != nil {
			h.c.t.Fatal(err)
		}
	}
}

func (h *hand) reopen() {
	h.c.t.Helper()
	_, right := h.parts()
	if err := right.propose(h.c.t.Context(), &op.Command{Kind: op.Reopen, Attempt: h.attempt}); err != nil {
		h.c.t.Fatal(err)
	}
}

func (h *hand) absorb() {
	h.c.t.Helper()
	left, right := h.parts()
	if err := left.propose(h.c.t.Context(), &op.Command{Kind: op.Absorb, Attempt: h.attempt, Key: right.Start, Child: right.ID, Value: h.given}); err != nil {
		h.c.t.Fatal(err)
	}
}

func newHand(t *testing.T, c *cluster) *hand {
	_, attempt, err := c.node(1).allocate(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &hand{c: c, attempt: attempt}
}

func TestAMergeIsEndedFromWhereverItStands(t *testing.T) {
	for name, of := range map[string]struct {
		steps func(*hand)
		left  int // partitions; 0: one or two
	}{
		"wanted":             {func(h *hand) { h.row(table.MergeWanted) }, 0},
		"closing":            {func(h *hand) { h.row(table.MergeClosing) }, 0},
		"closing and closed": {func(h *hand) { h.close(); h.row(table.MergeClosing) }, 0},
		"reopening":          {func(h *hand) { h.close(); h.row(table.MergeReopening) }, 2},
		"reopened":           {func(h *hand) { h.close(); h.reopen(); h.row(table.MergeReopening) }, 2},
		"closed":             {func(h *hand) { h.close(); h.row(table.MergeClosed) }, 1},
		"absorbed":           {func(h *hand) { h.close(); h.absorb(); h.row(table.MergeClosed) }, 1},
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", crash: ", crash), func(t *testing.T) {
				c, _ := newMerging(t, 3, nil, 0x80)
				had := items(t, c.node(1))
				of.steps(newHand(t, c))
				if crash {
					c.stopAll()
					c.startAll()
				}
				left := of.left
				c.until("it is over", func() bool {
					d, err := c.node(1).Definition("orders")
					if left = of.left; left == 0 && err == nil {
						left = len(d.Partitions)
					}
					return err == nil && !slices.ContainsFunc(d.Partitions, func(p table.Partition) bool { return p.Merging != nil })
				})
				c.count(left)
				c.same(had)
				for n := 100; n < 120; n++ {
					c.nodes[n%3].write("orders", order(fmt.Sprint("b", n), n, "closed"))
				}
				c.same(had + 20)
			})
		}
	}
}

func TestWhatIsWrittenBehindAMergeOutlivesACrash(t *testing.T) {
	c, tab := newMerging(t, 3, nil, 0x80)
	had := items(t, c.node(1))
	var above []item.Item // that the right one has had
	for n := 0; len(above) < 20; n++ {
		if it := order(fmt.Sprint("c", n), n, "open"); keyOf(t, tab, it)[0] >= 0x80 {
			above = append(above, it)
		}
	}
	for _, it := range above {
		c.node(2).write("orders", it)
		if _, err := tab.Write(t.Context(), &op.Command{Kind: op.Delete, Key: keyOf(t, tab, it)}); err != nil {
			t.Fatal(err)
		}
	}
	c.trim(tab.Partitions()[1].ID)
	h := newHand(t, c)
	h.close()
	h.absorb()
	for _, it := range above {
		c.node(3).write("orders", it)
	}
	c.stopAll() // the stores lose what was not flushed, and the logs of both partitions are applied again
	c.startAll()
	c.same(had + len(above))
	h.row(table.MergeClosed)
	c.count(1)
	c.same(had + len(above))
}

func TestNeighboursThatDifferentNodesHoldAreMerged(t *testing.T) {
	c, tab := newMerging(t, 4, nil, 0x40, 0x80)
	had := items(t, c.node(1))
	c.place("orders", spreadOut...)
	for i := 2; i > 0; i-- {
		if err := c.node(4).Merge(t.Context(), "orders", tab.Partitions()[i].ID); err != nil {
			t.Fatal(err)
		}
		c.count(i)
		c.same(had)
	}
	for n := 100; n < 140; n++ {
		c.nodes[n%4].write("orders", order(fmt.Sprint("b", n), n, "closed"))
	}
	c.same(had + 40)
}

func TestAPartitionThatIsNotClosedEverywhereIsReopened(t *testing.T) {
	c, tab := newMerging(t, 3, nil, 0x80)
	had := items(t, c.node(1))
	right := tab.Partitions()[1]
	if right.Leader() == 3 || c.node(1).Leader() == 3 {
		// The node that stops answering is to lead nothing.
		if err := c.node(3).Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.until("node 3 leads nothing", func() bool {
			return right.Leader() != 3 && c.node(1).Leader() != 3 && tab.Partitions()[0].Leader() != 3
		})
	}
	p := c.node(3).table("orders").Partitions()[1]
	if err := p.replica.Load().Suspend(t.Context()); err != nil { // it is up, and applies nothing
		t.Fatal(err)
	}
	begun := time.Now()
	if err := c.node(1).Merge(t.Context(), "orders", right.ID); err != nil {
		t.Fatal(err)
	}
	c.until("it is given up", func() bool {
		d, err := c.node(1).Definition("orders")
		return err == nil && (len(d.Partitions) == 1 || d.Partitions[1].Merging == nil)
	})
	t.Log("it took ", time.Since(begun))
	if err := p.replica.Load().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.count(2)
	for n := 100; n < 120; n++ {
		c.nodes[n%3].write("orders", order(fmt.Sprint("b", n), n, "closed"))
	}
	c.same(had + 20)
}

func TestWhatIsClosedForGoodIsNotReopened(t *testing.T) {
	c, _ := newMerging(t, 3, nil, 0x80)
	had := items(t, c.node(1))
	h := newHand(t, c)
	h.close()
	h.absorb()
	// A node is lost before the row says that it is over.
	lost := c.node(3)
	lost.kill()
	c.until("the lost node is missed", func() bool { return !c.node(1).Up(3) && !c.node(2).Up(3) })
	h.row(table.MergeClosed)
	c.count(1)
	c.same(had)
	lost.start()
	lost.ready()
	c.count(1)
	c.same(had)
}
