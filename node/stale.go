package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// Regions that go on without one, and one that others went on without. Source: docs/decisions/0017.

// settleAll has this region come to have all that any region has of what was given up.
func (r *replicator) settleAll(ctx context.Context, d *table.Definition) {
	for _, f := range d.Schema.Fences {
		name := replication.FenceName(f.Region, f.Incarnation)
		r.mu.Lock()
		t := r.tables[d.GlobalID]
		settled := t == nil || t.settled[name]
		r.mu.Unlock()
		if !settled {
			r.start(ctx, d.GlobalID+"/"+name, func() error { return r.settle(ctx, d, f, nil) })
		}
	}
}

// heard is told, of each partition of each region that is asked, how far it has what a fence shuts out; end is where the partition ends.
type heard func(start, end table.Key, o *replication.Origin)

// settle asks every other region for what it has of a region's writes that was given up, and notes when this one has all. From then on
// its word says so, and what it writes has seen them. With a tell it asks them though it has.
func (r *replicator) settle(ctx context.Context, d *table.Definition, f table.Fence, tell heard) error {
	t, err := r.region.Opened(ctx, d.Schema.Name)
	if err != nil {
		return err
	}
	if err := t.CatchUp(ctx); err != nil {
		return err
	}
	if t.ID != d.ID || !t.Fenced(f) {
		return replication.ErrNotYet // a deposed node may still take more of it
	}
	if !d.IsSettled(f) || tell != nil {
		asked := d.Others(r.self)
		for _, o := range asked {
			if mutant.On(mutant.SettledAlone) && tell == nil {
				break
			}
			if err := r.relay(ctx, t, d, o, f, tell); err != nil {
				return fmt.Errorf("what %s has of %s's: %w", o.Region, f.Region, err)
			}
		}
		_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
			if n.ID != d.ID {
				return errors.New("the table is another one now")
			}
			for _, o := range n.Others(r.self) {
				if !slices.Contains(regionsOf(asked), o.Region) {
					return fmt.Errorf("region %s has not been asked", o.Region)
				}
			}
			n.Settle(f)
			return nil
		})
		if err != nil {
			return err
		}
		// What was relayed by another node may not be here yet.
		if err := t.CatchUp(ctx); err != nil {
			return err
		}
		r.logger.Info("replicator: this region has all that is to be had of one that was given up", "table", d.Schema.Name, "region", f.Region)
	}
	r.mu.Lock()
	if have := r.tables[d.GlobalID]; have != nil {
		have.settled[replication.FenceName(f.Region, f.Incarnation)] = true
	}
	r.mu.Unlock()
	r.refreshMembers()
	for _, p := range t.Partitions() {
		p.Wake()
	}
	return nil
}

func regionsOf(replicas []table.Replica) (out []string) {
	for _, o := range replicas {
		out = append(out, o.Region)
	}
	return out
}

// relay merges what another region has of a third one's writes.
func (r *replicator) relay(ctx context.Context, t *region.Table, d *table.Definition, o table.Replica, f table.Fence, tell heard) error {
	p := r.peer(o.Region)
	if p == nil {
		return errors.New("the region is not known here")
	}
	r.mu.Lock()
	theirs := p.defs[d.GlobalID]
	r.mu.Unlock()
	if theirs == nil || theirs.Incarnation != o.Incarnation {
		return replication.ErrNotYet
	}
	var first *replication.Origin
	var ranges []replication.Range
	for _, part := range theirs.Partitions {
		var origin *replication.Origin
		q := replication.RelayRequest{Region: r.self, Table: d.GlobalID, Partition: part.ID, Of: f.Region, Incarnation: f.Incarnation}
		err := insist(func() error {
			return p.client.Relay(ctx, q, func(s replication.SeedPart) error {
				if s.Origin != nil {
					origin = s.Origin
				}
				if len(s.Items) == 0 {
					return nil
				}
				return t.Merge(ctx, op.Cursor{Stream: o.Region, Incarnation: o.Incarnation, Part: true}, 0, deltas(s.Items))
			})
		})
		if err == nil && origin == nil {
			err = errors.New("the answer does not say how far it goes")
		}
		if err != nil {
			return err
		}
		if tell != nil {
			tell(origin.Start, origin.End, origin)
		}
		ranges = append(ranges, origin.Range)
		if first == nil {
			first = origin
		}
	}
	if !replication.Covers(ranges) {
		task.Poke(p.wake)
		return errCut
	}
	// What is said of a stream is true of the whole table, and here not before all partitions have been asked.
	for _, stream := range slices.Sorted(maps.Keys(first.Cursors)) {
		if err := t.Merge(ctx, op.Cursor{Stream: stream, Seq: first.Cursors[stream], Clock: first.Clocks[stream]}, 0, nil); err != nil {
			return err
		}
	}
	return nil
}

// Relay is replication.Source's.
func (r *replicator) Relay(ctx context.Context, q replication.RelayRequest, send func(replication.SeedPart) error) error {
	term, err := r.current(ctx)
	if err != nil {
		return err
	}
	_, p, err := r.openFor(q.Region, q.Table, q.Partition)
	if err != nil {
		return err
	}
	var part replication.SeedPart
	size := 0
	err = p.Relay(ctx, table.Fence{Region: q.Of, Incarnation: q.Incarnation}, func(had region.Relayed) error {
		return send(replication.SeedPart{Origin: &replication.Origin{Cursors: had.Cursors, Clocks: had.Clocks, Shares: had.Shares, Range: replication.Range{Start: had.Start, End: had.End}}})
	}, func(key table.Key, delta []byte) error {
		part.Items = append(part.Items, replication.Change{Key: slices.Clone(key), Delta: slices.Clone(delta)})
		if size += len(key) + len(delta); size < seedPartBytes {
			return nil
		}
		if r.over(term) {
			return replication.ErrNotLeader
		}
		full := part
		part, size = replication.SeedPart{}, 0
		return send(full)
	})
	if errors.Is(err, region.ErrNotClosed) {
		return replication.ErrNotYet
	}
	if err == nil && len(part.Items) > 0 {
		err = send(part)
	}
	if err != nil {
		return err
	}
	return send(replication.SeedPart{Done: true})
}

// begin begins a table anew that the others have given up, once there is one to fill it from. One that was taken away for good stays as
// it is, closed, until this region is given a replica again.
func (r *replicator) begin(ctx context.Context, d *table.Definition) {
	own := d.Replica(r.self)
	if own.Status == table.Gone || own.Status == table.Deleting {
		if own.Status == table.Deleting {
			r.start(ctx, d.GlobalID, func() error { return r.leave(ctx, d) })
		}
		return
	}
	r.start(ctx, d.GlobalID, func() error {
		if d.Last(r.self) {
			r.logger.Warn("replicator: every region was given up by another; this one goes on", "table", d.Schema.Name)
			_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
				if n.GivenUp(r.self) && n.Last(r.self) {
					n.Incarnation = n.Replica(r.self).Incarnation
					n.SetReplica(r.self, r.self, table.Active, uint64(r.region.Stamp()))
				}
				return nil
			})
			return err
		}
		if !slices.ContainsFunc(d.Others(r.self), func(o table.Replica) bool { return o.Status == table.Active }) {
			return errors.New("the others have gone on without this region, and none has an active replica to begin anew from")
		}
		r.logger.Warn("replicator: the others have gone on without this region; it begins the table anew", "table", d.Schema.Name)
		return r.region.Renew(ctx, d.Schema.Name)
	})
}

// makeAgain writes again what a former incarnation had written and the others do not have.
func (r *replicator) makeAgain(ctx context.Context, d *table.Definition, t *region.Table) error {
	if d.Former == nil {
		return nil
	}
	// Some may have more of it than the one that this table was filled from, and of one item more than of another: of the last batch that
	// came there a part may have been merged when the rest was shut out.
	type share struct {
		start, end table.Key
		*replication.Origin
	}
	var shares []share
	note := func(start, end table.Key, o *replication.Origin) { shares = append(shares, share{start, end, o}) }
	if err := r.settle(ctx, d, table.Fence{Region: r.self, Incarnation: d.Incarnation}, note); err != nil {
		return err
	}
	stream := func(partition uint64) string {
		return replication.StreamName(r.self, r.region.Instance(), partition)
	}
	// What it had seen of the others' writes is to be here: what is not here counts as its own doing.
	for _, o := range d.Others(r.self) {
		if err := r.drain(ctx, r.peer(o.Region), d); err != nil {
			return fmt.Errorf("what region %s wrote is not all here yet: %w", o.Region, err)
		}
	}
	items, err := t.MakeAgain(ctx, func(partition uint64) (upTo uint64) {
		for _, s := range shares {
			upTo = max(upTo, s.Cursors[stream(partition)])
		}
		return upTo
	}, func(partition uint64, key table.Key) (at crdt.HLC) {
		for _, s := range shares {
			at = max(at, s.Clocks[stream(partition)])
			if bytes.Compare(key, s.start) >= 0 && (s.end == nil || bytes.Compare(key, s.end) < 0) {
				at = max(at, s.Shares[stream(partition)])
			}
		}
		return at
	})
	if err != nil {
		return fmt.Errorf("what was written here as another incarnation: %w", err)
	}
	r.logger.Info("replicator: what only this region had is written again", "table", d.Schema.Name, "items", items)
	return nil
}

// GiveUp has the regions go on without another one: nobody waits for it any more, and when it comes back it begins anew. Of tables
// whose other replicas, as far as they can be reached, may not decide so by themselves it returns the names, unless it is forced. It gives up one table (by name) or
// all (""), and tells how many it has.
func (r *replicator) GiveUp(ctx context.Context, name, tableName string, force bool) (given int, refused []string, err error) {
	return r.giveUp(ctx, name, tableName, force, 0)
}

// giveUp is GiveUp, where a region counts among those left that has been within reach for so long.
func (r *replicator) giveUp(ctx context.Context, name, tableName string, force bool, steady time.Duration) (given int, refused []string, err error) {
	if err := r.region.CatchUp(ctx); err != nil { // of a table that this node has not heard of nothing would be said
		return 0, nil, err
	}
	defs, err := r.region.Definitions()
	if err != nil {
		return 0, nil, err
	}
	away := map[string]bool{}
	for _, o := range r.Peers() {
		away[o] = r.reachable(o) != nil || r.now().Sub(r.since(o)) < steady
	}
	for _, d := range defs {
		if tableName != "" && d.Schema.Name != tableName {
			continue
		}
		did, may := false, true
		_, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
			did, may = false, true
			rep, own := n.Replica(name), n.Replica(r.self)
			if rep == nil || !rep.Live() || own == nil || own.Status != table.Active || n.GivenUp(r.self) || n.GlobalID != d.GlobalID {
				return nil
			}
			if may = force || n.MayGiveUp(func(o string) bool { return o == name || o != r.self && away[o] }); may {
				n.GiveUp(r.self, name, uint64(r.region.Stamp()))
				did = true
			}
			return nil
		})
		switch {
		case errors.Is(err, region.ErrNoTable):
		case err != nil:
			return given, refused, err
		case did:
			given++
			r.logger.Warn("replicator: this region goes on without another", "table", d.Schema.Name, "region", name)
		case !may:
			refused = append(refused, d.Schema.Name)
		}
	}
	task.Poke(r.wake)
	return given, refused, nil
}

// since tells since when a region can be reached, or cannot.
func (r *replicator) since(name string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return later(r.peers[name].since, r.begunAt)
}

// Remove is admin.Members'. What is taken away is gone at once, so that a region that is within reach does not begin anew between.
func (r *replicator) Remove(ctx context.Context, name string) ([]admin.RemovedReplica, error) {
	if err := r.region.CatchUp(ctx); err != nil {
		return nil, err
	}
	defs, err := r.region.Definitions()
	if err != nil {
		return nil, err
	}
	out := []admin.RemovedReplica{}
	for _, d := range defs {
		if d.Replica(name) == nil {
			continue
		}
		n, err := r.region.Change(ctx, d.Schema.Name, func(n *table.Definition) error {
			rep, own := n.Replica(name), n.Replica(r.self)
			if n.ID == d.ID && rep != nil && (rep.Live() || rep.Status == table.Stale) && own != nil && own.Status == table.Active && !n.GivenUp(r.self) {
				if !mutant.On(mutant.RemovedUnfenced) {
					rep.Incarnation++
				}
				n.SetReplica(r.self, name, table.Gone, uint64(r.region.Stamp()))
			}
			return nil
		})
		if errors.Is(err, region.ErrNoTable) {
			continue
		}
		if err != nil {
			return out, err
		}
		if rep := n.Replica(name); rep != nil && rep.Status == table.Gone && !n.GivenUp(r.self) {
			out = append(out, admin.RemovedReplica{TableName: n.Schema.Name, Status: rep.Status, Waiting: r.unsettled(n, table.Fence{Region: name, Incarnation: rep.Incarnation})})
		}
	}
	task.Poke(r.wake)
	return out, nil
}

// unsettled returns the regions, this one among them, that have not told that they have all of what a fence shuts out.
func (r *replicator) unsettled(d *table.Definition, f table.Fence) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if others := d.Others(r.self); len(others) > 0 && !d.IsSettled(f) {
		out = append(out, r.self)
	}
	for _, o := range d.Others(r.self) {
		if p := r.peers[o.Region]; p == nil || p.defs[d.GlobalID] == nil || !p.defs[d.GlobalID].IsSettled(f) {
			out = append(out, o.Region)
		}
	}
	return out
}
