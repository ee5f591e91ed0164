package sim

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// alike holds against the product that a node's own comparison with other regions, made while things break, has found a
// difference: what merges right never comes to one, and what merges wrong would be repaired before anybody sees it.
func (m *machine) alike() {
	if n := m.engine.Differences(); n > 0 {
		m.w.violate("%s has found its copy different from another region's in %d items", m.name, n)
	}
}

// checkAlike asks every region what it lacks that others have: nothing, of as many items as are there.
func (w *world) checkAlike() {
	items, _, why := w.regions[0].shown(shared)
	if why != "" {
		w.violate("%s", why)
		return
	}
	open := len(w.regions)
	for i, r := range w.regions {
		w.clients.proc.Go(func() {
			defer func() { open-- }()
			results := w.verified(r, i%2 == 0)
			if len(w.violations) == 0 && len(results) != len(w.regions)-1 {
				w.violate("%s compares its table with %d of %d regions", r.name, len(results), len(w.regions)-1)
			}
			for _, x := range results {
				f, _ := x.(map[string]any)
				if f["Different"] != 0.0 || f["Unsettled"] != 0.0 || f["Items"] != float64(len(items)) {
					w.violate("%s is equal to the others, with %d items, and says %v", r.name, len(items), f)
				}
				w.count.Verified++
			}
		})
	}
	if !w.runUntil(settleLimit, func() bool { return open == 0 || len(w.violations) > 0 }) {
		w.violate("not every region has compared its table within %s", settleLimit)
	}
	for _, m := range w.nodes {
		m.alike()
	}
}

// verified asks a region's nodes, until one does it, what the region's table lacks.
func (w *world) verified(r *regionOf, deep bool) []any {
	wait := func() { w.clients.proc.Wait(context.Background(), nil, 100*time.Millisecond) }
	for i := 0; ; i++ {
		to := r.nodes[i%len(r.nodes)]
		a := w.request(to, operator+"Verify", fmt.Sprintf(`{"TableName":%q,"Deep":%v}`, shared, deep))
		for a.ok() && a.body["Status"] == "RUNNING" {
			wait()
			id, _ := a.body["ID"].(string)
			a = w.request(to, operator+"DescribeVerify", fmt.Sprintf(`{"ID":%q}`, id))
		}
		if a.ok() && a.body["Status"] == "DONE" {
			results, _ := a.body["Results"].([]any)
			// What broke a connection may be healed before a node has noticed.
			if !slices.ContainsFunc(results, func(x any) bool { return x.(map[string]any)["Error"] != nil }) {
				return results
			}
			w.say("%s could not compare: %v", to.name, results)
		}
		if a.err == nil && a.status < 500 && a.code != "NotLeaderException" && !a.ok() {
			w.violate("%s refuses to compare its table: %v", r.name, a)
			return nil
		}
		wait()
	}
}
