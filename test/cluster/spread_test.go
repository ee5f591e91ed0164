//go:build linux

package cluster

import (
	"context"
	"testing"
	"time"
)

// TestANodeOfFiveIsLostForGoodAndOthersHoldWhatItHeld: each partition is held by three nodes of five. One is killed and does not come back; once others
// hold what it held, another is killed, too. Clients of the SDK go on all the time, at nodes that hold what they want and at others.
func TestANodeOfFiveIsLostForGoodAndOthersHoldWhatItHeld(t *testing.T) {
	r := start(t, 5, "partitionsPerTable: 10\nreplicas: 3\nreplaceAfter: 10s")
	makeTable(t, newClient([]string{r.endpoint(1)}, 0, 10*time.Second))
	r.placed(time.Now(), 1, 2, 3, 4, 5)
	for id := 1; id <= 5; id++ {
		// Ten partitions of three replicas, on five nodes, and the catalog.
		n := 0.0
		for end := time.Now().Add(time.Minute); n < 6 || n > 8; n = r.metric(id, "commutator_partitions") {
			if sleep(t.Context(), 100*time.Millisecond); time.Now().After(end) {
				t.Fatalf("node %d holds %v groups, which is not even", id, n)
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	all, load := writeOn(ctx, r)
	sleep(t.Context(), 2*time.Second) // the load is the point
	begun := time.Now()
	r.kill(2)
	r.placed(begun.Add(9*time.Second), 1, 3, 4, 5)
	t.Logf("what a node held that was lost others hold after %s", time.Since(begun).Round(100*time.Millisecond))
	second := time.Now()
	r.kill(4)
	sleep(t.Context(), 3*time.Second)
	stop()
	load.Wait()
	var longest [2]time.Duration
	for _, w := range all {
		longest[0], longest[1] = max(longest[0], w.gap(begun, second)), max(longest[1], w.gap(second, time.Now()))
	}
	total := checkWritten(t, r, all)
	t.Logf("%d writes acknowledged; the longest that any of %d writers waited: %s with the first node lost, %s with the second", total, writers, longest[0].Round(time.Millisecond), longest[1].Round(time.Millisecond))
	for _, gap := range longest {
		if gap > gapLimit {
			t.Errorf("a writer waited %s", gap)
		}
	}
}

// placed waits, from a time on, until nodes say that every group is held by those that are to hold it, and that all of those are up. The catalog's,
// which every node is to hold, lacks those that are down.
func (r *region) placed(from time.Time, ids ...int) {
	r.t.Helper()
	for end := from.Add(2 * time.Minute); ; sleep(r.t.Context(), 200*time.Millisecond) { // it shows from outside alone
		done := time.Now().After(from)
		for _, id := range ids {
			done = done && r.metric(id, "commutator_partitions_moving") == 0 && r.metric(id, "commutator_partitions_under_replicated") <= 1
		}
		if done {
			return
		}
		if time.Now().After(end) {
			r.t.Fatal("partitions are not where they are to be after 2 minutes")
		}
	}
}
