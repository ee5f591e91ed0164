package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

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
func describeTable(q *request, ctx context.Context) error {
	d, err := q.tableNamed(ctx)
	if err != nil {
		return err
	}
	return q.encode(struct{ Table tableDescription }{q.h.describe(d)})
}

// tableNamed reads a request of nothing but a table's name, and returns the table.
func (q *request) tableNamed(ctx context.Context) (*table.Definition, error) {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return nil, err
	}
	return q.h.definition(ctx, name)
}

// tableName checks the name, or ARN, that a table operation was given.
func (h *Handler) tableName(given *string) (string, error) {
	if given != nil {
		if name, ok, err := h.nameInARN(*given); ok || err != nil {
			return name, err
		}
	}
	return h.newTableName(given)
}

// newTableName checks a name that may not be an ARN.
func (h *Handler) newTableName(given *string) (string, error) {
	var c constraints
	if given == nil {
		c.required("tableName")
		return "", c.err()
	}
	c.wholeName(*given, "tableName")
	return *given, c.err()
}

// nameInARN returns the name in a table's ARN; ok tells whether s is one. Tables of other regions are not here.
func (h *Handler) nameInARN(s string) (name string, ok bool, err error) {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" || parts[2] != "dynamodb" {
		return "", false, nil
	}
	name, ok = strings.CutPrefix(parts[5], "table/")
	switch {
	case !ok || name == "" || strings.Contains(name, "/"):
		return "", false, invalid("1 validation error detected: Invalid resource type in '%s'", shorten(s))
	case parts[3] != h.cfg.Region.Name():
		return "", false, invalid("1 validation error detected: Invalid AWS region in '%s'", shorten(s))
	}
	return name, true, nil
}

// definition returns a table's definition, or the answer that there is none. That there is none only a node says that has caught up: one that
// has just been started may not have heard of any table yet.
func (h *Handler) definition(ctx context.Context, name string) (*table.Definition, error) {
	d, err := h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		if err := h.cfg.Region.CatchUp(ctx); err != nil {
			return nil, err
		}
		d, err = h.cfg.Region.Definition(name)
	}
	if errors.Is(err, region.ErrNoTable) {
		return nil, errTableNotFound(name)
	}
	return d, err
}

func (h *Handler) tableARN(region, name string) string {
	return "arn:aws:dynamodb:" + region + ":" + h.cfg.Account + ":table/" + name
}

// describe makes a TableDescription. Sizes are as of now, where the service's are some hours old.
func (h *Handler) describe(shared *table.Definition) tableDescription {
	d := shared.In(h.cfg.Region.Name())
	s := &d.Schema
	arn := h.tableARN(h.cfg.Region.Name(), s.Name)
	out := tableDescription{
		TableName: s.Name, TableStatus: string(d.Status), TableArn: arn, TableId: d.UUID, CreationDateTime: seconds(d.Created),
		KeySchema:                 keySchema([]table.Attribute{s.Hash}, s.KeyAttributes()[1:]),
		ProvisionedThroughput:     h.describeThroughput(d.Throughput, d.Scaled),
		WarmThroughput:            describeWarm(table.Warm(d.Warm, d.Billing, d.Throughput)),
		OnDemandThroughput:        describeOnDemand(d.OnDemand),
		DeletionProtectionEnabled: d.DeletionProtection,
	}
	defined := s.Defined()
	slices.SortFunc(defined, func(a, b table.Attribute) int { return strings.Compare(a.Name, b.Name) })
	for _, a := range defined {
		out.AttributeDefinitions = append(out.AttributeDefinitions, attributeDefinition{&a.Name, new(a.Kind.String())})
	}
	t := h.opened(d)
	if t != nil {
		out.ItemCount, out.TableSizeBytes = t.Stats()
	}
	if d.OnDemandSince != 0 { // a table that was always provisioned has no summary
		out.BillingModeSummary = &billingSummary{BillingMode: string(d.Billing)}
		if d.Status != table.Creating {
			out.BillingModeSummary.LastUpdateToPayPerRequestDateTime = seconds(d.OnDemandSince)
		}
	}
	for i := range s.Indexes {
		x := &s.Indexes[i]
		shown := indexDescription{
			IndexName: x.Name, IndexArn: arn + "/index/" + x.Name, KeySchema: keySchema(x.Hash, x.Range),
			Projection: projectionShape{ProjectionType: new(string(x.Projection)), NonKeyAttributes: slices.Sorted(slices.Values(x.Include))},
		}
		if t != nil {
			shown.ItemCount, shown.IndexSizeBytes = t.IndexStats(x.ID)
		}
		if x.Global {
			h.describeGlobal(&shown, d, x)
			out.GlobalSecondaryIndexes = append(out.GlobalSecondaryIndexes, shown)
		} else {
			out.LocalSecondaryIndexes = append(out.LocalSecondaryIndexes, shown)
		}
	}
	if d.Stream != nil {
		out.LatestStreamLabel, out.LatestStreamArn = d.Stream.Label, arn+"/stream/"+d.Stream.Label
		if d.Stream.Enabled {
			out.StreamSpecification = &streamShape{new(true), &d.Stream.ViewType}
		}
	}
	if d.Class != "" {
		out.TableClassSummary = &tableClassSummary{d.Class, seconds(d.ClassChanged)}
	}
	out.SSEDescription = h.describeSSE(d.SSE)
	if d.Restore != nil {
		out.RestoreSummary = &restoreDescription{d.Restore.BackupID, h.tableARN(h.cfg.Region.Name(), d.Restore.SourceTable), seconds(d.Restore.At), d.Restore.InProgress}
	}
	h.describeReplicas(&out, shared)
	return out
}

// opened returns the table while it is open, nil otherwise.
func (h *Handler) opened(d *table.Definition) *region.Table {
	for _, t := range h.cfg.Region.Tables() {
		if t.ID == d.ID {
			return t
		}
	}
	return nil
}

// describeGlobal adds what only global indexes have. Backfilling is shown of one that is made for a table with items alone.
func (h *Handler) describeGlobal(out *indexDescription, d *table.Definition, x *table.Index) {
	status := table.Active
	switch {
	case x.Deleting || d.Status == table.Deleting:
		status = table.Deleting
	case x.Backfilling:
		status, out.Backfilling = table.Creating, new(true)
	case d.Status == table.Creating:
		status = table.Creating
	}
	out.IndexStatus = string(status)
	out.ProvisionedThroughput = new(h.describeThroughput(x.Throughput, x.Scaled))
	out.OnDemandThroughput = describeOnDemand(x.OnDemand)
	out.WarmThroughput = describeWarm(table.Warm(x.Warm, d.Billing, x.Throughput))
}

func (h *Handler) describeThroughput(t table.Throughput, s table.Scaled) throughputDescription {
	return throughputDescription{
		LastIncreaseDateTime: seconds(s.Up), LastDecreaseDateTime: seconds(s.Down), NumberOfDecreasesToday: s.Today(h.cfg.Now()),
		ReadCapacityUnits: t.Read, WriteCapacityUnits: t.Write,
	}
}

func describeOnDemand(t table.Throughput) *onDemandShape {
	if t == (table.Throughput{}) {
		return nil
	}
	return &onDemandShape{positive(t.Read), positive(t.Write)}
}

func describeWarm(t table.Throughput) *warmShape {
	return &warmShape{&t.Read, &t.Write, new(string(table.Active))}
}

// describeSSE shows a key that the client named, or the one that stands for the service's.
func (h *Handler) describeSSE(sse *table.SSE) *sseDescription {
	if sse == nil || !sse.Enabled {
		return nil
	}
	return &sseDescription{"ENABLED", sse.Type, h.keyARN(sse.KeyID, h.cfg.Region.Name())}
}

// keyARN returns the ARN of a region's key given by its ARN, its id or an alias. There is no key service here to ask what key an alias means: each
// has one made from its name.
func (h *Handler) keyARN(id, region string) string {
	if strings.HasPrefix(id, "arn:") && !strings.Contains(id, ":alias/") {
		return id
	}
	if _, name, ok := strings.Cut(id, "alias/"); ok || id == "" {
		if id == "" {
			name = "aws/dynamodb"
		}
		sum := sha256.Sum256([]byte("alias/" + name))
		id = fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
	}
	return "arn:aws:kms:" + region + ":" + h.cfg.Account + ":key/" + id
}

// describeUpdate makes UpdateTable's TableDescription of a table as it was before and is now. What is changed while the table, or the
// part concerned, is UPDATING is shown as it was.
func (h *Handler) describeUpdate(before, d *table.Definition, in *updateTableInput) tableDescription {
	out, was := h.describe(d), h.describe(before)
	if in.takesTime(in.concerns()) {
		out.TableStatus = string(table.Updating) // even if nothing changes
	}
	switch {
	case before.Billing != d.Billing && out.BillingModeSummary != nil:
		if d.Billing == table.OnDemand {
			out.BillingModeSummary.LastUpdateToPayPerRequestDateTime = 0
		}
	case in.ProvisionedThroughput != nil:
		now := &out.ProvisionedThroughput
		now.ReadCapacityUnits, now.WriteCapacityUnits, now.NumberOfDecreasesToday = was.ProvisionedThroughput.ReadCapacityUnits, was.ProvisionedThroughput.WriteCapacityUnits, was.ProvisionedThroughput.NumberOfDecreasesToday
	}
	if in.WarmThroughput.given() {
		out.WarmThroughput = in.WarmThroughput.status(was.WarmThroughput, table.Updating)
	}
	if in.OnDemandThroughput != nil {
		out.OnDemandThroughput = in.OnDemandThroughput.echo(out.OnDemandThroughput)
	}
	if in.TableClass != nil {
		out.TableClassSummary = was.TableClassSummary
	}
	if in.SSESpecification != nil {
		if out.SSEDescription = was.SSEDescription; out.SSEDescription == nil {
			out.SSEDescription = &sseDescription{}
		}
		out.SSEDescription.Status = string(table.Updating)
	}
	if slices.ContainsFunc(in.ReplicaUpdates, func(u replicaUpdate) bool { return u.Update != nil }) {
		out.Replicas = was.Replicas
	}
	for i := range in.GlobalSecondaryIndexUpdates {
		h.describeIndexUpdate(&out, &was, &in.GlobalSecondaryIndexUpdates[i], before.Billing != d.Billing)
	}
	return out
}

func (h *Handler) describeIndexUpdate(out, was *tableDescription, u *indexUpdate, switched bool) {
	find := func(t *tableDescription, name string) *indexDescription {
		i := slices.IndexFunc(t.GlobalSecondaryIndexes, func(x indexDescription) bool { return x.IndexName == name })
		if i < 0 {
			return &indexDescription{}
		}
		return &t.GlobalSecondaryIndexes[i]
	}
	switch {
	case u.Create != nil:
		x := find(out, *u.Create.IndexName)
		x.Backfilling = new(false) // its resources are being allocated
		x.WarmThroughput = u.Create.WarmThroughput.status(x.WarmThroughput, table.Updating)
	case u.Update != nil:
		x, old := find(out, *u.Update.IndexName), find(was, *u.Update.IndexName)
		if u.Update.ProvisionedThroughput != nil || u.Update.OnDemandThroughput.given() != "" {
			x.IndexStatus = string(table.Updating)
		}
		if u.Update.ProvisionedThroughput != nil && !switched {
			x.ProvisionedThroughput = old.ProvisionedThroughput
		}
		if u.Update.WarmThroughput.given() {
			x.WarmThroughput = u.Update.WarmThroughput.status(old.WarmThroughput, table.Updating)
		}
	}
}

// echo shows maximums that were taken away as they were asked for.
func (o *onDemandShape) echo(shown *onDemandShape) *onDemandShape {
	if shown == nil {
		shown = &onDemandShape{}
	}
	if o.MaxReadRequestUnits != nil {
		shown.MaxReadRequestUnits = o.MaxReadRequestUnits
	}
	if o.MaxWriteRequestUnits != nil {
		shown.MaxWriteRequestUnits = o.MaxWriteRequestUnits
	}
	if *shown == (onDemandShape{}) {
		return nil
	}
	return shown
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
