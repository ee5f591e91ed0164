package table

import (
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Goal: a global-table file is read in every form that people have, and what is wrong in it is named.

const plainTable = `
TableName: orders
AttributeDefinitions:
  - {AttributeName: pk, AttributeType: S}
  - {AttributeName: sk, AttributeType: N}
KeySchema:
  - {AttributeName: pk, KeyType: HASH}
  - {AttributeName: sk, KeyType: RANGE}
BillingMode: PAY_PER_REQUEST
Replicas:
  - Region: us-east-1
    Tags: [{Key: team, Value: shop}]
    DeletionProtectionEnabled: true
  - Region: eu-west-1
`

const jsonTable = `{"TableName": "orders", "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"}],
"KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}], "BillingMode": "PAY_PER_REQUEST",
"Replicas": [{"Region": "us-east-1", "Tags": [{"Key": "team", "Value": "shop"}], "DeletionProtectionEnabled": true}, {"Region": "eu-west-1"}]}`

func indent(s, by string) string { return strings.ReplaceAll(s, "\n", "\n"+by) }

func named(name string) string { return strings.Replace(plainTable, "orders", name, 1) }

func TestAGlobalTableFileIsReadInEveryForm(t *testing.T) {
	want := GlobalTable{
		TableName:            "orders",
		AttributeDefinitions: []FileAttribute{{"pk", "S"}, {"sk", "N"}},
		KeySchema:            []FileKey{{"pk", "HASH"}, {"sk", "RANGE"}},
		BillingMode:          "PAY_PER_REQUEST",
		Replicas:             []FileReplica{{Region: "us-east-1", Tags: []Tag{{"team", "shop"}}, DeletionProtectionEnabled: true}, {Region: "eu-west-1"}},
	}
	other := want
	other.TableName = "other"
	for name, c := range map[string]struct {
		file string
		want []GlobalTable
	}{
		"properties in YAML":   {plainTable, []GlobalTable{want}},
		"properties in JSON":   {jsonTable, []GlobalTable{want}},
		"a resource by itself": {"Type: AWS::DynamoDB::GlobalTable\nProperties:" + indent(plainTable, "  "), []GlobalTable{want}},
		"a list in YAML":       {"-" + indent(plainTable, "  ") + "\n-" + indent(named("other"), "  "), []GlobalTable{want, other}},
		"a list in JSON":       {"[" + jsonTable + "]", []GlobalTable{want}},
		"documents":            {plainTable + "---\n" + named("other"), []GlobalTable{want, other}},
		"a template": {`AWSTemplateFormatVersion: "2010-09-09"
Parameters: {Stage: {Type: String}}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties: {RoleName: !Sub "${Stage}-role", Path: {Ref: Stage}}
  Orders:
    Type: AWS::DynamoDB::GlobalTable
    DeletionPolicy: Retain
    Properties:` + indent(plainTable, "      ") + `
Outputs: {Arn: {Value: !GetAtt Orders.Arn}}
`, []GlobalTable{want}},
	} {
		got, err := ParseGlobalTables([]byte(c.file))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", name, got, err, c.want)
		}
	}
}

func TestWhatIsWrongInAGlobalTableFileIsNamed(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(plainTable, old, new, 1) }
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"nothing":              {"", []string{"there is no table in it"}},
		"no YAML":              {"{", []string{"global-table file: "}},
		"a word":               {"orders", []string{"document 1", "neither a table's properties, a list of them, nor a template"}},
		"an empty document":    {plainTable + "---\n---\n" + named("other"), []string{"document 2"}},
		"no table in it":       {"Resources:\n  Role: {Type: AWS::IAM::Role}\n", []string{"there is no table in it"}},
		"Resources is a list":  {"Resources: []\n", []string{"document 1", "Resources is no map"}},
		"no Properties":        {"Resources:\n  Orders: {Type: AWS::DynamoDB::GlobalTable}\n", []string{"resource Orders", "it has no Properties"}},
		"a short reference":    {with("orders", "!Ref Name"), []string{"the table", "!Ref", "functions of CloudFormation are not carried out"}},
		"a long reference":     {with("orders", "{Ref: Name}"), []string{"Ref: functions"}},
		"a function":           {with("orders", "{'Fn::Sub': x}"), []string{"Fn::Sub: functions"}},
		"an unknown property":  {with("BillingMode", "BilingMode"), []string{"BilingMode"}},
		"an unknown replica's": {with("Region: eu-west-1", "Regoin: eu-west-1"), []string{"Regoin"}},
		"a type of value":      {with("true", "[1]"), []string{"DeletionProtectionEnabled"}},
		"no name":              {with("orders", "''"), []string{"TableName", "3 to 255 letters"}},
		"a bad name":           {with("orders", "or/ders"), []string{"TableName", `"or/ders"`}},
		"a bad region":         {with("eu-west-1", "Ireland"), []string{"Replicas", `"Ireland"`}},
		"a region twice":       {with("eu-west-1", "us-east-1"), []string{"Replicas: region us-east-1 is there twice"}},
		"a bad billing mode":   {with("PAY_PER_REQUEST", "FREE"), []string{"BillingMode", `"FREE"`}},
		"no capacity":          {with("PAY_PER_REQUEST", "PROVISIONED"), []string{"WriteProvisionedThroughputSettings: it is missing"}},
		"strong consistency":   {plainTable + "MultiRegionConsistency: STRONG\n", []string{"MultiRegionConsistency: STRONG"}},
		"a bad mode":           {plainTable + "ConflictResolution: {Mode: Newest}\n", []string{"ConflictResolution: Mode", `"Newest"`, "Merge", "LastWriterWins"}},
		"an attribute's mode":  {plainTable + "ConflictResolution: {Attributes: {n: Sum}}\n", []string{"ConflictResolution: Attributes: n", `"Sum"`}},
		"two at once":          {with("eu-west-1", "Ireland") + "MultiRegionConsistency: STRONG\n", []string{"Ireland", "STRONG"}},
		"the second of a list": {"-" + indent(plainTable, "  ") + "\n-" + indent(with("orders", "x"), "  "), []string{"table 2 of the list", `"x"`}},
		"a table twice":        {plainTable + "---" + plainTable, []string{"table orders is there twice"}},
		"an empty one":         {"{}", []string{"TableName", "KeySchema: it is missing", "AttributeDefinitions: they are missing", "Replicas: there is none"}},
		"no map":               {"- orders\n", []string{"table 1 of the list"}},
	} {
		_, err := ParseGlobalTables([]byte(c.file))
		if err == nil {
			t.Errorf("%s: it is taken", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %q\nwant %q in it", name, err, want)
			}
		}
	}
}

func TestConflictResolutionBecomesModesInOrder(t *testing.T) {
	tables, err := ParseGlobalTables([]byte(plainTable + "ConflictResolution: {Mode: LastWriterWins, Attributes: {z: Merge, a: LastWriterWins, m: Merge}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Modes{LastWriterWins, []AttributeMode{{"a", LastWriterWins}, {"m", Merge}, {"z", Merge}}}
	if got := tables[0].ConflictResolution.Modes(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPropertiesWithoutEffectAreListedOnce(t *testing.T) {
	tables, err := ParseGlobalTables([]byte(plainTable + `    PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
  - Region: eu-west-2
    PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}
    ResourcePolicy: null
WarmThroughput: {ReadUnitsPerSecond: 12000}
Backup: {Schedule: daily}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"WarmThroughput", "Backup", "Replicas.PointInTimeRecoverySpecification"}
	if got := tables[0].Ignored(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	plain, err := ParseGlobalTables([]byte(plainTable))
	if err != nil {
		t.Fatal(err)
	}
	if got := plain[0].Ignored(); len(got) > 0 {
		t.Errorf("of a table that asks for nothing more: %q", got)
	}
}

// Whatever comes, reading does not panic, and what is taken can be used: names are good, each once.
func FuzzParseGlobalTables(f *testing.F) {
	for _, s := range []string{plainTable, jsonTable, "[" + jsonTable + "]", plainTable + "---" + named("other"), "Resources: {A: {Type: AWS::DynamoDB::GlobalTable}}",
		"a: &x [*x]", "? [a]\n: b", "&a {<<: *a}", "--- !Ref x", "TableName: 1e3", "a: .nan"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		tables, err := ParseGlobalTables(file)
		if err != nil {
			return
		}
		if len(tables) == 0 {
			t.Fatal("no table and no error")
		}
		names := map[string]bool{}
		for i := range tables {
			if names[tables[i].TableName] || !tableNamePattern.MatchString(tables[i].TableName) || len(tables[i].Replicas) == 0 {
				t.Fatalf("taken: %+v", tables[i])
			}
			names[tables[i].TableName] = true
			tables[i].Ignored()
			tables[i].ConflictResolution.Modes()
		}
	})
}

func TestSplitSharesTheHashesEvenly(t *testing.T) {
	for n := 1; n <= 64; n++ {
		parts := Split(16, n)
		for i, p := range parts {
			start := uint64(0)
			if i > 0 {
				start = binary.BigEndian.Uint64(p.Start)
			} else if p.Start != nil {
				t.Errorf("of %d partitions the first begins at %x", n, p.Start)
			}
			if want := float64(i) / float64(n) * (1 << 64); p.ID != uint64(16+i) || math.Abs(float64(start)-want) > 1<<12 {
				t.Errorf("of %d partitions number %d is %d, from %x on; want about %x", n, i, p.ID, start, uint64(want))
			}
		}
	}
}
