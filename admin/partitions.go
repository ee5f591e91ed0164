package admin

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// ListPartitionsRequest asks what partitions a table has in the region.
type ListPartitionsRequest struct{ TableName string }

// PartitionList is the answer.
type PartitionList struct {
	Region, TableName string
	Partitions        []PartitionStatus // in the order of their keys
}

// PartitionStatus is one partition as the answering node has it.
type PartitionStatus struct {
	ID uint64
	// Start is the least key that may be in it, in hexadecimal: the hash of a partition key, of 8 bytes, and what more there is. "" is the
	// least of all.
	Start  string
	Items  int64
	Bytes  int64
	Leader uint64 // the number of the node that leads it; 0 while none is known
	// Nodes are the numbers of those that are to hold it, and Voters of those that do and vote, rising. Learners are being filled.
	Nodes, Voters []uint64
	Learners      []uint64 `json:",omitempty"`
	Changes       uint64   // entries of its change log that are kept
	Unfolded      uint64   // of these, those that are not known to have been seen by every region
	Conflicts     uint64   // records kept
	State         PartitionState
	// Parent is the partition that it was split off, 0 for none.
	Parent uint64 `json:",omitempty"`
}

// PartitionState is what is being done to a partition.
type PartitionState string

// The states of a partition.
const (
	PartitionActive    PartitionState = "ACTIVE"
	PartitionSplitting PartitionState = "SPLITTING" // it is being made ready to be split, and serves as ever
	PartitionCleaning  PartitionState = "CLEANING"  // it was split, and index rows of what was split off are being removed
	PartitionMerging   PartitionState = "MERGING"   // it is empty, and on its way into its left neighbour: writes there may wait for a second
	PartitionMoving    PartitionState = "MOVING"    // others hold it than are to
)

// SplitPartitionRequest asks that a partition be split in two.
type SplitPartitionRequest struct {
	TableName string
	ID        uint64
	// At is the first key of what is split off: a hash as in PartitionStatus.Start, of up to 8 bytes, in hexadecimal. "": one in the middle
	// of the items.
	At string `json:",omitempty"`
}

// SplitPartitionAnswer tells the id of what is to be split off.
type SplitPartitionAnswer struct {
	Region, TableName string
	ID, Child         uint64
}

func (o *Operator) splitPartition(ctx context.Context, q *SplitPartitionRequest) (*SplitPartitionAnswer, error) {
	if q.TableName == "" || q.ID == 0 {
		return nil, invalid("TableName and ID must be given")
	}
	at, err := hex.DecodeString(q.At)
	if err != nil {
		return nil, invalid("At: %q is not in hexadecimal", q.At)
	}
	if len(at) == 0 {
		at = nil
	}
	child, err := o.Region.Split(ctx, q.TableName, q.ID, at)
	for _, of := range []error{region.ErrNoPartition, region.ErrSplitting, region.ErrMerging, region.ErrSplitKey, region.ErrNoSplitKey, region.ErrNotActive} {
		if errors.Is(err, of) {
			return nil, invalid("partition %d of %s: %v", q.ID, q.TableName, err)
		}
	}
	return &SplitPartitionAnswer{o.Region.Name(), q.TableName, q.ID, child}, err
}

// MergePartitionRequest asks that a partition, which must be empty, be taken in by its left neighbour.
type MergePartitionRequest struct {
	TableName string
	ID        uint64 // of the one that goes
}

// MergePartitionAnswer says that it has begun.
type MergePartitionAnswer struct {
	Region, TableName string
	ID                uint64
}

func (o *Operator) mergePartition(ctx context.Context, q *MergePartitionRequest) (*MergePartitionAnswer, error) {
	if q.TableName == "" || q.ID == 0 {
		return nil, invalid("TableName and ID must be given")
	}
	err := o.Region.Merge(ctx, q.TableName, q.ID)
	for _, of := range []error{region.ErrNoPartition, region.ErrNoLeft, region.ErrNotEmpty, region.ErrMerging, region.ErrSplitting, region.ErrApart, region.ErrNotActive} {
		if errors.Is(err, of) {
			return nil, invalid("partition %d of %s: %v", q.ID, q.TableName, err)
		}
	}
	return &MergePartitionAnswer{o.Region.Name(), q.TableName, q.ID}, err
}

// MovePartitionRequest asks that one node holds a partition instead of another. The numbers are those of NodeStatus.
type MovePartitionRequest struct {
	TableName string
	ID        uint64
	From, To  uint64
}

func (o *Operator) movePartition(ctx context.Context, q *MovePartitionRequest) (*PartitionList, error) {
	if q.TableName == "" || q.ID == 0 || q.From == 0 || q.To == 0 {
		return nil, invalid("TableName, ID, From and To must be given")
	}
	err := o.Region.Move(ctx, q.TableName, q.ID, q.From, q.To)
	of := map[error]uint64{region.ErrHolds: q.To, region.ErrNoNode: q.To, region.ErrNodeDown: q.To, region.ErrHoldsNot: q.From}
	for _, is := range []error{region.ErrHolds, region.ErrHoldsNot, region.ErrNoNode, region.ErrNodeDown} {
		if errors.Is(err, is) {
			return nil, invalid("partition %d of %s: node %d: %v", q.ID, q.TableName, of[is], err)
		}
	}
	for _, is := range []error{region.ErrNoPartition, region.ErrEverywhere, region.ErrOnTheWay, region.ErrNotActive, region.ErrNotSeveral} {
		if errors.Is(err, is) {
			return nil, invalid("partition %d of %s: %v", q.ID, q.TableName, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return o.listPartitions(ctx, &ListPartitionsRequest{TableName: q.TableName})
}

func (o *Operator) listPartitions(ctx context.Context, q *ListPartitionsRequest) (*PartitionList, error) {
	if q.TableName == "" {
		return nil, invalid("TableName must be given")
	}
	t, err := o.Region.Opened(ctx, q.TableName)
	if err != nil {
		return nil, err
	}
	out := &PartitionList{Region: o.Region.Name(), TableName: q.TableName}
	d, err := o.Region.Definition(q.TableName)
	if err != nil {
		return nil, err
	}
	for _, p := range t.Partitions() {
		s := statusOf(p)
		if i := slices.IndexFunc(d.Partitions, func(pd table.Partition) bool { return pd.ID == p.ID }); i >= 0 {
			s.Nodes = o.Region.NodesOf(d.Partitions[i]) // what was said just now, whether or not it is followed here yet
		}
		if slices.ContainsFunc(d.Partitions, func(pd table.Partition) bool { return pd.ID == p.ID && pd.Merging != nil }) {
			s.State = PartitionMerging
		}
		if s.State == PartitionActive && s.Nodes != nil && (!slices.Equal(s.Nodes, s.Voters) || len(s.Learners) > 0) {
			s.State = PartitionMoving
		}
		if s.State == PartitionActive && slices.ContainsFunc(d.Partitions, func(pd table.Partition) bool { return pd.ID == p.ID && pd.Split != nil }) {
			s.State = PartitionSplitting
		}
		out.Partitions = append(out.Partitions, s)
	}
	return out, nil
}

func statusOf(p *region.Partition) PartitionStatus {
	s := p.State()
	state := PartitionActive
	switch {
	case s.Span.Drafting:
		state = PartitionSplitting
	case s.Span.Prune:
		state = PartitionCleaning
	}
	voters, learners := p.Members()
	return PartitionStatus{
		Nodes: p.Nodes(), Voters: slices.Sorted(slices.Values(voters)), Learners: learners,
		State: state, Parent: p.Parent,
		ID: p.ID, Start: hex.EncodeToString(p.Start), Items: s.Items, Bytes: s.Bytes, Leader: p.Leader(),
		Changes: s.Seq - s.Trimmed, Unfolded: s.Seq - s.Folded, Conflicts: s.Conflicts,
	}
}
