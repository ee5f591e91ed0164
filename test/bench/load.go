package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
)

// Load comes whether or not what came before has been answered, as from clients that know nothing of each other: at a given rate, at even
// intervals, over as many connections as there are requests on their way, up to loadConnections. How long a request took counts from when
// it was due, be it that no connection was free then: what a slow server keeps from being sent is not forgotten.

const (
	// loadConnections is how many requests may be on their way at a time, to all nodes together; those that are due beyond them wait.
	loadConnections = 3000
	// closedConnections is how many connections find out what a region can do, to each node.
	closedConnections = 64
	// redialAfter is how long a connection that broke is not made anew.
	redialAfter = 100 * time.Millisecond
)

const (
	// connectFor is how long all connections may take to be made, and to have one answer each, before the time begins.
	connectFor = 15 * time.Second
	// lateFor is how long is waited for answers when the time is over.
	lateFor = 5 * time.Second
)

// outcomes are how long requests took, in order, by what became of them; "" is done, "unsent" is still to be sent at the end.
type outcomes map[string][]time.Duration

func (o outcomes) add(name string, took time.Duration) { o[name] = append(o[name], took) }

// due is a request that is to be sent.
type due struct {
	at  time.Time
	key int // which of the requests
}

// open sends requests, at so many a second in all, in turn to each node. key says which of a node's requests the i-th is.
func open(ctx context.Context, addresses []string, requests [][][]byte, rate float64, length time.Duration, key func(i int) int) outcomes {
	ctx, cancel := context.WithTimeout(ctx, connectFor+length+lateFor)
	defer cancel()
	n := int(rate * length.Seconds())
	queues := make([]chan due, len(addresses))
	for a := range queues {
		queues[a] = make(chan due, n)
	}
	all := make([]outcomes, loadConnections)
	var senders, connected sync.WaitGroup
	connected.Add(len(all))
	for c := range all {
		all[c] = outcomes{}
		a := c % len(addresses)
		senders.Go(func() {
			s := sender{address: addresses[a], end: time.Now().Add(connectFor + length + lateFor)}
			defer s.close()
			s.send(requests[a][0])
			connected.Done()
			for d := range queues[a] {
				if ctx.Err() != nil {
					all[c].add("unsent", time.Since(d.at))
					continue
				}
				outcome := s.send(requests[a][d.key%len(requests[a])])
				all[c].add(outcome, time.Since(d.at))
			}
		})
	}
	connected.Wait()
	time.Sleep(time.Second)
	begun := time.Now()
	for i := 0; i < n && ctx.Err() == nil; {
		if wait := time.Until(begun.Add(time.Duration(float64(i) / rate * float64(time.Second)))); wait > 0 {
			time.Sleep(max(wait, time.Millisecond)) // what is due within a millisecond goes together
		}
		for to := int(time.Since(begun).Seconds()*rate) + 1; i < min(n, to); i++ {
			queues[i%len(queues)] <- due{begun.Add(time.Duration(float64(i) / rate * float64(time.Second))), key(i)}
		}
	}
	for _, q := range queues {
		close(q)
	}
	senders.Wait()
	return gather(all)
}

// closed sends requests on some connections to each node, each waiting for its answer: what a region can do.
func closed(ctx context.Context, addresses []string, requests [][][]byte, connections int, length time.Duration) outcomes {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	all := make([]outcomes, connections*len(addresses))
	var senders sync.WaitGroup
	for c := range all {
		all[c] = outcomes{}
		a := c % len(addresses)
		senders.Go(func() {
			s := sender{address: addresses[a], end: time.Now().Add(length + lateFor)}
			defer s.close()
			for i := c * 31; ctx.Err() == nil; i++ {
				begun := time.Now()
				outcome := s.send(requests[a][i%len(requests[a])])
				all[c].add(outcome, time.Since(begun))
			}
		})
	}
	senders.Wait()
	return gather(all)
}

func gather(all []outcomes) outcomes {
	out := outcomes{}
	for _, o := range all {
		for name, took := range o {
			out[name] = append(out[name], took...)
		}
	}
	for _, took := range out {
		slices.Sort(took)
	}
	return out
}

// sender is one connection, made anew when it breaks.
type sender struct {
	address string
	end     time.Time // of all that it waits for
	conn    net.Conn
	r       *bufio.Reader
}

// send sends a request and returns what became of it, as readOutcome says, or "no answer".
func (s *sender) send(request []byte) (outcome string) {
	err := s.connect()
	if err == nil {
		_, err = s.conn.Write(request)
	}
	if err == nil {
		outcome, err = readOutcome(s.r)
	}
	if err != nil {
		s.close()
		time.Sleep(redialAfter)
		return "no answer"
	}
	return outcome
}

func (s *sender) connect() (err error) {
	if s.conn != nil {
		return nil
	}
	if s.conn, err = net.DialTimeout("tcp", s.address, time.Until(s.end)); err != nil {
		s.conn = nil
		return err
	}
	s.r = bufio.NewReaderSize(s.conn, 4<<10)
	return s.conn.SetDeadline(s.end)
}

func (s *sender) close() {
	if s.conn != nil {
		s.conn.Close() // it has nothing to say any more
		s.conn = nil
	}
}

// measureLoad measures what becomes of requests at some multiples of what a region can do.
func measureLoad(ctx context.Context, out io.Writer, dir string) error {
	counts, err := numbers(*nodeCounts, "1,3")
	if err != nil {
		return err
	}
	multiples, err := numbers(*times, "")
	if err != nil {
		return err
	}
	for _, n := range counts {
		if err := loadFleet(ctx, out, dir, int(n), multiples); err != nil {
			return err
		}
	}
	return nil
}

func loadFleet(ctx context.Context, out io.Writer, dir string, n int, multiples []float64) (err error) {
	f, err := startFleet(ctx, dir, n, *partitions)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	length := time.Duration(*seconds * float64(time.Second))
	even := func(i int) int { return i }
	hot := func(i int) int { return i * (i / n % 2) } // every other one to each node
	for _, w := range []struct {
		name     string
		requests func(address string) ([][]byte, error)
		key      func(i int) int
	}{{"put", putRequests, even}, {"put-hot", putRequests, hot}, {"get", getRequests, even}, {"get-hot", getRequests, hot}} {
		if *only != "" && *only != w.name {
			continue
		}
		requests, err := f.requests(w.requests)
		if err != nil {
			return err
		}
		closed(ctx, f.addresses(), requests, closedConnections, length/2) // warm
		can := float64(len(closed(ctx, f.addresses(), requests, closedConnections, length)[""])) / length.Seconds()
		fmt.Fprintf(out, "\n%s, %d nodes of %g cores: %.0f a second, by %d connections to each that wait for their answers\n", w.name, n, *cores, can, closedConnections)
		fmt.Fprintf(out, "%-8s %-45s %9s %9s %9s %9s %9s\n", "of that", "", "a second", "p50", "p90", "p99", "longest")
		for _, m := range multiples {
			before, err := f.used()
			if err != nil {
				return err
			}
			o := open(ctx, f.addresses(), requests, m*can, length, w.key)
			after, err := f.used()
			if err != nil {
				return err
			}
			var spent time.Duration
			for i := range after {
				spent += after[i] - before[i]
			}
			for _, name := range slices.Sorted(maps.Keys(o)) {
				s := sample{lat: o[name]}
				fmt.Fprintf(out, "%-8s %-45s %9.0f %9s %9s %9s %9s\n", fmt.Sprintf("%gx", m), cmp.Or(name, "done"), float64(len(s.lat))/length.Seconds(), ms(s.at(.5)), ms(s.at(.9)), ms(s.at(.99)), ms(s.at(1)))
			}
			fmt.Fprintf(out, "%-8s %-45s %9.2f cores, %s\n", "", "the nodes used", spent.Seconds()/length.Seconds(), f.resident())
			// It comes back at once: what follows finds nothing of it.
			back := closed(ctx, f.addresses()[:1], requests[:1], 1, time.Second)
			fmt.Fprintf(out, "%-8s %-45s %9d %9s, refused %d\n", "", "in the second after, one at a time", len(back[""]), ms(sample{lat: back[""]}.at(.5)), count(back)-len(back[""]))
		}
	}
	return ctx.Err()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

func count(o outcomes) (n int) {
	for _, took := range o {
		n += len(took)
	}
	return n
}
