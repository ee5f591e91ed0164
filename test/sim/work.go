package sim

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
)

// opKind is what a client does.
type opKind int

const (
	opPut opKind = iota
	opPutNew
	opSwap
	opAdd
	opDelete
	opGet
	opSetAdd
	opSetRemove
	opMapSet
	opAppend
	opExpire
	opQuery
	opBackup
	opRestore
	opKinds
)

var opNames = [opKinds]string{"put", "put if new", "swap", "add", "delete", "strong get", "set add", "set remove", "map set", "list append", "expire", "query index", "backup", "restore"}

// The tables of a seed. shared is global; solo is of one region.
const (
	shared = "shared"
	solo   = "solo"
	byG    = "by-g" // both tables' index
)

// classes of keys of the global table: what is done with them.
const (
	keyHome = "home" // of one region alone: an atomic register with conditions
	keyReg  = "reg"  // of all
	keyCnt  = "cnt"  // a counter, never deleted
	keySet  = "set"
	keyMap  = "map"
	keyCart = "cart"
	keyDel  = "del" // deleted and made again
	keyTTL  = "ttl"
	keyIns  = "ins" // of solo: put once
)

// answer is what came back of a request.
type answer struct {
	status int
	code   string // of an error, without its namespace
	body   map[string]any
	err    error // nothing came back
}

func (a answer) ok() bool { return a.err == nil && a.status == http.StatusOK }

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s %v", a.status, a.code, a.body["message"])
}

const (
	api      = "DynamoDB_20120810."
	operator = "Commutator_20261122."
	// patience is how long a client waits for an answer.
	patience = 4 * time.Second
)

// request sends one request to a node from a client's task.
func (w *world) request(to *machine, target, body string) (a answer) {
	w.tracef("  -> %s %s %s", to.name, target, body)
	p := w.clients.proc
	ctx, cancel := p.WithTimeout(context.Background(), patience)
	defer cancel()
	var recorder *httptest.ResponseRecorder
	err := w.call(ctx, w.clients, to, 0, func(ctx context.Context) error {
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("X-Amz-Target", target)
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		rec := httptest.NewRecorder()
		to.engine.Handler().ServeHTTP(rec, r)
		recorder = rec
		return nil
	})
	if err != nil {
		w.note('a')
		w.tracef("  <- %s %v", to.name, err)
		return answer{err: err}
	}
	a.status = recorder.Code
	b := recorder.Body.Bytes()
	w.note('a', uint64(a.status), hashOf(b))
	w.tracef("  <- %s %d %s", to.name, a.status, b)
	if err := json.Unmarshal(b, &a.body); err != nil {
		w.violate("%s answered %s with %d and no JSON: %q", to.name, target, a.status, b)
	}
	if t, _ := a.body["__type"].(string); t != "" {
		a.code = t[strings.LastIndexByte(t, '#')+1:]
	}
	return a
}

func hashOf(b []byte) uint64 {
	h := uint64(fnvOffset)
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}

// setUp makes the tables, from a client's task, while nothing is broken yet.
func (w *world) setUp() {
	mode := "Merge"
	if w.chance(0.25) {
		mode, w.lastWriterWins = "LastWriterWins", true
	}
	w.say("mode %s", mode)
	home := w.regions[0]
	create := func(name, tags string) string {
		return fmt.Sprintf(`{"TableName":%q,"KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"},{"AttributeName":"g","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST","StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_AND_OLD_IMAGES"},"GlobalSecondaryIndexes":[{"IndexName":%q,"KeySchema":[{"AttributeName":"g","KeyType":"HASH"}],"Projection":{"ProjectionType":%q}}]%s}`,
			name, byG, []string{"ALL", "KEYS_ONLY"}[w.rng.IntN(2)], tags)
	}
	w.must(home, "CreateTable", create(shared, fmt.Sprintf(`,"Tags":[{"Key":"commutator:conflict-resolution","Value":%q}]`, mode)))
	w.must(home, "CreateTable", create(solo, ""))
	w.active(home, shared)
	w.active(home, solo)
	for _, r := range w.regions[1:] {
		w.must(home, "UpdateTable", fmt.Sprintf(`{"TableName":%q,"ReplicaUpdates":[{"Create":{"RegionName":%q}}]}`, shared, r.name))
		w.active(home, shared)
		w.active(r, shared)
	}
	w.say("set up")
}

// must repeats a request until it is taken.
func (w *world) must(r *regionOf, operation, body string) answer {
	for i := 0; ; i++ {
		a := w.request(r.nodes[i%len(r.nodes)], api+operation, body)
		if a.ok() || a.code == "ResourceInUseException" && operation == "CreateTable" {
			return a
		}
		if a.err == nil && a.status < 500 && a.code != "ResourceInUseException" {
			w.violate("set up: %s: %v", operation, a)
			return a
		}
		w.clients.proc.Wait(context.Background(), nil, 200*time.Millisecond)
	}
}

// active waits until every replica of a table that a region knows of is ACTIVE.
func (w *world) active(r *regionOf, table string) {
	for i := 0; ; i++ {
		a := w.request(r.nodes[i%len(r.nodes)], api+"DescribeTable", fmt.Sprintf(`{"TableName":%q}`, table))
		if t, _ := a.body["Table"].(map[string]any); t != nil && t["TableStatus"] == "ACTIVE" {
			all := true
			replicas, _ := t["Replicas"].([]any)
			for _, x := range replicas {
				all = all && x.(map[string]any)["ReplicaStatus"] == "ACTIVE"
			}
			if all {
				return
			}
		}
		w.clients.proc.Wait(context.Background(), nil, 100*time.Millisecond)
	}
}

// client works in one region until the chaos ends.
func (w *world) client(r *regionOf, n int, until time.Duration) {
	p := w.clients.proc
	seen := map[string]string{} // the last mark seen, by key
	for w.now < until {
		p.Wait(context.Background(), nil, w.between(5*time.Millisecond, w.cfg.Think))
		w.one(r, n, seen)
	}
}

// one does one operation.
func (w *world) one(r *regionOf, client int, seen map[string]string) {
	o := &operation{region: r, client: client, table: shared}
	pick := func(class string, n int) string { return fmt.Sprintf("%s-%d", class, w.rng.IntN(n)) }
	switch x := w.rng.IntN(100); {
	case x < 50:
		o.key = fmt.Sprintf("%s-%s-%d", keyHome, r.name, w.rng.IntN(w.cfg.HomeKeys))
		o.kind = []opKind{opPut, opPutNew, opSwap, opSwap, opAdd, opAdd, opDelete, opGet, opGet, opGet}[w.rng.IntN(10)]
	case x < 58:
		o.key = pick(keyReg, 4)
		o.kind = []opKind{opPut, opPutNew, opSwap, opAdd, opDelete, opGet}[w.rng.IntN(6)]
	case x < 64:
		o.key, o.kind = pick(keyCnt, 2), opAdd
	case x < 70:
		o.key, o.kind = pick(keySet, 2), []opKind{opSetAdd, opSetAdd, opSetRemove}[w.rng.IntN(3)]
	case x < 75:
		o.key, o.kind = pick(keyMap, 2), []opKind{opPutNew, opMapSet, opMapSet, opAdd}[w.rng.IntN(4)]
	case x < 80:
		o.key, o.kind = pick(keyCart, 2), []opKind{opAppend, opAppend, opAdd, opDelete}[w.rng.IntN(4)]
	case x < 88:
		o.key, o.kind = pick(keyDel, 3), []opKind{opPut, opDelete, opAdd, opSetAdd}[w.rng.IntN(4)]
	case x < 92:
		o.key, o.kind = pick(keyTTL, 2), []opKind{opPut, opExpire, opAdd}[w.rng.IntN(3)]
	case x < 94:
		o.kind = opQuery
	default:
		if r.index != 0 {
			o.key, o.kind = pick(keyReg, 4), opGet
			break
		}
		o.table, o.kind = solo, opPut
		o.key = fmt.Sprintf("%s-%d", keyIns, len(w.history.ops))
	}
	o.expect = seen[o.key]
	w.do(o)
	// As SDKs do: what came to nothing is sent again, and may have taken effect already. Each attempt is an operation.
	for try := 0; o.outcome == unknown && try < 2 && w.chance(0.5); try++ {
		w.clients.proc.Wait(context.Background(), nil, w.between(20*time.Millisecond, 400*time.Millisecond))
		again := &operation{region: r, client: client, table: o.table, kind: o.kind, key: o.key, expect: o.expect}
		w.do(again)
		o = again
	}
	if o.known && o.before.there {
		seen[o.key] = o.before.mark
	}
	if o.outcome == done && o.kind != opGet && o.kind != opDelete && o.kind != opQuery && o.kind != opExpire {
		seen[o.key] = o.mark
	}
}

// do carries an operation out and notes how it went.
func (w *world) do(o *operation) {
	w.history.begin(o)
	o.invoked = w.now
	to := o.region.nodes[w.rng.IntN(len(o.region.nodes))]
	var a answer
	if o.kind == opExpire {
		a = w.expire(to, o)
	} else {
		target, body := w.body(o)
		a = w.request(to, target, body)
	}
	o.returned = w.now
	switch {
	case a.ok():
		o.outcome = done
		o.read(a)
	case a.err != nil, a.status >= 500:
		o.outcome, o.why = unknown, a.String()
	case a.code == "ConditionalCheckFailedException":
		o.outcome = refused
	default:
		o.outcome, o.why = rejected, a.String()
		if a.code == "ValidationException" && o.kind != opMapSet && o.kind != opSetAdd && o.kind != opSetRemove && o.kind != opAppend && o.kind != opAdd || a.code == "SerializationException" {
			w.violate("%s of %s is refused: %v", opNames[o.kind], o.key, a)
		}
	}
	w.count.Ops[o.kind][o.outcome]++
	for _, f := range w.families {
		w.count.Cells[cell(o.kind, f, o.outcome)]++
	}
}

// read takes from an answer what it shows of the item.
func (o *operation) read(a answer) {
	var attrs map[string]any
	switch o.kind {
	case opGet:
		attrs, _ = a.body["Item"].(map[string]any)
	case opPut, opPutNew, opSwap, opAdd, opDelete:
		attrs, _ = a.body["Attributes"].(map[string]any)
	default:
		return
	}
	o.known = true
	if attrs == nil {
		return
	}
	o.before.there = true
	if v, _ := attrs["w"].(map[string]any); v != nil {
		o.before.mark, _ = v["S"].(string)
	}
	if v, _ := attrs["n"].(map[string]any); v != nil {
		text, _ := v["N"].(string)
		o.before.n, _ = strconv.Atoi(text)
	}
}

func (w *world) body(o *operation) (target, body string) {
	key := fmt.Sprintf(`"TableName":%q,"Key":{"pk":{"S":%q}}`, o.table, o.key)
	g := fmt.Sprintf("g%d", w.rng.IntN(3))
	update := func(expression, values, more string) (string, string) {
		if values != "" {
			values += ","
		}
		return api + "UpdateItem", fmt.Sprintf(`{%s,"UpdateExpression":%q,"ExpressionAttributeValues":{%s":w":{"S":%q}},"ReturnValues":"ALL_OLD"%s}`,
			key, "SET w = :w"+expression, values, o.mark, more)
	}
	put := func(more string) (string, string) {
		extra := ""
		switch {
		case strings.HasPrefix(o.key, keyMap):
			extra = `,"m":{"M":{"a":{"S":"x"},"k":{"N":"0"}}}`
		case w.rng.IntN(2) == 0:
			extra = fmt.Sprintf(`,"pad":{"S":%q}`, strings.Repeat("x", w.rng.IntN(300)))
		}
		return api + "PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":%q},"w":{"S":%q},"n":{"N":"0"},"g":{"S":%q}%s},"ReturnValues":"ALL_OLD"%s}`, o.table, o.key, o.mark, g, extra, more)
	}
	elems := func(n int) string {
		for range n {
			o.elems = append(o.elems, fmt.Sprintf("e%d", w.rng.IntN(8)))
		}
		if n > 1 && o.elems[0] == o.elems[1] {
			o.elems = o.elems[:1]
		}
		return `":e":{"SS":["` + strings.Join(o.elems, `","`) + `"]}`
	}
	switch o.kind {
	case opPut:
		return put("")
	case opPutNew:
		return put(`,"ConditionExpression":"attribute_not_exists(pk)"`)
	case opSwap:
		return update(", g = :g", fmt.Sprintf(`":old":{"S":%q},":g":{"S":%q}`, cmp.Or(o.expect, "?"), g), `,"ConditionExpression":"w = :old"`)
	case opAdd:
		o.delta = 1 + w.rng.IntN(9)
		return update(" ADD n :d", fmt.Sprintf(`":d":{"N":"%d"}`, o.delta), "")
	case opDelete:
		return api + "DeleteItem", fmt.Sprintf(`{%s,"ReturnValues":"ALL_OLD"}`, key)
	case opGet:
		return api + "GetItem", fmt.Sprintf(`{%s,"ConsistentRead":true}`, key)
	case opSetAdd:
		return update(" ADD s :e", elems(1+w.rng.IntN(2)), "")
	case opSetRemove:
		return update(" DELETE s :e", elems(1), "")
	case opMapSet:
		return update(", m.#f = :x ADD m.k :one", fmt.Sprintf(`":x":{"S":"x%d"},":one":{"N":"1"}`, o.n), fmt.Sprintf(`,"ExpressionAttributeNames":{"#f":"f%d"}`, w.rng.IntN(3)))
	case opAppend:
		return update(", l = list_append(if_not_exists(l, :none), :x)", fmt.Sprintf(`":none":{"L":[]},":x":{"L":[{"S":%q}]}`, fmt.Sprintf("x%d", o.n)), "")
	case opQuery:
		return api + "Query", fmt.Sprintf(`{"TableName":%q,"IndexName":%q,"KeyConditionExpression":"g = :g","ExpressionAttributeValues":{":g":{"S":%q}}}`, o.table, byG, g)
	}
	panic("sim: no request for " + opNames[o.kind])
}

// expire lets an item expire, as the sweep for TTL will: by a command of the region's own.
func (w *world) expire(to *machine, o *operation) (a answer) {
	ctx, cancel := w.clients.proc.WithTimeout(context.Background(), patience)
	defer cancel()
	a.status = http.StatusOK
	a.err = w.call(ctx, w.clients, to, 0, func(ctx context.Context) error {
		t, err := to.engine.Region().Table(ctx, o.table)
		if err != nil {
			return err
		}
		result, err := t.Write(ctx, &op.Command{Kind: op.Expire, Key: t.Schema().KeyOfValues(item.S(o.key), item.Value{})})
		if err == nil {
			err = result.Err
		}
		return err
	})
	return a
}

var noValue item.Value

func value(s string) item.Value { return item.S(s) }

// numberOf returns a whole number that a stored item holds, 0 for none.
func numberOf(stored, name string) int {
	raw := item.Attr([]byte(stored), name)
	if raw == nil {
		return 0
	}
	v, err := item.DecodeValue(raw)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(v.Number().String())
	return n
}
