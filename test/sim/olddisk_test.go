package sim

import (
	"fmt"
	"testing"
	"time"
)

// Goal: a region that was started on a copy of its disk from before a partition was split off, and has lost nothing but what was written to
// that, begins anew before it takes a write. Method: a split just behind the first key, so that every write is the new partition's.
func TestARegionOnAnOldDiskNoticesThatAPartitionWasSplitOff(t *testing.T) {
	scripted(t, 3, 1, func(w *world) {
		r := w.regions[2]
		m := r.nodes[0]
		copied := m.disk.crash(w.rng, 100)
		if a := w.request(m, operator+"SplitPartition", fmt.Sprintf(`{"TableName":%q,"ID":%d,"At":"0001"}`, shared, m.table().Partitions()[0].ID)); !a.ok() {
			w.violate("%v", a)
			return
		}
		for len(m.table().Partitions()) < 2 {
			w.pause(100*time.Millisecond, 100*time.Millisecond)
		}
		for i := range 20 {
			w.must(r, "PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":"k-%d"}}}`, shared, i))
		}
		for w.apart() != "" {
			w.pause(100*time.Millisecond, 100*time.Millisecond)
		}
		was := w.newest(r)
		m.crash(0)
		m.mem = copied
		m.boot()
		for !w.request(m, api+"PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":"first"}}}`, shared)).ok() {
			w.pause(100*time.Millisecond, 100*time.Millisecond)
		}
		// Twice, where the new partition has the number of the lost one, of which others have had more.
		if w.newest(r) <= was {
			w.violate("it takes a write, and is the incarnation that it was")
		}
		for !w.anew(r) || w.apart() != "" {
			w.pause(100*time.Millisecond, 100*time.Millisecond)
		}
	})
}
