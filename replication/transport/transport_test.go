package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"pgregory.net/rapid"

	pb "github.com/commutatordb/commutator/proto/replication/v1"
	"github.com/commutatordb/commutator/replication"

	"github.com/commutatordb/commutator/crdt"
)

// Goal: what a source gives arrives, in order, whole, and its errors arrive as themselves. Method: a Client
// and a Server over gRPC on the loopback, with a log that the test writes.

// origin is a source with one log. Every sequence number up to the last of changes that is not in it was
// another region's.
type origin struct {
	mu      sync.Mutex
	seqs    []uint64
	last    uint64 // Invariant: not below any of seqs
	beat    replication.Beat
	failure error // of Log, Seed, Exchange and Copy's
	broken  error // of Read
	changed chan struct{}
	acked   chan uint64
	resumed chan replication.Resume
	parts   []replication.SeedPart
	digests []replication.DigestPart
	lists   [][]replication.Entry
	asked   any // of Digest, List or Fetch
	theirs  replication.Tables
}

func newOrigin() *origin {
	return &origin{changed: make(chan struct{}, 1), acked: make(chan uint64, 1000), resumed: make(chan replication.Resume, 10)}
}

func change(seq uint64) replication.Change {
	return replication.Change{Key: fmt.Appendf(nil, "key %d", seq), Delta: bytes.Repeat([]byte{byte(seq)}, int(seq%50))}
}

func (o *origin) write(seqs ...uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seqs = append(o.seqs, seqs...)
	o.last = max(o.last, seqs[len(seqs)-1])
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func (o *origin) Exchange(_ context.Context, theirs replication.Tables) (replication.Tables, error) {
	o.theirs = theirs
	return replication.Tables{Region: "eu-west-1", Instance: 9, Definitions: [][]byte{[]byte("{}"), []byte("[]")}}, o.failure
}

func (o *origin) Log(r replication.Resume) (replication.Log, error) {
	o.resumed <- r
	return o, o.failure
}

func (o *origin) Read(after uint64, _ int) (replication.Batch, replication.Progress, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := replication.Batch{After: after, Seq: after}
	for _, seq := range o.seqs {
		if seq > after && len(b.Changes) < 3 { // small batches: many of them
			b.Changes, b.Seq = append(b.Changes, change(seq)), seq
		}
	}
	if len(b.Changes) < 3 {
		b.Seq = max(after, o.last)
	}
	return b, replication.Progress{Seq: o.last, Clock: crdt.HLC(100 + o.last), Applied: map[string]crdt.HLC{"us-east-1": 7}, SentAt: 5}, o.broken
}

func (o *origin) Watch() (<-chan struct{}, func()) { return o.changed, func() {} }
func (o *origin) Gather(context.Context)           {}

func (o *origin) Acked(seq uint64) { o.acked <- seq }

func (o *origin) Relay(_ context.Context, q replication.RelayRequest, send func(replication.SeedPart) error) error {
	o.asked = q
	return o.sendParts(send)
}

func (o *origin) Seed(_ context.Context, q replication.SeedRequest, send func(replication.SeedPart) error) error {
	o.asked = q
	return o.sendParts(send)
}

func (o *origin) Beat(_ context.Context, region string) (replication.Beat, error) {
	o.asked = region
	return o.beat, o.failure
}

func (o *origin) sendParts(send func(replication.SeedPart) error) error {
	for _, p := range o.parts {
		if err := send(p); err != nil {
			return err
		}
	}
	return o.failure
}

func (o *origin) Digest(_ context.Context, q replication.DigestRequest, send func(replication.DigestPart) error) error {
	o.asked = q
	for _, p := range o.digests {
		if err := send(p); err != nil {
			return err
		}
	}
	return o.failure
}

func (o *origin) List(_ context.Context, q replication.ListRequest, send func([]replication.Entry) error) error {
	o.asked = q
	for _, e := range o.lists {
		if err := send(e); err != nil {
			return err
		}
	}
	return o.failure
}

func (o *origin) Fetch(_ context.Context, q replication.FetchRequest, send func(replication.SeedPart) error) error {
	o.asked = q
	return o.sendParts(send)
}

// sink keeps what it is given, and says so.
type sink struct {
	batches  chan replication.Batch
	progress chan replication.Progress
	err      error
}

func newSink() *sink {
	return &sink{batches: make(chan replication.Batch, 1000), progress: make(chan replication.Progress, 1000)}
}

func (s *sink) Apply(_ context.Context, b replication.Batch) error {
	s.batches <- b
	return s.err
}
func (s *sink) Progress(p replication.Progress) { s.progress <- p }

// serve makes register's services reachable by a client.
func serve(t *testing.T, register func(*grpc.Server)) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(nil)
	register(server)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	client, err := Dial(listener.Addr().String(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return client
}

func serveSource(t *testing.T, o *origin) *Client {
	return serve(t, func(s *grpc.Server) { Register(s, o) })
}

func take[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// takeUpTo takes batches until they reach seq, and holds them against the origin's log.
func takeUpTo(t *testing.T, s *sink, after, seq uint64, seqs ...uint64) {
	t.Helper()
	var got, want []replication.Change
	for after < seq {
		b := take(t, s.batches)
		if b.After != after || b.Seq <= after {
			t.Fatalf("behind %d comes a batch from %d to %d", after, b.After, b.Seq)
		}
		after = b.Seq
		got = append(got, b.Changes...)
	}
	for _, seq := range seqs {
		want = append(want, change(seq))
	}
	if len(got) != len(want) {
		t.Fatalf("got %d changes, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i].Key, want[i].Key) || !bytes.Equal(got[i].Delta, want[i].Delta) {
			t.Fatalf("change %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func awaitAck(t *testing.T, o *origin, seq uint64) {
	t.Helper()
	last := uint64(0)
	for last < seq {
		acked := take(t, o.acked)
		if acked < last {
			t.Fatalf("acknowledged %d behind %d", acked, last)
		}
		last = acked
	}
	if last != seq {
		t.Fatalf("acknowledged %d, want %d", last, seq)
	}
}

func TestBatchesArriveInOrderAndAreAcknowledged(t *testing.T) {
	o, s := newOrigin(), newSink()
	client := serveSource(t, o)
	o.write(1, 2, 5, 6, 7, 8, 9, 20)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	from := replication.Resume{Region: "us-east-1", Table: "t", Instance: 1<<64 - 1, Partition: 7}
	go func() { ended <- client.Follow(ctx, from, s) }()
	if got := take(t, o.resumed); got != from {
		t.Errorf("resumed %+v, want %+v", got, from)
	}
	takeUpTo(t, s, 0, 20, 1, 2, 5, 6, 7, 8, 9, 20)
	awaitAck(t, o, 20)
	want := replication.Progress{Seq: 20, Clock: 120, Applied: map[string]crdt.HLC{"us-east-1": 7}, SentAt: 5, After: 20}
	if got := take(t, s.progress); !reflect.DeepEqual(got, want) {
		t.Errorf("progress %+v, want %+v", got, want)
	}
	o.write(21, 22)
	takeUpTo(t, s, 20, 22, 21, 22)
	awaitAck(t, o, 22)
	if got := take(t, s.progress); got.Seq != 22 {
		t.Errorf("progress %+v behind entry 22", got)
	}
	cancel()
	if err := take(t, ended); err == nil {
		t.Error("the end of ctx is no error")
	}
	// It goes on where it ended, and does not repeat what was applied.
	o.write(30)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	from.Seq = 22
	go func() { ended <- client.Follow(ctx, from, s) }()
	takeUpTo(t, s, 22, 30, 30)
	awaitAck(t, o, 30)
	cancel()
	take(t, ended)
}

func TestALongRunOfOtherRegionsChangesMovesTheCursor(t *testing.T) {
	o, s := newOrigin(), newSink()
	client := serveSource(t, o)
	o.last = replication.SkipAfter + 11
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- client.Follow(ctx, replication.Resume{Seq: 10}, s) }()
	takeUpTo(t, s, 10, replication.SkipAfter+11)
	awaitAck(t, o, replication.SkipAfter+11)
	if p := take(t, s.progress); p.Seq != replication.SkipAfter+11 {
		t.Errorf("progress %+v", p)
	}
	cancel()
	take(t, ended)
}

func TestASinkThatFailsEndsTheStreamUnacknowledged(t *testing.T) {
	o, s := newOrigin(), newSink()
	s.err = errors.New("the store is full")
	client := serveSource(t, o)
	o.write(1)
	if err := client.Follow(t.Context(), replication.Resume{}, s); !errors.Is(err, s.err) {
		t.Errorf("got %v", err)
	}
	if len(o.acked) > 0 {
		t.Errorf("acknowledged %d", <-o.acked)
	}
}

var seedQ = replication.SeedRequest{Region: "us-east-1", Table: "t", Instance: 7, Partition: 1, After: []byte("key")}

func TestErrorsCrossTheWire(t *testing.T) {
	for _, want := range []error{replication.ErrTruncated, replication.ErrInstance, replication.ErrAhead, replication.ErrNoTable, replication.ErrNotMember, replication.ErrNotLeader} {
		o := newOrigin()
		client := serveSource(t, o)
		o.failure = fmt.Errorf("with words around it: %w", want)
		if err := client.Follow(t.Context(), replication.Resume{}, newSink()); !errors.Is(err, want) {
			t.Errorf("Follow, by Log: got %v, want %v", err, want)
		}
		if err := client.Seed(t.Context(), seedQ, func(replication.SeedPart) error { return nil }); !errors.Is(err, want) {
			t.Errorf("Seed: got %v, want %v", err, want)
		}
		if err := client.Digest(t.Context(), replication.DigestRequest{}, func(replication.DigestPart) error { return nil }); !errors.Is(err, want) {
			t.Errorf("Digest: got %v, want %v", err, want)
		}
		if err := client.List(t.Context(), replication.ListRequest{}, func([]replication.Entry) error { return nil }); !errors.Is(err, want) {
			t.Errorf("List: got %v, want %v", err, want)
		}
		if err := client.Fetch(t.Context(), replication.FetchRequest{}, func(replication.SeedPart) error { return nil }); !errors.Is(err, want) {
			t.Errorf("Fetch: got %v, want %v", err, want)
		}
		o.failure, o.broken = nil, want
		if err := client.Follow(t.Context(), replication.Resume{}, newSink()); !errors.Is(err, want) {
			t.Errorf("Follow, by Read: got %v, want %v", err, want)
		}
	}
	o := newOrigin()
	o.failure = errors.New("something else")
	client := serveSource(t, o)
	_, err := client.Exchange(t.Context(), replication.Tables{})
	if err == nil {
		t.Error("an error without a code of its own is lost")
	}
	for _, e := range errorCodes {
		if errors.Is(err, e.err) {
			t.Errorf("another error arrives as %v", e.err)
		}
	}
}

func TestABeatIsAnswered(t *testing.T) {
	o := newOrigin()
	client := serveSource(t, o)
	o.beat = replication.Beat{Instance: 9, ReceivedAt: 5, AnsweredAt: 6, Behind: []replication.Behind{{Table: "t", Partition: 17}, {Table: "u", Partition: 18}}}
	if got, err := client.Beat(t.Context(), "us-east-1"); err != nil || !reflect.DeepEqual(got, o.beat) || o.asked != "us-east-1" {
		t.Errorf("got %+v, %v, for %v", got, err, o.asked)
	}
	o.failure = replication.ErrNotLeader
	if _, err := client.Beat(t.Context(), "us-east-1"); !errors.Is(err, replication.ErrNotLeader) {
		t.Errorf("got %v", err)
	}
}

func TestDefinitionsAreExchanged(t *testing.T) {
	o := newOrigin()
	client := serveSource(t, o)
	ours := replication.Tables{Region: "us-east-1", Instance: 3, Definitions: [][]byte{[]byte(`{"a":1}`)}}
	got, err := client.Exchange(t.Context(), ours)
	want := replication.Tables{Region: "eu-west-1", Instance: 9, Definitions: [][]byte{[]byte("{}"), []byte("[]")}}
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(o.theirs, ours) {
		t.Errorf("got %+v, %v; the other got %+v", got, err, o.theirs)
	}
}

func TestASeedArrivesWhole(t *testing.T) {
	o := newOrigin()
	o.parts = []replication.SeedPart{
		{Origin: &replication.Origin{Seq: 9, Clock: 77, Cursors: map[string]uint64{"us-east-1/0/1": 5}, Stable: 66, Items: 3, Bytes: 900}},
		{Items: []replication.Change{change(1), change(2)}}, {Items: []replication.Change{change(50)}}, {Done: true},
	}
	client := serveSource(t, o)
	var got []replication.SeedPart
	receive := func(p replication.SeedPart) error { got = append(got, p); return nil }
	if err := client.Seed(t.Context(), seedQ, receive); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, o.parts) || !reflect.DeepEqual(o.asked, seedQ) {
		t.Errorf("got %+v of %+v", got, o.asked)
	}
	o.parts = o.parts[:3]
	if err := client.Seed(t.Context(), seedQ, receive); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a seed without its last part: %v", err)
	}
	stop := errors.New("stop")
	if err := client.Seed(t.Context(), seedQ, func(replication.SeedPart) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// rotten is a peer that sends what it is given, unchecked.
type rotten struct {
	pb.UnimplementedReplicationServer
	batches []*pb.Batch
}

func (r *rotten) Stream(stream grpc.BidiStreamingServer[pb.Pull, pb.Push]) error {
	for _, b := range r.batches {
		if err := stream.Send(&pb.Push{Message: &pb.Push_Batch{Batch: b}}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func good() *pb.Batch {
	return batchToProto(replication.Batch{After: 0, Seq: 3, Changes: []replication.Change{change(1), change(2), change(3)}})
}

// body makes a batch of raw bytes that are what their sums say.
func body(raw []byte, count uint32) *pb.Batch {
	return &pb.Batch{Seq: 1, Count: count, Size: uint32(len(raw)), Crc32C: crc32.Checksum(raw, castagnoli), Body: encoder.EncodeAll(raw, nil)}
}

func TestARottenBatchIsNotApplied(t *testing.T) {
	with := func(change func(*pb.Batch)) *pb.Batch { b := good(); change(b); return b }
	bomb := body(make([]byte, 64<<20), 1)
	for name, b := range map[string]*pb.Batch{
		"a flipped bit":              with(func(b *pb.Batch) { b.Body[len(b.Body)/2] ^= 1 }),
		"a cut body":                 with(func(b *pb.Batch) { b.Body = b.Body[:len(b.Body)-3] }),
		"no body":                    with(func(b *pb.Batch) { b.Body = nil }),
		"another checksum":           with(func(b *pb.Batch) { b.Crc32C++ }),
		"a size too large":           with(func(b *pb.Batch) { b.Size++ }),
		"a size too small":           with(func(b *pb.Batch) { b.Size-- }),
		"a size beyond all bounds":   with(func(b *pb.Batch) { b.Size = maxBody + 1 }),
		"more changes than counted":  with(func(b *pb.Batch) { b.Count-- }),
		"less changes than counted":  with(func(b *pb.Batch) { b.Count++ }),
		"a bomb that says so":        bomb,
		"a bomb that does not":       {Seq: 1, Count: 1, Size: 100, Body: bomb.Body},
		"a key beyond the end":       body([]byte{9, 'k'}, 1),
		"a key without its delta":    body([]byte{1, 'k'}, 1),
		"a length that overflows":    body(bytes.Repeat([]byte{0xff}, 20), 1),
		"a gap":                      with(func(b *pb.Batch) { b.After = 1 }),
		"one that goes back":         with(func(b *pb.Batch) { b.Seq, b.After = 0, 1 }),
		"a body of another protocol": {Seq: 1, Count: 1, Size: 5, Body: []byte("hello")},
	} {
		s := newSink()
		client := serve(t, func(g *grpc.Server) { pb.RegisterReplicationServer(g, &rotten{batches: []*pb.Batch{b}}) })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := client.Follow(ctx, replication.Resume{}, s); err == nil || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			t.Errorf("%s: got %v", name, err)
		}
		cancel()
		if len(s.batches) > 0 {
			t.Errorf("%s: it was applied", name)
		}
	}
}

func TestARepeatedBatchIsAppliedOnce(t *testing.T) {
	s := newSink()
	next := batchToProto(replication.Batch{After: 3, Seq: 4, Changes: []replication.Change{change(4)}})
	client := serve(t, func(g *grpc.Server) {
		pb.RegisterReplicationServer(g, &rotten{batches: []*pb.Batch{good(), good(), next}})
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- client.Follow(ctx, replication.Resume{}, s) }()
	takeUpTo(t, s, 0, 4, 1, 2, 3, 4)
	cancel()
	take(t, ended)
	if len(s.batches) > 0 {
		t.Errorf("%d batches more", len(s.batches))
	}
}

func TestChangesComeBackFromABody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var changes []replication.Change
		some := rapid.SliceOfN(rapid.Byte(), 0, 300)
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			changes = append(changes, replication.Change{Key: some.Draw(t, "key"), Delta: some.Draw(t, "delta")})
		}
		packed, size, sum := packChanges(changes)
		got, err := unpackChanges(packed, uint32(len(changes)), uint32(size), sum)
		if err != nil || !reflect.DeepEqual(got, changes) {
			t.Fatalf("got %v, %v; want %v", got, err, changes)
		}
	})
}

func FuzzUnpackChanges(f *testing.F) {
	for _, b := range []*pb.Batch{good(), body(nil, 0), body([]byte{1, 'k'}, 1), body(make([]byte, 1<<16), 1<<15)} {
		f.Add(b.Body, b.Count, b.Size, b.Crc32C)
	}
	f.Fuzz(func(t *testing.T, b []byte, count, size, sum uint32) {
		changes, err := unpackChanges(b, count, size, sum)
		if err != nil {
			return
		}
		_, again, sumAgain := packChanges(changes)
		if len(changes) != int(count) || again > int(size) || again == int(size) && sumAgain != sum {
			t.Fatalf("%d changes of %d bytes, %x; said were %d of %d, %x", len(changes), again, sumAgain, count, size, sum)
		}
	})
}

func TestWhatCopiesAreHeldAgainstCrossesWhole(t *testing.T) {
	o := newOrigin()
	client := serve(t, func(s *grpc.Server) { Register(s, o) })
	dot := crdt.Dot{HLC: 77, Actor: crdt.NewActor("us-east-1", 3)}

	o.digests = []replication.DigestPart{
		{Leaves: []replication.Leaf{{At: 0, Digest: replication.Digest{Items: 3, Hi: 1 << 63, Lo: 9}}, {At: 2, Digest: replication.Digest{Items: 1, Lo: 1}}}, End: 5, Bytes: 70},
		{End: 8},
	}
	digestQ := replication.DigestRequest{Region: "us-east-1", Table: "t", Bits: 3}
	var digests []replication.DigestPart
	digest := func() error {
		digests = nil
		return client.Digest(t.Context(), digestQ, func(p replication.DigestPart) error { digests = append(digests, p); return nil })
	}
	if err := digest(); err != nil || !reflect.DeepEqual(digests, o.digests) || !reflect.DeepEqual(o.asked, digestQ) {
		t.Errorf("digests: got %+v of %+v, %v", digests, o.asked, err)
	}
	o.digests = o.digests[:1]
	if err := digest(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("digests without the last: %v", err)
	}

	sums := []replication.Entry{{Key: []byte("a"), Newest: dot, Sum: replication.SumOf([]byte("a"), dot, []byte("x"))}}
	values := []replication.Entry{{Key: []byte("a"), Newest: dot, Item: []byte("x")}, {Key: []byte("b"), Newest: dot, Item: []byte{}}}
	for _, want := range [][]replication.Entry{sums, values} {
		listQ := replication.ListRequest{Region: "us-east-1", Table: "t", Bits: 3, Leaves: []uint32{1, 4}, Values: want[0].Item != nil}
		o.lists = [][]replication.Entry{want, {}}
		var got [][]replication.Entry
		list := func() error {
			got = nil
			return client.List(t.Context(), listQ, func(e []replication.Entry) error { got = append(got, e); return nil })
		}
		if err := list(); err != nil || !reflect.DeepEqual(got, o.lists) || !reflect.DeepEqual(o.asked, listQ) {
			t.Errorf("list: got %+v of %+v, %v", got, o.asked, err)
		}
		o.lists = o.lists[:1]
		if err := list(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a list without its end: %v", err)
		}
	}

	o.parts = []replication.SeedPart{{Items: []replication.Change{{Key: []byte("a"), Delta: []byte("state")}, {Key: []byte("b"), Delta: []byte{}}}}, {Done: true}}
	fetchQ := replication.FetchRequest{Region: "us-east-1", Table: "t", Keys: [][]byte{[]byte("a"), []byte("b")}}
	var parts []replication.SeedPart
	if err := client.Fetch(t.Context(), fetchQ, func(p replication.SeedPart) error { parts = append(parts, p); return nil }); err != nil || !reflect.DeepEqual(parts, o.parts) || !reflect.DeepEqual(o.asked, fetchQ) {
		t.Errorf("states: got %+v of %+v, %v", parts, o.asked, err)
	}
}

func TestWhatSaysMoreOrLessThanItsPartsIsRefused(t *testing.T) {
	if _, err := digestFromProto(&pb.DigestChunk{Leaves: []uint32{1}, Items: []uint64{1}, Sums: []uint64{1}}); err == nil {
		t.Error("a digest with half a sum is taken")
	}
	body, size, sum := packChanges([]replication.Change{{Key: []byte("a"), Delta: make([]byte, 27)}})
	if _, err := listFromProto(&pb.ListChunk{Count: 1, Size: uint32(size), Crc32C: sum, Body: body}); err == nil {
		t.Error("an entry with a byte too few is taken")
	}
	body, size, sum = packChanges([]replication.Change{{Key: []byte("a"), Delta: make([]byte, 11)}})
	if _, err := listFromProto(&pb.ListChunk{Count: 1, Size: uint32(size), Crc32C: sum, Body: body, Values: true}); err == nil {
		t.Error("an entry without a dot is taken")
	}
}
