package api

import (
	"context"

	"github.com/commutatordb/commutator/table"
)

// describeTimeToLive answers DescribeTimeToLive. A change is in force at once, so there is no ENABLING and no DISABLING.
func describeTimeToLive(q *request, ctx context.Context) error {
	d, err := q.tableNamed(ctx)
	if err != nil {
		return err
	}
	if d.Status == table.Creating || d.Status == table.Deleting {
		return invalid("Cannot describe time to live while table is in %[1]s state: Current table state is %[1]s", d.Status)
	}
	type description struct {
		AttributeName    string `json:",omitempty"`
		TimeToLiveStatus string
	}
	out := description{d.TTL, "DISABLED"}
	if d.TTL != "" {
		out.TimeToLiveStatus = "ENABLED"
	}
	return q.encode(struct{ TimeToLiveDescription description }{out})
}
