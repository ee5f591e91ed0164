package conformance

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commutatordb/commutator/api/sigv4"
)

// guess sends a request signed with a secret, and returns how long its answer took.
func guess(t *testing.T, h http.Handler, from, key, secret string) (took time.Duration, status int) {
	t.Helper()
	body := "{}"
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810.ListTables")
	r.RemoteAddr = net.JoinHostPort(from, "40000")
	sigv4.Sign(r, []byte(body), key, secret, regionName, time.Now())
	began := time.Now()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return time.Since(began), w.Code
}

func TestWhoGuessesKeysIsAnsweredLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, verifying)
		right := func(from string) time.Duration {
			t.Helper()
			took, status := guess(t, h, from, "commutator", "commutator")
			if status != http.StatusOK {
				t.Fatalf("a right signature is answered with %d", status)
			}
			return took
		}
		var last time.Duration
		total := time.Duration(0)
		for i := range 40 {
			took, status := guess(t, h, "192.0.2.1", "commutator", "guess")
			if status != http.StatusBadRequest {
				t.Fatalf("a wrong signature is answered with %d", status)
			}
			if i < 20 && took != 0 || took < last || took > time.Second {
				t.Errorf("guess %d took %s, the one before %s", i, took, last)
			}
			last = took
			total += took
		}
		if last != time.Second || total < 10*time.Second {
			t.Errorf("40 guesses took %s, the last of them %s", total, last)
		}
		// Neither a right signature from there nor one with that key waits.
		if took := right("192.0.2.1") + right("192.0.2.2"); took != 0 {
			t.Errorf("right signatures wait %s", took)
		}
		// The key is held back from wherever it is guessed, another key is not.
		if took, _ := guess(t, h, "192.0.2.3", "commutator", "guess"); took != time.Second {
			t.Errorf("a guess of the same key from elsewhere takes %s", took)
		}
		if took, _ := guess(t, h, "192.0.2.4", "nobody", "guess"); took != 0 {
			t.Errorf("a first request with a key that nobody has takes %s", took)
		}
		time.Sleep(2 * time.Minute)
		if took, _ := guess(t, h, "192.0.2.1", "commutator", "guess"); took != 0 {
			t.Errorf("long after, a guess takes %s", took)
		}
		counted := h.Refused()
		if counted["InvalidSignatureException"] != 42 || counted["UnrecognizedClientException"] != 1 {
			t.Errorf("counted %v", counted)
		}
	})
}

func TestAnswersHeldBackAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, verifying)
		for range 60 {
			guess(t, h, "192.0.2.1", "commutator", "guess")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		answers := make(chan string, 300)
		began := time.Now()
		for range 300 {
			go func() {
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/", strings.NewReader("{}"))
				r.Header.Set("Content-Type", "application/x-amz-json-1.0")
				r.Header.Set("X-Amz-Target", "DynamoDB_20120810.ListTables")
				r.RemoteAddr = "192.0.2.1:40000"
				sigv4.Sign(r, []byte("{}"), "commutator", "guess", regionName, time.Now())
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				answers <- w.Header().Get("Connection")
			}()
		}
		closed := 0
		for range 300 {
			if <-answers == "close" {
				closed++
				if time.Since(began) != 0 {
					t.Error("one that is not held back is answered later")
				}
			}
		}
		if closed != 300-256 {
			t.Errorf("%d connections are closed", closed)
		}
	})
}
