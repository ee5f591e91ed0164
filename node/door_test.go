package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serveDoors serves h behind doors that refuse while crowded, with an answer of status 400, and returns the address and how many were refused.
func serveDoors(t *testing.T, h http.Handler, crowded *atomic.Bool) (address string, refused *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused = new(atomic.Int64)
	s := newHTTPServer(h, defaultLimits)
	s.ErrorLog = log.New(io.Discard, "", 0)
	done := make(chan error, 1)
	go func() {
		done <- served(s.Serve(&doors{
			connections: newConnections(l, defaultLimits.connections), crowded: crowded.Load, idle: time.Minute,
			refusal: func(dst []byte) []byte {
				refused.Add(1)
				return append(dst, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"...)
			},
		}))
	}()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), refused
}

const (
	small = "POST / HTTP/1.1\r\nHost: x\r\nx-amz-target: DynamoDB_20120810.GetItem\r\ncontent-length: 2\r\n\r\n{}"
	// operators is not refused, nor is what follows.
	operators = "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Commutator_Status\r\nContent-Length: 2\r\n\r\n{}"
	health    = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	chunked   = "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
	closes    = "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
)

// Whatever is sent, each request is answered once, by the door or behind it.
func TestDoorsRefuseWhatTheyAreSureOf(t *testing.T) {
	var crowded atomic.Bool
	address, refused := serveDoors(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %v", r.Method, len(b), err)
	}), &crowded)
	large := "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.PutItem\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 20000)
	for _, c := range []struct {
		name    string
		crowded bool
		say     []string // one after the other, each when what was said before is answered
		refused int64
		status  []int
	}{
		{"nobody is there", false, []string{small, small}, 0, []int{200, 200}},
		{"small ones, but the first of a connection", true, []string{small, small, small}, 2, []int{200, 400, 400}},
		{"the operator's", true, []string{operators, small}, 1, []int{200, 400}},
		{"a small one after a large one", true, []string{large, small}, 1, []int{200, 400}},
		{"no request of the API", true, []string{health, small}, 0, []int{200, 200}},
		{"chunks", true, []string{chunked, small}, 0, []int{200, 200}},
		{"two at once", true, []string{small + small}, 0, []int{200, 200}},
		{"one that closes", true, []string{small, small, closes}, 1, []int{200, 400, 200}},
		{"two at once, later", true, []string{small, small + small, small}, 0, []int{200, 200, 200}},
		{"two lengths", true, []string{"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"}, 0, []int{400}},
		{"a length after a bare line feed", true, []string{"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB\r\nX: y\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"}, 0, []int{200}},
	} {
		crowded.Store(c.crowded)
		say := func() (got []int) {
			refused.Store(0)
			conn := dial(t, address, "")
			defer conn.Close()
			r := bufio.NewReader(conn)
			for i, say := range c.say {
				if _, err := io.WriteString(conn, say); err != nil {
					t.Fatal(c.name, err)
				}
				for more := true; more; more = i == len(c.say)-1 && len(got) < len(c.status) {
					a, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Fatalf("%s: after %v: %v", c.name, got, err)
					}
					io.Copy(io.Discard, a.Body)
					got = append(got, a.StatusCode)
				}
			}
			return got
		}
		// While it ends an answer, net/http looks for a byte of the next request; the door lets one go whose first byte it has.
		got := say()
		for tries := 0; refused.Load() < c.refused && tries < 100; tries++ {
			got = say()
		}
		if fmt.Sprint(got) != fmt.Sprint(c.status) || refused.Load() != c.refused {
			t.Errorf("%s: answered %v, %d by the door; want %v, %d", c.name, got, refused.Load(), c.status, c.refused)
		}
	}
}

func TestWaitsThatStandAreTooLong(t *testing.T) {
	begun := time.Now()
	at := func(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	for _, c := range []struct {
		name  string
		takes []int // ms that each byte is on its way, one sent when the last has come
		want  bool
	}{
		{"nothing", []int{0, 1, 0, 2}, false},
		{"a burst", []int{1, 110}, false},
		{"a long one", []int{1, 121}, true},
		{"a queue that does not get shorter", []int{1, 90, 90, 90}, true},
		{"one that is worked off now and then", []int{1, 100, 100, 3, 100, 100, 2, 100}, false},
		{"a short one that stands", []int{1, 39, 39, 39, 39, 39, 39, 39}, false},
	} {
		var w wait
		now := 0
		for _, ms := range c.takes {
			now += 5
			if !w.due(at(now)) {
				t.Fatalf("%s: none is due after %d ms", c.name, now)
			}
			w.sent = at(now)
			now += ms
			if got := w.tooLong(at(now)); got && !c.want {
				t.Errorf("%s: while one is on its way: %v", c.name, got)
			}
			w.came(at(now))
		}
		if got := w.tooLong(at(now)); got != c.want {
			t.Errorf("%s: too long: %v", c.name, got)
		}
		// Nobody comes for a while: who comes then finds nobody.
		if now += 300; !w.due(at(now)) || w.tooLong(at(now)) {
			t.Errorf("%s: it is not over after a pause", c.name)
		}
	}
}

// A byte goes its way while anybody comes, and a crowd that has gone is not there for who comes next.
func TestACrowdGoes(t *testing.T) {
	c, err := newCrowd(func() int { return crowdFrom })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.run(t.Context()) }()
	c.mu.Lock()
	c.wait = wait{last: time.Hour, at: time.Now(), eased: time.Now().Add(-time.Hour)}
	c.mu.Unlock()
	if !c.Crowded(1) || c.refused.Load() != 1 {
		t.Error("a wait of an hour is not too long")
	}
	for deadline := time.Now().Add(10 * time.Second); c.Crowded(2); {
		if time.Now().After(deadline) {
			t.Fatal("the crowd does not go")
		}
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	few, err := newCrowd(func() int { return crowdFrom - 1 })
	if err != nil {
		t.Fatal(err)
	}
	few.wait = wait{last: time.Hour, at: time.Now()}
	if few.Crowded(1) || !few.Crowded(2) {
		t.Error("few connections are a crowd in HTTP/1.1, or many are none in HTTP/2")
	}
	if err := few.close(); err != nil {
		t.Error(err)
	}
}
