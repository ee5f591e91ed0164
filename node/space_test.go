package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// request sends a request to the engine as a client would, its signature aside.
func request(t *testing.T, e *Engine, operation, body string) (int, string) {
	t.Helper()
	q := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
	q.Header.Set("Content-Type", "application/x-amz-json-1.0")
	q.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	q.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00")
	q.Header.Set("X-Amz-Date", "20260101T000000Z")
	a := httptest.NewRecorder()
	e.Handler().ServeHTTP(a, q)
	return a.Code, a.Body.String()
}

func TestAFullDiskRefusesWritesAndReadsGoOn(t *testing.T) {
	fs := vfs.NewMem()
	free := func(bytes uint64) { fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40}) }
	free(1 << 30)
	cfg := Config{Region: "us-east-1", Data: "data", Listen: Listen{HTTP: "127.0.0.1:0"}, Auth: "off", FS: fs, Reserve: 100 << 20}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	e, err := OpenEngine(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.region.Run(ctx) }() // the space is looked at by hand
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Error(err)
		}
	})
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := e.Ready(limit); err != nil {
		t.Fatal(err)
	}
	close(e.rep.asked) // what a replicator that runs does first
	const put, get = `{"TableName": "full", "Item": {"pk": {"S": "a"}}}`, `{"TableName": "full", "Key": {"pk": {"S": "a"}}, "ConsistentRead": true}`
	want := func(what, operation, body string, status int, text string) {
		t.Helper()
		if got, answer := request(t, e, operation, body); got != status || !strings.Contains(answer, text) {
			t.Fatalf("%s: %s: %d %s", what, operation, got, answer)
		}
	}
	look := func(bytes uint64) {
		t.Helper()
		free(bytes)
		if err := e.space.look(ctx); err != nil {
			t.Fatal(err)
		}
	}
	want("at first", "CreateTable", `{"TableName": "full", "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}], "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]}`, 200, "")
	for {
		_, answer := request(t, e, "DescribeTable", `{"TableName": "full"}`)
		if strings.Contains(answer, `"TableStatus":"ACTIVE"`) {
			break
		}
		if limit.Err() != nil {
			t.Fatal("the table is not ACTIVE:", answer)
		}
	}
	look(1 << 30)
	want("with space", "PutItem", put, 200, "")
	look(99 << 20)
	want("full", "PutItem", put, 503, "ServiceUnavailable")
	want("full", "BatchWriteItem", `{"RequestItems": {"full": [{"PutRequest": {"Item": {"pk": {"S": "b"}}}}]}}`, 503, "ServiceUnavailable")
	want("full", "GetItem", get, 200, `"a"`)
	look(110 << 20)
	want("not enough to go on", "DeleteItem", `{"TableName": "full", "Key": {"pk": {"S": "a"}}}`, 503, "until there is more")
	look(130 << 20)
	want("with space again", "PutItem", put, 200, "")
	look(0)
	want("full", "DeleteTable", `{"TableName": "full"}`, 200, "DELETING")
}
