// Package api owns the DynamoDB protocol: targets, JSON members, the order of validation, error names,
// and HTTP. One operation stands in one file; errors.go alone knows AWS's names and HTTP's codes.
//
// It leaves JSON itself to api/wire, signatures to api/sigv4, the expression language to package expr,
// what a table is to package table, and carrying anything out to package region.
//
// Invariants: no request, whatever its bytes, is answered with a 500 unless this region could not carry
// it out; what a Command carries is never in pooled memory, since a command may outlive its request.
package api

import (
	"context"
	crand "crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/commutatordb/commutator/api/sigv4"
	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

const (
	// maxBody is the largest request body, in bytes, as sent and inflated.
	// Source: BatchWriteItem's documentation, "the total request size exceeds 16 MB".
	maxBody = 16 << 20

	// maxPooledBuffer is how large a buffer a finished request may leave for the next one, in bytes.
	maxPooledBuffer = 256 << 10

	defaultTimeout = 30 * time.Second
	targetPrefix   = "DynamoDB_20120810."
	streamsPrefix  = "DynamoDBStreams_20120810."
	operatorPrefix = "Commutator_"
)

// Config is what a Handler works with.
type Config struct {
	Region   *region.Region
	Verifier *sigv4.Verifier // nil: any signature will do
	Account  string          // in ARNs; "" means 000000000000
	Now      func() time.Time
	Logger   *slog.Logger  // nil discards
	Timeout  time.Duration // of one request; 0 means 30 s
	Tasks    task.Runtime  // nil: goroutines

	// Peers returns the regions that may hold replicas, this one perhaps among them; nil means none.
	Peers func() []string

	// Replica asks another region of its table by this name, and returns what it says, or last said where it cannot be reached; nil
	// where it says nothing. nil: nobody says anything.
	Replica func(ctx context.Context, region, name string) *table.Definition

	// Overloaded tells the region's errors that say too much is waiting: they are answered as throttling.
	// nil means none is.
	Overloaded func(error) bool

	// Crowded tells whether the request that has just come is one too many, whatever it wants: it is answered as throttling, before it is read. protocol is
	// the version of HTTP that it has come by. The operator's are not asked about. nil: none is.
	Crowded func(protocol int) bool

	// EnforceThroughput refuses requests beyond a table's or an index's capacity, as the service does. Without
	// it capacity is kept and shown, and limits nothing.
	EnforceThroughput bool

	// Seen returns once this region has all that another had written to the table with this global id, up to a moment,
	// or an error when that cannot be known: ErrLost, or ctx's. nil: there are no other regions.
	Seen func(ctx context.Context, globalID string, w SessionWrite) error

	// AnswerRefusedAtOnce answers signatures that are refused without holding any back: see refusals.
	AnswerRefusedAtOnce bool

	// Fenced tells why this region takes no writes of items, if so, and waits while that is being found out; nil: it always does.
	Fenced func(ctx context.Context) error

	// Operator answers requests whose target begins with Commutator_ (op is what follows), after their
	// signature was verified. nil refuses them. An error is answered as a ValidationException with its
	// text.
	Operator func(ctx context.Context, op string, body []byte) (answer []byte, err error)
}

// Handler answers DynamoDB requests. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	health  string
	pending sync.Pool // of *request
	usages  usages
	large   chan struct{} // has a token for each request with a large body

	refusals refusals
}

// New returns a Handler. Region and Now must be given.
func New(cfg Config) *Handler {
	if cfg.Account == "" {
		cfg.Account = "000000000000"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Tasks == nil {
		cfg.Tasks = task.Goroutines
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Peers == nil {
		cfg.Peers = func() []string { return nil }
	}
	if cfg.Replica == nil {
		cfg.Replica = func(context.Context, string, string) *table.Definition { return nil }
	}
	if cfg.Fenced == nil {
		cfg.Fenced = func(context.Context) error { return nil }
	}
	if cfg.Crowded == nil {
		cfg.Crowded = func(int) bool { return false }
	}
	if cfg.Overloaded == nil {
		cfg.Overloaded = func(error) bool { return false }
	}
	h := &Handler{cfg: cfg, large: make(chan struct{}, maxLarge), health: "healthy: dynamodb." + cfg.Region.Name() + ".amazonaws.com "}
	// Randomness is asked for once: when the pool asks for more, the garbage collector decides.
	var seed [32]byte
	crand.Read(seed[:]) // never fails: crypto/rand ends the process when it has no randomness
	seeds := rand.NewChaCha8(seed)
	var mu sync.Mutex
	h.pending.New = func() any {
		var seed [32]byte
		mu.Lock()
		seeds.Read(seed[:])
		mu.Unlock()
		return &request{h: h, ids: rand.NewChaCha8(seed)}
	}
	return h
}

// request is one request on its way, with the buffers it needs; it is reused.
type request struct {
	h   *Handler
	ids *rand.ChaCha8 // for request ids: unique, not secret

	host   string // where the client asked
	raw    []byte // the body as sent
	body   []byte // the body inflated; raw itself when it was not compressed
	plain  []byte // body's own memory
	reader wire.Reader
	out    []byte // the answer's body
	packed []byte // the answer's body, compressed
	large  bool   // the body is large: see request.hold

	w        http.ResponseWriter
	r        *http.Request
	admitted bool // see request.admit

	sessions []session     // what the client knows of; see session.go
	wait     time.Duration // how long to wait for it
	wrote    []session     // what this request has written

	params  params
	entries int    // see request.another
	key     []byte // memory for params.key
	start   []byte // memory for params.startKey
}

// release gives q back for the next request. What it holds of this one is dropped.
func (h *Handler) release(q *request) {
	for _, b := range []*[]byte{&q.raw, &q.plain, &q.out, &q.packed, &q.key, &q.start} {
		if cap(*b) > maxPooledBuffer {
			*b = nil
		}
		*b = (*b)[:0]
	}
	q.body = nil
	q.reader.Reset(nil)
	q.params = params{}
	q.sessions, q.wrote = q.sessions[:0], q.wrote[:0]
	q.unhold()
	q.w, q.r, q.admitted, q.entries = nil, nil, false, 0
	h.pending.Put(q)
}

// ServeHTTP answers one request. What is no request of the API is answered as the service does, which pays no
// attention to paths: GET with its health, the question of a browser whether it may ask (see allow), and anything
// else with 404.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := h.pending.Get().(*request)
	defer h.release(q)
	id := q.newID()
	if r.Header["Origin"] != nil {
		allow(w.Header(), r)
	}
	contentType, isAPI := contentTypes[mediaType(r.Header["Content-Type"])]
	switch {
	case r.Method == http.MethodPost && isAPI:
		q.host = r.Host
		status := http.StatusOK
		q.w, q.r = w, r
		if err := h.serve(q, r, id); err != nil {
			status = q.fail(err, id, r.Header.Get("X-Amz-Target"))
		}
		q.answer(w, r, status, contentType, id)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		q.out = append(q.out, h.health...)
		q.answer(w, r, http.StatusOK, plainText, id)
	case r.Method == http.MethodOptions && r.Header["Origin"] != nil:
		q.answer(w, r, http.StatusOK, nil, id)
	default:
		q.out = append(q.out, "<UnknownOperationException/>\n"...)
		q.answer(w, r, http.StatusNotFound, nil, id)
	}
}

// allow answers a browser that asks for a page of another origin: it may ask, whatever the page, as it may ask
// the service. What a request may do is decided by its signature, which no page has by itself.
// Source: Fetch standard, "CORS protocol"; answers of the service.
func allow(header http.Header, r *http.Request) {
	header["Access-Control-Allow-Origin"] = []string{"*"}
	if r.Method != http.MethodOptions {
		header["Access-Control-Expose-Headers"] = []string{"x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,x-amz-crc32,Date"}
		return
	}
	for asked, answer := range map[string]string{"Access-Control-Request-Headers": "Access-Control-Allow-Headers", "Access-Control-Request-Method": "Access-Control-Allow-Methods"} {
		if values := r.Header[asked]; len(values) > 0 {
			header[answer] = values[:1]
		}
	}
	header["Access-Control-Max-Age"] = []string{"172800"}
}

// mediaType is a Content-Type without its parameters.
func mediaType(values []string) string {
	if len(values) != 1 {
		return ""
	}
	name, _, _ := strings.Cut(values[0], ";")
	return strings.ToLower(strings.TrimSpace(name))
}

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newID returns a request id as the service makes them: 52 upper-case letters and digits.
func (q *request) newID() string {
	var b [32]byte
	q.ids.Read(b[:])
	var id [52]byte
	idEncoding.Encode(id[:], b[:])
	return string(id[:])
}

// serve finds the operation, reads and verifies the request, and has the operation write its answer to
// q.out. A panic is an error to it.
func (h *Handler) serve(q *request, r *http.Request, id string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.cfg.Logger.Error("api: panic", "request", id, "target", r.Header.Get("X-Amz-Target"), "panic", p, "stack", string(debug.Stack()))
			err = errInternal()
		}
	}()
	name, isOperator, operation, ok := h.find(r.Header.Get("X-Amz-Target"))
	if !isOperator && h.cfg.Crowded(r.ProtoMajor) {
		return errCrowded // net/http reads a small body, so that the connection goes on, and ends it with a large one
	}
	if err := q.readBody(r); err != nil {
		return err
	}
	if isOperator && h.cfg.Verifier == nil && r.Header["Origin"] != nil {
		ok = false // a page in a browser of this machine: it may use tables, as with other emulators, and not restore backups
	}
	if !ok {
		return q.refuse(r, errUnknownOperation())
	}
	if h.cfg.Verifier != nil {
		if _, err := h.cfg.Verifier.Verify(r, q.raw); err != nil {
			refused := q.refuse(r, authError(err))
			q.unverified(r, err)
			return refused
		}
	}
	if err := q.inflate(r.Context(), r.Header.Get("Content-Encoding")); err != nil {
		return err
	}
	ctx, cancel := h.cfg.Tasks.WithTimeout(r.Context(), h.cfg.Timeout)
	defer cancel()
	if isOperator {
		answer, err := h.cfg.Operator(ctx, name, q.body)
		if err != nil {
			return operatorError(err)
		}
		q.out = append(q.out, answer...)
		return nil
	}
	if err := q.readSessions(r.Header); err != nil {
		return err
	}
	q.reader.Reset(q.body)
	if operation.run == nil {
		return notYet(name, operation.missing)
	}
	return operation.run(q, ctx)
}

// find returns what a target names. ok is false for what nobody serves here.
func (h *Handler) find(target string) (name string, isOperator bool, o operation, ok bool) {
	if name, isOperator = strings.CutPrefix(target, operatorPrefix); isOperator {
		return name, true, o, h.cfg.Operator != nil
	}
	if name, ok = strings.CutPrefix(target, targetPrefix); ok {
		o, ok = operations[name]
	} else if name, ok = strings.CutPrefix(target, streamsPrefix); ok {
		o, ok = streamsOperations[name]
	}
	return name, false, o, ok
}

// refuse returns the error of a request that is not carried out, whatever is in it: the one given, unless its
// body is no JSON, which the service tells first.
func (q *request) refuse(r *http.Request, err error) error {
	if r.Header["Content-Encoding"] == nil {
		q.reader.Reset(q.raw)
		if q.reader.Skip() != nil || q.reader.End() != nil {
			return errNoJSON()
		}
	}
	return err
}

func shorten(s string) string {
	const most = 1024
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// fail writes an error's answer and returns its status.
func (q *request) fail(err error, id, target string) int {
	e := q.h.translate(err)
	if e.status >= http.StatusInternalServerError && !errors.Is(err, region.ErrFull) { // of which the node tells once
		q.h.cfg.Logger.Error("api: a request could not be carried out", "request", id, "target", target, "err", err)
	}
	if e.message == "" { // clients are told no more; people need to know
		q.h.cfg.Logger.Debug("api: no request of the API", "request", id, "target", shorten(target), "err", err)
	}
	q.out = e.append(q.out[:0])
	return e.status
}

var (
	contentTypes = map[string][]string{
		"application/x-amz-json-1.0": {"application/x-amz-json-1.0"},
		"application/x-amz-json-1.1": {"application/x-amz-json-1.1"},
		"application/json":           {"application/json"},
	}
	plainText = []string{"text/plain"}
)

// answer sends q.out. The checksum is of the bytes sent, compressed or not.
func (q *request) answer(w http.ResponseWriter, r *http.Request, status int, contentType []string, id string) {
	header := w.Header()
	body := q.out
	if len(body) > compressFrom {
		if encoding := acceptable(r.Header["Accept-Encoding"]); encoding != "" && q.pack(encoding) == nil {
			body = q.packed
			header["Content-Encoding"] = []string{encoding}
		}
	}
	header["Content-Type"] = contentType // nil: none, not even a guess
	// Names as the service spells them, not as Go would.
	values := []string{id, strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10), strconv.Itoa(len(body))}
	header["x-amzn-RequestId"] = values[0:1:1]
	header["x-amz-crc32"] = values[1:2:2]
	header["Content-Length"] = values[2:3:3]
	if token := q.sessionToken(); token != "" {
		header[sessionHeader] = []string{token}
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(body); err != nil && !errors.Is(err, context.Canceled) {
		q.h.cfg.Logger.Debug("api: an answer was not taken", "request", id, "err", fmt.Sprint(err))
	}
}
