package region

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/table"
)

// Partition is one open partition. Its methods are safe for concurrent use.
type Partition struct {
	ID     uint64
	Start  table.Key // the least key that may be its
	Parent uint64    // see table.Partition

	first table.Key // where it ended when it began
	table *Table
	group *group.Group
	load  load
	ready bool // the draft is flushed; of keepSplit alone

	state   atomic.Pointer[partition.State]     // as of the last run that the store shows
	schema  atomic.Pointer[table.Schema]        // that the machine follows, as of then
	cursors atomic.Pointer[map[string]uint64]   // how far streams of other regions have been applied: see Table.Cursor; never changed in place
	clocks  atomic.Pointer[map[string]crdt.HLC] // the newest of their writes up to there; never changed in place
	caught  atomic.Bool                         // see caughtUp

	mu       sync.Mutex
	watchers map[chan struct{}]bool
}

func (p *Partition) config(store storage.Reader) partition.Config {
	return partition.Config{ID: p.ID, Table: p.table.ID, Start: p.Start, End: p.first, Actor: p.table.actor, Store: store}
}

// publish shows what the machine has come to; it is called in the Host's loop after each run.
func (p *Partition) publish(m *partition.Machine) {
	state := m.State()
	old := p.state.Load()
	p.state.Store(&state)
	p.load.add(m.Written())
	if old != nil && old.Span.Child != state.Span.Child {
		p.table.cut(p)
	}
	// Another node may have had it follow what the catalog no longer says: reconcile looks again.
	if schema := m.Schema(); p.schema.Swap(schema) != schema && p.table.region.several {
		task.Poke(p.table.region.changed)
	}
	if cursors := m.Cursors(); p.cursors.Load() == nil || !maps.Equal(*p.cursors.Load(), cursors) {
		p.cursors.Store(&cursors)
	}
	if clocks := m.Clocks(); p.clocks.Load() == nil || !maps.Equal(*p.clocks.Load(), clocks) {
		p.clocks.Store(&clocks)
	}
	if old != nil && state.Span.Ready && !old.Span.Ready {
		p.table.region.tellWatchers() // see flushReady
	}
	if old == nil || (old.Seq != state.Seq || old.Clock != state.Clock || old.Span.Child != state.Span.Child) && !mutant.On(mutant.NobodyTold) {
		p.tell()
	}
}

// Wake tells the watchers that there is something new to say, though nothing has changed here.
func (p *Partition) Wake() { p.tell() }

func (p *Partition) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.watchers {
		task.Poke(w)
	}
}

// Watch returns a channel that gets a token whenever the partition's change log has grown or its clock
// has moved, and after Wake, until stop is called.
func (p *Partition) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[c] = true
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, c)
	}
}

// End is the least key beyond the partition as this node has it, nil for the end of the table.
func (p *Partition) End() table.Key { return p.state.Load().Span.End }

// holds tells whether a key is the partition's, as this node has it.
func (p *Partition) holds(key table.Key) bool {
	end := p.End()
	return bytes.Compare(key, p.Start) >= 0 && (end == nil || bytes.Compare(key, end) < 0)
}

// Leads tells whether this node's replica leads, and has applied all that was acknowledged before it did.
func (p *Partition) Leads() bool { return p.group.Leads() }

// State returns the partition's state as of the last run that the store shows.
func (p *Partition) State() partition.State { return *p.state.Load() }

// Leader returns the number of the node that leads the partition's group, 0 while none is known here.
func (p *Partition) Leader() uint64 { return p.group.Leader() }

// caughtUp waits until this node has, for once since it opened the partition, shown all that was acknowledged by then.
// From there on it may lag behind others, but does not begin with what it had some time before a restart.
func (p *Partition) caughtUp(ctx context.Context) error {
	if p.caught.Load() {
		return nil
	}
	if err := p.group.Read(ctx); err != nil {
		return err
	}
	p.caught.Store(true)
	return nil
}

// readable waits until this node may answer a read.
func (p *Partition) readable(ctx context.Context, strong bool) error {
	if strong || !p.table.region.several {
		return p.group.ReadSoon(ctx)
	}
	return p.caughtUp(ctx)
}

func (p *Partition) propose(ctx context.Context, c *op.Command) error {
	result, err := p.group.Propose(ctx, c)
	return errors.Join(err, result.Err)
}
