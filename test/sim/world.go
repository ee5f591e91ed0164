package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
)

// world is everything that one seed simulates.
type world struct {
	*loop
	cfg     Config
	regions []*regionOf
	nodes   []*machine // of all regions
	clients *machine   // where the clients run; it never fails
	net     network
	objects *objects
	count   *Counts
	history *history

	working        int                // tasks of clients under way
	joining        map[*regionOf]bool // are being given their replicas anew
	still          bool               // nothing is broken at present
	capped         bool               // change logs have a bound that is soon reached
	rots           bool               // disks do, between crash and restart
	faithless      bool               // who has promised a vote may crash
	restored       []restored
	losses         []loss
	lastWriterWins bool
	families       []string // of faults, that this seed draws from
	violations     []string
	calm           bool // the faults are over
}

// regionOf is one region of the simulated world.
type regionOf struct {
	index      int
	name       string
	nodes      []*machine
	partitions int // of its tables
	replicas   int // of a partition; 0: one for each node, up to three

	split    region.SplitConfig
	place    placing
	founders []uint64
	all      map[uint64]*machine // by number, those that were let go among them
}

// machine is one node of a region: what stays when its process ends.
type machine struct {
	w      *world
	region *regionOf // nil: the clients'
	id     uint64    // in its region, from 1
	name   string

	mem      *vfs.MemFS
	disk     *disk
	proc     *proc // of the present start; a dead one while the node is down
	engine   *node.Engine
	stop     context.CancelFunc
	served   context.Context // of what others ask of it
	drain    context.CancelFunc
	starts   int
	stopping bool // it takes no more requests
	joins    bool // it is none of the region's founders
	goes     bool // it was let go: it does not come back
	conns    map[*conn]bool
}

func (m *machine) up() bool { return m.proc != nil && !m.proc.dead }

// serves tells whether the node takes requests: it is up, and not about to stop.
func (m *machine) serves() bool { return m.up() && m.served.Err() == nil && !m.stopping }

var regionNames = []string{"us-east-1", "eu-west-1", "ap-northeast-1", "sa-east-1", "ca-central-1"}

const dataDir = "node"

// verifyEvery is how often a node holds its tables against those of other regions.
const verifyEvery = 3 * time.Second

// violate notes that something is wrong with the product.
func (w *world) violate(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	w.say("VIOLATION %s", v)
	if len(w.violations) < 20 {
		w.violations = append(w.violations, v)
	}
}

func newWorld(seed uint64, cfg Config, out io.Writer) *world {
	w := &world{loop: newLoop(seed, out), cfg: cfg, count: newCounts(), history: newHistory(), joining: map[*regionOf]bool{}}
	w.net = newNetwork(w)
	w.objects = newObjects(w)
	w.clients = &machine{w: w, name: "clients", proc: w.process("clients"), conns: map[*conn]bool{}}
	regions := cfg.Regions
	if regions == 0 {
		regions = 2 + w.rng.IntN(10)/4 // mostly 2 and 3
		if w.chance(0.05) {
			regions = 4 + w.rng.IntN(2)
		}
	}
	for i := range regions {
		r := &regionOf{index: i, name: regionNames[i], all: map[uint64]*machine{}, partitions: 1 + w.rng.IntN(maxPartitions)}
		w.count.Partitions[r.partitions-1]++
		nodes := cfg.Nodes
		if nodes == 0 {
			nodes = []int{1, 1, 1, 2, 3, 3}[w.rng.IntN(6)]
			if regions > 3 {
				nodes = 1
			}
		}
		for id := range nodes {
			r.founders = append(r.founders, uint64(id+1))
			r.add(w, uint64(id+1))
		}
		r.place = drawPlacing(seed, i)
		w.regions = append(w.regions, r)
	}
	w.draw()
	w.drawSplits()
	w.drawPlaced()
	return w
}

// add gives the region another node, with an empty disk.
func (r *regionOf) add(w *world, id uint64) *machine {
	m := &machine{w: w, region: r, id: id, name: fmt.Sprintf("%s/%d", r.name, id), mem: vfs.NewCrashableMem(), conns: map[*conn]bool{}}
	r.nodes, r.all[id] = append(r.nodes, m), m
	w.nodes = append(w.nodes, m)
	return m
}

// boot starts the node's process on what its disk holds.
func (m *machine) boot() {
	if m.goes {
		return
	}
	if err := m.start(); err != nil {
		m.w.violate("%s refuses its own data: %v", m.name, err)
	}
}

func (m *machine) start() error {
	w := m.w
	m.starts++
	m.disk = newDisk(m.mem)
	p := w.process(m.name)
	if m.proc != nil {
		p.skew, p.grain = m.proc.skew, m.proc.grain
	}
	m.proc = p
	logger := slog.New(slog.DiscardHandler)
	if w.out != nil {
		logger = slog.New(slog.NewTextHandler(lineWriter{w, m.name}, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	cfg := node.Config{
		Region: m.region.name, Node: fmt.Sprintf("n%d", m.id), Data: dataDir, Auth: "off",
		NodeID: m.id, Voters: m.region.founders, Several: m.joins,
		Send: func(to uint64, msg group.Message) {
			if !p.dead {
				w.raft(m, m.region.all[to], msg)
			}
		},
		Ask: func(ctx context.Context, to uint64, q []byte) ([]byte, error) {
			if p.dead {
				return nil, region.ErrNotAsked
			}
			return w.ask(ctx, m, m.region.all[to], q)
		},
		PartitionsPerTable: m.region.partitions, Replicas: m.region.replicas, Zone: m.region.place.zone(m.id), ReplaceAfter: m.region.place.replaceAfter, FS: m.disk, Archive: archive{w.objects, p}, Now: p.Now, Tasks: p, Logger: logger, VerifyEvery: verifyEvery, Retention: w.retention(),
		Sizes: node.Sizes{CacheBytes: 1 << 20, MemTableBytes: 4 << 20, SegmentBytes: 64 << 10, KeepEntries: 16, SeedBytes: 300, MergeBytes: 2000, PieceBytes: 400, ImportTableBytes: 1500, NoBackground: true, Split: m.region.split},
		Fatal: func(err error) {
			w.say("%s ends itself: %v", m.name, err)
			if errors.Is(err, group.ErrDiverged) {
				w.violate("%s: %v", m.name, err)
			}
			if w.calm {
				w.violate("%s ends itself with nothing broken: %v", m.name, err)
			}
			m.fatal(err)
		},
	}
	engine, err := node.OpenEngine(cfg)
	if err != nil {
		p.dead = true
		return err
	}
	m.engine = engine
	for _, r := range w.regions {
		if r != m.region {
			engine.AddPeer(r.name, &peer{from: m, to: r})
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.stopping = cancel, false
	m.served, m.drain = context.WithCancel(context.Background())
	p.Go(func() {
		if err := engine.Run(ctx); err != nil {
			w.violate("%s stopped by itself: %v", m.name, err)
		}
	})
	w.say("%s starts (%d)", m.name, m.starts)
	return nil
}

type lineWriter struct {
	w    *world
	name string
}

// Write is io.Writer's.
func (l lineWriter) Write(b []byte) (int, error) {
	l.w.tracef("    [%s] %s", l.name, b[:max(0, len(b)-1)])
	return len(b), nil
}

// crash cuts the node's power: percent of what was not synced stays. It may be called by one of the node's own tasks, which
// then ends.
func (m *machine) crash(percent int) {
	if !m.up() {
		return
	}
	w := m.w
	w.say("%s crashes, %d%% of what is not synced stays", m.name, percent)
	m.mem = m.disk.crash(w.rng, percent)
	m.gone()
}

// fatal ends the process as a failed write does: what was written, synced or not, is all there.
func (m *machine) fatal(error) {
	if !m.up() {
		panic(killed{})
	}
	m.mem = m.disk.crash(m.w.rng, 100)
	m.gone()
}

func (m *machine) gone() {
	m.alike()
	w, engine, p := m.w, m.engine, m.proc
	m.stop()
	m.drain()
	for _, c := range sortedConns(m.conns) {
		c.lost()
	}
	// Once nobody stands in it any more.
	w.after(0, func() { engine.Abandon() })
	p.kill()
}

// stopLimit is how long a node may take to stop in good order.
const (
	stopLimit = 30 * time.Second
	drainFor  = 1500 * time.Millisecond // as package node has it
)

// halt stops the node in good order, and tells when it has. Of a node that is stopping already somebody else is told.
func (m *machine) halt(then func()) {
	if m.up() && m.stopping {
		return
	}
	if !m.up() {
		then()
		return
	}
	w, engine, p := m.w, m.engine, m.proc
	w.say("%s stops", m.name)
	m.alike()
	m.stop()
	m.stopping = true
	drain := m.drain
	w.after(drainFor, func() { drain() })
	for _, c := range sortedConns(m.conns) {
		c.lost()
	}
	late := w.now + stopLimit
	var look func()
	look = func() {
		if w.now > late {
			w.violate("%s has not stopped %s after it was told to", m.name, stopLimit)
			w.stacks(p)
			return
		}
		if p.dead {
			then() // it has crashed meanwhile
			return
		}
		if slices.ContainsFunc(p.tasks, func(t *simTask) bool { return !t.over }) {
			w.after(stopPoll, look)
			return
		}
		p.dead = true
		if err := engine.Close(); err != nil && !errors.Is(err, errDisk) {
			w.violate("%s does not close: %v", m.name, err)
		}
		then()
	}
	w.after(stopPoll, look)
}
