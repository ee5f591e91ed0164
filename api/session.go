package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
)

// A session token says which writes its holder knows of. Every write answers one, in a header; a request that carries tokens waits
// until this region has what they tell of the tables that it is for. So a client that goes on in another region reads its own
// writes, or hears that it cannot yet. Clients that know nothing of it lose nothing.
//
//	X-Commutator-Session: TABLE/REGION=INSTANCE.HLC, ...    instance and clock in hexadecimal; of a table with
//	                      several partitions TABLE/REGION/PARTITION=INSTANCE.HLC
//	X-Commutator-Session-Wait: how long to wait at most, as Go writes durations
const (
	sessionHeader     = "X-Commutator-Session"
	sessionWaitHeader = "X-Commutator-Session-Wait"

	sessionWait    = time.Second      // where the request does not say
	maxSessionWait = 10 * time.Second // that it may say
	maxSessions    = 256              // entries of one request
	// maxSessionPartitions is how many partitions of one table a session may come to know. Of a table with more it knows what the whole
	// table has come to, which takes longer to hear of where some of them rest.
	maxSessionPartitions = 16
)

// SessionWrite names a write of a region, and all that the region's instance had written to the table's partition before it.
type SessionWrite struct {
	Region    string
	Partition uint64 // 0: to any of the table's
	Instance  uint64
	Clock     crdt.HLC
}

// ErrLost says that what a session token tells of was written to data that its region has lost since.
var ErrLost = errors.New("api: the region has lost the data that the session's writes went to")

type session struct {
	table string
	SessionWrite
}

// readSessions reads a request's tokens.
func (q *request) readSessions(h http.Header) error {
	tokens := h[sessionHeader]
	if len(tokens) == 0 {
		return nil
	}
	q.wait = sessionWait
	if text := h.Get(sessionWaitHeader); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxSessionWait {
			return invalid("%s: %q is no duration up to %s, such as 500ms", sessionWaitHeader, shorten(text), maxSessionWait)
		}
		q.wait = d
	}
	for _, token := range tokens {
		for entry := range strings.SplitSeq(token, ",") {
			if entry = strings.TrimSpace(entry); entry == "" {
				continue
			}
			s, ok := parseSession(entry)
			if !ok {
				return invalid("%s: %q is no session token", sessionHeader, shorten(entry))
			}
			if len(q.sessions) == maxSessions {
				return invalid("%s: a request may carry %d entries", sessionHeader, maxSessions)
			}
			q.sessions = append(q.sessions, s)
		}
	}
	return nil
}

func parseSession(entry string) (s session, ok bool) {
	where, value, ok1 := strings.Cut(entry, "=")
	name, region, ok2 := strings.Cut(where, "/")
	region, number, several := strings.Cut(region, "/")
	var partition uint64
	if several {
		var err error
		if partition, err = strconv.ParseUint(number, 10, 64); err != nil {
			return s, false
		}
	}
	instance, clock, ok3 := strings.Cut(value, ".")
	i, err1 := strconv.ParseUint(instance, 16, 64)
	c, err2 := strconv.ParseUint(clock, 16, 64)
	if !ok1 || !ok2 || !ok3 || name == "" || region == "" || err1 != nil || err2 != nil || crdt.HLC(c) > crdt.MaxHLC {
		return s, false
	}
	return session{name, SessionWrite{region, partition, i, crdt.HLC(c)}}, true
}

// catchUp waits until this region has what the request's session knows of a table.
func (q *request) catchUp(ctx context.Context, t *region.Table) error {
	for i := range q.sessions {
		s := &q.sessions[i]
		if s.table != t.Schema().Name {
			continue
		}
		err := q.awaitSession(ctx, t, s)
		if err != nil {
			return err
		}
	}
	return nil
}

func (q *request) awaitSession(ctx context.Context, t *region.Table, s *session) error {
	own := q.h.cfg.Region
	if s.Region == own.Name() {
		if s.Instance != own.Instance() {
			return errSession(s, ErrLost)
		}
		return t.CatchUp(ctx) // written here: another node may have acknowledged it
	}
	if q.h.cfg.Seen == nil {
		return errSession(s, errors.New("there are no other regions here"))
	}
	wait, cancel := q.h.cfg.Tasks.WithTimeout(ctx, q.wait)
	defer cancel()
	err := q.h.cfg.Seen(wait, t.Definition().GlobalID, s.SessionWrite)
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case wait.Err() != nil:
		err = fmt.Errorf("it has not arrived within %s", q.wait)
	}
	return errSession(s, err)
}

func errSession(s *session, err error) *Error {
	return dynamoError("SessionNotReachedException", "The session's writes to table %s in region %s up to %s are not known to be here: %s", s.table, s.Region, s.Clock, err)
}

// wroteAt has the answer tell of a write to a table.
func (q *request) wroteAt(t *region.Table, written op.Result) {
	clock := written.Dot.HLC
	if clock == 0 || t.Schema().Solo {
		return // nothing was changed, or no other region has the table
	}
	name, partition := t.Schema().Name, uint64(0)
	if n := len(t.Partitions()); n > 1 && n <= maxSessionPartitions {
		partition = written.Partition
	}
	for i := range q.wrote {
		if q.wrote[i].table == name && q.wrote[i].Partition == partition {
			q.wrote[i].Clock = max(q.wrote[i].Clock, clock)
			return
		}
	}
	own := q.h.cfg.Region
	q.wrote = append(q.wrote, session{name, SessionWrite{own.Name(), partition, own.Instance(), clock}})
}

// sessionToken is what the answer's header says, "" for nothing.
func (q *request) sessionToken() string {
	if len(q.wrote) == 0 {
		return ""
	}
	slices.SortFunc(q.wrote, func(a, b session) int {
		return cmp.Or(strings.Compare(a.table, b.table), cmp.Compare(a.Partition, b.Partition))
	})
	var b []byte
	for i, s := range q.wrote {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(append(append(b, s.table...), '/'), s.Region...)
		if s.Partition != 0 {
			b = strconv.AppendUint(append(b, '/'), s.Partition, 10)
		}
		b = append(strconv.AppendUint(append(b, '='), s.Instance, 16), '.')
		b = strconv.AppendUint(b, uint64(s.Clock), 16)
	}
	return string(b)
}
