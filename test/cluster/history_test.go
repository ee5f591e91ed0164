//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	clients = 48
	// wanted is how many operations a history has.
	wanted, wantedShort = 200_000, 10_000
	// splitEvery is about how often a partition is split; at the end there are at least leastParts.
	splitEvery, mostParts, leastParts = 5 * time.Second, 24, 6
	// limit bounds all of it.
	limit = 15 * time.Minute
)

// TestHistoriesOfRealProcessesAreLinearizable breaks a region of three processes, one thing or two at a time, and has its
// partitions split, while clients read, write and swap. SEED=n repeats the choice of faults.
func TestHistoriesOfRealProcessesAreLinearizable(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal("SEED:", err)
		}
	}
	t.Logf("SEED=%d", seed)
	target := wanted
	if testing.Short() {
		target = wantedShort
	}
	r := start(t, 3, "partitionsPerTable: 4")
	var endpoints []string
	for _, p := range r.nodes {
		endpoints = append(endpoints, r.endpoint(p.id))
	}
	makeTable(t, newClient(endpoints, 0, 10*time.Second))

	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	h := newHistory()
	var load sync.WaitGroup
	for i := range clients {
		load.Go(func() {
			newClient(endpoints, i%len(endpoints), 2*time.Second).load(ctx, h, rand.New(rand.NewPCG(seed, uint64(i))), target)
		})
	}
	load.Go(func() {
		splitThings(ctx, newClient(endpoints, 0, 2*time.Second), rand.New(rand.NewPCG(seed, clients+1)), func() bool { return h.len() >= target })
	})
	faults := breakThings(ctx, r, rand.New(rand.NewPCG(seed, clients)), func() bool { return h.len() >= target })
	load.Wait()
	took := time.Since(h.begun)

	for _, p := range r.nodes {
		r.ready(p.id)
	}
	// What each node shows at the end is part of the history.
	for _, p := range r.nodes {
		c := newClient(endpoints, p.id-1, 10*time.Second)
		for i := range (len(h.ops) + perKeys - 1) / perKeys * keysAtOnce {
			o := &operation{kind: get, key: fmt.Sprintf("%d-%d", i/keysAtOnce, i%keysAtOnce), from: time.Since(h.begun)}
			h.ops = append(h.ops, o)
			result, saw, err := c.do(t.Context(), o)
			if err != nil {
				t.Fatalf("node %d, when all are up again: %v", p.id, err)
			}
			h.end(o, result, saw, nil)
		}
	}
	for _, p := range r.nodes {
		parts := partitions(t.Context(), newClient(endpoints, p.id-1, 10*time.Second))
		t.Logf("node %d: %d partitions", p.id, len(parts))
		if len(parts) < leastParts && !testing.Short() {
			t.Error("hardly any has been split")
		}
	}
	count := map[outcome]int{}
	for _, o := range h.ops {
		count[o.outcome]++
	}
	wrong, checked, err := h.check()
	t.Logf("%d operations in %s: %d done, %d refused, %d unknown (%v); %d checked; faults: %v", len(h.ops), took.Round(time.Second), count[done], count[refused], count[unknown], h.errors, checked, faults)
	if err != nil {
		t.Error(err)
	}
	for _, key := range wrong {
		t.Errorf("%s is not linearizable:\n%s", key, h.of(key))
	}
	if known := count[done] + count[refused]; known < target*95/100 {
		t.Errorf("%d operations of %d have a known outcome", known, target)
	}
}

func makeTable(t *testing.T, c *client) {
	t.Helper()
	var a struct {
		Type  string `json:"__type"`
		Table struct{ TableStatus string }
	}
	status, err := c.ask(t.Context(), "CreateTable", map[string]any{
		"TableName": tableName, "BillingMode": "PAY_PER_REQUEST",
		"AttributeDefinitions": []any{map[string]string{"AttributeName": "pk", "AttributeType": "S"}},
		"KeySchema":            []any{map[string]string{"AttributeName": "pk", "KeyType": "HASH"}},
	}, &a)
	if err != nil || status != http.StatusOK {
		t.Fatal(status, a.Type, err)
	}
	for a.Table.TableStatus != "ACTIVE" {
		if _, err := c.ask(t.Context(), "DescribeTable", map[string]any{"TableName": tableName}, &a); err != nil {
			t.Fatal(err)
		}
	}
}

// breakThings breaks one thing after another until it is enough, and leaves all nodes running and joined. It returns how often it did what.
func breakThings(ctx context.Context, r *region, rng *rand.Rand, enough func() bool) map[string]int {
	count := map[string]int{}
	wait := func(from, to time.Duration) { sleep(ctx, from+time.Duration(rng.Int64N(int64(to-from)))) }
	for !enough() && ctx.Err() == nil {
		wait(200*time.Millisecond, time.Second)
		id := 1 + rng.IntN(len(r.nodes))
		other := 1 + (id-1+1+rng.IntN(len(r.nodes)-1))%len(r.nodes)
		switch what := rng.IntN(100); {
		case what < 30:
			count["kill"]++
			r.kill(id)
			wait(100*time.Millisecond, 2*time.Second)
			r.start(id)
		case what < 38:
			count["kill two"]++
			r.kill(id)
			r.kill(other)
			wait(100*time.Millisecond, time.Second)
			r.start(other)
			r.start(id)
		case what < 60:
			count["pause"]++
			r.pause(id)
			wait(200*time.Millisecond, 4*time.Second)
			r.resume(id)
		case what < 80:
			count["cut off"]++
			r.isolate(id)
			wait(500*time.Millisecond, 4*time.Second)
			r.join(id)
		case what < 92:
			count["cut one way"]++
			r.cut(id, other)
			wait(500*time.Millisecond, 4*time.Second)
			r.heal(id, other)
		default:
			count["kill one, cut off another"]++
			r.isolate(other)
			r.kill(id)
			wait(200*time.Millisecond, 2*time.Second)
			r.start(id)
			r.join(other)
		}
	}
	if err := context.Cause(ctx); errors.Is(err, context.DeadlineExceeded) {
		r.t.Errorf("not done after %s", limit)
	}
	return count
}

type part struct {
	ID    uint64
	Start string
}

// partitions returns the table's partitions as the client's node shows them, nil while it does not.
func partitions(ctx context.Context, c *client) []part {
	var a struct{ Partitions []part }
	if status, err := c.send(ctx, "Commutator_20261122.ListPartitions", map[string]string{"TableName": tableName}, &a); err != nil || status != http.StatusOK {
		return nil
	}
	return a.Partitions
}

// splitThings has one partition after another split somewhere, until it is enough or there are many.
func splitThings(ctx context.Context, c *client, rng *rand.Rand, enough func() bool) {
	defer c.http.CloseIdleConnections()
	for !enough() && ctx.Err() == nil {
		sleep(ctx, time.Duration(rng.Int64N(int64(2*splitEvery))))
		c.at = rng.IntN(len(c.endpoints))
		parts := partitions(ctx, c)
		if len(parts) == 0 || len(parts) >= mostParts {
			continue
		}
		// A hash anywhere: what is not in the range of the partition is refused.
		i, at := rng.IntN(len(parts)), fmt.Sprintf("%016x", rng.Uint64())
		for j, p := range parts {
			if p.Start < at {
				i = j
			}
		}
		var answer any
		c.send(ctx, "Commutator_20261122.SplitPartition", map[string]any{"TableName": tableName, "ID": parts[i].ID, "At": at}, &answer) // or not, while things are broken
	}
}

// sleep lets the world go on for a while: between faults, that is what is wanted.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
