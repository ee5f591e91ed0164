package region

import (
	"context"

	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// of returns the partition that holds the key.
func (t *Table) of(key table.Key) *Partition {
	lo, hi := 0, len(t.partitions)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if string(t.partitions[mid].Start) <= string(key) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return t.partitions[lo]
}

// Write carries out a Put, Update or Delete: it returns once the write is durable and visible. What the
// command itself is refused for is in the result's Err; the error says that it could not be carried out
// (group.ErrUnknown: it may have been).
func (t *Table) Write(ctx context.Context, c *op.Command) (op.Result, error) {
	return t.of(c.Key).group.Propose(ctx, c)
}

// Get returns the item at key in stored form, nil for none. With strong, it is one that every write
// acknowledged before the call has had its effect on. Without, it is what this node has: a region's only node shows
// every acknowledged write to both, and one of several need not ask the others.
func (t *Table) Get(ctx context.Context, key table.Key, strong bool) ([]byte, error) {
	if err := t.of(key).readable(ctx, strong); err != nil {
		return nil, err
	}
	return partition.Get(t.region.cfg.Store, t.ID, key)
}

// Page reads a run of items or index rows in key order.
func (t *Table) Page(ctx context.Context, p op.Page, strong bool) (op.PageResult, error) {
	for _, part := range t.partitions {
		if err := part.readable(ctx, strong); err != nil {
			return op.PageResult{}, err
		}
	}
	return partition.ReadPage(t.region.cfg.Store, t.ID, p)
}

// Stats returns how many items the table has and their size in bytes.
func (t *Table) Stats() (items, bytes int64) {
	for _, p := range t.partitions {
		s := p.State()
		items += s.Items
		bytes += s.Bytes
	}
	return items, bytes
}

// IndexStats returns how many rows an index has and the size in bytes of what they hold of items.
func (t *Table) IndexStats(id uint32) (rows, bytes int64) {
	for _, p := range t.partitions {
		for _, x := range p.State().Indexes {
			if x.ID == id {
				rows += x.Items
				bytes += x.Bytes
			}
		}
	}
	return rows, bytes
}

// CheckIndexes holds the rows of the table's indexes on this node against its items, some at a time: see op.IndexCheck. It stops nobody:
// what it looks at is as of one moment.
func (t *Table) CheckIndexes(ctx context.Context, c op.IndexCheck) (op.IndexCheckResult, error) {
	for _, p := range t.partitions {
		if err := p.readable(ctx, false); err != nil {
			return op.IndexCheckResult{}, err
		}
	}
	// One partition holds all rows of a table: see partition.Machine.Ranges.
	snap := t.region.cfg.Store.Snapshot()
	defer snap.Close()
	return partition.CheckIndexes(partition.Config{ID: t.partitions[0].ID, Table: t.ID, Store: snap}, c)
}
