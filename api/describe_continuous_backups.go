package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// describeContinuousBackups answers DescribeContinuousBackups: there is no point-in-time recovery yet.
func describeContinuousBackups(q *request, _ context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return dynamoError("TableNotFoundException", "Table not found: %s", name)
	}
	if err != nil {
		return err
	}
	status := "ENABLED"
	if d.Status == table.Creating {
		status = "DISABLED"
	}
	type recovery struct{ PointInTimeRecoveryStatus string }
	type description struct {
		ContinuousBackupsStatus        string
		PointInTimeRecoveryDescription recovery
	}
	return q.encode(struct{ ContinuousBackupsDescription description }{description{status, recovery{"DISABLED"}}})
}
