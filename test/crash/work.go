package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// The tables of the workload that stay, and the stream that its merges come by.
const (
	ordersTable = "orders" // of this region alone, with an index
	cartsTable  = "carts"  // global: records keep what merging needs until they are folded
	otherRegion = "eu-west-1"
	mergeStream = "eu-west-1/1/16"
	tempPrefix  = "temp"
)

// keysPerClient is how many sort keys a client writes under its own partition key.
const keysPerClient = 8

// Workload is the reference workload: clients side by side, each on keys of its own.
type Workload struct {
	Ledgers []*Ledger

	seed   uint64
	tables *Ledger
	runs   uint64
	merged map[string]*crdt.Record // the merger's items, as the other region has them
}

// NewWorkload returns the workload of a seed.
func NewWorkload(seed uint64) *Workload {
	w := &Workload{seed: seed, tables: newLedger("tables", ""), merged: map[string]*crdt.Record{}}
	w.Ledgers = []*Ledger{w.tables, newLedger("writer", "-"), newLedger("member", "-"), newLedger("merger", "-"), newLedger("restorer", "-")}
	return w
}

// Run has each client do rounds things, the one that makes tables one in sixteen. It can be called again, with
// an engine that has all that was acknowledged.
func (w *Workload) Run(ctx context.Context, e *Engine, rounds int) error {
	if w.runs++; w.runs == 1 {
		if err := w.setUp(ctx, e); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, run := range []func(context.Context, *client) error{runTables, runWriter, runMember, w.runMerger, runRestorer} {
		c := &client{e: e, l: w.Ledgers[i], rng: rand.New(rand.NewPCG(w.seed, w.runs<<8|uint64(i))), rounds: rounds}
		g.Go(func() error {
			if err := run(ctx, c); err != nil {
				return fmt.Errorf("client %s: %w", c.l.Client, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func index(name string, id uint32) table.Index {
	return table.Index{ID: id, Name: name, Global: true, Hash: []table.Attribute{{Name: "st", Kind: item.KindS}}, Projection: table.ProjectAll}
}

func schema(name string) table.Schema {
	return table.Schema{Name: name, Hash: table.Attribute{Name: "pk", Kind: item.KindS}, Range: table.Attribute{Name: "sk", Kind: item.KindN}}
}

func (w *Workload) setUp(ctx context.Context, e *Engine) error {
	c := &client{e: e, l: w.tables}
	orders := &table.Definition{Schema: schema(ordersTable)}
	orders.Schema.Indexes = []table.Index{index("by-st", 0)}
	carts := &table.Definition{Schema: schema(cartsTable), Replicas: []table.Replica{
		{Region: otherRegion, Status: table.Active}, {Region: e.Region.Name(), Status: table.Active},
	}}
	return errors.Join(c.create(ctx, orders), c.create(ctx, carts))
}

// client is one client at work.
type client struct {
	e      *Engine
	l      *Ledger
	rng    *rand.Rand
	rounds int
}

// until waits for the catalog to say so.
func (c *client) until(ctx context.Context, holds func() bool) error {
	changed, stop := c.e.Region.Watch()
	defer stop()
	for !holds() {
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// tableEntry is how State.Tables has a table.
func tableEntry(s *table.Schema) string {
	entry := s.Name
	for _, x := range s.Indexes {
		entry += ":" + x.Name
	}
	return entry + " "
}

func (c *client) create(ctx context.Context, d *table.Definition) error {
	name := d.Schema.Name
	s := c.l.last()
	s.Tables += tableEntry(&d.Schema)
	c.l.ask(s)
	if _, err := c.e.Region.Create(ctx, d); err != nil {
		return err
	}
	c.l.ack(0)
	return c.until(ctx, func() bool { _, err := c.e.Region.Table(ctx, name); return err == nil })
}

// runTables makes tables, puts items in, adds an index, and deletes them again.
func runTables(ctx context.Context, c *client) error {
	for round := range c.rounds / 16 {
		name := fmt.Sprint(tempPrefix, round%2)
		if err := c.create(ctx, &table.Definition{Schema: schema(name)}); err != nil {
			return err
		}
		t, err := c.e.Region.Table(ctx, name)
		if err != nil {
			return err
		}
		for sk := range 4 {
			if err := c.put(ctx, t, sk, nil); err != nil {
				return err
			}
		}
		s := c.l.last()
		s.Tables = strings.Replace(s.Tables, name+" ", name+":later ", 1)
		c.l.ask(s)
		if _, err := c.e.Region.Change(ctx, name, func(d *table.Definition) error {
			x := index("later", d.Schema.NextIndexID())
			x.Backfilling = true
			d.Schema.Indexes, d.Status = append(d.Schema.Indexes, x), table.Updating
			return nil
		}); err != nil {
			return err
		}
		c.l.ack(0)
		if err := c.put(ctx, t, c.rng.IntN(6), nil); err != nil {
			return err
		}
		if err := c.until(ctx, func() bool {
			d, err := c.e.Region.Definition(name)
			return err == nil && d.Status == table.Active
		}); err != nil {
			return err
		}
		s = State{Tables: strings.Replace(c.l.last().Tables, name+":later ", "", 1)}
		c.l.ask(s)
		if _, err := c.e.Region.Delete(ctx, name, nil); err != nil {
			return err
		}
		c.l.ack(0)
		if err := c.until(ctx, func() bool { _, err := c.e.Region.Definition(name); return errors.Is(err, region.ErrNoTable) }); err != nil {
			return err
		}
	}
	return nil
}

// runWriter writes to the table of one region, in every way there is, and has the store flushed.
func runWriter(ctx context.Context, c *client) error {
	t, err := c.e.Region.Table(ctx, ordersTable)
	if err != nil {
		return err
	}
	for round := range c.rounds {
		if err := c.write(ctx, t); err != nil {
			return err
		}
		if round%20 == 19 {
			if err := c.e.Store.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// runMember writes to the global table.
func runMember(ctx context.Context, c *client) error {
	t, err := c.e.Region.Table(ctx, cartsTable)
	if err != nil {
		return err
	}
	for range c.rounds {
		if err := c.write(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// write does one thing to one of the client's items.
func (c *client) write(ctx context.Context, t *region.Table) error {
	sk := c.rng.IntN(keysPerClient)
	switch c.rng.IntN(6) {
	case 0, 1:
		return c.put(ctx, t, sk, nil)
	case 2:
		cond, err := expr.ParseCondition("ConditionExpression", "attribute_not_exists(pk)", &expr.Placeholders{})
		if err != nil {
			return err
		}
		return c.put(ctx, t, sk, cond)
	case 3:
		return c.delete(ctx, t, sk)
	default:
		return c.update(ctx, t, sk)
	}
}

func (c *client) keyOf(t *region.Table, sk int) (name string, key table.Key) {
	return fmt.Sprint(t.Schema().Name, "/", sk), t.Schema().KeyOfValues(item.S(c.l.Client), number(sk))
}

func number(n int) item.Value { return item.N(item.NumberFromInt(int64(n))) }

// item returns an item of the client's with content of its own.
func (c *client) item(sk int) item.Item {
	body := make([]byte, 20+c.rng.IntN(200))
	for i := range body {
		body[i] = 'a' + byte(c.rng.IntN(26))
	}
	return item.NewItem(
		item.Field{Name: "pk", Value: item.S(c.l.Client)}, item.Field{Name: "sk", Value: number(sk)},
		item.Field{Name: "st", Value: item.S(fmt.Sprint("state-", c.rng.IntN(3)))}, item.Field{Name: "body", Value: item.S(string(body))},
	)
}

// command carries a command out that is to lead to the state next.
func (c *client) command(ctx context.Context, t *region.Table, cmd *op.Command, next State) error {
	c.l.ask(next)
	result, err := t.Write(ctx, cmd)
	if err = errors.Join(err, result.Err); err != nil {
		return err
	}
	c.l.ack(result.Dot.HLC)
	return nil
}

func (c *client) put(ctx context.Context, t *region.Table, sk int, cond *expr.Condition) error {
	name, key := c.keyOf(t, sk)
	stored := item.AppendItem(nil, c.item(sk))
	cmd := &op.Command{Kind: op.Put, Key: key, Item: stored, Condition: cond}
	last := c.l.last()
	if cond != nil && last.Items[name] != "" {
		result, err := t.Write(ctx, cmd)
		if _, refused := errors.AsType[*op.ConditionFailed](result.Err); err != nil || !refused {
			return fmt.Errorf("a put that must be refused: %w", errors.Join(err, result.Err, errors.New("it was not")))
		}
		return nil
	}
	return c.command(ctx, t, cmd, last.with(name, string(stored)))
}

func (c *client) delete(ctx context.Context, t *region.Table, sk int) error {
	name, key := c.keyOf(t, sk)
	return c.command(ctx, t, &op.Command{Kind: op.Delete, Key: key}, c.l.last().with(name, ""))
}

func (c *client) update(ctx context.Context, t *region.Table, sk int) error {
	name, key := c.keyOf(t, sk)
	st := item.S(fmt.Sprint("state-", c.rng.IntN(3)))
	given := expr.Given(nil, map[string]item.Value{":st": st, ":one": number(1)})
	update, err := expr.ParseUpdate("SET st = :st ADD hits :one", &given)
	if err != nil {
		return err
	}
	last := c.l.last()
	it := item.NewItem(item.Field{Name: "pk", Value: item.S(c.l.Client)}, item.Field{Name: "sk", Value: number(sk)})
	if old := last.Items[name]; old != "" {
		if it, err = item.DecodeItem([]byte(old)); err != nil {
			return err
		}
	}
	hits := number(1)
	if old := it.Get("hits"); !old.IsAbsent() {
		var n int64
		if _, err := fmt.Sscan(old.Number().String(), &n); err != nil {
			return err
		}
		hits = number(int(n) + 1)
	}
	next := last.with(name, string(item.AppendItem(nil, it.With("st", st).With("hits", hits))))
	return c.command(ctx, t, &op.Command{Kind: op.Update, Key: key, Update: update}, next)
}

// runMerger is another region: it writes there and has the deltas, some at a time, merged here; the cursor is the
// number of the state. It also folds what is stable.
func (w *Workload) runMerger(ctx context.Context, c *client) error {
	t, err := c.e.Region.Table(ctx, cartsTable)
	if err != nil {
		return err
	}
	part := t.Partitions()[0]
	actor := crdt.NewActor(otherRegion, 1)
	for round := range c.rounds {
		stamp := part.State().Clock + 1 // as the other region's would be, had it seen everything
		next := c.l.last()
		var deltas []op.Delta
		for range 1 + c.rng.IntN(4) {
			sk := c.rng.IntN(keysPerClient)
			name, key := c.keyOf(t, sk)
			if w.merged[name] == nil {
				w.merged[name] = &crdt.Record{}
			}
			write := crdt.Write{Dot: crdt.Dot{HLC: stamp, Actor: actor}, Origin: crdt.Origin{Op: crdt.Delete}}
			next = next.with(name, "")
			if c.rng.IntN(4) > 0 {
				write.Op, write.Item = crdt.Put, item.AppendItem(nil, c.item(sk))
				next = next.with(name, string(write.Item))
			}
			stamp++
			deltas = append(deltas, op.Delta{Key: key, State: w.merged[name].Write(write).Append(nil)})
		}
		number := c.l.ask(next)
		if err := t.Merge(ctx, op.Cursor{Stream: mergeStream, Seq: uint64(number)}, stamp, deltas); err != nil {
			return err
		}
		c.l.ack(stamp)
		if round%8 == 7 {
			// Everything that the other region has written is here, and whatever it writes next is later.
			if err := part.Fold(ctx, part.State().Clock, part.State().Seq); err != nil {
				return err
			}
		}
	}
	return nil
}

// runRestorer restores items, some at a time.
func runRestorer(ctx context.Context, c *client) error {
	t, err := c.e.Region.Table(ctx, ordersTable)
	if err != nil {
		return err
	}
	for range c.rounds / 3 {
		next := c.l.last()
		var items [][]byte
		for range 2 + c.rng.IntN(6) {
			sk := c.rng.IntN(keysPerClient)
			name, _ := c.keyOf(t, sk)
			items = append(items, item.AppendItem(nil, c.item(sk)))
			next = next.with(name, string(items[len(items)-1]))
		}
		c.l.ask(next)
		if err := t.Restore(ctx, items); err != nil {
			return err
		}
		c.l.ack(0)
		if err := t.Partitions()[0].Fold(ctx, t.Partitions()[0].State().Clock, t.Partitions()[0].State().Seq); err != nil {
			return err
		}
	}
	return nil
}
