package raftlog

import "sync/atomic"

// Metrics is what a Log did since Open, and what it holds now.
type Metrics struct {
	Frames      int64 // written, also seals, links and rewrites
	Syncs       int64
	Bytes       int64 // written
	Entries     int64 // committed, without those moved
	Rewritten   int64 // bytes of entries moved forward out of old segments
	SpareMisses int64 // segments begun without prepared space: their syncs cost more

	Segments     int64
	SegmentBytes int64 // the size of their files
	CacheBytes   int64 // of entries in memory; at most 32 MiB
}

// EntriesPerSync is how well syncs are shared; 0 before the first.
func (m Metrics) EntriesPerSync() float64 {
	if m.Syncs == 0 {
		return 0
	}
	return float64(m.Entries) / float64(m.Syncs)
}

type counters struct {
	frames, syncs, written, entries, rewritten, spareMisses atomic.Int64
	segments, segmentBytes, cached                          atomic.Int64
}

func (c *counters) segment(n, bytes int64) {
	c.segments.Add(n)
	c.segmentBytes.Add(bytes)
}

// Metrics returns the numbers as they are now.
func (l *Log) Metrics() Metrics {
	c := &l.counters
	return Metrics{
		Frames:       c.frames.Load(),
		Syncs:        c.syncs.Load(),
		Bytes:        c.written.Load(),
		Entries:      c.entries.Load(),
		Rewritten:    c.rewritten.Load(),
		SpareMisses:  c.spareMisses.Load(),
		Segments:     c.segments.Load(),
		SegmentBytes: c.segmentBytes.Load(),
		CacheBytes:   c.cached.Load(),
	}
}
