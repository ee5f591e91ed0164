package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	links "github.com/commutatordb/commutator/replication/transport"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

const (
	benchNodes, benchGroups, benchClients = 3, 32, 64
	benchRounds                           = 4 // of each kind, alternating
)

// BenchmarkThreeNodesOverTCP proposes 1 KB commands at the leaders of 32 groups: three nodes in one process, each with a log on disk, synced,
// of its own, gRPC over loopback TCP between them. Beside it, in turns, a bare loop round etcd's raft does the same over logs and links of
// the same kind, and keeps nothing: of-bare is how much of its rate the groups reach.
func BenchmarkThreeNodesOverTCP(b *testing.B) {
	ours, bare := newBench(b, newHosts), newBench(b, newBares)
	var took [2]time.Duration
	n := max(1, b.N/benchRounds)
	b.ResetTimer()
	for range benchRounds {
		took[0] += ours(n)
		took[1] += bare(n)
	}
	b.StopTimer()
	rate := func(d time.Duration) float64 { return float64(n*benchRounds) / d.Seconds() }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate(took[0]), "proposals/s")
	b.ReportMetric(rate(took[1]), "bare/s")
	b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "of-bare")
}

// benched is one of the three nodes.
type benched interface {
	receive(from uint64, ms ...group.Message)
	unreachable(node uint64)
	run(ctx context.Context)
	leads(group uint64) bool
	propose(ctx context.Context, group uint64, i int, value []byte) error
}

// newBench starts three nodes and returns what has them commit n proposals, and how long that took.
func newBench(b *testing.B, node func(b *testing.B, id uint64, send func(to uint64, m group.Message)) benched) func(n int) time.Duration {
	nodes := make([]benched, benchNodes)
	ways := map[[2]uint64]*Link{}
	addresses := make([]string, benchNodes)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	var servers []*grpc.Server
	for i := range nodes {
		id := uint64(i + 1)
		nodes[i] = node(b, id, func(to uint64, m group.Message) { ways[[2]uint64{id, to}].Send(m) })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addresses[i] = l.Addr().String()
		s := links.NewServer(nil)
		Register(s, Receiver{Admit: func(_ context.Context, h Hello) (Hello, error) { return h, nil }, Receive: nodes[i].receive})
		servers = append(servers, s)
		running.Go(func() { s.Serve(l) })
	}
	for i, n := range nodes {
		for j, address := range addresses {
			if i == j {
				continue
			}
			conn, err := links.Connect(address, "", nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			from, to := uint64(i+1), uint64(j+1)
			ways[[2]uint64{from, to}] = NewLink(LinkConfig{
				Conn: conn, To: to, Hello: func() Hello { return Hello{Region: "r", From: from, To: to} }, Accept: func(Hello) error { return nil },
				Unreachable: n.unreachable, Logger: slog.New(slog.DiscardHandler),
			})
			b.Cleanup(func() { conn.Close() })
		}
	}
	for _, l := range ways {
		running.Go(func() { l.Run(ctx) })
	}
	for _, n := range nodes {
		running.Go(func() { n.run(ctx) })
	}
	b.Cleanup(func() {
		cancel()
		for _, s := range servers {
			s.Stop()
		}
		running.Wait()
	})
	leader := make([]benched, benchGroups)
	for end := time.Now().Add(20 * time.Second); ; {
		missing := 0
		for g := range leader {
			leader[g] = nil
			for _, n := range nodes {
				if n.leads(uint64(g + 1)) {
					leader[g] = n
				}
			}
			if leader[g] == nil {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		if time.Now().After(end) {
			b.Fatalf("%d groups have no leader", missing)
		}
		time.Sleep(10 * time.Millisecond) // it shows from outside alone
	}
	payload := make([]byte, 1000)
	return func(n int) time.Duration {
		begun := time.Now()
		next := make(chan int, 1024)
		var clients sync.WaitGroup
		for range benchClients {
			clients.Go(func() {
				for i := range next {
					g := i % benchGroups
					if err := leader[g].propose(ctx, uint64(g+1), i, payload); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		clients.Wait()
		return time.Since(begun)
	}
}

func benchLog(b *testing.B) *raftlog.Log {
	l, err := raftlog.Open(raftlog.Options{FS: vfs.Default, Dir: b.TempDir(), Salt: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// hosts is a node of ours.
type hosts struct {
	host   *group.Host
	groups []*group.Group
}

func newHosts(b *testing.B, id uint64, send func(to uint64, m group.Message)) benched {
	n := &hosts{}
	st, err := storage.Open(storage.Options{FS: vfs.Default, Dir: b.TempDir(), Flushed: func() { n.host.Flushed() }})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { st.Close() })
	n.host = group.NewHost(group.Config{NodeID: id, Voters: []uint64{1, 2, 3}, Log: benchLog(b), Store: st, Now: time.Now, Send: send})
	for g := range benchGroups {
		m := &values{id: uint64(g + 1)}
		opened, err := n.host.Open(m.id, m, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		n.groups = append(n.groups, opened)
	}
	return n
}

func (n *hosts) receive(from uint64, ms ...group.Message) { n.host.Receive(from, ms...) }
func (n *hosts) unreachable(node uint64)                  { n.host.Unreachable(node) }
func (n *hosts) run(ctx context.Context)                  { n.host.Run(ctx) }
func (n *hosts) leads(g uint64) bool                      { return n.groups[g-1].Leads() }
func (n *hosts) propose(ctx context.Context, g uint64, i int, value []byte) error {
	_, err := n.groups[g-1].Propose(ctx, &op.Command{Kind: op.Catalog, Name: fmt.Sprint(i % 100000), Value: value})
	return err
}

// values is a machine that writes each command's value under its name.
type values struct{ id, applied uint64 }

func (v *values) key(name string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte("v"), v.id), name...)
}

func (v *values) Apply(index uint64, c *op.Command, b *storage.Batch) op.Result {
	v.applied = index
	if c != nil {
		b.Set(v.key("n"+c.Name), c.Value)
	}
	return op.Result{}
}
func (v *values) Finish(b *storage.Batch) {
	b.Set(v.AppliedKey(), binary.BigEndian.AppendUint64(nil, v.applied))
}
func (v *values) Committed()          {}
func (v *values) Applied() uint64     { return v.applied }
func (v *values) AppliedKey() []byte  { return v.key("a") }
func (v *values) Ranges() [][2][]byte { return [][2][]byte{{v.key(""), v.key("z")}} }
func (v *values) Bounds() [][2][]byte { return v.Ranges() }
func (v *values) Reload() error       { return errors.New("nothing is to be sent here") }

// bares is a node that is a loop round raft, and no more: what is proposed, what has come, and the time; Ready of all groups; one write and
// one sync; what is to be sent; what is committed is answered.
type bares struct {
	id     uint64
	log    *raftlog.Log
	send   func(to uint64, m group.Message)
	groups []*raft.RawNode
	asked  [benchGroups][]*bareProposal // in the order of their entries
	wake   chan struct{}
	lead   [benchGroups]atomic.Bool

	mu   sync.Mutex
	in   []*bareProposal
	mail []group.Message
	tick bool
}

type bareProposal struct {
	group uint64
	data  []byte
	done  chan struct{}
}

// bareLog has nobody who lags so much.
type bareLog struct{ *raftlog.Group }

func (bareLog) Snapshot() (*pb.Snapshot, error) { return nil, raft.ErrSnapshotTemporarilyUnavailable }

func newBares(b *testing.B, id uint64, send func(to uint64, m group.Message)) benched {
	n := &bares{id: id, log: benchLog(b), send: send, wake: make(chan struct{}, 1)}
	for g := range benchGroups {
		begin := n.log.NewBatch()
		begin.SetSnapshot(uint64(g+1), &pb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: &pb.ConfState{Voters: []uint64{1, 2, 3}}})
		begin.Append(uint64(g+1), &pb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}, nil)
		if err := n.log.Commit(begin, true); err != nil {
			b.Fatal(err)
		}
		rn, err := raft.NewRawNode(&raft.Config{
			ID: id, ElectionTick: 10, HeartbeatTick: 2, Storage: bareLog{n.log.Group(uint64(g + 1))}, Applied: 1,
			MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 8 << 20, MaxInflightMsgs: 256, CheckQuorum: true, PreVote: true,
			Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
		})
		if err != nil {
			b.Fatal(err)
		}
		if uint64(g)%benchNodes == id-1 {
			if err := rn.Campaign(); err != nil {
				b.Fatal(err)
			}
		}
		n.groups = append(n.groups, rn)
	}
	return n
}

func (n *bares) change(f func()) {
	n.mu.Lock()
	f()
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *bares) receive(_ uint64, ms ...group.Message) {
	n.change(func() { n.mail = append(n.mail, ms...) })
}
func (n *bares) unreachable(uint64)  {}
func (n *bares) leads(g uint64) bool { return n.lead[g-1].Load() }

func (n *bares) propose(ctx context.Context, g uint64, _ int, value []byte) error {
	p := &bareProposal{g, value, make(chan struct{}, 1)}
	n.change(func() { n.in = append(n.in, p) })
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *bares) run(ctx context.Context) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() {
		for {
			select {
			case <-ticker.C:
				n.change(func() { n.tick = true })
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		select {
		case <-n.wake:
			runtime.Gosched() // whoever is about to propose shares the sync
			n.step()
		case <-ctx.Done():
			return
		}
	}
}

func (n *bares) step() {
	n.mu.Lock()
	in, mail, tick := n.in, n.mail, n.tick
	n.in, n.mail, n.tick = nil, nil, false
	n.mu.Unlock()
	for _, m := range mail {
		n.groups[m.Group-1].Step(m.Raft) // what it refuses is lost
	}
	for _, g := range n.groups {
		if tick {
			g.Tick()
		}
	}
	for _, p := range in {
		if err := n.groups[p.group-1].Propose(p.data); err != nil {
			panic(err)
		}
		n.asked[p.group-1] = append(n.asked[p.group-1], p)
	}
	for n.ready() {
	}
}

func (n *bares) ready() bool {
	rds := map[int]raft.Ready{}
	write := n.log.NewBatch()
	for i, g := range n.groups {
		if !g.HasReady() {
			continue
		}
		rd := g.Ready()
		rds[i] = rd
		for _, m := range rd.Messages {
			if m.GetType() == pb.MsgApp || m.GetType() == pb.MsgHeartbeat {
				n.send(m.GetTo(), group.Message{Group: uint64(i + 1), Raft: m})
			}
		}
		if rd.MustSync {
			write.Append(uint64(i+1), rd.HardState, rd.Entries)
		}
		if rd.SoftState != nil {
			n.lead[i].Store(rd.SoftState.RaftState == raft.StateLeader)
		}
	}
	if !write.Empty() {
		if err := n.log.Commit(write, true); err != nil {
			panic(err)
		}
	}
	for i, rd := range rds {
		for _, m := range rd.Messages {
			if m.GetType() != pb.MsgApp && m.GetType() != pb.MsgHeartbeat {
				n.send(m.GetTo(), group.Message{Group: uint64(i + 1), Raft: m})
			}
		}
		for _, e := range rd.CommittedEntries {
			if len(e.GetData()) > 0 && len(n.asked[i]) > 0 {
				n.asked[i][0].done <- struct{}{}
				n.asked[i] = n.asked[i][1:]
			}
		}
		n.groups[i].Advance(rd)
	}
	return len(rds) > 0
}
