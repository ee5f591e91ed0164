package region

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// What partitions have come to that this node does not hold, it hears from nodes that do: it asks each of them for news of some, and they answer when
// there is any. Whoever leads the catalog hears at once, for it works on all of them; the others now and then.

const (
	// newsWait is how long a node that is asked waits for news.
	newsWait = 300 * time.Millisecond
	// newsPause and newsPauseLeading are how long who asks waits before it does again.
	newsPause        = 500 * time.Millisecond
	newsPauseLeading = 5 * time.Millisecond
	// maxNewsWait bounds what may be asked for.
	maxNewsWait = 5 * time.Second
)

// word is what a node that holds a partition says of it.
type word struct {
	State            partition.State
	Cursors          map[string]uint64   `json:",omitempty"`
	Clocks           map[string]crdt.HLC `json:",omitempty"`
	Schema           *table.Schema       `json:",omitempty"` // nil: the one that is known
	SchemaSum        uint64
	Voters, Learners []uint64
	Leader           uint64
	Writes           uint64 // since the start of who says it
}

// say is what this node says of a partition that it holds, to one that knows the schema with that sum.
func (p *Partition) say(g *group.Group, known uint64) []byte {
	schema := p.schema.Load()
	encoded, err := json.Marshal(schema)
	if err != nil {
		panic(fmt.Sprintf("region: a schema cannot be written: %v", err)) // it was read from JSON
	}
	h := fnv.New64a()
	h.Write(encoded)
	w := word{State: *p.own.Load(), Cursors: *p.cursors.Load(), Clocks: *p.clocks.Load(), SchemaSum: h.Sum64(), Leader: g.Leader(), Writes: p.load.total()}
	w.Voters, w.Learners = g.Members()
	if w.SchemaSum != known {
		w.Schema = schema
	}
	b, err := json.Marshal(w)
	if err != nil {
		panic(fmt.Sprintf("region: what a partition has come to cannot be written: %v", err))
	}
	return b
}

// heard tells whether anybody who holds the partition has said what it has come to.
func (p *Partition) heard() bool { return len(p.word.Load().Voters) > 0 }

// hear takes the word of a node that holds the partition.
func (p *Partition) hear(b []byte) error {
	w := &word{}
	if err := json.Unmarshal(b, w); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	p.mu.Lock()
	p.missed = nil
	p.mu.Unlock()
	old := p.word.Load()
	switch {
	case w.State.Applied < old.State.Applied:
		return nil // of a replica that lags
	case w.Schema == nil && w.SchemaSum == old.SchemaSum:
		w.Schema = old.Schema
	case w.Schema == nil:
		return fmt.Errorf("%w: it lacks a schema", errAnswer)
	case old.Schema != nil && w.SchemaSum == old.SchemaSum:
		w.Schema = old.Schema // the same one, for who compares pointers
	}
	p.word.Store(w)
	if p.here() == nil {
		p.show(&w.State, w.Schema, w.Cursors, w.Clocks)
		if old.State.Span.Child != w.State.Span.Child {
			p.table.cut(p, w.State.Span)
		}
	}
	return nil
}

// miss notes that a node does not hold the partition that was thought to: it is asked last, until a node that does has been heard.
func (p *Partition) miss(node uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed = append(slices.DeleteFunc(slices.Clone(p.missed), func(id uint64) bool { return id == node }), node)
}

// answerWords answers a question for news of partitions.
func (r *Region) answerWords(ctx context.Context, d *reading) []byte {
	wait := min(time.Duration(d.number())*time.Millisecond, maxNewsWait)
	type asked struct {
		p            *Partition
		applied, sum uint64
	}
	var of []asked
	for n := d.number(); n > 0 && !d.bad; n-- {
		a := asked{p: r.partition(d.number()), applied: d.number(), sum: d.fixed()}
		if a.p != nil {
			of = append(of, a)
		}
	}
	if !d.done() {
		return refusal(errQuestion)
	}
	changed := make(chan struct{}, 1)
	for _, a := range of {
		a.p.watch(changed)
		defer a.p.unwatch(changed)
	}
	until := r.cfg.Now().Add(wait)
	for {
		out, n := []byte(nil), uint64(0)
		for _, a := range of {
			if g := a.p.here(); g == nil {
				out, n = appendBytes(binary.AppendUvarint(out, a.p.ID), nil), n+1
			} else if a.p.own.Load().Applied > a.applied {
				out, n = appendBytes(binary.AppendUvarint(out, a.p.ID), a.p.say(g, a.sum)), n+1
			}
		}
		left := until.Sub(r.cfg.Now())
		if n > 0 || left <= 0 || r.cfg.Tasks.Wait(ctx, changed, left) == task.Ended {
			return append(binary.AppendUvarint([]byte{answered}, n), out...)
		}
	}
}

// keepFed has this node hear of what it does not hold, from each other node.
func (r *Region) keepFed(ctx context.Context) error {
	changed, stop := r.Watch()
	defer stop()
	g, ctx := task.NewGroup(ctx, r.cfg.Tasks)
	feeds := map[uint64]bool{}
	for {
		for _, m := range r.Members() {
			if m.ID != r.cfg.NodeID && m.State != MemberGone && !feeds[m.ID] {
				feeds[m.ID] = true
				g.Go(func() error { return r.feed(ctx, m.ID) })
			}
		}
		if r.cfg.Tasks.Wait(ctx, changed, 0) == task.Ended {
			return g.Wait()
		}
	}
}

// feed hears from one node, as long as it is one of the region's.
func (r *Region) feed(ctx context.Context, node uint64) error {
	changed, stop := r.Watch()
	defer stop()
	for ctx.Err() == nil {
		if m, ok := r.Member(node); ok && m.State == MemberGone {
			return nil
		}
		some, err := r.askNews(ctx, node)
		if err == nil && some && r.Leads() {
			r.cfg.Tasks.Wait(ctx, nil, newsPauseLeading)
		} else {
			r.cfg.Tasks.Wait(ctx, changed, newsPause) // which of the others is asked changes without a word
		}
	}
	return nil
}

// askNews asks a node for news of what it is to be asked for, and tells whether there is anything that it holds.
func (r *Region) askNews(ctx context.Context, node uint64) (some bool, err error) {
	var of []*Partition
	for _, p := range r.everyPartition() {
		if p.here() != nil {
			continue
		}
		if from := p.askable(); len(from) > 0 && from[0] == node {
			of = append(of, p)
		}
	}
	if len(of) == 0 {
		return false, nil
	}
	q := binary.AppendUvarint(question(askWords, 0), uint64(newsWait/time.Millisecond))
	q = binary.AppendUvarint(q, uint64(len(of)))
	for _, p := range of {
		w := p.word.Load()
		q = binary.BigEndian.AppendUint64(binary.AppendUvarint(binary.AppendUvarint(q, p.ID), w.State.Applied), w.SchemaSum)
	}
	answer, err := r.askNode(ctx, node, q, 2*newsWait)
	if err != nil {
		return true, err
	}
	d := reading{b: answer}
	some = true
	for n := d.number(); n > 0 && !d.bad; n-- {
		p, said := r.partition(d.number()), d.bytes()
		switch {
		case p == nil || d.bad:
		case len(said) == 0:
			p.miss(node)
			some = false // another is asked in a while
		default:
			if err := p.hear(said); err != nil {
				return true, err
			}
		}
	}
	if !d.done() {
		return true, errAnswer
	}
	return some, nil
}

// partition returns an open partition, nil if there is none of that number.
func (r *Region) partition(id uint64) *Partition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parts[id]
}

// everyPartition returns the open partitions of all tables, by number.
func (r *Region) everyPartition() []*Partition {
	r.mu.Lock()
	out := make([]*Partition, 0, len(r.parts))
	for _, p := range r.parts {
		out = append(out, p)
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b *Partition) int { return int(a.ID) - int(b.ID) })
	return out
}
