package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// wan is the simulated network between dev's regions: every connection between two of them has a latency,
// and can be cut. A cut link behaves as a broken one does: nothing arrives and nobody is told.
type wan struct {
	mu      sync.Mutex
	latency time.Duration
	cut     map[string]bool // regions cut off from all others
	changed chan struct{}   // closed and replaced whenever latency or cut changes
}

func newWAN(latency time.Duration) *wan {
	return &wan{latency: latency, cut: map[string]bool{}, changed: make(chan struct{})}
}

func (w *wan) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// Partition cuts a region off from all others.
func (w *wan) Partition(region string) { w.change(func() { w.cut[region] = true }) }

// Heal joins all regions again.
func (w *wan) Heal() { w.change(func() { clear(w.cut) }) }

// Delay sets the latency of every link, one way.
func (w *wan) Delay(d time.Duration) { w.change(func() { w.latency = d }) }

// State returns the latency and which regions are cut off.
func (w *wan) State() (latency time.Duration, cut []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for region := range w.cut {
		cut = append(cut, region)
	}
	slices.Sort(cut)
	return w.latency, cut
}

// link returns whether two regions can hear each other, how late, and what closes when that changes.
func (w *wan) link(a, b string) (up bool, latency time.Duration, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.cut[a] && !w.cut[b], w.latency, w.changed
}

// Dial returns a dialer for connections from one region to the region at each address.
func (w *wan) Dial(from string, regions map[string]string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		to, ok := regions[address]
		if !ok {
			return nil, fmt.Errorf("wan: no region at %s", address)
		}
		for {
			up, latency, changed := w.link(from, to)
			if up {
				if err := sleep(ctx, 2*latency); err != nil { // the handshake
					return nil, err
				}
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("wan: %s to %s: %w", from, to, context.Cause(ctx))
			}
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return newLink(w, from, to, conn), nil
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// chunk is what one read has brought, and when.
type chunk struct {
	at    time.Time
	bytes []byte
}

const (
	chunkBytes = 32 << 10
	// maxChunks bounds what one direction of a link holds back; a sender that finds it full blocks.
	maxChunks = 128
)

// newLink returns the caller's end of a connection over the simulated network to conn. Both directions
// let bytes through only when their time has come and the link is up.
func newLink(w *wan, from, to string, conn net.Conn) net.Conn {
	near, far := net.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	end := func() { // either end closed: nothing goes through any more
		stop()
		far.Close()
		conn.Close()
	}
	for _, way := range []struct{ dst, src net.Conn }{{conn, far}, {far, conn}} {
		chunks := make(chan chunk, maxChunks)
		go func() { // ends when src is closed
			defer close(chunks)
			for {
				b := make([]byte, chunkBytes)
				n, err := way.src.Read(b)
				if n > 0 {
					select {
					case chunks <- chunk{time.Now(), b[:n]}:
					case <-ctx.Done():
						return
					}
				}
				if err != nil {
					return
				}
			}
		}()
		go func() { // ends when chunks is closed or ctx is
			defer end()
			for c := range chunks {
				if w.pass(ctx, from, to, c.at) != nil {
					return
				}
				if _, err := way.dst.Write(c.bytes); err != nil {
					return
				}
			}
		}()
	}
	return near
}

// pass returns when bytes sent at a time get through between two regions, or with ctx's end.
func (w *wan) pass(ctx context.Context, a, b string, at time.Time) error {
	for {
		up, latency, changed := w.link(a, b)
		if up {
			return sleep(ctx, time.Until(at.Add(latency)))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
