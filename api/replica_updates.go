package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/table"
)

// Global tables by UpdateTable: replicas made, changed, removed, and let go. The replicator of each region carries it out.
// Source of what is refused, and in which words: answers of the service, recorded in public.

type replicaUpdate struct {
	Create, Update *replicaShape
	Delete         *struct{ RegionName *string }
	Disassociate   *struct{ RegionName, DisassociationMode *string }
}

// replicaShape is a replica that is to be made or changed.
type replicaShape struct {
	RegionName     *string
	KMSMasterKeyId *string
	readOverride
	GlobalSecondaryIndexes []struct {
		IndexName *string
		readOverride
	}
	TableClassOverride *string
}

// readOverride is what a replica may have other than the table's.
type readOverride struct {
	ProvisionedThroughputOverride *provisionedRead `json:",omitempty"`
	OnDemandThroughputOverride    *onDemandRead    `json:",omitempty"`
}

type provisionedRead struct{ ReadCapacityUnits *int64 }

type onDemandRead struct{ MaxReadRequestUnits *int64 }

func (o *readOverride) given() bool {
	return o.ProvisionedThroughputOverride != nil && o.ProvisionedThroughputOverride.ReadCapacityUnits != nil ||
		o.OnDemandThroughputOverride != nil && o.OnDemandThroughputOverride.MaxReadRequestUnits != nil
}

// replicas checks ReplicaUpdates and GlobalTableWitnessUpdates against the model.
func (c *constraints) replicas(in *updateTableInput) {
	if in.ReplicaUpdates != nil {
		c.count(len(in.ReplicaUpdates), "replicaUpdates", 1, 0)
	}
	for i := range in.ReplicaUpdates {
		u, at := &in.ReplicaUpdates[i], elementOf("replicaUpdates", i)
		c.replica(u.Create, at+"create.")
		c.replica(u.Update, at+"update.")
		if u.Delete != nil && u.Delete.RegionName == nil {
			c.required(at + "delete.regionName")
		}
		if u.Disassociate == nil {
			continue
		}
		if u.Disassociate.RegionName == nil {
			c.required(at + "disassociate.regionName")
		}
		if mode := u.Disassociate.DisassociationMode; mode == nil {
			c.required(at + "disassociate.disassociationMode")
		} else {
			c.enum(*mode, at+"disassociate.disassociationMode", "WAIT_FOR_REPLICATION")
		}
	}
	if in.GlobalTableWitnessUpdates != nil {
		c.count(len(in.GlobalTableWitnessUpdates), "globalTableWitnessUpdates", 1, 1)
	}
	for i, u := range in.GlobalTableWitnessUpdates {
		at := elementOf("globalTableWitnessUpdates", i)
		if u.Create != nil && u.Create.RegionName == nil {
			c.required(at + "create.regionName")
		}
		if u.Delete != nil && u.Delete.RegionName == nil {
			c.required(at + "delete.regionName")
		}
	}
}

// replica checks a replica that is to be made or changed; nil is none.
func (c *constraints) replica(r *replicaShape, at string) {
	if r == nil {
		return
	}
	if r.RegionName == nil {
		c.required(at + "regionName")
	}
	c.override(&r.readOverride, at)
	if r.GlobalSecondaryIndexes != nil {
		c.count(len(r.GlobalSecondaryIndexes), at+"globalSecondaryIndexes", 1, 0)
	}
	for i := range r.GlobalSecondaryIndexes {
		at := elementOf(at+"globalSecondaryIndexes", i)
		c.indexName(r.GlobalSecondaryIndexes[i].IndexName, at+"indexName")
		c.override(&r.GlobalSecondaryIndexes[i].readOverride, at)
	}
	if r.TableClassOverride != nil {
		c.enum(*r.TableClassOverride, at+"tableClassOverride", "STANDARD", "STANDARD_INFREQUENT_ACCESS")
	}
}

func (c *constraints) override(o *readOverride, at string) {
	if p := o.ProvisionedThroughputOverride; p != nil && p.ReadCapacityUnits != nil {
		c.atLeast(*p.ReadCapacityUnits, at+"provisionedThroughputOverride.readCapacityUnits", 1)
	}
}

func (c *constraints) replicationMode(mode *string) {
	if mode != nil {
		c.enum(*mode, "globalTableSettingsReplicationMode", "ENABLED", "DISABLED", "ENABLED_WITH_OVERRIDES")
	}
}

// checkStrong refuses strong consistency of several regions: in the service's words where the service refuses it too.
func (in *updateTableInput) checkStrong() error {
	strong := in.MultiRegionConsistency != nil && *in.MultiRegionConsistency == "STRONG"
	made := 0
	for _, u := range in.ReplicaUpdates {
		if u.Create != nil {
			made++
		} else if in.MultiRegionConsistency != nil {
			return invalid("Only Replica Create actions are supported when MultiRegionConsistency parameter is provided.")
		}
	}
	switch {
	case len(in.GlobalTableWitnessUpdates) > 0 && !strong:
		return invalid("MultiRegionConsistency must be set as STRONG when GlobalTableWitnessUpdates parameter is present.")
	case strong && made+len(in.GlobalTableWitnessUpdates) != 2:
		return invalid("Unsupported replica count for global tables with MultiRegionConsistency set to STRONG.")
	case strong:
		return parameter("MultiRegionConsistency STRONG is not supported; writes of several regions are merged")
	}
	return nil
}

// checkReplicas checks ReplicaUpdates without a look at the table.
func (in *updateTableInput) checkReplicas() error {
	var kinds, regions []string
	for i := range in.ReplicaUpdates {
		u := &in.ReplicaUpdates[i]
		n := len(kinds)
		add := func(kind string, region *string) { kinds, regions = append(kinds, kind), append(regions, *region) }
		if u.Create != nil {
			add("create", u.Create.RegionName)
		}
		if u.Update != nil && u.Update.changes() {
			add("update", u.Update.RegionName)
		}
		if u.Delete != nil {
			add("delete", u.Delete.RegionName)
		}
		if u.Disassociate != nil {
			add("disassociate", u.Disassociate.RegionName)
		}
		switch {
		case len(kinds) == n:
			return invalid("There are no actions specified in the Replica Update Action of the request.")
		case len(slices.Compact(slices.Clone(kinds))) > 1:
			return invalid("Update table operation with more than one type of replica actions not allowed.")
		case kinds[n] == "create" && slices.Contains(regions[:n], regions[n]):
			kinds, regions = kinds[:n], regions[:n] // the same once more
		case len(kinds) > 1 && kinds[0] != "update":
			return invalid("Update table operation with more than one create or delete replica actions not allowed")
		case slices.Contains(regions[:n], regions[n]):
			return invalid("Cannot target multiple regions with the same action")
		}
	}
	return nil
}

// changes tells whether an update of a replica is about anything.
func (r *replicaShape) changes() bool {
	for i := range r.GlobalSecondaryIndexes {
		if r.GlobalSecondaryIndexes[i].given() {
			return true
		}
	}
	return r.given() || r.KMSMasterKeyId != nil || r.TableClassOverride != nil
}

// askThere asks the regions that are to be added or removed, so that what they would refuse is refused here.
func (h *Handler) askThere(ctx context.Context, name string, in *updateTableInput) {
	in.there = map[string]*table.Definition{}
	for _, u := range in.ReplicaUpdates {
		region := ""
		if u.Create != nil {
			region = *u.Create.RegionName
		} else if u.Delete != nil {
			region = *u.Delete.RegionName
		}
		if slices.Contains(h.cfg.Peers(), region) && region != h.cfg.Region.Name() {
			in.there[region] = h.cfg.Replica(ctx, region, name)
		}
	}
}

// updateReplicas adds, changes and removes replicas.
func (h *Handler) updateReplicas(d *table.Definition, in *updateTableInput) error {
	for i := range in.ReplicaUpdates {
		var err error
		switch u := &in.ReplicaUpdates[i]; {
		case u.Create != nil && i == 0: // another is of the same region
			err = h.createReplica(d, u.Create, in.there[*u.Create.RegionName])
		case u.Delete != nil:
			err = h.deleteReplica(d, *u.Delete.RegionName, in.there[*u.Delete.RegionName])
		case u.Update != nil:
			err = h.updateReplica(d, u.Update)
		case u.Disassociate != nil:
			err = h.disassociate(d, *u.Disassociate.RegionName)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// createReplica adds a region. The service asks for auto scaled writes where capacity is provisioned; nothing here could set that up.
// Another change may come while a replica is CREATING: its region may be out of reach for long.
func (h *Handler) createReplica(d *table.Definition, in *replicaShape, there *table.Definition) error {
	own, name := h.cfg.Region.Name(), *in.RegionName
	if name == own {
		return errOwnRegion()
	}
	if peers := h.cfg.Peers(); !slices.Contains(peers, name) {
		return invalid("Region %s is not supported. The latest version of global tables are only supported in the following regions: [%s]", shorten(name), strings.Join(peers, ", "))
	}
	switch r := d.Replica(name); {
	case r != nil && r.Status == table.Creating:
		var regions []string
		for _, r := range d.Replicas {
			if r.Live() {
				regions = append(regions, r.Region)
			}
		}
		return errInUse("Global table with name: %s already exists with replicas in regions: %s.", d.Schema.Name, strings.Join(regions, ", "))
	case r != nil && r.Live(), there != nil && there.GlobalID != d.GlobalID:
		return invalid("Failed to create a the new replica of table with name: ‘%s’ because one or more replicas already existed as tables.", d.Schema.Name)
	case d.Leaving:
		return errReplicaInUse()
	}
	if err := h.checkReplicaKey(d, in); err != nil {
		return err
	}
	if d.Billing == table.OnDemand {
		// The service takes provisioned capacity here, and makes nothing of it.
		in.ProvisionedThroughputOverride = nil
		for i := range in.GlobalSecondaryIndexes {
			in.GlobalSecondaryIndexes[i].ProvisionedThroughputOverride = nil
		}
	}
	if err := h.override(d, in, false); err != nil {
		return err
	}
	stamp := h.version(d)
	if r := d.Replica(own); r == nil || !r.Live() {
		d.SetReplica(own, own, table.Active, stamp)
	}
	d.SetReplica(own, name, table.Creating, stamp)
	d.SettingsMode = ""
	if d.Stream == nil || !d.Stream.Enabled {
		d.Stream = h.stream("NEW_AND_OLD_IMAGES")
	}
	return nil
}

// checkReplicaKey checks a new replica's key: all have one of their own, or all have the one that stands for the service's.
func (h *Handler) checkReplicaKey(d *table.Definition, in *replicaShape) error {
	const managed = "alias/aws/dynamodb"
	key := in.KMSMasterKeyId
	own := d.SSE != nil && d.SSE.KeyID != "" && !strings.HasSuffix(d.SSE.KeyID, managed)
	switch {
	case key == nil && own, key != nil && d.SSE == nil:
		return errReplicaKey()
	case key == nil:
		return nil
	case own == strings.HasSuffix(*key, managed):
		return parameter("All replica keys must either be Customer Managed CMK or AWS Managed CMK.")
	}
	if arn := strings.Split(*key, ":"); len(arn) > 3 && arn[0] == "arn" && arn[3] != *in.RegionName {
		return invalid("KMS validation error for region %s: com.amazonaws.services.kms.model.NotFoundException: Invalid arn %s (Service: AWSKMS; Status Code: 400; Error Code: NotFoundException; Request ID: 00000000-0000-0000-0000-000000000000; Proxy: null)", *in.RegionName, shorten(arn[3]))
	}
	return nil
}

func errReplicaKey() error { return parameter("KMSMasterKeyId must be specified for each replica.") }

func (h *Handler) updateReplica(d *table.Definition, in *replicaShape) error {
	r := d.Replica(*in.RegionName)
	switch {
	case r == nil || !r.Live():
		return errNoReplica(*in.RegionName)
	case r.Status != table.Active:
		return errReplicaInUse()
	case in.KMSMasterKeyId != nil:
		return errReplicaKey()
	}
	return h.override(d, in, true)
}

// override sets what a replica overrides; the table's own value takes the override away. Of indexes that are not there, an update is
// refused and a new replica keeps nothing.
func (h *Handler) override(d *table.Definition, in *replicaShape, update bool) error {
	read := func(o *readOverride, of string, have, mostHave int64, read, most *int64) error {
		if p := o.ProvisionedThroughputOverride; p != nil && p.ReadCapacityUnits != nil {
			if d.Billing == table.OnDemand {
				return invalid("Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST")
			}
			if *read = *p.ReadCapacityUnits; *read == have {
				*read = 0
			}
		}
		if p := o.OnDemandThroughputOverride; p != nil && p.MaxReadRequestUnits != nil {
			if d.Billing == table.Provisioned {
				return invalid("MaxReadRequestUnits for OnDemandThroughput cannot be specified when the table BillingMode is PROVISIONED")
			}
			n := *p.MaxReadRequestUnits
			if n < 1 && !(update && n == -1) {
				return parameter("Requested MaxReadRequestUnits for OnDemandThroughput for %s is outside of valid range", of)
			}
			if *most = n; n == -1 || n == mostHave {
				*most = 0
			}
		}
		return nil
	}
	var err error
	d.Override(*in.RegionName, func(o *table.Override) {
		if err = read(&in.readOverride, "table", d.Throughput.Read, d.OnDemand.Read, &o.Read, &o.MaxRead); err != nil {
			return
		}
		for i := range in.GlobalSecondaryIndexes {
			g := &in.GlobalSecondaryIndexes[i]
			x := d.Schema.Index(*g.IndexName)
			if x == nil || !x.Global {
				if update {
					err = dynamoError("ResourceNotFoundException", "Requested resource not found: Index %s for table %s", *g.IndexName, d.Schema.Name)
					return
				}
				continue
			}
			to := o.Index(x.Name)
			if err = read(&g.readOverride, "index : "+x.Name, x.Throughput.Read, x.OnDemand.Read, &to.Read, &to.MaxRead); err != nil {
				return
			}
		}
		if class := in.TableClassOverride; class != nil && *class != classOf(d.In(*in.RegionName)) {
			o.Class, o.ClassChanged = *class, h.cfg.Now().UnixMilli()
		}
		set(&o.KeyID, in.KMSMasterKeyId)
	})
	return err
}

func classOf(d *table.Definition) string {
	if d.Class == "" {
		return standardClass
	}
	return d.Class
}

// updateClass sets the class of all replicas.
func (h *Handler) updateClass(d *table.Definition, class string) {
	if class == classOf(d) && !slices.ContainsFunc(d.Overrides, func(o table.Override) bool { return o.Class != "" }) {
		return
	}
	d.Class, d.ClassChanged = class, h.cfg.Now().UnixMilli()
	d.OverrideNoMore(func(o *table.Override) { o.Class, o.ClassChanged = "", 0 })
}

// deleteReplica removes a region. The service waits a day before it removes one that another was made from; nothing here needs that.
func (h *Handler) deleteReplica(d *table.Definition, name string, there *table.Definition) error {
	own := h.cfg.Region.Name()
	if name == own {
		return errOwnRegion()
	}
	r := d.Replica(name)
	switch {
	case r == nil || r.Status == table.Gone:
		return errNoReplica(name)
	case r.Status == table.Deleting:
		return errReplicaInUse()
	}
	if there != nil && there.GlobalID == d.GlobalID && there.DeletionProtection {
		return invalid("Cannot delete table %s in region %s because it has deletion protection enabled. Disable deletion protection first.", d.Schema.Name, name)
	}
	d.SetReplica(own, name, table.Deleting, h.version(d))
	d.OverrideNoMore(func(o *table.Override) {
		if o.Region == name {
			*o = table.Override{Region: name}
		}
	})
	return nil
}

// disassociate lets this region's replica go, with its data: it becomes a table of its own once every other region has what was written
// here, and this one what was written there until now; until then it is UPDATING. Source: the SDK's documentation of UpdateTable.
func (h *Handler) disassociate(d *table.Definition, name string) error {
	own := h.cfg.Region.Name()
	others := d.Others(own)
	if r := d.Replica(name); r == nil || !r.Live() || len(others) == 0 {
		return errNoReplica(name)
	}
	switch {
	case name != own:
		return invalid("Disassociate is for the replica of the region that is asked: %s. Send it to %s.", own, shorten(name))
	case !d.Disassociable:
		return invalid("Cannot disassociate table %s in region %s because it has disassociation protection enabled. Disable disassociation protection first.", d.Schema.Name, own)
	case d.Leaving || slices.ContainsFunc(others, func(r table.Replica) bool { return r.Status != table.Active }):
		return errReplicaInUse()
	}
	d.SetReplica(own, own, table.Deleting, h.version(d))
	d.Leaving = true
	return nil
}

func errReplicaInUse() *Error {
	return errInUse("The resource which you are attempting to change is in use.")
}

func errOwnRegion() *Error {
	return invalid("Cannot add or delete the local region through ReplicaUpdates. Use CreateTable, DeleteTable, or UpdateTable as required.")
}

func errNoReplica(region string) *Error {
	return invalid("Update global table operation failed because one or more replicas were not part of the global table. Please retry the request without these replicas: [%s].", shorten(region))
}

// checkSettingsMode refuses the mode that only a global table is in, and none to be set for one: its replicas are of one account, and
// in that mode.
func (h *Handler) checkSettingsMode(d *table.Definition, mode *string) error {
	switch {
	case mode == nil:
		return nil
	case *mode == withOverrides:
		return invalid("Value '%s' at 'GlobalTableSettingsReplicationMode' failed to satisfy constraint: Only ENABLED and DISABLED settings replication are supported for a Regional Table.", withOverrides)
	case len(d.Others(h.cfg.Region.Name())) > 0:
		return invalid("Value '%s' at 'GlobalTableSettingsReplicationMode' failed to satisfy constraint: It can be set on a Regional Table only.", *mode)
	}
	return nil
}

const withOverrides = "ENABLED_WITH_OVERRIDES"

// describeReplicas shows what other regions have the table. The region that is asked is not among them, and what a replica has like this
// one is not shown of it.
func (h *Handler) describeReplicas(out *tableDescription, d *table.Definition) {
	own := h.cfg.Region.Name()
	out.GlobalTableSettingsReplicationMode = d.SettingsMode
	for _, r := range d.Replicas {
		if r.Region != own && r.Status != table.Gone {
			out.Replicas = append(out.Replicas, h.describeReplica(d, &r))
		}
	}
	if out.Replicas != nil {
		out.DisassociationProtectionEnabled = new(!d.Disassociable)
		out.GlobalTableVersion, out.GlobalTableSettingsReplicationMode = "2019.11.21", withOverrides
	}
}

func (h *Handler) describeReplica(d *table.Definition, r *table.Replica) replicaDescription {
	here, there := d.In(h.cfg.Region.Name()), d.In(r.Region)
	out := replicaDescription{
		RegionName: r.Region, ReplicaStatus: string(r.Status), GlobalTableSettingsReplicationMode: withOverrides,
		WarmThroughput: describeWarm(table.Warm(there.Warm, there.Billing, there.Throughput)),
		readOverride:   differs(d.Billing, here.Throughput, there.Throughput, here.OnDemand, there.OnDemand),
	}
	if r.Status == table.Stale {
		// The service's nearest: one whose region was switched off, which is not replicated to or from, and whose items stay.
		out.ReplicaStatus = "REGION_DISABLED"
		out.ReplicaStatusDescription = fmt.Sprintf("The other regions have gone on without %s. It begins anew when it can be reached", r.Region)
	}
	if r.Status == table.CreationFailed {
		out.ReplicaStatusDescription = fmt.Sprintf("Region %s has another table of that name", r.Region)
	}
	for i := range there.Schema.Indexes {
		x := &there.Schema.Indexes[i]
		if !x.Global || x.Deleting {
			continue
		}
		mine := here.Schema.Index(x.Name)
		out.GlobalSecondaryIndexes = append(out.GlobalSecondaryIndexes, replicaIndexDescription{
			IndexName: x.Name, WarmThroughput: describeWarm(table.Warm(x.Warm, there.Billing, x.Throughput)),
			readOverride: differs(d.Billing, mine.Throughput, x.Throughput, mine.OnDemand, x.OnDemand),
		})
	}
	if there.Class != "" {
		out.ReplicaTableClassSummary = &tableClassSummary{there.Class, seconds(there.ClassChanged)}
	}
	if there.SSE != nil && there.SSE.Enabled {
		out.KMSMasterKeyId = h.keyARN(there.SSE.KeyID, r.Region)
	}
	return out
}

// differs shows the capacity of reads in another region where it is not this one's.
func differs(billing table.Billing, here, there, mostHere, mostThere table.Throughput) (out readOverride) {
	if billing == table.Provisioned && here.Read != there.Read {
		out.ProvisionedThroughputOverride = &provisionedRead{&there.Read}
	}
	if billing == table.OnDemand && mostHere.Read != mostThere.Read && mostThere.Read != 0 {
		out.OnDemandThroughputOverride = &onDemandRead{&mostThere.Read}
	}
	return out
}
