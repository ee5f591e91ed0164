package table

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// GlobalTable is one table of a global-table file: the properties of CloudFormation's
// AWS::DynamoDB::GlobalTable, by the same names, and our own ConflictResolution and Backup. Source:
// CloudFormation's resource reference, and DESIGN.md §10.
type GlobalTable struct {
	TableName              string
	AttributeDefinitions   []FileAttribute
	KeySchema              []FileKey
	LocalSecondaryIndexes  []FileIndex
	GlobalSecondaryIndexes []FileIndex
	BillingMode            string
	Replicas               []FileReplica

	WriteProvisionedThroughputSettings *FileCapacity
	WriteOnDemandThroughputSettings    json.RawMessage
	ReadProvisionedThroughputSettings  json.RawMessage
	ReadOnDemandThroughputSettings     json.RawMessage
	StreamSpecification                *FileStream
	SSESpecification                   *FileSSE
	TimeToLiveSpecification            *FileTimeToLive
	WarmThroughput                     json.RawMessage
	MultiRegionConsistency             string
	GlobalTableWitnesses               json.RawMessage
	GlobalTableSourceArn               string
	GlobalTableSettingsReplicationMode string

	ConflictResolution FileConflictResolution
	Backup             json.RawMessage
}

// FileAttribute is a key attribute's name and type.
type FileAttribute struct{ AttributeName, AttributeType string }

// FileKey is one element of a key: KeyType is HASH or RANGE.
type FileKey struct{ AttributeName, KeyType string }

// FileIndex is a secondary index.
type FileIndex struct {
	IndexName  string
	KeySchema  []FileKey
	Projection struct {
		ProjectionType   string
		NonKeyAttributes []string
	}
	WriteProvisionedThroughputSettings *FileCapacity
	ReadProvisionedThroughputSettings  json.RawMessage
	ContributorInsightsSpecification   json.RawMessage
	WriteOnDemandThroughputSettings    json.RawMessage
	ReadOnDemandThroughputSettings     json.RawMessage
	WarmThroughput                     json.RawMessage
}

// FileCapacity is write capacity that scales by itself; its minimum is what a table gets here.
type FileCapacity struct {
	WriteCapacityAutoScalingSettings struct {
		MinCapacity, MaxCapacity, SeedCapacity   int64
		TargetTrackingScalingPolicyConfiguration json.RawMessage
	}
}

// FileStream is a stream's setting.
type FileStream struct{ StreamViewType string }

// FileSSE is an encryption setting.
type FileSSE struct {
	SSEEnabled bool
	SSEType    string
}

// FileTimeToLive says which attribute ends items.
type FileTimeToLive struct {
	AttributeName string
	Enabled       bool
}

// TimeToLive returns the attribute that ends items; "" for none.
func (t *GlobalTable) TimeToLive() string {
	if s := t.TimeToLiveSpecification; s != nil && s.Enabled {
		return s.AttributeName
	}
	return ""
}

// FileReplica is one region's replica.
type FileReplica struct {
	Region                    string
	Tags                      []Tag
	DeletionProtectionEnabled bool
	TableClass                string

	FileReads
	GlobalSecondaryIndexes           []FileReplicaIndex
	PointInTimeRecoverySpecification json.RawMessage
	ContributorInsightsSpecification json.RawMessage
	KinesisStreamSpecification       json.RawMessage
	ReplicaStreamSpecification       json.RawMessage
	ResourcePolicy                   json.RawMessage
	SSESpecification                 json.RawMessage
}

// FileReplicaIndex is what a replica has of a global index for itself.
type FileReplicaIndex struct {
	IndexName string
	FileReads
	ContributorInsightsSpecification json.RawMessage
}

// FileReads is how much a replica, or an index of it, may be read.
type FileReads struct {
	ReadProvisionedThroughputSettings *FileReadCapacity
	ReadOnDemandThroughputSettings    *struct{ MaxReadRequestUnits int64 }
}

// FileReadCapacity is read capacity: fixed, or one that scales by itself, whose minimum is what a replica gets here.
type FileReadCapacity struct {
	ReadCapacityUnits               int64
	ReadCapacityAutoScalingSettings struct {
		MinCapacity, MaxCapacity, SeedCapacity   int64
		TargetTrackingScalingPolicyConfiguration json.RawMessage
	}
}

// Units returns the provisioned reads and the most on demand, each in units a second; 0 where none is given.
func (r *FileReads) Units() (provisioned, most int64) {
	if c := r.ReadProvisionedThroughputSettings; c != nil {
		provisioned = cmp.Or(c.ReadCapacityUnits, c.ReadCapacityAutoScalingSettings.MinCapacity)
	}
	if c := r.ReadOnDemandThroughputSettings; c != nil {
		most = c.MaxReadRequestUnits
	}
	return provisioned, most
}

// FileConflictResolution says how writes of several regions meet: Mode for the table (Merge where
// none is given), Attributes for single top-level attributes.
type FileConflictResolution struct {
	Mode       Mode
	Attributes map[string]Mode
}

// Modes returns the setting as a schema has it.
func (c FileConflictResolution) Modes() Modes {
	m := Modes{Table: c.Mode}
	for name, mode := range c.Attributes {
		m.Attributes = append(m.Attributes, AttributeMode{name, mode})
	}
	slices.SortFunc(m.Attributes, func(a, b AttributeMode) int { return strings.Compare(a.Name, b.Name) })
	return m
}

// globalTableType is what a resource of a template must be to be one of ours.
const globalTableType = "AWS::DynamoDB::GlobalTable"

// ParseGlobalTables reads a global-table file, YAML or JSON: one or more documents, each a table's
// properties, a list of them, or a whole CloudFormation template, whose resources of other types are
// passed over. The errors name the table and the property, all that are wrong at once.
func ParseGlobalTables(file []byte) ([]GlobalTable, error) {
	var tables []GlobalTable
	var errs []error
	d := yaml.NewDecoder(bytes.NewReader(file))
	for n := 1; ; n++ {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("global-table file: %w", err)
		}
		resources, err := resourcesOf(&doc)
		if err != nil {
			return nil, fmt.Errorf("global-table file: document %d: %w", n, err)
		}
		for _, r := range resources {
			t, err := r.table()
			if err == nil {
				err = t.check()
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("global-table file: %s: %w", r.name, err))
				continue
			}
			tables = append(tables, t)
		}
	}
	for i, t := range tables {
		if slices.ContainsFunc(tables[:i], func(o GlobalTable) bool { return o.TableName == t.TableName }) {
			errs = append(errs, fmt.Errorf("global-table file: table %s is there twice", t.TableName))
		}
	}
	if len(tables) == 0 && len(errs) == 0 {
		return nil, errors.New("global-table file: there is no table in it")
	}
	return tables, errors.Join(errs...)
}

// resource is the properties of one table, and how messages call it.
type resource struct {
	name       string
	properties *yaml.Node
}

func resourcesOf(doc *yaml.Node) ([]resource, error) {
	if len(doc.Content) != 1 {
		return nil, errors.New("it is empty")
	}
	root := doc.Content[0]
	switch root.Kind {
	case yaml.SequenceNode:
		var out []resource
		for i, n := range root.Content {
			out = append(out, resource{fmt.Sprintf("table %d of the list", i+1), n})
		}
		return out, nil
	case yaml.MappingNode:
	default:
		return nil, errors.New("it is neither a table's properties, a list of them, nor a template")
	}
	all := field(root, "Resources")
	if all == nil {
		if t := field(root, "Type"); t != nil && t.Value == globalTableType {
			return []resource{{"the table", field(root, "Properties")}}, nil
		}
		return []resource{{"the table", root}}, nil
	}
	if all.Kind != yaml.MappingNode {
		return nil, errors.New("Resources is no map")
	}
	var out []resource
	for i := 0; i+1 < len(all.Content); i += 2 {
		if t := field(all.Content[i+1], "Type"); t != nil && t.Value == globalTableType {
			out = append(out, resource{"resource " + all.Content[i].Value, field(all.Content[i+1], "Properties")})
		}
	}
	return out, nil
}

func field(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func (r resource) table() (GlobalTable, error) {
	var t GlobalTable
	if r.properties == nil {
		return t, errors.New("it has no Properties")
	}
	if f := intrinsic(r.properties); f != "" {
		return t, fmt.Errorf("%s: functions of CloudFormation are not carried out; write the value itself", f)
	}
	var plain any
	if err := r.properties.Decode(&plain); err != nil {
		return t, err
	}
	b, err := json.Marshal(plain)
	if err != nil {
		return t, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return t, d.Decode(&t)
}

// intrinsic returns the first CloudFormation function in the tree, "" for none.
func intrinsic(n *yaml.Node) string {
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") {
		return n.Tag
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
		if name := n.Content[0].Value; name == "Ref" || strings.HasPrefix(name, "Fn::") {
			return name
		}
	}
	for _, c := range n.Content {
		if f := intrinsic(c); f != "" {
			return f
		}
	}
	return ""
}

var (
	tableNamePattern  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)
	regionNamePattern = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}$`)
)

// check returns what is wrong with the table beyond its form; the rest is for the API to say.
func (t *GlobalTable) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !tableNamePattern.MatchString(t.TableName) {
		wrong("TableName: %q is no table's name: 3 to 255 letters, digits, _ . and -", t.TableName)
	}
	if len(t.KeySchema) == 0 {
		wrong("KeySchema: it is missing")
	}
	if len(t.AttributeDefinitions) == 0 {
		wrong("AttributeDefinitions: they are missing")
	}
	if len(t.Replicas) == 0 {
		wrong("Replicas: there is none; name at least one region")
	}
	seen := map[string]bool{}
	for _, r := range t.Replicas {
		if !regionNamePattern.MatchString(r.Region) {
			wrong("Replicas: %q is not a region's name like us-east-1", r.Region)
		}
		if seen[r.Region] {
			wrong("Replicas: region %s is there twice", r.Region)
		}
		seen[r.Region] = true
	}
	checkMode := func(where string, m Mode) {
		if m != "" && m != Merge && m != LastWriterWins {
			wrong("ConflictResolution: %s: %q is neither %s nor %s", where, m, Merge, LastWriterWins)
		}
	}
	checkMode("Mode", t.ConflictResolution.Mode)
	for name, m := range t.ConflictResolution.Attributes {
		checkMode("Attributes: "+name, m)
	}
	switch Billing(t.BillingMode) {
	case "", OnDemand:
	case Provisioned:
		if t.WriteProvisionedThroughputSettings == nil {
			wrong("WriteProvisionedThroughputSettings: it is missing, and BillingMode is PROVISIONED")
		}
	default:
		wrong("BillingMode: %q is neither %s nor %s", t.BillingMode, OnDemand, Provisioned)
	}
	if s := t.TimeToLiveSpecification; s != nil && s.Enabled && s.AttributeName == "" {
		wrong("TimeToLiveSpecification: AttributeName is missing")
	}
	if t.MultiRegionConsistency != "" && t.MultiRegionConsistency != "EVENTUAL" {
		wrong("MultiRegionConsistency: %s is not there yet; leave it out, or EVENTUAL", t.MultiRegionConsistency)
	}
	return errors.Join(errs...)
}

// Ignored returns the names of the properties that are given and that have no effect here yet.
func (t *GlobalTable) Ignored() []string {
	var out []string
	add := func(name string, raw json.RawMessage) {
		if len(raw) > 0 && string(raw) != "null" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	add("WriteOnDemandThroughputSettings", t.WriteOnDemandThroughputSettings)
	add("ReadProvisionedThroughputSettings", t.ReadProvisionedThroughputSettings)
	add("ReadOnDemandThroughputSettings", t.ReadOnDemandThroughputSettings)
	add("WarmThroughput", t.WarmThroughput)
	add("GlobalTableWitnesses", t.GlobalTableWitnesses)
	add("Backup", t.Backup)
	for _, x := range t.GlobalSecondaryIndexes {
		add("GlobalSecondaryIndexes.ContributorInsightsSpecification", x.ContributorInsightsSpecification)
		add("GlobalSecondaryIndexes.WarmThroughput", x.WarmThroughput)
	}
	for _, r := range t.Replicas {
		for _, x := range r.GlobalSecondaryIndexes {
			add("Replicas.GlobalSecondaryIndexes.ContributorInsightsSpecification", x.ContributorInsightsSpecification)
		}
		add("Replicas.PointInTimeRecoverySpecification", r.PointInTimeRecoverySpecification)
		add("Replicas.ContributorInsightsSpecification", r.ContributorInsightsSpecification)
		add("Replicas.KinesisStreamSpecification", r.KinesisStreamSpecification)
		add("Replicas.ReplicaStreamSpecification", r.ReplicaStreamSpecification)
		add("Replicas.ResourcePolicy", r.ResourcePolicy)
		add("Replicas.SSESpecification", r.SSESpecification)
	}
	return out
}
