package api

import "context"

// Version 2017.11.29 of global tables is one that the service offers no more, and that nothing here ever had. Its operations answer
// what they answer there for any table, one of version 2019.11.21 among them: DYNAMODB.md §2 and §4.

type regionName struct{ RegionName *string }

type scalingUpdate struct {
	MinimumUnits, MaximumUnits *int64
	AutoScalingDisabled        *bool
	AutoScalingRoleArn         *string
	ScalingPolicyUpdate        *struct {
		PolicyName                               *string
		TargetTrackingScalingPolicyConfiguration *targetTracking
	}
}

type targetTracking struct {
	DisableScaleIn                    *bool
	ScaleInCooldown, ScaleOutCooldown *int64
	TargetValue                       *float64
}

// createGlobalTable answers CreateGlobalTable.
func createGlobalTable(q *request, _ context.Context) error {
	var in struct {
		GlobalTableName  *string
		ReplicationGroup []regionName
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.requiredName(in.GlobalTableName, "globalTableName")
	if in.ReplicationGroup == nil {
		c.required("replicationGroup")
	}
	if err := c.err(); err != nil {
		return err
	}
	return errVersion2017()
}

func errVersion2017() error {
	return parameter("DynamoDB global tables version 2017.11.29 is not supported. We recommend using DynamoDB global tables version 2019.11.21, instead of version 2017.11.29 (Legacy).")
}

// updateGlobalTable answers UpdateGlobalTable.
func updateGlobalTable(q *request, _ context.Context) error {
	var in struct {
		GlobalTableName *string
		ReplicaUpdates  []struct{ Create, Delete *regionName }
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.requiredName(in.GlobalTableName, "globalTableName")
	if in.ReplicaUpdates == nil {
		c.required("replicaUpdates")
	}
	for i, u := range in.ReplicaUpdates {
		at := elementOf("replicaUpdates", i)
		if u.Create != nil && u.Create.RegionName == nil {
			c.required(at + "create.regionName")
		}
		if u.Delete != nil && u.Delete.RegionName == nil {
			c.required(at + "delete.regionName")
		}
	}
	if err := c.err(); err != nil {
		return err
	}
	if len(in.ReplicaUpdates) == 0 {
		return invalid("One or more parameter values were invalid")
	}
	for _, u := range in.ReplicaUpdates {
		if u.Create != nil { // which is asked before whether the table is there
			return errVersion2017()
		}
	}
	return errNoGlobalTable("GlobalTableNotFoundException", *in.GlobalTableName)
}

// describeGlobalTable answers DescribeGlobalTable.
func describeGlobalTable(q *request, _ context.Context) error {
	var in struct{ GlobalTableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.requiredName(in.GlobalTableName, "globalTableName")
	if err := c.err(); err != nil {
		return err
	}
	return dynamoError("GlobalTableNotFoundException", "Global table not found: Global table with name: '%s' does not exist.", *in.GlobalTableName)
}

// describeGlobalTableSettings answers DescribeGlobalTableSettings.
func describeGlobalTableSettings(q *request, _ context.Context) error {
	var in struct{ GlobalTableName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.requiredName(in.GlobalTableName, "globalTableName")
	return c.orNoGlobalTable(in.GlobalTableName)
}

// updateGlobalTableSettings answers UpdateGlobalTableSettings.
func updateGlobalTableSettings(q *request, _ context.Context) error {
	type indexSettings struct {
		IndexName                                                   *string
		ProvisionedWriteCapacityUnits, ProvisionedReadCapacityUnits *int64
		ProvisionedWriteCapacityAutoScalingSettingsUpdate           *scalingUpdate
		ProvisionedReadCapacityAutoScalingSettingsUpdate            *scalingUpdate
	}
	var in struct {
		GlobalTableName                                              *string
		GlobalTableBillingMode                                       *string
		GlobalTableProvisionedWriteCapacityUnits                     *int64
		GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate *scalingUpdate
		GlobalTableGlobalSecondaryIndexSettingsUpdate                []indexSettings
		ReplicaSettingsUpdate                                        []struct {
			RegionName                                              *string
			ReplicaProvisionedReadCapacityUnits                     *int64
			ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate *scalingUpdate
			ReplicaGlobalSecondaryIndexSettingsUpdate               []indexSettings
			ReplicaTableClass                                       *string
		}
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.requiredName(in.GlobalTableName, "globalTableName")
	if in.GlobalTableBillingMode != nil {
		c.enum(*in.GlobalTableBillingMode, "globalTableBillingMode", "PROVISIONED", "PAY_PER_REQUEST")
	}
	c.units(in.GlobalTableProvisionedWriteCapacityUnits, "globalTableProvisionedWriteCapacityUnits")
	c.scaling(in.GlobalTableProvisionedWriteCapacityAutoScalingSettingsUpdate, "globalTableProvisionedWriteCapacityAutoScalingSettingsUpdate")
	indexes := func(list []indexSettings, at string) {
		if list != nil {
			c.count(len(list), at, 1, maxGlobalIndexes)
		}
		for i := range list {
			x, at := &list[i], elementOf(at, i)
			c.indexName(x.IndexName, at+"indexName")
			c.units(x.ProvisionedWriteCapacityUnits, at+"provisionedWriteCapacityUnits")
			c.units(x.ProvisionedReadCapacityUnits, at+"provisionedReadCapacityUnits")
			c.scaling(x.ProvisionedWriteCapacityAutoScalingSettingsUpdate, at+"provisionedWriteCapacityAutoScalingSettingsUpdate")
			c.scaling(x.ProvisionedReadCapacityAutoScalingSettingsUpdate, at+"provisionedReadCapacityAutoScalingSettingsUpdate")
		}
	}
	indexes(in.GlobalTableGlobalSecondaryIndexSettingsUpdate, "globalTableGlobalSecondaryIndexSettingsUpdate")
	if in.ReplicaSettingsUpdate != nil {
		c.count(len(in.ReplicaSettingsUpdate), "replicaSettingsUpdate", 1, 50)
	}
	for i := range in.ReplicaSettingsUpdate {
		r, at := &in.ReplicaSettingsUpdate[i], elementOf("replicaSettingsUpdate", i)
		if r.RegionName == nil {
			c.required(at + "regionName")
		}
		c.units(r.ReplicaProvisionedReadCapacityUnits, at+"replicaProvisionedReadCapacityUnits")
		c.scaling(r.ReplicaProvisionedReadCapacityAutoScalingSettingsUpdate, at+"replicaProvisionedReadCapacityAutoScalingSettingsUpdate")
		indexes(r.ReplicaGlobalSecondaryIndexSettingsUpdate, at+"replicaGlobalSecondaryIndexSettingsUpdate")
		if r.ReplicaTableClass != nil {
			c.enum(*r.ReplicaTableClass, at+"replicaTableClass", "STANDARD", "STANDARD_INFREQUENT_ACCESS")
		}
	}
	return c.orNoGlobalTable(in.GlobalTableName)
}

// listGlobalTables answers ListGlobalTables: there are none of that version.
func listGlobalTables(q *request, _ context.Context) error {
	var in struct {
		ExclusiveStartGlobalTableName *string
		Limit                         *int64
		RegionName                    *string
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	if in.ExclusiveStartGlobalTableName != nil {
		c.name(*in.ExclusiveStartGlobalTableName, "exclusiveStartGlobalTableName", 3)
	}
	if in.Limit != nil {
		c.atLeast(*in.Limit, "limit", 1)
	}
	if err := c.err(); err != nil {
		return err
	}
	return q.encode(struct{ GlobalTables []struct{} }{[]struct{}{}})
}

// orNoGlobalTable returns what is broken, or that there is no such global table.
func (c *constraints) orNoGlobalTable(name *string) error {
	if err := c.err(); err != nil {
		return err
	}
	return errNoGlobalTable("GlobalTableNotFoundException", *name)
}

// errNoGlobalTable says that there is no such global table, in the words that most operations use; each has its own exception for it.
func errNoGlobalTable(exception, name string) *Error {
	return dynamoError(exception, "Global table with name: '%s' does not exist.", name)
}

func (c *constraints) requiredName(name *string, at string) {
	if name == nil {
		c.required(at)
	} else {
		c.name(*name, at, 3)
	}
}

func (c *constraints) units(n *int64, at string) {
	if n != nil {
		c.atLeast(*n, at, 1)
	}
}

// scaling checks an auto scaling setting.
func (c *constraints) scaling(s *scalingUpdate, at string) {
	if s == nil {
		return
	}
	c.units(s.MinimumUnits, at+".minimumUnits")
	c.units(s.MaximumUnits, at+".maximumUnits")
	if s.AutoScalingRoleArn != nil {
		c.length(*s.AutoScalingRoleArn, at+".autoScalingRoleArn", 1, 1600)
	}
	p := s.ScalingPolicyUpdate
	if p == nil {
		return
	}
	if p.PolicyName != nil {
		c.length(*p.PolicyName, at+".scalingPolicyUpdate.policyName", 1, 256)
	}
	if p.TargetTrackingScalingPolicyConfiguration == nil {
		c.required(at + ".scalingPolicyUpdate.targetTrackingScalingPolicyConfiguration")
	} else if p.TargetTrackingScalingPolicyConfiguration.TargetValue == nil {
		c.required(at + ".scalingPolicyUpdate.targetTrackingScalingPolicyConfiguration.targetValue")
	}
}
