package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const ordersFile = `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
BillingMode: PAY_PER_REQUEST
Replicas:
  - Region: us-east-1
    Tags: [{Key: team, Value: checkout}]
  - Region: eu-west-1
    Tags: [{Key: team, Value: checkout-eu}]
    DeletionProtectionEnabled: true
ConflictResolution: {Attributes: {note: LastWriterWins}}
TimeToLiveSpecification: {Enabled: true, AttributeName: ttl}
ReadOnDemandThroughputSettings: {MaxReadRequestUnits: 5}
`

func (d *testDev) apply(path string, more ...string) (stdout, stderr string) {
	d.t.Helper()
	return d.run(append([]string{"apply", "-f", path, "--timeout", "10s"}, more...)...)
}

func (d *testDev) describe(region int, table string) *types.TableDescription {
	d.t.Helper()
	desc, err := d.clients[region].describe(d.t.Context(), table)
	if err != nil {
		d.t.Fatal(err)
	}
	return desc
}

func (d *testDev) tags(region int, table string) string {
	d.t.Helper()
	a, err := d.clients[region].dynamo.ListTagsOfResource(d.t.Context(), &dynamodb.ListTagsOfResourceInput{ResourceArn: d.describe(region, table).TableArn})
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, t := range a.Tags {
		out = append(out, *t.Key+"="+*t.Value)
	}
	return strings.Join(out, " ")
}

func (d *testDev) timeToLive(region int, table string) string {
	d.t.Helper()
	a, err := d.clients[region].dynamo.DescribeTimeToLive(d.t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &table})
	if err != nil {
		d.t.Fatal(err)
	}
	return aws.ToString(a.TimeToLiveDescription.AttributeName)
}

func TestAnotherAttributeEndsItemsWhenTheFileSaysSo(t *testing.T) {
	d := startDev(t)
	dir := t.TempDir()
	d.apply(writeFile(t, dir, "orders.yaml", ordersFile))
	other := writeFile(t, dir, "orders.yaml", strings.Replace(ordersFile, "AttributeName: ttl", "AttributeName: until", 1))
	if stdout, _ := d.run("plan", "-f", other); !strings.Contains(stdout, "orders: would stop ending items by ttl\norders: would end items by until\n") {
		t.Errorf("plan says:\n%s", stdout)
	}
	d.apply(other)
	none := writeFile(t, dir, "orders.yaml", strings.Replace(ordersFile, "TimeToLiveSpecification: {Enabled: true, AttributeName: ttl}\n", "", 1))
	for region := range 2 {
		if got := d.timeToLive(region, "orders"); got != "until" {
			t.Errorf("in region %d items end by %q", region, got)
		}
	}
	d.apply(none)
	for region := range 2 {
		if got := d.timeToLive(region, "orders"); got != "" {
			t.Errorf("in region %d items end by %q still", region, got)
		}
	}
}

func TestApplyingAgainChangesNothing(t *testing.T) {
	d := startDev(t)
	file := writeFile(t, t.TempDir(), "orders.yaml", ordersFile)

	if stdout, _ := d.run("plan", "-f", file); !strings.Contains(stdout, "orders: would create the table in us-east-1\norders: would add the replica in eu-west-1\n") {
		t.Errorf("plan says:\n%s", stdout)
	}
	if d.describe(0, "orders") != nil {
		t.Fatal("plan has made the table")
	}
	stdout, stderr := d.apply(file)
	if stdout != "orders: created\n" || !strings.Contains(stderr, "no effect yet: ReadOnDemandThroughputSettings") {
		t.Errorf("apply says %q and %q", stdout, stderr)
	}
	for region, want := range []string{"commutator:conflict-resolution:note=LastWriterWins team=checkout", "commutator:conflict-resolution:note=LastWriterWins team=checkout-eu"} {
		desc := d.describe(region, "orders")
		if desc == nil || desc.TableStatus != types.TableStatusActive || len(desc.Replicas) != 1 || *desc.DeletionProtectionEnabled != (region == 1) {
			t.Errorf("region %d has %+v", region, desc)
		}
		if got := d.tags(region, "orders"); got != want {
			t.Errorf("region %d has the tags %s, want %s", region, got, want)
		}
		if got := d.timeToLive(region, "orders"); got != "ttl" {
			t.Errorf("in region %d items end by %q", region, got)
		}
	}
	if stdout, _ := d.apply(file); stdout != "orders: unchanged\n" {
		t.Errorf("apply again says %q", stdout)
	}
	if stdout, _ := d.run("plan", "-f", file); stdout != "orders: unchanged\n" {
		t.Errorf("plan says %q", stdout)
	}
}

func TestApplyChangesWhatTheFileChanges(t *testing.T) {
	d := startDev(t)
	dir := t.TempDir()
	d.apply(writeFile(t, dir, "orders.yaml", ordersFile))
	d.put(0, "orders", attributes{"pk": text("a"), "day": text("mon")})

	file := writeFile(t, dir, "orders.yaml", `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}, {AttributeName: day, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
BillingMode: PROVISIONED
WriteProvisionedThroughputSettings: {WriteCapacityAutoScalingSettings: {MinCapacity: 7, MaxCapacity: 70}}
GlobalSecondaryIndexes:
  - IndexName: by-day
    KeySchema: [{AttributeName: day, KeyType: HASH}]
    Projection: {ProjectionType: ALL}
  - IndexName: by-day-too
    KeySchema: [{AttributeName: day, KeyType: HASH}]
    Projection: {ProjectionType: INCLUDE, NonKeyAttributes: [note]}
Replicas:
  - Region: us-east-1
    DeletionProtectionEnabled: true
    TableClass: STANDARD_INFREQUENT_ACCESS
  - Region: eu-west-1
    TableClass: STANDARD_INFREQUENT_ACCESS
ConflictResolution: {Mode: LastWriterWins}
`)
	if stdout, _ := d.apply(file); stdout != "orders: updated\n" {
		t.Fatalf("apply says %q", stdout)
	}
	for region := range d.clients {
		desc := d.describe(region, "orders")
		if len(desc.GlobalSecondaryIndexes) != 2 || *desc.ProvisionedThroughput.WriteCapacityUnits != 7 || desc.BillingModeSummary.BillingMode != types.BillingModeProvisioned {
			t.Errorf("region %d has %+v", region, desc)
		}
		if got, want := d.tags(region, "orders"), "commutator:conflict-resolution=LastWriterWins"; got != want {
			t.Errorf("region %d has the tags %s, want %s", region, got, want)
		}
		if protected := *desc.DeletionProtectionEnabled; protected != (region == 0) {
			t.Errorf("region %d is protected: %v", region, protected)
		}
	}
	if stdout, _ := d.apply(file); stdout != "orders: unchanged\n" {
		t.Fatalf("apply again says %q", stdout)
	}

	less := writeFile(t, dir, "orders.yaml", `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
Replicas: [{Region: us-east-1}]
`)
	d.refused([]string{"apply", "-f", less}, "--allow-delete", "remove the index by-day", "remove the replica in eu-west-1")
	if d.describe(1, "orders") == nil {
		t.Fatal("the replica is gone")
	}
	if stdout, _ := d.apply(less, "--allow-delete"); stdout != "orders: updated\n" {
		t.Errorf("apply says %q", stdout)
	}
	desc := d.describe(0, "orders")
	if len(desc.GlobalSecondaryIndexes) != 0 || len(desc.Replicas) != 0 || d.describe(1, "orders") != nil {
		t.Errorf("left over: %+v", desc)
	}
	if d.get(0, "orders", "a") == nil {
		t.Error("the item is gone")
	}
	if stdout, _ := d.apply(less); stdout != "orders: unchanged\n" {
		t.Errorf("apply again says %q", stdout)
	}
}

func TestApplyRefusesWhatATableKeepsForLife(t *testing.T) {
	d := startDev(t)
	dir := t.TempDir()
	d.apply(writeFile(t, dir, "orders.yaml", ordersFile))
	d.refused([]string{"apply", "-f", writeFile(t, dir, "orders.yaml", strings.ReplaceAll(ordersFile, "pk", "id"))}, "KeySchema", "pk HASH")
	d.refused([]string{"apply", "-f", writeFile(t, dir, "orders.yaml", strings.ReplaceAll(ordersFile, "AttributeType: S", "AttributeType: N"))}, "AttributeDefinitions", "pk is of type S")
	d.refused([]string{"apply", "--allow-delete", "-f", writeFile(t, dir, "orders.yaml", `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
Replicas: [{Region: us-east-1}]
`)}, "deletion protection")
}

func TestApplyTakesATemplate(t *testing.T) {
	d := startDev(t)
	dir := t.TempDir()
	writeFile(t, dir, "template.json", `{
  "AWSTemplateFormatVersion": "2010-09-09",
  "Resources": {
    "Bucket": {"Type": "AWS::S3::Bucket"},
    "Events": {"Type": "AWS::DynamoDB::GlobalTable", "Properties": {
      "TableName": "events",
      "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "at", "AttributeType": "N"}, {"AttributeName": "kind", "AttributeType": "S"}],
      "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
      "LocalSecondaryIndexes": [{"IndexName": "by-kind", "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "kind", "KeyType": "RANGE"}], "Projection": {"ProjectionType": "KEYS_ONLY"}}],
      "BillingMode": "PAY_PER_REQUEST",
      "StreamSpecification": {"StreamViewType": "NEW_AND_OLD_IMAGES"},
      "SSESpecification": {"SSEEnabled": true, "SSEType": "KMS"},
      "Replicas": [{"Region": "us-east-1"}, {"Region": "eu-west-1"}]
    }}
  }
}`)
	writeFile(t, dir, "orders.yml", ordersFile)
	writeFile(t, dir, "README.md", "not read")
	if stdout, _ := d.apply(dir); stdout != "orders: created\nevents: created\n" {
		t.Errorf("apply says %q", stdout)
	}
	stdout, _ := d.apply(dir, "-o", "json")
	var results []tableResult
	if err := json.Unmarshal([]byte(stdout), &results); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if len(results) != 2 || slices.ContainsFunc(results, func(r tableResult) bool { return r.Result != unchanged }) {
		t.Errorf("apply again says %+v", results)
	}
}

func TestApplyNamesEveryErrorOfTheFiles(t *testing.T) {
	d := startDev(t)
	dir := t.TempDir()
	writeFile(t, dir, "a.yaml", "TableName: x\nKeySchema: []\nReplicas: [{Region: moon}]\n")
	writeFile(t, dir, "b.yaml", "TableName: [\n")
	writeFile(t, dir, "c.yaml", "TableName: orders\nColour: red\n")
	writeFile(t, dir, "d.yaml", ordersFile)
	writeFile(t, dir, "e.yaml", ordersFile)
	writeFile(t, dir, "f.yaml", "")
	d.refused([]string{"apply", "-f", dir, "-f", "none.yaml"},
		"a.yaml", "TableName", "KeySchema", "AttributeDefinitions", `"moon"`, "b.yaml", "c.yaml", "Colour", "table orders is in", "f.yaml", "none.yaml")
	if d.describe(0, "orders") != nil {
		t.Error("a table was made of files with errors")
	}
	d.refused([]string{"plan", "-f", t.TempDir()}, "no .yaml")
}

func TestApplyWithOneEndpoint(t *testing.T) {
	d := startDev(t)
	file := writeFile(t, t.TempDir(), "orders.yaml", ordersFile)
	stdout, stderr, err := try(t, "apply", "-f", file, "--endpoint-url", d.clients[0].url)
	if err != nil || stdout != "orders: created\n" || !strings.Contains(stderr, "eu-west-1 are left alone") {
		t.Errorf("apply through one region says %q, %q, %v", stdout, stderr, err)
	}
	only := writeFile(t, t.TempDir(), "orders.yaml", strings.ReplaceAll(ordersFile, "us-east-1", "sa-east-1"))
	if _, _, err := try(t, "apply", "-f", only, "--endpoint", d.clients[0].url); err == nil || !strings.Contains(err.Error(), "--endpoint") {
		t.Errorf("apply through a region that the file does not name: %v", err)
	}
	d.refused([]string{"apply", "-f", writeFile(t, t.TempDir(), "far.yaml", strings.ReplaceAll(strings.ReplaceAll(ordersFile, "eu-west-1", "sa-east-1"), "orders", "far"))}, "sa-east-1")
}

func TestEachReplicaIsReadAsMuchAsTheFileSays(t *testing.T) {
	d := startDev(t)
	dir := t.TempDir()
	file := func(billing, east, west string) string {
		return writeFile(t, dir, "orders.yaml", `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}, {AttributeName: g, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
`+billing+`
GlobalSecondaryIndexes: [{IndexName: by-g, KeySchema: [{AttributeName: g, KeyType: HASH}], Projection: {ProjectionType: ALL}}]
Replicas:
  - Region: us-east-1
`+east+`
  - Region: eu-west-1
`+west)
	}
	reads := func(region int) (table, index, most, mostOfIndex int64) {
		desc := d.describe(region, "orders")
		x := desc.GlobalSecondaryIndexes[0]
		if desc.OnDemandThroughput != nil {
			most = aws.ToInt64(desc.OnDemandThroughput.MaxReadRequestUnits)
		}
		if x.OnDemandThroughput != nil {
			mostOfIndex = aws.ToInt64(x.OnDemandThroughput.MaxReadRequestUnits)
		}
		return *desc.ProvisionedThroughput.ReadCapacityUnits, *x.ProvisionedThroughput.ReadCapacityUnits, most, mostOfIndex
	}
	provisioned := "BillingMode: PROVISIONED\nWriteProvisionedThroughputSettings: {WriteCapacityAutoScalingSettings: {MinCapacity: 5, MaxCapacity: 10, TargetTrackingScalingPolicyConfiguration: {TargetValue: 70}}}"
	first := file(provisioned, "    ReadProvisionedThroughputSettings: {ReadCapacityUnits: 7}",
		"    ReadProvisionedThroughputSettings: {ReadCapacityAutoScalingSettings: {MinCapacity: 9, MaxCapacity: 20, TargetTrackingScalingPolicyConfiguration: {TargetValue: 70}}}\n    GlobalSecondaryIndexes: [{IndexName: by-g, ReadProvisionedThroughputSettings: {ReadCapacityUnits: 11}}]")
	if _, stderr := d.apply(first); strings.Contains(stderr, "no effect") {
		t.Errorf("apply says %q", stderr)
	}
	for region, want := range [][2]int64{{7, 5}, {9, 11}} {
		if table, index, _, _ := reads(region); table != want[0] || index != want[1] {
			t.Errorf("region %d may be read %d and %d, want %v", region, table, index, want)
		}
	}
	if stdout, _ := d.apply(first); stdout != "orders: unchanged\n" {
		t.Errorf("apply again says %q", stdout)
	}
	if stdout, _ := d.run("plan", "-f", file(provisioned, "    ReadProvisionedThroughputSettings: {ReadCapacityUnits: 8}", "")); stdout != "orders: would set how much may be read in us-east-1\n" {
		t.Errorf("plan says %q", stdout)
	}
	onDemand := file("BillingMode: PAY_PER_REQUEST", "", "    ReadOnDemandThroughputSettings: {MaxReadRequestUnits: 100}\n    GlobalSecondaryIndexes: [{IndexName: by-g, ReadOnDemandThroughputSettings: {MaxReadRequestUnits: 50}}]")
	d.apply(onDemand)
	if _, _, most, mostOfIndex := reads(1); most != 100 || mostOfIndex != 50 {
		t.Errorf("on demand eu-west-1 may be read %d and %d", most, mostOfIndex)
	}
	if stdout, _ := d.run("plan", "-f", onDemand); stdout != "orders: unchanged\n" {
		t.Errorf("plan says %q", stdout)
	}
}
