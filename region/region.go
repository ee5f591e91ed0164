// Package region owns one full copy of the data: which tables there are (the catalog), which partition
// holds a key, and the way of a request to it.
//
// It leaves agreement to region/group, what a command does to region/partition, and who follows this
// region's change log to whoever asks for it (source.go): region knows no other region.
//
// Invariants: what tables there are, and which nodes hold which of their partitions, is in the catalog's Raft group and nowhere else; everything
// else here is made from it by reconcile, and can be made again. Every node holds the catalog; it opens and removes its own replicas of partitions,
// and asks others about the rest. What is proposed on the way, the node proposes that leads the catalog.
package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
	"github.com/commutatordb/commutator/table"
)

// Config is what a region's node works with.
type Config struct {
	Name string // such as us-east-1
	// Instance and Actor are who the region is, if this node is the first of its nodes to say so: see Region.Instance.
	Instance uint64
	Actor    crdt.Actor
	NodeID   uint64 // of this node; from 1
	// NodeInstance tells this node's data from what the same node had before it lost it; NodeName and NodeAddress are for others of the
	// region: see Member.
	NodeInstance          uint64
	NodeEpoch             uint64                 // see Member
	NextEpoch             func() (uint64, error) // makes a greater one durable, and returns it; nil: it stays as it is
	NodeName, NodeAddress string
	NodeZone              string // see Member
	// Format is that of this node's data, and RaiseFormat makes a newer one durable: see Region.Format.
	Format      int
	RaiseFormat func(to int) error
	// Voters are the nodes that the region began with; nil: this one alone. They are the same at all of them.
	Voters []uint64
	// Several says that there may be more nodes than one, which there are if the region began with more. A node that is none of Voters
	// joins: see TakeIn.
	Several bool
	// Send takes a message to another of them; see group.Config. Set if there are several.
	Send func(to uint64, m group.Message)
	// Ask has another of them answer a question (Region.Answer). It returns soon after ctx has ended, and ErrNotAsked if the question was not
	// sent. Set if there are several.
	Ask         func(ctx context.Context, to uint64, question []byte) (answer []byte, err error)
	Tick        time.Duration // see group.Config
	KeepEntries uint64        // see group.Config
	ShipRate    int64         // likewise
	PieceBytes  int           // likewise
	Partitions  int           // of each table that is created here; 0: one for each node
	// Replicas is how many nodes hold each partition, if there are so many; 0: 3. ReplaceAfter is how long nothing must have been heard of a node
	// for others to be given what it holds; 0: 10 min. Of both, what the node has counts that leads the catalog.
	Replicas     int
	ReplaceAfter time.Duration
	Split        SplitConfig
	Log          *raftlog.Log
	Store        *storage.Store
	Now          func() time.Time
	Tasks        task.Runtime // nil: goroutines
	Logger       *slog.Logger // nil discards
	Fatal        func(error)  // see group.Config
}

// Errors that say what a caller asked for is not there, or not yet.
var (
	ErrNoTable   = errors.New("region: no such table")
	ErrNotActive = errors.New("region: the table is not active")
	ErrExists    = errors.New("region: there is such a table already")
	ErrInUse     = errors.New("region: the table is being created, changed or deleted")

	// ErrUnknown says of a write that it may have been carried out, or may yet be.
	ErrUnknown = group.ErrUnknown
)

// Region is this node's part of a region.
type Region struct {
	cfg          Config
	epoch        atomic.Uint64
	enrolled     atomic.Bool // the catalog has had this start's row
	several      bool        // the region has more than one node
	host         *group.Host
	catalog      *catalog
	catalogGroup *group.Group

	tables  atomic.Pointer[map[string]*Table] // open tables by name; never changed in place
	opened  chan struct{}                     // closed once every table of the catalog is open
	changed chan struct{}                     // gets a token when there may be something to reconcile
	led     atomic.Bool                       // this node led when the catalog's group last said so
	format  atomic.Int64                      // of this node's data

	merged, unmerged atomic.Int64 // see Merges

	// Of reconcile alone:
	opening map[string]*Table // open, but not in tables yet: see Table.founded
	removed map[uint32]bool   // ids of tables that this node has removed

	pins pins

	mu       sync.Mutex
	parts    map[uint64]*Partition  // open, of every table
	watchers map[chan struct{}]bool // told, without waiting, that the catalog has changed
}

// Open opens a node's part of a region. Nothing moves before Run.
func Open(cfg Config) (*Region, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { panic(err) }
	}
	cfg.Split.fillIn()
	cfg.Replicas, cfg.ReplaceAfter = cmp.Or(cfg.Replicas, defaultReplicas), cmp.Or(cfg.ReplaceAfter, defaultReplaceAfter)
	if cfg.Tasks == nil {
		cfg.Tasks = task.Goroutines
	}
	r := &Region{
		cfg: cfg, several: cfg.Several || len(cfg.Voters) > 1, opened: make(chan struct{}), changed: make(chan struct{}, 1),
		opening: map[string]*Table{}, removed: map[uint32]bool{}, watchers: map[chan struct{}]bool{}, parts: map[uint64]*Partition{}, pins: pins{by: map[uint64]*pin{}},
		host: group.NewHost(group.Config{
			NodeID: cfg.NodeID, Voters: cfg.Voters, Several: cfg.Several, Home: catalogGroup, Send: cfg.Send, Tick: cfg.Tick, KeepEntries: cfg.KeepEntries, ShipRate: cfg.ShipRate, PieceBytes: cfg.PieceBytes, Log: cfg.Log, Store: cfg.Store, Now: cfg.Now, Tasks: cfg.Tasks, Logger: cfg.Logger, Fatal: cfg.Fatal,
		}),
	}
	r.format.Store(int64(max(cfg.Format, format.Oldest)))
	r.tables.Store(&map[string]*Table{})
	r.epoch.Store(cfg.NodeEpoch)
	var err error
	if r.catalog, err = openCatalog(cfg.Store, r.catalogChanged); err != nil {
		return nil, err
	}
	var moved func()
	if r.several {
		moved = r.catalogMoved
	}
	if r.catalogGroup, err = r.host.Open(catalogGroup, r.catalog, nil, moved); err != nil {
		return nil, err
	}
	return r, nil
}

// catalogMoved is called when another node leads the catalog, among other times.
func (r *Region) catalogMoved() {
	if leads := r.catalogGroup.Leads(); r.led.Swap(leads) != leads {
		r.catalogChanged()
	}
}

// Receive takes messages that another node of the region has sent. It never waits.
func (r *Region) Receive(from uint64, ms ...group.Message) { r.host.Receive(from, ms...) }

// Unreachable says that messages to another node of the region may have been lost.
func (r *Region) Unreachable(node uint64) { r.host.Unreachable(node) }

// Snapshots tells what this node sends and takes of snapshots.
func (r *Region) Snapshots() group.Snapshots { return r.host.Snapshots() }

// Asleep is how many of the region's groups have nothing to do, and send nothing, as this node's replicas know.
func (r *Region) Asleep() int { return r.host.Asleep() }

// Resign hands what this node leads to other nodes of the region, before it stops. It ends with ctx.
func (r *Region) Resign(ctx context.Context) error { return r.host.Resign(ctx) }

// Flushed is for storage.Options.
func (r *Region) Flushed() { r.host.Flushed() }

// Name returns the region's name.
func (r *Region) Name() string { return r.cfg.Name }

// NodeID returns this node's number in the region.
func (r *Region) NodeID() uint64 { return r.cfg.NodeID }

// Alone tells whether this is the region's only node.
func (r *Region) Alone() bool { return !r.several }

// Leads tells whether this node leads the catalog: what one node of a region has to do, it does. It may have been
// deposed and not know it yet. Watch tells of changes.
func (r *Region) Leads() bool { return r.catalogGroup.Leads() }

// Leader returns the node that leads the catalog as far as this one knows, 0 for none.
func (r *Region) Leader() uint64 { return r.catalogGroup.Leader() }

// CatchUp waits until this node has seen every change of the catalog that was acknowledged before the call, by
// whichever node.
func (r *Region) CatchUp(ctx context.Context) error {
	if err := r.catalogGroup.Read(ctx); err != nil {
		return fmt.Errorf("region: catalog: %w", err)
	}
	return nil
}

// Actor returns who stamps this region's writes, 0 while that is not known: it is once Ready has returned.
func (r *Region) Actor() crdt.Actor {
	if self := r.catalog.view.Load().self; self != nil {
		if mutant.On(mutant.IdentityEachStart) {
			return r.cfg.Actor
		}
		return self.Actor
	}
	return 0
}

// Instance returns a number that tells the region's data from what it had before it lost it, 0 while that is not
// known: it is once Ready has returned.
func (r *Region) Instance() uint64 {
	if self := r.catalog.view.Load().self; self != nil {
		if mutant.On(mutant.InstanceOfNode) {
			return r.cfg.Instance
		}
		return self.Instance
	}
	return 0
}

func (r *Region) catalogChanged() {
	task.Poke(r.changed)
	r.tellWatchers()
}

func (r *Region) tellWatchers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.watchers {
		task.Poke(w)
	}
}

// Watch returns a channel that gets a token whenever the catalog, the set of open tables or Leads has changed,
// until stop is called.
func (r *Region) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[c] = true
	return c, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, c)
	}
}

// Run carries the region until ctx ends.
func (r *Region) Run(ctx context.Context) error {
	g, ctx := task.NewGroup(ctx, r.cfg.Tasks)
	g.Go(func() error { return r.host.Run(ctx) })
	g.Go(func() error { return r.keepReconciled(ctx) })
	g.Go(func() error { return r.keepSplit(ctx) })
	g.Go(func() error { return r.keepMerged(ctx) })
	if r.several {
		g.Go(func() error { return r.keepMembers(ctx) })
		g.Go(func() error { return r.keepFed(ctx) })
		g.Go(func() error { return r.keepPins(ctx) })
		g.Go(func() error { return r.keepPlaced(ctx) })
		if r.cfg.NextEpoch != nil {
			g.Go(func() error { return r.keepEpoch(ctx) })
		}
	}
	return g.Wait()
}

// Ready waits until every table is open and has replayed its log.
func (r *Region) Ready(ctx context.Context) error {
	if r.cfg.Tasks.Wait(ctx, r.opened, 0) == task.Ended {
		return fmt.Errorf("region: %w", context.Cause(ctx))
	}
	for _, t := range r.Tables() {
		if err := t.CatchUp(ctx); err != nil && !errors.Is(err, group.ErrGone) {
			return err
		}
	}
	return nil
}

const (
	reconcileRetry = time.Second // after a failure
	// reconcileLimit is how long one table may hold up all for want of a leader, and reconcileLook how often it is
	// looked whether it is wanted any more: where the others have removed it already, nobody ever leads.
	reconcileLimit = 5 * time.Second
	reconcileLook  = 250 * time.Millisecond
	reindexPerStep = 512 // items for which one command writes index rows
)

// begin waits until this node has the whole catalog, gives the region its identity if it has none, and removes what
// is left of tables that are gone. It returns false when ctx has ended.
func (r *Region) begin(ctx context.Context) bool {
	for _, step := range []func(context.Context) error{r.CatchUp, r.identify, r.nextEpoch, r.removeLeftovers, r.clearLeftBehind} {
		for {
			err := step(ctx)
			if ctx.Err() != nil || errors.Is(err, group.ErrClosed) {
				return false
			}
			if err == nil {
				break
			}
			r.cfg.Logger.Error("region: the catalog cannot be used yet", "region", r.cfg.Name, "err", err)
			r.cfg.Tasks.Wait(ctx, nil, reconcileRetry)
		}
	}
	return true
}

// identify waits until the region has an identity. Partitions are opened after: it is in the stamps of their writes.
func (r *Region) identify(ctx context.Context) error {
	for {
		v := r.catalog.view.Load()
		if v.self != nil || v.err != nil {
			return v.err
		}
		if !r.Leads() {
			if r.cfg.Tasks.Wait(ctx, r.changed, 0) == task.Ended {
				return context.Cause(ctx)
			}
			continue
		}
		err := r.setRow(ctx, rowSelf, identity{r.cfg.Instance, r.cfg.Actor}, 0)
		var stale *op.Stale
		if err != nil && !errors.As(err, &stale) {
			return err
		}
	}
}

// keepReconciled makes what the catalog says true, whenever it changes.
func (r *Region) keepReconciled(ctx context.Context) error {
	if !r.begin(ctx) {
		return nil
	}
	for first := true; ; first = false {
		retry := time.Duration(0)
		done, err := r.reconcile(ctx)
		if !done {
			retry = reconcileRetry
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			r.cfg.Logger.Error("region: the catalog is not in force yet", "region", r.cfg.Name, "err", err)
			retry = reconcileRetry
		}
		if first {
			close(r.opened)
		}
		if r.cfg.Tasks.Wait(ctx, r.changed, retry) == task.Ended {
			return nil
		}
	}
}

// reconcile is to be called again, after a while, if it has failed, or is not done.
func (r *Region) reconcile(ctx context.Context) (done bool, err error) {
	defs, err := r.catalog.definitions()
	if err != nil {
		return false, err
	}
	var errs []error
	done = true
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		d := defs[name]
		if err := r.reconcileTable(ctx, d, &done); err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", d.Schema.Name, err))
		}
	}
	open := maps.Clone(*r.tables.Load())
	maps.Copy(open, r.opening)
	for _, name := range slices.Sorted(maps.Keys(open)) {
		// Another node has seen to the table's end.
		if _, ok := defs[name]; !ok {
			if err := r.remove(ctx, open[name].Definition(), open[name]); err != nil {
				errs = append(errs, fmt.Errorf("table %s: %w", name, err))
			}
		}
	}
	there := map[uint32]bool{}
	for _, d := range defs {
		there[d.ID] = true
	}
	maps.DeleteFunc(r.removed, func(id uint32, _ bool) bool { return !there[id] })
	return done, errors.Join(errs...)
}

func (r *Region) reconcileTable(ctx context.Context, d definition, done *bool) error {
	name := d.Schema.Name
	t := (*r.tables.Load())[name]
	if t == nil {
		t = r.opening[name]
	}
	var former *Table
	if t != nil && t.ID != d.ID {
		former = t.formerOf(d.Former)
		switch {
		case former == nil: // deleted and made anew, by other nodes
			if err := r.remove(ctx, t.Definition(), t); err != nil {
				return err
			}
		default: // begun anew, perhaps once more before that was done
			delete(r.opening, name)
			r.publish(name, nil)
			if former != t {
				if err := r.removeData(ctx, t, t.ID, t.Definition().Partitions); err != nil {
					return err
				}
			}
		}
		t = nil
	}
	if d.Status == table.Deleting && !held(d.Definition, r.cfg.Name) {
		return r.drop(ctx, d, t)
	}
	if t == nil {
		var err error
		if t, err = r.openTable(d.Definition); err != nil {
			if ctx.Err() == nil {
				// Its log, or its state, is not what was written: no later try would find another.
				r.cfg.Fatal(fmt.Errorf("region: table %s cannot be opened: %w", name, err))
			}
			return err
		}
		if former == nil && d.Former != nil {
			if former, err = r.openWith(d.Definition, d.Former.ID, crdt.Actor(d.Former.Actor), d.Former.Partitions); err != nil {
				return err
			}
		}
		t.former.Store(former)
		r.opening[name] = t
		r.found(name)
	}
	if former = t.former.Load(); former != nil {
		if err := r.reconcileFormer(ctx, d, t, former); err != nil {
			return err
		}
	}
	if _, err := t.openPartitions(d.Partitions); err != nil {
		r.cfg.Fatal(fmt.Errorf("region: table %s: %w", name, err))
		return err
	}
	if err := t.removeMerged(ctx); err != nil {
		return err
	}
	all, err := t.follow(ctx, d)
	if err != nil {
		return err
	}
	if !r.found(name) {
		return nil // the node that leads the catalog is about to see to it, and its partitions tell
	}
	if t.revision != d.revision {
		t.revision = d.revision
		r.tellWatchers()
	}
	retired, err := t.retire(ctx, d.Partitions)
	if former = t.former.Load(); err == nil && former != nil {
		var too bool
		too, err = former.retire(ctx, d.Former.Partitions)
		retired = retired && too
	}
	*done = *done && retired
	if err != nil {
		return err
	}
	if d.Status == table.Deleting || !all || !r.Leads() {
		return nil // the other replicas have not heard yet; or it is not for this node to do, or was not until just now
	}
	if err := t.backfill(ctx, d.Definition); err != nil {
		return err
	}
	if d.settled(r.cfg.Name) {
		return nil
	}
	_, err = r.Change(ctx, name, func(n *table.Definition) error {
		if n.ID != d.ID || n.Status == table.Deleting {
			return nil
		}
		n.Schema.Indexes = slices.DeleteFunc(n.Schema.Indexes, func(x table.Index) bool { return x.Deleting })
		for i := range n.Schema.Indexes {
			if old := d.Schema.Index(n.Schema.Indexes[i].Name); old != nil && old.ID == n.Schema.Indexes[i].ID {
				n.Schema.Indexes[i].Backfilling = false
			}
		}
		filling := slices.ContainsFunc(n.Schema.Indexes, func(x table.Index) bool { return x.Backfilling })
		if !filling && !waits(n, r.cfg.Name) {
			n.Status = table.Active
		}
		return nil
	})
	return err
}

// settled tells whether nothing is left to do for the table here.
func (d definition) settled(region string) bool {
	for _, x := range d.Schema.Indexes {
		if x.Backfilling || x.Deleting {
			return false
		}
	}
	return d.Status == table.Active || waits(d.Definition, region)
}

// found puts a table that is being opened on the list, if it can be used. It tells whether the table is on the list.
func (r *Region) found(name string) bool {
	t := r.opening[name]
	if t == nil {
		return true
	}
	if !t.founded(t.Definition().Partitions) {
		return false
	}
	delete(r.opening, name)
	r.publish(name, t)
	return true
}

// publish puts an open table on the list, or takes it off (nil).
func (r *Region) publish(name string, t *Table) {
	tables := maps.Clone(*r.tables.Load())
	if t == nil {
		delete(tables, name)
	} else {
		tables[name] = t
	}
	r.tables.Store(&tables)
	r.tellWatchers()
}
