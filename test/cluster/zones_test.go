//go:build linux

package cluster

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// held is a partition as `commutator partition list` shows it.
type held struct {
	ID            uint64
	Nodes, Voters []int
}

// command runs the program against a node, and returns what it prints.
func (r *region) command(node int, args ...string) string {
	r.t.Helper()
	cmd := exec.Command(r.program, append(args, "--endpoint", r.endpoint(node))...)
	cmd.Env = append(cmd.Environ(), "AWS_ACCESS_KEY_ID=any", "AWS_SECRET_ACCESS_KEY=any")
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%v: %v: %s", args, err, failed.String())
	}
	return string(out)
}

// partitions returns who holds each partition of the table, as a node says.
func (r *region) partitions(node int) []held {
	r.t.Helper()
	var lists []struct{ Partitions []held }
	if err := json.Unmarshal([]byte(r.command(node, "partition", "list", tableName, "--output", "json")), &lists); err != nil {
		r.t.Fatal(err)
	}
	return lists[0].Partitions
}

// spreads waits until each partition has a voter in so many zones.
func (r *region) spreads(node, zones int) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); ; sleep(r.t.Context(), 200*time.Millisecond) { // it shows from outside alone
		all := r.partitions(node)
		if !slices.ContainsFunc(all, func(p held) bool {
			in := map[string]bool{}
			for _, id := range p.Voters {
				in[r.zones[id-1]] = true
			}
			return len(in) != zones || len(p.Voters) != 3
		}) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("after a minute partitions are not in %d zones: %+v", zones, all)
		}
	}
}

// TestReplicasAreSpreadOverZonesAndMayBeMovedByHand: of five nodes one is alone in its zone, so it holds everything; while it is lost for good, the two zones
// that are left do; then it is back.
func TestReplicasAreSpreadOverZonesAndMayBeMovedByHand(t *testing.T) {
	r := start(t, 5, "partitionsPerTable: 6\nreplicas: 3\nreplaceAfter: 10s", "a", "b", "c", "a", "b")
	makeTable(t, newClient([]string{r.endpoint(1)}, 0, 10*time.Second))
	r.spreads(1, 3)
	r.placed(time.Now(), 1, 2, 3, 4, 5)

	p := r.partitions(4)[0]
	from := p.Nodes[slices.IndexFunc(p.Nodes, func(id int) bool { return r.zones[id-1] == "a" })]
	to := map[int]int{1: 4, 4: 1}[from] // the other one of its zone
	r.command(2, "partition", "move", tableName, fmt.Sprint(p.ID), "--from", fmt.Sprintf("n%d", from), "--to", fmt.Sprintf("n%d", to))
	i := slices.IndexFunc(r.partitions(5), func(o held) bool { return o.ID == p.ID })
	if now := r.partitions(5)[i]; !slices.Contains(now.Voters, to) || slices.Contains(now.Nodes, from) {
		t.Errorf("partition %d was moved from node %d to %d, and is held by %v", p.ID, from, to, now.Voters)
	}

	r.kill(3)
	r.spreads(1, 2)
	r.start(3)
	r.ready(3)
	r.spreads(1, 3)
	r.placed(time.Now(), 1, 2, 3, 4, 5)
}
