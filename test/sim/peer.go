package sim

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/replication"
)

// peer is another region as one node reaches it: a replication.Peer. It asks one of the region's nodes after the other until one
// does not refuse.
type peer struct {
	from *machine
	to   *regionOf
	at   int
}

var _ replication.Peer = (*peer)(nil)

func (p *peer) node() *machine { return p.to.nodes[p.at%len(p.to.nodes)] }

// turn has the next node asked from now on, unless that was for nothing: see node's otherRegion.
func (p *peer) turn(ctx context.Context, err error) {
	if err != nil && !errors.Is(context.Cause(ctx), context.Canceled) && !errors.Is(err, replication.ErrTruncated) {
		p.at++
	}
}

// Exchange is replication.Peer's.
func (p *peer) Exchange(ctx context.Context, ours replication.Tables) (replication.Tables, error) {
	var theirs replication.Tables
	to := p.node()
	p.from.w.told(ours)
	err := p.from.w.call(ctx, p.from, to, 0, func(ctx context.Context) (err error) {
		theirs, err = to.engine.Source().Exchange(ctx, ours)
		p.from.w.told(theirs)
		return err
	})
	p.turn(ctx, err)
	if err != nil {
		return replication.Tables{}, err
	}
	return theirs, nil
}

// Beat is replication.Peer's.
func (p *peer) Beat(ctx context.Context, region string) (b replication.Beat, err error) {
	to := p.node()
	err = p.from.w.call(ctx, p.from, to, 0, func(ctx context.Context) (err error) {
		b, err = to.engine.Source().Beat(ctx, region)
		return err
	})
	p.turn(ctx, err)
	return b, err
}

// inbox is what has arrived on a connection and has not been looked at.
type inbox struct {
	queue []any // replication.Batch, Progress or a part of an answer; or an error, which is the last
	token chan struct{}
}

func (i *inbox) put(x any) {
	i.queue = append(i.queue, x)
	task.Poke(i.token)
}

// wait waits for the next message. Of a connection that is lost the end is heard behind what has arrived.
func (i *inbox) wait(ctx context.Context, p *proc) error {
	for len(i.queue) == 0 {
		if p.Wait(ctx, i.token, 0) == task.Ended {
			return context.Cause(ctx)
		}
	}
	err, _ := i.queue[0].(error)
	return err
}

// take waits for the next message, and takes it out.
func (i *inbox) take(ctx context.Context, p *proc) (any, error) {
	if err := i.wait(ctx, p); err != nil {
		return nil, err
	}
	x := i.queue[0]
	i.queue = i.queue[1:]
	return x, nil
}

// takeAll waits for a message, and takes out all that have arrived and are applied at once with it.
func (i *inbox) takeAll(ctx context.Context, p *proc, into *replication.Follower) error {
	if err := i.wait(ctx, p); err != nil {
		return err
	}
	for ; len(i.queue) > 0; i.queue = i.queue[1:] {
		switch x := i.queue[0].(type) {
		case replication.Batch:
			if !into.Batch(x) {
				return nil
			}
		case replication.Progress:
			into.Progress(x)
		default:
			return nil
		}
	}
	return nil
}

// open connects to one of the region's nodes and has serve run there. What it returns ends the stream.
func (p *peer) open(serve func(c *conn, in *inbox, to *machine) error) (*conn, *inbox) {
	w, to := p.from.w, p.node()
	in := &inbox{token: make(chan struct{}, 1)}
	c := w.connect(p.from, to, func(err error) { in.put(err) })
	c.send(true, false, func() {
		if !to.serves() {
			c.lost()
			return
		}
		q := to.proc
		q.Go(func() {
			err := serve(c, in, to)
			if err == nil {
				err = errEnd
			}
			c.send(false, false, func() { in.put(err) })
		})
	})
	if !to.up() {
		w.after(w.delay(&w.net.far), c.lost)
	}
	return c, in
}

// window is small, so that streams wait for credit.
const window = 512

var errEnd = errors.New("sim: the stream has ended")

// Follow is replication.Peer's; the loops of both ends are those of replication/transport, without a wire.
func (p *peer) Follow(ctx context.Context, from replication.Resume, sink replication.Sink) (err error) {
	defer func() { p.turn(ctx, err) }()
	w := p.from.w
	var kick chan struct{}
	var acked func(seq, credit uint64)
	follower := replication.NewFollower(from.Seq)
	credit := follower.Credit(window)
	c, in := p.open(func(c *conn, in *inbox, to *machine) error {
		log, err := to.engine.Source().Log(from)
		if err != nil {
			return err
		}
		feed := replication.NewFeed(from.Seq, credit)
		feed.Read = func(b replication.Batch) { w.shipped(to.region, from, b) }
		kick = make(chan struct{}, 1)
		acked = func(seq, credit uint64) {
			feed.Credit(credit)
			log.Acked(feed.Acked(seq))
			task.Poke(kick)
		}
		changed, stop := log.Watch()
		defer stop()
		q := to.proc
		q.Go(func() {
			for q.Wait(c.ctx, changed, 0) == task.Token {
				task.Poke(kick)
			}
		})
		batch := func(b replication.Batch) error {
			c.send(false, true, func() { in.put(b) })
			return c.ctx.Err()
		}
		progress := func(pr replication.Progress) error {
			c.send(false, false, func() { in.put(pr) })
			return c.ctx.Err()
		}
		for {
			before := feed.After()
			more, err := feed.Pump(log, batch, progress)
			if err != nil {
				return err
			}
			if more {
				q.Yield()
				continue
			}
			if feed.After() != before {
				log.Gather(c.ctx)
			}
			if q.Wait(c.ctx, kick, 0) == task.Ended {
				return nil
			}
		}
	})
	defer c.lost()
	sink = watched{sink, p.from}
	for {
		if err := in.takeAll(ctx, p.from.proc, &follower); err != nil {
			return err
		}
		tell, err := follower.Apply(ctx, sink)
		if err != nil {
			return err
		}
		if seq, credit := follower.Applied(), follower.Credit(window); tell {
			c.send(true, false, func() { acked(seq, credit) })
		}
	}
}

// Seed is replication.Peer's.
func (p *peer) Seed(ctx context.Context, q replication.SeedRequest, receive func(replication.SeedPart) error) error {
	defer func() {
		if w := p.from.w; w.history.begun {
			w.history.seeded[p.from.region] = append(w.history.seeded[p.from.region], w.now)
		}
	}()
	if w := p.from.w; w.history.begun && !w.joining[p.from.region] && !w.lossOf(p.from.region) {
		w.violate("%s is seeded again from %s: a change log was not kept for it", p.from.name, p.to.name)
	}
	return receiveAll(ctx, p, func(ctx context.Context, s replication.Source, send func(replication.SeedPart) error) error {
		return s.Seed(ctx, q, send)
	}, func(part replication.SeedPart) bool { return part.Done }, p.cutOff(receive))
}

// cutOff breaks some seeds off in the middle: what lies between their parts happens by itself too seldom.
func (p *peer) cutOff(receive func(replication.SeedPart) error) func(replication.SeedPart) error {
	w := p.from.w
	if !w.history.begun || !w.chance(0.6) {
		return receive
	}
	left := 1 + w.rng.IntN(6)
	return func(part replication.SeedPart) error {
		if left--; left < 0 {
			w.count.fault(faultSeedCut)
			w.say("%s's seed from %s breaks off", p.from.name, p.to.name)
			return errBroken
		}
		return receive(part)
	}
}

// Relay is replication.Peer's.
func (p *peer) Relay(ctx context.Context, q replication.RelayRequest, receive func(replication.SeedPart) error) error {
	hear := receive
	defer func() { // as a seed brings it
		p.from.w.history.seeded[p.from.region] = append(p.from.w.history.seeded[p.from.region], p.from.w.now)
	}()
	if q.Of == p.from.region.name {
		hear = func(part replication.SeedPart) error {
			if part.Origin != nil {
				p.from.w.renewed(ctx, p, q, part.Origin)
			}
			return receive(part)
		}
	}
	return receiveAll(ctx, p, func(ctx context.Context, s replication.Source, send func(replication.SeedPart) error) error {
		return s.Relay(ctx, q, send)
	}, func(part replication.SeedPart) bool { return part.Done }, hear)
}

// Digest is replication.Copy's.
func (p *peer) Digest(ctx context.Context, q replication.DigestRequest, receive func(replication.DigestPart) error) error {
	return receiveAll(ctx, p, func(ctx context.Context, s replication.Source, send func(replication.DigestPart) error) error {
		return s.Digest(ctx, q, send)
	}, func(part replication.DigestPart) bool { return part.End == 1<<q.Bits }, receive)
}

// List is replication.Copy's.
func (p *peer) List(ctx context.Context, q replication.ListRequest, receive func([]replication.Entry) error) error {
	return receiveAll(ctx, p, func(ctx context.Context, s replication.Source, send func([]replication.Entry) error) error {
		return s.List(ctx, q, send)
	}, func(part []replication.Entry) bool { return len(part) == 0 }, receive)
}

// Fetch is replication.Copy's.
func (p *peer) Fetch(ctx context.Context, q replication.FetchRequest, receive func(replication.SeedPart) error) error {
	return receiveAll(ctx, p, func(ctx context.Context, s replication.Source, send func(replication.SeedPart) error) error {
		return s.Fetch(ctx, q, send)
	}, func(part replication.SeedPart) bool { return part.Done }, receive)
}

// receiveAll hands the parts of an answer to receive. One that ends before its last part is an error.
func receiveAll[P any](ctx context.Context, p *peer, serve func(context.Context, replication.Source, func(P) error) error, last func(P) bool, receive func(P) error) (err error) {
	defer func() { p.turn(ctx, err) }()
	c, in := p.open(func(c *conn, in *inbox, to *machine) error {
		return serve(c.ctx, to.engine.Source(), func(part P) error {
			c.send(false, false, func() { in.put(part) })
			return c.ctx.Err()
		})
	})
	defer c.lost()
	for done := false; ; {
		x, err := in.take(ctx, p.from.proc)
		if errors.Is(err, errEnd) && done {
			return nil
		}
		if err != nil {
			return err
		}
		part := x.(P)
		done = last(part)
		if err := receive(part); err != nil {
			return err
		}
	}
}
