package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// shortLimits are limits that a test can wait for.
var shortLimits = httpLimits{
	header: 100 * time.Millisecond, read: 200 * time.Millisecond, write: 300 * time.Millisecond, idle: 100 * time.Millisecond,
	connections: 4, streams: 4, headerBytes: defaultLimits.headerBytes,
}

// serve serves h within limits until the test ends, and returns the address.
func serve(t *testing.T, h http.Handler, limits httpLimits) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newHTTPServer(h, limits)
	s.ErrorLog = log.New(io.Discard, "", 0)
	done := make(chan error, 1)
	go func() { done <- served(s.Serve(newConnections(l, limits.connections))) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// dial connects, and says what is given.
func dial(t *testing.T, address, say string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func TestSlowClientsAreCutOff(t *testing.T) {
	broken := make(chan error, 3)
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/body":
			_, err := io.ReadAll(r.Body)
			broken <- err
		case "/answer":
			_, err := io.CopyN(w, zeros{}, 1<<30)
			broken <- err
		}
	}), shortLimits)
	for name, say := range map[string]string{
		"nothing":       "",
		"half a line":   "POST / HT",
		"half a header": "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Tar",
		"idle":          "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"half a body":   "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
		"half a chunk":  "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
		"half of HTTP2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		begun := time.Now()
		conn := dial(t, address, say)
		if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: open for %s", name, took)
		}
		conn.Close()
	}
	for range 2 {
		if <-broken == nil {
			t.Error("half a body was taken for a whole one")
		}
	}
	dial(t, address, "GET /answer HTTP/1.1\r\nHost: x\r\n\r\n") // and reads nothing
	if <-broken == nil {
		t.Error("somebody took an answer that nobody read")
	}
}

// zeros is without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestConnectionsAreCounted(t *testing.T) {
	limits := defaultLimits
	limits.connections = 2
	address := serve(t, http.NotFoundHandler(), limits)
	ask := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = bufio.NewReader(conn).ReadString('\n')
		return conn, err
	}
	first, err := ask()
	if err == nil {
		_, err = ask()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the third is not closed: %v", err)
	}
	first.Close()
	for deadline := time.Now().Add(10 * time.Second); ; { // the server hears of it in its own time
		if _, err := ask(); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no room is made by one that goes")
		}
	}
}

func TestHeadersBeyondTheLimitAreRefusedAtOnce(t *testing.T) {
	address := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), defaultLimits)
	for name, c := range map[string]struct {
		head string
		want string
	}{
		"16 KB less a little":     {"X: " + strings.Repeat("x", 15<<10) + "\r\n\r\n", "HTTP/1.1 200"},
		"one long header":         {"X: " + strings.Repeat("x", 32<<10) + "\r\n\r\n", "HTTP/1.1 431"},
		"many headers":            {strings.Repeat("X: y\r\n", 8<<10) + "\r\n", "HTTP/1.1 431"},
		"a header without an end": {"X: " + strings.Repeat("x", 64<<10), "HTTP/1.1 431"},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+c.head) // it may be cut off
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(line, c.want) {
			t.Errorf("%s: %q, %v", name, line, err)
		}
	}
	client := &http.Client{Transport: http2Transport()}
	q, err := http.NewRequest("GET", "http://"+address, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X", strings.Repeat("x", 64<<10))
	if a, err := client.Do(q); err == nil && a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("HTTP/2: %v", a.Status)
	}
}

func http2Transport() *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: protocols}
}

func TestHTTP1AndHTTP2AreServed(t *testing.T) {
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %v", r.Proto, body, err)
	}), defaultLimits)
	for want, transport := range map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2.0": http2Transport()} {
		client := &http.Client{Transport: transport}
		for range 3 {
			a, err := client.Post("http://"+address, "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(a.Body)
			a.Body.Close()
			if err != nil || string(body) != want+" hello <nil>" {
				t.Errorf("%s: %q, %v", want, body, err)
			}
		}
		client.CloseIdleConnections()
	}
	// Whoever asks for an upgrade is answered in what it asked in.
	conn := dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("an upgrade: %q, %v", line, err)
	}
}
