package api

import (
	"context"

	"github.com/commutatordb/commutator/table"
)

// describeTimeToLive answers DescribeTimeToLive: nothing expires yet.
func describeTimeToLive(q *request, _ context.Context) error {
	d, err := q.tableNamed()
	if err != nil {
		return err
	}
	if d.Status == table.Creating || d.Status == table.Deleting {
		return invalid("Cannot describe time to live while table is in %[1]s state: Current table state is %[1]s", d.Status)
	}
	type description struct{ TimeToLiveStatus string }
	return q.encode(struct{ TimeToLiveDescription description }{description{"DISABLED"}})
}
