package transport

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/commutatordb/commutator/crdt"
	pb "github.com/commutatordb/commutator/proto/replication/v1"
	"github.com/commutatordb/commutator/replication"
)

// Register makes the gRPC server serve the source.
func Register(s *grpc.Server, source replication.Source) {
	pb.RegisterReplicationServer(s, &server{source: source})
}

type server struct {
	pb.UnimplementedReplicationServer
	source replication.Source
}

func (s *server) Exchange(ctx context.Context, theirs *pb.Tables) (*pb.Tables, error) {
	if err := speaksFor(ctx, theirs.Region); err != nil {
		return nil, err
	}
	ours, err := s.source.Exchange(ctx, tablesFromProto(theirs))
	if err != nil {
		return nil, toStatus(err)
	}
	return tablesToProto(ours), nil
}

func (s *server) Beat(ctx context.Context, q *pb.BeatRequest) (*pb.BeatAnswer, error) {
	if err := speaksFor(ctx, q.Region); err != nil {
		return nil, err
	}
	b, err := s.source.Beat(ctx, q.Region)
	if err != nil {
		return nil, toStatus(err)
	}
	return beatToProto(b), nil
}

func (s *server) Stream(stream grpc.BidiStreamingServer[pb.Pull, pb.Push]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	r := first.GetResume()
	if r == nil {
		return status.Error(codes.InvalidArgument, "transport: a stream begins with Resume")
	}
	if err := speaksFor(stream.Context(), r.Region); err != nil {
		return err
	}
	log, err := s.source.Log(replication.Resume{Region: r.Region, Table: r.Table, Instance: r.Instance, Partition: r.Partition, Seq: r.Seq, Clock: crdt.HLC(r.Clock), Incarnation: uint16(r.Incarnation)})
	if err != nil {
		return toStatus(err)
	}
	acks := make(chan *pb.Ack, 1) // the newest; an older one not taken yet is replaced
	gone := make(chan error, 1)
	// Ends with the stream's context, which ends when this call returns.
	go func() { gone <- receiveAcks(stream, acks) }()
	return toStatus(send(stream, log, replication.NewFeed(r.Seq, r.Credit), acks, gone))
}

// receiveAcks passes the follower's acknowledgements on until the stream ends.
func receiveAcks(stream grpc.BidiStreamingServer[pb.Pull, pb.Push], acks chan *pb.Ack) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if a := m.GetAck(); a != nil {
			select {
			case <-acks:
			default:
			}
			acks <- a
		}
	}
}

// send streams the log until the stream ends.
func send(stream grpc.BidiStreamingServer[pb.Pull, pb.Push], log replication.Log, feed *replication.Feed, acks <-chan *pb.Ack, gone <-chan error) error {
	changed, stop := log.Watch()
	defer stop()
	batch := func(b replication.Batch) error {
		return stream.Send(&pb.Push{Message: &pb.Push_Batch{Batch: batchToProto(b)}})
	}
	progress := func(p replication.Progress) error {
		return stream.Send(&pb.Push{Message: &pb.Push_Progress{Progress: progressToProto(p)}})
	}
	acked := func(a *pb.Ack) {
		feed.Credit(a.Credit)
		log.Acked(feed.Acked(a.Seq))
	}
	for {
		before := feed.After()
		more, err := feed.Pump(log, batch, progress)
		if err != nil {
			return err
		}
		if feed.After() != before && !more {
			log.Gather(stream.Context())
		}
		if more {
			select { // acknowledgements go first
			case a := <-acks:
				acked(a)
			case err := <-gone:
				return err
			default:
			}
			continue
		}
		select {
		case a := <-acks:
			acked(a)
		case <-changed:
		case err := <-gone:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *server) Seed(r *pb.SeedRequest, stream grpc.ServerStreamingServer[pb.SeedChunk]) error {
	if err := speaksFor(stream.Context(), r.Region); err != nil {
		return err
	}
	q := replication.SeedRequest{Region: r.Region, Table: r.Table, Instance: r.Instance, Partition: r.Partition, After: r.After}
	return toStatus(s.source.Seed(stream.Context(), q, func(p replication.SeedPart) error {
		return stream.Send(seedToProto(p))
	}))
}

func (s *server) Relay(r *pb.RelayRequest, stream grpc.ServerStreamingServer[pb.SeedChunk]) error {
	if err := speaksFor(stream.Context(), r.Region); err != nil {
		return err
	}
	q := replication.RelayRequest{Region: r.Region, Table: r.Table, Partition: r.Partition, Of: r.Of, Incarnation: uint16(r.Incarnation)}
	return toStatus(s.source.Relay(stream.Context(), q, func(p replication.SeedPart) error {
		return stream.Send(seedToProto(p))
	}))
}

func (s *server) Digest(r *pb.DigestRequest, stream grpc.ServerStreamingServer[pb.DigestChunk]) error {
	if err := speaksFor(stream.Context(), r.Region); err != nil {
		return err
	}
	q := replication.DigestRequest{Region: r.Region, Table: r.Table, Bits: int(r.Bits)}
	return toStatus(s.source.Digest(stream.Context(), q, func(p replication.DigestPart) error {
		return stream.Send(digestToProto(p))
	}))
}

func (s *server) List(r *pb.ListRequest, stream grpc.ServerStreamingServer[pb.ListChunk]) error {
	if err := speaksFor(stream.Context(), r.Region); err != nil {
		return err
	}
	q := replication.ListRequest{Region: r.Region, Table: r.Table, Bits: int(r.Bits), Leaves: r.Leaves, Values: r.Values}
	return toStatus(s.source.List(stream.Context(), q, func(e []replication.Entry) error {
		return stream.Send(listToProto(e, q.Values))
	}))
}

func (s *server) Fetch(r *pb.FetchRequest, stream grpc.ServerStreamingServer[pb.SeedChunk]) error {
	if err := speaksFor(stream.Context(), r.Region); err != nil {
		return err
	}
	q := replication.FetchRequest{Region: r.Region, Table: r.Table, Keys: r.Keys}
	return toStatus(s.source.Fetch(stream.Context(), q, func(p replication.SeedPart) error {
		return stream.Send(seedToProto(p))
	}))
}
