package region

import (
	"context"
	"errors"
	"slices"

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
	if err := t.region.roomFor(); err != nil {
		return op.Result{}, err
	}
	p := t.PartitionOf(c.Key)
	result, err = p.group.Propose(ctx, c)
	if errors.Is(result.Err, op.ErrMoved) || errors.Is(err, group.ErrGone) {
		err = t.look(ctx, func(ctx context.Context, l list) (bool, error) {
			p = l.of(c.Key)
			if result, err = p.group.Propose(ctx, c); errors.Is(result.Err, op.ErrMoved) {
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
func (t *Table) Get(ctx context.Context, key table.Key, strong bool) ([]byte, error) {
	p := t.PartitionOf(key)
	err := p.readable(ctx, strong)
	if err != nil && !errors.Is(err, group.ErrGone) {
		return nil, err
	}
	if err != nil || !p.holds(key) {
		if _, err := t.readable(ctx, key, append(slices.Clone(key), 0), strong); err != nil {
			return nil, err
		}
	}
	return partition.Get(t.region.cfg.Store, t.ID, key)
}

// Page reads a run of items or index rows in key order, whichever partitions they are in.
func (t *Table) Page(ctx context.Context, p op.Page, strong bool) (op.PageResult, error) {
	from, to := p.From, p.To
	if p.Index != nil && p.Index.Global {
		// An item stands where its own key does, and its row in a local index begins with the same hash, at which no table is cut.
		from, to = nil, nil
	}
	for {
		parts, err := t.readable(ctx, from, to, strong)
		if err != nil {
			return op.PageResult{}, err
		}
		rows := make([]partition.Rows, len(parts))
		for i, part := range parts {
			state := part.State()
			rows[i] = partition.RowsOf(part.ID, part.Start, &state, part.schema.Load())
		}
		out, err := partition.ReadPage(t.region.cfg.Store, t.ID, rows, p)
		// Rows of what was cut off meanwhile may be missing, or there twice.
		if p.Index == nil || err != nil || parts.cover(from, to) {
			return out, err
		}
	}
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

// CheckIndexes holds the rows of the table's indexes on this node against its items, some at a time: see op.IndexCheck. It stops nobody:
// what it looks at is as of one moment.
func (t *Table) CheckIndexes(ctx context.Context, c op.IndexCheck) (op.IndexCheckResult, error) {
	if _, err := t.readable(ctx, nil, nil, false); err != nil {
		return op.IndexCheckResult{}, err
	}
	snap := t.region.cfg.Store.Snapshot()
	defer snap.Close()
	var out op.IndexCheckResult
	for _, p := range t.partitions() {
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
	return out, nil
}
