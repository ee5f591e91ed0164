package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

type updateTableInput struct {
	TableName                   *string
	AttributeDefinitions        []attributeDefinition
	BillingMode                 *string
	ProvisionedThroughput       *throughputShape
	OnDemandThroughput          *onDemandShape
	WarmThroughput              *struct{}
	GlobalSecondaryIndexUpdates []indexUpdate
	StreamSpecification         *streamShape
	SSESpecification            *sseShape
	ReplicaUpdates              []replicaUpdate
	TableClass                  *string
	DeletionProtectionEnabled   *bool
	MultiRegionConsistency      *string
	GlobalTableWitnessUpdates   []struct{}
	VectorIndexUpdates          []struct{}
}

type indexUpdate struct {
	Create *indexShape
	Update *struct {
		IndexName             *string
		ProvisionedThroughput *throughputShape
		OnDemandThroughput    *onDemandShape
		WarmThroughput        *struct{}
	}
	Delete *struct{ IndexName *string }
}

type replicaUpdate struct {
	Create, Update *struct {
		RegionName                    *string
		KMSMasterKeyId                *string
		ProvisionedThroughputOverride *struct{ ReadCapacityUnits *int64 }
		OnDemandThroughputOverride    *onDemandShape
		GlobalSecondaryIndexes        []struct{}
		TableClassOverride            *string
	}
	Delete, Disassociate *struct{ RegionName *string }
}

// updateTable answers UpdateTable. All that one request asks for is done in one change, or none of it.
func updateTable(q *request, ctx context.Context) error {
	var in updateTableInput
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := tableName(in.TableName, 1)
	if err != nil {
		return err
	}
	if err := in.checkModel(); err != nil {
		return err
	}
	if err := in.checkAsked(); err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error { return q.h.update(d, &in) })
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	return q.encode(struct{ TableDescription tableDescription }{q.h.describe(d)})
}

func (in *updateTableInput) checkModel() error {
	var c constraints
	c.definitions(in.AttributeDefinitions)
	c.billing(in.BillingMode, in.ProvisionedThroughput)
	c.settings(in.StreamSpecification, in.SSESpecification, in.TableClass)
	if in.MultiRegionConsistency != nil {
		c.enum(*in.MultiRegionConsistency, "multiRegionConsistency", "EVENTUAL", "STRONG")
	}
	for i := range in.GlobalSecondaryIndexUpdates {
		u := &in.GlobalSecondaryIndexUpdates[i]
		at := fmt.Sprintf("globalSecondaryIndexUpdates.%d.member.", i+1)
		if u.Create != nil {
			c.index(u.Create, at+"create.")
		}
		if u.Update != nil {
			c.indexName(u.Update.IndexName, at+"update.indexName")
			c.throughput(u.Update.ProvisionedThroughput, at+"update.provisionedThroughput")
		}
		if u.Delete != nil {
			c.indexName(u.Delete.IndexName, at+"delete.indexName")
		}
	}
	if in.ReplicaUpdates != nil {
		c.count(len(in.ReplicaUpdates), "replicaUpdates", 1, 0)
	}
	for i := range in.ReplicaUpdates {
		u := &in.ReplicaUpdates[i]
		at := fmt.Sprintf("replicaUpdates.%d.member.", i+1)
		if u.Create != nil && u.Create.RegionName == nil {
			c.required(at + "create.regionName")
		}
		if u.Update != nil && u.Update.RegionName == nil {
			c.required(at + "update.regionName")
		}
		if u.Delete != nil && u.Delete.RegionName == nil {
			c.required(at + "delete.regionName")
		}
	}
	return c.err()
}

func (c *constraints) indexName(name *string, at string) {
	if name == nil {
		c.required(at)
	} else {
		c.name(*name, at, 3)
	}
}

// asksMoreThanProtection tells whether the request changes anything that all replicas of a global table
// share; deletion protection is each replica's own.
func (in *updateTableInput) asksMoreThanProtection() bool {
	return in.BillingMode != nil || in.ProvisionedThroughput != nil || in.OnDemandThroughput != nil || in.WarmThroughput != nil || len(in.GlobalSecondaryIndexUpdates) > 0 ||
		in.StreamSpecification != nil || in.SSESpecification != nil || len(in.ReplicaUpdates) > 0 || in.TableClass != nil
}

// checkAsked refuses requests for nothing, for too much at once, and for what is not there.
func (in *updateTableInput) checkAsked() error {
	switch {
	case in.MultiRegionConsistency != nil && *in.MultiRegionConsistency == "STRONG", len(in.GlobalTableWitnessUpdates) > 0:
		return invalid("One or more parameter values were invalid: MultiRegionConsistency STRONG is not supported; writes of several regions are merged")
	case len(in.VectorIndexUpdates) > 0:
		return invalid("VectorIndexUpdates are not supported")
	}
	if !in.asksMoreThanProtection() && in.DeletionProtectionEnabled == nil {
		return invalid("At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required")
	}
	structural := 0
	var touched []string
	for i := range in.GlobalSecondaryIndexUpdates {
		u := &in.GlobalSecondaryIndexUpdates[i]
		var name string
		n := 0
		if u.Create != nil {
			name, n = *u.Create.IndexName, n+1
			structural++
		}
		if u.Update != nil {
			name, n = *u.Update.IndexName, n+1
		}
		if u.Delete != nil {
			name, n = *u.Delete.IndexName, n+1
			structural++
		}
		if n != 1 {
			return invalid("One or more parameter values were invalid: One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null")
		}
		if slices.Contains(touched, name) {
			return invalid("One or more parameter values were invalid: Only one global secondary index update per index is allowed simultaneously. Index: %s", name)
		}
		touched = append(touched, name)
	}
	if structural > 1 {
		return errLimit("Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
	}
	for i := range in.ReplicaUpdates {
		u := &in.ReplicaUpdates[i]
		n := 0
		for _, given := range [...]bool{u.Create != nil, u.Update != nil, u.Delete != nil, u.Disassociate != nil} {
			if given {
				n++
			}
		}
		switch {
		case u.Disassociate != nil:
			return invalid("One or more parameter values were invalid: ReplicaUpdates: Disassociate is not supported yet")
		case n != 1:
			return invalid("One or more parameter values were invalid: Exactly one of Create, Update and Delete must be given in each of ReplicaUpdates")
		}
	}
	return nil
}

// update makes the changes on a copy of the definition.
func (h *Handler) update(d *table.Definition, in *updateTableInput) error {
	if d.Status == table.Creating || d.Status == table.Deleting {
		return errChanging(d)
	}
	if err := updateCapacity(d, in); err != nil {
		return err
	}
	for i := range in.GlobalSecondaryIndexUpdates {
		if err := h.updateIndex(d, in.AttributeDefinitions, &in.GlobalSecondaryIndexUpdates[i]); err != nil {
			return err
		}
	}
	if err := h.updateStream(d, in.StreamSpecification); err != nil {
		return err
	}
	if err := setSSE(d, in.SSESpecification); err != nil {
		return err
	}
	if in.TableClass != nil {
		d.Class = *in.TableClass
	}
	if err := h.updateReplicas(d, in.ReplicaUpdates); err != nil {
		return err
	}
	if in.DeletionProtectionEnabled != nil {
		d.DeletionProtection = *in.DeletionProtectionEnabled
	}
	if in.asksMoreThanProtection() {
		d.Version = h.version(d)
	}
	d.Status = table.Updating // the region makes it ACTIVE again once it follows the new definition
	return nil
}

// version stamps a change to what all replicas share. It is above the definition's last version even
// when that came from a region whose clock is ahead.
func (h *Handler) version(d *table.Definition) uint64 {
	return max(uint64(h.cfg.Region.Stamp()), d.Version+1)
}

func updateCapacity(d *table.Definition, in *updateTableInput) error {
	mode := d.Billing
	if in.BillingMode != nil {
		mode = table.Billing(*in.BillingMode)
	}
	switch {
	case mode != d.Billing:
		if err := setBilling(d, in.BillingMode, in.ProvisionedThroughput, in.OnDemandThroughput); err != nil {
			return err
		}
		for i := range d.Schema.Indexes {
			x := &d.Schema.Indexes[i]
			x.Throughput = table.Throughput{}
			if x.Global && mode == table.Provisioned && !in.updatesThroughput(x.Name) {
				return invalid("One or more parameter values were invalid: ProvisionedThroughput must be specified for index: %s", x.Name)
			}
		}
	case mode == table.OnDemand:
		if in.ProvisionedThroughput != nil {
			return invalid("One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
		}
		return setOnDemand(&d.OnDemand, in.OnDemandThroughput)
	case in.OnDemandThroughput != nil:
		return invalid("One or more parameter values were invalid: OnDemandThroughput cannot be specified when BillingMode is PROVISIONED")
	case in.ProvisionedThroughput != nil:
		t := table.Throughput{Read: *in.ProvisionedThroughput.ReadCapacityUnits, Write: *in.ProvisionedThroughput.WriteCapacityUnits}
		if t == d.Throughput && in.BillingMode == nil {
			return invalid("The provisioned throughput for the table will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for the table: %d. Requested ReadCapacityUnits: %d. Current WriteCapacityUnits provisioned for the table: %d. Requested WriteCapacityUnits: %d. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits.", t.Read, t.Read, t.Write, t.Write)
		}
		d.Throughput = t
	}
	return nil
}

func (in *updateTableInput) updatesThroughput(index string) bool {
	return slices.ContainsFunc(in.GlobalSecondaryIndexUpdates, func(u indexUpdate) bool {
		return u.Update != nil && *u.Update.IndexName == index && u.Update.ProvisionedThroughput != nil ||
			u.Delete != nil && *u.Delete.IndexName == index
	})
}

func (h *Handler) updateIndex(d *table.Definition, definitions []attributeDefinition, u *indexUpdate) error {
	s := &d.Schema
	if u.Create != nil {
		return h.createIndex(d, definitions, u.Create)
	}
	var x *table.Index
	if u.Update != nil {
		x = s.Index(*u.Update.IndexName)
	} else {
		x = s.Index(*u.Delete.IndexName)
	}
	if x == nil || !x.Global {
		return dynamoError("ResourceNotFoundException", "Requested resource not found")
	}
	if u.Delete != nil {
		s.Indexes = slices.DeleteFunc(s.Indexes, func(i table.Index) bool { return i.ID == x.ID })
		return nil
	}
	if u.Update.ProvisionedThroughput != nil {
		return setIndexThroughput(d, x, u.Update.ProvisionedThroughput)
	}
	return nil
}

// createIndex adds an index that is yet to be filled. Definitions are merged into those the table has;
// what no key uses is ignored.
func (h *Handler) createIndex(d *table.Definition, definitions []attributeDefinition, in *indexShape) error {
	s := &d.Schema
	global := 0
	for i := range s.Indexes {
		if s.Indexes[i].Backfilling {
			return errInUse("Attempt to change a resource which is still in use: Index is being created: %s", s.Indexes[i].Name)
		}
		if s.Indexes[i].Global {
			global++
		}
	}
	if s.Index(*in.IndexName) != nil {
		return invalid("Attempting to create an index which already exists")
	}
	if global == maxGlobalIndexes {
		return errLimit("One or more parameter values were invalid: GlobalSecondaryIndex count exceeds the per-table limit of %d", maxGlobalIndexes)
	}
	kinds, err := definedKinds(definitions)
	if err != nil {
		return err
	}
	for _, a := range s.Defined() {
		switch given := kinds.find(a.Name); {
		case given == nil:
			kinds = append(kinds, a)
		case given.Kind != a.Kind:
			return invalid("One or more parameter values were invalid: Type mismatch for attribute %s: it is defined as %s", a.Name, a.Kind)
		}
	}
	// The present in seconds is above the id of any index there was, those deleted among them.
	id := max(s.NextIndexID(), uint32(h.cfg.Now().Unix()))
	if err := addIndex(d, kinds, in, true); err != nil {
		return err
	}
	x := &s.Indexes[len(s.Indexes)-1]
	x.ID, x.Backfilling = id, true
	return checkIncluded(s)
}

// updateStream sets the stream. That of a global table may neither be changed nor switched off.
func (h *Handler) updateStream(d *table.Definition, given *streamShape) error {
	if given == nil {
		return nil
	}
	if len(d.Others(h.cfg.Region.Name())) > 0 {
		if *given.StreamEnabled {
			return invalid("Table already has an enabled stream: TableName: %s", d.Schema.Name)
		}
		return invalid("One or more parameter values were invalid: Disabling the stream is not allowed on a Global Table: TableName: %s", d.Schema.Name)
	}
	stream, err := h.newStream(d.Stream, given)
	if err == nil {
		d.Stream = stream
	}
	return err
}

// updateReplicas adds and removes regions. The replicator of each region carries it out.
func (h *Handler) updateReplicas(d *table.Definition, updates []replicaUpdate) error {
	own := h.cfg.Region.Name()
	stamp := h.version(d)
	for i := range updates {
		u := &updates[i]
		switch {
		case u.Create != nil:
			name := *u.Create.RegionName
			if name == own {
				return errOwnRegion()
			}
			if !slices.Contains(h.cfg.Peers(), name) {
				return invalid("One or more parameter values were invalid: Unknown region in ReplicaUpdates: %s", shorten(name))
			}
			if r := d.Replica(name); r != nil && r.Live() {
				return invalid("Failed to create a the new replica of table with name: '%s' because one or more replicas already existed as tables.", d.Schema.Name)
			}
			if r := d.Replica(own); r == nil || !r.Live() {
				d.SetReplica(own, own, table.Active, stamp)
			}
			d.SetReplica(own, name, table.Creating, stamp)
			if d.Stream == nil || !d.Stream.Enabled {
				d.Stream = h.stream("NEW_AND_OLD_IMAGES")
			}
		case u.Delete != nil:
			name := *u.Delete.RegionName
			if name == own {
				return errOwnRegion()
			}
			if r := d.Replica(name); r == nil || r.Status == table.Gone || r.Status == table.Deleting {
				return errNoReplica(d)
			}
			d.SetReplica(own, name, table.Deleting, stamp)
		case u.Update != nil:
			// A replica's own overrides are settings of capacity, which nothing is limited by.
			if r := d.Replica(*u.Update.RegionName); r == nil || !r.Live() {
				return errNoReplica(d)
			}
		}
	}
	return nil
}

func errOwnRegion() *Error {
	return invalid("Cannot add or delete the local region through ReplicaUpdates. Use CreateTable, DeleteTable, or UpdateTable as required.")
}

func errNoReplica(d *table.Definition) *Error {
	return invalid("Failed to update the replicas of table with name: '%s' because one or more replicas were not part of the global table.", d.Schema.Name)
}
