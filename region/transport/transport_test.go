package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/commutatordb/commutator/region/group"
)

// far is the node at the other end: what it receives.
type far struct {
	mu     sync.Mutex
	got    []group.Message
	refuse error
	news   chan struct{}
	asked  chan struct{} // gets a token for each stream that begins
}

func newFar(refuse error) *far {
	return &far{refuse: refuse, news: make(chan struct{}, 1), asked: make(chan struct{}, 1000)}
}

func (f *far) receive(_ uint64, ms ...group.Message) {
	f.mu.Lock()
	f.got = append(f.got, ms...)
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// await returns what has come once it is so many messages.
func (f *far) await(t *testing.T, n int) []group.Message {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		f.mu.Lock()
		got := f.got
		f.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-f.news:
		case <-late:
			t.Fatalf("%d of %d messages came", len(got), n)
		}
	}
}

// serve serves the far node at an address, "" for any, until stop is called.
func (f *far) serve(t *testing.T, address string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(4 << 20))
	Register(s, Receiver{
		Admit: func(_ context.Context, h Hello) (Hello, error) {
			f.asked <- struct{}{}
			if f.refuse == nil && (h != Hello{Region: "us-east-1", From: 1, To: 2, Instance: 11, Name: "a", Address: "x:1", Joins: true}) {
				return h, fmt.Errorf("%+v", h)
			}
			return Hello{Region: h.Region, From: h.To, To: h.From, Instance: 22}, f.refuse
		},
		Receive: f.receive,
	})
	ended := make(chan struct{})
	go func() { defer close(ended); s.Serve(l) }()
	stop = sync.OnceFunc(func() { s.Stop(); <-ended })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// lost gets a token each time that messages may have been lost.
type lost chan struct{}

func newLost() lost { return make(lost, 1000) }

func (l lost) Unreachable(uint64) { l <- struct{}{} }

// await takes so many tokens.
func await(t *testing.T, tokens <-chan struct{}, n int) {
	t.Helper()
	late := time.After(20 * time.Second)
	for range n {
		select {
		case <-tokens:
		case <-late:
			t.Fatal("what is awaited has not come within 20 s")
		}
	}
}

// begin returns a link to an address, which runs until the test ends.
func begin(t *testing.T, address string, accept func(Hello) error, lost lost, log *bytes.Buffer) *Link {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	if accept == nil {
		accept = func(Hello) error { return nil }
	}
	logger := slog.New(slog.DiscardHandler)
	if log != nil {
		logger = slog.New(slog.NewTextHandler(log, nil))
	}
	l := NewLink(LinkConfig{Conn: conn, To: 2, Hello: func() Hello {
		return Hello{Region: "us-east-1", From: 1, To: 2, Instance: 11, Name: "a", Address: "x:1", Joins: true}
	}, Accept: accept, Unreachable: lost.Unreachable, Logger: logger})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func message(id uint64, size int) group.Message {
	return group.Message{Group: id, Raft: &pb.Message{Type: pb.MsgApp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Entries: []*pb.Entry{{Index: new(id), Data: bytes.Repeat([]byte{byte(id)}, size)}}}}
}

func TestMessagesArriveInOrderAndWholeWhateverTheirSize(t *testing.T) {
	f := newFar(nil)
	at, _ := f.serve(t, "127.0.0.1:0")
	l := begin(t, at, nil, newLost(), nil)
	sizes := []int{0, 10, maxFrame - 1000, maxFrame, maxFrame + 1, 5*maxFrame + 7, 3}
	for i, size := range sizes {
		l.Send(message(uint64(i+1), size))
	}
	got := f.await(t, len(sizes))
	for i, m := range got {
		want := message(uint64(i+1), sizes[i])
		if m.Group != want.Group || !bytes.Equal(m.Raft.GetEntries()[0].GetData(), want.Raft.GetEntries()[0].GetData()) {
			t.Errorf("message %d: of group %d with %d bytes", i, m.Group, len(m.Raft.GetEntries()[0].GetData()))
		}
	}
}

func TestASnapshotDoesNotHoldUpWhatElseThereIs(t *testing.T) {
	f := newFar(nil)
	at, _ := f.serve(t, "127.0.0.1:0")
	l := begin(t, at, nil, newLost(), nil)
	large := group.Message{Group: 9, Raft: &pb.Message{Type: pb.MsgSnap.Enum(), To: new(uint64(2)), From: new(uint64(1)), Snapshot: &pb.Snapshot{Data: make([]byte, 40<<20)}}}
	l.Send(large)
	for i := range 10 {
		l.Send(message(uint64(i+1), 100))
	}
	got := f.await(t, 11)
	if last := got[len(got)-1]; last.Group != 9 || len(last.Raft.GetSnapshot().GetData()) != 40<<20 {
		t.Errorf("the snapshot, of 40 MB, is there before ten messages of 100 bytes: the last is of group %d", last.Group)
	}
}

func TestAfterABreakWhatIsNewArrivesAndNothingTwice(t *testing.T) {
	f, lost := newFar(nil), newLost()
	at, stop := f.serve(t, "127.0.0.1:0")
	l := begin(t, at, nil, lost, nil)
	await(t, f.asked, 2) // one for messages, one for snapshots
	l.Send(message(1, 10))
	f.await(t, 1)
	stop()
	await(t, lost, 2)
	l.Send(message(2, 10)) // which may be lost
	f.serve(t, at)
	await(t, f.asked, 2)
	l.Send(message(3, 10))
	for n := 2; ; n++ {
		if got := f.await(t, n); got[len(got)-1].Group == 3 {
			break
		}
	}
	seen := map[uint64]int{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.got {
		if seen[m.Group]++; seen[m.Group] > 1 {
			t.Errorf("message %d came %d times", m.Group, seen[m.Group])
		}
	}
}

func TestWhoIsRefusedSaysWhyAndSendsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		refuse error
		accept func(Hello) error
	}{
		"by the other node": {refuse: errors.New("not that disk")},
		"by this one":       {accept: func(h Hello) error { return errors.New("not that disk") }},
	} {
		t.Run(name, func(t *testing.T) {
			f, lost := newFar(c.refuse), newLost()
			at, _ := f.serve(t, "127.0.0.1:0")
			var log bytes.Buffer
			t.Run("link", func(t *testing.T) {
				begin(t, at, c.accept, lost, &log).Send(message(1, 10))
				await(t, lost, 4) // both streams, and both again
			})
			if len(f.got) > 0 || !strings.Contains(log.String(), "not that disk") {
				t.Errorf("%d messages came; the log says %q", len(f.got), log.String())
			}
		})
	}
}

func TestAQueueIsBounded(t *testing.T) {
	lost := newLost()
	l := NewLink(LinkConfig{To: 2, Unreachable: lost.Unreachable})
	for i := range 100 {
		l.Send(message(uint64(i+1), 1<<20))
	}
	if l.live.bytes > maxQueued || len(lost) != 100-len(l.live.messages) || len(lost) == 0 {
		t.Errorf("%d messages of %d bytes wait; %d were said to be lost", len(l.live.messages), l.live.bytes, len(lost))
	}
}
