package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// A region's nodes are rows of its catalog: what is there is so, whoever is up. Each node that the region began with writes its own row
// when it first has the catalog; one that joins is written by a node that it has asked. From the rows each node tells its groups which nodes
// are to hold them, and the groups see to it, one change at a time (region/group).

// Member is one node of the region.
type Member struct {
	ID       uint64 `json:"-"`
	Name     string `json:",omitempty"`
	Address  string `json:",omitempty"` // where the others reach it, host:port
	Zone     string `json:",omitempty"` // nodes of one zone may be lost together
	New      bool   `json:",omitempty"` // it was taken in, and has not said yet what it is: it is given nothing
	Instance uint64 // whose data it has: a node that lost what it had is another; 0: one that is to come
	// Epoch is how often the data was begun to be used, by starts and by time: a node that has less has an old copy of its disk.
	Epoch    uint64      `json:",omitempty"`
	Replaces uint64      `json:",omitempty"` // the number that the node had with data that is not to be used any more
	State    MemberState `json:",omitempty"`
	Drained  bool        `json:",omitempty"` // it is to lead nothing; see Drain
	// Knows is the newest format that the node's program reads, and Format what its data may have: see Region.Format.
	Knows  int `json:",omitempty"`
	Format int `json:",omitempty"`
}

// MemberState is what becomes of a node.
type MemberState string

// The states of a node. A number whose node is gone is never another's.
const (
	MemberHolds   MemberState = ""        // it holds what it is to hold, or is about to
	MemberLeaving MemberState = "LEAVING" // until no group has it any more
	MemberGone    MemberState = "GONE"
)

type node struct {
	Member
	revision uint64
}

// Errors of TakeIn and LetGo.
var (
	ErrOtherData  = errors.New("region: the node had other data than it has now: it may not vote as if it had it still")
	ErrOldData    = errors.New("region: the node has an older copy of its data: it may not vote as if it had what came after")
	ErrNodeGone   = errors.New("region: a node of this number was let go; numbers are not given twice")
	ErrNoNode     = errors.New("region: there is no such node")
	ErrOldProgram = errors.New("region: the node's program does not read the format that the region writes: it takes a newer one")
	ErrLastNode   = errors.New("region: it is the region's last node")
	ErrNodeUp     = errors.New("region: the node is up, or was until just now")
	ErrTooMany    = fmt.Errorf("region: there are %d nodes already", MaxMembers)
	ErrNotSeveral = errors.New("region: this region has one node, and is not set up for several")
)

// MaxMembers bounds the nodes of a region: each votes in the catalog's group.
const MaxMembers = 7

// Members returns the nodes of the region as the catalog has them here, by number, with those that are gone.
func (r *Region) Members() []Member {
	var out []Member
	for _, n := range r.catalog.view.Load().nodes {
		out = append(out, n.Member)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Member returns a node of the region; ok is false while the catalog here has none of that number.
func (r *Region) Member(id uint64) (m Member, ok bool) {
	n, ok := r.catalog.view.Load().nodes[id]
	return n.Member, ok
}

// changeMember writes what change makes of a node's row, again when somebody else wrote it meanwhile. nil leaves it as it is.
func (r *Region) changeMember(ctx context.Context, id uint64, change func(have Member, ok bool) (*Member, error)) error {
	for {
		have, ok := r.catalog.view.Load().nodes[id]
		m, err := change(have.Member, ok)
		if m == nil || err != nil {
			return err
		}
		err = r.setRow(ctx, rowNode+strconv.FormatUint(id, 10), *m, have.revision)
		var stale *op.Stale
		if !errors.As(err, &stale) {
			return err
		}
	}
}

// askedMember is changeMember for who is asked to, from the newest that the region knows.
func (r *Region) askedMember(ctx context.Context, id uint64, change func(have Member, ok bool) (*Member, error)) error {
	if !r.several {
		return ErrNotSeveral
	}
	if err := r.CatchUp(ctx); err != nil {
		return err
	}
	return r.changeMember(ctx, id, change)
}

// enrol has the region know of this node, and whose data it has.
func (r *Region) enrol(ctx context.Context) error {
	if !r.several {
		return nil
	}
	own := Member{Name: r.cfg.NodeName, Address: r.cfg.NodeAddress, Zone: r.cfg.NodeZone, Instance: r.cfg.NodeInstance, Epoch: r.epoch.Load(), Knows: format.Known, Format: int(r.format.Load())}
	err := r.changeMember(ctx, r.cfg.NodeID, func(have Member, ok bool) (*Member, error) {
		switch {
		case !ok:
			return &own, nil
		case have.Instance != own.Instance && have.Instance != 0:
			return nil, ErrOtherData
		case have.Epoch > own.Epoch:
			return nil, ErrOldData
		case have.State == MemberHolds:
			own.Format = max(own.Format, have.Format)
			own.Replaces, own.Drained = have.Replaces, have.Drained && r.enrolled.Load()
			if own != withID(have, 0) {
				return &own, nil
			}
		}
		return nil, nil
	})
	if errors.Is(err, ErrOtherData) || errors.Is(err, ErrOldData) {
		r.cfg.Fatal(fmt.Errorf("%w: node %d of region %s", err, r.cfg.NodeID, r.cfg.Name))
	}
	if err == nil {
		r.enrolled.Store(true)
	}
	return err
}

// TakeIn makes a node one of the region's: from now on it is to hold every group. It returns ErrOtherData, ErrNodeGone, ErrTooMany or ErrOldProgram.
func (r *Region) TakeIn(ctx context.Context, m Member) error {
	if _, ok := r.Member(m.ID); r.several && !ok {
		if err := r.name(ctx); err != nil {
			return err
		}
	}
	return r.askedMember(ctx, m.ID, func(have Member, ok bool) (*Member, error) {
		switch {
		case ok && have.State == MemberGone:
			return nil, ErrNodeGone
		case ok && have.Instance == 0:
			m.Replaces, m.New = have.Replaces, true
			return &m, nil
		case ok && have.Instance != m.Instance:
			return nil, ErrOtherData
		case ok:
			return nil, nil
		case len(r.wanted()) >= MaxMembers:
			return nil, ErrTooMany
		case max(m.Knows, format.Oldest) < r.highest():
			return nil, ErrOldProgram
		}
		r.cfg.Logger.Info("region: a node joins", "node", m.ID, "name", m.Name, "address", m.Address)
		m.New = true
		return &m, nil
	})
}

// Replace lets go a node whose data is not to be used any more, and has another number for it under which it can begin anew. What it has led
// and held others go on with; the region has the new one before it lets the old one go. It must be down: a node that this one, which leads the
// catalog, has heard of lately is refused with ErrNodeUp. Errors are LetGo's, too.
func (r *Region) Replace(ctx context.Context, id uint64) (number uint64, err error) {
	if !r.several {
		return 0, ErrNotSeveral
	}
	if err := r.CatchUp(ctx); err != nil {
		return 0, err
	}
	up, err := r.host.Heard(ctx, id)
	if err != nil {
		return 0, err
	}
	var old Member
	for _, m := range r.Members() {
		switch number = max(number, m.ID); {
		case m.ID == id:
			old = m
		case m.Replaces == id:
			return m.ID, nil
		}
	}
	switch {
	case old.ID == 0:
		return 0, ErrNoNode
	case old.State != MemberHolds:
		return 0, ErrNodeGone
	case up || !r.Leads():
		return 0, ErrNodeUp
	}
	for _, v := range r.cfg.Voters {
		number = max(number, v)
	}
	number++
	err = r.changeMember(ctx, number, func(_ Member, ok bool) (*Member, error) {
		if ok {
			return nil, ErrNodeUp // somebody else was given it; it asks again
		}
		return &Member{Name: old.Name, Address: old.Address, Replaces: id, New: true}, nil
	})
	if err != nil {
		return 0, err
	}
	r.cfg.Logger.Warn("region: a node begins anew under another number", "node", id, "name", old.Name, "number", number)
	return number, r.LetGo(ctx, id)
}

// keepEpoch has the region know, now and again, that this node's data goes on: an older copy of it is then told from it.
func (r *Region) keepEpoch(ctx context.Context) error {
	for r.cfg.Tasks.Wait(ctx, nil, epochEvery) == task.Late {
		if r.catalog.view.Load().self == nil {
			continue
		}
		if err := r.nextEpoch(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.Warn("region: the node's epoch is not known to the others", "err", err)
		}
	}
	return nil
}

// nextEpoch begins another epoch: on this node's disk first, and then in the catalog, which a node reaches only if the others have taken it for
// what it was.
func (r *Region) nextEpoch(ctx context.Context) error {
	if r.cfg.NextEpoch != nil {
		epoch, err := r.cfg.NextEpoch()
		if err != nil {
			return err
		}
		r.epoch.Store(epoch)
	}
	return r.enrol(ctx)
}

// epochEvery is how old a copy of a node's disk may be and not be told by its epoch, when there was no start since.
const epochEvery = 5 * time.Minute

// Epoch is the epoch of this node's data, as far as it has come: that of its last start, until the others have let it in.
func (r *Region) Epoch() uint64 { return r.epoch.Load() }

func withID(m Member, id uint64) Member {
	m.ID = id
	return m
}

// LetGo makes a node leave: from now on it is to hold nothing. It is GONE, by Members, once no group has it any more. It may be up or down:
// more than half of the nodes must be up, it among them or not. It returns ErrNoNode or ErrLastNode.
func (r *Region) LetGo(ctx context.Context, id uint64) error {
	return r.askedMember(ctx, id, func(have Member, ok bool) (*Member, error) {
		switch {
		case !ok:
			return nil, ErrNoNode
		case have.State != MemberHolds:
			return nil, nil
		case len(r.wanted()) == 1:
			return nil, ErrLastNode
		}
		have.State = MemberLeaving
		r.cfg.Logger.Info("region: a node is let go", "node", id, "name", have.Name)
		return &have, nil
	})
}

// wanted returns the nodes that are to hold the groups: those that the catalog has, and those that the region began with and that have not
// written their rows yet.
func (r *Region) wanted() (ids []uint64) {
	nodes := r.catalog.view.Load().nodes
	for id, n := range nodes {
		if n.State == MemberHolds {
			ids = append(ids, id)
		}
	}
	for _, id := range r.cfg.Voters {
		if _, ok := nodes[id]; !ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// nodesOf returns the nodes that are to hold a partition, by what the catalog has of it. One that leaves holds what it is said to until another is
// said to.
func (r *Region) nodesOf(named []uint64) []uint64 {
	if named == nil {
		return r.wanted()
	}
	nodes := r.catalog.view.Load().nodes
	return slices.DeleteFunc(slices.Clone(named), func(id uint64) bool { return nodes[id].State == MemberGone })
}

// NodesOf returns the nodes that are to hold a partition of the catalog's, rising.
func (r *Region) NodesOf(p table.Partition) []uint64 { return r.nodesOf(p.Nodes) }

// wantedOf returns who is to hold each of the region's groups. The catalog stays with a node that leaves until no other group has it: by the
// catalog it hears that it is to go.
func (r *Region) wantedOf() map[uint64]group.Wanted {
	voters := r.wanted()
	of := map[uint64]group.Wanted{}
	for _, d := range r.catalog.view.Load().tables {
		for _, pd := range partitionsOf(d.Definition) {
			of[pd.ID] = group.Wanted{Voters: r.nodesOf(pd.Nodes)}
			if pd.Split != nil {
				of[pd.Split.Child] = of[pd.ID]
			}
		}
	}
	for _, m := range r.Members() {
		if m.State == MemberLeaving && r.holds(m.ID) {
			voters = append(voters, m.ID)
		}
	}
	of[catalogGroup] = group.Wanted{Voters: voters}
	return of
}

// holds tells whether any group but the catalog's has a node among its members, or may have for all that is known here.
func (r *Region) holds(node uint64) bool {
	open, v := *r.tables.Load(), r.catalog.view.Load()
	for name, d := range v.tables {
		t := open[name]
		if t == nil || t.ID != d.ID || d.Former != nil && t.former.Load() == nil {
			return true // it is not open here yet
		}
		partitions := t.partitions()
		if former := t.former.Load(); former != nil {
			partitions = slices.Concat(partitions, former.partitions())
		}
		if slices.ContainsFunc(partitions, func(p *Partition) bool { return hasMember(p, node) }) {
			return true
		}
	}
	return v.err != nil
}

// hasMember tells whether a group has a node among its members, or may have, as far as is known here.
func hasMember(g replicas, node uint64) bool {
	voters, learners := g.Members()
	return len(voters) == 0 || slices.Contains(voters, node) || slices.Contains(learners, node)
}

// membersEvery is how often it is looked whether a node that leaves has left.
const membersEvery = time.Second

// keepMembers tells the groups which nodes are to hold them, and notes which hold nothing any more.
func (r *Region) keepMembers(ctx context.Context) error {
	changed, stop := r.Watch()
	defer stop()
	for {
		// What is told is to be true now: an old word would undo the last change.
		err := r.CatchUp(ctx)
		if err == nil && r.catalog.view.Load().self != nil {
			err = errors.Join(r.host.Want(ctx, r.wantedOf()), r.host.Spare(ctx, r.drained()), r.keepFormat(ctx))
		}
		if err == nil && r.Leads() {
			err = r.noteGone(ctx)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, group.ErrClosed) {
			r.cfg.Logger.Debug("region: members", "err", err)
		}
		wait := time.Duration(0)
		if err != nil || slices.ContainsFunc(r.Members(), func(m Member) bool { return m.State == MemberLeaving }) {
			wait = membersEvery
		}
		if r.cfg.Tasks.Wait(ctx, changed, wait) == task.Ended {
			return nil
		}
	}
}

// noteGone marks nodes as gone that no group has any more.
func (r *Region) noteGone(ctx context.Context) error {
	for _, m := range r.Members() {
		if m.State != MemberLeaving || r.holds(m.ID) || hasMember(r.catalogGroup, m.ID) {
			continue
		}
		err := r.changeMember(ctx, m.ID, func(have Member, ok bool) (*Member, error) {
			if !ok || have.State != MemberLeaving {
				return nil, nil
			}
			have.State = MemberGone
			return &have, nil
		})
		if err != nil {
			return err
		}
		r.cfg.Logger.Info("region: a node is gone", "node", m.ID, "name", m.Name)
	}
	return nil
}
