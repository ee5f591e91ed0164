package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// deleteTable answers DeleteTable.
func deleteTable(q *request, ctx context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := tableName(in.TableName, 1)
	if err != nil {
		return err
	}
	d, err := q.h.definition(name)
	if err != nil {
		return err
	}
	if d.DeletionProtection {
		return invalid("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	}
	gone, err := q.h.cfg.Region.Delete(ctx, name)
	switch {
	case errors.Is(err, region.ErrNoTable):
		return errTableNotFound(name)
	case errors.Is(err, region.ErrInUse):
		return errChanging(d)
	case err != nil:
		return err
	}
	return q.encode(struct{ TableDescription tableDescription }{q.h.describe(gone)})
}

// errChanging refuses to change a table that is being created or deleted.
func errChanging(d *table.Definition) error {
	what := "created"
	if d.Status == table.Deleting {
		what = "deleted"
	}
	return errInUse("Attempt to change a resource which is still in use: Table is being %s: %s", what, d.Schema.Name)
}
