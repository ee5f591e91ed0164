package region

import (
	"bytes"
	"context"
	"errors"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

// PartitionOf returns the partition that holds the key.
func (t *Table) PartitionOf(key table.Key) *Partition {
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

// within returns the partitions that hold keys in [from, to), at least one; nil is the end of the table.
func (t *Table) within(from, to table.Key) []*Partition {
	first, end := 0, len(t.partitions)
	for first+1 < end && bytes.Compare(t.partitions[first].End, from) <= 0 {
		first++
	}
	for end > first+1 && to != nil && bytes.Compare(t.partitions[end-1].Start, to) >= 0 {
		end--
	}
	return t.partitions[first:end]
}

// readable waits until this node may answer a read of some partitions.
func (t *Table) readable(ctx context.Context, parts []*Partition, strong bool) error {
	if t.region.several {
		return t.each(ctx, parts, func(ctx context.Context, p *Partition) error { return p.readable(ctx, strong) })
	}
	for _, p := range parts { // which hardly ever waits
		if err := p.readable(ctx, strong); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for some partitions at once, and returns the first error.
func (t *Table) each(ctx context.Context, parts []*Partition, f func(context.Context, *Partition) error) error {
	switch len(parts) {
	case 0:
		return nil
	case 1:
		return f(ctx, parts[0])
	}
	g, ctx := task.NewGroup(ctx, t.region.cfg.Tasks)
	for _, p := range parts {
		g.Go(func() error { return f(ctx, p) })
	}
	return g.Wait()
}

// Write carries out a Put, Update or Delete: it returns once the write is durable and visible. What the
// command itself is refused for is in the result's Err; the error says that it could not be carried out
// (group.ErrUnknown: it may have been).
func (t *Table) Write(ctx context.Context, c *op.Command) (op.Result, error) {
	result, err := t.PartitionOf(c.Key).group.Propose(ctx, c)
	if errors.Is(result.Err, op.ErrClosed) {
		return op.Result{}, ErrNotActive
	}
	return result, err
}

// Get returns the item at key in stored form, nil for none. With strong, it is one that every write
// acknowledged before the call has had its effect on. Without, it is what this node has: a region's only node shows
// every acknowledged write to both, and one of several need not ask the others.
func (t *Table) Get(ctx context.Context, key table.Key, strong bool) ([]byte, error) {
	if err := t.PartitionOf(key).readable(ctx, strong); err != nil {
		return nil, err
	}
	return partition.Get(t.region.cfg.Store, t.ID, key)
}

// Page reads a run of items or index rows in key order, whichever partitions they are in.
func (t *Table) Page(ctx context.Context, p op.Page, strong bool) (op.PageResult, error) {
	parts := t.partitions
	if p.Index == nil || !p.Index.Global {
		// An item stands where its own key does, and its row in a local index begins with the same hash and partition key, at which
		// no such table is cut.
		parts = t.within(p.From, p.To)
	}
	if err := t.readable(ctx, parts, strong); err != nil {
		return op.PageResult{}, err
	}
	ids := make([]uint64, len(parts))
	for i, part := range parts {
		ids[i] = part.ID
	}
	return partition.ReadPage(t.region.cfg.Store, t.ID, ids, p)
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
	if err := t.readable(ctx, t.partitions, false); err != nil {
		return op.IndexCheckResult{}, err
	}
	snap := t.region.cfg.Store.Snapshot()
	defer snap.Close()
	var out op.IndexCheckResult
	for _, p := range t.partitions {
		cfg := p.config(snap)
		if c.From != nil && !cfg.Covers(c.From) {
			continue // that was done before
		}
		r, err := partition.CheckIndexes(cfg, c)
		out.Items, out.Rows, out.Differences, out.Next = out.Items+r.Items, out.Rows+r.Rows, append(out.Differences, r.Differences...), r.Next
		if err != nil || out.Next != nil {
			return out, err
		}
		c.From, c.Limit = nil, c.Limit-r.Items-r.Rows
	}
	return out, nil
}
