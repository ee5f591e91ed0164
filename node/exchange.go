package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// What regions tell each other of their tables, and what each takes over. Source: docs/decisions/0006.

// exchangeWith tells a peer of this region's global tables, and hears of its, again and again; and between, whether it is there.
func (r *replicator) exchangeWith(ctx context.Context, p *peer) error {
	for beats := 0; ctx.Err() == nil; {
		var err error
		if beats > 0 {
			err = r.beat(ctx, p)
		} else {
			err = r.exchange(ctx, p)
		}
		r.mu.Lock()
		if changed := (err == nil) != (p.err == nil); changed && err != nil && ctx.Err() == nil {
			r.logger.Warn("replicator: a region cannot be reached", "peer", p.name, "err", err)
		} else if changed && err == nil {
			r.logger.Info("replicator: a region can be reached again", "peer", p.name)
		}
		if (err == nil) != (p.err == nil) {
			p.since = r.now()
		}
		p.err = err
		r.mu.Unlock()
		task.Poke(r.answered)
		if err != nil {
			beats = 0
			r.tasks.Wait(ctx, nil, retryAfter)
			continue
		}
		if beats == 0 {
			task.Poke(r.wake)
		}
		if beats++; r.tasks.Wait(ctx, p.wake, beatEvery) == task.Token || beats >= beatsPerExchange {
			beats = 0
		}
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
	r.mu.Lock()
	words := p.words
	ours.Ask = !p.compared
	r.mu.Unlock()
	sent := r.now()
	theirs, err := p.client.Exchange(ctx, ours)
	if err != nil {
		return err
	}
	r.noteOffset(p, measure(sent, theirs.ReceivedAt, theirs.AnsweredAt, r.now()))
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
	if ours.Ask {
		if err := r.compared(ctx, p, theirs); err != nil {
			return err
		}
	}
	if !r.heard(p, theirs, defs, words) {
		return nil
	}
	_, err = r.take(ctx, defs)
	return err
}

// heard takes note of what a region says of itself, and tells whether that is its newest word: one that was long on its way, or
// sent twice, may come behind a newer one. An answer to what was asked when so many words had been taken is newer than those, whatever
// its revision: a region on an old disk has an old catalog.
func (r *replicator) heard(p *peer, theirs replication.Tables, defs map[string]*table.Definition, words int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.defs != nil && p.instance == theirs.Instance && theirs.Revision < p.revision && words != p.words {
		return false
	}
	p.words++
	p.instance, p.revision, p.defs = theirs.Instance, theirs.Revision, defs
	return true
}

func decodeDefinitions(t replication.Tables) (map[string]*table.Definition, error) {
	if t.Format > format.Known {
		return nil, fmt.Errorf("replicator: region %s writes format %d; this version reads %d to %d: this region takes the newer version, too", t.Region, t.Format, format.Oldest, format.Known)
	}
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
	t := replication.Tables{Region: r.self, Instance: r.region.Instance(), Format: r.region.Format()}
	defs, revision, err := r.region.Catalog()
	if err != nil {
		return t, err
	}
	t.Revision = revision
	for _, d := range append(defs, more...) {
		if len(d.Replicas) == 0 {
			// A table of this region alone: the others are told that its name is taken here.
			d = &table.Definition{GlobalID: d.GlobalID, Schema: table.Schema{Name: d.Schema.Name}}
		} else if own := d.Replica(r.self); own != nil && own.Status == table.Active && d.Status == table.Creating {
			// Filled, but the table is not to be used yet: who hears elsewhere that the replica is ACTIVE may ask here at once.
			d = d.Clone()
			own = d.Replica(r.self)
			own.Status, own.Version = table.Creating, own.Version-1
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
	r.comes(theirs.Region)
	defs, err := decodeDefinitions(theirs)
	if err != nil {
		return replication.Tables{}, err
	}
	var refused []*table.Definition
	if p := r.peer(theirs.Region); p == nil || r.over(term) || r.heard(p, theirs, defs, -1) {
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
	if theirs.Ask {
		answer.Had, answer.Begins = r.had(theirs, defs)
	}
	answer.ReceivedAt, answer.AnsweredAt = received.UnixNano(), r.now().UnixNano()
	return answer, err
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
		case own == nil || own.Status != table.Creating && own.Status != table.Active && own.Status != table.Stale:
		default:
			buried, err := r.region.Buried(theirs.GlobalID)
			if err != nil || own.Version <= buried {
				errs = append(errs, err)
				continue // a word from before this region's replica was told to go
			}
			d := theirs.Clone()
			d.Bare()
			mine := d.Replica(r.self)
			if own.Status == table.Active {
				// A region that is said to be ACTIVE and has no such table has lost its data: it begins anew, and what it had shipped
				// to some before is to come to all.
				mine.Incarnation++
			}
			d.Incarnation = mine.Incarnation
			d.SetReplica(r.self, r.self, table.Creating, uint64(r.region.Stamp()))
			if own.Status == table.Creating {
				mine.Version = own.Version
			}
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
