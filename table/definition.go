package table

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Definition is all that a region's catalog holds of one table: the schema, and what surrounds it.
type Definition struct {
	ID       uint32 // within the region; never reused, since stored keys begin with it
	UUID     string // TableId of DescribeTable, of this replica alone
	GlobalID string // the same in every replica of a global table, another for a table made anew by the same name
	Schema   Schema
	Status   Status
	Created  int64 // ms since the Unix epoch

	Billing            Billing
	Throughput         Throughput // provisioned, zeros on demand
	OnDemand           Throughput `json:",omitzero"`  // on-demand maximums, zeros for none
	Warm               Throughput `json:",omitzero"`  // the most there ever was, beyond what Billing and Throughput imply: see WarmThroughput
	Scaled             Scaled     `json:",omitzero"`  // of Throughput
	OnDemandSince      int64      `json:",omitempty"` // ms since the Unix epoch: when Billing last became OnDemand; 0 for never
	Class              string     `json:",omitempty"` // "" means STANDARD
	ClassChanged       int64      `json:",omitempty"` // ms since the Unix epoch; 0 for never
	DeletionProtection bool       `json:",omitempty"`
	Tags               []Tag      `json:",omitempty"` // sorted by key
	Stream             *Stream    `json:",omitempty"`
	SSE                *SSE       `json:",omitempty"`
	// TTL is the attribute that says, in s since the Unix epoch, when an item expires; "" for none.
	TTL string `json:",omitempty"`

	// Version orders definitions of one global table over all regions: the HLC of the change that made
	// it. The greatest wins, whole, except for what is a replica's own (ID, UUID, Status, Tags,
	// DeletionProtection, Partitions, Incarnation, Former, Settled, Policy, StreamPolicy, Insights, Kinesis, Disassociable, Leaving, SettingsMode). Two regions may come to the same one: see Take.
	Version uint64

	// Replicas lists the regions of a global table, this one among them, sorted by region; empty for a
	// table of one region.
	Replicas []Replica `json:",omitempty"`

	// Overrides lists what replicas have other than the table, sorted by region. All share it.
	Overrides []Override `json:",omitempty"`

	// Disassociable says that this region's replica is not protected against being let go.
	Disassociable bool `json:",omitempty"`

	// Incarnation is of what this region has: its replica's in Replicas, unless the others have given that one up since.
	Incarnation uint16 `json:",omitempty"`

	// Former is what this region had as an incarnation that was given up, until all that it alone had written is made again.
	Former *Former `json:",omitempty"`

	// Settled lists the fences up to which this region has all that anybody has: see Fence.
	Settled []Fence `json:",omitempty"`

	// Leaving says that this region's replica, which is DELETING to the others, keeps its data and becomes a table of its own.
	Leaving bool `json:",omitempty"`

	// SettingsMode is the GlobalTableSettingsReplicationMode that a table of one region was given; it means nothing here.
	SettingsMode string `json:",omitempty"`

	// Partitions cover the whole key space in order; the first one's Start is empty.
	Partitions []Partition

	Restore *RestoreSummary `json:",omitempty"`

	// What follows is this replica's own and never travels, but for Scaling.
	Policy *Policy `json:",omitempty"` // of the table
	// StreamPolicy is that of the present stream.
	StreamPolicy *Policy              `json:",omitempty"`
	Insights     []Insight            `json:",omitempty"` // sorted by index; one without an index is the table's
	Kinesis      []KinesisDestination `json:",omitempty"`
	Scaling      []Scaling            `json:",omitempty"` // sorted by region and index
}

// Partition is one contiguous range of a table's keys, from Start up to the next one's.
type Partition struct {
	ID    uint64 // also the id of its Raft group
	Start Key    `json:",omitempty"`
	// End is the least key beyond it, nil for the end of the table, when it began. What was cut off since it knows itself.
	End Key `json:",omitempty"`
	// Parent is the partition that it was cut off, 0 for none: then Founders tell whom its group began with, else the parent's log does.
	Parent uint64     `json:",omitempty"`
	Split  *Splitting `json:",omitempty"` // under way; nil: none
	// Founders are the nodes of the region that its group begins with; nil: those that the region began with.
	Founders []uint64 `json:",omitempty"`
	// Nodes are those of the region that are to hold it, by number, rising; nil: all of them.
	Nodes []uint64 `json:",omitempty"`
	// Moved is when an operator last said who is to hold it, in ms since the Unix epoch; 0 for never, or where it had to be moved since.
	Moved int64 `json:",omitempty"`
	// Behind is a number of the parent's change log: up to there it has all that was written to this one's items before they were cut off.
	Behind uint64 `json:",omitempty"`
	// Absorbed is the attempt with which it took in its right neighbour last, 0 for none. Ids below it that no partition has any more are of
	// some that were taken in.
	Absorbed uint64 `json:",omitempty"`
	// Merging says how far it has come on its way into its left neighbour; nil: it stays.
	Merging *Merging `json:",omitempty"`
}

// Splitting says that a partition is to be cut in two.
type Splitting struct {
	Child uint64 // the id of the one that takes over from At on
	At    Key
}

// Merging says that a partition is to be taken in by its left neighbour.
type Merging struct {
	// Attempt is given once, and greater than that of every attempt before: by it partitions know what is said late of one that was given up.
	Attempt uint64
	State   MergeState `json:",omitempty"`
}

// MergeState says how far a merge has come.
type MergeState string

// The states of a merge, in the order of their steps; one that was not closed everywhere in time goes from Closing to Reopening.
const (
	MergeWanted    MergeState = ""
	MergeClosing   MergeState = "CLOSING"   // the partition may be closed, or open
	MergeReopening MergeState = "REOPENING" // likewise, and is to be open
	MergeClosed    MergeState = "CLOSED"    // it is closed at every node, for good; the left neighbour may have its keys, or not yet
)

// Replica is one region's copy of a global table.
type Replica struct {
	Region string
	Status Status // CREATING until it holds every item, DELETING until it is gone, then GONE

	// Version is the HLC of the change that gave it this status. Where definitions meet, the newest status of each replica's greatest
	// incarnation stands.
	Version uint64

	// Incarnation tells a replica from what its region had under the same name before the others gave that up.
	Incarnation uint16 `json:",omitempty"`
}

// Former is the data of an incarnation that was given up. Nothing is written there any more.
type Former struct {
	ID         uint32 // of the table, as Definition has it
	Actor      uint32 // who stamped
	Partitions []Partition
}

// Fence says that of a region's writes only those of an incarnation are taken, or of a later one. What earlier ones have written is what the
// other regions have of it among them, and no more is to come: once each of them has settled that it has all of it, nobody waits for it
// to fold.
type Fence struct {
	Region      string
	Incarnation uint16
}

// Status is the state of a table, an index or a replica, spelled as the API spells it.
type Status string

// The states in use.
const (
	Creating Status = "CREATING"
	Active   Status = "ACTIVE"
	Updating Status = "UPDATING"
	Deleting Status = "DELETING"

	// CreationFailed is a replica's that could not be made: its region has another table of that name.
	CreationFailed Status = "CREATION_FAILED"

	// Stale is a replica's that the others have given up, since its region was away for too long: nobody waits for it, and it begins
	// anew as another incarnation.
	Stale Status = "STALE"

	// Gone is a replica's that is no more. It is kept so that an older word of it is not believed, and
	// is shown to nobody.
	Gone Status = "GONE"
)

// Billing is how a table's capacity is given.
type Billing string

// The billing modes, spelled as the API spells them.
const (
	Provisioned Billing = "PROVISIONED"
	OnDemand    Billing = "PAY_PER_REQUEST"
)

// Tag is one tag of a table.
type Tag struct{ Key, Value string }

// Stream is a table's stream setting.
type Stream struct {
	Enabled  bool
	ViewType string // KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES
	Label    string // when it was enabled: part of the stream's ARN
}

// SSE is a table's encryption setting as the client gave it.
type SSE struct {
	Enabled bool
	Type    string
	KeyID   string
}

// RestoreSummary tells from which backup a table came.
type RestoreSummary struct {
	BackupID    string
	SourceTable string
	At          int64 // ms since the Unix epoch: the backup's cut
	InProgress  bool
	Node        uint64 `json:",omitempty"` // of the region, that restores it; 0: its only one
}

// Policy is a resource policy as the client gave it. It is kept, not enforced.
type Policy struct {
	Document string
	Revision string
}

// Insight says that accesses are counted by key.
type Insight struct {
	Index     string `json:",omitempty"` // "" is the table
	Throttled bool   `json:",omitempty"` // only those that were throttled
	Off       bool   `json:",omitempty"` // they were counted once
	At        int64  // ms since the Unix epoch: when that was last changed
	Rules     int64  // ms since the Unix epoch: when it was enabled, which the names of its rules end in
}

// Insight returns the setting for an index, "" for the table, or nil where there never was one.
func (d *Definition) Insight(index string) *Insight {
	for i := range d.Insights {
		if d.Insights[i].Index == index {
			return &d.Insights[i]
		}
	}
	return nil
}

// KinesisDestination is a stream that a client wanted changes to go to.
type KinesisDestination struct {
	ARN       string
	Precision string `json:",omitempty"` // MILLISECOND or MICROSECOND
}

// Scaling is how the capacity of a table, or of one of its indexes, is to follow its use.
type Scaling struct {
	Region   string `json:",omitempty"` // for reads: each region has its own; "" for writes, which all share
	Index    string `json:",omitempty"`
	Min, Max int64  `json:",omitempty"` // capacity units
	Role     string `json:",omitempty"`
	Policy   ScalingPolicy
}

// ScalingPolicy is a target to track.
type ScalingPolicy struct {
	Name                  string
	Target                float64 // percent of the capacity
	InSeconds, OutSeconds int64   `json:",omitempty"`
	NoScaleIn             bool    `json:",omitempty"`
}

// Replica returns the named region's entry, or nil.
func (d *Definition) Replica(region string) *Replica {
	for i := range d.Replicas {
		if d.Replicas[i].Region == region {
			return &d.Replicas[i]
		}
	}
	return nil
}

// Split returns n partitions, at least one, that share the hashes of all keys evenly. Their ids are id and those that follow it.
func Split(id uint64, n int) []Partition {
	out := make([]Partition, n)
	for i := range out {
		out[i].ID = id + uint64(i)
		if i > 0 {
			share, _ := bits.Div64(uint64(i), 0, uint64(n)) // i/n of 2^64
			out[i].Start = binary.BigEndian.AppendUint64(nil, share)
			out[i-1].End = out[i].Start
		}
	}
	return out
}

// IDs returns the ids of partitions, and of those that are about to be cut off them.
func IDs(partitions []Partition) (ids []uint64) {
	for _, p := range partitions {
		ids = append(ids, p.ID)
		if p.Split != nil {
			ids = append(ids, p.Split.Child)
		}
	}
	return ids
}

// Live tells whether the replica counts: it is there, or on its way to be.
func (r *Replica) Live() bool {
	return r.Status != Gone && r.Status != CreationFailed && r.Status != Stale
}

// Others returns the live replicas in regions other than the named one.
func (d *Definition) Others(region string) []Replica {
	var out []Replica
	for _, r := range d.Replicas {
		if r.Region != region && r.Live() {
			out = append(out, r)
		}
	}
	return out
}

// SetReplica gives a region's replica a status, adding it where there is none. version is the HLC of the
// change, 0 for one that follows from the one before; each has a greater one than that before. Solo follows from what replicas there are.
func (d *Definition) SetReplica(own, region string, status Status, version uint64) {
	r := d.Replica(region)
	if r == nil {
		d.Replicas = append(d.Replicas, Replica{Region: region})
		slices.SortFunc(d.Replicas, func(a, b Replica) int { return strings.Compare(a.Region, b.Region) })
		r = d.Replica(region)
	}
	r.Status, r.Version = status, max(version, r.Version+1)
	d.follow(own)
}

// follow brings what follows from the replicas in line with them.
func (d *Definition) follow(own string) {
	d.Schema.Solo = len(d.Others(own)) == 0
	d.Schema.Fences = nil
	for _, r := range d.Replicas {
		if r.Incarnation > 0 {
			d.Schema.Fences = append(d.Schema.Fences, Fence{r.Region, r.Incarnation})
		}
	}
	d.Schema.Closed = d.GivenUp(own)
}

// GiveUp has the regions go on without another's replica, which is STALE from now on. What its region has is of an incarnation that
// nobody listens to any more.
func (d *Definition) GiveUp(own, region string, version uint64) {
	d.Replica(region).Incarnation++
	d.SetReplica(own, region, Stale, version)
}

// GivenUp tells whether the others have given up what the named region, whose definition this is, has of the table.
func (d *Definition) GivenUp(own string) bool {
	r := d.Replica(own)
	return r != nil && r.Incarnation > d.Incarnation
}

// MayGiveUp tells whether the regions that are left without those that are away may go on by themselves: most of all that were not taken
// away, or half of them with the first by name among them. So two sides that cannot reach each other never both do.
func (d *Definition) MayGiveUp(away func(region string) bool) bool {
	all, left, first := 0, 0, false
	for _, r := range d.Replicas {
		if r.Status == Gone || r.Status == CreationFailed {
			continue
		}
		stays := r.Live() && !away(r.Region)
		if all++; stays {
			left++
		}
		first = first || all == 1 && stays
	}
	return 2*left > all || 2*left == all && first || mutant.On(mutant.GivenUpAlone)
}

// Last tells whether every replica was given up, each by another, and the named region's, which is one of them, is the one that goes on:
// the one that was given up last.
func (d *Definition) Last(own string) bool {
	r := d.Replica(own)
	for i := range d.Replicas {
		o := &d.Replicas[i]
		if o.Region != own && (o.Live() || o.Status == Stale && cmp.Or(cmp.Compare(o.Version, r.Version), cmp.Compare(o.Region, r.Region)) > 0) {
			return false
		}
	}
	return r.Status == Stale
}

// IsSettled tells whether a region, whose definition this is, has settled a fence.
func (d *Definition) IsSettled(f Fence) bool {
	return slices.ContainsFunc(d.Settled, func(s Fence) bool { return s.Region == f.Region && s.Incarnation >= f.Incarnation })
}

// Settle notes that the region whose definition this is has all that anybody has of what a fence shuts out.
func (d *Definition) Settle(f Fence) {
	d.Settled = slices.DeleteFunc(slices.Clone(d.Settled), func(s Fence) bool { return s.Region == f.Region && s.Incarnation <= f.Incarnation })
	d.Settled = append(d.Settled, f)
	slices.SortFunc(d.Settled, func(a, b Fence) int { return strings.Compare(a.Region, b.Region) })
}

// Renew makes the definition, which is the named region's own, that of its next incarnation, which is empty: what it had is kept as the
// former one. What was begun by an incarnation that never became ACTIVE is not: nobody could write there.
func (d *Definition) Renew(own string, actor uint32, id uint32, partitions []Partition, version uint64) {
	r := d.Replica(own)
	if d.Former == nil && r != nil {
		d.Former = &Former{ID: d.ID, Actor: actor, Partitions: d.Partitions}
	}
	d.ID, d.Partitions, d.Settled, d.Status = id, partitions, nil, Creating
	d.Incarnation = r.Incarnation
	d.SetReplica(own, own, Creating, version)
}

// Take brings the definition, which is the named region's own, up to what another region's says: the
// newer of the shared settings, and each replica's newest status. Where two regions gave different ones
// the same version, every region takes the same of them. It tells whether that changed anything.
func (d *Definition) Take(own string, theirs *Definition) bool {
	changed := false
	if theirs.Version > d.Version || theirs.Version == d.Version && bytes.Compare(theirs.shared(), d.shared()) > 0 {
		old := d.Schema
		d.Schema = theirs.Schema.Clone()
		d.Schema.Solo, d.Schema.Closed, d.Schema.Fences = old.Solo, old.Closed, old.Fences
		// Filling an index, and removing one, is each region's own work. One that was to go and is to stay after all may not have been filled.
		d.Schema.Indexes = slices.DeleteFunc(d.Schema.Indexes, func(x Index) bool { return x.Deleting && !old.has(&x) })
		for i := range d.Schema.Indexes {
			x := &d.Schema.Indexes[i]
			was := old.Index(x.Name)
			x.Backfilling = !x.Deleting && (!old.has(x) || was.Backfilling || was.Deleting) && !mutant.On(mutant.IndexUnfilled)
		}
		d.Billing, d.Throughput, d.OnDemand = theirs.Billing, theirs.Throughput, theirs.OnDemand
		d.Warm, d.Scaled, d.OnDemandSince = theirs.Warm, theirs.Scaled, theirs.OnDemandSince
		d.Class, d.ClassChanged = theirs.Class, theirs.ClassChanged
		d.Scaling, d.Overrides = slices.Clone(theirs.Scaling), cloneOverrides(theirs.Overrides)
		d.Stream, d.SSE = clonePointer(theirs.Stream), clonePointer(theirs.SSE)
		d.TTL = theirs.TTL
		d.Version = theirs.Version
		changed = true
	}
	for _, r := range theirs.Replicas {
		have := d.Replica(r.Region)
		switch {
		case have == nil:
			d.Replicas = append(d.Replicas, r)
			slices.SortFunc(d.Replicas, func(a, b Replica) int { return strings.Compare(a.Region, b.Region) })
			changed = true
		case r.after(have):
			*have = r
			changed = true
		}
	}
	if changed {
		d.follow(own)
	}
	return changed
}

// after orders what is said of one replica. Of two words of one version every region takes the same.
func (r *Replica) after(o *Replica) bool {
	return cmp.Or(cmp.Compare(r.Incarnation, o.Incarnation), cmp.Compare(r.Version, o.Version), cmp.Compare(r.Status, o.Status)) > 0
}

// shared returns all that Version orders, as bytes that are equal where it is.
func (d *Definition) shared() []byte {
	s := Definition{
		Schema: d.Schema.Clone(), Billing: d.Billing, Throughput: d.Throughput, OnDemand: d.OnDemand, Warm: d.Warm, Scaled: d.Scaled,
		OnDemandSince: d.OnDemandSince, Class: d.Class, ClassChanged: d.ClassChanged, Stream: d.Stream, SSE: d.SSE, TTL: d.TTL, Scaling: d.Scaling, Overrides: d.Overrides,
	}
	s.Schema.Solo, s.Schema.Closed, s.Schema.Fences = false, false, nil
	s.Schema.Indexes = slices.DeleteFunc(s.Schema.Indexes, func(x Index) bool { return x.Deleting })
	for i := range s.Schema.Indexes {
		s.Schema.Indexes[i].ID, s.Schema.Indexes[i].Backfilling = 0, false
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("table: definition: %v", err)) // a definition holds only plain data
	}
	return b
}

// Bare takes away what one replica has for itself alone, so that what is left may begin another table or replica.
func (d *Definition) Bare() {
	d.Tags, d.DeletionProtection, d.Restore, d.Policy, d.StreamPolicy, d.Insights, d.Kinesis = nil, false, nil, nil, nil, nil, nil
	d.Disassociable, d.Leaving, d.SettingsMode = false, false, ""
	d.Incarnation, d.Former, d.Settled = 0, nil, nil
}

// Leave makes the definition, which is the named region's own, that of a table of this region alone, with what was in force here.
// A table made by another region by its former global id is another table from now on.
func (d *Definition) Leave(own, globalID string) {
	*d = *d.In(own).Clone()
	d.GlobalID, d.Replicas, d.Overrides, d.Disassociable, d.Leaving = globalID, nil, nil, false, false
	d.Schema.Solo, d.Schema.Fences, d.Settled = true, nil, nil
}

// Clone returns a copy to change: nothing that may be changed in place is shared.
func (d *Definition) Clone() *Definition {
	c := *d
	c.Stream, c.SSE, c.Restore = clonePointer(d.Stream), clonePointer(d.SSE), clonePointer(d.Restore)
	c.Policy, c.StreamPolicy = clonePointer(d.Policy), clonePointer(d.StreamPolicy)
	c.Insights, c.Kinesis, c.Scaling = slices.Clone(d.Insights), slices.Clone(d.Kinesis), slices.Clone(d.Scaling)
	c.Overrides = cloneOverrides(d.Overrides)
	c.Schema = d.Schema.Clone()
	c.Tags, c.Replicas, c.Settled, c.Partitions = slices.Clone(d.Tags), slices.Clone(d.Replicas), slices.Clone(d.Settled), clonePartitions(d.Partitions)
	if c.Former = clonePointer(d.Former); c.Former != nil {
		c.Former.Partitions = clonePartitions(d.Former.Partitions)
	}
	return &c
}

func clonePartitions(p []Partition) []Partition {
	p = slices.Clone(p)
	for i := range p {
		p[i].Start, p[i].End = slices.Clone(p[i].Start), slices.Clone(p[i].End)
		p[i].Founders, p[i].Nodes = slices.Clone(p[i].Founders), slices.Clone(p[i].Nodes)
		if s := p[i].Split; s != nil {
			p[i].Split = &Splitting{s.Child, slices.Clone(s.At)}
		}
		p[i].Merging = clonePointer(p[i].Merging)
	}
	return p
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// Clone returns a copy whose slices are its own.
func (s Schema) Clone() Schema {
	s.Indexes = slices.Clone(s.Indexes)
	for i := range s.Indexes {
		x := &s.Indexes[i]
		x.Hash, x.Range, x.Include = slices.Clone(x.Hash), slices.Clone(x.Range), slices.Clone(x.Include)
	}
	s.Modes.Attributes, s.Fences = slices.Clone(s.Modes.Attributes), slices.Clone(s.Fences)
	return s
}
