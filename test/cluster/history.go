//go:build linux

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

const tableName = "registers"

// kind is what a client asks for. All of them are one item's, and strong.
type kind int

const (
	get    kind = iota
	put         // of an item, whatever is there
	putNew      // if nothing is there
	swap        // of the mark, if it is the one that the client has seen last
	add         // to the item's number
	remove
	kinds
)

// outcome is what a client knows of what became of it.
type outcome int

const (
	unknown outcome = iota // no answer, or one that says nothing: it may take effect at any time
	done
	refused // its condition did not hold
)

// item is what is at a key. Every write leaves a mark of its own.
type item struct {
	there bool
	mark  string
	n     int
}

type operation struct {
	kind     kind
	key      string
	mark     string
	expect   string // of swap
	outcome  outcome
	saw      item // what was there before, unless the outcome is unknown
	from, to time.Duration
}

// history is what clients were told.
type history struct {
	begun time.Time

	mu     sync.Mutex
	ops    []*operation
	errors map[string]int // of operations with an unknown outcome, why
}

// Of a history: perKeys operations are spread over keysAtOnce keys, then over others, so that each key's history is short.
const (
	keysAtOnce = 50
	perKeys    = 10_000
)

func newHistory() *history { return &history{begun: time.Now(), errors: map[string]int{}} }

func (h *history) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// begin notes an operation before it is sent.
func (h *history) begin(rng *rand.Rand, last map[string]string) *operation {
	o := &operation{kind: kind(rng.IntN(int(kinds)))}
	if rng.IntN(3) == 0 {
		o.kind = get
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	o.key = fmt.Sprintf("%d-%d", len(h.ops)/perKeys, rng.IntN(keysAtOnce))
	o.mark = strconv.Itoa(len(h.ops))
	o.expect = cmp.Or(last[o.key], "none")
	o.from, o.to = time.Since(h.begun), math.MaxInt64
	h.ops = append(h.ops, o)
	return o
}

// end notes what the client was told.
func (h *history) end(o *operation, result outcome, saw item, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		why := err.Error()
		if i := strings.LastIndex(why, ": "); i >= 0 {
			why = why[i+2:]
		}
		h.errors[why]++
		return
	}
	o.outcome, o.saw, o.to = result, saw, time.Since(h.begun)
}

// client asks one node after another: the next once it is not answered.
type client struct {
	endpoints []string
	at        int
	http      *http.Client
}

func newClient(endpoints []string, at int, timeout time.Duration) *client {
	return &client{endpoints: endpoints, at: at, http: &http.Client{Timeout: timeout, Transport: &http.Transport{}}}
}

// load asks until the history has as many operations as it should, or ctx ends.
func (c *client) load(ctx context.Context, h *history, rng *rand.Rand, target int) {
	defer c.http.CloseIdleConnections()
	last := map[string]string{} // by key, the mark seen last
	for ctx.Err() == nil && h.len() < target {
		o := h.begin(rng, last)
		result, saw, err := c.do(ctx, o)
		h.end(o, result, saw, err)
		if err != nil {
			c.at = (c.at + 1) % len(c.endpoints)
			continue
		}
		last[o.key] = saw.mark
		if result == done && o.kind != get && o.kind != remove {
			last[o.key] = o.mark
		}
	}
}

type attributes map[string]struct{ S, N string }

func (a attributes) item() item {
	n, _ := strconv.Atoi(a["n"].N) // no number: 0
	return item{len(a) > 0, a["mark"].S, n}
}

// do carries out an operation at the client's node. With an error, the outcome is unknown.
func (c *client) do(ctx context.Context, o *operation) (outcome, item, error) {
	key := map[string]any{"pk": map[string]string{"S": o.key}}
	mark := map[string]string{"S": o.mark}
	q := map[string]any{"TableName": tableName}
	name := "UpdateItem"
	switch o.kind {
	case get:
		name, q["Key"], q["ConsistentRead"] = "GetItem", key, true
	case put, putNew:
		name, q["Item"], q["ReturnValues"] = "PutItem", map[string]any{"pk": key["pk"], "mark": mark}, "ALL_OLD"
		if o.kind == putNew {
			q["ConditionExpression"] = "attribute_not_exists(pk)"
		}
	case remove:
		name, q["Key"], q["ReturnValues"] = "DeleteItem", key, "ALL_OLD"
	case swap:
		q["Key"], q["ReturnValues"] = key, "ALL_OLD"
		q["UpdateExpression"], q["ConditionExpression"] = "SET mark = :new", "mark = :old"
		q["ExpressionAttributeValues"] = map[string]any{":new": mark, ":old": map[string]string{"S": o.expect}}
	case add:
		q["Key"], q["ReturnValues"] = key, "ALL_OLD"
		q["UpdateExpression"] = "SET mark = :new ADD n :one"
		q["ExpressionAttributeValues"] = map[string]any{":new": mark, ":one": map[string]string{"N": "1"}}
	}
	if q["ConditionExpression"] != nil {
		q["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
	}
	var a struct {
		Type    string `json:"__type"`
		Message string `json:"message"`

		Item, Attributes attributes
	}
	status, err := c.ask(ctx, name, q, &a)
	switch {
	case err != nil:
		return unknown, item{}, err
	case status == http.StatusOK && o.kind == get:
		return done, a.Item.item(), nil
	case status == http.StatusOK:
		return done, a.Attributes.item(), nil
	case strings.HasSuffix(a.Type, "#ConditionalCheckFailedException"):
		return refused, a.Item.item(), nil
	}
	return unknown, item{}, fmt.Errorf("%d %s %s", status, a.Type, a.Message)
}

// ask sends one request as an SDK does and decodes what comes back.
func (c *client) ask(ctx context.Context, operation string, body, answer any) (status int, err error) {
	return c.send(ctx, "DynamoDB_20120810."+operation, body, answer)
}

// send is ask for any of the server's APIs.
func (c *client) send(ctx context.Context, target string, body, answer any) (status int, err error) {
	b, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoints[c.at], bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	q.Header.Set("Content-Type", "application/x-amz-json-1.0")
	q.Header.Set("X-Amz-Target", target)
	q.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=any/20260101/"+regionName+"/dynamodb/aws4_request, SignedHeaders=host, Signature=00")
	q.Header.Set("X-Amz-Date", "20260101T000000Z")
	a, err := c.http.Do(q)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	if b, err = io.ReadAll(a.Body); err != nil {
		return 0, err
	}
	return a.StatusCode, json.Unmarshal(b, answer)
}

// checkLimit is how long one key's history may take to check.
const checkLimit = time.Minute

// check returns the keys whose histories no single copy could have shown, and how many operations it has checked. A check that finds no answer
// in time is an error.
func (h *history) check() (wrong []string, checked int, err error) {
	by := map[string][]porcupine.Operation{}
	for i, o := range h.ops {
		if o.outcome == unknown && o.kind == get {
			continue
		}
		by[o.key] = append(by[o.key], porcupine.Operation{ClientId: i, Input: o, Call: int64(o.from), Output: o, Return: int64(o.to)})
	}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		checked += len(by[key])
		switch porcupine.CheckOperationsTimeout(register, by[key], checkLimit) {
		case porcupine.Illegal:
			wrong = append(wrong, key)
		case porcupine.Unknown:
			return wrong, checked, fmt.Errorf("the history of %s, of %d operations, was not checked within %s", key, len(by[key]), checkLimit)
		}
	}
	return wrong, checked, nil
}

// of returns the history of a key, a line for each operation.
func (h *history) of(key string) string {
	var b strings.Builder
	for _, o := range h.ops {
		if o.key == key {
			fmt.Fprintf(&b, "%12s %12s  kind %d mark %s expect %q outcome %d saw %+v\n", o.from, o.to, o.kind, o.mark, o.expect, o.outcome, o.saw)
		}
	}
	return b.String()
}

// register is one item, as if there were one copy of it.
var register = porcupine.Model{
	Init: func() any { return item{} },
	Step: func(state, input, _ any) (bool, any) {
		s, o := state.(item), input.(*operation)
		if o.outcome != unknown && o.saw != s {
			return false, s
		}
		holds := true
		switch o.kind {
		case putNew:
			holds = !s.there
		case swap:
			holds = s.there && s.mark == o.expect
		}
		switch {
		case o.outcome == refused:
			return !holds, s
		case !holds:
			return o.outcome == unknown, s
		}
		switch o.kind {
		case get:
			return true, s
		case remove:
			return true, item{}
		case add:
			return true, item{true, o.mark, s.n + 1}
		case swap:
			return true, item{true, o.mark, s.n}
		}
		return true, item{true, o.mark, 0}
	},
}
