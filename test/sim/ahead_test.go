package sim

import (
	"fmt"
	"testing"
	"time"
)

// Goal: what an operator does about a region whose clock was far ahead holds. Method: a region stamps ten days ahead; its clock is set right, and
// its writes still do not arrive, since its stamps never go back. Given up, it begins anew: then what it wrote meanwhile is everywhere, and what it
// writes arrives at once.
func TestARegionThatWasFarAheadIsInStepOnceItHasBegunAnew(t *testing.T) {
	scripted(t, 3, 1, func(w *world) {
		home, ahead := w.regions[0], w.regions[2]
		put := func(r *regionOf, key, x string) {
			w.must(r, "PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":%q},"x":{"S":%q}}}`, shared, key, x))
		}
		there := func(r *regionOf, key string) bool {
			a := w.must(r, "GetItem", fmt.Sprintf(`{"TableName":%q,"Key":{"pk":{"S":%q}},"ConsistentRead":true}`, shared, key))
			return a.body["Item"] != nil
		}
		within := func(what string, limit time.Duration, ok func() bool) {
			for end := w.now + limit; !ok(); w.pause(100*time.Millisecond, 100*time.Millisecond) {
				if w.now > end {
					w.violate("not within %s: %s", limit, what)
					return
				}
			}
		}
		for _, m := range ahead.nodes {
			m.proc.skew = 10 * 24 * time.Hour
		}
		put(ahead, "while-ahead", "1")
		w.pause(5*time.Second, 5*time.Second)
		for _, m := range ahead.nodes {
			m.proc.skew = 0
		}
		within("it takes writes again", time.Minute, func() bool {
			return w.request(ahead.nodes[0], api+"PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":"clock-is-right"}}}`, shared)).ok()
		})
		w.pause(30*time.Second, 30*time.Second)
		for _, key := range []string{"while-ahead", "clock-is-right"} {
			if there(home, key) {
				w.violate("%s, stamped ten days ahead, is in %s", key, home.name)
			}
		}
		w.giveUp(home, ahead)
		within("it has begun anew", time.Minute, func() bool { return w.anew(ahead) })
		put(ahead, "anew", "1")
		for _, key := range []string{"while-ahead", "clock-is-right", "anew"} {
			within(key+" is everywhere", 10*time.Second, func() bool { return there(home, key) && there(w.regions[1], key) })
		}
	})
}
