package api

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/compat.md")

// modelled is how many operations the service's API model has.
// Source: dynamodb.service-2.json, 2012-08-10, as of 2026.
const modelled = 58

func TestEveryOperationOfTheModelIsKnown(t *testing.T) {
	if len(operations) != modelled {
		t.Errorf("%d operations, the model has %d", len(operations), modelled)
	}
	for name, o := range operations {
		if (o.run == nil) == (o.missing == "") {
			t.Errorf("%s must either run or say why not", name)
		}
	}
}

// docs/compat.md is what the table of operations says: go test ./api -run Compat -rewrite
func TestCompatIsPrinted(t *testing.T) {
	const file = "../docs/compat.md"
	want := []byte(compat())
	got, err := os.ReadFile(file)
	if err == nil && bytes.Equal(got, want) {
		return
	}
	if !*rewrite {
		t.Fatalf("%s is not what the operations say: go test ./api -run Compat -rewrite, and read the diff (%v)", file, err)
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

func compat() string {
	var names []string
	for name := range operations {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString(`# Compatibility with DynamoDB

Written by ` + "`go test ./api -run Compat -rewrite`" + `; edit api/compat_test.go and api/operations.go instead.

What follows is the whole of DynamoDB's API (version 2012-08-10). An operation that is not there yet is refused
with an UnknownOperationException that names it: a client error, which SDKs do not retry.

| operation | there | if not, why |
|---|---|---|
`)
	for _, name := range names {
		if missing := operations[name].missing; missing != "" {
			fmt.Fprintf(&b, "| %s | not yet | %s |\n", name, missing)
		} else {
			fmt.Fprintf(&b, "| %s | yes | |\n", name)
		}
	}
	b.WriteString(`
## What is different, and why

| where | what we do |
|---|---|
| capacity | provisioned and on-demand throughput is stored and shown; nothing is limited by it. Consumed capacity is counted as the service does |
| replica overrides in ReplicaUpdates | accepted and not kept: they are settings of capacity |
| MultiRegionConsistency STRONG, witnesses, Disassociate | refused with a ValidationException: writes of several regions are merged |
| VectorIndexes, ResourcePolicy, GlobalTableSourceArn at CreateTable | refused with a ValidationException |
| conflict resolution | the tags ` + "`commutator:conflict-resolution`" + ` and ` + "`commutator:conflict-resolution:<attribute>`" + `, with the values ` + "`Merge`" + ` and ` + "`LastWriterWins`" + `, say how writes of several regions meet |
| table sizes and counts | as of now, where the service's are some hours old; those of indexes are not counted |
| UpdateTable while a table is UPDATING | accepted, unless an index is still being filled; the service refuses |
| AttributeDefinitions in DescribeTable | in order of first use by a key |
| JSON | an object that has a member twice, half a surrogate pair and bytes that are not UTF-8 are refused with a SerializationException |
| presigned URLs, unsigned and streaming payloads | refused |
`)
	return b.String()
}
