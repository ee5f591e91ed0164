package region

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// catalogGroup is the id of the Raft group that holds the catalog.
const catalogGroup = 1

// firstPartition is the least id of a partition; the ids below are the region's own groups'.
const firstPartition = 16

// Rows of the catalog. A row's value is JSON behind its revision.
const (
	rowTable = "table/" // + name: a table.Definition
	rowNext  = "next"   // the ids to be given next
	rowGone  = "gone/"  // + global id: the version of the word that this region's replica of it is to go
	rowSelf  = "region" // an identity
	rowNode  = "node/"  // + number: a Member
	rowState = "\x00applied"
)

// row is one row of the catalog as readers see it.
type row struct {
	revision uint64 // the Raft index that wrote it
	value    []byte
}

// catalog is the state machine of the region's own facts: which tables there are, and what they are. It
// implements group.Machine; view is for everybody else.
type catalog struct {
	store   *storage.Store
	applied uint64
	rows    map[string]row
	changed bool

	view    atomic.Pointer[view] // as of the last committed run
	updated func()               // called when view has changed
}

// view is the catalog as readers see it. It is never changed in place.
type view struct {
	rows   map[string]row
	tables map[string]definition // the rows of tables, by the tables' names
	self   *identity             // nil: no node has given the region one yet
	nodes  map[uint64]node       // by number
	err    error                 // of a row that cannot be read

	revision uint64 // the Raft index of the last entry applied: greater in every later view
}

func openCatalog(store *storage.Store, updated func()) (*catalog, error) {
	c := &catalog{store: store, updated: updated}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *catalog) load() error {
	c.applied, c.rows, c.changed = 0, map[string]row{}, false
	prefix := keyenc.Catalog(nil, "")
	it, err := c.store.Iter(prefix, keyenc.End(prefix))
	if err != nil {
		return fmt.Errorf("region: catalog: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		name, value := keyenc.CatalogName(it.Key()), it.Value()
		if len(value) < 8 {
			return fmt.Errorf("region: catalog: row %q has %d bytes", name, len(value))
		}
		n := binary.BigEndian.Uint64(value)
		if name == rowState {
			c.applied = n
			continue
		}
		c.rows[name] = row{n, slices.Clone(value[8:])}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("region: catalog: %w", err)
	}
	c.publish()
	return nil
}

func (c *catalog) publish() {
	v := &view{rows: maps.Clone(c.rows), tables: map[string]definition{}, nodes: map[uint64]node{}, revision: c.applied}
	for name, r := range v.rows {
		if name == rowSelf {
			v.self = &identity{}
			if err := json.Unmarshal(r.value, v.self); err != nil {
				v.self, v.err = nil, fmt.Errorf("region: catalog: %s: %w", name, err)
			}
		}
		if number, ok := strings.CutPrefix(name, rowNode); ok {
			n := node{revision: r.revision}
			id, err := strconv.ParseUint(number, 10, 64)
			if err == nil {
				err = json.Unmarshal(r.value, &n.Member)
			}
			if err != nil {
				v.err = fmt.Errorf("region: catalog: %s: %w", name, err)
			}
			n.ID = id
			v.nodes[id] = n
		}
		if !strings.HasPrefix(name, rowTable) {
			continue
		}
		d := &table.Definition{}
		if err := json.Unmarshal(r.value, d); err != nil {
			v.err = fmt.Errorf("region: catalog: %s: %w", name, err)
			continue
		}
		v.tables[d.Schema.Name] = definition{d, r.revision}
	}
	c.view.Store(v)
}

// Apply is group.Machine's.
func (c *catalog) Apply(index uint64, cmd *op.Command, b *storage.Batch) op.Result {
	c.applied = index
	if cmd == nil || cmd.Kind != op.Catalog {
		return op.Result{}
	}
	if have := c.rows[cmd.Name].revision; have != cmd.Expect {
		return op.Result{Err: &op.Stale{Revision: have}}
	}
	c.changed = true
	key := keyenc.Catalog(nil, cmd.Name)
	if cmd.Value == nil {
		delete(c.rows, cmd.Name)
		b.Delete(key)
		return op.Result{}
	}
	c.rows[cmd.Name] = row{index, slices.Clone(cmd.Value)}
	b.Set(key, binary.BigEndian.AppendUint64(nil, index), cmd.Value)
	return op.Result{Revision: index}
}

// Finish is group.Machine's.
func (c *catalog) Finish(b *storage.Batch) {
	b.Set(c.AppliedKey(), binary.BigEndian.AppendUint64(nil, c.applied))
}

// Committed is group.Machine's.
func (c *catalog) Committed() {
	if c.changed {
		c.changed = false
		c.publish()
		c.updated()
	}
}

// Applied is group.Machine's.
func (c *catalog) Applied() uint64 { return c.applied }

// AppliedKey is group.Machine's.
func (c *catalog) AppliedKey() []byte { return keyenc.Catalog(nil, rowState) }

// Ranges is group.Machine's.
func (c *catalog) Ranges() [][2][]byte {
	prefix := keyenc.Catalog(nil, "")
	return [][2][]byte{{prefix, keyenc.End(prefix)}}
}

// Bounds is group.Machine's.
func (c *catalog) Bounds() [][2][]byte { return c.Ranges() }

// Reload is group.Machine's.
func (c *catalog) Reload() error {
	if err := c.load(); err != nil {
		return err
	}
	c.updated()
	return nil
}

var _ group.Machine = (*catalog)(nil)

// definitions returns the tables of the catalog, by name, each with its row's revision. They must not be
// changed.
func (c *catalog) definitions() (map[string]definition, error) {
	v := c.view.Load()
	return v.tables, v.err
}

type definition struct {
	*table.Definition
	revision uint64
}

// identity is who a region's nodes are together to the other regions, and in the stamps of its writes. It is written
// once, as the first node to lead proposes it, and never changes.
type identity struct {
	Instance uint64
	Actor    crdt.Actor
}

// setRow writes a row, if it still has the revision that the caller has read.
// Once it has returned, this node's view shows what it has written, or why it could not.
func (r *Region) setRow(ctx context.Context, name string, value any, expect uint64) error {
	var b []byte
	if value != nil {
		var err error
		if b, err = json.Marshal(value); err != nil {
			return fmt.Errorf("region: catalog: %s: %w", name, err)
		}
	}
	result, err := r.catalogGroup.Propose(ctx, &op.Command{Kind: op.Catalog, Name: name, Value: b, Expect: expect})
	return errors.Join(err, result.Err)
}

// next is what the row of that name holds.
type next struct {
	Table     uint32
	Partition uint64
}

// allocate takes so many ids of tables and of partitions that nobody has had, and returns the first of each.
func (r *Region) allocate(ctx context.Context, tables, partitions int) (tableID uint32, partition uint64, err error) {
	for {
		ids, old, err := r.next()
		if err != nil {
			return 0, 0, err
		}
		err = r.setRow(ctx, rowNext, next{ids.Table + uint32(tables), ids.Partition + uint64(partitions)}, old.revision)
		var stale *op.Stale
		if errors.As(err, &stale) {
			continue // somebody else took these; each round somebody succeeds
		}
		return ids.Table, ids.Partition, err
	}
}

// next returns the ids to be given next, and the row that says so.
func (r *Region) next() (ids next, from row, err error) {
	ids, from = next{Table: 1, Partition: firstPartition}, r.catalog.view.Load().rows[rowNext]
	if from.value != nil {
		if err := json.Unmarshal(from.value, &ids); err != nil {
			return ids, from, fmt.Errorf("region: catalog: %s: %w", rowNext, err)
		}
	}
	return ids, from, nil
}

// Numbered tells whether an id of a partition was ever given in this region, as far as its catalog goes back.
func (r *Region) Numbered(ctx context.Context, partition uint64) (bool, error) {
	if err := r.CatchUp(ctx); err != nil {
		return false, err
	}
	ids, _, err := r.next()
	return partition < ids.Partition, err
}
