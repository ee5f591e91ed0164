package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/table"
)

// Goal: what is let through while a table is being changed is what the service lets through. Method: each state, each request, and the
// words of its refusal ("" for none), as recorded of the service.
func TestChangesMeetChanges(t *testing.T) {
	index := func(change func(*table.Index)) []table.Index {
		x := table.Index{Name: "gsi", Global: true, ID: 1}
		change(&x)
		return []table.Index{x, {Name: "other", Global: true, ID: 2}}
	}
	none := index(func(*table.Index) {})
	filling := index(func(x *table.Index) { x.Backfilling = true })
	deleting := index(func(x *table.Index) { x.Deleting = true })
	const (
		throughput = `{"ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1}}`
		protection = `{"DeletionProtectionEnabled":true}`
		sse        = `{"SSESpecification":{"Enabled":true}}`
		stream     = `{"StreamSpecification":{"StreamEnabled":false}}`
		create     = `{"GlobalSecondaryIndexUpdates":[{"Create":{"IndexName":"new"}}]}`
		again      = `{"GlobalSecondaryIndexUpdates":[{"Create":{"IndexName":"gsi"}}]}`
		drop       = `{"GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"gsi"}}]}`
		dropOther  = `{"GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"other"}}]}`
		update     = `{"GlobalSecondaryIndexUpdates":[{"Update":{"IndexName":"other"}}]}`
		onlyOne    = "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table"
		inUse      = "Attempt to change a resource which is still in use: "
	)
	for _, c := range []struct {
		status  table.Status
		indexes []table.Index
		request string
		refusal string
	}{
		{table.Creating, none, protection, inUse + "Table is being created: t"},
		{table.Deleting, none, protection, inUse + "Table is being deleted: t"},
		{table.Active, none, throughput, ""}, {table.Active, none, drop, ""},
		{table.Updating, none, throughput, inUse + "Table is being updated: t"},
		{table.Updating, none, stream, inUse + "Table is being updated: t"},
		{table.Updating, none, create, inUse + "Table is being updated: t"},
		{table.Updating, none, protection, ""}, {table.Updating, none, sse, ""},
		{table.Updating, filling, throughput, ""}, {table.Updating, filling, update, ""}, {table.Updating, filling, drop, ""},
		{table.Updating, filling, create, onlyOne}, {table.Updating, filling, dropOther, onlyOne},
		{table.Updating, deleting, throughput, inUse + "Can't change table IOPS when an index is being deleted. Table: t Indexes: [gsi]"},
		{table.Updating, deleting, drop, inUse + "Index is being deleted. Table: t Index: gsi"},
		{table.Updating, deleting, again, inUse + "Index is being deleted. Table: t Index: gsi"},
		{table.Updating, deleting, create, onlyOne}, {table.Updating, deleting, dropOther, onlyOne},
		{table.Updating, deleting, update, ""}, {table.Updating, deleting, protection, ""},
	} {
		d := &table.Definition{Status: c.status, Schema: table.Schema{Name: "t", Indexes: c.indexes}}
		in := &updateTableInput{}
		if err := json.Unmarshal([]byte(c.request), in); err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := (&Handler{}).admit(d, in); err != nil {
			got = err.Error()
		}
		if got != c.refusal {
			t.Errorf("%s while %s with %+v: %q, want %q", c.request, c.status, c.indexes[0], got, c.refusal)
		}
	}
}

func TestOnlyATableAtRestIsDeleted(t *testing.T) {
	const inUse = "Attempt to change a resource which is still in use: "
	for _, c := range []struct {
		d       table.Definition
		refusal string
	}{
		{table.Definition{Status: table.Active}, ""},
		{table.Definition{Status: table.Creating}, inUse + "Table is being created: t"},
		{table.Definition{Status: table.Deleting, DeletionProtection: true}, inUse + "Table is being deleted: t"},
		{table.Definition{Status: table.Updating}, inUse + "Table: t is in the process of being updated."},
		{table.Definition{Status: table.Updating, Schema: table.Schema{Indexes: []table.Index{{Backfilling: true}}}}, inUse + "Cannot delete table while indexes are being created, updated, or deleted."},
		{table.Definition{Status: table.Updating, Schema: table.Schema{Indexes: []table.Index{{Deleting: true}}}}, inUse + "Cannot delete table while indexes are being created, updated, or deleted."},
		{table.Definition{Status: table.Active, DeletionProtection: true}, "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first."},
	} {
		c.d.Schema.Name = "t"
		got := ""
		if err := deletable(&c.d); err != nil {
			got = err.Error()
		}
		if got != c.refusal {
			t.Errorf("%+v: %q, want %q", c.d, got, c.refusal)
		}
	}
}

// The text is one that the service gave, but for the names.
func TestTheFifthDecreaseOfADayIsRefused(t *testing.T) {
	now := time.Date(2026, 10, 9, 0, 21, 34, 0, time.UTC)
	have, warm, scaled := table.Throughput{Read: 10, Write: 10}, table.Throughput{}, table.Scaled{}
	for read := int64(9); read >= 6; read-- {
		if err := rescale(now, "table", &have, &warm, &scaled, table.Throughput{Read: read, Write: 10}); err != nil {
			t.Fatal(err)
		}
	}
	err := rescale(now.Add(10*time.Minute), "table", &have, &warm, &scaled, table.Throughput{Read: 5, Write: 20})
	const want = "Subscriber limit exceeded: Provisioned throughput decreases are limited within a given UTC day. After the first 4 decreases, each subsequent decrease in the same UTC day can be performed at most once every 3600 seconds. Number of decreases today: 4. Last decrease at Friday, October 9, 2026 at 12:21:34 AM Coordinated Universal Time. Next decrease can be made at Friday, October 9, 2026 at 1:21:34 AM Coordinated Universal Time"
	if e := (*Error)(nil); !errors.As(err, &e) || e.message != want || !strings.HasSuffix(e.kind, "#LimitExceededException") {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if have.Read != 6 || warm.Read != 10 {
		t.Errorf("there are %d units now, %d warm", have.Read, warm.Read)
	}
	if err := rescale(now.Add(10*time.Minute), "table", &have, &warm, &scaled, table.Throughput{Read: 50, Write: 50}); err != nil {
		t.Errorf("an increase: %v", err)
	}
}

// The orders are those of lists in answers of the service.
func TestNamesStandInTheServicesOrder(t *testing.T) {
	for _, c := range []struct {
		names   []string
		buckets int
		want    string
	}{
		{[]string{"pk", "sk", "a", "b", "c"}, 8, "sk, a, b, pk, c"},
		{[]string{"pk", "sk", "a"}, 16, "a, sk, pk"},
		{[]string{"pk", "sk"}, 2, "sk, pk"},
		{[]string{"my-hash", "my-string"}, 16, "my-hash, my-string"},
		{[]string{"my-string", "my-int", "my-hash"}, 4, "my-string, my-int, my-hash"},
	} {
		if got := hashed(c.names, c.buckets); got != c.want {
			t.Errorf("%v: %s, want %s", c.names, got, c.want)
		}
	}
}
