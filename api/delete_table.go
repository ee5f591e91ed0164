package api

import (
	"context"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// deleteTable answers DeleteTable. Its description is a short one.
func deleteTable(q *request, ctx context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Delete(ctx, name, deletable)
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	type description struct {
		TableName             string
		TableStatus           string
		ProvisionedThroughput throughputDescription
		TableSizeBytes        int64
		ItemCount             int64
		TableArn              string
		TableId               string

		DeletionProtectionEnabled bool
	}
	t := q.h.describe(d)
	return q.encode(struct{ TableDescription description }{description{
		t.TableName, t.TableStatus, t.ProvisionedThroughput, t.TableSizeBytes, t.ItemCount, t.TableArn, t.TableId, t.DeletionProtectionEnabled,
	}})
}

// deletable refuses to delete a table that is protected, or being created, deleted or changed.
func deletable(d *table.Definition) error {
	switch {
	case d.Status == table.Creating, d.Status == table.Deleting:
		return errChanging(d)
	case d.DeletionProtection:
		return invalid("Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first.")
	case slices.ContainsFunc(d.Schema.Indexes, func(x table.Index) bool { return x.Backfilling || x.Deleting }):
		return errInUse("Attempt to change a resource which is still in use: Cannot delete table while indexes are being created, updated, or deleted.")
	case d.Status == table.Updating:
		return errInUse("Attempt to change a resource which is still in use: Table: %s is in the process of being updated.", d.Schema.Name)
	}
	return nil
}
