package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Check looks at an engine that is running after a restart: every client's part is one of those that its span
// allows, indexes, counts and change logs follow from the items, and the engine takes a write.
func Check(ctx context.Context, e *Engine, spans []Span) error {
	found, err := Read(ctx, e)
	if err != nil {
		return err
	}
	for _, s := range spans {
		got := found[s.Client]
		if got.Tables == "" && s.states[0].Tables == "-" {
			got.Tables = "-"
		}
		number, err := s.find(got)
		if err != nil {
			return err
		}
		if err := checkClient(ctx, e, s, number); err != nil {
			return fmt.Errorf("client %s: %w", s.Client, err)
		}
	}
	return errors.Join(serve(ctx, e, spans), e.Failed())
}

// Read returns what every client has in the region, having compared indexes, counts and change logs with the
// items.
func Read(ctx context.Context, e *Engine) (map[string]State, error) {
	if err := settle(ctx, e); err != nil {
		return nil, err
	}
	defs, err := e.Region.Definitions()
	if err != nil {
		return nil, err
	}
	found := map[string]State{}
	entries := ""
	slices.SortFunc(defs, func(a, b *table.Definition) int { return int(a.ID) - int(b.ID) }) // as they were made
	for _, d := range defs {
		name := d.Schema.Name
		t, err := e.Region.Table(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("table %s, %s: %w", name, d.Status, err)
		}
		page, err := t.Page(ctx, op.Page{}, true)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		if err := errors.Join(checkIndexes(ctx, t, page), checkCounts(t, page), checkChanges(t)); err != nil {
			return nil, fmt.Errorf("table %s: %w", name, err)
		}
		for i, stored := range page.Items {
			it, err := item.DecodeItem(stored)
			if err != nil {
				return nil, fmt.Errorf("table %s: item %x: %w", name, page.Keys[i], err)
			}
			client := it.Get("pk").Str()
			found[client] = found[client].with(name+"/"+it.Get("sk").Number().String(), string(stored))
		}
		entries += tableEntry(&d.Schema)
	}
	s := found["tables"]
	s.Tables = entries
	found["tables"] = s
	return found, checkLeft(e, defs)
}

// checkLeft looks for rows and Raft groups that no table has any more.
func checkLeft(e *Engine, defs []*table.Definition) error {
	rows, groups := map[string]bool{}, map[uint64]bool{1: true} // 1 is the catalog's
	for _, d := range defs {
		rows[string(keyenc.Record(nil, d.ID, nil))], rows[string(keyenc.Trace(nil, d.ID, nil))] = true, true
		for _, p := range d.Partitions {
			groups[p.ID] = true
			rows[string(keyenc.Conflicts(nil, p.ID))], rows[string(keyenc.Indexes(nil, p.ID))] = true, true
			rows[string(keyenc.Meta(nil, p.ID, ""))], rows[string(keyenc.Log(nil, p.ID, 0)[:9])] = true, true
		}
	}
	for _, id := range e.Log.Groups() {
		if !groups[id] {
			return fmt.Errorf("the log has group %d, which is no table's", id)
		}
	}
	it, err := e.Store.Iter(nil, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	catalog := keyenc.Catalog(nil, "")
	for ok := it.First(); ok; ok = it.Next() {
		key := string(it.Key())
		if !strings.HasPrefix(key, string(catalog)) && !rows[key[:min(5, len(key))]] && !rows[key[:min(9, len(key))]] {
			return fmt.Errorf("row %x is no table's", key)
		}
	}
	return it.Err()
}

// settle waits until the region has finished what it finds begun: tables being made, filled or deleted.
func settle(ctx context.Context, e *Engine) error {
	changed, stop := e.Region.Watch()
	defer stop()
	for {
		waits := ""
		defs, err := e.Region.Definitions()
		if err != nil {
			return err
		}
		for _, d := range defs {
			if t, err := e.Region.Table(ctx, d.Schema.Name); err != nil || d.Status != table.Active || !reflect.DeepEqual(t.Definition(), d) {
				waits = fmt.Sprintf("table %s is %s, %v", d.Schema.Name, d.Status, err)
			}
		}
		if waits == "" {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", waits, context.Cause(ctx))
		}
	}
}

// checkIndexes compares every index with the rows that follow from the items.
func checkIndexes(ctx context.Context, t *region.Table, page op.PageResult) error {
	for i := range t.Schema().Indexes {
		x := &t.Schema().Indexes[i]
		if x.Backfilling {
			return fmt.Errorf("index %s is still being filled", x.Name)
		}
		want, got := map[string]string{}, map[string]string{}
		for i, stored := range page.Items {
			if row := t.Schema().RowKey(x, page.Keys[i], stored); row != nil {
				want[string(row)] = string(t.Schema().Project(x, stored))
			}
		}
		rows, err := t.Page(ctx, op.Page{Index: x}, true)
		if err != nil {
			return err
		}
		for i, stored := range rows.Items {
			got[string(rows.Keys[i])] = string(stored)
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("index %s has %d rows, %d follow from the items:\n%q\n%q", x.Name, len(got), len(want), got, want)
		}
	}
	return nil
}

func checkCounts(t *region.Table, page op.PageResult) error {
	var size int64
	for _, stored := range page.Items {
		n, err := item.RawSize(stored)
		if err != nil {
			return err
		}
		size += int64(n)
	}
	if items, bytes := t.Stats(); items != int64(len(page.Items)) || bytes != size {
		return fmt.Errorf("%d items of %d bytes are counted, %d of %d are there", items, bytes, len(page.Items), size)
	}
	return nil
}

// checkChanges reads the change logs from where they begin to their ends.
func checkChanges(t *region.Table) error {
	for _, p := range t.Partitions() {
		s := p.State()
		for after := s.Trimmed; after < s.Seq; {
			_, last, _, err := p.Changes(after, 1<<20)
			if err != nil {
				return fmt.Errorf("change log of partition %d behind %d of (%d, %d]: %w", p.ID, after, s.Trimmed, s.Seq, err)
			}
			after = last
		}
	}
	return nil
}

// checkClient looks at what else must be as it was in the client's state of that number.
func checkClient(ctx context.Context, e *Engine, s Span, number int) error {
	name := map[string]string{"writer": ordersTable, "member": cartsTable, "merger": cartsTable}[s.Client]
	if name == "" || number == 0 {
		return nil
	}
	t, err := e.Region.Table(ctx, name)
	if err != nil {
		return err
	}
	if clock := t.Partitions()[0].State().Clock; clock < s.stamp {
		return fmt.Errorf("the clock is at %v; a write was acknowledged with %v", clock, s.stamp)
	}
	// States of the merger may repeat, so the cursor may stand at any equal one.
	if seq := t.Cursor(mergeStream); s.Client == "merger" {
		if i := int(seq) - s.First; i < 0 || i >= len(s.states) || !s.states[i].equal(s.states[number-s.First]) {
			return fmt.Errorf("the items are those of merge %d, the cursor is at %d", number, seq)
		}
	}
	return nil
}

// serve writes an item and reads it back, if there is a table.
func serve(ctx context.Context, e *Engine, spans []Span) error {
	t, err := e.Region.Table(ctx, ordersTable)
	if errors.Is(err, region.ErrNoTable) {
		return nil // the crash came before
	}
	if err != nil {
		return err
	}
	var newest crdt.HLC
	for _, s := range spans {
		if s.Client == "writer" {
			newest = s.stamp
		}
	}
	key := t.Schema().KeyOfValues(item.S("probe"), number(1))
	stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("probe")}, item.Field{Name: "sk", Value: number(1)},
		item.Field{Name: "st", Value: item.S(strings.Repeat("x", 10))}))
	result, err := t.Write(ctx, &op.Command{Kind: op.Put, Key: key, Item: stored})
	if err = errors.Join(err, result.Err); err != nil {
		return fmt.Errorf("a write after the restart: %w", err)
	}
	if result.Dot.HLC <= newest {
		return fmt.Errorf("a write after the restart is stamped %v, one acknowledged before %v", result.Dot.HLC, newest)
	}
	got, err := t.Get(ctx, key, true)
	if err != nil || !bytes.Equal(got, stored) {
		return fmt.Errorf("a read after the restart: %q, %w", got, err)
	}
	return nil
}
