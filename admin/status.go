package admin

import (
	"context"
	"time"

	"github.com/commutatordb/commutator/table"
)

// StatusRequest asks how a node is.
type StatusRequest struct{}

// Status is a node's word on itself and on the regions it knows.
type Status struct {
	Region string
	Tables []TableStatus
	Links  []Link
	Nodes  []NodeStatus
	Groups GroupStatus
}

// GroupStatus is how the region's Raft groups are (its catalog, and every partition), as the answering node has heard.
type GroupStatus struct {
	Groups          int
	UnderReplicated int // of them, those with a voter that is down, or with one that does not vote yet
	Moving          int // those that are not held yet by those that are to hold them
	Leaderless      int // those that nobody leads who is up
	Merging         int // partitions that are on their way into their left neighbours
	Asleep          int // those that have nothing to do
}

// TableStatus is one table as this region has it.
type TableStatus struct {
	Name    string
	Status  table.Status
	Version uint64 // of its definition: equal in all regions once they agree
	Items   int64
	Bytes   int64
	// Partitions is how many the table has in this region.
	Partitions int
	Conflicts  int64 // found here since the node's start, those that other regions keep among them
	// ConflictsKept are the conflict records this region has, and ConflictsShed those that it has no more, or never had, for
	// want of room.
	ConflictsKept, ConflictsShed uint64
	Replicas                     []ReplicaStatus `json:",omitempty"`
}

// ReplicaStatus is one region's replica as this region knows it.
type ReplicaStatus struct {
	Region string
	Status table.Status
	// LagMillis is the age of its newest word when that arrived, or, while the region cannot be reached,
	// how long ago it was heard; 0 where nothing has arrived, and for this region.
	LagMillis int64
	// Seeding is, of this region's own replica, how far it has been filled from another's while it is not ACTIVE.
	Seeding *Seeding `json:",omitempty"`
}

// Seeding is how far a replica has been filled from another region's.
type Seeding struct {
	From           string    // region
	Since          time.Time // when it was begun, or last gone on with
	Items, OfItems int64     // copied, and how many there were when it was begun or last gone on with
	Bytes, OfBytes int64     // the same in bytes: of states, and of items
	BytesPerSecond int64
}

func (o *Operator) status(_ context.Context, _ *StatusRequest) (*Status, error) {
	h := o.Region.Health()
	s := &Status{
		Region: o.Region.Name(), Tables: []TableStatus{}, Links: o.Links.Links(), Nodes: o.nodes(),
		Groups: GroupStatus{Groups: h.Groups, UnderReplicated: h.UnderReplicated, Moving: h.Moving, Leaderless: h.Leaderless, Merging: h.Merging, Asleep: o.Region.Asleep()},
	}
	silent := map[string]time.Duration{}
	for _, l := range s.Links {
		if !l.Reachable && !l.Heard.IsZero() {
			silent[l.Region] = o.Now().Sub(l.Heard)
		}
	}
	for _, t := range o.Region.Tables() {
		d := t.Definition()
		if said, err := o.Region.Definition(d.Schema.Name); err == nil && said.ID == d.ID {
			d = said // the catalog's word, which the table follows
		}
		items, bytes := t.Stats()
		ts := TableStatus{Name: d.Schema.Name, Status: d.Status, Version: d.Version, Items: items, Bytes: bytes, Partitions: len(t.Partitions())}
		if d.GivenUp(s.Region) {
			ts.Status = statusClosed
		}
		for _, n := range t.ConflictsFound() {
			ts.Conflicts += n
		}
		ts.ConflictsKept, ts.ConflictsShed = t.ConflictsKept()
		lag := o.Links.Lag(d.GlobalID)
		for _, r := range d.Replicas {
			if r.Status != table.Gone {
				rs := ReplicaStatus{Region: r.Region, Status: r.Status, LagMillis: max(lag[r.Region], silent[r.Region]).Milliseconds()}
				if r.Region == s.Region {
					rs.Seeding = o.Links.Seeding(d.GlobalID)
				}
				ts.Replicas = append(ts.Replicas, rs)
			}
		}
		s.Tables = append(s.Tables, ts)
	}
	return s, nil
}

// statusClosed is the state of a table that other regions have gone on without: it takes no writes, and begins anew or waits to be given its
// replica again.
const statusClosed table.Status = "CLOSED"
