package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/admin"
	values "github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// Goal: two regions of three nodes each keep a table in step, whichever nodes of theirs answer for them, and lose
// nothing that was acknowledged when one of those is killed. Method: six engines in this process over memory disks;
// messages within a region go through queues, and streams between regions straight from the one's Source to the other's
// Sink, ending when the node that sends is killed.

const within = 2 * time.Minute

type engines struct {
	t       *testing.T
	regions map[string][]*engine
}

type engine struct {
	w      *engines
	region string
	id     uint64
	fs     *vfs.MemFS
	mail   chan envelope

	mu      sync.RWMutex // held for reading while the engine is in use
	e       *node.Engine // nil while it is down
	going   atomic.Bool  // it is being killed: whoever uses it comes to an end, and nothing it says counts
	cancel  context.CancelFunc
	stopped chan error
}

type envelope struct {
	from uint64
	m    group.Message
}

func newEngines(t *testing.T, names ...string) *engines {
	w := &engines{t: t, regions: map[string][]*engine{}}
	done := make(chan struct{})
	var carriers sync.WaitGroup
	var all []*engine
	for _, name := range names {
		for id := range uint64(3) {
			n := &engine{w: w, region: name, id: id + 1, fs: vfs.NewCrashableMem(), mail: make(chan envelope, 1024)}
			w.regions[name] = append(w.regions[name], n)
			all = append(all, n)
			carriers.Go(func() {
				for {
					select {
					case got := <-n.mail:
						n.use(func(e *node.Engine) { e.Receive(got.from, got.m) })
					case <-done:
						return
					}
				}
			})
		}
	}
	for _, n := range all {
		n.start()
	}
	t.Cleanup(func() {
		for _, n := range all {
			n.kill()
		}
		close(done)
		carriers.Wait()
	})
	return w
}

func (n *engine) start() {
	cfg := node.Config{
		Region: n.region, Node: fmt.Sprintf("n%d", n.id), Data: "data", Auth: "off", FS: n.fs,
		NodeID: n.id, Voters: []uint64{1, 2, 3}, Tick: 20 * time.Millisecond,
		Send: func(to uint64, m group.Message) {
			if n.going.Load() {
				return // what it writes from now on is lost, and nobody may hear of it
			}
			select {
			case n.w.regions[n.region][to-1].mail <- envelope{n.id, m}:
			default:
			}
		},
		Ask: func(ctx context.Context, to uint64, q []byte) ([]byte, error) {
			err := region.ErrNotAsked
			var answer []byte
			if !n.going.Load() {
				n.w.regions[n.region][to-1].use(func(e *node.Engine) { answer, err = e.Answer(ctx, q), nil })
			}
			return answer, err
		},
		Sizes: node.Sizes{CacheBytes: 1 << 20, MemTableBytes: 1 << 20, SegmentBytes: 1 << 20},
		Fatal: func(err error) { panic(err) },
	}
	e, err := node.OpenEngine(cfg)
	if err != nil {
		n.w.t.Error(err)
		return
	}
	for name := range n.w.regions {
		if name != n.region {
			e.AddPeer(name, &direct{w: n.w, from: n, to: name})
		}
	}
	n.going.Store(false)
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.stopped = make(chan error, 1)
	go func() { n.stopped <- e.Run(ctx) }()
	n.mu.Lock()
	n.e = e
	n.mu.Unlock()
}

// kill ends the engine as a power cut does.
func (n *engine) kill() {
	n.going.Store(true)
	left := n.fs.CrashClone(vfs.CrashCloneCfg{})
	n.mu.Lock()
	e := n.e
	n.e = nil
	n.mu.Unlock()
	if e == nil {
		return
	}
	n.cancel()
	if err := errors.Join(<-n.stopped, e.Close()); err != nil {
		n.w.t.Error(err)
	}
	n.fs = left
}

// use calls f with the engine, if it is up.
func (n *engine) use(f func(*node.Engine)) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.e != nil {
		f(n.e)
	}
	return n.e != nil
}

var errDown = errors.New("the node is down")

// direct is another region as a replication.Peer: one of its nodes after the other, until one does not refuse.
type direct struct {
	w    *engines
	from *engine
	to   string
	at   atomic.Int64
}

func (d *direct) call(f func(n *engine, s replication.Source) error) error {
	n := d.w.regions[d.to][d.at.Load()%3]
	err := errDown
	n.use(func(e *node.Engine) { err = f(n, e.Source()) })
	if err != nil && !errors.Is(err, replication.ErrTruncated) {
		d.at.Add(1)
	}
	return err
}

func (d *direct) Exchange(ctx context.Context, ours replication.Tables) (theirs replication.Tables, err error) {
	err = d.call(func(_ *engine, s replication.Source) (err error) {
		theirs, err = s.Exchange(ctx, ours)
		return err
	})
	return theirs, err
}

func (d *direct) Relay(ctx context.Context, q replication.RelayRequest, receive func(replication.SeedPart) error) error {
	return d.call(func(_ *engine, s replication.Source) error { return s.Relay(ctx, q, receive) })
}

func (d *direct) Beat(ctx context.Context, region string) (b replication.Beat, err error) {
	err = d.call(func(_ *engine, s replication.Source) error {
		b, err = s.Beat(ctx, region)
		return err
	})
	return b, err
}

func (d *direct) Seed(ctx context.Context, q replication.SeedRequest, receive func(replication.SeedPart) error) error {
	return d.call(func(n *engine, s replication.Source) error {
		return s.Seed(ctx, q, func(p replication.SeedPart) error {
			if n.going.Load() {
				return errDown
			}
			return receive(p)
		})
	})
}

func (d *direct) Digest(ctx context.Context, q replication.DigestRequest, receive func(replication.DigestPart) error) error {
	return d.call(func(_ *engine, s replication.Source) error { return s.Digest(ctx, q, receive) })
}

func (d *direct) List(ctx context.Context, q replication.ListRequest, receive func([]replication.Entry) error) error {
	return d.call(func(_ *engine, s replication.Source) error { return s.List(ctx, q, receive) })
}

func (d *direct) Fetch(ctx context.Context, q replication.FetchRequest, receive func(replication.SeedPart) error) error {
	return d.call(func(_ *engine, s replication.Source) error { return s.Fetch(ctx, q, receive) })
}

func (d *direct) Follow(ctx context.Context, from replication.Resume, sink replication.Sink) error {
	return d.call(func(n *engine, s replication.Source) error {
		log, err := s.Log(from)
		if err != nil {
			return err
		}
		feed, follower := replication.NewFeed(from.Seq, replication.Window), replication.NewFollower(from.Seq)
		changed, stop := log.Watch()
		defer stop()
		for {
			more, err := feed.Pump(log, func(b replication.Batch) error {
				if n.going.Load() {
					return errDown
				}
				follower.Batch(b)
				_, err := follower.Apply(ctx, sink)
				return err
			}, func(p replication.Progress) error {
				follower.Progress(p)
				_, err := follower.Apply(ctx, sink)
				return err
			})
			if err != nil {
				return err
			}
			if n.going.Load() || d.from.going.Load() {
				return errDown
			}
			feed.Credit(follower.Credit(replication.Window))
			log.Acked(follower.Applied())
			if more {
				continue
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Millisecond): // to look whether the node is going
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

func (w *engines) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// leader returns the node that answers for a region.
func (w *engines) leader(name string) (leads *engine) {
	w.until("a node leads "+name, func() bool {
		for _, n := range w.regions[name] {
			n.use(func(e *node.Engine) {
				if e.Region().Leads() {
					leads = n
				}
			})
		}
		return leads != nil
	})
	return leads
}

var events = table.Schema{Name: "events", Hash: table.Attribute{Name: "pk", Kind: values.KindS}}

// put writes an item once, and tells whether it was acknowledged.
func (n *engine) put(ctx context.Context, pk string) (acknowledged bool) {
	stored := values.AppendItem(nil, values.NewItem(values.Field{Name: "pk", Value: values.S(pk)}))
	key, err := events.KeyOf(stored)
	if err != nil {
		panic(err)
	}
	n.use(func(e *node.Engine) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		t, err := e.Region().Table(ctx, events.Name)
		if err == nil {
			var result op.Result
			result, err = t.Write(ctx, &op.Command{Kind: op.Put, Key: key, Item: stored})
			err = errors.Join(err, result.Err)
		}
		acknowledged = err == nil && !n.going.Load()
	})
	return acknowledged
}

// keys returns what a node shows to a consistent read, nil when it cannot.
func (n *engine) keys() (keys []string) {
	n.use(func(e *node.Engine) {
		ctx, cancel := context.WithTimeout(n.w.t.Context(), within)
		defer cancel()
		t, err := e.Region().Table(ctx, events.Name)
		if err != nil {
			return
		}
		page, err := t.Page(ctx, op.Page{}, true)
		if err != nil {
			return
		}
		for _, k := range page.Keys {
			keys = append(keys, string(k))
		}
	})
	return keys
}

func keyOf(pk string) string {
	k, err := events.KeyOf(values.AppendItem(nil, values.NewItem(values.Field{Name: "pk", Value: values.S(pk)})))
	if err != nil {
		panic(err)
	}
	return string(k)
}

func TestRegionsOfThreeNodesKeepWhatWasAcknowledgedWhenTheirLeadersFail(t *testing.T) {
	const east, west = "us-east-1", "us-west-2"
	w := newEngines(t, east, west)
	ctx := t.Context()

	// A table of one region with items becomes a global one.
	first := w.regions[east][0].e.Region()
	if err := first.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Create(ctx, &table.Definition{Schema: events}); err != nil {
		t.Fatal(err)
	}
	w.until("the table is active", func() bool { return w.regions[east][1].put(ctx, "seeded") })
	if _, err := first.Change(ctx, events.Name, func(d *table.Definition) error {
		stamp := uint64(first.Stamp())
		d.SetReplica(east, east, table.Active, stamp)
		d.SetReplica(east, west, table.Creating, stamp)
		d.Status, d.Version = table.Updating, stamp
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.until("the other region has it", func() bool { return slices.Equal(w.regions[west][2].keys(), []string{keyOf("seeded")}) })

	var mu sync.Mutex
	acknowledged := []string{keyOf("seeded")}
	var stop atomic.Bool
	var writers sync.WaitGroup
	for _, nodes := range w.regions {
		for _, n := range nodes {
			writers.Go(func() {
				for i := 0; !stop.Load(); i++ {
					if pk := fmt.Sprintf("%s-%d-%d", n.region, n.id, i); n.put(ctx, pk) {
						mu.Lock()
						acknowledged = append(acknowledged, keyOf(pk))
						mu.Unlock()
					}
					time.Sleep(2 * time.Millisecond)
				}
			})
		}
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
	for _, name := range []string{east, west, east} {
		have := count()
		w.until("there are more writes", func() bool { return count() > have+100 })
		killed := w.leader(name)
		killed.kill()
		have = count()
		w.until("writes go on without node "+fmt.Sprint(killed.id)+" of "+name, func() bool { return count() > have+100 })
		killed.start()
	}
	stop.Store(true)
	writers.Wait()

	var all []string
	w.until("all nodes show the same", func() bool {
		all = nil
		for _, nodes := range w.regions {
			for _, n := range nodes {
				keys := n.keys()
				if keys == nil || all != nil && !slices.Equal(keys, all) {
					return false
				}
				all = keys
			}
		}
		return true
	})
	for _, k := range acknowledged {
		if !slices.Contains(all, k) {
			t.Errorf("%q was acknowledged and is not there", k)
		}
	}
	t.Logf("%d acknowledged, %d there", len(acknowledged), len(all))
	// Those that lead now know again what is stable, and what nobody needs.
	w.until("everything is folded and the change logs are cut", func() bool {
		for _, nodes := range w.regions {
			for _, n := range nodes {
				done := false
				n.use(func(e *node.Engine) {
					for _, tab := range e.Region().Tables() {
						s := tab.Partitions()[0].State()
						done = s.Folded == s.Seq && s.Trimmed+replication.SkipAfter >= s.Seq
					}
				})
				if !done {
					return false
				}
			}
		}
		return true
	})
}

// One node of a region answers for it, and the others say that they do not.
func TestANodeThatDoesNotLeadSaysSo(t *testing.T) {
	w := newEngines(t, "us-east-1")
	leader := w.leader("us-east-1")
	ask := func(n *engine) error {
		err := errDown
		n.use(func(e *node.Engine) {
			_, err = e.Source().Exchange(t.Context(), replication.Tables{Region: "us-west-2"})
		})
		return err
	}
	w.until("the leader answers", func() bool { return ask(leader) == nil })
	for _, n := range w.regions["us-east-1"] {
		if n == leader {
			continue
		}
		if err := ask(n); !errors.Is(err, replication.ErrNotLeader) {
			t.Errorf("exchange at node %d: %v", n.id, err)
		}
		n.use(func(e *node.Engine) {
			if _, err := e.Source().Log(replication.Resume{Region: "us-west-2"}); !errors.Is(err, replication.ErrNotLeader) {
				t.Errorf("log at node %d: %v", n.id, err)
			}
			err := e.Source().Seed(t.Context(), replication.SeedRequest{Region: "us-west-2"}, func(replication.SeedPart) error { return nil })
			if !errors.Is(err, replication.ErrNotLeader) {
				t.Errorf("seed at node %d: %v", n.id, err)
			}
		})
	}
}

// Whichever node is asked to hold its region against the others, and how that goes: the one that leads does it.
func TestVerifyIsAskedOfAnyNode(t *testing.T) {
	w := newEngines(t, "us-east-1")
	leader := w.leader("us-east-1")
	operate := func(n *engine, operation, body string) (code int, job admin.VerifyJob, text string) {
		n.use(func(e *node.Engine) {
			q := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
			q.Header.Set("Content-Type", "application/x-amz-json-1.0")
			q.Header.Set("X-Amz-Target", "Commutator_20261122."+operation)
			q.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00")
			q.Header.Set("X-Amz-Date", "20260101T000000Z")
			a := httptest.NewRecorder()
			e.Handler().ServeHTTP(a, q)
			code, text = a.Code, a.Body.String()
			if code == http.StatusOK {
				if err := json.Unmarshal(a.Body.Bytes(), &job); err != nil {
					t.Error(err)
				}
			}
		})
		return code, job, text
	}
	w.until("the leader verifies", func() bool { code, _, _ := operate(leader, "Verify", "{}"); return code == http.StatusOK })
	for _, n := range w.regions["us-east-1"] {
		if n == leader {
			continue
		}
		var job admin.VerifyJob
		w.until("another node has heard who leads", func() bool {
			code, j, _ := operate(n, "Verify", "{}")
			job = j
			return code == http.StatusOK
		})
		for _, asked := range w.regions["us-east-1"] {
			w.until(fmt.Sprintf("node %d tells of job %s", asked.id, job.ID), func() bool {
				code, told, _ := operate(asked, "DescribeVerify", fmt.Sprintf(`{"ID":%q}`, job.ID))
				return code == http.StatusOK && told.ID == job.ID
			})
		}
		if code, _, text := operate(n, "Verify", `{"TableName":"none"}`); code != http.StatusBadRequest || !strings.Contains(text, "ResourceNotFoundException") {
			t.Errorf("a table that there is not: %s", text)
		}
		if code, _, text := operate(n, "DescribeVerify", `{"ID":"none"}`); code != http.StatusBadRequest || !strings.Contains(text, "no job none") {
			t.Errorf("a job that there is not: %s", text)
		}
	}
}
