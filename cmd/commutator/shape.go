package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/table"
)

// Tags that say how writes of several regions meet. Source: api/tags.go.
const (
	tagMode          = "commutator:conflict-resolution"
	tagAttributeMode = tagMode + ":"
)

// tags returns the tags that a replica is to have.
func (p *plan) tags(r table.FileReplica) []types.Tag {
	var out []types.Tag
	add := func(key, value string) { out = append(out, types.Tag{Key: &key, Value: &value}) }
	for _, t := range r.Tags {
		add(t.Key, t.Value)
	}
	modes := p.want.ConflictResolution.Modes()
	if modes.Table != "" {
		add(tagMode, string(modes.Table))
	}
	for _, a := range modes.Attributes {
		if a.Mode != "" {
			add(tagAttributeMode+a.Name, string(a.Mode))
		}
	}
	return out
}

// billing returns the mode that the file means: CloudFormation's default is PROVISIONED, which needs
// settings of its own.
func (p *plan) billing() types.BillingMode {
	if p.want.BillingMode == "" && p.want.WriteProvisionedThroughputSettings == nil {
		return types.BillingModePayPerRequest
	}
	if p.want.BillingMode == "" {
		return types.BillingModeProvisioned
	}
	return types.BillingMode(p.want.BillingMode)
}

// throughput returns provisioned capacity, nil on demand. own is an index's; where it has none, it is the
// table's.
func (p *plan) throughput(own *table.FileCapacity) *types.ProvisionedThroughput {
	if own == nil {
		own = p.want.WriteProvisionedThroughputSettings
	}
	if p.billing() != types.BillingModeProvisioned || own == nil {
		return nil
	}
	units := own.WriteCapacityAutoScalingSettings.MinCapacity
	return &types.ProvisionedThroughput{ReadCapacityUnits: &units, WriteCapacityUnits: &units}
}

// class returns the table class, which is one for all regions.
func (p *plan) class() types.TableClass {
	if c := p.want.Replicas[0].TableClass; c != "" {
		return types.TableClass(c)
	}
	return types.TableClassStandard
}

func (p *plan) attributes() []types.AttributeDefinition {
	var out []types.AttributeDefinition
	for _, a := range p.want.AttributeDefinitions {
		out = append(out, types.AttributeDefinition{AttributeName: &a.AttributeName, AttributeType: types.ScalarAttributeType(a.AttributeType)})
	}
	return out
}

func keySchema(keys []table.FileKey) []types.KeySchemaElement {
	var out []types.KeySchemaElement
	for _, k := range keys {
		out = append(out, types.KeySchemaElement{AttributeName: &k.AttributeName, KeyType: types.KeyType(k.KeyType)})
	}
	return out
}

func projection(x table.FileIndex) *types.Projection {
	return &types.Projection{ProjectionType: types.ProjectionType(x.Projection.ProjectionType), NonKeyAttributes: x.Projection.NonKeyAttributes}
}

func (p *plan) sse() *types.SSESpecification {
	s := p.want.SSESpecification
	if s == nil {
		return nil
	}
	return &types.SSESpecification{Enabled: &s.SSEEnabled, SSEType: types.SSEType(s.SSEType)}
}

// create makes the table in the home region.
func (p *plan) create(ctx context.Context) error {
	in := &dynamodb.CreateTableInput{
		TableName: &p.want.TableName, AttributeDefinitions: p.attributes(), KeySchema: keySchema(p.want.KeySchema),
		BillingMode: p.billing(), ProvisionedThroughput: p.throughput(nil), SSESpecification: p.sse(), TableClass: p.class(),
	}
	for _, x := range p.want.LocalSecondaryIndexes {
		in.LocalSecondaryIndexes = append(in.LocalSecondaryIndexes, types.LocalSecondaryIndex{
			IndexName: &x.IndexName, KeySchema: keySchema(x.KeySchema), Projection: projection(x),
		})
	}
	for _, x := range p.want.GlobalSecondaryIndexes {
		in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes, types.GlobalSecondaryIndex{
			IndexName: &x.IndexName, KeySchema: keySchema(x.KeySchema), Projection: projection(x),
			ProvisionedThroughput: p.throughput(x.WriteProvisionedThroughputSettings),
		})
	}
	if s := p.want.StreamSpecification; s != nil {
		in.StreamSpecification = &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewType(s.StreamViewType)}
	}
	for _, r := range p.want.Replicas {
		if r.Region == p.home.region {
			in.Tags, in.DeletionProtectionEnabled = p.tags(r), &r.DeletionProtectionEnabled
		}
	}
	_, err := p.home.dynamo.CreateTable(ctx, in)
	return err
}

// shape returns the steps from the table as it is to what the file says of all its replicas together. What
// cannot be changed is an error.
func (p *plan) shape() ([]step, error) {
	if err := p.fixed(); err != nil {
		return nil, err
	}
	dropped, made := p.indexes()
	out := append(dropped, p.capacity()...)
	out = append(out, made...)
	out = append(out, p.stream()...)
	if s := p.sse(); s != nil {
		now := p.now.SSEDescription
		enabled := now != nil && now.Status == types.SSEStatusEnabled
		wanted := s.SSEType
		if wanted == "" {
			wanted = types.SSETypeKms
		}
		if enabled != *s.Enabled || enabled && now.SSEType != wanted {
			out = append(out, step{"change the encryption setting", false, p.update(dynamodb.UpdateTableInput{SSESpecification: s})})
		}
	}
	class := types.TableClassStandard
	if p.now.TableClassSummary != nil {
		class = p.now.TableClassSummary.TableClass
	}
	if want := p.class(); want != class {
		out = append(out, step{fmt.Sprintf("change the table class to %s", want), false, p.update(dynamodb.UpdateTableInput{TableClass: want})})
	}
	return out, nil
}

// timeToLive brings the attribute that ends items to what the file says. Another one takes the place of the first in two steps.
func (p *plan) timeToLive(ctx context.Context) ([]step, error) {
	now, want := "", p.want.TimeToLive()
	if p.now != nil {
		d, err := p.home.dynamo.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &p.want.TableName})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.home.region, plain(err))
		}
		now = aws.ToString(d.TimeToLiveDescription.AttributeName)
	}
	if now == want {
		return nil, nil
	}
	to := func(attribute string, enabled bool) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := p.home.dynamo.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
				TableName: &p.want.TableName, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: &attribute, Enabled: &enabled},
			})
			return err
		}
	}
	var out []step
	if now != "" {
		out = append(out, step{"stop ending items by " + now, false, to(now, false)})
	}
	if want != "" {
		out = append(out, step{"end items by " + want, false, to(want, true)})
	}
	return out, nil
}

// fixed checks what a table keeps for life.
func (p *plan) fixed() error {
	var errs []error
	if now, want := keyText(p.now.KeySchema), keyText(keySchema(p.want.KeySchema)); now != want {
		errs = append(errs, fmt.Errorf("KeySchema: it is %s, and the file has %s; a table keeps its keys for life", now, want))
	}
	for _, have := range p.now.AttributeDefinitions {
		for _, want := range p.attributes() {
			if *want.AttributeName == *have.AttributeName && want.AttributeType != have.AttributeType {
				errs = append(errs, fmt.Errorf("AttributeDefinitions: %s is of type %s, and the file has %s; a key keeps its type", *have.AttributeName, have.AttributeType, want.AttributeType))
			}
		}
	}
	var now, want []string
	for _, x := range p.now.LocalSecondaryIndexes {
		now = append(now, indexText(*x.IndexName, x.KeySchema, x.Projection))
	}
	for _, x := range p.want.LocalSecondaryIndexes {
		want = append(want, indexText(x.IndexName, keySchema(x.KeySchema), projection(x)))
	}
	slices.Sort(now)
	slices.Sort(want)
	if !slices.Equal(now, want) {
		errs = append(errs, fmt.Errorf("LocalSecondaryIndexes: they are [%s], and the file has [%s]; a table keeps them for life", strings.Join(now, "; "), strings.Join(want, "; ")))
	}
	return errors.Join(errs...)
}

func keyText(keys []types.KeySchemaElement) string {
	var parts []string
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s %s", *k.AttributeName, k.KeyType))
	}
	return strings.Join(parts, ", ")
}

// indexText writes all of an index that it keeps for life.
func indexText(name string, keys []types.KeySchemaElement, p *types.Projection) string {
	include := slices.Sorted(slices.Values(p.NonKeyAttributes))
	return strings.TrimSpace(fmt.Sprintf("%s (%s) %s %s", name, keyText(keys), p.ProjectionType, strings.Join(include, ", ")))
}

// indexes removes global indexes that the file does not have, or has otherwise, and makes those that are
// missing: one a step, as the API wants it.
func (p *plan) indexes() (dropped, made []step) {
	kept := map[string]bool{}
	for _, x := range p.now.GlobalSecondaryIndexes {
		if p.kept(x) != nil {
			kept[*x.IndexName] = true
			continue
		}
		dropped = append(dropped, step{"remove the index " + *x.IndexName, true, p.update(dynamodb.UpdateTableInput{
			GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: x.IndexName}}},
		})})
	}
	for _, x := range p.want.GlobalSecondaryIndexes {
		if kept[x.IndexName] {
			continue
		}
		made = append(made, step{"make the index " + indexText(x.IndexName, keySchema(x.KeySchema), projection(x)), false, p.update(dynamodb.UpdateTableInput{
			AttributeDefinitions: p.attributes(),
			GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{
				IndexName: &x.IndexName, KeySchema: keySchema(x.KeySchema), Projection: projection(x),
				ProvisionedThroughput: p.throughput(x.WriteProvisionedThroughputSettings),
			}}},
		})})
	}
	return dropped, made
}

// kept returns the file's index that a global index of the table stays as, or nil.
func (p *plan) kept(x types.GlobalSecondaryIndexDescription) *table.FileIndex {
	for i := range p.want.GlobalSecondaryIndexes {
		w := &p.want.GlobalSecondaryIndexes[i]
		if indexText(w.IndexName, keySchema(w.KeySchema), projection(*w)) == indexText(*x.IndexName, x.KeySchema, x.Projection) {
			return w
		}
	}
	return nil
}

// capacity changes the billing mode and provisioned throughput, of the table and of the indexes that it
// has and keeps.
func (p *plan) capacity() []step {
	now := types.BillingModeProvisioned
	if s := p.now.BillingModeSummary; s != nil {
		now = s.BillingMode
	}
	want := p.billing()
	var in dynamodb.UpdateTableInput
	var what []string
	if want != now {
		in.BillingMode = want
		what = append(what, fmt.Sprintf("change the billing mode to %s", want))
	}
	if want == types.BillingModeProvisioned {
		if t := p.throughput(nil); t != nil && (want != now || !sameThroughput(p.now.ProvisionedThroughput, t, p.readHere(""))) {
			in.ProvisionedThroughput = t
			what = append(what, fmt.Sprintf("provision %d units", *t.WriteCapacityUnits))
		}
		for _, x := range p.now.GlobalSecondaryIndexes {
			w := p.kept(x)
			if w == nil {
				continue
			}
			t := p.throughput(w.WriteProvisionedThroughputSettings)
			if t == nil || want == now && sameThroughput(x.ProvisionedThroughput, t, p.readHere(*x.IndexName)) {
				continue
			}
			in.GlobalSecondaryIndexUpdates = append(in.GlobalSecondaryIndexUpdates, types.GlobalSecondaryIndexUpdate{
				Update: &types.UpdateGlobalSecondaryIndexAction{IndexName: x.IndexName, ProvisionedThroughput: t},
			})
			what = append(what, fmt.Sprintf("provision %d units for index %s", *t.WriteCapacityUnits, *x.IndexName))
		}
	}
	if len(what) == 0 {
		return nil
	}
	return []step{{strings.Join(what, ", "), false, p.update(in)}}
}

// readHere returns the units that home's replica, or an index of it, is to be read other than the table's; 0 for none.
func (p *plan) readHere(index string) (units int64) {
	for _, r := range p.want.Replicas {
		if r.Region != p.home.region || len(p.want.Replicas) < 2 {
			continue
		}
		if index == "" {
			units, _ = r.Units()
		}
		for _, x := range r.GlobalSecondaryIndexes {
			if x.IndexName == index {
				units, _ = x.Units()
			}
		}
	}
	return units
}

// sameThroughput tells whether what is described is what is wanted; reads that are to be overridden are another step's.
func sameThroughput(now *types.ProvisionedThroughputDescription, want *types.ProvisionedThroughput, reads int64) bool {
	return now != nil && (reads > 0 || aws.ToInt64(now.ReadCapacityUnits) == *want.ReadCapacityUnits) && aws.ToInt64(now.WriteCapacityUnits) == *want.WriteCapacityUnits
}

// stream switches the stream on, or to another view. Where the file does not speak of it, it stays as it
// is: a global table has one in any case.
func (p *plan) stream() []step {
	want := p.want.StreamSpecification
	if want == nil {
		return nil
	}
	now := p.now.StreamSpecification
	enabled := now != nil && aws.ToBool(now.StreamEnabled)
	if enabled && string(now.StreamViewType) == want.StreamViewType {
		return nil
	}
	if len(p.now.Replicas) > 0 {
		p.warnings = append(p.warnings, "StreamSpecification is left alone: the stream of a table with replicas cannot be changed")
		return nil
	}
	var out []step
	if enabled {
		out = append(out, step{"switch the stream off", false, p.update(dynamodb.UpdateTableInput{
			StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(false)},
		})})
	}
	return append(out, step{"switch the stream on with " + want.StreamViewType, false, p.update(dynamodb.UpdateTableInput{
		StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewType(want.StreamViewType)},
	})})
}
