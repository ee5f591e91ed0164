package api

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/compat.md")

// modelled is how many operations the service's API model has, and modelledOfStreams how many that of Streams has.
// Source: dynamodb.service-2.json and dynamodbstreams.service-2.json, 2012-08-10, as of 2026.
const (
	modelled          = 58
	modelledOfStreams = 4
)

func TestEveryOperationOfTheModelIsKnown(t *testing.T) {
	if len(operations) != modelled {
		t.Errorf("%d operations, the model has %d", len(operations), modelled)
	}
	if len(streamsOperations) != modelledOfStreams {
		t.Errorf("%d operations of Streams, the model has %d", len(streamsOperations), modelledOfStreams)
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

// scriptsByOperation returns the names of the conformance scripts that have an operation.
func scriptsByOperation() map[string][]string {
	out := map[string][]string{}
	files, err := filepath.Glob("../test/conformance/testdata/*.txt")
	if err != nil {
		panic(err) // the pattern is a good one
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			panic(err) // it was listed just now
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		for line := range strings.SplitSeq(string(text), "\n") {
			if _, ok := operations[line]; ok && !slices.Contains(out[line], name) {
				out[line] = append(out[line], name)
			}
		}
	}
	return out
}

func compat() string {
	shown := scriptsByOperation()
	var b strings.Builder
	b.WriteString(`# Compatibility with DynamoDB

Written by ` + "`go test ./api -run Compat -rewrite`" + `; edit api/compat_test.go and api/operations.go instead.

What follows is the whole of DynamoDB's API (version 2012-08-10). An operation that is not there yet is refused
with an UnknownOperationException that names it: a client error, which SDKs do not retry.

Every operation that is there is held to the service's API model by test/conformance/contract_test.go: what it accepts and
refuses, and the shape of every answer. The scripts named are files of test/conformance/testdata, with requests and whole answers.

Global tables (version 2019.11.21) are held to test/conformance/globaltables, a suite that runs against any endpoints, AWS among them: see
its README.md. Where the service asks clients to wait or to prepare, and nothing here needs it, it is not asked for: replicas of
provisioned tables need no auto scaling, one that another was made from need not stay a day, changes may come while a replica is CREATING,
and resource policies and deletion protection may change more than once in 15 seconds. Kinesis destinations are shown as ENABLE_FAILED.

| operation | there | scripts that show it, or why it is not |
|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(operations)) {
		if missing := operations[name].missing; missing != "" {
			fmt.Fprintf(&b, "| %s | not yet | %s |\n", name, missing)
		} else {
			fmt.Fprintf(&b, "| %s | yes | %s |\n", name, strings.Join(shown[name], ", "))
		}
	}
	b.WriteString("\nDynamoDB Streams:\n\n| operation | there | why not |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(streamsOperations)) {
		fmt.Fprintf(&b, "| %s | not yet | %s |\n", name, streamsOperations[name].missing)
	}
	b.WriteString(`
## What is different, and why

| where | what we do |
|---|---|
| capacity | provisioned and on-demand throughput is enforced where the operator switches that on (` + "`enforceThroughput`, `dev --enforce-throughput`" + `), by each node for itself; else it is stored and shown, and limits nothing. Consumed capacity is counted as the service does |
| version 2017.11.29 of global tables | refused as the service refuses it today |
| resource policies | stored and shown; nothing is decided by them |
| Contributor Insights | keys are counted on each node, since its start; ` + "`commutator contributors`" + ` shows them |
| Kinesis destinations | stored and shown as ENABLE_FAILED: there is no Kinesis to write to |
| auto scaling | settings are stored, travel to all replicas, and are shown; nothing scales |
| MultiRegionConsistency STRONG, witnesses | refused with a ValidationException: writes of several regions are merged |
| VectorIndexes, GlobalTableSourceArn at CreateTable | refused with a ValidationException |
| conflict resolution | the tags ` + "`commutator:conflict-resolution`" + ` and ` + "`commutator:conflict-resolution:<attribute>`" + `, with the values ` + "`Merge`" + ` and ` + "`LastWriterWins`" + `, say how writes of several regions meet |
| a replica whose region the others have gone on without | REGION_DISABLED; in that region its table takes no writes until it has begun anew |
| TTL | what is over goes within about half a minute, instead of some days; a change is in force at once, without ENABLING and DISABLING |
| table and index sizes and counts | as of now, where the service's are some hours old |
| a table with an index that is being filled | UPDATING until the index is filled; the service shows it as ACTIVE before. What the service lets through meanwhile is let through |
| quotas of changes over time | of those the service has (table classes, encryption, tags, deletion protection, TTL), only that of decreases of provisioned throughput holds |
| KMSMasterKeyId | any key is taken, and shown; nothing is encrypted with it |
| JSON | an object that has a member twice, half a surrogate pair and bytes that are not UTF-8 are refused with a SerializationException |
| presigned URLs, unsigned and streaming payloads | refused |
| session tokens | no key has any: a request with one is refused, by ` + "`dev`" + ` taken if its signature is the key's |

## Clients that were tried

Unmodified, against ` + "`commutator dev --in-memory`" + `, in November 2026. The tests of this repository go through the SDK for Go; the
others were tried by hand: boto3 with some six hundred assertions, the other SDKs with one to two dozen cases each. Where one of them needs an operation that is not there yet
(a transaction), that call fails with the error above.

| client | version | with |
|---|---|---|
| SDK for Go v2 | service/dynamodb 1.73.1 | feature/dynamodb/attributevalue 1.21.19 and expression 1.10.7, paginators, waiters, endpoint discovery, account-based endpoints, retries of what is throttled |
| boto3 | 1.43.11 | clients, resources, conditions, batch_writer, paginators, waiters, retries |
| AWS CLI v1 | 1.45.11 | most commands of the operations above, paging, waiters, outputs and skeletons |
| SDK for JavaScript v3 | 3.1164.0 | DynamoDBDocumentClient, paginators, waiters |
| SDK for JavaScript v2 | 2.1693.0 | DocumentClient, waiters, checksums of answers, correction of clock skew |
| dynamoose | 4.2.0 | models, queries, scans, batches |
| electrodb | 3.9.3 | entities, services, cursors, batches |
| dynamodb-toolbox | 2.10.6 | entities, updates, queries, scans, batches |
| dynamodb-onetable | 2.7.7 | models, paging forward and back, batches |
| TypeDORM | 1.15.4 | entities, indexes, cursors |
| guregu/dynamo | 2.1.1 | tables, indexes, queries, batches |
| connect-dynamodb, dynamodb-lock-client | 3.0.5, 0.7.3 | sessions; locks |
| dynamodb-admin | 5.3.3 | its pages: tables, items, scans, queries, edits |

Terraform's provider has not been tried yet.
`)
	return b.String()
}
