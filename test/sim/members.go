package sim

import (
	"context"
	"fmt"
	"time"
)

// changeMembers takes regions' replicas of the shared table away and gives them anew, one at a time, from a client's task. What it has
// begun it ends, after everything is mended if need be.
func (w *world) changeMembers(until time.Duration) {
	pause := func(lo, hi time.Duration) { w.clients.proc.Wait(context.Background(), nil, w.between(lo, hi)) }
	if len(w.regions) < 3 {
		return // a table of one region ships nothing, and what is not shipped cannot be explained
	}
	for pause(200*time.Millisecond, 3*time.Second); w.now < until; pause(200*time.Millisecond, 3*time.Second) {
		r := w.regions[1+w.rng.IntN(len(w.regions)-1)]
		asked := w.regions[w.rng.IntN(len(w.regions))]
		if asked == r {
			asked = w.regions[0]
		}
		w.say("%s is to lose its replica, says %s", r.name, asked.name)
		w.change(asked, "Delete", r)
		w.count.fault(faultReplicaGone)
		for w.has(r) || w.lists(asked, r) || w.lists(w.regions[0], r) {
			pause(50*time.Millisecond, 200*time.Millisecond)
		}
		w.say("%s has lost its replica", r.name)
		pause(time.Millisecond, 2*time.Second)
		w.joining = r
		w.change(w.regions[0], "Create", r)
		w.active(w.regions[0], shared)
		for !w.has(r) {
			pause(50*time.Millisecond, 200*time.Millisecond)
		}
		w.active(r, shared)
		w.joining = nil
		w.say("%s has a replica again", r.name)
	}
}

// change asks a region to delete or create another's replica until it is done: what came to nothing may have been done already.
func (w *world) change(asked *regionOf, what string, r *regionOf) {
	for i := 0; ; i++ {
		a := w.request(asked.nodes[i%len(asked.nodes)], api+"UpdateTable", fmt.Sprintf(`{"TableName":%q,"ReplicaUpdates":[{%q:{"RegionName":%q}}]}`, shared, what, r.name))
		if a.ok() || a.code == "ValidationException" && i > 0 {
			return
		}
		if a.err == nil && a.status < 500 && a.code != "ResourceInUseException" {
			w.violate("%s of %s's replica is refused by %s: %v", what, r.name, asked.name, a)
			return
		}
		w.clients.proc.Wait(context.Background(), nil, 200*time.Millisecond)
	}
}

// has tells whether a region shows its replica of the shared table, or cannot be asked.
func (w *world) has(r *regionOf) bool {
	a := w.request(r.nodes[w.rng.IntN(len(r.nodes))], api+"DescribeTable", fmt.Sprintf(`{"TableName":%q}`, shared))
	return a.code != "ResourceNotFoundException"
}

// lists tells whether a region counts another's replica among the table's, or cannot be asked.
func (w *world) lists(r, other *regionOf) bool {
	a := w.request(r.nodes[w.rng.IntN(len(r.nodes))], api+"DescribeTable", fmt.Sprintf(`{"TableName":%q}`, shared))
	t, _ := a.body["Table"].(map[string]any)
	if t == nil {
		return true
	}
	replicas, _ := t["Replicas"].([]any)
	for _, x := range replicas {
		if x.(map[string]any)["RegionName"] == other.name {
			return true
		}
	}
	return false
}
