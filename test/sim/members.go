package sim

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// reshaping are the families that change which regions have a replica of the shared table, and of which incarnation.
var reshaping = []string{"away", "members", "removed", "old disk"}

// reshape changes that, one region at a time, or with four regions and more two at a time, from a client's task. What it has begun it
// ends, after everything is mended if need be.
func (w *world) reshape(until time.Duration, families []string) {
	if len(w.regions) < 3 || len(families) == 0 {
		return // a table of one region ships nothing, and what is not shipped cannot be explained
	}
	for w.pause(200*time.Millisecond, 2*time.Second); w.now < until; w.pause(200*time.Millisecond, 3*time.Second) {
		r, asked := w.regions[w.rng.IntN(len(w.regions))], w.regions[w.rng.IntN(len(w.regions))]
		if asked == r || w.joining[r] || w.joining[asked] {
			continue
		}
		w.joining[r] = true
		switch families[w.rng.IntN(len(families))] {
		case "away":
			w.goOnWithout(asked, r)
		case "members":
			w.takeAndGive(asked, r)
		case "removed":
			w.removeByForce(asked, r)
		case "old disk":
			w.oldDisk(r)
		}
		delete(w.joining, r)
	}
}

func (w *world) pause(lo, hi time.Duration) {
	w.clients.proc.Wait(context.Background(), nil, w.between(lo, hi))
}

// takeAndGive takes a region's replica away in good order, and gives it one anew.
func (w *world) takeAndGive(asked, r *regionOf) {
	w.say("%s is to lose its replica, says %s", r.name, asked.name)
	w.change(asked, "Delete", r)
	w.count.fault(faultReplicaGone)
	for w.has(r) || slices.ContainsFunc(w.regions, func(o *regionOf) bool { return o != r && w.has(o) && w.lists(o, r) }) {
		w.pause(50*time.Millisecond, 200*time.Millisecond)
	}
	w.say("%s has lost its replica", r.name)
	w.pause(time.Millisecond, 2*time.Second)
	w.give(asked, r)
}

// give gives a region a replica.
func (w *world) give(asked, r *regionOf) {
	w.change(asked, "Create", r)
	for !w.anew(r) {
		w.pause(50*time.Millisecond, 200*time.Millisecond)
	}
	w.say("%s has a replica again", r.name)
}

// removeByForce has the regions remove one for good, mostly while it cannot be reached and its clients write there, and gives it a
// replica again.
func (w *world) removeByForce(asked, r *regionOf) {
	if w.chance(0.7) {
		w.cutOffRegion(r, true)
		w.pause(0, 2*time.Second)
	}
	w.say("%s is removed by force, says %s", r.name, asked.name)
	w.count.fault(faultRemoved)
	for i := 0; ; i++ {
		a := w.request(asked.nodes[i%len(asked.nodes)], operator+"RemoveRegion", fmt.Sprintf(`{"Region":%q}`, r.name))
		left, _ := a.body["Replicas"].([]any)
		if a.ok() && !slices.ContainsFunc(left, func(x any) bool {
			l := x.(map[string]any)
			return l["TableName"] == shared && l["Status"] != "GONE"
		}) {
			break
		}
		if a.err == nil && !a.ok() && a.status < 500 && a.code != "NotLeaderException" {
			w.violate("%s does not remove %s: %v", asked.name, r.name, a)
			return
		}
		w.pause(100*time.Millisecond, 300*time.Millisecond)
	}
	w.say("%s is removed", r.name)
	w.pause(0, time.Second)
	w.cutOffRegion(r, false)
	w.pause(0, time.Second)
	w.give(asked, r)
}

// cutOffRegion cuts a region off from the others, or ends that.
func (w *world) cutOffRegion(r *regionOf, on bool) {
	for _, o := range w.regions {
		for _, x := range r.nodes {
			for _, y := range o.nodes {
				if o != r {
					w.cut(x, y, on)
					w.cut(y, x, on)
				}
			}
		}
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
