// Package transport carries replication between regions over gRPC. It owns the wire: messages,
// compression, checksums, connections. It leaves the rules to package replication.
//
// Invariant: nothing generated from .proto files leaves this package.
package transport

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/commutatordb/commutator/replication"
)

const (
	maxMessage = maxBody + 1<<20
	// A cut link sends no reset: without these it would be noticed after minutes.
	keepaliveAfter   = 5 * time.Second
	keepaliveTimeout = 5 * time.Second
	// unheard is after what time at most a connection ends on which nothing arrives: one whose other end, or the way to it, has gone
	// without a word.
	unheard = 15 * time.Second
	// maxStreams bounds the streams of one connection.
	maxStreams = 4096
)

// errorCodes are how the errors that a follower acts on cross the wire.
var errorCodes = []struct {
	err  error
	code codes.Code
}{
	{replication.ErrTruncated, codes.OutOfRange},
	{replication.ErrInstance, codes.FailedPrecondition},
	{replication.ErrAhead, codes.DataLoss},
	{replication.ErrNoTable, codes.NotFound},
	{replication.ErrNotMember, codes.PermissionDenied},
	{replication.ErrStaleMember, codes.AlreadyExists},
	{replication.ErrNotLeader, codes.Aborted}, // Unavailable is gRPC's own word for a lost connection
	{replication.ErrRequest, codes.InvalidArgument},
}

func toStatus(err error) error {
	for _, e := range errorCodes {
		if errors.Is(err, e.err) {
			return status.Error(e.code, err.Error())
		}
	}
	return err
}

func fromStatus(err error) error {
	for _, e := range errorCodes {
		if status.Code(err) == e.code {
			return e.err
		}
	}
	return err
}

// NewServer returns a gRPC server with the limits that links between regions need; Register adds what it
// serves. security may be nil.
func NewServer(security *Security) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(security.serverCredentials()),
		grpc.ForceServerCodec(codec{}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.WaitForHandlers(true), // of what they read, nothing may be closed before
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveAfter, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveAfter / 2, PermitWithoutStream: true}),
		grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(8<<20),
	)
}

// Dialer opens a connection to a peer's address; nil means TCP. The simulated WAN of dev is one.
type Dialer func(ctx context.Context, address string) (net.Conn, error)

// Dial returns a client of the named region, at whatever address dial connects to; nil takes the name for the address. It connects
// when it is first used, and again whenever the connection is lost. security may be nil.
func Dial(region string, dial Dialer, security *Security) (*Client, error) {
	live, err := connect(region, "", dial, security, liveWindows)
	if err != nil {
		return nil, err
	}
	bulk, err := connect(region, "", dial, security, bulkWindows)
	if err != nil {
		return nil, errors.Join(err, live.Close())
	}
	return newClient(live, bulk), nil
}

// windows are how much HTTP/2 lets a peer send beyond what has been read.
type windows struct{ stream, conn int32 }

var (
	// Of streams the bound is the credit that they are given: HTTP/2's is beyond it, and one that nobody reads holds up no other.
	liveWindows = windows{2 * replication.Window, 2 * replication.PeerWindow}
	// What is seeded, listed or fetched has this bound alone, and a part that is being merged.
	bulkWindows = windows{1 << 20, 4 << 20}
	nodeWindows = windows{1 << 20, 8 << 20} // between nodes of a region
)

// Connect returns a connection as Dial's, to one node of a region; to any for "".
func Connect(region, node string, dial Dialer, security *Security) (*grpc.ClientConn, error) {
	return connect(region, node, dial, security, nodeWindows)
}

func connect(region, node string, dial Dialer, security *Security, w windows) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(security.clientCredentials(region, node)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.ForceCodec(codec{})),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveAfter, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithInitialWindowSize(w.stream), grpc.WithInitialConnWindowSize(w.conn),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoffConfig, MinConnectTimeout: 3 * time.Second}),
	}
	if dial != nil {
		options = append(options, grpc.WithContextDialer(dial))
	}
	return grpc.NewClient("passthrough:///"+region, options...)
}
