package node

import (
	"cmp"
	"context"
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
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

const (
	exchangeEvery = 5 * time.Second        // definitions, when nothing has changed
	retryAfter    = 500 * time.Millisecond // what failed, with a peer that may be cut off
	exchangeLimit = 5 * time.Second        // for one exchange
	foldEvery     = time.Second
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
	region    *region.Region
	self      string
	now       func() time.Time
	tasks     task.Runtime
	logger    *slog.Logger
	wake      chan struct{}
	begun     chan struct{} // closed when the first term begins
	asked     chan struct{} // closed when the other regions need not be asked any more what they have of this one: see oldDisk
	answered  chan struct{} // has a token when one of them has answered, or not
	verify    *verifier
	retention Retention
	expire    expirer

	seedBytes  int           // see seedPartBytes
	mergeBytes int           // see besideBytes
	seedSlots  chan struct{} // has a token for each table more that may be copied now
	order      order

	fencedBy atomic.Pointer[fence] // why this region takes no writes; nil: it does

	mu    sync.Mutex
	peers map[string]*peer
	// Of the term:
	term      uint64 // its number; 0 while this node does not lead
	terms     uint64 // how many there were
	begunAt   time.Time
	tables    map[string]*replicated // by global id
	followers map[stream]context.CancelFunc
	jobs      map[string]bool    // global ids with a seed or a removal under way, or to be tried again
	failing   map[string]failing // those that failed when they were tried last
	seeds     map[string]*seeding
	running   *task.Group
	ctx       context.Context
}

// stream names one partition of one table in another region.
type stream struct {
	peer      string
	table     string // global id
	instance  uint64
	partition uint64
	// incarnation is of the peer's replica.
	incarnation uint16
}

func (s stream) compare(o stream) int {
	return cmp.Or(cmp.Compare(s.peer, o.peer), cmp.Compare(s.table, o.table), cmp.Compare(s.instance, o.instance), cmp.Compare(s.partition, o.partition), cmp.Compare(s.incarnation, o.incarnation))
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
	came     time.Time                    // when it last asked something of this one
	words    int                          // taken
	compared bool                         // it has told what it has of this region since the start
	since    time.Time                    // when that last changed from or to a failure
	offset   offset                       // of its clock
	held     int                          // its streams whose writes are held: they are stamped too far ahead
}

// replicated is what the replicator keeps of one global table.
type replicated struct {
	stability    *replication.Stability
	members      []string                     // that stability counts
	acked        map[string]map[uint64]uint64 // region -> own partition -> seq
	sent         map[stream]sent              // to a peer, of an own partition; table and instance are not looked at
	fresh        map[stream]fresh             // of those that are followed
	waiting      []chan struct{}              // sessions that wait for progress
	noted        map[string]uint64            // stream -> the last batch whose writes were noted as held
	incarnations map[string]uint16            // region -> incarnation of its replica, whose acks those are
	settled      map[string]bool              // replication.FenceName -> this node has all that is to be had of what was given up
	fences       []string                     // that stability counts
	unsettled    []string                     // regions of those of which this node may not have all
	told         map[string]crdt.HLC          // what the followers have been woken to hear of what was applied
}

func newReplicator(r *region.Region, now func() time.Time, tasks task.Runtime, logger *slog.Logger) *replicator {
	self := ""
	if r != nil {
		self = r.Name()
	}
	rep := &replicator{
		region: r, self: self, now: now, tasks: tasks, logger: logger,
		peers: map[string]*peer{}, tables: map[string]*replicated{}, wake: make(chan struct{}, 1), begun: make(chan struct{}), asked: make(chan struct{}), answered: make(chan struct{}, 1), verify: newVerifier(),
		expire:    expirer{every: expireEvery, expired: map[string]*atomic.Int64{}},
		seedBytes: seedPartBytes, mergeBytes: besideBytes, seedSlots: make(chan struct{}, maxSeeds), seeds: map[string]*seeding{}, order: order{tasks: tasks},
	}
	if r == nil || !r.Alone() || mutant.On(mutant.WriteUnasked) {
		close(rep.asked) // what one node has lost the others have
	}
	for range maxSeeds {
		rep.seedSlots <- struct{}{}
	}
	return rep
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
	r.term, r.ctx, r.running, r.begunAt = r.terms, ctx, g, r.now()
	r.tables, r.followers, r.jobs = map[string]*replicated{}, map[stream]context.CancelFunc{}, map[string]bool{}
	r.failing = map[string]failing{}
	for _, name := range slices.Sorted(maps.Keys(r.peers)) {
		p := r.peers[name]
		p.instance, p.defs, p.heard, p.came, p.err, p.held = 0, nil, time.Time{}, time.Time{}, nil, 0
		p.compared = false
		g.Go(func() error { return r.exchangeWith(ctx, p) })
	}
	r.mu.Unlock()
	if r.terms == 1 {
		close(r.begun)
		if r.region.Alone() && !mutant.On(mutant.WriteUnasked) {
			g.Go(func() error { return r.ask(ctx) })
		}
	}
	g.Go(func() error { return r.watch(ctx) })
	g.Go(func() error { return r.tell(ctx) })
	g.Go(func() error { return r.fold(ctx) })
	g.Go(func() error { return r.retain(ctx) })
	g.Go(func() error { return r.verifyAll(ctx) })
	g.Go(func() error { return r.expireAll(ctx) })
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

// comes notes that another region asks something of this one.
func (r *replicator) comes(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.peers[name]; p != nil {
		p.came = r.now()
	}
}

func (r *replicator) peer(name string) *peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers[name]
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
			t = &replicated{stability: replication.NewStability(r.self), acked: map[string]map[uint64]uint64{}, sent: map[stream]sent{}, fresh: map[stream]fresh{}, noted: map[string]uint64{}, incarnations: map[string]uint16{}, settled: map[string]bool{}}
			r.tables[d.GlobalID] = t
		}
		members := map[string][]uint64{}
		for _, o := range others {
			members[o.Region] = nil
			if t.incarnations[o.Region] != o.Incarnation || o.Status == table.Creating {
				// A replica that went in good order comes back as the same incarnation, and begins with less than it had.
				t.incarnations[o.Region] = o.Incarnation
				delete(t.acked, o.Region)
			}
			if p := r.peers[o.Region]; p != nil && p.defs[d.GlobalID] != nil && p.defs[d.GlobalID].Incarnation == o.Incarnation {
				for _, part := range p.defs[d.GlobalID].Partitions {
					members[o.Region] = append(members[o.Region], part.ID)
				}
			}
		}
		t.stability.SetMembers(members)
		t.members = slices.Sorted(maps.Keys(members))
		fences := map[string]bool{}
		t.unsettled = nil
		for _, f := range d.Schema.Fences {
			name := replication.FenceName(f.Region, f.Incarnation)
			fences[name] = t.settled[name]
			if !t.settled[name] {
				t.unsettled = append(t.unsettled, f.Region)
			}
		}
		// Who had all before a region went may not have told it yet: until it has, something of it may be on its way that had not seen all.
		for _, name := range left(d) {
			fences[name] = true
		}
		t.stability.SetFences(fences)
		t.fences = slices.Sorted(maps.Keys(fences))
	}
	for id := range r.tables {
		if !seen[id] {
			delete(r.tables, id)
		}
	}
}

// left names the replicas of a table that are gone.
func left(d *table.Definition) (names []string) {
	if mutant.On(mutant.LeftForgotten) {
		return nil
	}
	for _, o := range d.Replicas {
		if o.Status == table.Gone {
			names = append(names, replication.LeftName(o.Region, o.Version))
		}
	}
	return names
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
		if d.GivenUp(r.self) {
			r.begin(ctx, d)
			continue
		}
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
		r.settleAll(ctx, d)
		for _, o := range d.Others(r.self) {
			p := r.peer(o.Region)
			if p == nil || o.Status == table.Creating {
				continue
			}
			r.mu.Lock()
			if theirs := p.defs[d.GlobalID]; theirs != nil && theirs.Incarnation == o.Incarnation {
				for _, part := range theirs.Partitions {
					wanted[stream{p.name, d.GlobalID, p.instance, part.ID, o.Incarnation}] = d.Schema.Name
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
			if t := r.tables[s.table]; t != nil {
				delete(t.fresh, s)
			}
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

// start runs a job for a table, one at a time, until it is done; a job that fails is started again by the next reconcile after a while.
func (r *replicator) start(ctx context.Context, id string, job func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.jobs[id] {
		return
	}
	r.jobs[id] = true
	r.running.Go(func() error {
		err := job()
		if wait := r.tried(ctx, id, err); wait > 0 {
			r.tasks.Wait(ctx, nil, wait)
		}
		r.mu.Lock()
		delete(r.jobs, id)
		r.mu.Unlock()
		task.Poke(r.wake)
		return nil
	})
}

// failing is what is known of a job that does not come to an end.
type failing struct {
	err  string
	wait time.Duration // before it was tried last
}

// A job that fails waits mostly for another region's next word, which takes a round trip; or for an operator.
const (
	firstWait = 50 * time.Millisecond
	maxWait   = 2 * time.Second
)

// tried takes note of how a job ended, and returns how long to wait before the next try. It tells of the first failure, and of others.
func (r *replicator) tried(ctx context.Context, id string, err error) (wait time.Duration) {
	if ctx.Err() != nil {
		return 0
	}
	r.mu.Lock()
	was, again := r.failing[id]
	if err == nil {
		delete(r.failing, id)
	} else {
		wait = min(max(firstWait, 2*was.wait), maxWait)
		r.failing[id] = failing{err.Error(), wait}
	}
	r.mu.Unlock()
	switch {
	case err != nil && err.Error() != was.err:
		r.logger.Info("replicator: not yet", "table", id, "err", err)
	case err == nil && again:
		r.logger.Info("replicator: what had to wait is done", "table", id)
	}
	return wait
}
