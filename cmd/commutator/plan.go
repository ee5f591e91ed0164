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

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/table"
)

// step is one change on the way to what a file says.
type step struct {
	what  string // completes "would ..."
	loses bool   // data goes with it
	do    func(ctx context.Context) error
}

// plan is one table on its way.
type plan struct {
	*applier
	want     *table.GlobalTable
	home     *client                 // the region that the table is made and changed in
	now      *types.TableDescription // as home describes it; nil: not there
	warnings []string
	added    []string // regions whose replica this run has begun to make
	removed  []string // the same for those to remove
}

// open finds out where the table is.
func (a *applier) open(ctx context.Context, t *table.GlobalTable) (*plan, error) {
	p := &plan{applier: a, want: t}
	var regions, known []string
	for _, r := range t.Replicas {
		regions = append(regions, r.Region)
		c := a.client(r.Region)
		if c == nil {
			continue
		}
		d, err := c.describe(ctx, t.TableName)
		if err != nil {
			return nil, err
		}
		if d != nil && d.TableStatus == types.TableStatusDeleting {
			return nil, fmt.Errorf("it is being deleted in %s; run this again once it is gone", c.region)
		}
		if p.home == nil || p.now == nil && d != nil {
			p.home, p.now = c, d
		}
	}
	for _, c := range a.clients {
		known = append(known, c.region)
	}
	if p.home == nil {
		return nil, fmt.Errorf("it is to be in %s, and the endpoints serve %s; name others with --endpoint", strings.Join(regions, ", "), strings.Join(known, ", "))
	}
	if p.now != nil {
		return p, nil
	}
	for _, c := range a.clients {
		d, err := c.describe(ctx, t.TableName)
		if err != nil {
			return nil, err
		}
		if d != nil {
			return nil, fmt.Errorf("there is such a table in %s, where the file has no replica of it: add that replica to the file, or delete the table", c.region)
		}
	}
	return p, nil
}

func (a *applier) client(region string) *client {
	for _, c := range a.clients {
		if c.region == region {
			return c
		}
	}
	return nil
}

// describe returns the table's description, nil where there is none.
func (c *client) describe(ctx context.Context, name string) (*types.TableDescription, error) {
	d, err := c.dynamo.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.region, plain(err))
	}
	return d.Table, nil
}

// steps returns what is to be done, in order.
func (p *plan) steps(ctx context.Context) ([]step, error) {
	var out []step
	if p.now == nil {
		out = append(out, step{"create the table in " + p.home.region, false, p.create})
	} else {
		shape, err := p.shape()
		if err != nil {
			return nil, err
		}
		out = append(out, shape...)
	}
	replicas, err := p.replicas(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, replicas...)
	expiry, err := p.timeToLive(ctx)
	if err != nil {
		return nil, err
	}
	out = append(out, expiry...)
	for _, r := range p.want.Replicas {
		own, err := p.ownSettings(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, own...)
	}
	return out, nil
}

func (p *plan) update(in dynamodb.UpdateTableInput) func(context.Context) error {
	return p.updateIn(p.home, in)
}

func (p *plan) updateIn(c *client, in dynamodb.UpdateTableInput) func(context.Context) error {
	in.TableName = &p.want.TableName
	return func(ctx context.Context) error {
		_, err := c.dynamo.UpdateTable(ctx, &in)
		return err
	}
}

// replicas adds and removes regions.
func (p *plan) replicas(ctx context.Context) ([]step, error) {
	have := map[string]bool{p.home.region: true}
	var out, removals []step
	wanted := func(region string) bool {
		return slices.ContainsFunc(p.want.Replicas, func(r table.FileReplica) bool { return r.Region == region })
	}
	if p.now != nil {
		for _, r := range p.now.Replicas {
			have[*r.RegionName] = r.ReplicaStatus != types.ReplicaStatusCreationFailed
			if !wanted(*r.RegionName) && r.ReplicaStatus != types.ReplicaStatusDeleting {
				if err := p.removable(ctx, *r.RegionName); err != nil {
					return nil, err
				}
				remove := p.update(dynamodb.UpdateTableInput{
					ReplicaUpdates: []types.ReplicationGroupUpdate{{Delete: &types.DeleteReplicationGroupMemberAction{RegionName: r.RegionName}}},
				})
				removals = append(removals, step{"remove the replica in " + *r.RegionName, true, func(ctx context.Context) error {
					p.removed = append(p.removed, *r.RegionName)
					return remove(ctx)
				}})
			}
		}
	}
	for _, r := range p.want.Replicas {
		if have[r.Region] {
			continue
		}
		create := p.update(dynamodb.UpdateTableInput{
			ReplicaUpdates: []types.ReplicationGroupUpdate{{Create: &types.CreateReplicationGroupMemberAction{RegionName: &r.Region}}},
		})
		out = append(out, step{"add the replica in " + r.Region, false, func(ctx context.Context) error {
			p.added = append(p.added, r.Region)
			return create(ctx)
		}})
	}
	return append(out, removals...), nil
}

// removable refuses to remove a replica that is protected against it.
func (p *plan) removable(ctx context.Context, region string) error {
	c := p.client(region)
	if c == nil {
		return nil
	}
	d, err := c.describe(ctx, p.want.TableName)
	if err == nil && d != nil && aws.ToBool(d.DeletionProtectionEnabled) {
		err = fmt.Errorf("the file does not name %s, where deletion protection is on: switch it off there first", region)
	}
	return err
}

// ownSettings brings what each replica has for itself to what the file says: tags and deletion
// protection. The tags that say how writes meet hold for all regions, and are shown in each.
func (p *plan) ownSettings(ctx context.Context, r table.FileReplica) ([]step, error) {
	c := p.client(r.Region)
	if c == nil {
		if len(r.Tags) > 0 || r.DeletionProtectionEnabled {
			p.warnings = append(p.warnings, "tags and deletion protection of "+r.Region+" are left alone: no endpoint of it is known; name it with --endpoint")
		}
		return nil, nil
	}
	if p.now == nil && c == p.home {
		return p.reads(c, nil, r), nil // made with the rest
	}
	d, err := c.describe(ctx, p.want.TableName)
	if err != nil {
		return nil, err
	}
	tags, protected := map[string]string{}, false
	if d != nil {
		list, err := c.dynamo.ListTagsOfResource(ctx, &dynamodb.ListTagsOfResourceInput{ResourceArn: d.TableArn})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.region, plain(err))
		}
		for _, t := range list.Tags {
			tags[*t.Key] = *t.Value
		}
		protected = aws.ToBool(d.DeletionProtectionEnabled)
	}
	var out []step
	var set []types.Tag
	var names, drop []string
	for _, t := range p.tags(r) {
		if value, ok := tags[*t.Key]; !ok || value != *t.Value {
			set = append(set, t)
			names = append(names, *t.Key+"="+*t.Value)
		}
		delete(tags, *t.Key)
	}
	for key := range tags {
		drop = append(drop, key)
	}
	slices.Sort(drop)
	if len(drop) > 0 {
		out = append(out, step{fmt.Sprintf("take the tags %s away in %s", strings.Join(drop, ", "), c.region), false, p.onTable(c, func(ctx context.Context, arn *string) error {
			_, err := c.dynamo.UntagResource(ctx, &dynamodb.UntagResourceInput{ResourceArn: arn, TagKeys: drop})
			return err
		})})
	}
	if len(set) > 0 {
		out = append(out, step{fmt.Sprintf("tag %s in %s", strings.Join(names, ", "), c.region), false, p.onTable(c, func(ctx context.Context, arn *string) error {
			_, err := c.dynamo.TagResource(ctx, &dynamodb.TagResourceInput{ResourceArn: arn, Tags: set})
			return err
		})})
	}
	if want := r.DeletionProtectionEnabled; want != protected {
		what := "switch deletion protection off in "
		if want {
			what = "switch deletion protection on in "
		}
		out = append(out, step{what + c.region, false, p.updateIn(c, dynamodb.UpdateTableInput{DeletionProtectionEnabled: &want})})
	}
	return append(out, p.reads(c, d, r)...), nil
}

// reads brings how much a replica may be read to what the file says of it. d describes the table there, nil where it is not there yet.
func (p *plan) reads(c *client, d *types.TableDescription, r table.FileReplica) []step {
	if len(p.want.Replicas) < 2 {
		return nil // nothing is overridden in a table of one region
	}
	provisioned := p.billing() == types.BillingModeProvisioned
	differ := false
	// over returns what is to be overridden.
	over := func(reads *table.FileReads, units *types.ProvisionedThroughputDescription, most *types.OnDemandThroughput) (*types.ProvisionedThroughputOverride, *types.OnDemandThroughputOverride) {
		read, max := reads.Units()
		switch {
		case provisioned && read > 0:
			differ = differ || units == nil || aws.ToInt64(units.ReadCapacityUnits) != read
			return &types.ProvisionedThroughputOverride{ReadCapacityUnits: &read}, nil
		case !provisioned && max > 0:
			differ = differ || most == nil || aws.ToInt64(most.MaxReadRequestUnits) != max
			return nil, &types.OnDemandThroughputOverride{MaxReadRequestUnits: &max}
		}
		return nil, nil
	}
	if d == nil {
		d = &types.TableDescription{}
	}
	change := &types.UpdateReplicationGroupMemberAction{RegionName: &r.Region}
	change.ProvisionedThroughputOverride, change.OnDemandThroughputOverride = over(&r.FileReads, d.ProvisionedThroughput, d.OnDemandThroughput)
	for _, x := range r.GlobalSecondaryIndexes {
		var now types.GlobalSecondaryIndexDescription
		for _, have := range d.GlobalSecondaryIndexes {
			if aws.ToString(have.IndexName) == x.IndexName {
				now = have
			}
		}
		of := types.ReplicaGlobalSecondaryIndex{IndexName: &x.IndexName}
		if of.ProvisionedThroughputOverride, of.OnDemandThroughputOverride = over(&x.FileReads, now.ProvisionedThroughput, now.OnDemandThroughput); of.ProvisionedThroughputOverride != nil || of.OnDemandThroughputOverride != nil {
			change.GlobalSecondaryIndexes = append(change.GlobalSecondaryIndexes, of)
		}
	}
	if !differ {
		return nil
	}
	return []step{{"set how much may be read in " + c.region, false, p.updateIn(c, dynamodb.UpdateTableInput{ReplicaUpdates: []types.ReplicationGroupUpdate{{Update: change}}})}}
}

// onTable does something to the table by its ARN in a region, where it is by then.
func (p *plan) onTable(c *client, do func(ctx context.Context, arn *string) error) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := c.describe(ctx, p.want.TableName)
		if err != nil {
			return err
		}
		if d == nil {
			return fmt.Errorf("%s has no such table", c.region)
		}
		return do(ctx, d.TableArn)
	}
}

// settle waits until the table is ACTIVE in all its regions, with all replicas and indexes, and all
// regions have the same definition.
func (p *plan) settle(ctx context.Context) error {
	var waiting, last, said string
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		list, err := p.unsettled(ctx)
		if err != nil || len(list) == 0 {
			return true, err
		}
		waiting = strings.Join(list, ", ")
		if waiting == last && waiting != said { // not only in passing
			said = waiting
			fmt.Fprintf(p.progress, "%s: waiting: %s\n", p.want.TableName, waiting)
		}
		last = waiting
		return false, nil
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w; still waiting: %s; what has begun goes on, and apply may be run again", context.Cause(ctx), waiting)
	}
	return err
}

// unsettled names what has not come to rest.
func (p *plan) unsettled(ctx context.Context) ([]string, error) {
	d, err := p.home.describe(ctx, p.want.TableName)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, fmt.Errorf("the table is gone from %s", p.home.region)
	}
	var out []string
	if d.TableStatus != types.TableStatusActive {
		out = append(out, fmt.Sprintf("%s is %s", p.home.region, d.TableStatus))
	}
	for _, x := range d.GlobalSecondaryIndexes {
		if x.IndexStatus != types.IndexStatusActive {
			out = append(out, fmt.Sprintf("index %s is %s", *x.IndexName, x.IndexStatus))
		}
	}
	for _, r := range d.Replicas {
		switch {
		case r.ReplicaStatus == types.ReplicaStatusActive || *r.RegionName == p.home.region:
		case r.ReplicaStatus != types.ReplicaStatusCreationFailed:
			out = append(out, fmt.Sprintf("%s is %s", *r.RegionName, r.ReplicaStatus))
		case slices.Contains(p.added, *r.RegionName):
			return nil, fmt.Errorf("the replica in %s could not be made: there is another table of that name", *r.RegionName)
		}
	}
	for _, region := range p.removed {
		c := p.client(region)
		if c == nil {
			continue
		}
		d, err := c.describe(ctx, p.want.TableName)
		if err != nil {
			return nil, err
		}
		if d != nil {
			out = append(out, region+" has it still")
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return p.disagreeing(ctx)
}

// disagreeing names the regions that have not got the home region's definition yet. A change in one of
// them would undo the last change at home.
func (p *plan) disagreeing(ctx context.Context) ([]string, error) {
	home, err := p.home.tableStatus(ctx, p.want.TableName)
	if err != nil || home == nil {
		return nil, err
	}
	var out []string
	for _, r := range home.Replicas {
		c := p.client(r.Region)
		if c == nil || c == p.home || r.Status != table.Active {
			continue
		}
		theirs, err := c.tableStatus(ctx, p.want.TableName)
		if err != nil {
			return nil, err
		}
		if theirs == nil || theirs.Version != home.Version || theirs.Status != table.Active {
			out = append(out, r.Region+" has an older definition")
		}
	}
	return out, nil
}

// tableStatus returns what a region says of a table, nil where it has none.
func (c *client) tableStatus(ctx context.Context, name string) (*admin.TableStatus, error) {
	var s admin.Status
	if err := c.operator(ctx, "Status", admin.StatusRequest{}, &s); err != nil {
		return nil, err
	}
	for i := range s.Tables {
		if s.Tables[i].Name == name {
			return &s.Tables[i], nil
		}
	}
	return nil, nil
}
