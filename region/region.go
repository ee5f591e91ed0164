// Package region owns one full copy of the data: which tables there are (the catalog), which partition
// holds a key, and the way of a request to it.
//
// It leaves agreement to region/group, what a command does to region/partition, and who follows this
// region's change log to whoever asks for it (source.go): region knows no other region.
//
// Invariants: what tables there are is in the catalog's Raft group and nowhere else; everything else here
// is made from it by reconcile, and can be made again.
package region

import (
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
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
	"github.com/commutatordb/commutator/table"
)

// Config is what a region's node works with.
type Config struct {
	Name   string     // such as us-east-1
	Actor  crdt.Actor // of this region in its present incarnation
	NodeID uint64     // of this node; from 1
	// Voters are the region's nodes, this one among them; nil: this one alone. They are the same at all of them.
	Voters []uint64
	// Send takes a message to another of them; see group.Config. Set if there are several.
	Send   func(to uint64, m group.Message)
	Tick   time.Duration // see group.Config
	Log    *raftlog.Log
	Store  *storage.Store
	Now    func() time.Time
	Tasks  task.Runtime // nil: goroutines
	Logger *slog.Logger // nil discards
	Fatal  func(error)  // see group.Config
}

// Errors that say what a caller asked for is not there, or not yet.
var (
	ErrNoTable   = errors.New("region: no such table")
	ErrNotActive = errors.New("region: the table is not active")
	ErrExists    = errors.New("region: there is such a table already")
	ErrInUse     = errors.New("region: the table is being created, changed or deleted")
)

// Region is this node's part of a region.
type Region struct {
	cfg          Config
	host         *group.Host
	catalog      *catalog
	catalogGroup *group.Group

	tables  atomic.Pointer[map[string]*Table] // open tables by name; never changed in place
	opened  chan struct{}                     // closed once every table of the catalog is open
	changed chan struct{}                     // gets a token when the catalog has changed

	mu       sync.Mutex
	watchers map[chan struct{}]bool // told, without waiting, that the catalog has changed
}

// Open opens a node's part of a region. Nothing moves before Run.
func Open(cfg Config) (*Region, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tasks == nil {
		cfg.Tasks = task.Goroutines
	}
	r := &Region{
		cfg: cfg, opened: make(chan struct{}), changed: make(chan struct{}, 1), watchers: map[chan struct{}]bool{},
		host: group.NewHost(group.Config{
			NodeID: cfg.NodeID, Voters: cfg.Voters, Send: cfg.Send, Tick: cfg.Tick, Log: cfg.Log, Store: cfg.Store, Now: cfg.Now, Tasks: cfg.Tasks, Logger: cfg.Logger, Fatal: cfg.Fatal,
		}),
	}
	r.tables.Store(&map[string]*Table{})
	var err error
	if r.catalog, err = openCatalog(cfg.Store, r.catalogChanged); err != nil {
		return nil, err
	}
	if r.catalogGroup, err = r.host.Open(catalogGroup, r.catalog, nil); err != nil {
		return nil, err
	}
	return r, nil
}

// Receive takes messages that another node of the region has sent. It never waits.
func (r *Region) Receive(from uint64, ms ...group.Message) { r.host.Receive(from, ms...) }

// Unreachable says that messages to another node of the region may have been lost.
func (r *Region) Unreachable(node uint64) { r.host.Unreachable(node) }

// Flushed is for storage.Options.
func (r *Region) Flushed() { r.host.Flushed() }

// Name returns the region's name.
func (r *Region) Name() string { return r.cfg.Name }

// Actor returns who stamps this region's writes.
func (r *Region) Actor() crdt.Actor { return r.cfg.Actor }

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

// Watch returns a channel that gets a token whenever the catalog or the set of open tables has changed,
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
	return g.Wait()
}

// Ready waits until every table is open and has replayed its log.
func (r *Region) Ready(ctx context.Context) error {
	if r.cfg.Tasks.Wait(ctx, r.opened, 0) == task.Ended {
		return fmt.Errorf("region: %w", context.Cause(ctx))
	}
	for _, t := range r.Tables() {
		for _, p := range t.partitions {
			if err := p.group.Read(ctx); err != nil && !errors.Is(err, group.ErrGone) {
				return err
			}
		}
	}
	return nil
}

const (
	reconcileRetry = time.Second // after a failure
	reindexPerStep = 512         // items for which one command writes index rows
)

// keepReconciled makes what the catalog says true, whenever it changes.
func (r *Region) keepReconciled(ctx context.Context) error {
	if err := r.catalogGroup.Read(ctx); err != nil {
		return nil // ctx has ended
	}
	for first := true; ; first = false {
		retry := time.Duration(0)
		if err := r.reconcile(ctx); err != nil {
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

func (r *Region) reconcile(ctx context.Context) error {
	defs, err := r.catalog.definitions()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		d := defs[name]
		if err := r.reconcileTable(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", d.Schema.Name, err))
		}
	}
	for _, t := range r.Tables() {
		name := t.Schema().Name
		if d, ok := defs[name]; !ok || d.ID != t.ID {
			r.publish(name, nil)
		}
	}
	return errors.Join(errs...)
}

func (r *Region) reconcileTable(ctx context.Context, d definition) error {
	name := d.Schema.Name
	t := (*r.tables.Load())[name]
	if d.Status == table.Deleting && !held(d.Definition, r.cfg.Name) {
		return r.drop(ctx, d, t)
	}
	if t == nil || t.ID != d.ID {
		var err error
		if t, err = r.openTable(d.Definition); err != nil {
			return err
		}
		r.publish(name, t)
	}
	if err := t.follow(ctx, d.Definition); err != nil {
		return err
	}
	if t.revision != d.revision {
		t.revision = d.revision
		r.tellWatchers()
	}
	if d.Status == table.Deleting {
		return nil // the other replicas have not heard yet
	}
	if err := t.backfill(ctx, d.Definition); err != nil {
		return err
	}
	if d.settled(r.cfg.Name) {
		return nil
	}
	_, err := r.Change(ctx, name, func(n *table.Definition) error {
		if n.ID != d.ID || n.Status == table.Deleting {
			return nil
		}
		for i := range n.Schema.Indexes {
			if old := d.Schema.Index(n.Schema.Indexes[i].Name); old != nil && old.ID == n.Schema.Indexes[i].ID {
				n.Schema.Indexes[i].Backfilling = false
			}
		}
		if !waits(n, r.cfg.Name) {
			n.Status = table.Active
		}
		return nil
	})
	return err
}

// settled tells whether nothing is left to do for the table here.
func (d definition) settled(region string) bool {
	for _, x := range d.Schema.Indexes {
		if x.Backfilling {
			return false
		}
	}
	return d.Status == table.Active || waits(d.Definition, region)
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
