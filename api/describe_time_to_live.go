package api

import "context"

// describeTimeToLive answers DescribeTimeToLive: nothing expires yet.
func describeTimeToLive(q *request, _ context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := tableName(in.TableName, 1)
	if err != nil {
		return err
	}
	if _, err := q.h.definition(name); err != nil {
		return err
	}
	type description struct{ TimeToLiveStatus string }
	return q.encode(struct{ TimeToLiveDescription description }{description{"DISABLED"}})
}
