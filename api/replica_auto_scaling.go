package api

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Auto scaling settings are kept, travel to every replica, and are shown; capacity is what a client sets it to and nothing scales it.

type scalingShape struct {
	MinimumUnits        *int64 `json:",omitempty"`
	MaximumUnits        *int64 `json:",omitempty"`
	AutoScalingDisabled bool
	AutoScalingRoleArn  string               `json:",omitempty"`
	ScalingPolicies     []scalingPolicyShape `json:",omitempty"`
}

type scalingPolicyShape struct {
	PolicyName                               string
	TargetTrackingScalingPolicyConfiguration targetTrackingShape
}

type targetTrackingShape struct {
	DisableScaleIn   bool
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
	d, err := q.h.definition(name)
	if err != nil {
		return err
	}
	return q.h.encodeScaling(q, d)
}

func (h *Handler) encodeScaling(q *request, d *table.Definition) error {
	out := tableScalingShape{TableName: d.Schema.Name, TableStatus: string(d.Status), Replicas: []replicaScalingShape{}}
	replicas := d.Replicas
	if len(d.Others(h.cfg.Region.Name())) == 0 {
		replicas = []table.Replica{{Region: h.cfg.Region.Name(), Status: d.Status}}
	}
	for _, r := range replicas {
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
			if !x.Global {
				continue
			}
			status := table.Active
			if x.Backfilling {
				status = table.Creating
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
	i, ok := findScaling(d, region, index)
	if !ok {
		return nil
	}
	s := &d.Scaling[i]
	out := &scalingShape{MinimumUnits: positive(s.Min), MaximumUnits: positive(s.Max), AutoScalingDisabled: s.Off, AutoScalingRoleArn: s.Role}
	for _, p := range s.Policies {
		out.ScalingPolicies = append(out.ScalingPolicies, scalingPolicyShape{p.Name, targetTrackingShape{p.NoScaleIn, p.InSeconds, p.OutSeconds, p.Target}})
	}
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
	d, err := q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		if err := in.apply(d, q.h.cfg.Region.Name()); err != nil {
			return err
		}
		d.Version = q.h.version(d)
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	return q.h.encodeScaling(q, d)
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
	if err := c.err(); err != nil {
		return err
	}
	if in.GlobalSecondaryIndexUpdates == nil && in.ProvisionedWriteCapacityAutoScalingUpdate == nil && in.ReplicaUpdates == nil {
		return invalid("At least one of GlobalSecondaryIndexUpdates, ProvisionedWriteCapacityAutoScalingUpdate or ReplicaUpdates is required")
	}
	return nil
}

// apply makes the changes on a copy of the definition.
func (in *updateScalingInput) apply(d *table.Definition, own string) error {
	if d.Status == table.Creating || d.Status == table.Deleting {
		return errChanging(d)
	}
	if d.Billing == table.OnDemand {
		return invalid("One or more parameter values were invalid: Auto scaling cannot be set for a table whose BillingMode is PAY_PER_REQUEST")
	}
	index := func(name *string) (string, error) {
		if name == nil {
			return "", invalid("One or more parameter values were invalid: IndexName must be specified")
		}
		if x := d.Schema.Index(*name); x == nil || !x.Global {
			return "", invalid("The table does not have the specified index: %s", *name)
		}
		return *name, nil
	}
	setScaling(d, "", "", in.ProvisionedWriteCapacityAutoScalingUpdate)
	for _, x := range in.GlobalSecondaryIndexUpdates {
		name, err := index(x.IndexName)
		if err != nil {
			return err
		}
		setScaling(d, "", name, x.ProvisionedWriteCapacityAutoScalingUpdate)
	}
	for _, r := range in.ReplicaUpdates {
		if have := d.Replica(*r.RegionName); *r.RegionName != own && (have == nil || !have.Live()) {
			return errNoReplica(*r.RegionName)
		}
		setScaling(d, *r.RegionName, "", r.ReplicaProvisionedReadCapacityAutoScalingUpdate)
		for _, x := range r.ReplicaGlobalSecondaryIndexUpdates {
			name, err := index(x.IndexName)
			if err != nil {
				return err
			}
			setScaling(d, *r.RegionName, name, x.ProvisionedReadCapacityAutoScalingUpdate)
		}
	}
	return nil
}

// setScaling makes an update to a setting: what is not given stays, a policy takes the place of one with its name.
func setScaling(d *table.Definition, region, index string, given *scalingUpdate) {
	if given == nil {
		return
	}
	i, ok := findScaling(d, region, index)
	if !ok {
		d.Scaling = slices.Insert(d.Scaling, i, table.Scaling{Region: region, Index: index})
	}
	s := &d.Scaling[i]
	set(&s.Min, given.MinimumUnits)
	set(&s.Max, given.MaximumUnits)
	set(&s.Off, given.AutoScalingDisabled)
	set(&s.Role, given.AutoScalingRoleArn)
	if given.ScalingPolicyUpdate == nil {
		return
	}
	var p table.ScalingPolicy
	set(&p.Name, given.ScalingPolicyUpdate.PolicyName)
	target := given.ScalingPolicyUpdate.TargetTrackingScalingPolicyConfiguration
	set(&p.Target, target.TargetValue)
	set(&p.InSeconds, target.ScaleInCooldown)
	set(&p.OutSeconds, target.ScaleOutCooldown)
	set(&p.NoScaleIn, target.DisableScaleIn)
	s.Policies = append(slices.DeleteFunc(s.Policies, func(old table.ScalingPolicy) bool { return old.Name == p.Name }), p)
}

// set sets what was given.
func set[T any](to, given *T) {
	if given != nil {
		*to = *given
	}
}
