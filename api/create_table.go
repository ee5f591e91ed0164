package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

type createTableInput struct {
	TableName                                     *string
	AttributeDefinitions                          []attributeDefinition
	KeySchema                                     []keySchemaElement
	LocalSecondaryIndexes, GlobalSecondaryIndexes []indexShape
	BillingMode                                   *string
	ProvisionedThroughput                         *throughputShape
	OnDemandThroughput                            *onDemandShape
	WarmThroughput                                *warmShape
	StreamSpecification                           *streamShape
	SSESpecification                              *sseShape
	Tags                                          []tagShape
	TableClass                                    *string
	DeletionProtectionEnabled                     *bool
	ResourcePolicy, GlobalTableSourceArn          *string
	GlobalTableSettingsReplicationMode            *string // of several accounts; there is one
	VectorIndexes                                 []struct{}
}

// createTable answers CreateTable.
func createTable(q *request, ctx context.Context) error {
	var in createTableInput
	if err := q.decode(&in); err != nil {
		return err
	}
	d, err := q.h.newDefinition(&in)
	if err != nil {
		return err
	}
	made, err := q.h.cfg.Region.Create(ctx, d)
	if errors.Is(err, region.ErrExists) {
		if have, err := q.h.cfg.Region.Definition(d.Schema.Name); err == nil && have.Status == table.Creating {
			return errChanging(have)
		}
		return errInUse("Table already exists: %s", d.Schema.Name)
	}
	if err != nil {
		return err
	}
	answer := q.h.describe(made)
	// What a table and its indexes can take is not in this answer yet, but for what was asked for.
	// Source: Developer Guide, "Create a new DynamoDB table with higher warm throughput".
	answer.WarmThroughput = in.WarmThroughput.status(answer.WarmThroughput, table.Updating)
	for i := range answer.GlobalSecondaryIndexes {
		x := &answer.GlobalSecondaryIndexes[i]
		asked := slices.IndexFunc(in.GlobalSecondaryIndexes, func(s indexShape) bool { return *s.IndexName == x.IndexName })
		x.WarmThroughput = in.GlobalSecondaryIndexes[asked].WarmThroughput.status(x.WarmThroughput, table.Updating)
	}
	return q.encode(struct{ TableDescription tableDescription }{answer})
}

// newDefinition checks CreateTable's input, in the service's order, and makes a definition of it.
func (h *Handler) newDefinition(in *createTableInput) (*table.Definition, error) {
	name, err := h.newTableName(in.TableName)
	if err != nil {
		return nil, err
	}
	if err := in.checkModel(); err != nil {
		return nil, err
	}
	switch {
	case in.GlobalTableSourceArn != nil:
		return nil, invalid("GlobalTableSourceArn is not supported: add replicas with UpdateTable")
	case len(in.VectorIndexes) > 0:
		return nil, invalid("VectorIndexes are not supported")
	}
	if err := checkClass(in.TableClass); err != nil {
		return nil, err
	}
	d := &table.Definition{Schema: table.Schema{Name: name}}
	now := h.cfg.Now()
	if err := in.setBilling(d); err != nil {
		return nil, err
	}
	if d.Billing == table.OnDemand {
		d.OnDemandSince = now.UnixMilli()
	}
	if err := in.setKeys(d); err != nil {
		return nil, err
	}
	if d.Stream, err = h.newStream(in.StreamSpecification); err != nil {
		return nil, err
	}
	if d.SSE, err = in.SSESpecification.setting(); err != nil {
		return nil, err
	}
	// A table of the standard class is described as one whose class was never given.
	if in.TableClass != nil && *in.TableClass != standardClass {
		d.Class = *in.TableClass
	}
	if in.DeletionProtectionEnabled != nil {
		d.DeletionProtection = *in.DeletionProtectionEnabled
	}
	if in.ResourcePolicy != nil {
		policy, err := readPolicy(*in.ResourcePolicy, false)
		if err != nil {
			return nil, err
		}
		document, err := policy.canonical()
		if err != nil {
			return nil, err
		}
		d.Policy = &table.Policy{Document: document, Revision: h.newRevision(nil)}
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	if err := addTags(d, in.Tags); err != nil {
		return nil, err
	}
	return d, nil
}

// checkModel checks the input against the model's constraints, in the service's order.
func (in *createTableInput) checkModel() error {
	var c constraints
	if in.AttributeDefinitions == nil {
		c.required("attributeDefinitions")
	}
	c.definitions(in.AttributeDefinitions)
	c.billing(in.BillingMode, in.ProvisionedThroughput)
	if in.KeySchema == nil {
		c.required("keySchema")
	} else {
		c.keySchema(in.KeySchema, "keySchema", 2)
	}
	for i := range in.LocalSecondaryIndexes {
		c.index(&in.LocalSecondaryIndexes[i], fmt.Sprintf("localSecondaryIndexes.%d.member.", i+1), 2)
	}
	for i := range in.GlobalSecondaryIndexes {
		c.index(&in.GlobalSecondaryIndexes[i], fmt.Sprintf("globalSecondaryIndexes.%d.member.", i+1), 0)
	}
	c.stream(in.StreamSpecification)
	c.sse(in.SSESpecification)
	c.replicationMode(in.GlobalTableSettingsReplicationMode)
	return c.err()
}

// setBilling gives a new table its billing mode and its capacity.
func (in *createTableInput) setBilling(d *table.Definition) error {
	d.Billing = table.Provisioned
	if in.BillingMode != nil {
		d.Billing = table.Billing(*in.BillingMode)
	}
	if d.Billing == table.OnDemand && in.ProvisionedThroughput != nil {
		return parameter("Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	}
	if d.Billing == table.Provisioned {
		if member := in.OnDemandThroughput.given(); member != "" {
			return parameter("%s for OnDemandThroughput cannot be specified when table BillingMode is PROVISIONED.", member)
		}
		if in.ProvisionedThroughput == nil {
			return parameter("ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
		}
		if err := in.ProvisionedThroughput.checkBounds(""); err != nil {
			return err
		}
		d.Throughput = in.ProvisionedThroughput.units()
	}
	if err := in.OnDemandThroughput.set(&d.OnDemand, "table", false); err != nil {
		return err
	}
	return in.WarmThroughput.begin(&d.Warm, d.Billing, d.Throughput, "table")
}
