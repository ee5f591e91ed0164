// Package transport carries messages of Raft groups between the nodes of one region over gRPC: one stream each way between two
// nodes for all their groups, and one beside it for the pieces of snapshots. Questions about partitions are calls of their own.
//
// It owns frames, queues and their bounds, and who may speak to whom. What the messages mean it leaves to region/group, connections
// and certificates to whoever gives it a connection.
//
// Invariants: nobody who sends waits; a message is delivered once or not at all, for what a broken stream has taken is not sent again;
// nothing generated from .proto files leaves this package.
package transport

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/commutatordb/commutator/proto/nodes/v1"
	"github.com/commutatordb/commutator/region/group"
)

const (
	// maxFrame is about how many bytes of messages a frame takes; a message larger than that travels in parts.
	maxFrame = 1 << 20
	// maxQueued bounds the bytes that wait for a link, and maxMessages how many messages: what comes then is dropped, as a network may.
	maxQueued   = 64 << 20
	maxMessages = 16384
	// maxMessage bounds one message: a large command, some megabytes.
	maxMessage = 64 << 20
)

// Hello is what a node says of itself when a stream begins.
type Hello struct {
	Region   string
	From, To uint64 // numbers of nodes in the region
	Instance uint64 // of From's data

	Name, Address string // From's, and where the others reach it
	Joins         bool   // From is none of those that the region began with, and asks to be taken in
	Epoch         uint64 // of From's data; see region.Member
	Knows         int    // the newest format that From's program reads; 0: of before it was said
	Renumber      uint64 // in an answer: To's data is not to be used any more, and To begins anew with this number; 0: it is well
}

func helloToProto(h Hello) *pb.Hello {
	return &pb.Hello{Region: h.Region, From: h.From, To: h.To, Instance: h.Instance, Name: h.Name, Address: h.Address, Joins: h.Joins, Epoch: h.Epoch, Knows: uint32(h.Knows), Renumber: h.Renumber}
}

func helloFromProto(m *pb.Hello) Hello {
	return Hello{Region: m.GetRegion(), From: m.GetFrom(), To: m.GetTo(), Instance: m.GetInstance(), Name: m.GetName(), Address: m.GetAddress(), Joins: m.GetJoins(), Epoch: m.GetEpoch(), Knows: int(m.GetKnows()), Renumber: m.GetRenumber()}
}

// Receiver is a node as others reach it.
type Receiver struct {
	// Admit refuses a node that may not speak to this one, and returns what this one says of itself. One that is refused hears it too, if it
	// has a number for it.
	Admit func(ctx context.Context, h Hello) (Hello, error)
	// Receive takes messages that a node has sent. It never waits.
	Receive func(from uint64, ms ...group.Message)
	// MayAsk refuses a node that may not ask this one, and Answer answers what it asks.
	MayAsk func(ctx context.Context, h Hello) error
	Answer func(ctx context.Context, question []byte) []byte
}

// Register makes the gRPC server serve the receiver.
func Register(s grpc.ServiceRegistrar, r Receiver) { pb.RegisterNodesServer(s, &server{receiver: r}) }

type server struct {
	pb.UnimplementedNodesServer
	receiver Receiver
}

// Carry takes a node's messages until the stream ends.
func (s *server) Carry(stream grpc.BidiStreamingServer[pb.Frame, pb.Hello]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.Hello == nil {
		return status.Error(codes.InvalidArgument, "a stream begins with Hello")
	}
	hello := helloFromProto(first.Hello)
	own, err := s.receiver.Admit(stream.Context(), hello)
	if err != nil {
		if own.Renumber != 0 {
			err = errors.Join(err, stream.Send(helloToProto(own)))
		}
		return status.Error(codes.PermissionDenied, err.Error())
	}
	if err := stream.Send(helloToProto(own)); err != nil {
		return err
	}
	var in assembly
	for {
		f, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		ms, err := in.take(f)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		s.receiver.Receive(hello.From, ms...)
	}
}

// Ask answers one question of a node's.
func (s *server) Ask(ctx context.Context, q *pb.Question) (*pb.Answer, error) {
	if q.Hello == nil {
		return nil, status.Error(codes.InvalidArgument, "who asks says who it is")
	}
	if err := s.receiver.MayAsk(ctx, helloFromProto(q.Hello)); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	return &pb.Answer{Answer: s.receiver.Answer(ctx, q.Question)}, nil
}

// Ask has the node at the other end of a connection answer a question.
func Ask(ctx context.Context, conn grpc.ClientConnInterface, h Hello, question []byte) ([]byte, error) {
	a, err := pb.NewNodesClient(conn).Ask(ctx, &pb.Question{Hello: helloToProto(h), Question: question})
	if err != nil {
		return nil, err
	}
	return a.Answer, nil
}

// assembly puts messages together that come in parts.
type assembly struct{ parts []byte }

// take returns the messages that a frame completes.
func (a *assembly) take(f *pb.Frame) ([]group.Message, error) {
	ms := make([]group.Message, 0, len(f.Messages)+1)
	for _, b := range f.Messages {
		m, err := group.DecodeMessage(b)
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	if len(a.parts)+len(f.Part) > maxMessage {
		return nil, fmt.Errorf("a message of more than %d bytes", maxMessage)
	}
	a.parts = append(a.parts, f.Part...)
	if f.Last {
		m, err := group.DecodeMessage(a.parts)
		if err != nil {
			return nil, err
		}
		a.parts = nil
		ms = append(ms, m)
	}
	return ms, nil
}
