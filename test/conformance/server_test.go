// Package conformance drives the API as clients do: the real SDK, and raw HTTP, against a real region on
// a disk in memory.
package conformance

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/api"
	"github.com/commutatordb/commutator/api/sigv4"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

const regionName = "us-east-1"

// startRegion runs a region of one node on fs until the test ends.
func startRegion(t testing.TB, fs vfs.FS) *region.Region {
	t.Helper()
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: 1, NoBackground: true, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var r *region.Region
	store, err := storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 8 << 20, MemTableBytes: 4 << 20, Flushed: func() {
		if r != nil {
			r.Flushed()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	// Clients see nothing of how many partitions a table has.
	if r, err = region.Open(region.Config{Partitions: 3, Name: regionName, Actor: crdt.NewActor(regionName, 1), NodeID: 1, Log: log, Store: store, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, store.CloseWithoutFlush(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := r.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return r
}

// newHandler returns the API over a new region. Signatures are verified for the SDK's client of sdk.
func newHandler(t testing.TB, change func(*api.Config)) *api.Handler {
	t.Helper()
	cfg := api.Config{
		Region:     startRegion(t, vfs.NewMem()),
		Now:        time.Now,
		Peers:      func() []string { return []string{regionName, "eu-west-1", "ap-northeast-1"} },
		Overloaded: func(err error) bool { return errors.Is(err, group.ErrOverloaded) },
	}
	if change != nil {
		change(&cfg)
	}
	return api.New(cfg)
}

func verifying(cfg *api.Config) {
	cfg.Verifier = &sigv4.Verifier{Region: regionName, Now: time.Now, Lookup: func(id string) (string, bool) { return "commutator", id == "commutator" }}
}

// sdk returns the SDK's client of a new server, which tries everything once.
func sdk(t testing.TB) *dynamodb.Client {
	t.Helper()
	return sdkOf(t, newHandler(t, verifying))
}

func sdkOf(t testing.TB, h http.Handler) *dynamodb.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return dynamodb.New(dynamodb.Options{
		Region: regionName, BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("commutator", "commutator", ""),
	})
}

// createTable creates a table with a string partition key pk, and a sort key sk where its type is given,
// and waits until it is active.
func createTable(t testing.TB, c *dynamodb.Client, name string, sort types.ScalarAttributeType, change func(*dynamodb.CreateTableInput)) {
	t.Helper()
	in := &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	}
	if sort != "" {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("sk"), AttributeType: sort})
		in.KeySchema = append(in.KeySchema, types.KeySchemaElement{AttributeName: aws.String("sk"), KeyType: types.KeyTypeRange})
	}
	if change != nil {
		change(in)
	}
	if _, err := c.CreateTable(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, name)
}

// awaitActive asks until the table is active. Each question goes over HTTP, so it is no busy loop.
func awaitActive(t testing.TB, c *dynamodb.Client, name string) *types.TableDescription {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		out, err := c.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
		if err != nil {
			t.Fatal(err)
		}
		if out.Table.TableStatus == types.TableStatusActive {
			return out.Table
		}
	}
	t.Fatalf("table %s is not active", name)
	return nil
}

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func num(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }

type attributes = map[string]types.AttributeValue
