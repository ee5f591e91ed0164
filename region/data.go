package region

import (
	"bytes"
	"context"
	"errors"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/table"
)

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
func (t *Table) Write(ctx context.Context, c *op.Command) (result op.Result, err error) {
	p := t.PartitionOf(c.Key)
	result, err = p.do(ctx, c)
	if errors.Is(result.Err, op.ErrMoved) || errors.Is(err, group.ErrGone) {
		err = t.look(ctx, func(ctx context.Context, l list) (bool, error) {
			p = l.of(c.Key)
			if result, err = p.do(ctx, c); errors.Is(result.Err, op.ErrMoved) {
				return false, op.ErrMoved
			}
			return err == nil, err
		})
	}
	if errors.Is(result.Err, op.ErrClosed) {
		return op.Result{}, ErrNotActive
	}
	result.Partition = p.ID
	return result, err
}

// Get returns the item at key in stored form, nil for none. With strong, it is one that every write
// acknowledged before the call has had its effect on. Without, it is what this node has: a region's only node shows
// every acknowledged write to both, and one of several need not ask the others.
func (t *Table) Get(ctx context.Context, key table.Key, strong bool) (item []byte, err error) {
	p := t.PartitionOf(key)
	item, err = p.get(ctx, key, strong)
	if errors.Is(err, op.ErrMoved) || errors.Is(err, group.ErrGone) {
		err = t.look(ctx, func(ctx context.Context, l list) (bool, error) {
			item, err = l.of(key).get(ctx, key, strong)
			return err == nil, err
		})
	}
	return item, err
}

// get is Table.Get for an item of the partition; op.ErrMoved says that the key is another's.
func (p *Partition) get(ctx context.Context, key table.Key, strong bool) ([]byte, error) {
	for {
		g := p.here()
		if g == nil {
			item, err := p.getElsewhere(ctx, key, strong)
			if errors.Is(err, group.ErrGone) && p.here() != nil {
				continue
			}
			return item, err
		}
		if err := p.readable(ctx, strong); err != nil {
			return nil, err
		}
		if !p.holds(key) {
			return nil, op.ErrMoved
		}
		item, err := partition.Get(p.table.region.cfg.Store, p.table.ID, key)
		if p.replica.Load() == g {
			return item, err
		}
	}
}

// Page reads a run of items or index rows in key order, whichever partitions they are in.
func (t *Table) Page(ctx context.Context, p op.Page, strong bool) (out op.PageResult, err error) {
	from, to := p.From, p.To
	if p.Index != nil && p.Index.Global {
		// An item stands where its own key does, and its row in a local index begins with the same hash, at which no table is cut.
		from, to = nil, nil
	}
	err = t.look(ctx, func(ctx context.Context, l list) (bool, error) {
		parts, ok, err := t.readableOf(ctx, l, from, to, strong)
		if err != nil || !ok {
			return false, err
		}
		if out, err = t.page(ctx, parts, p); err != nil {
			return false, err
		}
		// Rows of what was cut off meanwhile may be missing, or there twice.
		return p.Index == nil || parts.cover(from, to), nil
	})
	return out, err
}

// page reads a run of items or index rows of some partitions.
func (t *Table) page(ctx context.Context, parts list, p op.Page) (out op.PageResult, err error) {
	rows, readers := make([]partition.Rows, len(parts)), make([]reader, len(parts))
	all := true // are here
	for i, part := range parts {
		readers[i] = part.reader(ctx)
		all = all && readers[i].local != nil
		rows[i] = partition.RowsOf(readers[i], part.ID, part.Start, readers[i].state, part.schema.Load())
	}
	if all || p.Index != nil && p.Index.Global {
		out, err = partition.ReadPage(t.ID, rows, p)
	} else {
		out, err = t.pageByPage(parts, rows, p)
	}
	for _, r := range readers {
		if err == nil {
			err = r.stood()
		}
	}
	return out, err
}

// pageByPage reads partitions one after the other, in the order of their keys, as far as the page goes.
func (t *Table) pageByPage(parts list, rows []partition.Rows, p op.Page) (out op.PageResult, err error) {
	order := make([]int, len(parts))
	for i := range order {
		if order[i] = i; p.Reverse {
			order[i] = len(order) - 1 - i
		}
	}
	for _, i := range order {
		of := p
		if bytes.Compare(parts[i].Start, of.From) > 0 {
			of.From = parts[i].Start
		}
		if end := table.Key(nil); i+1 < len(parts) {
			if end = parts[i+1].Start; of.To == nil || bytes.Compare(end, of.To) < 0 {
				of.To = end
			}
		}
		got, err := partition.ReadPage(t.ID, rows[i:i+1], of)
		if err != nil {
			return out, err
		}
		out.Items, out.Keys = append(out.Items, got.Items...), append(out.Keys, got.Keys...)
		out.Looked, out.LookedAt = out.Looked+got.Looked, out.LookedAt+got.LookedAt
		if out.Last, out.LastItem = got.Last, got.LastItem; out.Last != nil {
			break
		}
		if p.Limit > 0 {
			p.Limit -= got.Looked
		}
		if p.Bytes > 0 {
			p.Bytes -= got.LookedAt
		}
	}
	return out, nil
}

// Stats returns how many items the table has and their size in bytes.
func (t *Table) Stats() (items, bytes int64) {
	for _, p := range t.partitions() {
		s := p.State()
		items += s.Items
		bytes += s.Bytes
	}
	return items, bytes
}

// Wrote returns the newest stamp given to a write of this region's, 0 for none.
func (t *Table) Wrote() (newest crdt.HLC) {
	for _, p := range t.partitions() {
		newest = max(newest, p.State().Wrote)
	}
	return newest
}

// LargeRecords returns how many times, since the node's start, its replicas have written a record that keeps more than 1 KB, and more than a
// tenth of the item, for merging.
func (t *Table) LargeRecords() uint64 { return t.large.Load() }

// IndexStats returns how many rows an index has and the size in bytes of what they hold of items.
func (t *Table) IndexStats(id uint32) (rows, bytes int64) {
	for _, p := range t.partitions() {
		for _, x := range p.State().Indexes {
			if x.ID == id {
				rows += x.Items
				bytes += x.Bytes
			}
		}
	}
	return rows, bytes
}

// CheckIndexes holds the rows of the table's indexes against its items, some at a time: see op.IndexCheck. It stops nobody: what it looks at
// of each partition is as of one moment.
func (t *Table) CheckIndexes(ctx context.Context, c op.IndexCheck) (op.IndexCheckResult, error) {
	if _, err := t.readable(ctx, nil, nil, false); err != nil {
		return op.IndexCheckResult{}, err
	}
	var out op.IndexCheckResult
	for _, p := range t.partitions() {
		snap, err := p.pin(ctx)
		if err != nil {
			return out, err
		}
		defer snap.close()
		cfg := p.config(snap)
		if c.From != nil {
			if covers, err := partition.Covers(cfg, c.From); err != nil {
				return out, err
			} else if !covers {
				continue // that was done before
			}
		}
		r, err := partition.CheckIndexes(cfg, c)
		out.Items, out.Rows, out.Differences, out.Next = out.Items+r.Items, out.Rows+r.Rows, append(out.Differences, r.Differences...), r.Next
		if err != nil || out.Next != nil {
			return out, err
		}
		c.From, c.Limit = nil, c.Limit-r.Items-r.Rows
	}
	if c.From != nil { // it was in a partition that was taken in since
		c.From = nil
		return t.CheckIndexes(ctx, c)
	}
	return out, nil
}
