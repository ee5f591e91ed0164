package rot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/replication/transport"
)

// Goal: a message between regions that is not as it was sent is refused, or says the same. Method: what a real
// server sends is taken down, and played to a real client with damage in it.

// origin is a replication.Source of two batches and a seed.
type origin struct {
	replication.Copy // asked by nobody here

	batches  []replication.Batch
	progress replication.Progress
	parts    []replication.SeedPart
}

func newOrigin() *origin {
	rng := newRand(20)
	changes := func(n int) (out []replication.Change) {
		for range n {
			c := replication.Change{Key: make([]byte, 4+rng.IntN(10)), Delta: make([]byte, 10+rng.IntN(60))}
			for _, b := range [][]byte{c.Key, c.Delta} {
				for i := range b {
					b[i] = byte(rng.IntN(50)) // so that there is something to compress
				}
			}
			out = append(out, c)
		}
		return out
	}
	return &origin{
		batches:  []replication.Batch{{After: 1000, Seq: 1007, Changes: changes(7)}, {After: 1007, Seq: 1040, Changes: changes(20)}},
		progress: replication.Progress{Seq: 1041, Clock: 77_000, Applied: map[string]crdt.HLC{"us-east-1": 70_000, "ap-south-1": 69_000}, SentAt: 5, After: 1040},
		parts: []replication.SeedPart{
			{Origin: &replication.Origin{Seq: 1041, Clock: 77_000, Cursors: map[string]uint64{"ap-south-1/1/16": 300}, Stable: 66_000, Items: 24, Bytes: 5000}},
			{Items: changes(15)}, {Items: changes(9)}, {Done: true},
		},
	}
}

func (o *origin) Exchange(context.Context, replication.Tables) (replication.Tables, error) {
	return replication.Tables{}, errors.ErrUnsupported
}
func (o *origin) Beat(context.Context, string) (replication.Beat, error) {
	return replication.Beat{}, errors.ErrUnsupported
}
func (o *origin) Log(replication.Resume) (replication.Log, error) { return o, nil }
func (o *origin) Watch() (<-chan struct{}, func())                { return nil, func() {} }
func (o *origin) Gather(context.Context)                          {}

func (o *origin) Acked(uint64) {}

func (o *origin) Read(after uint64, _ int) (replication.Batch, replication.Progress, error) {
	for _, b := range o.batches {
		if b.After == after {
			return b, o.progress, nil
		}
	}
	return replication.Batch{After: after, Seq: after}, o.progress, nil
}

func (o *origin) Relay(_ context.Context, _ replication.RelayRequest, send func(replication.SeedPart) error) error {
	return o.Seed(context.Background(), replication.SeedRequest{}, send)
}

func (o *origin) Seed(_ context.Context, _ replication.SeedRequest, send func(replication.SeedPart) error) error {
	for _, p := range o.parts {
		if err := send(p); err != nil {
			return err
		}
	}
	return nil
}

// frame is a message as it is on the wire: gRPC does not look into it.
type frame []byte

type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*frame), nil }
func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*frame) = bytes.Clone(b)
	return nil
}
func (rawCodec) Name() string { return "proto" }

// wire stands between a client and a server. It takes down what the server sends, or, with something to play,
// sends that instead and ends the stream.
type wire struct {
	server *grpc.ClientConn
	play   atomic.Pointer[[]frame]

	mu   sync.Mutex
	sent map[string][]frame // by method
}

func (w *wire) handle(_ any, down grpc.ServerStream) error {
	if play := w.play.Load(); play != nil {
		var request frame
		if err := down.RecvMsg(&request); err != nil {
			return err
		}
		for _, f := range *play {
			if err := down.SendMsg(&f); err != nil {
				return err
			}
		}
		return nil
	}
	method, _ := grpc.MethodFromServerStream(down)
	up, err := w.server.NewStream(down.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return err
	}
	go func() { // ends with the stream
		for {
			var f frame
			if down.RecvMsg(&f) != nil {
				up.CloseSend()
				return
			}
			if up.SendMsg(&f) != nil {
				return
			}
		}
	}()
	for {
		var f frame
		if err := up.RecvMsg(&f); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		w.mu.Lock()
		w.sent[method] = append(w.sent[method], f)
		w.mu.Unlock()
		if err := down.SendMsg(&f); err != nil {
			return err
		}
	}
}

// serve starts the server and returns a dialer to it.
func serve(t *testing.T, server *grpc.Server) transport.Dialer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
	}
}

// connect returns a real client of a real server with the origin's data, and the wire between them.
func connect(t *testing.T, o *origin) (*transport.Client, *wire) {
	t.Helper()
	server := transport.NewServer(nil)
	transport.Register(server, o)
	conn, err := grpc.NewClient("passthrough:///origin", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(serve(t, server)))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{server: conn, sent: map[string][]frame{}}
	client, err := transport.Dial("origin", serve(t, grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(w.handle))), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return client, w
}

// taker is a sink that keeps what it gets.
type taker struct {
	batches  []replication.Batch
	progress []replication.Progress
	enough   func() // called behind a progress
}

func (s *taker) Apply(_ context.Context, b replication.Batch) error {
	s.batches = append(s.batches, b)
	return nil
}

func (s *taker) Progress(p replication.Progress) {
	s.progress = append(s.progress, p)
	s.enough()
}

func TestADamagedMessageIsRefusedOrHarmless(t *testing.T) {
	o := newOrigin()
	client, w := connect(t, o)
	follow := func(ctx context.Context, enough func()) (outcome, string) {
		got := &taker{enough: enough}
		err := client.Follow(ctx, replication.Resume{Seq: 1000}, got)
		rest := o.batches
		for _, b := range got.batches {
			// What came together is applied as one.
			var want replication.Batch
			for i := 0; len(rest) > 0 && (i == 0 || want.Seq < b.Seq); i++ {
				if i == 0 {
					want.After = rest[0].After
				}
				want.Seq, want.Changes = rest[0].Seq, append(want.Changes, rest[0].Changes...)
				rest = rest[1:]
			}
			if !reflect.DeepEqual(b, want) {
				return silent, fmt.Sprintf("applied %d to %d with %d changes", b.After, b.Seq, len(b.Changes))
			}
		}
		if len(got.progress) > 0 && (len(rest) > 0 || !reflect.DeepEqual(got.progress, []replication.Progress{o.progress})) {
			return silent, fmt.Sprintf("%d batches and progress %+v", len(got.batches), got.progress)
		}
		if len(got.progress) == 0 {
			return read, fmt.Sprint(err) // or less was said than was meant, as when the stream breaks
		}
		return harmless, ""
	}
	seed := func() (outcome, string) {
		var got []replication.SeedPart
		err := client.Seed(t.Context(), replication.SeedRequest{}, func(part replication.SeedPart) error { got = append(got, part); return nil })
		if err != nil {
			return read, err.Error() // a seed that ends in an error is begun again, whatever came before
		}
		if !reflect.DeepEqual(got, o.parts) {
			return silent, fmt.Sprintf("%d parts", len(got))
		}
		return harmless, ""
	}
	// First without damage, which the wire takes down.
	ctx, cancel := context.WithCancel(t.Context())
	if o, what := follow(ctx, cancel); o != harmless {
		t.Fatalf("undamaged: %s %s", o, what)
	}
	if o, what := seed(); o != harmless {
		t.Fatalf("undamaged: %s %s", o, what)
	}
	w.mu.Lock()
	pushes, chunks := w.sent["/commutator.replication.v1.Replication/Stream"], w.sent["/commutator.replication.v1.Replication/Seed"]
	w.mu.Unlock()
	if len(pushes) != 3 || len(chunks) != 4 {
		t.Fatalf("%d messages of the stream and %d of the seed", len(pushes), len(chunks))
	}

	rng := newRand(21)
	var counts tally
	try := func(messages []frame, i int, kind string, n int, judge func() (outcome, string)) {
		// What the changes are is at the end of a message; before it stand numbers.
		whole, numbers := messages[i], 32
		if len(whole) < 100 {
			numbers = len(whole)
		}
		one := func(what string, damaged frame, at int) {
			played := append([]frame(nil), messages...)
			played[i] = damaged
			w.play.Store(&played)
			o, how := judge()
			kind := what + " " + kind
			if at < numbers {
				kind += ", numbers"
			}
			counts.add(t, kind, o, fmt.Sprintf("%s %d of %d bytes: %s", kind, at, len(whole), how))
		}
		for range times(n) {
			at := rng.IntN(len(whole))
			one("flipped", flip(whole, at, rng.IntN(8)), at)
		}
		for range times(n / 10) {
			at := rng.IntN(len(whole))
			one("cut", whole[:at], at)
		}
	}
	stream := func() (outcome, string) { return follow(t.Context(), func() {}) }
	try(pushes, 0, "batch", 800, stream)
	try(pushes, 1, "batch", 800, stream)
	try(pushes, 2, "progress", 400, stream)
	try(chunks, 0, "seed chunk", 800, seed)
	try(chunks, 1, "seed chunk", 800, seed)
	try(chunks, 2, "last seed chunk", 400, seed)
	counts.log(t, "messages")
}
