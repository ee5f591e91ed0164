package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

const (
	exchangeEvery = 5 * time.Second        // definitions, when nothing has changed
	retryAfter    = 500 * time.Millisecond // what failed, with a peer that may be cut off
	exchangeLimit = 5 * time.Second        // for one exchange
	foldEvery     = time.Second
	seedPartBytes = 1 << 20
)

// replicator keeps this region's global tables in step with the other regions': it exchanges
// definitions, seeds new replicas, follows the others' change logs, and has what is stable folded. It is
// a replication.Source to the others.
//
// In a region of several nodes, the one that leads the catalog does so, for a term: from when it knows that it leads
// until it knows that it does not. Two terms may overlap at two nodes, for a deposed leader hears of it late. Nothing
// that either does then is wrong:
//
//   - What another region wrote is merged by both. Merging twice changes nothing, and a stream's cursor never goes
//     back; each moves it only over what it has merged itself, or found merged here.
//   - Definitions change by compare-and-set in the catalog.
//   - What the deposed one tells other regions (changeLog.Read) and has folded (fold) is true of the replicas here as
//     they are, and stays true.
//
// A term begins with nothing known of the others: nothing is stable, and no change log is cut, until every member has
// told this node.
type replicator struct {
	region *region.Region
	self   string
	now    func() time.Time
	tasks  task.Runtime
	logger *slog.Logger
	wake   chan struct{}
	begun  chan struct{} // closed when the first term begins
	verify *verifier

	fencedBy atomic.Pointer[fence] // why this region takes no writes; nil: it does

	mu    sync.Mutex
	peers map[string]*peer
	// Of the term:
	term      uint64                 // its number; 0 while this node does not lead
	terms     uint64                 // how many there were
	tables    map[string]*replicated // by global id
	followers map[stream]context.CancelFunc
	jobs      map[string]bool // global ids with a seed or a removal under way
	running   *task.Group
	ctx       context.Context
}

// stream names one partition of one table in another region.
type stream struct {
	peer      string
	table     string // global id
	instance  uint64
	partition uint64
}

func (s stream) compare(o stream) int {
	return cmp.Or(cmp.Compare(s.peer, o.peer), cmp.Compare(s.table, o.table), cmp.Compare(s.instance, o.instance), cmp.Compare(s.partition, o.partition))
}

// peer is another region as this one knows it.
type peer struct {
	name   string
	client replication.Peer
	wake   chan struct{}

	// Below replicator.mu, and of the term:
	instance uint64
	revision uint64                       // of its word
	defs     map[string]*table.Definition // its own, by global id; nil before the first exchange
	heard    time.Time                    // of the last exchange that succeeded
	err      error                        // of the last one, if it failed
	offset   offset                       // of its clock
	held     int                          // its streams whose writes are held: they are stamped too far ahead
}

// replicated is what the replicator keeps of one global table.
type replicated struct {
	stability *replication.Stability
	members   []string                     // that stability counts
	acked     map[string]map[uint64]uint64 // region -> own partition -> seq
	lag       map[string]time.Duration     // region -> age of the newest progress when it arrived
	waiting   []chan struct{}              // sessions that wait for progress
	noted     map[string]uint64            // stream -> the last batch whose writes were noted as held
	told      map[string]crdt.HLC          // what the followers have been woken to hear of what was applied
}

func newReplicator(r *region.Region, now func() time.Time, tasks task.Runtime, logger *slog.Logger) *replicator {
	self := ""
	if r != nil {
		self = r.Name()
	}
	return &replicator{
		region: r, self: self, now: now, tasks: tasks, logger: logger,
		peers: map[string]*peer{}, tables: map[string]*replicated{}, wake: make(chan struct{}, 1), begun: make(chan struct{}), verify: newVerifier(),
	}
}

// AddPeer makes another region known. A region that is known already keeps its client.
func (r *replicator) AddPeer(name string, client replication.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.peers[name] != nil || name == r.self {
		return
	}
	p := &peer{name: name, client: client, wake: make(chan struct{}, 1)}
	r.peers[name] = p
	if r.term > 0 {
		r.running.Go(func() error { return r.exchangeWith(r.ctx, p) })
	}
}

// Peers returns the names of the other regions that are known.
func (r *replicator) Peers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.peers))
}

// Links is admin.Links'.
func (r *replicator) Links() []admin.Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]admin.Link, 0, len(r.peers))
	for _, p := range r.peers {
		l := admin.Link{Region: p.name, Reachable: p.err == nil && !p.heard.IsZero(), Heard: p.heard, Held: p.held}
		if !p.offset.at.IsZero() {
			l.ClockAhead, l.ClockWithin = p.offset.by, p.offset.within
		}
		if p.err != nil {
			l.Error = p.err.Error()
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b admin.Link) int { return strings.Compare(a.Region, b.Region) })
	return out
}

// Lag is admin.Links'.
func (r *replicator) Lag(globalID string) map[string]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.tables[globalID]; t != nil {
		return maps.Clone(t.lag)
	}
	return nil
}

// Run keeps the tables in step, whenever this node leads, until ctx ends.
func (r *replicator) Run(ctx context.Context) error {
	changed, stop := r.region.Watch()
	defer stop()
	for r.region.Ready(ctx) != nil {
		if r.tasks.Wait(ctx, nil, retryAfter) == task.Ended {
			return nil
		}
	}
	for ctx.Err() == nil {
		if r.region.Leads() {
			if err := r.lead(ctx); err != nil {
				return err
			}
		} else {
			r.tasks.Wait(ctx, changed, 0)
		}
	}
	return nil
}

// lead is a term. It returns when all that it has begun has ended.
func (r *replicator) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := task.NewGroup(ctx, r.tasks)
	changed, stop := r.region.Watch()
	defer stop()
	r.mu.Lock()
	r.terms++
	r.term, r.ctx, r.running = r.terms, ctx, g
	r.tables, r.followers, r.jobs = map[string]*replicated{}, map[stream]context.CancelFunc{}, map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(r.peers)) {
		p := r.peers[name]
		p.instance, p.defs, p.heard, p.err, p.held = 0, nil, time.Time{}, nil, 0
		g.Go(func() error { return r.exchangeWith(ctx, p) })
	}
	r.mu.Unlock()
	if r.terms == 1 {
		close(r.begun)
	}
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.tell(ctx) })
	g.Go(func() error { return r.fold(ctx) })
	g.Go(func() error { return r.verifyAll(ctx) })
	g.Go(func() error {
		for r.region.Leads() && r.tasks.Wait(ctx, changed, 0) != task.Ended {
		}
		r.mu.Lock()
		r.term = 0
		r.mu.Unlock()
		cancel()
		for _, t := range r.region.Tables() {
			for _, p := range t.Partitions() {
				p.Wake() // streams to other regions end
			}
		}
		return nil
	})
	return g.Wait()
}

// current returns the term, or ErrNotLeader while there is none. A region's only node leads as soon as it has started,
// which is waited for.
func (r *replicator) current(ctx context.Context) (uint64, error) {
	if r.region.Alone() && r.tasks.Wait(ctx, r.begun, 0) == task.Ended {
		return 0, context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term == 0 {
		return 0, replication.ErrNotLeader
	}
	return r.term, nil
}

// over tells whether a term has ended.
func (r *replicator) over(term uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term != term
}

// watch brings followers and jobs in line with the catalog and with what the peers say, whenever either
// changes.
func (r *replicator) watch(ctx context.Context) error {
	for {
		r.reconcile(ctx)
		if r.tasks.Wait(ctx, r.wake, 0) == task.Ended {
			return nil
		}
	}
}

// tell has the peers hear of every change of the catalog.
func (r *replicator) tell(ctx context.Context) error {
	changed, stop := r.region.Watch()
	defer stop()
	for r.tasks.Wait(ctx, changed, 0) != task.Ended {
		r.mu.Lock()
		for _, name := range slices.Sorted(maps.Keys(r.peers)) {
			task.Poke(r.peers[name].wake)
		}
		r.mu.Unlock()
		task.Poke(r.wake)
	}
	return nil
}

// exchangeWith tells a peer of this region's global tables, and hears of its, again and again.
func (r *replicator) exchangeWith(ctx context.Context, p *peer) error {
	for ctx.Err() == nil {
		err := r.exchange(ctx, p)
		r.mu.Lock()
		if changed := (err == nil) != (p.err == nil); changed && err != nil && ctx.Err() == nil {
			r.logger.Warn("replicator: a region cannot be reached", "peer", p.name, "err", err)
		} else if changed && err == nil {
			r.logger.Info("replicator: a region can be reached again", "peer", p.name)
		}
		p.err = err
		r.mu.Unlock()
		if err != nil {
			r.tasks.Wait(ctx, nil, retryAfter)
			continue
		}
		task.Poke(r.wake)
		r.tasks.Wait(ctx, p.wake, exchangeEvery)
	}
	return nil
}

func (r *replicator) exchange(ctx context.Context, p *peer) error {
	ctx, cancel := r.tasks.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	// What is not in the word of this region has no replica here, to the others.
	if err := r.region.CatchUp(ctx); err != nil {
		return err
	}
	ours, err := r.ours()
	if err != nil {
		return err
	}
	sent := r.now()
	theirs, err := p.client.Exchange(ctx, ours)
	if err != nil {
		return err
	}
	r.noteOffset(p, measure(sent, theirs, r.now()))
	if theirs.Region != p.name {
		return fmt.Errorf("replicator: the peer called %s says that it is %s", p.name, theirs.Region)
	}
	defs, err := decodeDefinitions(theirs)
	if err != nil {
		return err
	}
	r.mu.Lock()
	p.heard = r.now()
	r.mu.Unlock()
	if !r.heard(p, theirs, defs) {
		return nil
	}
	_, err = r.take(ctx, defs)
	return err
}

// heard takes note of what a region says of itself, and tells whether that is its newest word: one that was long on its way, or
// sent twice, may come behind a newer one.
func (r *replicator) heard(p *peer, theirs replication.Tables, defs map[string]*table.Definition) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.defs != nil && p.instance == theirs.Instance && theirs.Revision < p.revision {
		return false
	}
	p.instance, p.revision, p.defs = theirs.Instance, theirs.Revision, defs
	return true
}

func decodeDefinitions(t replication.Tables) (map[string]*table.Definition, error) {
	out := make(map[string]*table.Definition, len(t.Definitions))
	for _, b := range t.Definitions {
		d := &table.Definition{}
		if err := json.Unmarshal(b, d); err != nil {
			return nil, fmt.Errorf("replicator: a definition from %s: %w", t.Region, err)
		}
		out[d.GlobalID] = d
	}
	return out, nil
}

// ours is what this region tells the others.
func (r *replicator) ours(more ...*table.Definition) (replication.Tables, error) {
	t := replication.Tables{Region: r.self, Instance: r.region.Instance()}
	defs, revision, err := r.region.Catalog()
	if err != nil {
		return t, err
	}
	t.Revision = revision
	for _, d := range append(defs, more...) {
		if len(d.Replicas) == 0 {
			// A table of this region alone: the others are told that its name is taken here.
			d = &table.Definition{GlobalID: d.GlobalID, Schema: table.Schema{Name: d.Schema.Name}}
		}
		b, err := json.Marshal(d)
		if err != nil {
			return t, err
		}
		t.Definitions = append(t.Definitions, b)
	}
	return t, nil
}

// Exchange is replication.Source's.
func (r *replicator) Exchange(ctx context.Context, theirs replication.Tables) (replication.Tables, error) {
	received := r.now()
	term, err := r.current(ctx)
	if err != nil {
		return replication.Tables{}, err
	}
	defs, err := decodeDefinitions(theirs)
	if err != nil {
		return replication.Tables{}, err
	}
	var refused []*table.Definition
	if p := r.peer(theirs.Region); p == nil || r.over(term) || r.heard(p, theirs, defs) {
		if refused, err = r.take(ctx, defs); err != nil {
			return replication.Tables{}, err
		}
	}
	task.Poke(r.wake)
	// See exchange.
	if err := r.region.CatchUp(ctx); err != nil {
		return replication.Tables{}, err
	}
	// A region that joins goes on once every member has answered: from here on it must count. At another node that
	// leads now, or still believes it does, it is the catalog that says so: see fold.
	r.refreshMembers()
	if r.over(term) {
		return replication.Tables{}, replication.ErrNotLeader
	}
	answer, err := r.ours(refused...)
	answer.ReceivedAt, answer.AnsweredAt = received.UnixNano(), r.now().UnixNano()
	return answer, err
}

func (r *replicator) peer(name string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[name]
}

// take takes over what another region's definitions say that is newer. It returns those of which this
// region cannot have a replica, marked so.
func (r *replicator) take(ctx context.Context, defs map[string]*table.Definition) (refused []*table.Definition, err error) {
	// What this region has buried it must not take for new.
	if err := r.region.CatchUp(ctx); err != nil {
		return nil, err
	}
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(defs)) {
		theirs := defs[id]
		own := theirs.Replica(r.self)
		have, err := r.byGlobalID(theirs.GlobalID)
		switch {
		case err != nil:
			errs = append(errs, err)
		case have != nil:
			_, err := r.region.Change(ctx, have.Schema.Name, func(d *table.Definition) error {
				if d.GlobalID != theirs.GlobalID {
					return nil
				}
				if d.Take(r.self, theirs) && d.Status == table.Active {
					d.Status = table.Updating
				}
				if own := d.Replica(r.self); own != nil && own.Status == table.Deleting && d.Status != table.Deleting && !d.Leaving {
					if d.DeletionProtection {
						r.logger.Warn("replicator: a replica under deletion protection is not removed", "table", d.Schema.Name)
						d.SetReplica(r.self, r.self, table.Active, uint64(r.region.Stamp()))
						return nil
					}
					d.Status = table.Deleting
				}
				return nil
			})
			if !errors.Is(err, region.ErrNoTable) {
				errs = append(errs, err)
			}
		case own == nil || own.Status != table.Creating && own.Status != table.Active:
		default:
			buried, err := r.region.Buried(theirs.GlobalID)
			if err != nil || own.Version <= buried {
				errs = append(errs, err)
				continue // a word from before this region's replica was told to go
			}
			d := theirs.Clone()
			// A region that is said to be ACTIVE and has no such table has lost its data: it begins anew.
			d.SetReplica(r.self, r.self, table.Creating, uint64(r.region.Stamp()))
			if own.Status == table.Creating {
				d.Replica(r.self).Version = own.Version
			}
			d.Bare()
			_, err = r.region.Create(ctx, d)
			if have, _ := r.byGlobalID(theirs.GlobalID); errors.Is(err, region.ErrExists) && have != nil {
				err = nil // another region's word of the same table came first
			} else if errors.Is(err, region.ErrExists) {
				r.logger.Error("replicator: another table has the name of a global one", "table", d.Schema.Name)
				d.SetReplica(r.self, r.self, table.CreationFailed, uint64(r.region.Stamp()))
				refused = append(refused, d)
				err = nil
			}
			errs = append(errs, err)
		}
	}
	return refused, errors.Join(errs...)
}

func (r *replicator) byGlobalID(id string) (*table.Definition, error) {
	defs, err := r.region.Definitions()
	if err != nil {
		return nil, err
	}
	for _, d := range defs {
		if d.GlobalID == id {
			return d, nil
		}
	}
	return nil, nil
}

// refreshMembers brings every table's Stability in line with who is a member now.
func (r *replicator) refreshMembers() {
	defs, err := r.region.Definitions()
	if err != nil {
		return // reported by reconcile
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]bool{}
	for _, d := range defs {
		others := d.Others(r.self)
		if len(others) == 0 {
			continue
		}
		seen[d.GlobalID] = true
		t := r.tables[d.GlobalID]
		if t == nil {
			t = &replicated{stability: replication.NewStability(r.self), acked: map[string]map[uint64]uint64{}, lag: map[string]time.Duration{}, noted: map[string]uint64{}}
			r.tables[d.GlobalID] = t
		}
		members := map[string][]uint64{}
		for _, o := range others {
			members[o.Region] = nil
			if p := r.peers[o.Region]; p != nil && p.defs[d.GlobalID] != nil {
				for _, part := range p.defs[d.GlobalID].Partitions {
					members[o.Region] = append(members[o.Region], part.ID)
				}
			}
		}
		t.stability.SetMembers(members)
		t.members = slices.Sorted(maps.Keys(members))
	}
	for id := range r.tables {
		if !seen[id] {
			delete(r.tables, id)
		}
	}
}

// reconcile starts and stops followers, seeds and removals.
func (r *replicator) reconcile(ctx context.Context) {
	defs, err := r.region.Definitions()
	if err != nil {
		r.logger.Error("replicator: catalog", "err", err)
		return
	}
	r.refreshMembers()
	wanted := map[stream]string{} // -> table name
	for _, d := range defs {
		own := d.Replica(r.self)
		if own == nil {
			continue
		}
		r.noteGone(ctx, d)
		switch own.Status {
		case table.Creating:
			r.start(ctx, d.GlobalID, func() error { return r.join(ctx, d) })
		case table.Deleting:
			if d.Leaving && d.Status != table.Deleting {
				r.start(ctx, d.GlobalID, func() error { return r.disassociate(ctx, d) })
			} else {
				r.start(ctx, d.GlobalID, func() error { return r.leave(ctx, d) })
			}
		}
		if own.Status != table.Active && own.Status != table.Deleting {
			continue
		}
		for _, o := range d.Others(r.self) {
			p := r.peer(o.Region)
			if p == nil || o.Status == table.Creating {
				continue
			}
			r.mu.Lock()
			if theirs := p.defs[d.GlobalID]; theirs != nil {
				for _, part := range theirs.Partitions {
					wanted[stream{p.name, d.GlobalID, p.instance, part.ID}] = d.Schema.Name
				}
			}
			r.mu.Unlock()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range slices.SortedFunc(maps.Keys(r.followers), stream.compare) {
		if _, ok := wanted[s]; !ok {
			r.followers[s]()
			delete(r.followers, s)
		}
	}
	for _, s := range slices.SortedFunc(maps.Keys(wanted), stream.compare) {
		if r.followers[s] != nil {
			continue
		}
		name := wanted[s]
		fctx, cancel := context.WithCancel(ctx)
		r.followers[s] = cancel
		p := r.peers[s.peer]
		r.running.Go(func() error { return r.follow(fctx, p, s, name) })
	}
}

// noteGone marks replicas as gone whose regions were told to delete them and have.
func (r *replicator) noteGone(ctx context.Context, d *table.Definition) {
	for _, o := range d.Others(r.self) {
		p := r.peer(o.Region)
		if o.Status != table.Deleting || p == nil {
			continue
		}
		r.mu.Lock()
		gone := p.defs != nil && p.defs[d.GlobalID] == nil
		r.mu.Unlock()
		if !gone {
			continue
		}
		_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
			if have := n.Replica(o.Region); have != nil && have.Status == table.Deleting {
				// Right behind the word that it goes, by whomever it is noted: nobody's late note may take back a replica that was made since.
				n.SetReplica(r.self, o.Region, table.Gone, 0)
				if n.Status == table.Active {
					n.Status = table.Updating
				}
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			r.logger.Error("replicator: a replica that is gone could not be noted", "table", d.Schema.Name, "peer", o.Region, "err", err)
		}
	}
}

// start runs a job for a table, one at a time, until it is done; a job that fails is started again by the
// next reconcile.
func (r *replicator) start(ctx context.Context, id string, job func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs[id] {
		return
	}
	r.jobs[id] = true
	r.running.Go(func() error {
		err := job()
		r.mu.Lock()
		delete(r.jobs, id)
		r.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			r.logger.Info("replicator: not yet", "table", id, "err", err)
			r.tasks.Wait(ctx, nil, retryAfter)
		}
		task.Poke(r.wake)
		return nil
	})
}

// join fills this region's new replica of a table: once every member knows that this region joins, from
// one of them; then it is ACTIVE and follows all.
func (r *replicator) join(ctx context.Context, d *table.Definition) error {
	others := d.Others(r.self)
	var source *peer
	for _, o := range others {
		p := r.peer(o.Region)
		if p == nil {
			return fmt.Errorf("region %s is not known here", o.Region)
		}
		// Ask again: the answer must be from after this region's own word of the join.
		if err := r.exchange(ctx, p); err != nil {
			return fmt.Errorf("region %s does not know yet: %w", o.Region, err)
		}
		r.mu.Lock()
		theirs := p.defs[d.GlobalID]
		r.mu.Unlock()
		if theirs == nil || theirs.Replica(r.self) == nil {
			if o.Status == table.Creating {
				continue // joins as well, and holds nothing
			}
			return fmt.Errorf("region %s does not know yet", o.Region)
		}
		if o.Status == table.Active && source == nil {
			source = p
		}
	}
	t, err := r.region.Opened(ctx, d.Schema.Name)
	if err != nil {
		return err
	}
	if source != nil {
		if err := r.seed(ctx, source, d.GlobalID, t); err != nil {
			return err
		}
	} else if len(others) > 0 {
		return fmt.Errorf("no region has an active replica to seed from")
	}
	_, err = r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		if own := n.Replica(r.self); own != nil && own.Status == table.Creating {
			n.SetReplica(r.self, r.self, table.Active, uint64(r.region.Stamp()))
		}
		return nil
	})
	return err
}

// seed copies every item of a table from a peer, and takes over where to follow all origins from.
func (r *replicator) seed(ctx context.Context, p *peer, id string, t *region.Table) error {
	r.mu.Lock()
	theirs, instance := p.defs[id], p.instance
	r.mu.Unlock()
	if theirs == nil {
		return fmt.Errorf("seed from %s: it has no such table", p.name)
	}
	items := 0
	stable := crdt.MaxHLC
	for _, part := range theirs.Partitions {
		err := p.client.Seed(ctx, r.self, id, part.ID, func(s replication.SeedPart) error {
			if !s.Done {
				items += len(s.Items)
				err := t.Merge(ctx, op.Cursor{}, 0, deltas(s.Items))
				return err
			}
			stable = min(stable, s.Stable)
			err := t.Merge(ctx, op.Cursor{Stream: replication.StreamName(p.name, instance, part.ID), Seq: s.Seq}, s.Clock, nil)
			for _, stream := range slices.Sorted(maps.Keys(s.Cursors)) {
				if err == nil {
					err = t.Merge(ctx, op.Cursor{Stream: stream, Seq: s.Cursors[stream]}, 0, nil)
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("seed from %s: %w", p.name, err)
		}
	}
	// What the source had folded away this region has seen as well, though nothing of it came: a write here that did not say so would
	// bring it back, where it is not folded away yet.
	if err := t.Stable(ctx, stable); err != nil {
		return fmt.Errorf("seed from %s: %w", p.name, err)
	}
	r.logger.Info("replicator: seeded", "table", t.Schema().Name, "from", p.name, "items", items)
	return nil
}

func deltas(changes []replication.Change) []op.Delta {
	out := make([]op.Delta, len(changes))
	for i, c := range changes {
		out[i] = op.Delta{Key: c.Key, State: c.Delta}
	}
	return out
}

// leave ends this region's replica: once every other region knows and has all that was written here, it
// is gone.
func (r *replicator) leave(ctx context.Context, d *table.Definition) error {
	if err := r.shipped(ctx, d); err != nil {
		return err
	}
	if err := r.region.Bury(ctx, d.GlobalID, d.Replica(r.self).Version); err != nil {
		return err
	}
	_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		n.SetReplica(r.self, r.self, table.Gone, 0)
		return nil
	})
	return err
}

// disassociate ends this region's replica and leaves its table: once every other region knows and has all that was written here, and
// all that was written there before this one was asked to go is here, it is a table of this region alone. The others note that the
// replica is gone when they hear of it no more.
func (r *replicator) disassociate(ctx context.Context, d *table.Definition) error {
	asked := d.Replica(r.self).Version
	if err := r.shipped(ctx, d); err != nil {
		return err
	}
	for _, o := range d.Others(r.self) {
		if err := r.drain(ctx, r.peer(o.Region), d); err != nil {
			return fmt.Errorf("what region %s wrote is not all here yet: %w", o.Region, err)
		}
	}
	if err := r.region.Bury(ctx, d.GlobalID, asked); err != nil {
		return err
	}
	_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
		if n.GlobalID == d.GlobalID && n.Leaving && n.Status != table.Deleting {
			n.Leave(r.self, region.NewID())
			if n.Status == table.Active {
				n.Status = table.Updating
			}
		}
		return nil
	})
	return err
}

// drain follows a peer's partitions until all is here that was written there before the call.
func (r *replicator) drain(ctx context.Context, p *peer, d *table.Definition) error {
	t, err := r.region.Opened(ctx, d.Schema.Name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	theirs, instance := p.defs[d.GlobalID], p.instance
	r.mu.Unlock()
	if theirs == nil {
		return nil // it has no replica any more
	}
	for _, part := range theirs.Partitions {
		s := stream{p.name, d.GlobalID, instance, part.ID}
		fctx, cancel := context.WithCancel(ctx)
		end := &drained{sink: sink{r: r, t: t, s: s, stream: replication.StreamName(s.peer, s.instance, s.partition)}, cancel: cancel}
		err := p.client.Follow(fctx, replication.Resume{Region: r.self, Table: s.table, Instance: s.instance, Partition: s.partition, Seq: t.Cursor(end.stream)}, end)
		cancel()
		if !end.reached {
			return cmp.Or(err, context.Cause(ctx), errors.New("the stream ended"))
		}
	}
	return nil
}

// drained is a sink until the first progress: a new stream begins with all that there is, and then says so.
type drained struct {
	sink
	cancel  context.CancelFunc
	reached bool
}

// Progress is replication.Sink's.
func (k *drained) Progress(p replication.Progress) {
	k.sink.Progress(p)
	k.reached = true
	k.cancel()
}

// shipped returns an error until every other region knows that this one leaves and has all that was written here.
func (r *replicator) shipped(ctx context.Context, d *table.Definition) error {
	for _, o := range d.Others(r.self) {
		p := r.peer(o.Region)
		if p == nil {
			return fmt.Errorf("region %s is not known here", o.Region)
		}
		r.mu.Lock()
		theirs, known := p.defs[d.GlobalID], p.defs != nil
		r.mu.Unlock()
		if !known {
			return fmt.Errorf("region %s has not been heard from", o.Region)
		}
		if theirs == nil {
			continue // it has no replica any more
		}
		if mine := theirs.Replica(r.self); mine == nil || mine.Status == table.Active {
			return fmt.Errorf("region %s does not know yet", o.Region)
		}
		if o.Status != table.Active {
			continue
		}
		t, err := r.region.Opened(ctx, d.Schema.Name)
		if errors.Is(err, region.ErrNotActive) {
			continue // closed already: begun before a restart
		}
		if err != nil {
			return err
		}
		// What other nodes of this region have written is to be shipped, too.
		if err := t.CatchUp(ctx); err != nil {
			return err
		}
		for _, part := range t.Partitions() {
			if r.unshipped(d.GlobalID, o.Region, part) {
				return fmt.Errorf("region %s does not have all that was written here yet", o.Region)
			}
		}
	}
	return nil
}

// unshipped tells whether a partition has changes of this region's own that a follower has not applied.
func (r *replicator) unshipped(id, follower string, p *region.Partition) bool {
	r.mu.Lock()
	var acked uint64
	if t := r.tables[id]; t != nil {
		acked = t.acked[follower][p.ID]
	}
	r.mu.Unlock()
	for {
		changes, last, state, err := p.Changes(acked, 1)
		if err != nil || len(changes) > 0 {
			return true
		}
		if acked = last; acked >= state.Seq {
			return false
		}
	}
}

// Pending returns, by region, how many changes of this region's a table's replica there has not acknowledged. Beyond pendingExactly it
// counts what others wrote, too.
func (r *replicator) Pending(d *table.Definition) map[string]uint64 {
	out := map[string]uint64{}
	r.mu.Lock()
	leads := r.term > 0
	r.mu.Unlock()
	if !leads {
		return out
	}
	for _, o := range d.Others(r.self) {
		out[o.Region] = 0
		for _, t := range r.region.Tables() {
			if t.ID != d.ID {
				continue
			}
			for _, p := range t.Partitions() {
				r.mu.Lock()
				var acked uint64
				if known := r.tables[d.GlobalID]; known != nil {
					acked = known.acked[o.Region][p.ID]
				}
				r.mu.Unlock()
				out[o.Region] += pending(p, acked)
			}
		}
	}
	return out
}

// pendingExactly is how many entries of a change log are looked at to count.
const pendingExactly = 4096

func pending(p *region.Partition, acked uint64) uint64 {
	seq := p.State().Seq
	if acked = max(acked, p.State().Trimmed); acked >= seq {
		return 0
	}
	if seq-acked > pendingExactly {
		return seq - acked
	}
	var n uint64
	for acked < seq {
		changes, last, _, err := p.Changes(acked, seedPartBytes)
		if err != nil {
			return seq - acked + n
		}
		n, acked = n+uint64(len(changes)), last
	}
	return n
}

// askLimit is how long another region is waited for that a client's change is about.
const askLimit = 2 * time.Second

// Replica is api.Config's.
func (r *replicator) Replica(ctx context.Context, region, name string) *table.Definition {
	r.mu.Lock()
	p, leads := r.peers[region], r.term > 0
	reachable := leads && p != nil && p.err == nil
	r.mu.Unlock()
	if p == nil {
		return nil
	}
	if reachable {
		ctx, cancel := r.tasks.WithTimeout(ctx, askLimit)
		if err := r.exchange(ctx, p); err != nil {
			r.logger.Debug("replicator: a region was not reached to be asked", "region", region, "err", err)
		}
		cancel()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range p.defs {
		if own := d.Replica(region); d.Schema.Name == name && (own == nil || own.Live()) { // it has one such table
			return d
		}
	}
	return nil
}

// follow follows one partition of a peer until ctx ends.
func (r *replicator) follow(ctx context.Context, p *peer, s stream, name string) error {
	for ctx.Err() == nil {
		err := r.followOnce(ctx, p, s, name)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, replication.ErrInstance) || errors.Is(err, replication.ErrNoTable) {
			task.Poke(p.wake) // what is known of the peer is out of date
		}
		r.logger.Debug("replicator: a stream ended", "from", p.name, "table", name, "err", err)
		r.tasks.Wait(ctx, nil, retryAfter)
	}
	return nil
}

func (r *replicator) followOnce(ctx context.Context, p *peer, s stream, name string) error {
	t, err := r.region.Opened(ctx, name)
	if err != nil {
		return err
	}
	// Begun from where a replica that lags has come to, the stream might be one that the peer's log no longer has.
	if err := t.CatchUp(ctx); err != nil {
		return err
	}
	streamName := replication.StreamName(s.peer, s.instance, s.partition)
	from := replication.Resume{Region: r.self, Table: s.table, Instance: s.instance, Partition: s.partition, Seq: t.Cursor(streamName)}
	if mutant.On(mutant.ResumeTooFar) {
		from.Seq++
	}
	err = p.client.Follow(ctx, from, &sink{r: r, t: t, s: s, stream: streamName})
	if errors.Is(err, replication.ErrTruncated) {
		r.logger.Warn("replicator: fallen behind the peer's change log; seeding again", "from", p.name, "table", name)
		return r.seed(ctx, p, s.table, t)
	}
	return err
}

// sink is where one followed stream goes.
type sink struct {
	r      *replicator
	t      *region.Table
	s      stream
	stream string
}

// Apply is replication.Sink's.
func (k *sink) Apply(ctx context.Context, b replication.Batch) error {
	for _, c := range b.Changes {
		// A region ships what it has written itself, and nothing in another's name.
		if a := crdt.PeekDot(c.Delta).Actor; a.Region() != crdt.NewActor(k.s.peer, 0).Region() {
			return fmt.Errorf("replicator: region %s ships a write of actor %s", k.s.peer, a)
		}
	}
	if err := k.hold(ctx, b); err != nil {
		return err
	}
	err := k.t.Merge(ctx, op.Cursor{Stream: k.stream, Seq: b.Seq}, 0, deltas(b.Changes))
	return err
}

// hold waits while the batch is stamped too far ahead of this node's clock: applied, it would win over
// everything written here until then.
func (k *sink) hold(ctx context.Context, b replication.Batch) error {
	if mutant.On(mutant.FutureApplied) {
		return nil
	}
	var newest crdt.HLC
	for _, c := range b.Changes {
		newest = max(newest, crdt.PeekDot(c.Delta).HLC)
	}
	said := false
	defer func() {
		if said {
			k.count(-1)
		}
	}()
	for {
		ahead := time.Duration(newest.Millis()-k.r.now().UnixMilli()) * time.Millisecond
		if ahead <= maxClockOffset {
			return nil
		}
		if !said {
			said = true
			k.count(+1)
			k.r.logger.Error("replicator: a region's clock is ahead; its writes are held", "peer", k.s.peer, "ahead", ahead)
			if err := k.note(ctx, b); err != nil {
				return err
			}
		}
		k.r.tasks.Wait(ctx, nil, min(ahead-maxClockOffset, time.Second))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// count counts the peer's streams whose writes are held.
func (k *sink) count(by int) {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	if p := k.r.peers[k.s.peer]; p != nil {
		p.held += by
	}
}

// note records the batch's writes that are held.
func (k *sink) note(ctx context.Context, b replication.Batch) error {
	limit := crdt.At(k.r.now().Add(maxClockOffset).UnixMilli(), 0)
	k.r.mu.Lock()
	t := k.r.tables[k.s.table]
	known := t == nil || t.noted[k.stream] >= b.Seq
	if !known {
		t.noted[k.stream] = b.Seq
	}
	k.r.mu.Unlock()
	if known {
		return nil // the stream has begun anew with what was held before
	}
	var held []op.Delta
	for _, d := range deltas(b.Changes) {
		if crdt.PeekDot(d.State).HLC > limit {
			held = append(held, d)
		}
	}
	return k.t.Held(ctx, held)
}

// Progress is replication.Sink's.
func (k *sink) Progress(p replication.Progress) {
	k.r.mu.Lock()
	defer k.r.mu.Unlock()
	if t := k.r.tables[k.s.table]; t != nil {
		t.stability.Heard(k.s.peer, k.s.partition, p)
		t.lag[k.s.peer] = k.r.now().Sub(time.Unix(0, p.SentAt))
		for _, c := range t.waiting {
			task.Poke(c)
		}
	}
}

// fold has what is stable folded, and change logs cut to what somebody still needs.
//
// What counts as stable, and as needed, depends on who is a member, which another node may have changed that leads
// now. So it is worked out first, by what this node has heard until then; then the catalog is asked, and a partition
// folds only if there is no member that was not counted. One that joins later is seeded later, with all that was
// stable, and stamps whatever it writes above it: that stays true however late the command takes effect.
func (r *replicator) fold(ctx context.Context) error {
	for r.tasks.Wait(ctx, nil, foldEvery) != task.Ended {
		var work []folding
		for _, t := range r.region.Tables() {
			d := t.Definition()
			news := r.news(d.GlobalID)
			for _, p := range t.Partitions() {
				if news {
					p.Wake()
				}
				work = append(work, r.stable(d, p))
			}
		}
		if err := r.region.CatchUp(ctx); err != nil {
			continue
		}
		for _, f := range work {
			d, err := r.region.Definition(f.def.Schema.Name)
			if err != nil || d.ID != f.def.ID || slices.ContainsFunc(d.Others(r.self), func(o table.Replica) bool { return !slices.Contains(f.members, o.Region) }) {
				continue
			}
			if err := f.p.Fold(ctx, f.stable, f.trim); err != nil && ctx.Err() == nil {
				r.logger.Debug("replicator: fold", "table", d.Schema.Name, "err", err)
			}
		}
	}
	return nil
}

// folding is what a partition may do.
type folding struct {
	def     *table.Definition
	p       *region.Partition
	members []string // other regions that count
	stable  crdt.HLC // up to here it may fold
	trim    uint64   // up to here nobody needs its change log
}

// news tells whether more of other regions' writes has been applied to a table since the last call: its
// followers wait to hear of it, to know what is stable.
func (r *replicator) news(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tables[id]
	if t == nil {
		return false
	}
	applied := t.stability.Applied()
	if maps.Equal(applied, t.told) {
		return false
	}
	t.told = applied
	return true
}

// stable works out what a partition may do.
func (r *replicator) stable(d *table.Definition, p *region.Partition) folding {
	f := folding{def: d, p: p}
	state := p.State()
	others := d.Others(r.self)
	if len(others) == 0 {
		f.stable, f.trim = state.Clock, state.Seq
		return f
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tables[d.GlobalID]
	if t == nil {
		return f
	}
	f.members, f.stable, f.trim = t.members, t.stability.Stable(state.Clock), state.Seq
	for _, o := range others {
		if mutant.On(mutant.TrimUnacked) {
			break
		}
		f.trim = min(f.trim, t.acked[o.Region][p.ID])
	}
	return f
}
