package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/api"
	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// Engine is a node without its sockets: its data, its part of the region, and everything that works on
// them. A Node serves one; the simulator runs many of them in one loop.
type Engine struct {
	cfg   Config
	id    identity
	epoch uint64 // see region.Member
	lock  io.Closer
	// rebuild has it begin anew; nil: the node is alone.
	rebuild *rebuilder

	keys    *keyring
	log     *raftlog.Log
	store   *storage.Store
	region  *region.Region
	rep     *replicator
	backups *backups
	scrub   *scrubber
	space   *space
	handler *api.Handler
	// operator is asked through operate.
	operator *admin.Operator
}

// OpenEngine opens a node's data. Listen, Advertise, Join and Peers of the configuration are not looked at;
// Validate has been called. Nothing moves before Run. The caller closes the engine.
func OpenEngine(cfg Config) (e *Engine, err error) {
	cfg.fillIn()
	archive := cfg.Archive
	if archive == nil {
		if archive, err = openArchive(cfg); err != nil {
			return nil, err
		}
	}
	return openEngine(cfg, archive)
}

func openEngine(cfg Config, archive backup.Archive) (e *Engine, err error) {
	e = &Engine{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
			e = nil
		}
	}()
	if e.keys, err = openKeyring(cfg.Credentials, cfg.Keys, cfg.Logger); err != nil {
		return e, err
	}
	if err := cfg.FS.MkdirAll(cfg.Data, 0o755); err != nil {
		return e, fmt.Errorf("node: %w", err)
	}
	if e.lock, err = cfg.FS.Lock(cfg.FS.PathJoin(cfg.Data, lockFile)); err != nil {
		return e, fmt.Errorf("node: %s is in use by another process: %w", cfg.Data, err)
	}
	if cfg.Several {
		e.rebuild = &rebuilder{fs: cfg.FS, dir: cfg.Data, fatal: cfg.Fatal}
		cfg.Fatal = e.rebuild.end
		defer func() {
			// What a start cannot read the next one begins anew without.
			if damaged(err) {
				e.rebuild.begin(rebuild{Reason: err.Error()})
				err = fmt.Errorf("%w: %w", ErrRebuild, err)
			}
		}()
		if err := setAside(cfg.FS, cfg.Data, cfg.Region, cfg.Node, cfg.Now(), func(reason, to string) {
			cfg.Logger.Error("node: the data is set aside, and the node begins anew", "why", reason, "to", to)
		}); err != nil {
			return e, err
		}
	}
	if e.id, err = openIdentity(cfg.FS, cfg.Data, cfg.Region, cfg.Node, cfg.Now()); err != nil {
		return e, err
	}
	if !cfg.Several && e.id.Format < format.Known {
		if err := e.id.raise(cfg.FS, cfg.Data, format.Known); err != nil {
			return e, err
		}
	}
	if e.id.Anew {
		cfg.Voters = slices.DeleteFunc(slices.Clone(cfg.Voters), func(id uint64) bool { return id == cfg.NodeID || id == e.id.Number })
	}
	cfg.NodeID = cmp.Or(e.id.Number, cfg.NodeID)
	e.cfg = cfg
	if cfg.Several {
		if e.epoch, err = readEpoch(cfg.FS, cfg.Data); err != nil {
			return e, err
		}
	}
	e.log, err = raftlog.Open(raftlog.Options{
		FS: cfg.FS, Dir: cfg.FS.PathJoin(cfg.Data, logDir), Salt: e.id.Salt, Logger: cfg.Logger,
		SegmentBytes: cfg.Sizes.SegmentBytes, NoBackground: cfg.Sizes.NoBackground,
	})
	if err != nil {
		return e, fmt.Errorf("node: %w", err)
	}
	var corrupt func(error) // alone: the reader is told, and nobody else
	if cfg.Several {
		corrupt = cfg.Fatal
	}
	e.store, err = storage.Open(storage.Options{
		FS: cfg.FS, Dir: cfg.FS.PathJoin(cfg.Data, stateDir), Logger: cfg.Logger, Fatal: cfg.Fatal, Corrupt: corrupt,
		CacheBytes: cfg.Sizes.CacheBytes, MemTableBytes: cfg.Sizes.MemTableBytes, ImportTableBytes: cfg.Sizes.ImportTableBytes, NoBackground: cfg.Sizes.NoBackground,
		Flushed: func() {
			if e.region != nil {
				e.region.Flushed()
			}
		},
	})
	if err != nil {
		return e, fmt.Errorf("node: %w", err)
	}
	var next func() (uint64, error)
	if cfg.Several {
		next = func() (uint64, error) { return nextEpoch(cfg.FS, cfg.Data) }
	}
	e.region, err = region.Open(region.Config{
		Name: cfg.Region, Instance: e.id.Instance, Actor: crdt.NewActor(cfg.Region, e.id.Incarnation),
		NodeID: cfg.NodeID, NodeInstance: e.id.Instance, NodeEpoch: e.epoch, NextEpoch: next, Format: e.id.Format, RaiseFormat: func(to int) error { return e.id.raise(cfg.FS, cfg.Data, to) }, NodeName: cfg.Node, NodeAddress: cfg.Advertise.GRPC, NodeZone: cfg.Zone,
		Voters: cfg.Voters, Several: cfg.Several, Send: cfg.Send, Ask: cfg.Ask, Tick: cfg.Tick, KeepEntries: cfg.Sizes.KeepEntries, ShipRate: cfg.SnapshotRate, PieceBytes: cfg.Sizes.PieceBytes, Partitions: cfg.PartitionsPerTable, Replicas: cfg.Replicas, ReplaceAfter: cfg.ReplaceAfter, Split: cfg.split(), Log: e.log, Store: e.store, Now: cfg.Now, Tasks: cfg.Tasks, Logger: cfg.Logger, Fatal: cfg.Fatal,
	})
	if err != nil {
		return e, err
	}
	e.rep = newReplicator(e.region, cfg.Now, cfg.Tasks, cfg.Logger)
	e.backups = newBackups(e.region, archive, cfg.Now, cfg.Tasks, cfg.Logger)
	e.scrub = &scrubber{log: e.log, store: e.store, now: cfg.Now, tasks: cfg.Tasks, logger: cfg.Logger, fatal: cfg.Fatal, audit: e.region.Audit}
	e.space = &space{fs: cfg.FS, dir: cfg.Data, reserve: uint64(cfg.Reserve), region: e.region, tasks: cfg.Tasks, logger: cfg.Logger}
	e.rep.retention = cfg.Retention
	e.rep.verify.every, e.rep.expire.every = cfg.VerifyEvery, cfg.ExpireEvery
	if cfg.Sizes.SeedBytes > 0 {
		e.rep.seedBytes = cfg.Sizes.SeedBytes
	}
	if cfg.Sizes.MergeBytes > 0 {
		e.rep.mergeBytes = cfg.Sizes.MergeBytes
	}
	e.operator = &admin.Operator{Region: e.region, Links: e.rep, Backups: e.backups, Verifier: e.rep, Members: e.rep, Now: cfg.Now}
	e.handler = api.New(api.Config{
		Region: e.region, Verifier: cfg.verifier(e.keys), Now: cfg.Now, Tasks: cfg.Tasks, Logger: cfg.Logger, Peers: e.rep.Peers, Replica: e.rep.Replica, Operator: e.operate,
		Overloaded: func(err error) bool { return errors.Is(err, group.ErrOverloaded) }, EnforceThroughput: cfg.EnforceThroughput, Crowded: cfg.Crowded,
		Seen: e.rep.seen, Fenced: e.rep.Fenced, AnswerRefusedAtOnce: cfg.Lenient,
	})
	e.operator.Contributors = e.contributors
	return e, nil
}

// contributors is admin.Operator's, of what the API has counted.
func (e *Engine) contributors(name, index string) ([]admin.ContributorRule, error) {
	counted, err := e.handler.Contributors(name, index)
	var out []admin.ContributorRule
	for _, c := range counted {
		r := admin.ContributorRule{Rule: c.Rule, Since: c.Since, Keys: []admin.Contributor{}}
		for _, k := range c.Keys {
			r.Keys = append(r.Keys, admin.Contributor(k))
		}
		out = append(out, r)
	}
	return out, err
}

// Run works until ctx ends.
func (e *Engine) Run(ctx context.Context) error { return e.run(ctx, ctx) }

// run lets the region, of which requests under way still want something, outlive the rest until inner ends.
func (e *Engine) run(ctx, inner context.Context) error {
	g, gctx := task.NewGroup(ctx, e.cfg.Tasks)
	if inner == ctx {
		inner = gctx
	}
	g.Go(func() error { return e.region.Run(inner) })
	g.Go(func() error { return e.rep.Run(gctx) })
	g.Go(func() error { return e.backups.Run(gctx) })
	g.Go(func() error { return e.scrub.Run(gctx) })
	g.Go(func() error { return e.space.Run(gctx) })
	return g.Wait()
}

// Receive takes messages that another node of the region has sent. It never waits.
func (e *Engine) Receive(from uint64, ms ...group.Message) { e.region.Receive(from, ms...) }

// Unreachable says that messages to another node of the region may have been lost.
func (e *Engine) Unreachable(node uint64) { e.region.Unreachable(node) }

// Region returns the node's region.
func (e *Engine) Region() *region.Region { return e.region }

// Identity tells this node's data from what the same node had before it lost it.
func (e *Engine) Identity() uint64 { return e.id.Instance }

// Handler answers DynamoDB's API and the operator's.
func (e *Engine) Handler() http.Handler { return e.handler }

// Source is what the node offers to other regions.
func (e *Engine) Source() replication.Source { return e.rep }

// AddPeer makes another region known, and the way to it.
func (e *Engine) AddPeer(name string, p replication.Peer) { e.rep.AddPeer(name, p) }

// Store returns the node's state on disk, and Log its Raft log.
func (e *Engine) Store() *storage.Store { return e.store }

// Log returns the node's Raft log.
func (e *Engine) Log() *raftlog.Log { return e.log }

// Links tells which other regions are known, and how the way to each is.
func (e *Engine) Links() []admin.Link { return e.rep.Links() }

// Lag tells, by region, how far this region's copy of a table is behind the other's.
func (e *Engine) Lag(globalID string) map[string]time.Duration { return e.rep.Lag(globalID) }

// Verifier holds this region's copies of global tables against those of others.
func (e *Engine) Verifier() admin.Verifier { return e.rep }

// Differences returns in how many items this node's copies of global tables have been found different from other regions'.
func (e *Engine) Differences() int64 { return e.rep.verify.differences() }

// Ready waits until the node has all its tables open.
func (e *Engine) Ready(ctx context.Context) error { return e.region.Ready(ctx) }

// Close closes what OpenEngine has opened. Run must have returned, or never been called.
func (e *Engine) Close() error {
	var errs []error
	if e.store != nil {
		errs = append(errs, e.store.Close())
	}
	if e.log != nil {
		errs = append(errs, e.log.Close())
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// Abandon closes as a killed process leaves things: nothing is flushed. Run need not have returned, if
// nothing of it runs on.
func (e *Engine) Abandon() {
	if e.store != nil {
		e.store.CloseWithoutFlush()
	}
	if e.log != nil {
		e.log.Close()
	}
	if e.lock != nil {
		e.lock.Close()
	}
}
