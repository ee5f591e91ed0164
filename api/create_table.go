package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Limits of a table. Source: Developer Guide, "Quotas".
const (
	maxLocalIndexes    = 5
	maxGlobalIndexes   = 20
	maxIncluded        = 20  // attributes that one index includes
	maxIncludedInTable = 100 // the same over all its indexes
	maxKeyParts        = 4   // attributes of each kind in a global index's key
)

type createTableInput struct {
	TableName                                     *string
	AttributeDefinitions                          []attributeDefinition
	KeySchema                                     []keySchemaElement
	LocalSecondaryIndexes, GlobalSecondaryIndexes []indexShape
	BillingMode                                   *string
	ProvisionedThroughput                         *throughputShape
	OnDemandThroughput                            *onDemandShape
	StreamSpecification                           *streamShape
	SSESpecification                              *sseShape
	Tags                                          []tagShape
	TableClass                                    *string
	DeletionProtectionEnabled                     *bool
	ResourcePolicy, GlobalTableSourceArn          *string
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
		return errInUse("Table already exists: %s", d.Schema.Name)
	}
	if err != nil {
		return err
	}
	return q.encode(struct{ TableDescription tableDescription }{q.h.describe(made)})
}

// newDefinition checks CreateTable's input, in the service's order, and makes a definition of it.
func (h *Handler) newDefinition(in *createTableInput) (*table.Definition, error) {
	name, err := tableName(in.TableName, 3)
	if err != nil {
		return nil, err
	}
	if err := in.checkModel(); err != nil {
		return nil, err
	}
	switch {
	case in.GlobalTableSourceArn != nil:
		return nil, invalid("GlobalTableSourceArn is not supported: add replicas with UpdateTable")
	case in.ResourcePolicy != nil:
		return nil, invalid("ResourcePolicy is not supported")
	case len(in.VectorIndexes) > 0:
		return nil, invalid("VectorIndexes are not supported")
	}
	d := &table.Definition{Schema: table.Schema{Name: name}}
	if err := setBilling(d, in.BillingMode, in.ProvisionedThroughput, in.OnDemandThroughput); err != nil {
		return nil, err
	}
	kinds, err := definedKinds(in.AttributeDefinitions)
	if err != nil {
		return nil, err
	}
	keys, err := kinds.keys(in.KeySchema, "")
	if err != nil {
		return nil, err
	}
	if len(keys.hash) > 1 || len(keys.sort) > 1 {
		return nil, invalid("One or more parameter values were invalid: A table's KeySchema may have one HASH and one RANGE key")
	}
	d.Schema.Hash = keys.hash[0]
	if len(keys.sort) > 0 {
		d.Schema.Range = keys.sort[0]
	}
	if err := addIndexes(d, kinds, in); err != nil {
		return nil, err
	}
	if err := kinds.allUsed(&d.Schema); err != nil {
		return nil, err
	}
	if d.Stream, err = h.newStream(nil, in.StreamSpecification); err != nil {
		return nil, err
	}
	if err := setSSE(d, in.SSESpecification); err != nil {
		return nil, err
	}
	if in.TableClass != nil {
		d.Class = *in.TableClass
	}
	if in.DeletionProtectionEnabled != nil {
		d.DeletionProtection = *in.DeletionProtectionEnabled
	}
	if err := addTags(d, in.Tags); err != nil {
		return nil, err
	}
	return d, nil
}

// checkModel checks the input against the model's constraints.
func (in *createTableInput) checkModel() error {
	var c constraints
	if in.AttributeDefinitions == nil {
		c.required("attributeDefinitions")
	}
	c.definitions(in.AttributeDefinitions)
	if in.KeySchema == nil {
		c.required("keySchema")
	} else {
		c.keySchema(in.KeySchema, "keySchema")
	}
	c.indexes(in.LocalSecondaryIndexes, "localSecondaryIndexes")
	c.indexes(in.GlobalSecondaryIndexes, "globalSecondaryIndexes")
	c.billing(in.BillingMode, in.ProvisionedThroughput)
	c.settings(in.StreamSpecification, in.SSESpecification, in.TableClass)
	c.tags(in.Tags)
	return c.err()
}

func (c *constraints) definitions(list []attributeDefinition) {
	for i, a := range list {
		at := fmt.Sprintf("attributeDefinitions.%d.member.", i+1)
		if a.AttributeName == nil {
			c.required(at + "attributeName")
		} else {
			c.length(*a.AttributeName, at+"attributeName", 1, 255)
		}
		if a.AttributeType == nil {
			c.required(at + "attributeType")
		} else {
			c.enum(*a.AttributeType, at+"attributeType", "B", "N", "S")
		}
	}
}

func (c *constraints) keySchema(list []keySchemaElement, at string) {
	c.count(len(list), at, 1, 2*maxKeyParts)
	for i, k := range list {
		at := fmt.Sprintf("%s.%d.member.", at, i+1)
		if k.AttributeName == nil {
			c.required(at + "attributeName")
		} else {
			c.length(*k.AttributeName, at+"attributeName", 1, 255)
		}
		if k.KeyType == nil {
			c.required(at + "keyType")
		} else {
			c.enum(*k.KeyType, at+"keyType", "HASH", "RANGE")
		}
	}
}

func (c *constraints) indexes(list []indexShape, at string) {
	for i := range list {
		c.index(&list[i], fmt.Sprintf("%s.%d.member.", at, i+1))
	}
}

func (c *constraints) index(x *indexShape, at string) {
	if x.IndexName == nil {
		c.required(at + "indexName")
	} else {
		c.name(*x.IndexName, at+"indexName", 3)
	}
	if x.KeySchema == nil {
		c.required(at + "keySchema")
	} else {
		c.keySchema(x.KeySchema, at+"keySchema")
	}
	if x.Projection == nil {
		c.required(at + "projection")
	} else {
		if x.Projection.ProjectionType != nil {
			c.enum(*x.Projection.ProjectionType, at+"projection.projectionType", "ALL", "INCLUDE", "KEYS_ONLY")
		}
		if x.Projection.NonKeyAttributes != nil {
			c.count(len(x.Projection.NonKeyAttributes), at+"projection.nonKeyAttributes", 1, maxIncluded)
			c.lengths(x.Projection.NonKeyAttributes, at+"projection.nonKeyAttributes", 1, 255)
		}
	}
	c.throughput(x.ProvisionedThroughput, at+"provisionedThroughput")
}

func (c *constraints) throughput(t *throughputShape, at string) {
	if t == nil {
		return
	}
	for _, u := range [...]struct {
		value *int64
		name  string
	}{{t.ReadCapacityUnits, ".readCapacityUnits"}, {t.WriteCapacityUnits, ".writeCapacityUnits"}} {
		if u.value == nil {
			c.required(at + u.name)
		} else {
			c.atLeast(*u.value, at+u.name, 1)
		}
	}
}

func (c *constraints) billing(mode *string, t *throughputShape) {
	if mode != nil {
		c.enum(*mode, "billingMode", "PROVISIONED", "PAY_PER_REQUEST")
	}
	c.throughput(t, "provisionedThroughput")
}

func (c *constraints) settings(stream *streamShape, sse *sseShape, class *string) {
	if stream != nil {
		if stream.StreamEnabled == nil {
			c.required("streamSpecification.streamEnabled")
		}
		if stream.StreamViewType != nil {
			c.enum(*stream.StreamViewType, "streamSpecification.streamViewType", "NEW_AND_OLD_IMAGES", "OLD_IMAGE", "NEW_IMAGE", "KEYS_ONLY")
		}
	}
	if sse != nil && sse.SSEType != nil {
		c.enum(*sse.SSEType, "sSESpecification.sSEType", "AES256", "KMS")
	}
	if class != nil {
		c.enum(*class, "tableClass", "STANDARD", "STANDARD_INFREQUENT_ACCESS")
	}
}

// setBilling gives the definition a billing mode and its capacity.
func setBilling(d *table.Definition, mode *string, provisioned *throughputShape, onDemand *onDemandShape) error {
	d.Billing = table.Provisioned
	if mode != nil {
		d.Billing = table.Billing(*mode)
	}
	d.Throughput, d.OnDemand = table.Throughput{}, table.Throughput{}
	if d.Billing == table.OnDemand {
		if provisioned != nil {
			return invalid("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
		}
		return setOnDemand(&d.OnDemand, onDemand)
	}
	if onDemand != nil {
		return invalid("One or more parameter values were invalid: OnDemandThroughput cannot be specified when BillingMode is PROVISIONED")
	}
	if provisioned == nil {
		return invalid("One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED")
	}
	d.Throughput = table.Throughput{Read: *provisioned.ReadCapacityUnits, Write: *provisioned.WriteCapacityUnits}
	return nil
}

// setOnDemand sets what maximums were given; -1 takes one away.
func setOnDemand(t *table.Throughput, given *onDemandShape) error {
	if given == nil {
		return nil
	}
	for _, u := range [...]struct {
		value *int64
		to    *int64
	}{{given.MaxReadRequestUnits, &t.Read}, {given.MaxWriteRequestUnits, &t.Write}} {
		switch {
		case u.value == nil:
		case *u.value == -1:
			*u.to = 0
		case *u.value < 1:
			return invalid("One or more parameter values were invalid: Given value %d for OnDemandThroughput is out of bounds", *u.value)
		default:
			*u.to = *u.value
		}
	}
	return nil
}

// attributeKinds are attribute definitions.
type attributeKinds []table.Attribute

func definedKinds(list []attributeDefinition) (attributeKinds, error) {
	var out attributeKinds
	for _, a := range list {
		if out.find(*a.AttributeName) != nil {
			return nil, invalid("Cannot have two attributes with the same name")
		}
		out = append(out, table.Attribute{Name: *a.AttributeName, Kind: item.KindOf(*a.AttributeType)})
	}
	return out, nil
}

func (k attributeKinds) find(name string) *table.Attribute {
	for i := range k {
		if k[i].Name == name {
			return &k[i]
		}
	}
	return nil
}

func names(list []table.Attribute) string {
	var out []string
	for _, a := range list {
		out = append(out, a.Name)
	}
	return strings.Join(out, ", ")
}

// keyParts are the attributes of one key.
type keyParts struct{ hash, sort []table.Attribute }

// keys makes the attributes of a key schema. index names the index, "" is the table.
func (k attributeKinds) keys(schema []keySchemaElement, index string) (keyParts, error) {
	var out keyParts
	var all []string
	for i, e := range schema {
		name := *e.AttributeName
		switch {
		case i == 0 && *e.KeyType != "HASH":
			return out, invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
		case *e.KeyType == "HASH" && len(out.sort) > 0, i == 1 && *e.KeyType != "RANGE" && index == "":
			return out, invalid("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
		case slices.Contains(all, name):
			return out, invalid("Both the Hash Key and the Range Key element in the KeySchema have the same name")
		}
		all = append(all, name)
		a := k.find(name)
		if a == nil {
			return out, invalid("One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [%s], AttributeDefinitions: [%s]", name, names(k))
		}
		if *e.KeyType == "HASH" {
			out.hash = append(out.hash, *a)
		} else {
			out.sort = append(out.sort, *a)
		}
	}
	if len(out.hash) > maxKeyParts || len(out.sort) > maxKeyParts {
		return out, invalid("One or more parameter values were invalid: A KeySchema may have at most %d HASH and %d RANGE keys", maxKeyParts, maxKeyParts)
	}
	return out, nil
}

// allUsed refuses definitions that no key uses.
func (k attributeKinds) allUsed(s *table.Schema) error {
	used := s.Defined()
	if len(used) == len(k) {
		return nil
	}
	if len(s.Indexes) == 0 {
		return invalid("One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions")
	}
	return invalid("One or more parameter values were invalid: Some AttributeDefinitions are not used. AttributeDefinitions: [%s], keys used: [%s]", names(k), names(used))
}

// addIndexes makes the indexes of CreateTable.
func addIndexes(d *table.Definition, kinds attributeKinds, in *createTableInput) error {
	if in.LocalSecondaryIndexes != nil {
		switch n := len(in.LocalSecondaryIndexes); {
		case n == 0:
			return invalid("One or more parameter values were invalid: List of LocalSecondaryIndexes is empty")
		case !d.Schema.HasRange():
			return invalid("One or more parameter values were invalid: Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex")
		case n > maxLocalIndexes:
			return invalid("One or more parameter values were invalid: Number of LocalSecondaryIndexes exceeds per-table limit of %d", maxLocalIndexes)
		}
	}
	if in.GlobalSecondaryIndexes != nil {
		switch n := len(in.GlobalSecondaryIndexes); {
		case n == 0:
			return invalid("One or more parameter values were invalid: List of GlobalSecondaryIndexes is empty")
		case n > maxGlobalIndexes:
			return invalid("One or more parameter values were invalid: GlobalSecondaryIndex count exceeds the per-table limit of %d", maxGlobalIndexes)
		}
	}
	for i := range in.LocalSecondaryIndexes {
		if err := addIndex(d, kinds, &in.LocalSecondaryIndexes[i], false); err != nil {
			return err
		}
	}
	for i := range in.GlobalSecondaryIndexes {
		if err := addIndex(d, kinds, &in.GlobalSecondaryIndexes[i], true); err != nil {
			return err
		}
	}
	return checkIncluded(&d.Schema)
}

func checkIncluded(s *table.Schema) error {
	included := 0
	for i := range s.Indexes {
		included += len(s.Indexes[i].Include)
	}
	if included > maxIncludedInTable {
		return invalid("One or more parameter values were invalid: Number of NonKeyAttributes exceeds per-table limit of %d", maxIncludedInTable)
	}
	return nil
}

// addIndex checks one index and adds it. Its ID is left to who stores the definition.
func addIndex(d *table.Definition, kinds attributeKinds, in *indexShape, global bool) error {
	s := &d.Schema
	x := table.Index{Name: *in.IndexName, Global: global}
	if s.Index(x.Name) != nil {
		return invalid("One or more parameter values were invalid: Duplicate index name: %s", x.Name)
	}
	keys, err := kinds.keys(in.KeySchema, x.Name)
	if err != nil {
		return err
	}
	x.Hash, x.Range = keys.hash, keys.sort
	if !global {
		switch {
		case len(x.Range) == 0:
			return invalid("One or more parameter values were invalid: Index KeySchema does not have a range key for index: %s", x.Name)
		case len(x.Hash) > 1 || len(x.Range) > 1:
			return invalid("One or more parameter values were invalid: A local index's KeySchema may have one HASH and one RANGE key: %s", x.Name)
		case x.Hash[0] != s.Hash:
			return invalid("One or more parameter values were invalid: Index KeySchema does not have the same leading hash key as table KeySchema for index: %s. index hash key: %s, table hash key: %s", x.Name, x.Hash[0].Name, s.Hash.Name)
		}
	}
	if err := setProjection(&x, in.Projection); err != nil {
		return err
	}
	if err := setIndexThroughput(d, &x, in.ProvisionedThroughput); err != nil {
		return err
	}
	s.Indexes = append(s.Indexes, x)
	return nil
}

func setProjection(x *table.Index, p *projectionShape) error {
	if p.ProjectionType == nil {
		return invalid("One or more parameter values were invalid: Unknown ProjectionType: null")
	}
	x.Projection = table.Projection(*p.ProjectionType)
	x.Include = p.NonKeyAttributes
	switch {
	case x.Projection != table.ProjectInclude && len(x.Include) > 0:
		return invalid("One or more parameter values were invalid: ProjectionType is %s, but NonKeyAttributes is specified", x.Projection)
	case x.Projection == table.ProjectInclude && len(x.Include) == 0:
		return invalid("One or more parameter values were invalid: ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
	}
	return nil
}

func setIndexThroughput(d *table.Definition, x *table.Index, given *throughputShape) error {
	switch {
	case !x.Global:
	case d.Billing == table.OnDemand && given != nil:
		return invalid("One or more parameter values were invalid: ProvisionedThroughput should not be specified for index: %s when BillingMode is PAY_PER_REQUEST", x.Name)
	case d.Billing != table.OnDemand && given == nil:
		return invalid("One or more parameter values were invalid: ProvisionedThroughput must be specified for index: %s", x.Name)
	case given != nil:
		x.Throughput = table.Throughput{Read: *given.ReadCapacityUnits, Write: *given.WriteCapacityUnits}
	}
	return nil
}

// newStream returns the stream setting that follows from old and what was given.
func (h *Handler) newStream(old *table.Stream, given *streamShape) (*table.Stream, error) {
	enabled := old != nil && old.Enabled
	switch {
	case given == nil:
		return old, nil
	case !*given.StreamEnabled && given.StreamViewType != nil:
		return nil, invalid("One or more parameter values were invalid: StreamViewType can only be specified when StreamEnabled is true")
	case !*given.StreamEnabled && old == nil:
		return nil, nil
	case !*given.StreamEnabled && !enabled:
		return nil, invalid("Table already has a disabled stream: %s", old.Label)
	case !*given.StreamEnabled:
		return &table.Stream{ViewType: old.ViewType, Label: old.Label}, nil
	case enabled:
		return nil, invalid("Table already has an enabled stream")
	case given.StreamViewType == nil:
		return nil, invalid("One or more parameter values were invalid: StreamViewType must be specified when StreamEnabled is true")
	}
	return h.stream(*given.StreamViewType), nil
}

// stream returns an enabled stream whose label is the present moment, as the service has it.
func (h *Handler) stream(view string) *table.Stream {
	return &table.Stream{Enabled: true, ViewType: view, Label: h.cfg.Now().UTC().Format("2006-01-02T15:04:05.") + fmt.Sprintf("%03d", h.cfg.Now().Nanosecond()/int(time.Millisecond))}
}

func setSSE(d *table.Definition, given *sseShape) error {
	if given == nil {
		return nil
	}
	sse := table.SSE{}
	if given.Enabled != nil {
		sse.Enabled = *given.Enabled
	}
	if given.SSEType != nil {
		sse.Type = *given.SSEType
	}
	if given.KMSMasterKeyId != nil {
		sse.KeyID = *given.KMSMasterKeyId
	}
	if !sse.Enabled && (sse.Type != "" || sse.KeyID != "") {
		return invalid("One or more parameter values were invalid: SSEType and KMSMasterKeyId can only be specified when SSE is enabled")
	}
	if sse.Enabled && sse.Type == "" {
		sse.Type = "KMS"
	}
	d.SSE = &sse
	return nil
}
