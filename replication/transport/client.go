package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	pb "github.com/commutatordb/commutator/proto/replication/v1"
	"github.com/commutatordb/commutator/replication"
)

// backoffConfig keeps trying a lost peer about once a second: a healed link must be noticed soon, and one
// attempt costs next to nothing.
var backoffConfig = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// Client is another region as a replication.Peer. Its methods are safe for concurrent use.
type Client struct {
	conns   [2]*grpc.ClientConn
	live    pb.ReplicationClient // what is written now
	bulk    pb.ReplicationClient // what there is much of: on a connection of its own, none of it stands before what is written now
	streams atomic.Int64         // that are followed
}

var _ replication.Peer = (*Client)(nil)

func newClient(live, bulk *grpc.ClientConn) *Client {
	return &Client{conns: [2]*grpc.ClientConn{live, bulk}, live: pb.NewReplicationClient(live), bulk: pb.NewReplicationClient(bulk)}
}

// Close ends every call and closes the connections.
func (c *Client) Close() error { return errors.Join(c.conns[0].Close(), c.conns[1].Close()) }

// Exchange is replication.Peer's.
func (c *Client) Exchange(ctx context.Context, ours replication.Tables) (replication.Tables, error) {
	theirs, err := c.live.Exchange(ctx, tablesToProto(ours))
	if err != nil {
		return replication.Tables{}, fmt.Errorf("transport: exchange: %w", fromStatus(err))
	}
	return tablesFromProto(theirs), nil
}

// Beat is replication.Peer's.
func (c *Client) Beat(ctx context.Context, region string) (replication.Beat, error) {
	m, err := c.live.Beat(ctx, &pb.BeatRequest{Region: region})
	if err != nil {
		return replication.Beat{}, fmt.Errorf("transport: beat: %w", fromStatus(err))
	}
	return beatFromProto(m), nil
}

// Follow is replication.Peer's.
func (c *Client) Follow(ctx context.Context, from replication.Resume, sink replication.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on both sides
	stream, err := c.live.Stream(ctx)
	if err != nil {
		return fmt.Errorf("transport: follow: %w", fromStatus(err))
	}
	c.streams.Add(1)
	defer c.streams.Add(-1)
	follower := replication.NewFollower(from.Seq)
	resume := &pb.Resume{
		Region: from.Region, Table: from.Table, Instance: from.Instance, Partition: from.Partition, Seq: from.Seq, Clock: uint64(from.Clock), Incarnation: uint32(from.Incarnation),
		Credit: c.credit(&follower),
	}
	if err := stream.Send(&pb.Pull{Message: &pb.Pull_Resume{Resume: resume}}); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("transport: follow: %w", fromStatus(err))
	}
	in := incoming{come: make(chan message, maxCome)}
	go in.receive(stream)
	defer func() { // the stream has to have been read to its end
		cancel()
		for range in.come {
		}
	}()
	for {
		if err := in.take(&follower); err != nil {
			return err
		}
		tell, err := follower.Apply(ctx, sink)
		if err != nil {
			return err
		}
		if tell {
			if err := c.acknowledge(stream, &follower); err != nil {
				return err
			}
		}
	}
}

// credit is what a stream may send, with as many as there are now.
func (c *Client) credit(f *replication.Follower) uint64 {
	return f.Credit(replication.Share(int(c.streams.Load())))
}

func (c *Client) acknowledge(stream grpc.BidiStreamingClient[pb.Pull, pb.Push], follower *replication.Follower) error {
	err := stream.Send(&pb.Pull{Message: &pb.Pull_Ack{Ack: &pb.Ack{Seq: follower.Applied(), Credit: c.credit(follower)}}})
	if err != nil && !errors.Is(err, io.EOF) { // what has ended the stream Recv says
		return fmt.Errorf("transport: acknowledge: %w", fromStatus(err))
	}
	return nil
}

// maxCome is how many messages of a stream may wait for those before them to be applied. Their size is bounded by the credit given; with
// small ones, it is this that fills the stream's own buffer, and that the origin, at last.
const maxCome = 64

// incoming is what comes on a followed stream: read and unpacked while what came before is applied.
type incoming struct {
	come chan message // an error is the last
	left *message     // taken out of come, and not of use yet
}

// message is a batch, a progress, or why the stream has ended.
type message struct {
	batch    *replication.Batch
	progress *replication.Progress
	err      error
}

// receive reads the stream to its end, and closes come.
func (in *incoming) receive(stream grpc.BidiStreamingClient[pb.Pull, pb.Push]) {
	defer close(in.come)
	for {
		m, err := stream.Recv()
		if err != nil {
			in.come <- message{err: fmt.Errorf("transport: follow: %w", fromStatus(err))}
			return
		}
		switch m := m.Message.(type) {
		case *pb.Push_Batch:
			b, err := batchFromProto(m.Batch)
			in.come <- message{batch: &b, err: err}
			if err != nil {
				return
			}
		case *pb.Push_Progress:
			p := progressFromProto(m.Progress)
			in.come <- message{progress: &p}
		}
	}
}

// take waits for a message, and takes in all that have come and are applied at once with it. What ended the stream it returns when all
// before it has been taken.
func (in *incoming) take(into *replication.Follower) error {
	m := in.left
	if in.left = nil; m == nil {
		first := <-in.come
		m = &first
	}
	for some := false; ; some = true {
		if m.err != nil && !some {
			return m.err
		}
		if m.err != nil || m.batch != nil && !into.Batch(*m.batch) {
			in.left = m
			return nil
		}
		if m.progress != nil {
			into.Progress(*m.progress)
		}
		select {
		case next := <-in.come:
			m = &next
		default:
			return nil
		}
	}
}

// Seed is replication.Peer's.
func (c *Client) Seed(ctx context.Context, q replication.SeedRequest, receive func(replication.SeedPart) error) error {
	return receiveAll(ctx, "seed", func(ctx context.Context) (grpc.ServerStreamingClient[pb.SeedChunk], error) {
		return c.bulk.Seed(ctx, &pb.SeedRequest{Region: q.Region, Table: q.Table, Partition: q.Partition, Instance: q.Instance, After: q.After})
	}, seedFromProto, func(p replication.SeedPart) bool { return p.Done }, receive)
}

// Relay is replication.Peer's.
func (c *Client) Relay(ctx context.Context, q replication.RelayRequest, receive func(replication.SeedPart) error) error {
	return receiveAll(ctx, "relay", func(ctx context.Context) (grpc.ServerStreamingClient[pb.SeedChunk], error) {
		return c.bulk.Relay(ctx, &pb.RelayRequest{Region: q.Region, Table: q.Table, Partition: q.Partition, Of: q.Of, Incarnation: uint32(q.Incarnation)})
	}, seedFromProto, func(p replication.SeedPart) bool { return p.Done }, receive)
}

// Digest is replication.Copy's.
func (c *Client) Digest(ctx context.Context, q replication.DigestRequest, receive func(replication.DigestPart) error) error {
	return receiveAll(ctx, "digest", func(ctx context.Context) (grpc.ServerStreamingClient[pb.DigestChunk], error) {
		return c.bulk.Digest(ctx, &pb.DigestRequest{Region: q.Region, Table: q.Table, Bits: uint32(q.Bits)})
	}, digestFromProto, func(p replication.DigestPart) bool { return p.End == 1<<q.Bits }, receive)
}

// List is replication.Copy's.
func (c *Client) List(ctx context.Context, q replication.ListRequest, receive func([]replication.Entry) error) error {
	return receiveAll(ctx, "list", func(ctx context.Context) (grpc.ServerStreamingClient[pb.ListChunk], error) {
		return c.bulk.List(ctx, &pb.ListRequest{Region: q.Region, Table: q.Table, Bits: uint32(q.Bits), Leaves: q.Leaves, Values: q.Values})
	}, listFromProto, func(e []replication.Entry) bool { return len(e) == 0 }, receive)
}

// Fetch is replication.Copy's.
func (c *Client) Fetch(ctx context.Context, q replication.FetchRequest, receive func(replication.SeedPart) error) error {
	return receiveAll(ctx, "fetch", func(ctx context.Context) (grpc.ServerStreamingClient[pb.SeedChunk], error) {
		return c.bulk.Fetch(ctx, &pb.FetchRequest{Region: q.Region, Table: q.Table, Keys: q.Keys})
	}, seedFromProto, func(p replication.SeedPart) bool { return p.Done }, receive)
}

// receiveAll hands the parts of an answer to receive. One that ends before its last part is an error.
func receiveAll[M, P any](ctx context.Context, what string, call func(context.Context) (grpc.ServerStreamingClient[M], error), from func(*M) (P, error), last func(P) bool, receive func(P) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on both sides
	stream, err := call(ctx)
	if err != nil {
		return fmt.Errorf("transport: %s: %w", what, fromStatus(err))
	}
	for done := false; ; {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !done {
				return fmt.Errorf("transport: %s: the stream ended before its last part: %w", what, io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("transport: %s: %w", what, fromStatus(err))
		}
		part, err := from(m)
		if err != nil {
			return err
		}
		done = last(part)
		if err := receive(part); err != nil {
			return err
		}
	}
}
