package region

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/table"
)

// A node reaches a partition by its own replica. Where it has none, or one that is being filled or is about to go, what it wants is carried out by a
// node that has one (elsewhere.go asks, answer.go answers), and what the partition has come to it hears from them (feed.go).

// here returns this node's replica, nil if others are to be asked.
func (p *Partition) here() *group.Group {
	g := p.replica.Load()
	if g == nil || !p.table.region.several {
		return g
	}
	if !p.wanted.Load() || !isMember(g, p.table.region.cfg.NodeID) {
		return nil
	}
	return g
}

// isMember tells whether a node is a member of a group, as far as its replica here has come.
func isMember(g *group.Group, node uint64) bool {
	voters, learners := g.Members()
	return slices.Contains(voters, node) || slices.Contains(learners, node)
}

// do has a command carried out.
func (p *Partition) do(ctx context.Context, c *op.Command) (op.Result, error) {
	for {
		g, result, err := p.here(), op.Result{}, error(nil)
		if g == nil {
			result, err = p.doElsewhere(ctx, c)
		} else {
			if err = p.table.region.roomFor(c); err != nil {
				return result, err
			}
			result, err = g.Propose(ctx, c)
		}
		if !errors.Is(err, group.ErrGone) || p.here() == g {
			return result, err
		}
	}
}

// propose has a command carried out of which nobody wants more than that it was.
func (p *Partition) propose(ctx context.Context, c *op.Command) error {
	result, err := p.do(ctx, c)
	return errors.Join(err, result.Err)
}

// sync waits until what is read of the partition shows all that was acknowledged before the call.
func (p *Partition) sync(ctx context.Context) error {
	return p.read(ctx, (*group.Group).Read)
}

func (p *Partition) read(ctx context.Context, read func(*group.Group, context.Context) error) error {
	for {
		g, err := p.here(), error(nil)
		if g == nil {
			err = p.syncElsewhere(ctx)
		} else {
			err = read(g, ctx)
		}
		if !errors.Is(err, group.ErrGone) || p.here() == g {
			return err
		}
	}
}

// caughtUp waits until what is read of the partition has, for once since it was opened, shown all that was acknowledged by then.
// From there on it may lag behind others, but does not begin with what it had some time before a restart.
func (p *Partition) caughtUp(ctx context.Context) error {
	g := p.here()
	if g == nil && p.heard() || g != nil && p.caught.Load() {
		return nil
	}
	if err := p.sync(ctx); err != nil {
		return err
	}
	if g != nil && p.here() == g {
		p.caught.Store(true)
	}
	return nil
}

// readable waits until a read may be answered.
func (p *Partition) readable(ctx context.Context, strong bool) error {
	if strong || !p.table.region.several {
		return p.read(ctx, (*group.Group).ReadSoon)
	}
	return p.caughtUp(ctx)
}

// reader is what can be read of a partition: its rows, which are as of its state, or as of later.
type reader struct {
	storage.Reader
	state *partition.State

	p     *Partition
	local *group.Group // nil: the rows are fetched
}

// reader returns what can be read of the partition at present.
func (p *Partition) reader(ctx context.Context) reader {
	if g := p.here(); g != nil {
		return reader{p.table.region.cfg.Store, p.own.Load(), p, g}
	}
	state := p.state.Load()
	return reader{&fetched{ctx: ctx, p: p, state: state}, state, p, nil}
}

// stood returns an error if rows that were read may have been missing: a replica that goes takes its rows with it.
func (v reader) stood() error {
	if v.local != nil && v.p.replica.Load() != v.local {
		return op.ErrMoved
	}
	return nil
}

// Leads tells whether this node's replica leads, and has applied all that was acknowledged before it did.
func (p *Partition) Leads() bool {
	g := p.replica.Load()
	return g != nil && g.Leads()
}

// Here tells whether this node holds the partition, and what it is asked is answered from its own replica.
func (p *Partition) Here() bool { return p.here() != nil }

// Nodes returns the nodes that are to hold the partition, rising, as the catalog has them here.
func (p *Partition) Nodes() []uint64 { return p.table.region.nodesOf(*p.nodes.Load()) }

// Members returns the nodes that hold a replica, as far as is known here: those that vote, and those that do not (yet). Neither must be
// changed.
func (p *Partition) Members() (voters, learners []uint64) {
	if g := p.here(); g != nil {
		return g.Members()
	}
	w := p.word.Load()
	return w.Voters, w.Learners
}

// Leader returns the number of the node that leads the partition's group, 0 while none is known here.
func (p *Partition) Leader() uint64 {
	if g := p.here(); g != nil {
		return g.Leader()
	}
	return p.word.Load().Leader
}

// publish shows what this node's machine has come to; it is called in the Host's loop after each run.
func (p *Partition) publish(m *partition.Machine) {
	state := m.State()
	old := p.own.Swap(&state)
	p.load.add(m.Written())
	p.table.large.Add(m.Large())
	p.show(&state, m.Schema(), m.Cursors(), m.Clocks())
	if old != nil && old.Span.Child != state.Span.Child {
		p.table.cut(p, state.Span)
	}
}

// show has others see what the partition has come to. What is older than what was shown, as of a replica that is being filled, is not.
func (p *Partition) show(state *partition.State, schema *table.Schema, cursors map[string]uint64, clocks map[string]crdt.HLC) {
	several := p.table.region.several
	if several {
		p.showing.Lock()
		defer p.showing.Unlock()
	}
	old := p.state.Load()
	if old != nil && state.Applied < old.Applied {
		return
	}
	p.state.Store(state)
	// Another node may have had it follow what the catalog no longer says: reconcile looks again.
	changed := p.schema.Swap(schema) != schema
	if changed && several {
		task.Poke(p.table.region.changed)
	}
	if p.cursors.Load() == nil || !maps.Equal(*p.cursors.Load(), cursors) {
		p.cursors.Store(&cursors)
	}
	if p.clocks.Load() == nil || !maps.Equal(*p.clocks.Load(), clocks) {
		p.clocks.Store(&clocks)
	}
	moved := old != nil && (state.Span.Closed != old.Span.Closed || !slices.Equal(state.Span.End, old.Span.End))
	if moved || old != nil && state.Span.Ready && !old.Span.Ready {
		p.table.region.tellWatchers() // see look, and flushReady
	}
	if old == nil || changed || moved || (old.Seq != state.Seq || old.Clock != state.Clock || old.Span.Child != state.Span.Child) && !mutant.On(mutant.NobodyTold) {
		p.tell()
	}
}
