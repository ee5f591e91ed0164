package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Goal: when the node of a region goes that receives for it, another does within seconds: decision 0009, "Receiving is not spread". Method: over
// and over that node crashes, or is stopped in good order, and an item that is written elsewhere at that moment is waited for.
func TestAnotherNodeReceivesWhenTheOneThatDidIsGone(t *testing.T) {
	const most = 4 * time.Second
	for _, how := range []string{"crashes", "stops"} {
		t.Run(how, func(t *testing.T) {
			var took []time.Duration
			scripted(t, 2, 3, func(w *world) {
				home, far := w.regions[0], w.regions[1]
				for i := range 20 {
					w.pause(2*time.Second, 4*time.Second)
					at := slices.IndexFunc(far.nodes, func(m *machine) bool { return m.engine.Region().Leads() })
					if at < 0 {
						w.violate("nobody leads")
						return
					}
					m, other := far.nodes[at], far.nodes[(at+1)%len(far.nodes)]
					gone := w.now
					if how == "crashes" {
						m.crash(0)
					} else {
						m.halt(func() {})
					}
					key := fmt.Sprintf("item-%d", i)
					w.must(home, "PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":%q}}}`, shared, key))
					for {
						if items, _, err := other.items(shared); err == nil && union(items)[key] != "" {
							break
						}
						w.pause(10*time.Millisecond, 10*time.Millisecond)
					}
					took = append(took, w.now-gone)
					for m.up() {
						w.pause(100*time.Millisecond, 100*time.Millisecond)
					}
					m.boot()
				}
			})
			slices.Sort(took)
			if len(took) == 0 || took[len(took)-1] > most {
				t.Errorf("an item is there after %v, want at most %v", took, most)
			} else {
				t.Logf("an item is there after %v in the middle, %v at most", took[len(took)/2], took[len(took)-1])
			}
		})
	}
}
