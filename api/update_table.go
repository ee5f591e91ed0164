package api

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

type updateTableInput struct {
	TableName                   *string
	AttributeDefinitions        []attributeDefinition
	BillingMode                 *string
	ProvisionedThroughput       *throughputShape
	OnDemandThroughput          *onDemandShape
	WarmThroughput              *warmShape
	GlobalSecondaryIndexUpdates []indexUpdate
	StreamSpecification         *streamShape
	SSESpecification            *sseShape
	ReplicaUpdates              []replicaUpdate
	TableClass                  *string
	DeletionProtectionEnabled   *bool

	DisassociationProtectionEnabled *bool

	MultiRegionConsistency    *string
	GlobalTableWitnessUpdates []struct {
		Create, Delete *struct{ RegionName *string }
	}
	GlobalTableSettingsReplicationMode *string
	VectorIndexUpdates                 []struct{}

	there map[string]*table.Definition // what the regions to be added or removed say of their tables by this name
}

type indexUpdate struct {
	Create *indexShape
	Update *struct {
		IndexName             *string
		ProvisionedThroughput *throughputShape
		OnDemandThroughput    *onDemandShape
		WarmThroughput        *warmShape
	}
	Delete *struct{ IndexName *string }
}

// updateTable answers UpdateTable. All that one request asks for is done in one change, or none of it.
func updateTable(q *request, ctx context.Context) error {
	var in updateTableInput
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	if err := in.checkModel(); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	q.h.askThere(ctx, name, &in)
	var before *table.Definition
	d, err := q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		before = d.Clone()
		return q.h.update(d, &in)
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	return q.encode(struct{ TableDescription tableDescription }{q.h.describeUpdate(before, d, &in)})
}

func (in *updateTableInput) checkModel() error {
	var c constraints
	c.definitions(in.AttributeDefinitions)
	c.billing(in.BillingMode, in.ProvisionedThroughput)
	for i := range in.GlobalSecondaryIndexUpdates {
		u := &in.GlobalSecondaryIndexUpdates[i]
		at := fmt.Sprintf("globalSecondaryIndexUpdates.%d.member.", i+1)
		if u.Create != nil {
			c.index(u.Create, at+"create.", 0)
		}
		if u.Update != nil {
			c.indexName(u.Update.IndexName, at+"update.indexName")
			c.throughput(u.Update.ProvisionedThroughput, at+"update.provisionedThroughput")
		}
		if u.Delete != nil {
			c.indexName(u.Delete.IndexName, at+"delete.indexName")
		}
	}
	c.stream(in.StreamSpecification)
	c.sse(in.SSESpecification)
	if in.MultiRegionConsistency != nil {
		c.enum(*in.MultiRegionConsistency, "multiRegionConsistency", "EVENTUAL", "STRONG")
	}
	c.replicas(in)
	c.replicationMode(in.GlobalTableSettingsReplicationMode)
	return c.err()
}

// The kinds of change that one request may ask for. Most must come alone.
type concern uint

const (
	ofIOPS concern = 1 << iota // BillingMode, ProvisionedThroughput
	ofOnDemand
	ofWarm
	ofIndexes
	ofStream
	ofSSE
	ofReplicas
	ofClass
	ofProtection
	ofDisassociation
	ofSettingsMode
)

// concerns returns what the request is about.
func (in *updateTableInput) concerns() concern {
	var out concern
	for _, x := range [...]struct {
		of    concern
		given bool
	}{
		{ofIOPS, in.BillingMode != nil || in.ProvisionedThroughput != nil},
		{ofOnDemand, in.OnDemandThroughput.given() != ""},
		{ofWarm, in.WarmThroughput.given()},
		{ofIndexes, len(in.GlobalSecondaryIndexUpdates) > 0},
		{ofStream, in.StreamSpecification != nil},
		{ofSSE, in.SSESpecification != nil},
		{ofReplicas, len(in.ReplicaUpdates) > 0},
		{ofClass, in.TableClass != nil},
		{ofProtection, in.DeletionProtectionEnabled != nil},
		{ofDisassociation, in.DisassociationProtectionEnabled != nil},
		{ofSettingsMode, in.GlobalTableSettingsReplicationMode != nil},
	} {
		if x.given {
			out |= x.of
		}
	}
	return out
}

// check refuses requests for nothing, for what does not go together, and for what is not there.
func (in *updateTableInput) check() error {
	if len(in.VectorIndexUpdates) > 0 {
		return invalid("VectorIndexUpdates are not supported")
	}
	of := in.concerns()
	if of == 0 {
		list := "MultiRegionConsistency, "
		if in.MultiRegionConsistency != nil {
			list = ""
		}
		return invalid("At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, %sDeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is required", list)
	}
	if err := in.checkStrong(); err != nil {
		return err
	}
	if err := checkClass(in.TableClass); err != nil {
		return err
	}
	made, dropped, err := in.checkIndexes()
	if err != nil {
		return err
	}
	if err := in.checkTogether(of, made, dropped); err != nil {
		return err
	}
	if made+dropped > 1 {
		return errOneIndex()
	}
	if err := in.StreamSpecification.checkUpdate(); err != nil {
		return err
	}
	if err := in.ProvisionedThroughput.checkBounds(""); err != nil {
		return err
	}
	if in.BillingMode != nil {
		switch table.Billing(*in.BillingMode) {
		case table.OnDemand:
			if in.ProvisionedThroughput != nil {
				return parameter("Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
			}
		case table.Provisioned:
			if in.ProvisionedThroughput == nil {
				return parameter("ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
			}
		}
	}
	return in.checkReplicas()
}

func errOneIndex() error {
	return errLimit("Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table")
}

// checkTogether refuses what the service does not change in one request.
// Source: answers of the service to every pair, recorded in public.
func (in *updateTableInput) checkTogether(of concern, made, dropped int) error {
	const alone = " must be the only operation in the request"
	structural := made+dropped > 0
	switch {
	case of&ofReplicas != 0 && of != ofReplicas:
		return parameter("Replica modification" + alone)
	case of&ofSSE != 0 && of != ofSSE:
		return parameter("Server-Side Encryption modification" + alone)
	case of&ofClass != 0 && of != ofClass:
		return parameter("TableClass modification" + alone)
	case of&ofProtection != 0 && of != ofProtection:
		return parameter("DeletionProtection modification" + alone)
	case of&ofDisassociation != 0 && of != ofDisassociation:
		return parameter("DisassociationProtection modification" + alone)
	case of&ofWarm != 0 && made > 0:
		return parameter("Create global secondary index cannot be specified when updating WarmThroughput")
	case of&ofWarm != 0 && of != ofWarm:
		return parameter("WarmThroughput" + alone)
	case of&ofOnDemand != 0 && (of&^(ofOnDemand|ofIOPS) != 0 || of&ofIOPS != 0 && in.BillingMode == nil):
		return parameter("OnDemandThroughput can only be combined with BillingMode in an UpdateTable request")
	case of&ofStream != 0 && in.ProvisionedThroughput != nil:
		return parameter("You cannot modify stream status while updating table IOPS")
	case structural && in.ProvisionedThroughput != nil && in.BillingMode == nil:
		return parameter("You cannot create or delete index while updating table IOPS")
	case structural && of&ofStream != 0:
		return parameter("You cannot create or delete index while changing stream status")
	case in.GlobalSecondaryIndexUpdates != nil && len(in.GlobalSecondaryIndexUpdates) == 0:
		return parameter("List of GlobalSecondaryIndexUpdates is empty")
	}
	return nil
}

// checkIndexes checks the updates of indexes without a look at the table, and returns how many are to be made and to be dropped.
func (in *updateTableInput) checkIndexes() (made, dropped int, err error) {
	var touched []string
	for i := range in.GlobalSecondaryIndexUpdates {
		u := &in.GlobalSecondaryIndexUpdates[i]
		var name string
		n := 0
		if u.Create != nil {
			name, n = *u.Create.IndexName, n+1
			made++
		}
		if u.Update != nil {
			name, n = *u.Update.IndexName, n+1
		}
		if u.Delete != nil {
			name, n = *u.Delete.IndexName, n+1
			dropped++
		}
		switch {
		case n == 0:
			return 0, 0, parameter("One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null")
		case n > 1:
			return 0, 0, parameter("Only one global secondary index action is allowed per GlobalSecondaryIndexUpdate object")
		case slices.Contains(touched, name):
			return 0, 0, parameter("Only one global secondary index update per index is allowed simultaneously. Index: %s", name)
		case u.Update != nil && u.Update.WarmThroughput != nil && !u.Update.WarmThroughput.given():
			return 0, 0, parameter("WarmThroughput must have at least one of ReadUnitsPerSecond or WriteUnitsPerSecond specified for index: %s", name)
		case u.Create != nil && len(in.AttributeDefinitions) == 0:
			return 0, 0, parameter("AttributeDefinitions is not specified for index: %s", name)
		}
		if u.Update != nil {
			if err := u.Update.ProvisionedThroughput.checkBounds(" for index " + name); err != nil {
				return 0, 0, err
			}
		}
		touched = append(touched, name)
	}
	return made, dropped, nil
}

// update makes the changes on a copy of the definition.
func (h *Handler) update(d *table.Definition, in *updateTableInput) error {
	if err := h.admit(d, in); err != nil {
		return err
	}
	if err := h.checkSettingsMode(d, in.GlobalTableSettingsReplicationMode); err != nil {
		return err
	}
	before := d.Clone()
	if err := h.updateCapacity(d, in); err != nil {
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
	if err := h.updateSSE(d, in.SSESpecification); err != nil {
		return err
	}
	if in.TableClass != nil {
		h.updateClass(d, *in.TableClass)
	}
	if err := h.updateReplicas(d, in); err != nil {
		return err
	}
	of := in.concerns()
	if of&ofProtection != 0 {
		d.DeletionProtection = *in.DeletionProtectionEnabled
	}
	if of&ofDisassociation != 0 {
		if len(d.Others(h.cfg.Region.Name())) == 0 {
			return parameter("DisassociationProtection can only be modified for a Global Table replica.")
		}
		d.Disassociable = !*in.DisassociationProtectionEnabled
	}
	if of&ofSettingsMode != 0 {
		d.SettingsMode = *in.GlobalTableSettingsReplicationMode
	}
	if reflect.DeepEqual(before, d) {
		return nil
	}
	if of&^(ofProtection|ofDisassociation|ofSettingsMode) != 0 { // which are each replica's own; everything else all replicas share
		d.Version = h.version(d)
	}
	if d.Status == table.Active && in.takesTime(of) {
		d.Status = table.Updating // the region makes it ACTIVE again once it follows the new definition
	}
	return nil
}

// takesTime tells whether the table is UPDATING while the changes are carried out.
func (in *updateTableInput) takesTime(of concern) bool {
	if of&(ofIOPS|ofStream|ofClass|ofReplicas) != 0 {
		return true
	}
	return slices.ContainsFunc(in.GlobalSecondaryIndexUpdates, func(u indexUpdate) bool { return u.Update == nil })
}

// admit refuses changes to a table that is being changed. What the service lets through meanwhile is let through: it depends on the
// kind of both changes.
func (h *Handler) admit(d *table.Definition, in *updateTableInput) error {
	if d.Status == table.Creating || d.Status == table.Deleting {
		return errChanging(d)
	}
	var filling, deleting []string
	for i := range d.Schema.Indexes {
		switch x := &d.Schema.Indexes[i]; {
		case x.Deleting:
			deleting = append(deleting, x.Name)
		case x.Backfilling:
			filling = append(filling, x.Name)
		}
	}
	of := in.concerns()
	for i := range in.GlobalSecondaryIndexUpdates {
		u := &in.GlobalSecondaryIndexUpdates[i]
		var name string
		switch {
		case u.Update != nil:
			name = *u.Update.IndexName
		case u.Create != nil:
			name = *u.Create.IndexName
		default:
			name = *u.Delete.IndexName
		}
		switch {
		case slices.Contains(deleting, name):
			return errInUse("Attempt to change a resource which is still in use: Index is being deleted. Table: %s Index: %s", d.Schema.Name, name)
		case u.Update != nil, u.Delete != nil && slices.Contains(filling, name):
		case len(filling)+len(deleting) > 0:
			return errOneIndex()
		}
	}
	switch {
	case of&^(ofProtection|ofSSE|ofWarm|ofDisassociation|ofSettingsMode) == 0, d.Status == table.Active, len(filling) > 0:
		return nil
	case len(deleting) > 0 && of&ofIOPS != 0:
		return errInUse("Attempt to change a resource which is still in use: Can't change table IOPS when an index is being deleted. Table: %s Indexes: [%s]", d.Schema.Name, strings.Join(deleting, ", "))
	case len(deleting) > 0 && of == ofIndexes:
		return nil
	}
	return errChanging(d)
}

// errChanging refuses to change a table that is being created, deleted or changed.
func errChanging(d *table.Definition) error {
	what := map[table.Status]string{table.Creating: "created", table.Deleting: "deleted"}[d.Status]
	if what == "" {
		what = "updated"
	}
	return errInUse("Attempt to change a resource which is still in use: Table is being %s: %s", what, d.Schema.Name)
}

// version stamps a change to what all replicas share. It is above the definition's last version even
// when that came from a region whose clock is ahead.
func (h *Handler) version(d *table.Definition) uint64 {
	return max(uint64(h.cfg.Region.Stamp()), d.Version+1)
}

// updateCapacity changes the table's billing, and the capacity that goes with it.
func (h *Handler) updateCapacity(d *table.Definition, in *updateTableInput) error {
	now := h.cfg.Now()
	mode := d.Billing
	if in.BillingMode != nil {
		mode = table.Billing(*in.BillingMode)
	}
	switch {
	case mode == table.OnDemand && in.ProvisionedThroughput != nil:
		return parameter("Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
	case mode == table.Provisioned && in.OnDemandThroughput.given() != "":
		return parameter("%s for OnDemandThroughput cannot be specified when the table BillingMode is PROVISIONED", in.OnDemandThroughput.given())
	}
	if mode != d.Billing {
		if err := in.switchBilling(d, mode); err != nil {
			return err
		}
		d.OverrideNoMore(func(o *table.Override) { o.Read, o.MaxRead, o.Indexes = 0, 0, nil })
		if mode == table.OnDemand {
			d.OnDemandSince = now.UnixMilli()
		}
	} else if in.ProvisionedThroughput != nil {
		d.Throughput = d.In(h.cfg.Region.Name()).Throughput // what is changed is what is in force here
		d.OverrideNoMore(func(o *table.Override) { o.Read = 0 })
		if err := rescale(now, "table", &d.Throughput, &d.Warm, &d.Scaled, in.ProvisionedThroughput.units()); err != nil {
			return err
		}
	}
	if o := in.OnDemandThroughput; o != nil && o.MaxReadRequestUnits != nil {
		d.OverrideNoMore(func(o *table.Override) { o.MaxRead = 0 })
	}
	if err := in.OnDemandThroughput.set(&d.OnDemand, "table", true); err != nil {
		return err
	}
	return in.WarmThroughput.increase(&d.Warm, d.Billing, d.Throughput, "table")
}

// switchBilling takes away what belongs to the billing mode there was. Going to provisioned capacity, every index must be given its own.
func (in *updateTableInput) switchBilling(d *table.Definition, mode table.Billing) error {
	d.Warm = table.Warm(d.Warm, d.Billing, d.Throughput)
	d.Throughput, d.OnDemand = table.Throughput{}, table.Throughput{}
	if mode == table.Provisioned {
		d.Throughput = in.ProvisionedThroughput.units()
	}
	for i := range d.Schema.Indexes {
		x := &d.Schema.Indexes[i]
		if !x.Global {
			continue
		}
		x.Warm = table.Warm(x.Warm, d.Billing, x.Throughput)
		x.Throughput, x.OnDemand = table.Throughput{}, table.Throughput{}
		if mode == table.Provisioned && !in.provisions(x.Name) {
			return parameter("ProvisionedThroughput must be specified for index: %s", x.Name)
		}
	}
	d.Billing = mode
	return nil
}

// provisions tells whether an index is given provisioned throughput, or goes.
func (in *updateTableInput) provisions(index string) bool {
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
	name, verb := "", "update"
	if u.Delete != nil {
		name, verb = *u.Delete.IndexName, "delete"
	} else {
		name = *u.Update.IndexName
	}
	x := s.Index(name)
	switch {
	case x == nil:
		return dynamoError("ResourceNotFoundException", "Requested resource not found: Index %s for table %s", name, s.Name)
	case !x.Global:
		return invalid("Cannot %s an index that is not a GlobalSecondaryIndex: %s", verb, name)
	case u.Delete != nil:
		x.Deleting, x.Backfilling = true, false // the region takes it away
		d.OverrideNoMore(func(o *table.Override) { *o.Index(name) = table.IndexOverride{Name: name} })
		return nil
	}
	in := u.Update
	if d.Billing == table.OnDemand {
		if in.ProvisionedThroughput != nil || in.OnDemandThroughput.given() == "" && !in.WarmThroughput.given() {
			return parameter("The only Updates for index: %s when TableThroughputMode is PAY_PER_REQUEST can be to OnDemandThroughput, WarmThroughput", name)
		}
	} else {
		switch member := in.OnDemandThroughput.given(); {
		case member != "":
			return parameter("%s for OnDemandThroughput for index : %s cannot be specified when the table BillingMode is PROVISIONED", member, name)
		case in.ProvisionedThroughput == nil && !in.WarmThroughput.given():
			return parameter("Both ReadCapacityUnits and WriteCapacityUnits must be specified for index: %s", name)
		}
	}
	if in.ProvisionedThroughput != nil {
		x.Throughput = d.In(h.cfg.Region.Name()).Schema.Index(name).Throughput
		d.OverrideNoMore(func(o *table.Override) { o.Index(name).Read = 0 })
	}
	if o := in.OnDemandThroughput; o != nil && o.MaxReadRequestUnits != nil {
		d.OverrideNoMore(func(o *table.Override) { o.Index(name).MaxRead = 0 })
	}
	switch {
	case in.ProvisionedThroughput == nil:
	case x.Throughput == table.Throughput{}: // its table's billing has just been switched
		x.Throughput = in.ProvisionedThroughput.units()
	default:
		if err := rescale(h.cfg.Now(), "index "+name, &x.Throughput, &x.Warm, &x.Scaled, in.ProvisionedThroughput.units()); err != nil {
			return err
		}
	}
	if err := in.OnDemandThroughput.set(&x.OnDemand, "index : "+name, true); err != nil {
		return err
	}
	return in.WarmThroughput.increase(&x.Warm, d.Billing, x.Throughput, "index "+name)
}

// createIndex adds an index that is yet to be filled. Definitions are merged into those the table has;
// what no key uses is ignored.
func (h *Handler) createIndex(d *table.Definition, definitions []attributeDefinition, in *indexShape) error {
	s := &d.Schema
	global := 0
	for i := range s.Indexes {
		if s.Indexes[i].Global {
			global++
		}
	}
	switch {
	case s.Index(*in.IndexName) != nil:
		return invalid("Attempting to create an index which already exists")
	case global == maxGlobalIndexes:
		return errLimit("Subscriber limit exceeded: Number of global secondary indexes exceeds per-table limit of %d", maxGlobalIndexes)
	case d.Billing == table.OnDemand && in.ProvisionedThroughput != nil:
		return parameter("Neither ReadCapacityUnits nor WriteCapacityUnits can be specified for index: %s when BillingMode is PAY_PER_REQUEST", *in.IndexName)
	case d.Billing == table.Provisioned && in.OnDemandThroughput.given() != "":
		return parameter("%s for OnDemandThroughput for index : %s cannot be specified when the table BillingMode is PROVISIONED", in.OnDemandThroughput.given(), *in.IndexName)
	case d.Billing == table.Provisioned && in.ProvisionedThroughput == nil:
		return parameter("Both ReadCapacityUnits and WriteCapacityUnits must be specified for index: %s", *in.IndexName)
	}
	kinds, err := definedKinds(definitions)
	if err != nil {
		return err
	}
	keys := schemaNames(in.KeySchema)
	for _, a := range s.Defined() {
		switch given := kinds.find(a.Name); {
		case given == nil:
			kinds = append(kinds, a)
		case given.Kind != a.Kind && slices.Contains(keys, a.Name):
			return parameter("Attributes cannot be redefined. Please check that your attribute has the same type as previously defined. Existing schema: Schema:[SchemaElement: key{%s:%s:HASH}] New schema: Schema:[SchemaElement: key{%s:%s:HASH}]", a.Name, a.Kind, given.Name, given.Kind)
		case given.Kind != a.Kind:
			given.Kind = a.Kind // of no concern
		}
	}
	if err := kinds.define(in.KeySchema); err != nil {
		return err
	}
	// The present in seconds is above the id of any index there was, those deleted among them.
	id := max(s.NextIndexID(), uint32(h.cfg.Now().Unix()))
	if err := addGlobalIndex(d, kinds, in); err != nil {
		return err
	}
	x := &s.Indexes[len(s.Indexes)-1]
	x.ID, x.Backfilling = id, true
	if err := in.fillCapacity(d, x); err != nil {
		return err
	}
	return checkIncluded(s)
}
