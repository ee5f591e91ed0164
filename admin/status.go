package admin

import (
	"context"

	"github.com/commutatordb/commutator/table"
)

// StatusRequest asks how a node is.
type StatusRequest struct{}

// Status is a node's word on itself and on the regions it knows.
type Status struct {
	Region string
	Tables []TableStatus
	Links  []Link
}

// TableStatus is one table as this region has it.
type TableStatus struct {
	Name     string
	Status   table.Status
	Items    int64
	Bytes    int64
	Replicas []ReplicaStatus `json:",omitempty"`
}

// ReplicaStatus is one region's replica as this region knows it.
type ReplicaStatus struct {
	Region    string
	Status    table.Status
	LagMillis int64 // age of its newest word when that arrived; 0 where none has, and for this region
}

func (o *Operator) status(_ context.Context, _ *StatusRequest) (*Status, error) {
	s := &Status{Region: o.Region.Name(), Links: o.Links.Links()}
	for _, t := range o.Region.Tables() {
		d := t.Definition()
		items, bytes := t.Stats()
		ts := TableStatus{Name: d.Schema.Name, Status: d.Status, Items: items, Bytes: bytes}
		lag := o.Links.Lag(d.GlobalID)
		for _, r := range d.Replicas {
			if r.Status != table.Gone {
				ts.Replicas = append(ts.Replicas, ReplicaStatus{r.Region, r.Status, lag[r.Region].Milliseconds()})
			}
		}
		s.Tables = append(s.Tables, ts)
	}
	return s, nil
}
