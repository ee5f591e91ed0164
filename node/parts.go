package node

import (
	"context"
	"sync"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/replication"
)

const (
	// mergeBytes is about how much of a seed is merged at once. What is written here meanwhile waits for that.
	mergeBytes = 384 << 10
	// aheadBytes is how much may have come, at most, of a seed whose parts are still to be merged.
	aheadBytes = 2 << 20
)

// parts are those of a seed that have come and have not been merged: more come while some are merged. One task puts, another takes.
type parts struct {
	tasks task.Runtime
	news  chan struct{} // gets a token when there is more to take
	room  chan struct{} // or when some was taken

	mu    sync.Mutex
	come  []replication.SeedPart
	size  int
	ended bool
	err   error // with which it ended
}

func newParts(tasks task.Runtime) *parts {
	return &parts{tasks: tasks, news: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put adds a part, once there is room for it.
func (q *parts) put(ctx context.Context, part replication.SeedPart) error {
	for {
		q.mu.Lock()
		fits := q.size < aheadBytes
		if fits {
			q.come, q.size = append(q.come, part), q.size+sizeOf(part)
		}
		q.mu.Unlock()
		if fits {
			task.Poke(q.news)
			return nil
		}
		if q.tasks.Wait(ctx, q.room, 0) == task.Ended {
			return context.Cause(ctx)
		}
	}
}

// end says that no more comes, and why.
func (q *parts) end(err error) {
	q.mu.Lock()
	q.ended, q.err = true, err
	q.mu.Unlock()
	task.Poke(q.news)
}

// take waits for the next parts, and takes as many as are merged at once. Behind the last, it returns what end was told, and none.
func (q *parts) take(ctx context.Context) ([]replication.SeedPart, error) {
	for {
		q.mu.Lock()
		n, size := 0, 0
		for n < len(q.come) && (n == 0 || size+sizeOf(q.come[n]) <= mergeBytes) {
			size += sizeOf(q.come[n])
			n++
		}
		out := q.come[:n:n]
		q.come, q.size = q.come[n:], q.size-size
		ended, err := q.ended, q.err
		q.mu.Unlock()
		if n > 0 {
			task.Poke(q.room)
			return out, nil
		}
		if ended {
			return nil, err
		}
		if q.tasks.Wait(ctx, q.news, 0) == task.Ended {
			return nil, context.Cause(ctx)
		}
	}
}

func sizeOf(part replication.SeedPart) (n int) {
	for _, c := range part.Items {
		n += len(c.Key) + len(c.Delta)
	}
	return n
}
