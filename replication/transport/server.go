package transport

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	ours, err := s.source.Exchange(ctx, tablesFromProto(theirs))
	if err != nil {
		return nil, toStatus(err)
	}
	return tablesToProto(ours), nil
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
	log, err := s.source.Log(replication.Resume{Region: r.Region, Table: r.Table, Instance: r.Instance, Partition: r.Partition, Seq: r.Seq})
	if err != nil {
		return toStatus(err)
	}
	acks := make(chan uint64, 1) // the newest; an older one not taken yet is replaced
	gone := make(chan error, 1)
	// Ends with the stream's context, which ends when this call returns.
	go func() { gone <- receiveAcks(stream, acks) }()
	return toStatus(send(stream, log, replication.NewFeed(r.Seq), acks, gone))
}

// receiveAcks passes the follower's acknowledgements on until the stream ends.
func receiveAcks(stream grpc.BidiStreamingServer[pb.Pull, pb.Push], acks chan uint64) error {
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
			acks <- a.Seq
		}
	}
}

// send streams the log until the stream ends.
func send(stream grpc.BidiStreamingServer[pb.Pull, pb.Push], log replication.Log, feed *replication.Feed, acks <-chan uint64, gone <-chan error) error {
	changed, stop := log.Watch()
	defer stop()
	for {
		after, room := feed.Next()
		if room {
			batch, progress, err := log.Read(after, replication.BatchBytes)
			if err != nil {
				return err
			}
			if len(batch.Changes) > 0 {
				batch.After = feed.After()
				m := batchToProto(batch)
				if err := stream.Send(&pb.Push{Message: &pb.Push_Batch{Batch: m}}); err != nil {
					return err
				}
				feed.Sent(batch, len(m.Body))
			} else {
				feed.Skipped(progress.Seq)
			}
			// Progress holds for what has been sent by now only when the batch reaches up to it.
			if after, _ := feed.Next(); after >= progress.Seq && feed.Shows(progress) {
				if err := stream.Send(&pb.Push{Message: &pb.Push_Progress{Progress: progressToProto(progress)}}); err != nil {
					return err
				}
			}
			if after, _ := feed.Next(); after < progress.Seq {
				select { // more to read; acknowledgements go first
				case seq := <-acks:
					feed.Acked(seq)
					log.Acked(seq)
				case err := <-gone:
					return err
				default:
				}
				continue
			}
		}
		select {
		case seq := <-acks:
			feed.Acked(seq)
			log.Acked(seq)
		case <-changed:
		case err := <-gone:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *server) Seed(r *pb.SeedRequest, stream grpc.ServerStreamingServer[pb.SeedChunk]) error {
	return toStatus(s.source.Seed(stream.Context(), r.Region, r.Table, r.Partition, func(p replication.SeedPart) error {
		return stream.Send(seedToProto(p))
	}))
}
