package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/api/sigv4"
)

func bodyHandler() *Handler {
	return &Handler{cfg: Config{Now: time.Now, Timeout: 10 * time.Millisecond}, large: make(chan struct{}, maxLarge)}
}

// body returns a request that carries what r gives and says that it is length bytes long, -1 for chunks.
func body(r io.Reader, length int64) *http.Request {
	q := httptest.NewRequest(http.MethodPost, "/", io.NopCloser(r))
	q.ContentLength = length
	return q
}

// endless gives n bytes, then err.
type endless struct {
	n   int
	err error
}

func (e *endless) Read(b []byte) (int, error) {
	if e.n == 0 {
		return 0, e.err
	}
	n := min(len(b), e.n)
	e.n -= n
	return n, nil
}

func TestABodyThatIsOnlyPromisedTakesNoMemory(t *testing.T) {
	h := bodyHandler()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const connections = 200
	for range connections {
		q := &request{h: h}
		if err := q.readBody(body(&endless{1, io.ErrUnexpectedEOF}, maxBody)); err == nil {
			t.Fatal("a body that ends early is read")
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / connections; each > 4*promised {
		t.Errorf("%d bytes for each promise of %d", each, maxBody)
	}
}

func TestABodyTooLargeIsRefusedAndReadSoThatTheClientHearsOfIt(t *testing.T) {
	for _, length := range []int64{-1, maxBody + 1<<20} {
		sent := &endless{maxBody + 1<<20, io.EOF}
		q := &request{h: bodyHandler()}
		err := q.readBody(body(sent, length))
		if e := (*Error)(nil); !errors.As(err, &e) || e.status != http.StatusRequestEntityTooLarge {
			t.Errorf("length %d: %v", length, err)
		}
		if sent.n > 0 {
			t.Errorf("length %d: %d bytes are not read", length, sent.n)
		}
	}
}

func TestLargeBodiesWaitForEachOtherAndSmallOnesDoNot(t *testing.T) {
	h := bodyHandler()
	large := func() error { return (&request{h: h}).readBody(body(&endless{2 * largeBody, io.EOF}, 2*largeBody)) }
	var held []*request
	for range maxLarge {
		q := &request{h: h}
		if err := q.readBody(body(&endless{2 * largeBody, io.EOF}, 2*largeBody)); err != nil {
			t.Fatal(err)
		}
		held = append(held, q)
	}
	if err := large(); err == nil {
		t.Errorf("%d large bodies are held at once", maxLarge+1)
	}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	io.Copy(w, &endless{2 * largeBody, io.EOF})
	w.Close()
	q := &request{h: h, raw: bomb.Bytes()}
	if err := q.inflate(context.Background(), "gzip"); err == nil {
		t.Error("what inflates to a large body does not count")
	}
	if err := (&request{h: h}).readBody(body(&endless{largeBody / 2, io.EOF}, -1)); err != nil {
		t.Errorf("a small body: %v", err)
	}
	held[0].unhold()
	if err := large(); err != nil {
		t.Errorf("once one is done: %v", err)
	}
}

func TestALargeBodyOfAStrangerIsNotHeld(t *testing.T) {
	h := bodyHandler()
	h.cfg.Verifier = &sigv4.Verifier{Now: time.Now, Lookup: func(string) (string, bool) { return "", false }}
	for _, n := range []int{2 * promised, 2 * largeBody} {
		sent := &endless{n, io.EOF}
		r := body(sent, -1)
		q := &request{h: h, r: r}
		err := q.readBody(r)
		if e := (*Error)(nil); !errors.As(err, &e) || !strings.HasSuffix(e.kind, "#MissingAuthenticationTokenException") {
			t.Errorf("%d bytes: %v", n, err)
		}
		if q.large || sent.n > 0 || len(q.raw) > 0 {
			t.Errorf("held %v, %d bytes unread, %d kept", q.large, sent.n, len(q.raw))
		}
	}
	r := body(&endless{promised / 2, io.EOF}, -1)
	if err := (&request{h: h, r: r}).readBody(r); err != nil {
		t.Errorf("a small body is not read before its signature: %v", err)
	}
}

func TestALargeBodyHasItsTime(t *testing.T) {
	h := bodyHandler()
	h.cfg.Now = time.Now
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	for _, c := range []struct {
		n    int
		err  error
		want int // deadlines set
	}{{largeBody / 2, io.EOF, 0}, {2 * largeBody, io.EOF, 2}, {2 * largeBody, io.ErrUnexpectedEOF, 1}} {
		w.set = nil
		r := body(&endless{c.n, c.err}, -1)
		q := &request{h: h, w: w, r: r}
		q.readBody(r)
		q.unhold()
		if len(w.set) != c.want || c.want > 0 && time.Until(w.set[0]) > largeFor || c.want > 1 && !w.set[1].IsZero() {
			t.Errorf("%d bytes, %v: deadlines %v", c.n, c.err, w.set)
		}
	}
}

// deadlines is a connection that notes the deadlines that are set.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.set = append(d.set, t); return nil }
