package api

import (
	"errors"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/commutatordb/commutator/api/sigv4"
)

// Requests whose signature is refused are counted, by the address they come from and by the key that they name, if there is such a key.
// The first few are answered at once: a client may be set up wrong. Then each answer is held back, for longer each time: who guesses
// keys is to have no use of many connections. A request with a right signature is never held back.
const (
	refusedFree   = 20                    // of an address or a key, in refusedWithin of each other
	refusedWithin = time.Minute           // after which all is forgotten
	refusedFirst  = 25 * time.Millisecond // then it doubles
	refusedMost   = time.Second
	// maxHeldBack bounds the answers held back at a time; those beyond it are given at once, and the connection closed.
	maxHeldBack = 256
	// maxRefusing bounds the addresses and keys that are counted.
	maxRefusing = 4096
)

type refusals struct {
	mu       sync.Mutex
	by       map[string]refusing
	byReason map[string]uint64
	held     int
}

// refusing is what there is of one address or key.
type refusing struct {
	n    int
	last time.Time
}

// Refused returns how many signatures have been refused since the start, by the names of the errors.
func (h *Handler) Refused() map[string]uint64 {
	h.refusals.mu.Lock()
	defer h.refusals.mu.Unlock()
	return maps.Clone(h.refusals.byReason)
}

// count takes note of a refused signature, and returns how long its answer is to be held back.
func (s *refusals) count(now time.Time, reason string, of ...string) (hold time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by, s.byReason = map[string]refusing{}, map[string]uint64{}
	}
	s.byReason[reason]++
	if len(s.by)+len(of) > maxRefusing {
		maps.DeleteFunc(s.by, func(_ string, r refusing) bool { return now.Sub(r.last) > refusedWithin })
	}
	for _, who := range of {
		r, known := s.by[who]
		if !known && len(s.by) >= maxRefusing {
			hold = refusedMost // so many at once are no accident
			continue
		}
		if now.Sub(r.last) > refusedWithin {
			r.n = 0
		}
		r.n, r.last = r.n+1, now
		s.by[who] = r
		if over := r.n - refusedFree; over > 0 {
			hold = max(hold, min(refusedFirst<<min(over-1, 10), refusedMost))
		}
	}
	return hold
}

// take takes a place among the answers held back, and tells whether there was one; leave gives it back.
func (s *refusals) take() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held >= maxHeldBack {
		return false
	}
	s.held++
	return true
}

func (s *refusals) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
}

// unverified takes note of a refused signature, and returns once it may be answered.
func (q *request) unverified(r *http.Request, err error) {
	var e *sigv4.Error
	if !errors.As(err, &e) {
		return
	}
	address, _, splitErr := net.SplitHostPort(r.RemoteAddr)
	if splitErr != nil {
		address = r.RemoteAddr
	}
	of := []string{"address " + address}
	if e.AccessKeyID != "" {
		of = append(of, "key "+e.AccessKeyID)
	}
	h := q.h
	hold := h.refusals.count(h.cfg.Now(), e.Type, of...)
	if hold == 0 || h.cfg.AnswerRefusedAtOnce {
		return
	}
	q.unhold() // what waits shall not keep others waiting
	if !h.refusals.take() {
		q.w.Header()["Connection"] = []string{"close"}
		return
	}
	defer h.refusals.leave()
	h.cfg.Tasks.Wait(r.Context(), nil, hold)
}
