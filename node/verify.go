package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// How long a key is looked at that keeps changing: so many times, each after a pause twice as long, up to a bound.
const (
	maxLooks   = 9
	firstPause = 25 * time.Millisecond
	maxPause   = 2 * time.Second
	// maxSuspects bounds the keys that are remembered at a time.
	maxSuspects = 4096
)

// check holds this region's copy of a table against one other region's: does this one have all that the other has, and
// show the same? What the other lacks it finds out itself. Leaves are compared first, then what is in those that differ,
// and what differs there is looked at key by key.
//
// Writes go on meanwhile, so what differs is mostly on its way. A key is different only if this region has applied every
// write that the other's state of it has seen, and still falls short of that state. How that can be told:
//
//   - A record that is held here was read after the other's, at a moment when all that the other's had seen was
//     applied: then merging the two changes nothing, however much newer this one is.
//   - A key of which nothing is held may have been deleted and folded away. So here it is looked at before the
//     other's state is read: what was folded away then was stable, the other had it applied, and shows it.
//
// Either way the key is looked at once more before it counts.
type check struct {
	r      *replicator
	table  *region.Table
	id     string // global
	peer   string
	client replication.Peer
	// incarnation is of the peer's replica.
	incarnation uint16

	deep, repair, bringBack bool
	pace                    func(ctx context.Context, bytes uint64) error // nil: as fast as it goes
	note                    func(admin.Verified)                          // hears how far it is; nil: nobody

	out      admin.Verified
	suspects []suspect
}

// suspect is a key whose copies were not the same.
type suspect struct {
	key         table.Key
	found       region.Difference // at the last look
	counted     bool              // as different
	repaired    bool              // the other's state was merged
	shown       int               // 1 + its place among the result's keys; 0: none
	here, there crdt.Dot
}

// run compares. What it has found is in out.
func (c *check) run(ctx context.Context) error {
	c.out.AsOf = c.r.now().UTC()
	items, _ := c.table.Stats()
	bits := replication.LeafBits(items)
	unequal, err := c.digests(ctx, bits)
	for len(unequal) > 0 && err == nil {
		n := min(len(unequal), replication.MaxLeaves)
		err = c.list(ctx, bits, unequal[:n])
		unequal = unequal[n:]
	}
	if err == nil {
		err = c.settle(ctx)
	}
	return err
}

func (c *check) said(ctx context.Context, bytes uint64) error {
	if c.note != nil {
		c.note(c.out)
	}
	if c.pace != nil {
		return c.pace(ctx, bytes)
	}
	return ctx.Err()
}

// digests returns the leaves that are not the same; in depth, all that hold anything.
func (c *check) digests(ctx context.Context, bits int) (unequal []uint32, err error) {
	s, err := stillOf(ctx, c.table)
	if err != nil {
		return nil, err
	}
	defer s.close()
	in := s.reader(scanBlock, false)
	end := uint32(0)
	q := replication.DigestRequest{Region: c.r.self, Table: c.id, Bits: bits}
	err = c.client.Digest(ctx, q, func(p replication.DigestPart) error {
		for _, l := range p.Leaves {
			if l.At < end || l.At >= p.End {
				return fmt.Errorf("verify: region %s sends leaf %d between %d and %d", c.peer, l.At, end, p.End)
			}
			end = l.At + 1
		}
		if p.End < end || p.End > 1<<bits {
			return fmt.Errorf("verify: region %s sends leaves up to %d", c.peer, p.End)
		}
		end = p.End
		var own []replication.Leaf
		read := in.bytes
		for {
			e, err := in.peek()
			if err != nil {
				return err
			}
			if e == nil || replication.LeafOf(e.Key, bits) >= p.End {
				break
			}
			own = addTo(own, replication.LeafOf(e.Key, bits), e.Sum)
			c.out.Items++
			in.next()
		}
		if c.deep {
			unequal = append(unequal, union(own, p.Leaves)...)
		} else {
			unequal = append(unequal, replication.Unequal(own, p.Leaves)...)
		}
		c.out.Leaves = int(p.End)
		return c.said(ctx, max(p.Bytes, in.bytes-read))
	})
	return unequal, err
}

// union returns the leaves that one or the other run has.
func union(a, b []replication.Leaf) (out []uint32) {
	for _, l := range slices.Concat(a, b) {
		out = append(out, l.At)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// list finds the keys that are not the same in some leaves.
func (c *check) list(ctx context.Context, bits int, leaves []uint32) error {
	s, err := stillOf(ctx, c.table)
	if err != nil {
		return err
	}
	defer s.close()
	in := s.reader(seekBlock, c.deep)
	rest := leaves
	// ownUpTo takes this region's items off that come before a key (nil: all), and returns the one at it.
	ownUpTo := func(key []byte) (*replication.Entry, error) {
		for {
			e, err := in.within(&rest, bits)
			if e == nil || err != nil {
				return nil, err
			}
			order := -1
			if key != nil {
				order = bytes.Compare(e.Key, key)
			}
			if order > 0 {
				return nil, nil
			}
			in.next()
			if order == 0 {
				return e, nil
			}
			c.suspect(e.Key)
		}
	}
	q := replication.ListRequest{Region: c.r.self, Table: c.id, Bits: bits, Leaves: leaves, Values: c.deep}
	err = c.client.List(ctx, q, func(part []replication.Entry) error {
		size := uint64(0)
		for _, e := range part {
			own, err := ownUpTo(e.Key)
			if err != nil {
				return err
			}
			if own == nil || own.Newest != e.Newest || own.Sum != e.Sum || !bytes.Equal(own.Item, e.Item) {
				c.suspect(e.Key)
			}
			size += uint64(len(e.Key) + len(e.Item) + len(e.Sum))
		}
		if len(part) == 0 {
			if _, err := ownUpTo(nil); err != nil {
				return err
			}
		}
		if len(c.suspects) >= maxSuspects {
			if err := c.settle(ctx); err != nil {
				return err
			}
		}
		return c.said(ctx, size)
	})
	return err
}

func (c *check) suspect(key []byte) { c.suspects = append(c.suspects, suspect{key: key}) }

// settle looks at the keys that were not the same until each is found the same or different, and repairs if it is to.
func (c *check) settle(ctx context.Context) error {
	open := c.suspects
	c.suspects = nil
	for look := range maxLooks {
		pause := min(firstPause<<look, maxPause)
		var next []suspect
		for rest := open; len(rest) > 0; {
			group := rest[:min(len(rest), replication.MaxKeys)]
			n, err := c.look(ctx, group, pause, &next)
			if err != nil {
				return err
			}
			rest = rest[n:]
			if err := c.said(ctx, 0); err != nil {
				return err
			}
		}
		if open = next; len(open) == 0 {
			return nil
		}
	}
	for i := range open {
		if !open[i].counted {
			c.out.Unsettled++
		}
	}
	return nil
}

// look looks at some keys, at least the first of them, and adds those that must be looked at again to next. It returns how
// many it has looked at.
func (c *check) look(ctx context.Context, group []suspect, pause time.Duration, next *[]suspect) (n int, err error) {
	first, err := c.own(ctx, group)
	if err != nil {
		return 0, err
	}
	q := replication.FetchRequest{Region: c.r.self, Table: c.id}
	for i := range group {
		q.Keys = append(q.Keys, group[i].key)
	}
	var theirs [][]byte
	err = c.client.Fetch(ctx, q, func(p replication.SeedPart) error {
		for _, item := range p.Items {
			if len(theirs) == len(group) || !bytes.Equal(item.Key, group[len(theirs)].key) {
				return fmt.Errorf("verify: region %s answers for %x, which it was not asked for", c.peer, item.Key)
			}
			theirs = append(theirs, item.Delta)
		}
		return nil
	})
	if err == nil && len(theirs) == 0 {
		err = fmt.Errorf("verify: region %s answers for no key", c.peer)
	}
	if err != nil {
		return 0, err
	}
	group = group[:len(theirs)]
	if c.r.tasks.Wait(ctx, nil, pause) == task.Ended {
		return 0, context.Cause(ctx)
	}
	second, err := c.own(ctx, group)
	if err != nil {
		return 0, err
	}
	repairs := map[crdt.HLC][]op.Delta{}
	for i, s := range group {
		found, settled, err := c.judge(s.key, theirs[i], first.at(i), second.at(i))
		if err != nil {
			return 0, err
		}
		s.here, s.there = crdt.PeekDot(second.held[i].Record), crdt.PeekDot(theirs[i])
		if again, merge := c.decide(&s, found, settled); again {
			if merge {
				traced := first.held[i].Traced
				repairs[traced] = append(repairs[traced], op.Delta{Key: s.key, State: theirs[i]})
			}
			*next = append(*next, s)
		}
	}
	for _, traced := range slices.Sorted(maps.Keys(repairs)) {
		// What comes of an incarnation that was given up meanwhile is refused as on its stream.
		c.r.order.giveWay(ctx, repair)
		c.r.order.begin(repair)
		err = errors.Join(err, c.table.Mend(ctx, op.Cursor{Stream: c.peer, Incarnation: c.incarnation, Part: true}, traced, repairs[traced]))
		c.r.order.end(repair)
	}
	return len(group), err
}

// decide takes note of a look at a key. It tells whether the key must be looked at again, and whether the other's state is
// to be merged before.
func (c *check) decide(s *suspect, found region.Difference, settled bool) (again, merge bool) {
	switch {
	case !settled:
		return true, false
	case found == region.Same:
		if s.counted {
			c.out.Repaired++
			if s.shown > 0 {
				c.out.Keys[s.shown-1].Repaired = true
			}
		}
		return false, false
	case s.found != found:
		s.found = found
		return true, false
	}
	if !s.counted {
		s.counted = true
		c.out.Different++
		c.tell(s)
	}
	if (c.repair && found == region.Behind || c.bringBack && found == region.Gone) && !s.repaired {
		s.repaired = true
		return true, true
	}
	return false, false
}

// tell puts a different key among those of the result.
func (c *check) tell(s *suspect) {
	if len(c.out.Keys) == admin.MaxDifferentItems {
		return
	}
	key, err := admin.KeyOf(c.table.Schema(), s.key)
	if err != nil {
		key = fmt.Appendf(nil, "%q", fmt.Sprintf("%x", []byte(s.key))) // a key that no item can have
	}
	c.out.Keys = append(c.out.Keys, admin.DifferentItem{Key: key, Reason: admin.ReasonOf(s.found), Here: c.dot(s.here), There: c.dot(s.there)})
	s.shown = len(c.out.Keys)
}

// dot writes a write's time and region.
func (c *check) dot(d crdt.Dot) string {
	if d.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s/%d %s", time.UnixMilli(d.HLC.Millis()).UTC().Format("2006-01-02T15:04:05.000Z"), d.HLC.Counter(), c.table.RegionOf(d.Actor))
}

// glance is what this region holds of some keys.
type glance struct {
	held    []region.Held
	applied map[string]crdt.HLC // by region, this one among them: all its writes up to here have been applied
}

type glanceAt struct {
	*glance
	region.Held
}

func (g *glance) at(i int) glanceAt { return glanceAt{g, g.held[i]} }

// own looks at what this region holds of some keys.
func (c *check) own(ctx context.Context, keys []suspect) (*glance, error) {
	// What has been applied is asked first: it is in what is looked at then.
	g := &glance{applied: map[string]crdt.HLC{}}
	c.r.mu.Lock()
	if t := c.r.tables[c.id]; t != nil {
		for _, region := range t.members {
			g.applied[region] = 0
		}
		maps.Copy(g.applied, t.stability.Applied())
		for _, region := range t.unsettled {
			g.applied[region] = 0 // what others have of it may still come
		}
	}
	c.r.mu.Unlock()
	s, err := stillOf(ctx, c.table)
	if err != nil {
		return nil, err
	}
	defer s.close()
	g.applied[c.r.self] = s.clock()
	for i := range keys {
		held, err := s.get(keys[i].key)
		if err != nil {
			return nil, err
		}
		g.held = append(g.held, held)
	}
	return g, nil
}

// judge tells how a key's copy here differs from the other's state of it, if that can be told yet: see check.
func (c *check) judge(key table.Key, theirs []byte, before, after glanceAt) (found region.Difference, settled bool, err error) {
	if len(theirs) == 0 {
		return region.Same, true, nil
	}
	state, err := crdt.Decode(theirs)
	if err != nil {
		return 0, false, fmt.Errorf("verify: region %s: record of %x: %w", c.peer, []byte(key), err)
	}
	at := after
	if after.Record == nil {
		if _, there := state.Visible(); !there {
			return region.Same, true, nil
		}
		if at = before; before.Record != nil {
			return 0, false, nil
		}
	}
	if !replication.Reach(at.applied, state.Seen()) {
		return 0, false, nil
	}
	found, err = region.Compare(c.table.Schema(), key, at.Held, theirs)
	return found, true, err
}

// pair is a table and another region that has a replica of it.
type pair struct {
	table *region.Table
	peer  string
}

// pairs returns what there is to compare, in order, of one table or ("") of all. refused are those of which one replica is
// not in use.
func (r *replicator) pairs(name string) (out []pair, refused []admin.Verified) {
	for _, t := range r.region.Tables() {
		d := t.Definition()
		own := d.Replica(r.self)
		if own == nil || name != "" && d.Schema.Name != name {
			continue
		}
		for _, o := range d.Others(r.self) {
			switch {
			case own.Status != table.Active || o.Status != table.Active:
				refused = append(refused, admin.Verified{TableName: d.Schema.Name, Region: r.self, Peer: o.Region, AsOf: r.now().UTC(),
					Error: fmt.Sprintf("the replica here is %s, that of %s is %s", own.Status, o.Region, o.Status)})
			default:
				out = append(out, pair{t, o.Region})
			}
		}
	}
	slices.SortFunc(out, pair.compare)
	return out, refused
}

func (p pair) compare(o pair) int {
	return cmp.Or(cmp.Compare(p.table.Schema().Name, o.table.Schema().Name), cmp.Compare(p.peer, o.peer))
}

// compare holds one table against one peer's.
func (r *replicator) compare(ctx context.Context, p pair, q admin.VerifyRequest, pace func(context.Context, uint64) error, note func(admin.Verified)) admin.Verified {
	d := p.table.Definition()
	c := &check{r: r, table: p.table, id: d.GlobalID, peer: p.peer, deep: q.Deep, repair: q.Repair, bringBack: q.BringBack, pace: pace, note: note}
	c.out = admin.Verified{TableName: d.Schema.Name, Region: r.self, Peer: p.peer}
	err := r.reachable(p.peer)
	if err == nil {
		c.client = r.peer(p.peer).client
		if o := d.Replica(p.peer); o != nil {
			c.incarnation = o.Incarnation
		}
		err = c.run(ctx)
	}
	if err != nil {
		c.out.Error = err.Error()
	}
	return c.out
}

// reachable tells why there is no point in asking a region anything now.
func (r *replicator) reachable(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := r.peers[name]; {
	case p == nil:
		return errors.New("the region is not known here")
	case p.err != nil:
		return fmt.Errorf("the region cannot be reached: %w", p.err)
	}
	return nil
}
