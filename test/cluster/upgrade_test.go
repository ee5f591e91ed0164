//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// format returns the format that a node's directory says its data may have.
func (r *region) format(id int) (n int) {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.data(id), "node.json"))
	var identity struct{ Format int }
	if err == nil {
		err = json.Unmarshal(b, &identity)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return identity.Format
}

// TestARegionIsUpgradedNodeByNodeWhileClientsWrite gives a region's nodes a program that knows a newer format, one after the other. Until the last
// has it, any may be given the old one again; after that none.
func TestARegionIsUpgradedNodeByNodeWhileClientsWrite(t *testing.T) {
	r := start(t, 3, "partitionsPerTable: 4")
	old, next := r.program, build(t, "nextformat")
	makeTable(t, newClient([]string{r.endpoint(1)}, 0, 10*time.Second))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all, load := writeOn(ctx, r)
	var given []time.Time
	give := func(program string, id int) {
		given = append(given, time.Now())
		r.end(id)
		r.program = program
		r.start(id)
		r.ready(id)
		sleep(ctx, time.Second) // the load is the point
	}
	give(next, 1)
	give(next, 2)
	give(old, 1)
	for id := 1; id <= 3; id++ {
		if f := r.format(id); f != 1 {
			t.Fatalf("while a node has the old program, node %d has data of format %d", id, f)
		}
	}
	give(next, 1)
	give(next, 3)
	for id := 1; id <= 3; id++ {
		for end := time.Now().Add(time.Minute); r.format(id) != 2; sleep(ctx, 50*time.Millisecond) { // it shows from outside alone
			if time.Now().After(end) {
				t.Fatalf("all have the new program, and node %d has data of format %d", id, r.format(id))
			}
		}
	}
	r.end(2)
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(limit, old, "server", "--config", filepath.Join(r.dir, "n2.yaml")).CombinedOutput()
	if err == nil || limit.Err() != nil || !strings.Contains(string(out), "has format 2; this version reads 1 to 1") {
		t.Errorf("the old program on new data: %v\n%s", err, out)
	}
	r.start(2)
	r.ready(2)
	stop()
	load.Wait()
	var longest time.Duration
	for _, at := range given {
		for _, w := range all {
			longest = max(longest, w.gap(at, at.Add(5*time.Second)))
		}
	}
	t.Logf("%d writes acknowledged; the longest that one of %d writers waited when a node was stopped: %s", checkWritten(t, r, all), writers, longest)
}
