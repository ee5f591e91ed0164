package topk

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Every key seen more often than one time in most is counted, and its true count lies within the bounds.
func TestFrequentKeysAreFoundAndTheirCountsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 8).Draw(t, "most")
		keys := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 400).Draw(t, "keys")
		c, truth := New(most), map[string]uint64{}
		for _, k := range keys {
			key := fmt.Sprint(k)
			truth[key]++
			c.Add([]byte(key))
		}
		found := map[string]bool{}
		last := ^uint64(0)
		for _, e := range c.Top(most) {
			if seen := truth[e.Key]; seen > e.Seen || seen < e.Seen-e.Unsure {
				t.Fatalf("%s was seen %d times, not %d to %d", e.Key, seen, e.Seen-e.Unsure, e.Seen)
			}
			if e.Seen > last {
				t.Fatalf("%s stands behind one that was seen less often", e.Key)
			}
			last = e.Seen
			found[e.Key] = true
		}
		for key, n := range truth {
			if n > uint64(len(keys)/most) && !found[key] {
				t.Fatalf("%s was seen %d times of %d and is not among %d", key, n, len(keys), most)
			}
		}
		if len(found) > most {
			t.Fatalf("%d keys are counted", len(found))
		}
	})
}
