package node

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// crowd tells whether more is asked of this process than it has processor time for: then whoever comes is refused before anything is
// read of what he wants, so that those who are in keep their latency. What it goes by is how long a request waits before anybody
// looks at it. That stands in no request: it waits in the kernel, for the runtime to ask what has come, and then for a processor. So
// a byte goes the same way, through a pipe, and its time is taken.
//
// A few connections are never too many, however slow the machine is. It looks only when somebody comes: a node that has nothing to do
// pays nothing for it.
type crowd struct {
	open    func() int // connections
	refused atomic.Uint64

	mu   sync.Mutex
	wait wait
	r, w *os.File
}

// crowdFrom is how many connections are a crowd; one of HTTP/2 is, for it may carry as many requests. Clients that wait for their answers cannot ask
// for much more than is done: so many of them wait for some 25 ms, and are better served than refused.
const crowdFrom = 256

func newCrowd(open func() int) (*crowd, error) {
	r, w, err := os.Pipe()
	return &crowd{open: open, r: r, w: w}, err
}

// Crowded tells whether a request that has come, by a version of HTTP, is one too many.
func (c *crowd) Crowded(protocol int) bool {
	if protocol < 2 && c.open() < crowdFrom {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.wait.due(now) {
		c.sendLocked(now)
	}
	if !c.wait.tooLong(now) {
		return false
	}
	c.refused.Add(1)
	return true
}

// sendLocked sends a byte on its way. At most one is, so the pipe has room.
func (c *crowd) sendLocked(now time.Time) {
	if _, err := c.w.Write([]byte{0}); err == nil {
		c.wait.sent = now
	}
}

// run takes what was sent until ctx ends.
func (c *crowd) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { c.r.Close() })
	defer stop()
	for b := make([]byte, 1); ; {
		if _, err := c.r.Read(b); errors.Is(err, os.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		c.mu.Lock()
		now := time.Now()
		if c.wait.came(now); c.wait.tooLong(now) {
			c.sendLocked(now) // or it would be too long until somebody comes, though nobody is there any more
		}
		c.mu.Unlock()
	}
}

func (c *crowd) close() error {
	err := c.r.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil // run has
	}
	return errors.Join(err, c.w.Close())
}

// wait is what is known of how long there is to wait.
//
// A short queue works off a burst; only one that stands means too much. So the wait may be long, unless there has been no
// moment for a while at which there was next to none. Source: Maurer, Fail at Scale, ACM Queue 13(8), 2015, "Controlled Delay".
type wait struct {
	sent  time.Time // when the byte was that is on its way; zero: none is
	at    time.Time // when the last one came
	last  time.Duration
	eased time.Time // when there was last next to no wait
}

const (
	// waitLook is how often a byte is sent.
	waitLook = 5 * time.Millisecond
	// waitNone is a wait that is as good as none: what was waiting has been worked off.
	waitNone = 5 * time.Millisecond
	// waitStands is for how long there must have been no such moment for a queue to be one that stands. A container's processor time comes
	// in pieces of 100 ms, with a pause between them.
	waitStands = 250 * time.Millisecond
	// waitMost is how long the wait may be in a queue that stands, and waitBurst in one that does not.
	waitMost  = 40 * time.Millisecond
	waitBurst = 120 * time.Millisecond
)

// due tells whether a byte is to be sent.
func (w *wait) due(now time.Time) bool {
	if !w.sent.IsZero() || now.Sub(w.at) < waitLook {
		return false
	}
	if now.Sub(w.at) >= waitStands {
		w.eased, w.last = now, 0 // nobody has looked for so long that what was is over
	}
	return true
}

// came notes that the byte has come.
func (w *wait) came(now time.Time) {
	w.last, w.at, w.sent = now.Sub(w.sent), now, time.Time{}
	if w.last <= waitNone {
		w.eased = now
	}
}

// tooLong tells whether there is too long to wait.
func (w *wait) tooLong(now time.Time) bool {
	long := w.last
	if !w.sent.IsZero() {
		long = max(long, now.Sub(w.sent))
	}
	if now.Sub(w.eased) >= waitStands {
		return long > waitMost
	}
	return long > waitBurst
}
