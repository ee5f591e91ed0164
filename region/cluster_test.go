package region

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/storage/raftlog"
	"github.com/commutatordb/commutator/table"
)

// Goal: a region of three nodes does what one of one node does, at whichever of them it is asked, and goes on without
// any one of them. Method: three nodes in this process, over memory disks that lose what was not synced when a node is
// killed, and queues in memory between them.

const (
	tick = 10 * time.Millisecond
	// bound is how long anything may take; an election takes some 0.2 s.
	bound = 20 * time.Second
)

type cluster struct {
	t      testing.TB
	nodes  []*member
	voters []uint64
	config func(*Config) // what the test wants otherwise; nil: nothing
}

// member is one node, over its restarts.
type member struct {
	c  *cluster
	id uint64
	fs *vfs.MemFS

	*Region // as last started
	up      atomic.Pointer[Region]
	store   *storage.Store
	log     *raftlog.Log
	cancel  context.CancelFunc
	stopped chan error
	mail    chan mail // to this node; it lives as long as the test
}

type mail struct {
	from uint64
	m    group.Message
}

func newCluster(t *testing.T) *cluster { return newClusterOf(t, 3, nil) }

func newClusterOf(t testing.TB, nodes uint64, config func(*Config)) *cluster {
	c := &cluster{t: t, config: config}
	done := make(chan struct{})
	var carriers sync.WaitGroup
	for id := range nodes {
		c.voters = append(c.voters, id+1)
		m := &member{c: c, id: id + 1, fs: vfs.NewCrashableMem(), mail: make(chan mail, 1024)}
		c.nodes = append(c.nodes, m)
		carriers.Go(func() {
			for {
				select {
				case got := <-m.mail:
					if r := m.up.Load(); r != nil {
						r.Receive(got.from, got.m)
					}
				case <-done:
					return
				}
			}
		})
	}
	for _, m := range c.nodes {
		m.start()
	}
	t.Cleanup(func() {
		for _, m := range c.nodes {
			m.kill()
		}
		close(done)
		carriers.Wait()
	})
	for _, m := range c.nodes {
		m.ready()
	}
	return c
}

func (m *member) start() {
	t := m.c.t
	t.Helper()
	var err error
	if m.log, err = raftlog.Open(raftlog.Options{FS: m.fs, Dir: "log", Salt: m.id, NoBackground: true, SegmentBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	var open atomic.Pointer[Region]
	m.store, err = storage.Open(storage.Options{FS: m.fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10, Flushed: func() {
		if r := open.Load(); r != nil {
			r.Flushed()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		// Each would be another one, if it were asked.
		Name: "us-east-1", Instance: 100 + m.id, Actor: crdt.NewActor("us-east-1", uint16(10+m.id)),
		NodeID: m.id, Voters: m.c.voters, Partitions: 3, Send: m.send, Ask: m.ask, Tick: tick, Log: m.log, Store: m.store, Now: time.Now,
	}
	if m.c.config != nil {
		m.c.config(&cfg)
	}
	m.Region, err = Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	open.Store(m.Region)
	m.up.Store(m.Region)
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	m.stopped = make(chan error, 1)
	r := m.Region
	go func() { m.stopped <- r.Run(ctx) }()
}

func (m *member) ask(ctx context.Context, to uint64, q []byte) ([]byte, error) {
	if r := m.c.nodes[to-1].up.Load(); r != nil && m.up.Load() != nil {
		return r.Answer(ctx, q), nil
	}
	return nil, ErrNotAsked
}

func (m *member) send(to uint64, msg group.Message) {
	if m.up.Load() == nil {
		return // killed: what it writes from now on is lost, and nobody may hear of it
	}
	select {
	case m.c.nodes[to-1].mail <- mail{m.id, msg}:
	default: // a network loses what it has no room for
	}
}

func (m *member) ready() {
	t := m.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if err := m.Ready(ctx); err != nil {
		t.Fatalf("node %d: %v", m.id, err)
	}
}

// kill ends the node as a power cut does.
func (m *member) kill() {
	if m.up.Swap(nil) == nil {
		return
	}
	left := m.fs.CrashClone(vfs.CrashCloneCfg{})
	m.cancel()
	if err := errors.Join(<-m.stopped, m.store.CloseWithoutFlush(), m.log.Close()); err != nil {
		m.c.t.Error(err)
	}
	m.fs = left
}

func (c *cluster) node(id uint64) *member { return c.nodes[id-1] }

// leader returns the node that leads the catalog.
func (c *cluster) leader() (leads *member) {
	c.t.Helper()
	c.until("a node leads the catalog", func() bool {
		for _, m := range c.nodes {
			if m.up.Load() != nil && m.Leads() {
				leads = m
			}
		}
		return leads != nil
	})
	return leads
}

// others returns the nodes that run, but one.
func (c *cluster) others(but *member) (out []*member) {
	for _, m := range c.nodes {
		if m != but && m.up.Load() != nil {
			out = append(out, m)
		}
	}
	return out
}

func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(tick) {
		if time.Now().After(end) {
			c.t.Fatalf("not within %v: %s", bound, what)
		}
	}
}

// table returns a table as a node has it; the node may still have to hear of it.
func (m *member) table(name string) *Table {
	t := m.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	tab, err := m.Table(ctx, name)
	if err != nil {
		t.Fatalf("node %d: %v", m.id, err)
	}
	return tab
}

// write puts an item, again until it is known to be written.
func (m *member) write(name string, it item.Item) {
	t := m.c.t
	t.Helper()
	stored := item.AppendItem(nil, it)
	key, err := orders.KeyOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	m.c.until("a write", func() bool {
		result, err := m.table(name).Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored})
		if result.Err != nil {
			t.Fatal(result.Err)
		}
		if err != nil && !errors.Is(err, group.ErrUnknown) && !errors.Is(err, group.ErrNoLeader) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func (m *member) items(name string, strong bool) int {
	t := m.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	page, err := m.table(name).Page(ctx, op.Page{}, strong)
	if err != nil {
		t.Fatalf("node %d: %v", m.id, err)
	}
	return len(page.Items)
}

// rows counts what a node has in its store and its log beside the catalog.
func (m *member) rows() (rows, groups int) {
	it, err := m.store.Iter(nil, nil)
	if err != nil {
		m.c.t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if it.Key()[0] != 'K' && !bytes.Equal(it.Key(), keyenc.Installed(nil, catalogGroup)) {
			rows++
		}
	}
	if err := it.Close(); err != nil {
		m.c.t.Fatal(err)
	}
	for _, id := range m.log.Groups() {
		if id >= firstPartition {
			groups++
		}
	}
	return rows, groups
}

func (c *cluster) gone(m *member) {
	c.t.Helper()
	rows, groups := 0, 0
	defer func() {
		if c.t.Failed() {
			c.t.Logf("node %d has %d rows and %d groups", m.id, rows, groups)
		}
	}()
	c.until(fmt.Sprintf("node %d has nothing of the table", m.id), func() bool {
		rows, groups = m.rows()
		return rows == 0 && groups == 0
	})
}

func TestAnyNodeOfARegionAnswers(t *testing.T) {
	c := newCluster(t)
	create(t, c.node(1).Region, orders)
	for i := range 50 {
		c.node(2).write("orders", order("a", i, "open"))
	}
	if n := c.node(3).items("orders", true); n != 50 {
		t.Fatalf("a consistent read at the third node finds %d items", n)
	}
	c.until("the other kind of read finds them too", func() bool { return c.node(1).items("orders", false) == 50 })
	for _, m := range c.nodes {
		if m.Instance() != c.node(1).Instance() || m.Actor() != c.node(1).Actor() || m.Instance() < 101 || m.Instance() > 103 {
			t.Fatalf("node %d is of %d, %x; node 1 of %d, %x", m.id, m.Instance(), m.Actor(), c.node(1).Instance(), c.node(1).Actor())
		}
	}
	// What one node has made is refused to be made again at any, and so is what is in the making.
	if _, err := c.node(3).Create(t.Context(), &table.Definition{Schema: orders}); !errors.Is(err, ErrExists) {
		t.Fatalf("made twice: %v", err)
	}
}

// Whichever node hears of a table first, one that is asked for it next must not say that there is none.
func TestATableShownByOneNodeIsThereAtAll(t *testing.T) {
	c := newCluster(t)
	for i := range 9 {
		s := orders.Clone()
		s.Name = fmt.Sprintf("orders-%d", i)
		at, other := c.nodes[i%3], c.nodes[(i+1)%3]
		create(t, at.Region, s)
		if _, err := other.Table(t.Context(), s.Name); err != nil {
			t.Fatalf("node %d: %s: %v", other.id, s.Name, err)
		}
	}
}

func TestARegionGoesOnWithoutItsLeader(t *testing.T) {
	c := newCluster(t)
	create(t, c.node(1).Region, orders)
	who := c.node(1).Instance()
	written := 0
	for round := range 3 {
		leader := c.leader()
		leader.write("orders", order("a", written, "open"))
		written++
		leader.kill()
		begun := time.Now()
		rest := c.others(leader)
		for range 20 {
			rest[written%2].write("orders", order("a", written, "open"))
			written++
		}
		t.Logf("round %d: without node %d for %v", round, leader.id, time.Since(begun))
		if n := rest[0].items("orders", true); n != written {
			t.Fatalf("round %d: %d items of %d", round, n, written)
		}
		// What the catalog asks of a leader is done by the next one.
		s := orders.Clone()
		s.Name = fmt.Sprintf("more-%d", round)
		create(t, rest[1].Region, s)
		leader.start()
		leader.ready()
		if n := leader.items("orders", false); n != written {
			t.Fatalf("round %d: node %d came back with %d items of %d", round, leader.id, n, written)
		}
		if n := leader.items(s.Name, true); n != 0 {
			t.Fatalf("%d items in a new table", n)
		}
		if leader.Instance() != who {
			t.Fatalf("the region is another one now")
		}
	}
}

func (c *cluster) delete(at *member, name string) {
	c.t.Helper()
	if _, err := at.Delete(c.t.Context(), name, nil); err != nil {
		c.t.Fatal(err)
	}
	c.until("the table is gone from the catalog", func() bool {
		_, err := at.Definition(name)
		return errors.Is(err, ErrNoTable)
	})
}

func TestADeletedTableIsGoneAtAllNodes(t *testing.T) {
	c := newCluster(t)
	for round := range 2 {
		create(t, c.node(1).Region, orders)
		for i := range 30 {
			c.node(2).write("orders", order("a", i, "open"))
		}
		c.delete(c.node(3), "orders")
		for _, m := range c.nodes {
			c.gone(m)
			if _, err := m.Table(t.Context(), "orders"); !errors.Is(err, ErrNoTable) {
				t.Fatalf("round %d: node %d: %v", round, m.id, err)
			}
		}
	}
}

func TestANodeThatWasDownDuringADeleteCleansUp(t *testing.T) {
	c := newCluster(t)
	for _, again := range []bool{false, true} { // another table has the name when it returns
		create(t, c.node(1).Region, orders)
		for i := range 30 {
			c.node(2).write("orders", order("a", i, "open"))
		}
		away := c.node(2)
		c.until("it has all of it", func() bool { return away.items("orders", false) == 30 })
		if err := away.store.Flush(); err != nil { // what is only in the log is removed with it
			t.Fatal(err)
		}
		away.kill()
		c.delete(c.node(1), "orders")
		if again {
			create(t, c.node(3).Region, orders)
			c.node(3).write("orders", order("b", 1, "open"))
		}
		away.start()
		away.ready()
		if again {
			if n := away.items("orders", true); n != 1 {
				t.Fatalf("%d items of the table that has the name now", n)
			}
			c.delete(away, "orders")
		}
		for _, m := range c.nodes {
			c.gone(m)
		}
	}
}

// rowsOf returns the rows of an index as a node has them.
func (m *member) rowsOf(name, index string) (rows int, filled bool) {
	tab := m.table(name)
	x := tab.Schema().Index(index)
	if x == nil || x.Backfilling {
		return 0, false
	}
	page, err := tab.Page(m.c.t.Context(), op.Page{Index: x}, false)
	if err != nil {
		m.c.t.Fatal(err)
	}
	return page.Looked, true
}

func TestAnIndexIsFilledWhileAllNodesWriteAndTheLeaderFails(t *testing.T) {
	c := newCluster(t)
	s := orders.Clone()
	s.Indexes = nil
	create(t, c.node(1).Region, s)
	const before = 1500 // some steps of reindexing
	var fill sync.WaitGroup
	for w := range 30 {
		fill.Go(func() {
			for i := w; i < before; i += 30 {
				c.nodes[w%3].write("orders", order("before", i, "open"))
			}
		})
	}
	fill.Wait()

	leader := c.leader()
	var stop atomic.Bool
	var during atomic.Int64
	var writers sync.WaitGroup
	for _, m := range c.others(leader) {
		writers.Go(func() {
			for i := 0; !stop.Load(); i++ {
				m.write("orders", order(fmt.Sprint("during-", m.id), i, "open"))
				during.Add(1)
			}
		})
	}
	if _, err := c.others(leader)[0].Change(t.Context(), "orders", func(d *table.Definition) error {
		x := orders.Indexes[0]
		x.ID, x.Backfilling = 1, true
		d.Schema.Indexes, d.Status = []table.Index{x}, table.Updating
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	leader.kill()
	for _, m := range c.others(leader) {
		c.until("the index is filled", func() bool {
			rows, filled := m.rowsOf("orders", "by-state")
			if filled && rows < before {
				t.Errorf("node %d shows an index of %d rows as filled", m.id, rows)
			}
			return filled
		})
	}
	stop.Store(true)
	writers.Wait()
	leader.start()
	leader.ready()
	want := before + int(during.Load())
	for _, m := range c.nodes {
		c.until("the index has every item", func() bool {
			rows, filled := m.rowsOf("orders", "by-state")
			return filled && rows == want
		})
		if n := m.items("orders", true); n != want {
			t.Fatalf("node %d has %d items of %d", m.id, n, want)
		}
	}
}

func TestANodeWithoutAMajorityRefusesWhatItCannotKnow(t *testing.T) {
	c := newCluster(t)
	create(t, c.node(1).Region, orders)
	c.node(1).write("orders", order("a", 1, "open"))
	c.until("it has it", func() bool { return c.node(1).items("orders", false) == 1 })
	c.node(2).kill()
	c.node(3).kill()
	alone := c.node(1)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	tab := alone.table("orders")
	if _, err := tab.Page(ctx, op.Page{}, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a consistent read: %v", err)
	}
	if page, err := tab.Page(t.Context(), op.Page{}, false); err != nil || len(page.Items) != 1 {
		t.Errorf("a read that need not be: %v, %v", page, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := alone.Table(ctx, "none"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a table that others may have made: %v", err)
	}
	stored := item.AppendItem(nil, order("a", 2, "open"))
	key, _ := orders.KeyOf(stored)
	if _, err := tab.Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored}); !errors.Is(err, group.ErrUnknown) && !errors.Is(err, group.ErrNoLeader) {
		t.Errorf("a write: %v", err)
	}
}
