package raftlog

import pb "go.etcd.io/raft/v3/raftpb"

const (
	// cacheBytes bounds the entries kept in memory, over all groups of a log: what followers a little behind
	// and the apply loop ask for. Older ones are read from disk.
	cacheBytes = 32 << 20
	// entryOverheadBytes is what an entry costs in memory beside its data.
	entryOverheadBytes = 160
)

func cacheCost(entries []*pb.Entry) int64 {
	n := int64(len(entries)) * entryOverheadBytes
	for _, e := range entries {
		n += int64(len(e.Data))
	}
	return n
}

// cacheQueue is the order in which entries leave the groups' caches: the order in which they came. It is guarded
// by Log.commitMu. Its length is bounded by cacheBytes / entryOverheadBytes, since each run was at least one entry.
type cacheQueue struct {
	used int64 // bytes in the caches of all groups
	runs []cacheRun
	head int
}

// cacheRun is a run of entries that came in one record: those of g up to and with last, not yet evicted.
type cacheRun struct {
	g    *Group
	last uint64
}

func (q *cacheQueue) push(g *Group, last uint64) {
	if q.head > len(q.runs)/2 && q.head > 64 {
		n := copy(q.runs, q.runs[q.head:])
		clear(q.runs[n:])
		q.runs, q.head = q.runs[:n], 0
	}
	q.runs = append(q.runs, cacheRun{g, last})
}

// evict brings the caches within limit bytes.
func (q *cacheQueue) evict(limit int64) {
	for q.used > limit && q.head < len(q.runs) {
		run := q.runs[q.head]
		q.runs[q.head] = cacheRun{}
		q.head++
		run.g.mu.Lock()
		from := run.g.lastLocked() + 1 - uint64(len(run.g.cache))
		if run.last >= from {
			q.used -= run.g.uncacheLocked(int(min(run.last+1-from, uint64(len(run.g.cache)))))
		}
		run.g.mu.Unlock()
	}
}
