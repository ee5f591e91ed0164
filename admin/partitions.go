package admin

import (
	"context"
	"encoding/hex"

	"github.com/commutatordb/commutator/region"
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
	Start     string
	Items     int64
	Bytes     int64
	Leader    uint64 // the number of the node that leads it; 0 while none is known
	Changes   uint64 // entries of its change log that are kept
	Unfolded  uint64 // of these, those that are not known to have been seen by every region
	Conflicts uint64 // records kept
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
	for _, p := range t.Partitions() {
		out.Partitions = append(out.Partitions, statusOf(p))
	}
	return out, nil
}

func statusOf(p *region.Partition) PartitionStatus {
	s := p.State()
	return PartitionStatus{
		ID: p.ID, Start: hex.EncodeToString(p.Start), Items: s.Items, Bytes: s.Bytes, Leader: p.Leader(),
		Changes: s.Seq - s.Trimmed, Unfolded: s.Seq - s.Folded, Conflicts: s.Conflicts,
	}
}
