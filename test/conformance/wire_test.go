package conformance

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/api"
	"github.com/commutatordb/commutator/api/sigv4"
)

// send is post with other headers, over a real connection: headers as the wire has them.
func send(t *testing.T, url, op string, body io.Reader, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("Accept-Encoding", "identity")
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

var requestID = regexp.MustCompile(`^[A-Z0-9]{52}$`)

// checkHeaders holds an answer to DYNAMODB.md §3, "Headers".
func checkHeaders(t *testing.T, resp *http.Response, body []byte) {
	t.Helper()
	if id := resp.Header.Get("x-amzn-RequestId"); !requestID.MatchString(id) {
		t.Errorf("request id %q", id)
	}
	if got, want := resp.Header.Get("x-amz-crc32"), strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10); got != want {
		t.Errorf("crc32 %s of %d bytes, want %s", got, len(body), want)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/x-amz-json-1.0" {
		t.Errorf("content type %q", got)
	}
	if resp.ContentLength != int64(len(body)) {
		t.Errorf("content length %d of %d bytes", resp.ContentLength, len(body))
	}
}

func TestHeadersOfAnswersAndErrors(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "items")
	server := httptest.NewServer(h)
	defer server.Close()
	for _, c := range []struct {
		op, body, want string
		status         int
	}{
		{"ListTables", `{}`, `{"TableNames":["items"]}`, 200},
		{"PutItem", `{"TableName":"items","Item":{"pk":{"S":"a"}}}`, `{}`, 200},
		{"GetItem", `{"TableName":"items","Key":{"pk":{"S":"a"}}}`, `{"Item":{"pk":{"S":"a"}}}`, 200},
		{"GetItem", `{"TableName":"none","Key":{"pk":{"S":"a"}}}`, `{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"Requested resource not found"}`, 400},
		{"Nothing", `{}`, `{"__type":"com.amazon.coral.service#UnknownOperationException"}`, 400},
		{"Nothing", `{`, `{"__type":"com.amazon.coral.service#SerializationException"}`, 400},
		{"ListTables", ``, `{"__type":"com.amazon.coral.service#SerializationException"}`, 400},
		{"TagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/items","Tags":[{"Key":"a","Value":"b"}]}`, ``, 200},
	} {
		resp, body := send(t, server.URL, c.op, strings.NewReader(c.body), nil)
		if resp.StatusCode != c.status || string(body) != c.want {
			t.Errorf("%s %s: %d %s, want %d %s", c.op, c.body, resp.StatusCode, body, c.status, c.want)
		}
		checkHeaders(t, resp, body)
	}
}

// What the service answers to what is no request of its API, checksums and all.
func TestWhatIsNotTheAPI(t *testing.T) {
	h := newHandler(t, nil)
	server := httptest.NewServer(h)
	defer server.Close()
	const (
		healthy = "healthy: dynamodb.us-east-1.amazonaws.com "
		unknown = "<UnknownOperationException/>\n"
		noJSON  = `{"__type":"com.amazon.coral.service#SerializationException"}`
		noOp    = `{"__type":"com.amazon.coral.service#UnknownOperationException"}`
		json10  = "application/x-amz-json-1.0"
	)
	for _, c := range []struct {
		method, path, contentType, target, body string
		status                                  int
		want, crc                               string
	}{
		{"GET", "/", "", "", "", 200, healthy, "3128867991"},
		{"GET", "/ping", "", "", "", 200, healthy, "3128867991"},
		{"HEAD", "/", "", "", "", 200, "", "3128867991"},
		{"GET", "/", json10, "DynamoDB_20120810.ListTables", "", 200, healthy, "3128867991"},
		{"PUT", "/", json10, "DynamoDB_20120810.ListTables", "{}", 404, unknown, "3552371480"},
		{"DELETE", "/", "", "", "", 404, unknown, "3552371480"},
		{"OPTIONS", "/", "", "", "", 404, unknown, "3552371480"},
		{"NONSENSE", "/a/b", "", "", "", 404, unknown, "3552371480"},
		{"POST", "/", "", "", "", 404, unknown, "3552371480"},
		{"POST", "/", "text/plain", "DynamoDB_20120810.ListTables", "{}", 404, unknown, "3552371480"},
		{"POST", "/", "application/x-www-form-urlencoded", "DynamoDB_20120810.ListTables", "{}", 404, unknown, "3552371480"},
		{"POST", "/", json10, "", "", 400, noJSON, "3948637019"},
		{"POST", "/", json10, "", "hello", 400, noJSON, "3948637019"},
		{"POST", "/", json10, "", "{}", 400, noOp, "1368724161"},
		{"POST", "/", json10, "DynamoDB_20111205.GetItem", "{}", 400, noOp, "1368724161"},
		{"POST", "/", json10, "DynamoDBStreams_20120810.ListTables", "{}", 400, noOp, "1368724161"},
		{"POST", "/", json10, "DynamoDB_20120810.", "{}", 400, noOp, "1368724161"},
		{"POST", "/", json10, "DynamoDB_20120810.ListTables.", "{}", 400, noOp, "1368724161"},
		{"POST", "/", json10, strings.Repeat("x", 8000), "{}", 400, noOp, "1368724161"},
		{"POST", "/", json10, "Commutator_20261122.Status", "{}", 400, noOp, "1368724161"},
		{"POST", "/", "application/json", "DynamoDB_20120810.ListTables", "{}", 200, `{"TableNames":[]}`, ""},
		{"POST", "/any/path?and=query", json10 + "; charset=utf-8", "DynamoDB_20120810.ListTables", "{}", 200, `{"TableNames":[]}`, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Content-Type": c.contentType, "X-Amz-Target": c.target} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || string(body) != c.want {
			t.Errorf("%+v: %d %q, %v", c, resp.StatusCode, body, err)
		}
		if crc := resp.Header.Get("x-amz-crc32"); c.crc != "" && crc != c.crc || !requestID.MatchString(resp.Header.Get("x-amzn-RequestId")) {
			t.Errorf("%+v: crc %s of %v", c, crc, resp.Header)
		}
	}
}

func TestBrowsersMayAsk(t *testing.T) {
	h := newHandler(t, verifying)
	ask := func(method string, header map[string]string) *http.Response {
		r := httptest.NewRequest(method, "/", strings.NewReader("{}"))
		for k, v := range header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	got := ask("OPTIONS", map[string]string{"Origin": "http://admin.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-amz-target"})
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "authorization,x-amz-target",
		"Access-Control-Max-Age": "172800", "Access-Control-Allow-Credentials": "",
	} {
		if v := got.Header.Get(name); v != want || got.StatusCode != 200 {
			t.Errorf("preflight: %d, %s: %q, want %q", got.StatusCode, name, v, want)
		}
	}
	got = ask("POST", map[string]string{"Origin": "http://admin.example", "Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "DynamoDB_20120810.ListTables"})
	if got.StatusCode != 400 || got.Header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(got.Header.Get("Access-Control-Expose-Headers"), "x-amzn-RequestId") {
		t.Errorf("an unsigned request: %d %v", got.StatusCode, got.Header)
	}
	if got = ask("GET", nil); got.Header["Access-Control-Allow-Origin"] != nil {
		t.Errorf("what is no browser's: %v", got.Header)
	}
}

func TestSignatures(t *testing.T) {
	h := newHandler(t, verifying)
	call := func(key, secret string, at time.Time, tamper func(*http.Request)) (int, string) {
		body := `{}`
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("X-Amz-Target", "DynamoDB_20120810.ListTables")
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		if err := sigv4.Sign(r, []byte(body), key, secret, regionName, at); err != nil {
			t.Fatal(err)
		}
		if tamper != nil {
			tamper(r)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if status, body := call("commutator", "commutator", time.Now(), nil); status != 200 {
		t.Errorf("a good signature: %d %s", status, body)
	}
	for name, c := range map[string]struct {
		key, secret string
		at          time.Time
		tamper      func(*http.Request)
	}{
		"wrong secret": {"commutator", "other", time.Now(), nil},
		"unknown key":  {"nobody", "commutator", time.Now(), nil},
		"old":          {"commutator", "commutator", time.Now().Add(-time.Hour), nil},
		"other body": {"commutator", "commutator", time.Now(), func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(`{"Limit":1}`)), 11
		}},
		"other operation": {"commutator", "commutator", time.Now(), func(r *http.Request) { r.Header.Set("X-Amz-Target", "DynamoDB_20120810.GetItem") }},
	} {
		want := "InvalidSignatureException"
		if c.key == "nobody" {
			want = "UnrecognizedClientException"
		}
		status, body := call(c.key, c.secret, c.at, c.tamper)
		if status != 400 || !strings.Contains(body, `"__type":"com.amazon.coral.service#`+want+`"`) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

func TestCompressedRequests(t *testing.T) {
	h := newHandler(t, nil)
	server := httptest.NewServer(h)
	defer server.Close()
	pack := func(w io.WriteCloser, buf *bytes.Buffer, texts ...string) []byte {
		for _, text := range texts {
			if g, ok := w.(*gzip.Writer); ok {
				g.Reset(buf) // a member of its own
			}
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return buf.Bytes()
	}
	var g, z, bomb bytes.Buffer
	gzipped := pack(gzip.NewWriter(&g), &g, `{"Lim`, `it":5}`)
	zipped := pack(zlib.NewWriter(&z), &z, `{"Limit":5}`)
	bombed := pack(gzip.NewWriter(&bomb), &bomb, strings.Repeat(" ", 20<<20))
	for _, c := range []struct {
		encoding string
		body     []byte
		status   int
	}{
		{"gzip", gzipped, 200}, {"deflate", zipped, 200}, {"identity", []byte("{}"), 200},
		{"gzip", []byte("{}"), 400}, {"deflate", []byte("\xff\xff"), 400}, {"br", []byte("{}"), 400}, {"gzip", gzipped[:len(gzipped)-3], 400}, {"gzip", bombed, 413},
	} {
		resp, body := send(t, server.URL, "ListTables", bytes.NewReader(c.body), map[string]string{"Content-Encoding": c.encoding})
		if resp.StatusCode != c.status {
			t.Errorf("%s, %d bytes: %d %.200s, want %d", c.encoding, len(c.body), resp.StatusCode, body, c.status)
		}
		checkHeaders(t, resp, body)
	}
}

func TestCompressedAnswers(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "items")
	for i := range 5 {
		item := strings.Replace(item1KB(), "item-1", fmt.Sprint(i), 1)
		if w := post(h, "PutItem", `{"TableName":"items","Item":`+item+`}`); w.Code != 200 {
			t.Fatal(w.Body)
		}
	}
	server := httptest.NewServer(h)
	defer server.Close()
	var plain []byte
	for accept, want := range map[string]string{
		"gzip": "gzip", "gzip;q=0": "", "*": "gzip", "identity": "", "br, gzip;q=0.5": "gzip", "*;q=0": "", "x-gzip": "gzip", "GZIP ; Q=0.3": "gzip",
		"deflate": "deflate", "deflate, gzip": "gzip", "gzip, deflate": "gzip", "gzip;q=0.2, deflate;q=0.8": "deflate", "gzip;q=0, deflate": "deflate",
		"gzip;q=0, *": "", "deflate;q=0": "", "br": "", "gzip;q=x": "", "gzip;q=NaN": "",
	} {
		resp, body := send(t, server.URL, "Scan", strings.NewReader(`{"TableName":"items"}`), map[string]string{"Accept-Encoding": accept})
		if got := resp.Header.Get("Content-Encoding"); got != want {
			t.Errorf("%q: encoded as %q, want %q", accept, got, want)
		}
		checkHeaders(t, resp, body)
		var r io.Reader = bytes.NewReader(body)
		var err error
		switch want {
		case "gzip":
			r, err = gzip.NewReader(r)
		case "deflate":
			r, err = zlib.NewReader(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		if body, err = io.ReadAll(r); err != nil || plain != nil && !bytes.Equal(plain, body) {
			t.Errorf("%q: %v, %.100s", accept, err, body)
		}
		plain = body
		small, _ := send(t, server.URL, "ListTables", strings.NewReader(`{}`), map[string]string{"Accept-Encoding": accept})
		if small.Header.Get("Content-Encoding") != "" {
			t.Errorf("%q: a small answer was compressed", accept)
		}
	}
}

func TestBodiesBeyondTheLimitAreRefused(t *testing.T) {
	h := newHandler(t, nil)
	server := httptest.NewServer(h)
	defer server.Close()
	large := make([]byte, 17<<20)
	for name, body := range map[string]io.Reader{"with its length": bytes.NewReader(large), "in chunks": io.MultiReader(bytes.NewReader(large))} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "DynamoDB_20120810.PutItem")
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			continue // the server may hang up while the body is still being sent
		}
		if resp.Body.Close(); resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
}

func TestOperatorRequests(t *testing.T) {
	h := newHandler(t, func(cfg *api.Config) {
		cfg.Operator = func(_ context.Context, op string, body []byte) ([]byte, error) {
			switch op {
			case "Fail":
				return nil, errors.New("it failed")
			case "Refuse":
				return nil, refusal{}
			}
			return append([]byte(op+" "), body...), nil
		}
	})
	call := func(op string, header ...string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		for _, name := range header {
			r.Header.Set(name, "http://page.example")
		}
		r.Header.Set("X-Amz-Target", "Commutator_"+op)
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if status, body := call("20260101.Status"); status != 200 || body != "20260101.Status {}" {
		t.Errorf("%d %s", status, body)
	}
	if status, body := call("20260101.Status", "Origin"); status != 400 || !strings.Contains(body, "#UnknownOperationException") {
		t.Errorf("an unsigned one of a browser's page: %d %s", status, body)
	}
	if status, body := call("Fail"); status != 500 || !strings.Contains(body, "it failed") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := call("Refuse"); status != 400 || !strings.Contains(body, "#BackupNotFoundException") || !strings.Contains(body, "none such") {
		t.Errorf("%d %s", status, body)
	}
}

// refusal is an error of the operator API's that is the caller's fault.
type refusal struct{}

func (refusal) Error() string     { return "none such" }
func (refusal) ErrorCode() string { return "BackupNotFoundException" }

// A request that cannot be carried out in its time is a 500 that may be sent again, and nothing worse.
func TestDeadlinesAndPanicsAreServerErrors(t *testing.T) {
	h := newHandler(t, func(cfg *api.Config) {
		cfg.Timeout = time.Nanosecond
		cfg.Operator = func(context.Context, string, []byte) ([]byte, error) { panic("of the test") }
	})
	w := post(h, "CreateTable", seeds[0].body)
	if w.Code != 500 || !strings.Contains(w.Body.String(), "#InternalServerError") {
		t.Errorf("deadline: %d %s", w.Code, w.Body)
	}
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
	r.Header.Set("X-Amz-Target", "Commutator_Panic")
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != 500 || !strings.Contains(rec.Body.String(), "#InternalServerError") {
		t.Errorf("panic: %d %s", rec.Code, rec.Body)
	}
}
