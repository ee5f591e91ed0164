package api

import "context"

// describeLimits answers DescribeLimits with the service's own default quotas: nothing is limited by them
// here. Source: Developer Guide, "Quotas".
func describeLimits(q *request, _ context.Context) error {
	if err := q.decode(&struct{}{}); err != nil {
		return err
	}
	return q.encode(struct{ AccountMaxReadCapacityUnits, AccountMaxWriteCapacityUnits, TableMaxReadCapacityUnits, TableMaxWriteCapacityUnits int64 }{80000, 80000, 40000, 40000})
}
