package transport

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commutatordb/commutator/replication"
)

// void is a network of pipes whose bytes can be made to vanish, as behind a router that has lost its power: neither end is told, nor when
// the other one closes.
type void struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
	there    atomic.Bool // nothing gets through any more
	back     atomic.Bool // or nothing from the server to the client
}

func newVoid() *void { return &void{accepted: make(chan net.Conn), closed: make(chan struct{})} }

func (v *void) Accept() (net.Conn, error) {
	select {
	case c := <-v.accepted:
		return c, nil
	case <-v.closed:
		return nil, net.ErrClosed
	}
}
func (v *void) Close() error   { v.once.Do(func() { close(v.closed) }); return nil }
func (v *void) Addr() net.Addr { return &net.TCPAddr{} }

func (v *void) dial(ctx context.Context, _ string) (net.Conn, error) {
	if v.there.Load() || v.back.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	client, a := net.Pipe()
	b, server := net.Pipe()
	for _, way := range []struct {
		from, to net.Conn
		back     bool
	}{{a, b, false}, {b, a, true}} {
		go func() { // ends when what it reads from is closed
			buf := make([]byte, 32<<10)
			for {
				n, err := way.from.Read(buf)
				lost := v.there.Load() || way.back && v.back.Load()
				if n > 0 && !lost {
					way.to.Write(buf[:n])
				}
				if err != nil {
					if !lost {
						way.to.Close()
					}
					return
				}
			}
		}()
	}
	select {
	case v.accepted <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// idle is a Source that says how far it has come, which is nowhere, and nothing behind that.
type idle struct {
	replication.Source
	open atomic.Int64 // logs that are followed
}

func (s *idle) Log(replication.Resume) (replication.Log, error) { return s, nil }
func (s *idle) Read(after uint64, _ int) (replication.Batch, replication.Progress, error) {
	return replication.Batch{After: after, Seq: after}, replication.Progress{Seq: after, Clock: 1}, nil
}
func (s *idle) Watch() (<-chan struct{}, func()) {
	s.open.Add(1)
	return nil, func() { s.open.Add(-1) }
}
func (*idle) Gather(context.Context) {}
func (*idle) Acked(uint64)           {}

// Goal: a link on which nothing arrives any more ends at both sides within the bound, though neither is told: of both ways, and of the way
// back alone, by which requests still arrive.
func TestALinkWhoseBytesVanishEnds(t *testing.T) {
	for name, cut := range map[string]func(*void){
		"both ways":    func(v *void) { v.there.Store(true) },
		"the way back": func(v *void) { v.back.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, s := newVoid(), &idle{}
				server := NewServer(nil)
				Register(server, s)
				served := make(chan error, 1)
				go func() { served <- server.Serve(v) }()
				client, err := Dial("us-east-1", v.dial, nil)
				if err != nil {
					t.Fatal(err)
				}
				in, ended := newSink(), make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				go func() { ended <- client.Follow(ctx, replication.Resume{Region: "eu-west-1"}, in) }()
				<-in.progress
				time.Sleep(time.Minute) // silent, and not lost
				if len(ended) > 0 || s.open.Load() != 1 {
					t.Fatalf("a silent stream has ended: %v, %d followed", <-ended, s.open.Load())
				}
				cut(v)
				begun := time.Now()
				if err := <-ended; err == nil {
					t.Error("the stream ended without an error")
				}
				if took := time.Since(begun); took > unheard {
					t.Errorf("the follower notices after %s, want %s at most", took, unheard)
				}
				for s.open.Load() > 0 && time.Since(begun) < time.Minute {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(begun); took > unheard {
					t.Errorf("the origin notices after %s, want %s at most", took, unheard)
				}
				cancel()
				if err := client.Close(); err != nil {
					t.Error(err)
				}
				server.Stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
