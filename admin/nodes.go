package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/commutatordb/commutator/region"
)

// ListNodesRequest asks for the nodes of the region.
type ListNodesRequest struct{}

// NodeList is the answer: the nodes as the answering one has heard of them.
type NodeList struct {
	Region string
	Node   uint64 // who answers
	Nodes  []NodeStatus
}

// NodeStatus is one node of a region.
type NodeStatus struct {
	ID      uint64
	Name    string `json:",omitempty"`
	Address string `json:",omitempty"` // where other nodes reach it
	Zone    string `json:",omitempty"`
	Status  string // HOLDS, JOINING, LEAVING or GONE
	Groups  int    // of the region's Raft groups (its catalog, and every partition), those that it votes in
	Wanted  int    // those that it is to vote in
	Of      int    // how many there are
	Bytes   int64  // of the items in the partitions that it votes in
	Leads   int    // that it leads
	Up      bool   // it has been heard of in the last second
	Drained bool   `json:",omitempty"` // it is to lead nothing, until that is undone or it is started anew
	// Format is of what its data may be, and Knows the newest that its program reads; 0 in a region of one node.
	Format, Knows int
}

func (o *Operator) listNodes(_ context.Context, _ *ListNodesRequest) (*NodeList, error) {
	return &NodeList{Region: o.Region.Name(), Node: o.Region.NodeID(), Nodes: o.nodes()}, nil
}

// nodes returns the region's nodes as this one has heard of them.
func (o *Operator) nodes() []NodeStatus {
	out := []NodeStatus{}
	held, groups := o.Region.Holding()
	members := o.Region.Members()
	if len(members) == 0 { // a region of one node keeps no list
		members = []region.Member{{ID: o.Region.NodeID()}}
	}
	for _, m := range members {
		n := NodeStatus{ID: m.ID, Name: m.Name, Address: m.Address, Zone: m.Zone, Status: string(m.State), Of: groups, Up: o.Region.Up(m.ID), Drained: m.Drained, Format: m.Format, Knows: m.Knows}
		if h := held[m.ID]; h != nil {
			n.Groups, n.Wanted, n.Leads, n.Bytes = h.Votes, h.Wanted, h.Leads, h.Bytes
		}
		if m.State == region.MemberHolds {
			if n.Status = "HOLDS"; n.Groups < n.Wanted {
				n.Status = "JOINING"
			}
		}
		out = append(out, n)
	}
	return out
}

// RemoveNodeRequest lets a node of the region go, which may be up or down.
type RemoveNodeRequest struct{ ID uint64 }

func (o *Operator) removeNode(ctx context.Context, q *RemoveNodeRequest) (*NodeList, error) {
	if q.ID == 0 {
		return nil, invalid("ID is not given")
	}
	err := o.Region.LetGo(ctx, q.ID)
	switch {
	case errors.Is(err, region.ErrNoNode):
		return nil, &Error{"ResourceNotFoundException", fmt.Sprintf("Requested resource not found: node %d", q.ID)}
	case errors.Is(err, region.ErrLastNode):
		return nil, invalid("node %d is the last of region %s", q.ID, o.Region.Name())
	case errors.Is(err, region.ErrNotSeveral):
		return nil, invalid("region %s has one node, and is not set up for several", o.Region.Name())
	case err != nil:
		return nil, err
	}
	return o.listNodes(ctx, nil)
}

// DrainNodeRequest has a node of the region hand over all that it leads, and lead nothing until Undo, or until it is started anew.
type DrainNodeRequest struct {
	ID   uint64
	Undo bool `json:",omitempty"`
}

func (o *Operator) drainNode(ctx context.Context, q *DrainNodeRequest) (*NodeList, error) {
	if q.ID == 0 {
		return nil, invalid("ID is not given")
	}
	err := o.Region.Drain(ctx, q.ID, q.Undo)
	switch {
	case errors.Is(err, region.ErrNoNode), errors.Is(err, region.ErrNodeGone):
		return nil, &Error{"ResourceNotFoundException", fmt.Sprintf("Requested resource not found: node %d", q.ID)}
	case errors.Is(err, region.ErrAllDrained):
		return nil, invalid("every other node of region %s is drained already: somebody has to lead", o.Region.Name())
	case errors.Is(err, region.ErrNotSeveral):
		return nil, invalid("region %s has one node, and is not set up for several", o.Region.Name())
	case err != nil:
		return nil, err
	}
	return o.listNodes(ctx, nil)
}
