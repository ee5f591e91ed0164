package api

import (
	"context"
	"errors"
	"strconv"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// seconds is a moment as the protocol has it: seconds since the Unix epoch, with three decimals.
type seconds int64 // milliseconds since the Unix epoch

// MarshalJSON writes 1.7e9-like numbers without an exponent.
func (s seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(s)/1000, 'f', -1, 64), nil
}

// describeTable answers DescribeTable.
func describeTable(q *request, _ context.Context) error {
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
	return q.encode(struct{ Table tableDescription }{q.h.describe(d)})
}

// tableName checks the name, or ARN, that a table operation was given.
func tableName(given *string, least int) (string, error) {
	var c constraints
	if given == nil {
		c.required("tableName")
		return "", c.err()
	}
	name := nameOfTable(*given)
	c.name(name, "tableName", least)
	return name, c.err()
}

// definition returns a table's definition, or the answer that there is none.
func (h *Handler) definition(name string) (*table.Definition, error) {
	d, err := h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return nil, errTableNotFound(name)
	}
	return d, err
}

func (h *Handler) tableARN(region, name string) string {
	return "arn:aws:dynamodb:" + region + ":" + h.cfg.Account + ":table/" + name
}

// describe makes a TableDescription. Sizes are as of now, where the service's are some hours old; those
// of indexes are not counted.
func (h *Handler) describe(d *table.Definition) tableDescription {
	s := &d.Schema
	arn := h.tableARN(h.cfg.Region.Name(), s.Name)
	out := tableDescription{
		TableName: s.Name, TableStatus: string(d.Status), TableArn: arn, TableId: d.UUID, CreationDateTime: seconds(d.Created),
		KeySchema:                 keySchema([]table.Attribute{s.Hash}, s.KeyAttributes()[1:]),
		ProvisionedThroughput:     throughputDescription{ReadCapacityUnits: d.Throughput.Read, WriteCapacityUnits: d.Throughput.Write},
		DeletionProtectionEnabled: d.DeletionProtection,
	}
	for _, a := range s.Defined() {
		out.AttributeDefinitions = append(out.AttributeDefinitions, attributeDefinition{&a.Name, new(a.Kind.String())})
	}
	for _, t := range h.cfg.Region.Tables() {
		if t.ID == d.ID {
			out.ItemCount, out.TableSizeBytes = t.Stats()
		}
	}
	if d.Billing == table.OnDemand {
		out.BillingModeSummary = &billingSummary{BillingMode: string(d.Billing), LastUpdateToPayPerRequestDateTime: seconds(d.Created)}
	}
	for i := range s.Indexes {
		x := &s.Indexes[i]
		in := indexDescription{
			IndexName: x.Name, IndexArn: arn + "/index/" + x.Name, KeySchema: keySchema(x.Hash, x.Range),
			Projection: projectionShape{ProjectionType: new(string(x.Projection)), NonKeyAttributes: x.Include},
		}
		if !x.Global {
			out.LocalSecondaryIndexes = append(out.LocalSecondaryIndexes, in)
			continue
		}
		in.IndexStatus = string(table.Active)
		if x.Backfilling || d.Status == table.Creating {
			in.IndexStatus, in.Backfilling = string(table.Creating), x.Backfilling
		}
		if d.Status == table.Deleting {
			in.IndexStatus = string(table.Deleting)
		}
		in.ProvisionedThroughput = &throughputDescription{ReadCapacityUnits: x.Throughput.Read, WriteCapacityUnits: x.Throughput.Write}
		out.GlobalSecondaryIndexes = append(out.GlobalSecondaryIndexes, in)
	}
	if d.Stream != nil {
		out.LatestStreamLabel, out.LatestStreamArn = d.Stream.Label, arn+"/stream/"+d.Stream.Label
		if d.Stream.Enabled {
			out.StreamSpecification = &streamShape{new(true), &d.Stream.ViewType}
		}
	}
	if d.OnDemand != (table.Throughput{}) {
		out.OnDemandThroughput = &onDemandShape{positive(d.OnDemand.Read), positive(d.OnDemand.Write)}
	}
	if d.Class != "" {
		out.TableClassSummary = &tableClassSummary{d.Class}
	}
	if d.SSE != nil && d.SSE.Enabled {
		out.SSEDescription = &sseDescription{"ENABLED", d.SSE.Type, d.SSE.KeyID}
	}
	if d.Restore != nil {
		out.RestoreSummary = &restoreDescription{d.Restore.BackupID, h.tableARN(h.cfg.Region.Name(), d.Restore.SourceTable), seconds(d.Restore.At), d.Restore.InProgress}
	}
	h.describeReplicas(&out, d)
	return out
}

// describeReplicas shows what regions have the table, while it is not this one alone.
func (h *Handler) describeReplicas(out *tableDescription, d *table.Definition) {
	if len(d.Others(h.cfg.Region.Name())) == 0 {
		return
	}
	out.GlobalTableVersion = "2019.11.21"
	for _, r := range d.Replicas {
		if r.Status != table.Gone {
			out.Replicas = append(out.Replicas, replicaDescription{r.Region, string(r.Status), h.tableARN(r.Region, d.Schema.Name)})
		}
	}
}

func positive(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func keySchema(hash, sort []table.Attribute) []keySchemaElement {
	var out []keySchemaElement
	for i := range hash {
		out = append(out, keySchemaElement{&hash[i].Name, new("HASH")})
	}
	for i := range sort {
		out = append(out, keySchemaElement{&sort[i].Name, new("RANGE")})
	}
	return out
}
