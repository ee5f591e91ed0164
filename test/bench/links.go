package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// What two regions in one process, on a disk and over TCP, do for each other under load. Writers go through the region and not through
// HTTP: what is measured is what lies behind it.

const (
	near, far  = "us-east-1", "eu-west-1"
	lagFor     = 5 * time.Second // one measurement of lag
	wanTrip    = 100 * time.Millisecond
	increments = 10_000
	loaders    = 32               // who write at once, where it is about rate
	liveFor    = 20 * time.Second // the live load that catching up is held against
	deadFor    = 3 * time.Second
	backFor    = 3 * time.Second
	backRate   = 1000 // local writes a second, in each region, while one catches up
)

// pair is two regions under measurement.
type pair struct {
	out     io.Writer
	dir     string
	dev     *node.Dev
	clients []*dynamodb.Client
}

// measureLinks measures, between two regions, all that links are for.
func measureLinks(ctx context.Context, out io.Writer, dir string) (err error) {
	d, clients, stop, err := startDev(ctx, []string{near, far}, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	p := &pair{out: out, dir: dir, dev: d, clients: clients}
	for _, measure := range []struct {
		name string
		do   func(context.Context) error
	}{{"replica", p.emptyReplica}, {"lag", p.lag}, {"counter", p.counter}, {"dead", p.deadPeer}, {"catchup", p.catchUp}, {"back", p.back}, {"verify", p.verify}, {"seed", p.seed}} {
		if *only != "" && *only != measure.name {
			continue
		}
		stop := func() {}
		if measure.name != "catchup" && measure.name != "back" { // which have a profile of the catching up alone
			if stop, err = profile(); err != nil {
				return err
			}
		}
		err = measure.do(ctx)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", measure.name, err)
		}
	}
	return nil
}

// profile writes a profile of the CPU until stop is called, if one is asked for.
func profile() (stop func(), err error) {
	if *cpuProfile == "" {
		return func() {}, nil
	}
	f, err := os.Create(*cpuProfile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// create makes a table in the first region.
func (p *pair) create(ctx context.Context, name string) (*region.Table, error) {
	_, err := p.clients[0].CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		return nil, err
	}
	if err := waitActive(ctx, p.clients[0], name); err != nil {
		return nil, err
	}
	return p.table(ctx, 0, name)
}

func (p *pair) table(ctx context.Context, at int, name string) (*region.Table, error) {
	return p.dev.Nodes()[at].Region().Table(ctx, name)
}

// replicate gives the second region a replica and returns after what time it was ACTIVE there.
func (p *pair) replicate(ctx context.Context, name string) (time.Duration, error) {
	begun := time.Now()
	_, err := p.clients[0].UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{
		{Create: &types.CreateReplicationGroupMemberAction{RegionName: aws.String(far)}},
	}})
	if err != nil {
		return 0, err
	}
	for ctx.Err() == nil {
		if d, err := p.dev.Nodes()[1].Region().Definition(name); err == nil && d.Replica(far) != nil && d.Replica(far).Status == table.Active {
			return time.Since(begun), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, ctx.Err()
}

// global makes a table with replicas in both regions.
func (p *pair) global(ctx context.Context, name string) (tables [2]*region.Table, err error) {
	if tables[0], err = p.create(ctx, name); err != nil {
		return tables, err
	}
	if _, err = p.replicate(ctx, name); err != nil {
		return tables, err
	}
	for _, c := range p.clients {
		if err := waitActive(ctx, c, name); err != nil {
			return tables, err
		}
	}
	tables[1], err = p.table(ctx, 1, name)
	return tables, err
}

func (p *pair) control(q node.ControlRequest) error {
	_, err := node.Control(p.dir, q)
	return err
}

// order is an item of about 1 KB, such as a shop keeps: names that come again, and values of its own.
func order(i int) item.Item {
	rng := rand.New(rand.NewPCG(uint64(i), 11))
	pick := func(words ...string) item.Value { return item.S(words[rng.IntN(len(words))]) }
	number := func(n int) item.Value { return item.N(item.NumberFromInt(int64(rng.IntN(n)))) }
	text := func(n int) item.Value {
		b := make([]byte, n)
		for j := range b {
			b[j] = "0123456789abcdef"[rng.IntN(16)]
		}
		return item.S(string(b))
	}
	var lines []item.Value
	for range 8 {
		lines = append(lines, item.NewItem(
			item.Field{Name: "productId", Value: text(12)}, item.Field{Name: "quantity", Value: number(9)},
			item.Field{Name: "unitPrice", Value: number(100_000)}, item.Field{Name: "warehouse", Value: pick("hamburg-2", "rotterdam-1", "leipzig-4")},
			item.Field{Name: "description", Value: pick("Ceramic mug, 330 ml, dishwasher safe", "Notebook, dotted, 120 pages", "USB-C cable, braided, 2 m")},
		).AsMap())
	}
	return item.NewItem(
		item.Field{Name: "pk", Value: item.S(fmt.Sprintf("order#%09d", i))},
		item.Field{Name: "customerId", Value: text(24)},
		item.Field{Name: "customerName", Value: pick("Ada Lovelace", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov", "Leslie Lamport")},
		item.Field{Name: "street", Value: pick("Musterstrasse 12", "Rue de la Paix 7", "High Street 101", "Via Roma 33")},
		item.Field{Name: "city", Value: pick("Berlin", "Paris", "London", "Torino", "Wien")},
		item.Field{Name: "status", Value: pick("CREATED", "PAID", "SHIPPED", "DELIVERED", "RETURNED")},
		item.Field{Name: "createdAt", Value: item.S(fmt.Sprintf("2026-11-%02dT%02d:%02d:%02dZ", 1+rng.IntN(28), rng.IntN(24), rng.IntN(60), rng.IntN(60)))},
		item.Field{Name: "lines", Value: item.L(lines...)},
		item.Field{Name: "notes", Value: pick("Please leave the parcel with the neighbour if nobody is at home.", "Ring twice.", "Gift wrapping, with the card that was sent by separate mail.")},
		item.Field{Name: "total", Value: number(1_000_000)},
		item.Field{Name: "paymentReference", Value: text(32)},
	)
}

// put writes one order as a client's PutItem would.
func put(ctx context.Context, t *region.Table, i int) error {
	stored := item.AppendItem(nil, order(i))
	key, err := t.Schema().KeyOf(stored)
	if err != nil {
		return err
	}
	result, err := t.Write(ctx, &op.Command{Kind: op.Put, Key: key, Item: stored})
	return errors.Join(err, result.Err)
}

// fill writes about so many bytes of orders, and returns how many.
func fill(ctx context.Context, t *region.Table, bytes int64) (n int, err error) {
	for done := int64(0); done < bytes; {
		var block [][]byte
		size := 0
		for size < 1<<20 {
			stored := item.AppendItem(nil, order(n))
			block, size, n = append(block, stored), size+len(stored), n+1
		}
		if err := t.Restore(ctx, block); err != nil {
			return n, err
		}
		done += int64(size)
	}
	return n, nil
}

// load writes orders from several tasks for a time, at most rate a second in all (0: as fast as it goes), and returns how long each took.
func load(ctx context.Context, t *region.Table, from, writers, rate int, length time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var next atomic.Int64
	all, errs := make([][]time.Duration, writers), make([]error, writers)
	begun := time.Now()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1))
				if rate > 0 {
					time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				}
				at := time.Now()
				if err := put(context.WithoutCancel(ctx), t, from+i); err != nil {
					errs[w] = err
					return
				}
				all[w] = append(all[w], time.Since(at))
			}
		})
	}
	wg.Wait()
	took := slices.Concat(all...)
	slices.Sort(took)
	return took, errors.Join(errs...)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(10 * time.Microsecond)
}

// there waits until a region shows the order of a number.
func there(ctx context.Context, t *region.Table, i int) error {
	stored := item.AppendItem(nil, order(i))
	key, err := t.Schema().KeyOf(stored)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		got, err := t.Get(ctx, key, false)
		if err != nil || got != nil {
			return err
		}
		time.Sleep(200 * time.Microsecond)
	}
	return ctx.Err()
}

// seen writes an order now and then until ctx ends, and returns after what time each was in the other region.
func seen(ctx context.Context, tables [2]*region.Table, from int) ([]time.Duration, error) {
	var lags []time.Duration
	for i := from; ctx.Err() == nil; i++ {
		begun := time.Now()
		if err := put(context.WithoutCancel(ctx), tables[0], i); err != nil {
			return nil, err
		}
		if err := there(ctx, tables[1], i); err != nil {
			break
		}
		lags = append(lags, time.Since(begun))
		time.Sleep(5 * time.Millisecond)
	}
	slices.Sort(lags)
	return lags, nil
}

func (p *pair) emptyReplica(ctx context.Context) error {
	if _, err := p.create(ctx, "empty"); err != nil {
		return err
	}
	took, err := p.replicate(ctx, "empty")
	fmt.Fprintf(p.out, "replica of an empty table: ACTIVE after %s (goal: under 2 s)\n", took.Round(time.Millisecond))
	return err
}

func (p *pair) lag(ctx context.Context) error {
	tables, err := p.global(ctx, "lag")
	if err != nil {
		return err
	}
	full, err := load(ctx, tables[0], 0, loaders, 0, lagFor)
	if err != nil {
		return err
	}
	rate := len(full) / int(lagFor.Seconds()) / 2
	for _, trip := range []time.Duration{0, wanTrip} {
		if err := p.control(node.ControlRequest{Command: "delay", Delay: trip / 2}); err != nil {
			return err
		}
		time.Sleep(time.Second) // what the load before has left behind
		loaded := make(chan error, 1)
		go func() {
			_, err := load(ctx, tables[0], 1_000_000, loaders, rate, lagFor)
			loaded <- err
		}()
		within, stop := context.WithTimeout(ctx, lagFor)
		lags, err := seen(within, tables, 2_000_000+int(trip))
		stop()
		if err = errors.Join(err, <-loaded); err != nil {
			return err
		}
		goal := "p50 under 20 ms, p99 under 200 ms"
		if trip > 0 {
			goal = "p99 under 1 s"
		}
		fmt.Fprintf(p.out, "lag at half load (%d writes of 1 KB a second), round trips of %s added: p50 %s, p99 %s of %d (goal: %s)\n", rate, trip, quantile(lags, .5), quantile(lags, .99), len(lags), goal)
	}
	return p.control(node.ControlRequest{Command: "delay"})
}

func (p *pair) counter(ctx context.Context) error {
	tables, err := p.global(ctx, "counter")
	if err != nil {
		return err
	}
	before := tables[1].Partitions()[0].State().Seq
	var next atomic.Int64
	errs := make([]error, loaders)
	var wg sync.WaitGroup
	for w := range loaders {
		wg.Go(func() {
			for next.Add(1) <= increments && errs[w] == nil {
				_, errs[w] = p.clients[0].UpdateItem(ctx, &dynamodb.UpdateItemInput{
					TableName: aws.String("counter"), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "n"}},
					UpdateExpression: aws.String("ADD n :one"), ExpressionAttributeValues: map[string]types.AttributeValue{":one": &types.AttributeValueMemberN{Value: "1"}},
				})
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for ctx.Err() == nil {
		got, err := p.clients[1].GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("counter"), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "n"}}})
		if err != nil {
			return err
		}
		if n, ok := got.Item["n"].(*types.AttributeValueMemberN); ok && n.Value == fmt.Sprint(increments) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	fmt.Fprintf(p.out, "%d increments of one counter: %d changes applied in the other region, with the same total\n", increments, tables[1].Partitions()[0].State().Seq-before)
	return ctx.Err()
}

// deadPeer holds writes while the other region cannot be reached against writes while it can, and against those of a table without
// another region.
func (p *pair) deadPeer(ctx context.Context) error {
	tables, err := p.global(ctx, "dead")
	if err != nil {
		return err
	}
	alone, err := p.create(ctx, "alone")
	if err != nil {
		return err
	}
	const rate = 2000
	for i, c := range []struct {
		what string
		t    *region.Table
		cut  bool
	}{{"a table without another region", alone, false}, {"the other region there", tables[0], false}, {"the other region dead", tables[0], true}, {"and there again", tables[0], false}} {
		if err := p.control(node.ControlRequest{Command: "heal"}); err != nil {
			return err
		}
		if c.cut {
			if err := p.control(node.ControlRequest{Command: "partition", Region: far}); err != nil {
				return err
			}
		}
		time.Sleep(time.Second)
		took, err := load(ctx, c.t, i*1_000_000, 8, rate, deadFor)
		if err != nil {
			return err
		}
		full, err := load(ctx, c.t, i*1_000_000+500_000, loaders, 0, deadFor)
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, "local writes, %s: at %d a second p50 %s, p99 %s; at most %.0f a second\n", c.what, rate, quantile(took, .5), quantile(took, .99), float64(len(full))/deadFor.Seconds())
	}
	return nil
}

// catchUp cuts the other region off, writes, and measures how fast it comes to have it, and what CPU time that takes: on a machine that
// others use, too, that is the steadier figure.
func (p *pair) catchUp(ctx context.Context) error {
	tables, err := p.global(ctx, "catchup")
	if err != nil {
		return err
	}
	spent, err := cpu()
	if err != nil {
		return err
	}
	begun := time.Now()
	// Other orders than are written behind the cut, and for so long that flushing, compacting and folding are in it.
	live, err := load(ctx, tables[0], 100_000_000, loaders, 0, liveFor)
	if err != nil {
		return err
	}
	if err := put(ctx, tables[0], 899_999_999); err != nil {
		return err
	}
	if err := there(ctx, tables[1], 899_999_999); err != nil {
		return err
	}
	liveRate := float64(len(live)) / time.Since(begun).Seconds()
	until, err := cpu()
	if err != nil {
		return err
	}
	liveCost := (until - spent) / time.Duration(len(live))
	if err := p.control(node.ControlRequest{Command: "partition", Region: far}); err != nil {
		return err
	}
	before, size := tables[0].Stats()
	if _, err = fill(ctx, tables[0], *catchUpSize); err != nil {
		return err
	}
	after, grown := tables[0].Stats()
	n := int(after - before)
	if err := put(ctx, tables[0], 900_000_000); err != nil { // the last
		return err
	}
	settle(p.dev.Nodes()[0])
	if err := p.control(node.ControlRequest{Command: "heal"}); err != nil {
		return err
	}
	begun = time.Now()
	for { // the link is there again
		if items, _ := tables[1].Stats(); items > before {
			break
		}
		time.Sleep(time.Millisecond)
	}
	idle := time.Since(begun)
	stop, err := profile()
	if err != nil {
		return err
	}
	defer stop()
	if spent, err = cpu(); err != nil {
		return err
	}
	if err := there(ctx, tables[1], 900_000_000); err != nil {
		return err
	}
	took := time.Since(begun) - idle
	if until, err = cpu(); err != nil {
		return err
	}
	cost, rate := (until-spent)/time.Duration(n), float64(n)/took.Seconds()
	fmt.Fprintf(p.out, "catch-up behind a cut: %d writes in %s (the link took %s to come back): %.0f a second, %.0f MB/s of items; live at full load %.0f a second: %.1f times (goal: 3); CPU time for each write: %s, live %s: %.1f times\n",
		n, took.Round(time.Millisecond), idle.Round(time.Millisecond), rate, float64(grown-size)/1e6/took.Seconds(), liveRate, rate/liveRate, cost.Round(time.Microsecond), liveCost.Round(time.Microsecond), float64(liveCost)/float64(cost))
	return nil
}

// back cuts the other region off, writes, and measures what local writes take in each region while the other one catches up.
func (p *pair) back(ctx context.Context) error {
	tables, err := p.global(ctx, "back")
	if err != nil {
		return err
	}
	if err := p.control(node.ControlRequest{Command: "partition", Region: far}); err != nil {
		return err
	}
	n, err := fill(ctx, tables[0], *catchUpSize)
	if err != nil {
		return err
	}
	if err := put(ctx, tables[0], 900_000_000); err != nil { // the last
		return err
	}
	settle(p.dev.Nodes()[0])
	for i, busy := range []bool{false, true} {
		within, done := context.WithCancel(ctx)
		defer done()
		if busy {
			if err := p.control(node.ControlRequest{Command: "heal"}); err != nil {
				return err
			}
			for within.Err() == nil { // the link is there again
				if items, _ := tables[1].Stats(); items > 2*backRate*int64(backFor.Seconds()) {
					break
				}
				time.Sleep(time.Millisecond)
			}
		} else {
			time.AfterFunc(backFor, done)
		}
		stop := func() {}
		if busy {
			if stop, err = profile(); err != nil {
				return err
			}
		}
		before, _ := tables[1].Stats()
		begun := time.Now()
		var took [2][]time.Duration
		var errs [2]error
		var wg sync.WaitGroup
		for at := range tables {
			wg.Go(func() {
				took[at], errs[at] = load(within, tables[at], (1+2*i+at)*100_000_000, 8, backRate, time.Hour)
			})
		}
		if busy {
			err = there(ctx, tables[1], 900_000_000)
			done()
		}
		length := time.Since(begun)
		wg.Wait()
		stop()
		if err := errors.Join(err, errs[0], errs[1]); err != nil {
			return err
		}
		what := "while the two are cut"
		if busy {
			what = fmt.Sprintf("while %d writes are caught up with in %s, %.0f a second", int64(n)-before, length.Round(time.Millisecond), float64(int64(n)-before)/length.Seconds())
		}
		for at, where := range []string{"that is ahead", "that is behind"} {
			fmt.Fprintf(p.out, "local writes, %d a second in each of two regions, %s: in the one %s p50 %s, p99 %s, longest %s of %d\n", backRate, what, where, quantile(took[at], .5), quantile(took[at], .99), quantile(took[at], 1), len(took[at]))
		}
	}
	return nil
}

// settle waits, for some time at most, until a node compacts no more of what was written much faster than clients write.
func settle(n *node.Node) {
	before := int64(-1)
	for range 20 {
		now := n.Store().Metrics().Compactions
		if now == before {
			return
		}
		before = now
		time.Sleep(2 * time.Second)
	}
}

// verify measures the lag of a table while another one is held against the other region's copy, one pass after the other.
func (p *pair) verify(ctx context.Context) error {
	live, err := p.global(ctx, "live")
	if err != nil {
		return err
	}
	large, err := p.global(ctx, "compared")
	if err != nil {
		return err
	}
	n, err := fill(ctx, large[0], *catchUpSize)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if items, _ := large[1].Stats(); items >= int64(n) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, size := large[0].Stats()
	for i, busy := range []bool{false, true} {
		within, stop := context.WithTimeout(ctx, lagFor)
		passes := make(chan int, 1)
		go func() {
			done := 0
			for busy && within.Err() == nil {
				verifier := p.dev.Nodes()[1].Verifier()
				job, err := verifier.Verify(within, admin.VerifyRequest{TableName: "compared"})
				for ok := err == nil; ok && job.Status == admin.JobRunning && within.Err() == nil; {
					time.Sleep(2 * time.Millisecond)
					job, err = verifier.VerifyJob(job.ID)
					ok = err == nil
				}
				if job.Status == admin.JobDone {
					done++
				}
			}
			passes <- done
		}()
		lags, err := seen(within, live, i*1_000_000)
		stop()
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, "lag, with %d passes of verify over %d MB in %s: p50 %s, p99 %s of %d (goal: p99 under 200 ms)\n", <-passes, size/1e6, lagFor, quantile(lags, .5), quantile(lags, .99), len(lags))
	}
	return nil
}

// seed gives a large table a replica while it is written to, and another one too.
func (p *pair) seed(ctx context.Context) error {
	other, err := p.global(ctx, "other")
	if err != nil {
		return err
	}
	t, err := p.create(ctx, "large")
	if err != nil {
		return err
	}
	begun := time.Now()
	n, err := fill(ctx, t, *seedBytes)
	if err != nil {
		return err
	}
	_, size := t.Stats()
	fmt.Fprintf(p.out, "seed: %d items, %d MB, written in %s\n", n, size/1e6, time.Since(begun).Round(time.Millisecond))
	measure := func(from int, until func() error) (took, lags []time.Duration, err error) {
		within, stop := context.WithCancel(ctx)
		defer stop()
		var wg sync.WaitGroup
		errs := make([]error, 2)
		wg.Go(func() { took, errs[0] = load(within, t, from, 8, 500, time.Hour) })
		wg.Go(func() { lags, errs[1] = seen(within, other, from) })
		err = until()
		stop()
		wg.Wait()
		return took, lags, errors.Join(append(errs, err)...)
	}
	took, lags, err := measure(100_000_000, func() error { time.Sleep(5 * time.Second); return nil })
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "seed: before it, writes to the table at 500 a second p50 %s, p99 %s; lag of another table p50 %s, p99 %s\n", quantile(took, .5), quantile(took, .99), quantile(lags, .5), quantile(lags, .99))
	var length time.Duration
	took, lags, err = measure(200_000_000, func() (err error) { length, err = p.replicate(ctx, "large"); return err })
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "seed: ACTIVE after %s, %.0f MB/s (goal: 1 GB in under 60 s); meanwhile writes p50 %s, p99 %s; lag of the other table p50 %s, p99 %s\n",
		length.Round(10*time.Millisecond), float64(size)/1e6/length.Seconds(), quantile(took, .5), quantile(took, .99), quantile(lags, .5), quantile(lags, .99))
	return nil
}
