package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/session"
)

// twoRegions runs two regions, with 50 ms between them, and returns clients of both, and dev's directory.
func twoRegions(t *testing.T, options ...func(*dynamodb.Options)) (east, west *dynamodb.Client, dir string) {
	t.Helper()
	dir = t.TempDir()
	d, err := node.OpenDev(node.DevConfig{Regions: []string{"us-east-1", "eu-west-1"}, Data: dir, InMemory: true, Auth: "off", Latency: 50 * time.Millisecond, Partitions: []int{3, 2}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, d.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := d.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	var clients []*dynamodb.Client
	for _, n := range d.Nodes() {
		clients = append(clients, dynamodb.New(dynamodb.Options{
			Region: n.Region().Name(), BaseEndpoint: aws.String("http://" + n.HTTPAddr().String()), RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider("commutator", "commutator", ""),
		}, options...))
	}
	return clients[0], clients[1], dir
}

// globalTable makes a table with replicas in both regions.
func globalTable(t *testing.T, east, west *dynamodb.Client, name string) {
	t.Helper()
	createTable(t, east, name, "", nil)
	_, err := east.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{
		{Create: &types.CreateReplicationGroupMemberAction{RegionName: aws.String("eu-west-1")}}}})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		d, err := west.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
		if err == nil && d.Table.TableStatus == types.TableStatusActive {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the replica is not there within 20 s", err)
		}
	}
}

func TestASessionReadsItsOwnWritesInAnotherRegion(t *testing.T) {
	s := session.New()
	s.Wait = 5 * time.Second
	east, west, dir := twoRegions(t, s.In)
	globalTable(t, east, west, "orders")
	for i := range 20 {
		key := attributes{"pk": str(fmt.Sprint(i))}
		writer, reader := east, west
		if i%2 == 1 {
			writer, reader = west, east
		}
		if _, err := writer.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: key}); err != nil {
			t.Fatal(err)
		}
		got, err := reader.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: key})
		if err != nil || got.Item == nil {
			t.Fatalf("item %d: %v, %v", i, got, err)
		}
	}
	// A write waits as well: it is held against what the session has written elsewhere.
	key := attributes{"pk": str("counted")}
	for i, c := range []*dynamodb.Client{east, west, east, west} {
		out, err := c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: aws.String("orders"), Key: key, UpdateExpression: aws.String("ADD n :one"),
			ExpressionAttributeValues: attributes{":one": num("1")}, ReturnValues: types.ReturnValueAllNew})
		if err != nil || out.Attributes["n"].(*types.AttributeValueMemberN).Value != fmt.Sprint(i+1) {
			t.Fatalf("update %d: %v %v", i, out, err)
		}
	}
	if got, err := east.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: key}); err != nil || got.Item["n"].(*types.AttributeValueMemberN).Value != "4" {
		t.Fatalf("before the cut: %v, %v", got, err)
	}
	// Cut off, the region says that it cannot know, within the bound.
	if _, err := node.Control(dir, node.ControlRequest{Command: "partition", Region: "eu-west-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := east.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: key}); err != nil {
		t.Fatal(err)
	}
	s.Wait = 100 * time.Millisecond
	for what, read := range map[string]func() error{
		"get": func() error {
			_, err := west.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: key})
			return err
		},
		"scan": func() error {
			_, err := west.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("orders")})
			return err
		},
		"put": func() error {
			_, err := west.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: key})
			return err
		},
		"batch": func() error {
			_, err := west.BatchGetItem(t.Context(), &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{"orders": {Keys: []map[string]types.AttributeValue{key}}}})
			return err
		},
	} {
		var e smithy.APIError
		if err := read(); !errors.As(err, &e) || e.ErrorCode() != session.NotReached || !strings.Contains(e.ErrorMessage(), "us-east-1") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := node.Control(dir, node.ControlRequest{Command: "heal"}); err != nil {
		t.Fatal(err)
	}
	s.Wait = 10 * time.Second
	if got, err := west.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: key}); err != nil || got.Item["n"] != nil {
		t.Errorf("after the cut: %v, %v", got, err)
	}
}

func TestSessionTokensThatCannotBeAreRefused(t *testing.T) {
	h := newHandler(t, nil)
	post(h, "CreateTable", `{"TableName":"orders","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"}],"KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}]}`)
	rawAwait(t, h, "orders")
	const get = `{"TableName":"orders","Key":{"pk":{"S":"a"}}}`
	for token, want := range map[string]string{
		"":                                    `{}`,
		"other/eu-west-1=1.1":                 `{}`,
		"nonsense":                            `#ValidationException`,
		"orders/us-east-1=x.1":                `#ValidationException`,
		"orders/us-east-1=1":                  `#ValidationException`,
		"orders/us-east-1/x=1.1":              `#ValidationException`,
		"orders/us-east-1/16=1.1":             `#SessionNotReachedException`,
		"orders/us-east-1=1.ffffffffffffffff": `#ValidationException`,
		strings.Repeat("t/r=1.1,", 300):       `#ValidationException`,
		"orders/us-east-1=1.1":                `#SessionNotReachedException`,
		"orders/eu-west-1=1.1":                `#SessionNotReachedException`,
	} {
		w := postWith(h, "GetItem", get, map[string]string{"X-Commutator-Session": token})
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%.60q: %s", token, w.Body)
		}
	}
	for _, wait := range []string{"x", "-1s", "11s"} {
		w := postWith(h, "GetItem", get, map[string]string{"X-Commutator-Session": "other/r=1.1", "X-Commutator-Session-Wait": wait})
		if !strings.Contains(w.Body.String(), "#ValidationException") {
			t.Errorf("wait %q: %s", wait, w.Body)
		}
	}
}
