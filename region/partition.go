package region

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
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
	load  load
	ready bool // the draft is flushed; of keepSplit alone

	nodes   atomic.Pointer[[]uint64]        // that are to hold it: see table.Partition
	wanted  atomic.Bool                     // this node is one of them
	replica atomic.Pointer[group.Group]     // this node's; nil: it has none
	own     atomic.Pointer[partition.State] // the replica's, as of the last run that the store shows
	caught  atomic.Bool                     // of the replica: see caughtUp
	word    atomic.Pointer[word]            // the last of those who hold it; see feed.go
	last    atomic.Uint64                   // the node that answered last
	gone    atomic.Bool                     // it is none of the table's any more

	showing sync.Mutex // see show
	state   atomic.Pointer[partition.State]
	schema  atomic.Pointer[table.Schema]        // that the machine follows, as of then
	cursors atomic.Pointer[map[string]uint64]   // how far streams of other regions have been applied: see Table.Cursor; never changed in place
	clocks  atomic.Pointer[map[string]crdt.HLC] // the newest of their writes up to there; never changed in place

	mu       sync.Mutex
	missed   []uint64 // by when, the last one last: see miss
	watchers map[chan struct{}]bool
}

func (p *Partition) config(store storage.Reader) partition.Config {
	return partition.Config{ID: p.ID, Table: p.table.ID, Start: p.Start, End: p.first, Actor: p.table.actor, Store: store}
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
	p.watch(c)
	return c, func() { p.unwatch(c) }
}

func (p *Partition) watch(c chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[c] = true
}

func (p *Partition) unwatch(c chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.watchers, c)
}

// End is the least key beyond the partition as this node has it, nil for the end of the table.
func (p *Partition) End() table.Key { return p.state.Load().Span.End }

// closed tells whether the partition holds nothing, to be taken in by its left neighbour: see merge.go.
func (p *Partition) closed() bool { return p.state.Load().Span.Closed }

// holds tells whether a key is the partition's, as this node has it.
func (p *Partition) holds(key table.Key) bool { return within(p.Start, p.End(), key) }

// within tells whether a key is in [start, end); nil is the end of the table.
func within(start, end, key table.Key) bool {
	return bytes.Compare(key, start) >= 0 && (end == nil || bytes.Compare(key, end) < 0)
}

// State returns the partition's state as it was shown here last.
func (p *Partition) State() partition.State { return *p.state.Load() }
