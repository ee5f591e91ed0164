package region

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Stamp is the present as an HLC, for a definition's Version.
func (r *Region) Stamp() crdt.HLC { return crdt.At(r.cfg.Now().UnixMilli(), 0) }

// Definitions returns every table of the catalog, sorted by name. They must not be changed.
func (r *Region) Definitions() ([]*table.Definition, error) {
	defs, _, err := r.Catalog()
	return defs, err
}

// Catalog returns every table of the catalog, sorted by name, and a number that is greater whenever the catalog is another, at whichever
// node of the region: of two words of the region's it tells which is the later. They must not be changed.
func (r *Region) Catalog() (defs []*table.Definition, revision uint64, err error) {
	v := r.catalog.view.Load()
	if v.err != nil {
		return nil, 0, v.err
	}
	out := make([]*table.Definition, 0, len(v.tables))
	for _, d := range v.tables {
		out = append(out, d.Definition)
	}
	slices.SortFunc(out, func(a, b *table.Definition) int { return strings.Compare(a.Schema.Name, b.Schema.Name) })
	return out, v.revision, nil
}

// Definition returns the table's definition, or ErrNoTable. It must not be changed.
func (r *Region) Definition(name string) (*table.Definition, error) {
	d, err := r.definition(name)
	return d.Definition, err
}

func (r *Region) definition(name string) (definition, error) {
	defs, err := r.catalog.definitions()
	if err != nil {
		return definition{}, err
	}
	d, ok := defs[name]
	if !ok {
		return definition{}, ErrNoTable
	}
	return d, nil
}

// Create adds a table to the catalog and returns its definition, in status CREATING: it becomes ACTIVE by
// itself. The caller gives the schema and the settings; Create gives the ids. It returns ErrExists.
func (r *Region) Create(ctx context.Context, d *table.Definition) (*table.Definition, error) {
	// Another node may have deleted what this one still shows.
	if err := r.CatchUp(ctx); err != nil {
		return nil, err
	}
	if _, err := r.Definition(d.Schema.Name); err == nil {
		return nil, ErrExists
	}
	tableID, first, err := r.allocate(ctx, 1, r.initial())
	if err != nil {
		return nil, err
	}
	d = d.Clone()
	d.ID, d.UUID, d.Status = tableID, NewID(), table.Creating
	if d.GlobalID == "" {
		d.GlobalID = NewID()
	}
	if d.Version == 0 {
		d.Version = uint64(r.Stamp())
	}
	d.Schema.Solo = len(d.Replicas) == 0
	d.Created = r.cfg.Now().UnixMilli()
	d.Schema.Indexes = slices.DeleteFunc(d.Schema.Indexes, func(x table.Index) bool { return x.Deleting })
	d.Partitions = r.begun(tableID, first)
	for i := range d.Schema.Indexes {
		d.Schema.Indexes[i].ID = uint32(i + 1)
	}
	err = r.setRow(ctx, rowTable+d.Schema.Name, d, 0)
	var stale *op.Stale
	if errors.As(err, &stale) {
		return nil, ErrExists
	}
	return d, err
}

// initial is how many partitions a table begins with: as Config says, or one for each node, so that each has some to lead.
func (r *Region) initial() int {
	if r.cfg.Partitions > 0 {
		return r.cfg.Partitions
	}
	return max(1, len(r.wanted()))
}

// NewID returns a random UUID, as TableId has it.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process when it has no randomness
	b[6], b[8] = b[6]&0x0F|0x40, b[8]&0x3F|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Change gives the table another definition: change is called with a copy of the present one, possibly
// more than once, and its error is returned. Nothing is written when it changes nothing.
func (r *Region) Change(ctx context.Context, name string, change func(*table.Definition) error) (*table.Definition, error) {
	// What change refuses, it shall refuse for what is in force, not for what was.
	if err := r.CatchUp(ctx); err != nil {
		return nil, err
	}
	for {
		old, err := r.definition(name)
		if err != nil {
			return nil, err
		}
		d := old.Clone()
		if err := change(d); err != nil {
			return nil, err
		}
		if reflect.DeepEqual(d, old.Definition) {
			return d, nil
		}
		err = r.setRow(ctx, rowTable+name, d, old.revision)
		var stale *op.Stale
		if errors.As(err, &stale) {
			continue // somebody else changed it; look again
		}
		return d, err
	}
}

// Delete begins to delete the table: from now on it is DELETING, until it is gone. refuse may say why not: its error is returned. Delete
// returns ErrNoTable, or ErrInUse when the table is being created or deleted already.
func (r *Region) Delete(ctx context.Context, name string, refuse func(*table.Definition) error) (*table.Definition, error) {
	return r.Change(ctx, name, func(d *table.Definition) error {
		if refuse != nil {
			if err := refuse(d); err != nil {
				return err
			}
		}
		if d.Status == table.Deleting || d.Status == table.Creating {
			return ErrInUse
		}
		d.Status = table.Deleting
		if own := d.Replica(r.cfg.Name); own != nil && own.Live() {
			d.SetReplica(r.cfg.Name, own.Region, table.Deleting, uint64(r.Stamp()))
		}
		return nil
	})
}

// Bury notes, for good, that this region's replica of a global table was told to go by a word of the
// given version: what older words say of it is not to be believed any more.
func (r *Region) Bury(ctx context.Context, globalID string, version uint64) error {
	for {
		old := r.catalog.view.Load().rows[rowGone+globalID]
		err := r.setRow(ctx, rowGone+globalID, version, old.revision)
		var stale *op.Stale
		if !errors.As(err, &stale) {
			return err
		}
	}
}

// Buried returns the version given to Bury, 0 for none.
func (r *Region) Buried(globalID string) (uint64, error) {
	row := r.catalog.view.Load().rows[rowGone+globalID]
	if row.value == nil {
		return 0, nil
	}
	var version uint64
	if err := json.Unmarshal(row.value, &version); err != nil {
		return 0, fmt.Errorf("region: catalog: %s%s: %w", rowGone, globalID, err)
	}
	return version, nil
}

// waits tells whether a table may not become ACTIVE yet for a reason of its own: a replica still being
// seeded or let go, or a restore under way.
func waits(d *table.Definition, region string) bool {
	own := d.Replica(region)
	// Given up while it was being filled, it is not whole.
	return own != nil && own.Status == table.Creating || d.GivenUp(region) && d.Status == table.Creating || d.Leaving || d.Restore != nil && d.Restore.InProgress
}

// held tells whether a table that is being deleted must stay until the other replicas have heard of it.
func held(d *table.Definition, region string) bool {
	own := d.Replica(region)
	return own != nil && own.Status == table.Deleting
}

// Table is an open table. Its methods are safe for concurrent use.
type Table struct {
	ID        uint32
	region    *Region
	actor     crdt.Actor // who stamps
	def       atomic.Pointer[table.Definition]
	open      atomic.Pointer[list] // see partitions
	conflicts losses
	large     atomic.Uint64         // see LargeRecords
	former    atomic.Pointer[Table] // what an incarnation had that was given up, while it is wanted
	revision  uint64                // of the definition in force; of reconcile alone

	mu    sync.Mutex // for who opens partitions
	going bool       // none is opened any more
}

// CatchUp waits until this node shows every write to the table that was acknowledged before the call, by whichever
// node.
func (t *Table) CatchUp(ctx context.Context) error {
	_, err := t.readable(ctx, nil, nil, true)
	return err
}

// Definition returns the table's definition. It must not be changed.
func (t *Table) Definition() *table.Definition { return t.def.Load() }

// Schema returns the table's schema. It must not be changed.
func (t *Table) Schema() *table.Schema { return &t.def.Load().Schema }

// Table returns the named table, open for reading and writing. It returns ErrNoTable, or ErrNotActive for
// one that is being created or deleted; it waits while this node is still starting.
func (r *Region) Table(ctx context.Context, name string) (*Table, error) {
	t, err := r.active(ctx, name)
	if err == nil || !r.several || !errors.Is(err, ErrNoTable) && !errors.Is(err, ErrNotActive) {
		return t, err
	}
	// Another node may have shown the caller a table that this one has not heard of, or not opened yet.
	if err := r.CatchUp(ctx); err != nil {
		return nil, err
	}
	changed, stop := r.Watch()
	defer stop()
	for {
		if t, err = r.active(ctx, name); !errors.Is(err, errNotOpen) {
			return t, err
		}
		if r.cfg.Tasks.Wait(ctx, changed, 0) == task.Ended {
			return nil, fmt.Errorf("region: table %s is not open yet: %w", name, context.Cause(ctx))
		}
	}
}

// AwaitSchema waits until the table is on the schema that the catalog has now, which it follows: what one call has shown of the table, an
// index that is filled among it, the next may use.
func (t *Table) AwaitSchema(ctx context.Context) error {
	r := t.region
	if r.several {
		if err := r.CatchUp(ctx); err != nil {
			return err
		}
	}
	changed, stop := r.Watch()
	defer stop()
	for {
		d, err := r.definition(t.Schema().Name)
		if err != nil || d.ID != t.ID || sameSchema(t.Schema(), &d.Schema) {
			return err
		}
		if r.cfg.Tasks.Wait(ctx, changed, 0) == task.Ended {
			return fmt.Errorf("region: table %s is not on its schema yet: %w", d.Schema.Name, context.Cause(ctx))
		}
	}
}

// errNotOpen is ErrNotActive for a table that the catalog says is active.
var errNotOpen = fmt.Errorf("%w here", ErrNotActive)

func (r *Region) active(ctx context.Context, name string) (*Table, error) {
	t, err := r.Opened(ctx, name)
	if err != nil && !errors.Is(err, ErrNotActive) {
		return nil, err
	}
	// The catalog's word, not the table's own, which follows it: what one call has shown to be ACTIVE the
	// next may use.
	d, err := r.definition(name)
	switch {
	case err != nil:
		return nil, err
	case d.Status != table.Active && d.Status != table.Updating:
		return nil, ErrNotActive
	case t == nil || d.ID != t.ID:
		return nil, errNotOpen
	}
	return t, nil
}

// Opened is Table for whoever fills or follows a table that clients may not use yet.
func (r *Region) Opened(ctx context.Context, name string) (*Table, error) {
	select {
	case <-r.opened:
	default:
		if r.cfg.Tasks.Wait(ctx, r.opened, 0) == task.Ended {
			return nil, fmt.Errorf("region: %w", context.Cause(ctx))
		}
	}
	if t := (*r.tables.Load())[name]; t != nil {
		return t, nil
	}
	if _, err := r.Definition(name); err != nil {
		return nil, err
	}
	return nil, ErrNotActive
}

// Tables returns the open tables, sorted by name.
func (r *Region) Tables() []*Table {
	var out []*Table
	for _, t := range *r.tables.Load() {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *Table) int { return strings.Compare(a.Schema().Name, b.Schema().Name) })
	return out
}

func (r *Region) openTable(d *table.Definition) (*Table, error) {
	return r.openWith(d, d.ID, r.actor(d.Incarnation), d.Partitions)
}

func (r *Region) openWith(d *table.Definition, id uint32, actor crdt.Actor, partitions []table.Partition) (*Table, error) {
	t := &Table{ID: id, region: r, actor: actor}
	t.def.Store(d)
	t.open.Store(&list{})
	_, err := t.openPartitions(partitions)
	return t, err
}

// founded tells whether all partitions of a definition are open and follow a schema: without one they can make nothing of an item. They get it
// from the node that leads the catalog, which may be another, or just not have come so far.
func (t *Table) founded(of []table.Partition) bool {
	l := t.partitions()
	for _, pd := range of {
		if p := l.byID(pd.ID); p == nil || p.schema.Load().Name == "" {
			return false
		}
	}
	return true
}

// follow brings the table's partitions onto the definition's schema, and tells whether all of them are on it. At a node that does not lead
// the catalog that is somebody else's work; there, once it returns, a read of an index that the definition shows as filled finds its rows. A node
// that comes to lead meanwhile follows again.
func (t *Table) follow(ctx context.Context, d definition) (all bool, err error) {
	// What is cut off from here on follows what its parent does.
	var behind atomic.Bool
	followed := list(nil)
	for err == nil && !slices.Equal(followed, t.partitions()) {
		followed = t.partitions()
		err = t.followWith(ctx, d, followed, &behind)
	}
	if err == nil {
		t.def.Store(d.Definition)
	}
	return !behind.Load() && followed.cover(nil, nil), err
}

func (t *Table) followWith(ctx context.Context, d definition, l list, behind *atomic.Bool) error {
	return t.each(ctx, l, func(ctx context.Context, p *Partition) error {
		if err := t.await(ctx, d, p.caughtUp); err != nil || sameSchema(p.schema.Load(), &d.Schema) {
			return err
		}
		// This replica may lag.
		if err := t.await(ctx, d, p.sync); err != nil || sameSchema(p.schema.Load(), &d.Schema) {
			return err
		}
		if !t.region.Leads() {
			behind.Store(true)
			return nil
		}
		schema := d.Schema.Clone()
		return p.propose(ctx, &op.Command{Kind: op.Alter, Schema: &schema, Revision: d.revision})
	})
}

// await calls read, which waits for other nodes, but no longer than the definition stands.
func (t *Table) await(ctx context.Context, d definition, read func(context.Context) error) error {
	if !t.region.several {
		return read(ctx)
	}
	for waited := reconcileLook; ; waited += reconcileLook {
		look, cancel := t.region.cfg.Tasks.WithTimeout(ctx, reconcileLook)
		err := read(look)
		late := look.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil || waited >= reconcileLimit {
			return err
		}
		if now, err := t.region.definition(d.Schema.Name); err != nil || now.revision != d.revision {
			return errors.New("the table is another one now")
		}
	}
}

// sameSchema tells whether two schemas are stored alike.
func sameSchema(a, b *table.Schema) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && string(x) == string(y)
}

// backfill writes the rows of indexes that are new to a table with items.
func (t *Table) backfill(ctx context.Context, d *table.Definition) error {
	for i := range d.Schema.Indexes {
		x := &d.Schema.Indexes[i]
		if !x.Backfilling {
			continue
		}
		for _, p := range t.partitions() { // none is cut before this is done
			for key := p.Start; ; {
				if !t.region.Leads() {
					return fmt.Errorf("backfill of index %s: it is another node's now", x.Name)
				}
				result, err := p.do(ctx, &op.Command{Kind: op.Reindex, Key: key, Index: x.ID, Limit: reindexPerStep})
				if err = errors.Join(err, result.Err); err != nil {
					return fmt.Errorf("backfill of index %s: %w", x.Name, err)
				}
				if key = result.Next; key == nil {
					break
				}
			}
		}
	}
	return nil
}

// drop takes a table away: what this node has of it, and then, if it leads the catalog, the table's row there. It is
// begun again after a crash. A table that is to go never comes back, so no node needs to wait for another.
func (r *Region) drop(ctx context.Context, d definition, t *Table) error {
	if err := r.remove(ctx, d.Definition, t); err != nil {
		return err
	}
	if !r.Leads() {
		return nil
	}
	err := r.setRow(ctx, rowTable+d.Schema.Name, nil, d.revision)
	var stale *op.Stale
	if errors.As(err, &stale) {
		return nil // changed meanwhile: reconcile comes again
	}
	return err
}

// remove removes what this node has of a table, durably: its groups and its rows. t is nil for a table that is not
// open.
func (r *Region) remove(ctx context.Context, d *table.Definition, t *Table) error {
	if r.removed[d.ID] {
		return nil
	}
	if t != nil {
		delete(r.opening, d.Schema.Name)
		r.publish(d.Schema.Name, nil)
	}
	if d.Former != nil {
		var former *Table
		if t != nil {
			former = t.former.Load()
		}
		if err := r.removeData(ctx, former, d.Former.ID, d.Former.Partitions); err != nil {
			return err
		}
	}
	if err := r.removeData(ctx, t, d.ID, d.Partitions); err != nil {
		return err
	}
	r.removed[d.ID] = true
	return nil
}

// removeData removes partitions' groups and rows; t is nil where they are not open.
func (r *Region) removeData(ctx context.Context, t *Table, id uint32, of []table.Partition) error {
	ids, open := table.IDs(of), list(nil)
	if t != nil {
		open = t.close()
	}
	for _, p := range open {
		if g := p.replica.Load(); g != nil {
			if err := r.host.Remove(ctx, g); err != nil && !errors.Is(err, group.ErrGone) {
				return err
			}
		}
		r.mu.Lock()
		delete(r.parts, p.ID)
		r.mu.Unlock()
		p.tell()
		if !slices.Contains(ids, p.ID) {
			ids = append(ids, p.ID)
		}
	}
	for _, id := range ids {
		if p := open.byID(id); p == nil || p.replica.Load() == nil { // left by a crash
			if err := r.host.Forget(ctx, id); err != nil {
				return err
			}
		}
	}
	return r.removeRows([]uint32{id}, ids)
}

// close has no partition opened any more, and returns those that are.
func (t *Table) close() list {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.going = true
	return t.partitions()
}

// removeRows deletes all rows of tables and of partitions.
func (r *Region) removeRows(tables []uint32, partitions []uint64) error {
	b := r.cfg.Store.NewBatch()
	for _, id := range tables {
		for _, rows := range []func(uint32) []byte{recordsOf, tracesOf} {
			b.DeleteRange(rows(id), keyenc.End(rows(id)))
		}
	}
	for _, kind := range rowsOfPartitions {
		for _, id := range partitions {
			prefix := kind(id)
			b.DeleteRange(prefix, keyenc.End(prefix))
		}
	}
	if err := r.cfg.Store.Commit(b); err != nil {
		return err
	}
	// The store has no log of its own: what was deleted must be durable before the catalog forgets it.
	if err := r.cfg.Store.Flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// The prefixes of all rows that belong to a table, and to a partition.
var (
	recordsOf        = func(table uint32) []byte { return keyenc.Record(nil, table, nil) }
	tracesOf         = func(table uint32) []byte { return keyenc.Trace(nil, table, nil) }
	rowsOfPartitions = []func(partition uint64) []byte{
		func(id uint64) []byte { return keyenc.Indexes(nil, id) },
		func(id uint64) []byte { return keyenc.LogOf(nil, id) },
		func(id uint64) []byte { return keyenc.Conflicts(nil, id) },
		func(id uint64) []byte { return keyenc.Meta(nil, id, "") },
	}
)

// removeLeftovers removes what this node has of tables that the catalog does not have: they were deleted while it was
// not running, or it was stopped while it removed them. Ids are never given twice, so what is not in the catalog now
// never will be, or is not here yet.
func (r *Region) removeLeftovers(ctx context.Context) error {
	defs, err := r.catalog.definitions()
	if err != nil {
		return err
	}
	tables, partitions := map[uint32]bool{}, map[uint64]bool{}
	for _, d := range defs {
		tables[d.ID] = true
		for _, id := range table.IDs(d.Partitions) {
			partitions[id] = true
		}
		if f := d.Former; f != nil {
			tables[f.ID] = true
			for _, id := range table.IDs(f.Partitions) {
				partitions[id] = true
			}
		}
	}
	goneTables, err := stored(r.cfg.Store, recordsOf)
	if err != nil {
		return err
	}
	goneTables = slices.DeleteFunc(goneTables, func(id uint32) bool { return tables[id] })
	ids := r.cfg.Log.Groups()
	for _, kind := range append(rowsOfPartitions, func(id uint64) []byte { return keyenc.Installed(nil, id) }) {
		more, err := stored(r.cfg.Store, kind)
		if err != nil {
			return err
		}
		ids = append(ids, more...)
	}
	var gonePartitions []uint64
	for _, id := range ids {
		if id < firstPartition || partitions[id] {
			continue
		}
		partitions[id] = true
		if err := r.host.Forget(ctx, id); err != nil {
			return err
		}
		gonePartitions = append(gonePartitions, id)
	}
	if len(goneTables) == 0 && len(gonePartitions) == 0 {
		return nil
	}
	r.cfg.Logger.Info("region: removing what is left of tables that are gone", "tables", goneTables, "partitions", gonePartitions)
	return r.removeRows(goneTables, gonePartitions)
}

// stored returns the ids under which the store has rows of a kind, ascending. It reads one row of each.
func stored[ID uint32 | uint64](store *storage.Store, kind func(ID) []byte) (ids []ID, err error) {
	end := keyenc.End(kind(^ID(0)))
	it, err := store.Iter(kind(0), end)
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; {
		b := it.Key()[1:len(kind(0))]
		var id uint64
		for _, c := range b {
			id = id<<8 | uint64(c)
		}
		ids = append(ids, ID(id))
		ok = it.SeekGE(keyenc.End(kind(ID(id))))
	}
	return ids, it.Close()
}
