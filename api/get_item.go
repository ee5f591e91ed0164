package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
)

const getItemMembers = mTableName | mKey | mConsistentRead | mProjectionExpression | mNames | mAttributesToGet | mReturnCapacity

// getItem answers GetItem.
func getItem(q *request, ctx context.Context) error {
	p := &q.params
	if err := q.read(getItemMembers); err != nil {
		return err
	}
	if err := p.checkModel(mKey); err != nil {
		return err
	}
	if err := p.checkMixing([]member{mProjectionExpression}, []member{mAttributesToGet}); err != nil {
		return err
	}
	if err := p.checkItem(); err != nil {
		return err
	}
	if err := p.checkPlaceholders(); err != nil {
		return err
	}
	projection, err := p.parseProjection()
	if err != nil {
		return err
	}
	if err := p.placeholders.CheckUsed(); err != nil {
		return err
	}
	t, err := q.table(ctx)
	if err != nil {
		return err
	}
	key, err := keyOf(t.Schema(), p.key)
	if err != nil {
		return err
	}
	if projection != nil {
		if err := checkKeyPaths(t.Schema(), projection.Paths); err != nil {
			return err
		}
	}
	used := q.h.usage(t)
	if err := used.accessItem(false, p.key); err != nil {
		return err
	}
	stored, err := t.Get(ctx, key, p.consistent)
	if err != nil {
		return q.lost(ctx, err)
	}
	q.open()
	if stored != nil {
		q.member("Item")
		if err := q.projected(stored, projection); err != nil {
			return err
		}
	}
	if q.wantsCapacity() || used != nil {
		c := consumption{name: p.givenTable}
		c.add(nil, readUnits(sizeOf(stored), p.consistent))
		used.charge(&c, false)
		q.consumed(&c)
	}
	q.close()
	return nil
}

// table returns the request's table.
func (q *request) table(ctx context.Context) (*region.Table, error) {
	return q.caughtUpTable(ctx, q.params.givenTable)
}

// caughtUpTable returns a table once it has what the request's session knows of it.
func (q *request) caughtUpTable(ctx context.Context, given string) (*region.Table, error) {
	t, err := q.h.table(ctx, given)
	if err == nil && len(q.sessions) > 0 {
		err = q.catchUp(ctx, t)
	}
	return t, err
}

// table returns the table with a name or an ARN. An ARN of another region or account names no table here.
func (h *Handler) table(ctx context.Context, given string) (*region.Table, error) {
	name := nameOfTable(given)
	if name != given && given != h.tableARN(h.cfg.Region.Name(), name) {
		return nil, errNoTable()
	}
	return h.cfg.Region.Table(ctx, name)
}

// lost explains an error of reading or writing the request's table: it may be that the table has gone
// meanwhile, which is no fault of the region.
func (q *request) lost(ctx context.Context, err error) error {
	if errors.Is(err, region.ErrUnknown) {
		return err // a write that may have been carried out, and seen elsewhere, was not refused
	}
	if _, gone := q.h.table(ctx, q.params.givenTable); gone != nil {
		return gone
	}
	return err
}

// parseProjection parses ProjectionExpression, or AttributesToGet; nil for neither.
func (p *params) parseProjection() (*expr.Projection, error) {
	if p.has(mProjectionExpression) {
		return expr.ParseProjection(p.projection, &p.placeholders)
	}
	if !p.has(mAttributesToGet) {
		return nil, nil
	}
	paths := make([]item.Path, 0, len(p.attributesToGet))
	seen := make(map[string]bool, len(p.attributesToGet))
	for _, name := range p.attributesToGet {
		if seen[name] {
			return nil, invalid("One or more parameter values were invalid: Duplicate value in attribute name: %s", shorten(name))
		}
		seen[name] = true
		paths = append(paths, item.Path{item.Named(name)})
	}
	return expr.NewProjection(paths), nil
}

// projected writes a stored item, or the part of it that a projection (nil: all) leaves.
func (q *request) projected(stored []byte, projection *expr.Projection) error {
	if projection == nil {
		return q.item(stored)
	}
	it, err := item.DecodeItem(stored)
	if err != nil {
		return err
	}
	return q.item(item.AppendItem(nil, projection.Apply(it)))
}
