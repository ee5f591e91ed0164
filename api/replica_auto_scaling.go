package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Auto scaling settings of a global table are kept, travel to every replica, and are shown; capacity is what a client sets it to and
// nothing scales it. There is no Application Auto Scaling here, so replicas of provisioned tables are made without it.
// Source of what is refused, and in which words: answers of the service, recorded in public.

type scalingShape struct {
	MinimumUnits        *int64 `json:",omitempty"`
	MaximumUnits        *int64 `json:",omitempty"`
	AutoScalingDisabled bool   `json:",omitempty"`
	AutoScalingRoleArn  string `json:",omitempty"`
	ScalingPolicies     []scalingPolicyShape
}

type scalingPolicyShape struct {
	PolicyName                               string
	TargetTrackingScalingPolicyConfiguration targetTrackingShape
}

type targetTrackingShape struct {
	DisableScaleIn   bool  `json:",omitempty"`
	ScaleInCooldown  int64 `json:",omitempty"`
	ScaleOutCooldown int64 `json:",omitempty"`
	TargetValue      float64
}

type indexScalingShape struct {
	IndexName, IndexStatus                      string
	ProvisionedReadCapacityAutoScalingSettings  *scalingShape `json:",omitempty"`
	ProvisionedWriteCapacityAutoScalingSettings *scalingShape `json:",omitempty"`
}

type replicaScalingShape struct {
	RegionName                                         string
	GlobalSecondaryIndexes                             []indexScalingShape
	ReplicaProvisionedReadCapacityAutoScalingSettings  *scalingShape `json:",omitempty"`
	ReplicaProvisionedWriteCapacityAutoScalingSettings *scalingShape `json:",omitempty"`
	ReplicaStatus                                      string
}

type tableScalingShape struct {
	TableName, TableStatus string
	Replicas               []replicaScalingShape
}

// describeTableReplicaAutoScaling answers DescribeTableReplicaAutoScaling.
func describeTableReplicaAutoScaling(q *request, _ context.Context) error {
	var in struct{ TableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) || err == nil && len(d.Others(q.h.cfg.Region.Name())) == 0 {
		return errNoGlobalTable("ResourceNotFoundException", name)
	}
	if err != nil {
		return err
	}
	return q.h.encodeScaling(q, d)
}

func (h *Handler) encodeScaling(q *request, d *table.Definition) error {
	out := tableScalingShape{TableName: d.Schema.Name, TableStatus: string(d.Status), Replicas: []replicaScalingShape{}}
	for _, r := range d.Replicas {
		if r.Status == table.Gone {
			continue
		}
		shown := replicaScalingShape{
			RegionName: r.Region, ReplicaStatus: string(r.Status), GlobalSecondaryIndexes: []indexScalingShape{},
			ReplicaProvisionedReadCapacityAutoScalingSettings:  showScaling(d, r.Region, ""),
			ReplicaProvisionedWriteCapacityAutoScalingSettings: showScaling(d, "", ""),
		}
		for i := range d.Schema.Indexes {
			x := &d.Schema.Indexes[i]
			if !x.Global || x.Backfilling {
				continue
			}
			status := table.Active
			if x.Deleting {
				status = table.Deleting
			}
			shown.GlobalSecondaryIndexes = append(shown.GlobalSecondaryIndexes, indexScalingShape{x.Name, string(status), showScaling(d, r.Region, x.Name), showScaling(d, "", x.Name)})
		}
		out.Replicas = append(out.Replicas, shown)
	}
	return q.encode(struct{ TableAutoScalingDescription tableScalingShape }{out})
}

func compareScaling(s table.Scaling, region, index string) int {
	return cmp.Or(cmp.Compare(s.Region, region), cmp.Compare(s.Index, index))
}

func findScaling(d *table.Definition, region, index string) (int, bool) {
	return slices.BinarySearchFunc(d.Scaling, table.Scaling{}, func(s, _ table.Scaling) int { return compareScaling(s, region, index) })
}

func showScaling(d *table.Definition, region, index string) *scalingShape {
	out := &scalingShape{AutoScalingDisabled: true, ScalingPolicies: []scalingPolicyShape{}}
	i, ok := findScaling(d, region, index)
	if !ok {
		return out
	}
	s := &d.Scaling[i]
	out.MinimumUnits, out.MaximumUnits, out.AutoScalingDisabled, out.AutoScalingRoleArn = &s.Min, &s.Max, d.Billing == table.OnDemand, s.Role
	p := s.Policy
	out.ScalingPolicies = append(out.ScalingPolicies, scalingPolicyShape{p.Name, targetTrackingShape{p.NoScaleIn, p.InSeconds, p.OutSeconds, p.Target}})
	return out
}

type replicaScalingUpdate struct {
	RegionName                         *string
	ReplicaGlobalSecondaryIndexUpdates []struct {
		IndexName                                *string
		ProvisionedReadCapacityAutoScalingUpdate *scalingUpdate
	}
	ReplicaProvisionedReadCapacityAutoScalingUpdate *scalingUpdate
}

type updateScalingInput struct {
	TableName                   *string
	GlobalSecondaryIndexUpdates []struct {
		IndexName                                 *string
		ProvisionedWriteCapacityAutoScalingUpdate *scalingUpdate
	}
	ProvisionedWriteCapacityAutoScalingUpdate *scalingUpdate
	ReplicaUpdates                            []replicaScalingUpdate
}

// updateTableReplicaAutoScaling answers UpdateTableReplicaAutoScaling.
func updateTableReplicaAutoScaling(q *request, ctx context.Context) error {
	var in updateScalingInput
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	var before *table.Definition
	_, err = q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		before = d.Clone()
		if err := q.h.scale(d, &in); err != nil {
			return err
		}
		d.Version = q.h.version(d)
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errNoGlobalTable("ResourceNotFoundException", name)
	}
	if err != nil {
		return err
	}
	return q.h.encodeScaling(q, before) // the service tells what was
}

func (in *updateScalingInput) check() error {
	var c constraints
	if in.GlobalSecondaryIndexUpdates != nil {
		c.count(len(in.GlobalSecondaryIndexUpdates), "globalSecondaryIndexUpdates", 1, 0)
	}
	for i, x := range in.GlobalSecondaryIndexUpdates {
		at := elementOf("globalSecondaryIndexUpdates", i)
		if x.IndexName != nil {
			c.name(*x.IndexName, at+"indexName", 3)
		}
		c.scaling(x.ProvisionedWriteCapacityAutoScalingUpdate, at+"provisionedWriteCapacityAutoScalingUpdate")
	}
	c.scaling(in.ProvisionedWriteCapacityAutoScalingUpdate, "provisionedWriteCapacityAutoScalingUpdate")
	if in.ReplicaUpdates != nil {
		c.count(len(in.ReplicaUpdates), "replicaUpdates", 1, 0)
	}
	for i, r := range in.ReplicaUpdates {
		at := elementOf("replicaUpdates", i)
		if r.RegionName == nil {
			c.required(at + "regionName")
		}
		c.scaling(r.ReplicaProvisionedReadCapacityAutoScalingUpdate, at+"replicaProvisionedReadCapacityAutoScalingUpdate")
		for j, x := range r.ReplicaGlobalSecondaryIndexUpdates {
			at := elementOf(at+"replicaGlobalSecondaryIndexUpdates", j)
			if x.IndexName != nil {
				c.name(*x.IndexName, at+"indexName", 3)
			}
			c.scaling(x.ProvisionedReadCapacityAutoScalingUpdate, at+"provisionedReadCapacityAutoScalingUpdate")
		}
	}
	return c.err()
}

// scale makes the changes on a copy of the definition.
func (h *Handler) scale(d *table.Definition, in *updateScalingInput) error {
	name, own := d.Schema.Name, h.cfg.Region.Name()
	switch {
	case len(d.Others(own)) == 0:
		return errNoGlobalTable("ResourceNotFoundException", name)
	case d.Status == table.Creating || d.Status == table.Deleting:
		return errChanging(d)
	}
	refuse := func(format string, args ...any) error {
		return invalid("Failed to update settings for global table with name: ‘%s’ "+format, append([]any{name}, args...)...)
	}
	if in.ProvisionedWriteCapacityAutoScalingUpdate == nil && in.GlobalSecondaryIndexUpdates == nil && in.ReplicaUpdates == nil {
		return refuse("because at least one update parameter must be specified.")
	}
	if u := in.ProvisionedWriteCapacityAutoScalingUpdate; u != nil {
		if err := h.setScaling(d, "", "", u); err != nil {
			return err
		}
	}
	for _, x := range in.GlobalSecondaryIndexUpdates {
		if x.IndexName == nil || !scalable(d, *x.IndexName) {
			return dynamoError("ResourceNotFoundException", "Failed to update settings for global table with name: ‘%s’ because the global secondary indexes with names: ‘[%s]’ do not exist.", name, named(x.IndexName))
		}
		if err := h.setScaling(d, "", *x.IndexName, x.ProvisionedWriteCapacityAutoScalingUpdate); err != nil {
			return err
		}
	}
	var regions []string
	for _, r := range in.ReplicaUpdates {
		if slices.Contains(regions, *r.RegionName) {
			return refuse("because the regions: ‘[%s]’ were specified more than once.", shorten(*r.RegionName))
		}
		regions = append(regions, *r.RegionName)
		if have := d.Replica(*r.RegionName); have == nil || !have.Live() {
			return dynamoError("ResourceNotFoundException", "Failed to update settings for global table with name: ‘%s’ because there is no replica in region: ‘%s’.", name, shorten(*r.RegionName))
		}
		if r.ReplicaProvisionedReadCapacityAutoScalingUpdate == nil && len(r.ReplicaGlobalSecondaryIndexUpdates) == 0 {
			return refuse("because at least one update parameter must be specified for region: ‘%s’.", *r.RegionName)
		}
		if err := h.setScaling(d, *r.RegionName, "", r.ReplicaProvisionedReadCapacityAutoScalingUpdate); err != nil {
			return err
		}
		for _, x := range r.ReplicaGlobalSecondaryIndexUpdates {
			if x.IndexName == nil || !scalable(d, *x.IndexName) {
				return dynamoError("ResourceNotFoundException", "Failed to update settings for global table with name: ‘%s’ because a global secondary index with name: ‘%s’ does not exist in region: ‘%s’.", name, named(x.IndexName), *r.RegionName)
			}
			if err := h.setScaling(d, *r.RegionName, *x.IndexName, x.ProvisionedReadCapacityAutoScalingUpdate); err != nil {
				return err
			}
		}
	}
	return nil
}

// scalable tells whether the table has a global index, and not only will have.
func scalable(d *table.Definition, index string) bool {
	x := d.Schema.Index(index)
	return x != nil && x.Global && !x.Backfilling
}

func named(name *string) string {
	if name == nil {
		return "null"
	}
	return *name
}

// setScaling makes an update to a setting, nil for none: it is given whole, or taken away.
func (h *Handler) setScaling(d *table.Definition, region, index string, given *scalingUpdate) error {
	if given == nil {
		return nil
	}
	name := d.Schema.Name
	var here, missing []string
	for _, m := range [...]struct {
		name  string
		given bool
	}{{"MaximumUnits", given.MaximumUnits != nil}, {"ScalingPolicyUpdate", given.ScalingPolicyUpdate != nil}, {"MinimumUnits", given.MinimumUnits != nil}} {
		if m.given {
			here = append(here, "'"+m.name+"'")
		} else {
			missing = append(missing, "'"+m.name+"'")
		}
	}
	off := given.AutoScalingDisabled != nil && *given.AutoScalingDisabled
	parameters, kind, parent := "GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate", "Write", "table/"+name
	if region != "" {
		parameters, kind = "ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate", "Read"
	}
	if index != "" {
		parent += "/index/" + index
	}
	i, have := findScaling(d, region, index)
	switch {
	case off && here != nil:
		return invalid("Failed to update settings for global table with name ‘%s’: Parameters %s must be left blank when disabling auto scaling.", name, strings.Join(here, ", "))
	case off:
		if have {
			d.Scaling = slices.Delete(d.Scaling, i, i+1)
		}
		return nil
	case missing != nil:
		return invalid("Failed to update settings for global table with name: ‘%s’: Parameters %s are required unless auto scaling is being disabled.", name, strings.Join(missing, ", "))
	case d.Billing == table.OnDemand:
		var regions []string
		for _, r := range d.Replicas {
			if r.Live() {
				regions = append(regions, "'"+strings.ToUpper(r.Region)+"'")
			}
		}
		return invalid("Failed to update global table with name ‘%s‘. Replicas %s BillingMode is PayPerRequest. You must convert table's BillingMode to PROVISIONED to set parameters: '%s'.", name, strings.Join(regions, ", "), parameters)
	case *given.MaximumUnits < *given.MinimumUnits:
		return errAutoScaling("Maximum capacity cannot be less than minimum capacity")
	}
	target := given.ScalingPolicyUpdate.TargetTrackingScalingPolicyConfiguration
	if t := *target.TargetValue; t < 10 || t > 90 {
		return errAutoScaling("For predefined metric type DynamoDB%sCapacityUtilization, target value must be between '10.0' and '90.0', but was '%s'.", kind, decimal(t))
	}
	s := table.Scaling{
		Region: region, Index: index, Min: *given.MinimumUnits, Max: *given.MaximumUnits,
		Role:   "arn:aws:iam::" + h.cfg.Account + ":role/aws-service-role/dynamodb.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_DynamoDBTable",
		Policy: table.ScalingPolicy{Name: "DynamoDB" + kind + "CapacityUtilization:" + parent, Target: *target.TargetValue},
	}
	set(&s.Role, given.AutoScalingRoleArn)
	set(&s.Policy.Name, given.ScalingPolicyUpdate.PolicyName)
	set(&s.Policy.InSeconds, target.ScaleInCooldown)
	set(&s.Policy.OutSeconds, target.ScaleOutCooldown)
	set(&s.Policy.NoScaleIn, target.DisableScaleIn)
	if !have {
		d.Scaling = slices.Insert(d.Scaling, i, table.Scaling{})
	}
	d.Scaling[i] = s
	return nil
}

// errAutoScaling is an error of Application Auto Scaling, as the service passes it on.
func errAutoScaling(format string, args ...any) error {
	return invalid(format+" (Service: AWSApplicationAutoScaling; Status Code: 400; Error Code: ValidationException; Request ID: %s; Proxy: null)", append(args, "00000000-0000-0000-0000-000000000000")...)
}

// decimal writes a number as Java does, with at least one decimal.
func decimal(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// set sets what was given.
func set[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}
