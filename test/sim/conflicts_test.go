package sim

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/commutatordb/commutator/region/op"
)

// Goal: conflict records are kept, as they were, when a region begins a table anew. Method: a region loses some writes, and is given up.
func TestConflictRecordsOutliveTheIncarnationThatKeptThem(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			scripted(t, 3, nodes, func(w *world) {
				home, loser := w.regions[0], w.regions[2]
				w.cutOffRegion(loser, true)
				for _, r := range []*regionOf{loser, home} {
					for i := range 5 {
						w.must(r, "PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":"k-%d"},"x":{"S":%q}}}`, shared, i, r.name))
					}
				}
				w.cutOffRegion(loser, false)
				for w.apart() != "" {
					w.pause(100*time.Millisecond, 100*time.Millisecond)
				}
				before := w.conflicts(loser)
				if len(before) != 5 {
					w.violate("%d conflict records of 5 writes that lost", len(before))
				}
				w.giveUp(home, loser)
				for !w.anew(loser) {
					w.pause(100*time.Millisecond, 100*time.Millisecond)
				}
				after := w.conflicts(loser)
				for id, found := range before {
					if after[id] != found {
						w.violate("the conflict record %s was %s, and is %s", id, found, after[id])
					}
				}
			})
		})
	}
}

// conflicts returns a region's conflict records of the shared table, by id.
func (w *world) conflicts(r *regionOf) map[string]string {
	out := map[string]string{}
	err := r.nodes[0].table().Conflicts(context.Background(), func(c op.Conflict) bool {
		out[fmt.Sprintf("%x", c.ID)] = fmt.Sprintf("%+v", c)
		return true
	})
	if err != nil {
		w.violate("%v", err)
	}
	return out
}
