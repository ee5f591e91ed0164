package conformance

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

const listTables = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n"

// serverOf serves h in HTTP/1.1 and HTTP/2, as a node does.
func serverOf(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// One connection carries many requests, one after the other or all at once, however each is framed, refused or
// not.
func TestRequestsShareAConnection(t *testing.T) {
	server := serverOf(t, newHandler(t, nil))
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	forms := []struct {
		request string
		status  int
		body    string
	}{
		{listTables + "Content-Length: 2\r\n\r\n{}", 200, `{"TableNames":[]}`},
		{listTables + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", 200, `{"TableNames":[]}`},
		{listTables + "Content-Length: 1\r\n\r\n{", 400, `{"__type":"com.amazon.coral.service#SerializationException"}`},
		{listTables + "Content-Length: 0\r\n\r\n", 400, `{"__type":"com.amazon.coral.service#SerializationException"}`},
		{"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 404, "<UnknownOperationException/>\n"},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, "healthy: dynamodb.us-east-1.amazonaws.com "},
	}
	r := bufio.NewReader(conn)
	answer := func(i int) {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != forms[i].status || string(body) != forms[i].body || resp.Close || resp.Header["Connection"] != nil {
			t.Fatalf("%q: %v %q, %v", forms[i].request, resp, body, err)
		}
	}
	const rounds = 50
	for range rounds { // one after the other
		for i, f := range forms {
			if _, err := io.WriteString(conn, f.request); err != nil {
				t.Fatal(err)
			}
			answer(i)
		}
	}
	go func() { // all at once
		var all strings.Builder
		for range rounds {
			for _, f := range forms {
				all.WriteString(f.request)
			}
		}
		io.WriteString(conn, all.String())
	}()
	for range rounds {
		for i := range forms {
			answer(i)
		}
	}
	// A client that asks whether it may go on is told so, and then answered.
	io.WriteString(conn, listTables+"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	if line, err := r.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r.ReadString('\n')
	io.WriteString(conn, "{}")
	answer(0)
}

func TestTheSDKSpeaksHTTP2(t *testing.T) {
	var proto atomic.Value
	h := newHandler(t, verifying)
	server := serverOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		h.ServeHTTP(w, r)
	}))
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	c := dynamodb.New(dynamodb.Options{
		Region: regionName, BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("commutator", "commutator", ""),
	})
	createTable(t, c, "orders", "", nil)
	var wg sync.WaitGroup
	for i := range 50 { // streams of one connection
		wg.Go(func() {
			if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: attributes{"pk": str(fmt.Sprint(i))}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if out, err := c.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("orders")}); err != nil || out.Count != 50 || proto.Load() != "HTTP/2.0" {
		t.Errorf("%v, %v, %v", out, err, proto.Load())
	}
}

// heapWhile returns the most memory that was in use on the heap, above what is now, while do ran, in bytes.
func heapWhile(do func()) uint64 {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before := heap()
	var most atomic.Uint64
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if n := heap(); n > before && n-before > most.Load() {
				most.Store(n - before)
			}
			<-tick.C
		}
	}()
	do()
	cancel()
	<-done
	return most.Load()
}

// body16MB is a request of 16 MB that holds as much memory as one can: it is read to its end before it is refused.
func body16MB() io.Reader {
	const head, foot = `{"TableName":"none","Item":{"pk":{"S":"`, `"}}}`
	return io.MultiReader(strings.NewReader(head), io.LimitReader(letters{}, 16<<20-int64(len(head)+len(foot))), strings.NewReader(foot))
}

type letters struct{}

func (letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// The bound: 8 large bodies at once, of 16 MB each, and of each no more than the body as it grew, twice, and what
// the item is made of. docs/operate/node.md, "Limits".
func TestManyLargeRequestsTakeBoundedMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("1 GB goes over loopback")
	}
	server := serverOf(t, newHandler(t, nil))
	var wrong atomic.Int64
	used := heapWhile(func() {
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				r, err := http.NewRequest(http.MethodPost, server.URL, body16MB())
				if err != nil {
					panic(err)
				}
				r.Header.Set("X-Amz-Target", "DynamoDB_20120810.PutItem")
				r.Header.Set("Content-Type", "application/x-amz-json-1.0")
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusBadRequest || !bytes.Contains(body, []byte("Item size has exceeded the maximum allowed size")) {
					wrong.Add(1)
					t.Logf("%d %.200s", resp.StatusCode, body)
				}
			})
		}
		wg.Wait()
	})
	t.Logf("%d MB at most", used>>20)
	if used > 1<<30 || wrong.Load() > 0 {
		t.Errorf("%d MB at most, %d wrong answers", used>>20, wrong.Load())
	}
}

// 64 requests of 16 KB that would inflate to 16 MB times a thousand.
func TestBombsTakeBoundedMemory(t *testing.T) {
	var bomb bytes.Buffer
	w, err := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(w, letters{}, 200<<20)
	w.Close()
	h := newHandler(t, nil)
	used := heapWhile(func() {
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(bomb.Bytes()))
				r.Header.Set("X-Amz-Target", "DynamoDB_20120810.PutItem")
				r.Header.Set("Content-Type", "application/x-amz-json-1.0")
				r.Header.Set("Content-Encoding", "gzip")
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, r)
				if rec.Code != http.StatusRequestEntityTooLarge {
					t.Errorf("%d %.200s", rec.Code, rec.Body)
				}
			})
		}
		wg.Wait()
	})
	t.Logf("%d MB at most", used>>20)
	if used > 1<<30 {
		t.Errorf("%d MB at most", used>>20)
	}
}
