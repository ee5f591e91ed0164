package api

import (
	"context"
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
	if _, err := q.h.cfg.Region.Definition(name); err != nil {
		return dynamoError("TableNotFoundException", "Table not found: %s", name)
	}
	type recovery struct{ PointInTimeRecoveryStatus string }
	type description struct {
		ContinuousBackupsStatus        string
		PointInTimeRecoveryDescription recovery
	}
	return q.encode(struct{ ContinuousBackupsDescription description }{description{"ENABLED", recovery{"DISABLED"}}})
}
