package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	pb "github.com/commutatordb/commutator/proto/nodes/v1"
	"github.com/commutatordb/commutator/region/group"
)

// retryAfter is how long a link that was lost waits before it is made again.
const retryAfter = 200 * time.Millisecond

// LinkConfig is the way from this node to another of its region.
type LinkConfig struct {
	Conn  grpc.ClientConnInterface
	To    uint64       // the other node
	Hello func() Hello // of this node to that one
	// Accept refuses a node that is not the one it should be, by what it says of itself.
	Accept func(Hello) error
	// Unreachable hears that messages to the node may have been lost.
	Unreachable func(node uint64)
	Logger      *slog.Logger
}

// Link carries messages to one other node. Its methods are safe for concurrent use.
type Link struct {
	cfg        LinkConfig
	live, bulk queue
}

// NewLink returns a link that carries nothing before Run.
func NewLink(cfg LinkConfig) *Link {
	return &Link{cfg: cfg, live: newQueue(), bulk: newQueue()}
}

// Send takes a message to the other node. It never waits: what there is no room for is dropped, and Unreachable told.
func (l *Link) Send(m group.Message) {
	q := &l.live
	if m.Bulk() {
		q = &l.bulk
	}
	if !q.add(m) {
		l.cfg.Unreachable(l.cfg.To)
	}
}

// Run carries messages until ctx ends, connecting again whenever the connection is lost.
func (l *Link) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, q := range []*queue{&l.live, &l.bulk} {
		g.Go(func() error { return l.keep(ctx, q) })
	}
	return g.Wait()
}

func (l *Link) keep(ctx context.Context, q *queue) error {
	said := ""
	for {
		err := l.carry(ctx, q, func() {
			if said != "" {
				l.cfg.Logger.Info("node: another node of the region can be reached again", "node", l.cfg.To)
			}
			said = ""
		})
		if ctx.Err() != nil {
			return nil
		}
		if err.Error() != said {
			said = err.Error()
			l.cfg.Logger.Warn("node: another node of the region cannot be reached", "node", l.cfg.To, "err", err)
		}
		// What waited would be out of date by the time it is there, and Raft sends again what is still wanted.
		q.clear()
		l.cfg.Unreachable(l.cfg.To)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

// carry carries messages until the stream breaks, and says why. begun is called once the other node has answered.
func (l *Link) carry(ctx context.Context, q *queue, begun func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewNodesClient(l.cfg.Conn).Carry(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.Frame{Hello: helloToProto(l.cfg.Hello())}); err != nil {
		return broken(stream, err)
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := l.cfg.Accept(helloFromProto(answer)); err != nil {
		return err
	}
	begun()
	ended := make(chan error, 1)
	go func() { // ends with the stream, which ends with ctx
		_, err := stream.Recv()
		if err == nil {
			err = errors.New("the node says more than it was asked")
		}
		ended <- err
		cancel()
	}()
	for {
		select {
		case <-q.wake:
		case err := <-ended:
			return err
		}
		if err := send(stream, q.take()); errors.Is(err, io.EOF) {
			return <-ended // why; only one may receive at a time
		} else if err != nil {
			return err
		}
	}
}

// broken returns why a stream takes no more: Send says only that it does not.
func broken(stream grpc.BidiStreamingClient[pb.Frame, pb.Hello], err error) error {
	if _, why := stream.Recv(); why != nil {
		return why
	}
	return err
}

// send sends messages in as few frames as they fit in.
func send(stream grpc.BidiStreamingClient[pb.Frame, pb.Hello], ms []group.Message) error {
	var f pb.Frame
	size := 0
	flush := func() error {
		if size == 0 {
			return nil
		}
		err := stream.Send(&f)
		f, size = pb.Frame{}, 0
		return err
	}
	for _, m := range ms {
		b, err := m.Append(nil)
		if err != nil {
			return fmt.Errorf("a message cannot be written: %w", err)
		}
		if len(b) <= maxFrame {
			if size+len(b) > maxFrame {
				if err := flush(); err != nil {
					return err
				}
			}
			f.Messages = append(f.Messages, b)
			size += len(b)
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		for len(b) > 0 {
			n := min(len(b), maxFrame)
			if err := stream.Send(&pb.Frame{Part: b[:n], Last: n == len(b)}); err != nil {
				return err
			}
			b = b[n:]
		}
	}
	return flush()
}

// queue holds messages that wait for a stream, within bounds.
type queue struct {
	wake chan struct{} // gets a token when there is something

	mu       sync.Mutex
	messages []group.Message
	bytes    int
}

func newQueue() queue { return queue{wake: make(chan struct{}, 1)} }

// add takes a message, and tells whether there was room. One message has room wherever nothing else waits.
func (q *queue) add(m group.Message) bool {
	size := m.Bytes()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) > 0 && (q.bytes+size > maxQueued || len(q.messages) >= maxMessages) {
		return false
	}
	q.messages = append(q.messages, m)
	q.bytes += size
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

func (q *queue) take() []group.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	ms := q.messages
	q.messages, q.bytes = nil, 0
	return ms
}

func (q *queue) clear() { q.take() }
