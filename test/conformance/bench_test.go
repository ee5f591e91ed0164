package conformance

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/api"
)

// post sends one operation to the handler without a network between.
func post(h http.Handler, op, body string) *httptest.ResponseRecorder {
	return postWith(h, op, body, nil)
}

func postWith(h http.Handler, op, body string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// rawTable creates a table through the handler, with the key pk, and waits until it is active.
func rawTable(t testing.TB, h http.Handler, name string) {
	t.Helper()
	w := post(h, "CreateTable", `{"TableName":"`+name+`","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"}]}`)
	if w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	rawAwait(t, h, name)
}

// rawAwait is awaitActive through the handler.
func rawAwait(t testing.TB, h http.Handler, name string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		w := post(h, "DescribeTable", `{"TableName":"`+name+`"}`)
		switch {
		case w.Code != http.StatusOK || time.Now().After(deadline):
			t.Fatalf("table %s: %s", name, w.Body)
		case strings.Contains(w.Body.String(), `"TableStatus":"ACTIVE"`):
			return
		}
	}
}

// discard is a ResponseWriter that keeps only the status: the recorder's own allocations are not ours.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

// run sends one request b.N times.
func run(b *testing.B, h *api.Handler, op, text string) {
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.ContentLength = int64(len(text))
	var in body
	r.Body = &in
	w := &discard{header: http.Header{}}
	data := []byte(text)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		in.Reset(data)
		clear(w.header)
		h.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

func item1KB() string {
	return `{"pk":{"S":"item-1"},"name":{"S":"` + strings.Repeat("n", 100) + `"},"price":{"N":"12.50"},"tags":{"SS":["a","b","c"]},"data":{"S":"` + strings.Repeat("x", 850) + `"}}`
}

func BenchmarkGetItem(b *testing.B) {
	h := newHandler(b, nil)
	rawTable(b, h, "bench")
	if w := post(h, "PutItem", `{"TableName":"bench","Item":`+item1KB()+`}`); w.Code != http.StatusOK {
		text, _ := io.ReadAll(w.Body)
		b.Fatalf("%s", text)
	}
	run(b, h, "GetItem", `{"TableName":"bench","Key":{"pk":{"S":"item-1"}}}`)
}

func BenchmarkPutItem(b *testing.B) {
	h := newHandler(b, nil)
	rawTable(b, h, "bench")
	run(b, h, "PutItem", `{"TableName":"bench","Item":`+item1KB()+`}`)
}

func BenchmarkUpdateItem(b *testing.B) {
	h := newHandler(b, nil)
	rawTable(b, h, "bench")
	run(b, h, "UpdateItem", `{"TableName":"bench","Key":{"pk":{"S":"item-1"}},"UpdateExpression":"ADD visits :one","ExpressionAttributeValues":{":one":{"N":"1"}}}`)
}

func BenchmarkQuery(b *testing.B) {
	h := newHandler(b, nil)
	rawTable(b, h, "bench")
	if w := post(h, "PutItem", `{"TableName":"bench","Item":`+item1KB()+`}`); w.Code != http.StatusOK {
		b.Fatal(w.Body)
	}
	run(b, h, "Query", `{"TableName":"bench","KeyConditionExpression":"pk = :p","ExpressionAttributeValues":{":p":{"S":"item-1"}}}`)
}
