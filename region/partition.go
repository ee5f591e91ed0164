package region

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// Partition is one open partition. Its methods are safe for concurrent use.
type Partition struct {
	ID    uint64
	Start table.Key

	table *Table
	group *group.Group

	follows *table.Schema // what the last Alter said; of reconcile alone

	state   atomic.Pointer[partition.State] // as of the last run that the store shows
	cursors atomic.Pointer[map[string]uint64]

	mu       sync.Mutex
	watchers map[chan struct{}]bool
}

// publish shows what the machine has come to; it is called in the Host's loop after each run.
func (p *Partition) publish(m *partition.Machine) {
	state := m.State()
	old := p.state.Load()
	p.state.Store(&state)
	if cursors := m.Cursors(); p.cursors.Load() == nil || !maps.Equal(*p.cursors.Load(), cursors) {
		p.cursors.Store(&cursors)
	}
	if old == nil || old.Seq != state.Seq || old.Clock != state.Clock {
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

// State returns the partition's state as of the last run that the store shows.
func (p *Partition) State() partition.State { return *p.state.Load() }

// Cursors returns how far the streams of other regions have been applied here. It must not be changed.
func (p *Partition) Cursors() map[string]uint64 { return *p.cursors.Load() }

func (p *Partition) propose(ctx context.Context, c *op.Command) error {
	result, err := p.group.Propose(ctx, c)
	return errors.Join(err, result.Err)
}
