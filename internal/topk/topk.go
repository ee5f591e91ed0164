// Package topk finds the most frequent keys of a stream in bounded memory, by the Space-Saving algorithm
// (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005): a key that is not
// among those counted takes the place of the least frequent one, and its count over, as the most that it may have been seen before.
package topk

import (
	"cmp"
	"container/heap"
	"slices"
)

// Counter counts keys. It is not safe for concurrent use.
type Counter struct {
	most int
	by   map[string]*entry
	heap entries
}

// Count is a key, and how often it was seen: at most Seen times, at least Seen-Unsure times.
type Count struct {
	Key          string
	Seen, Unsure uint64
}

type entry struct {
	Count
	at int // in the heap
}

// New returns a Counter of at most so many keys, 1 or more. Every key seen more often than one in most is among them.
func New(most int) *Counter { return &Counter{most: most, by: make(map[string]*entry)} }

// Add counts a key once.
func (c *Counter) Add(key []byte) {
	if e := c.by[string(key)]; e != nil {
		e.Seen++
		heap.Fix(&c.heap, e.at)
		return
	}
	if len(c.heap) < c.most {
		e := &entry{Count: Count{Key: string(key), Seen: 1}}
		c.by[e.Key] = e
		heap.Push(&c.heap, e)
		return
	}
	e := c.heap[0]
	delete(c.by, e.Key)
	e.Key, e.Unsure = string(key), e.Seen
	e.Seen++
	c.by[e.Key] = e
	heap.Fix(&c.heap, 0)
}

// Top returns the n most frequent keys, the most frequent first.
func (c *Counter) Top(n int) []Count {
	out := make([]Count, 0, len(c.heap))
	for _, e := range c.heap {
		out = append(out, e.Count)
	}
	slices.SortFunc(out, func(a, b Count) int { return cmp.Or(cmp.Compare(b.Seen, a.Seen), cmp.Compare(a.Key, b.Key)) })
	return out[:min(n, len(out))]
}

// entries is a heap with the least frequent key on top.
type entries []*entry

func (h entries) Len() int           { return len(h) }
func (h entries) Less(i, j int) bool { return h[i].Seen < h[j].Seen }
func (h entries) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *entries) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}
func (h *entries) Pop() any { panic("topk: nothing is ever taken out") }
