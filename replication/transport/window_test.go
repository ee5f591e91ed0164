package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/replication"
)

// endless is a Source whose every partition has changes without end, the same over and over under new keys.
type endless struct {
	replication.Source
	values [][]byte
	read   [3]atomic.Uint64 // by partition, bytes
}

func (e *endless) Log(r replication.Resume) (replication.Log, error) {
	return &endlessLog{e, r.Partition}, nil
}

type endlessLog struct {
	*endless
	partition uint64
}

func (l *endlessLog) Read(after uint64, maxBytes int) (replication.Batch, replication.Progress, error) {
	b := replication.Batch{After: after, Seq: after}
	for size := uint64(0); size < uint64(maxBytes); {
		b.Seq++
		c := replication.Change{Key: binary.BigEndian.AppendUint64(nil, b.Seq), Delta: l.values[b.Seq%uint64(len(l.values))]}
		b.Changes = append(b.Changes, c)
		size += uint64(len(c.Key) + len(c.Delta))
	}
	l.read[l.partition].Add(b.Size())
	return b, replication.Progress{Seq: 1 << 60, Clock: crdt.HLC(b.Seq)}, nil
}
func (*endlessLog) Watch() (<-chan struct{}, func()) { return nil, func() {} }
func (*endlessLog) Gather(context.Context)           {}
func (*endlessLog) Acked(uint64)                     {}

// until applies batches until it has had so many bytes; with none it is stuck until its context ends.
type until struct {
	bytes, had uint64
	end        context.CancelFunc
}

func (u *until) Apply(ctx context.Context, b replication.Batch) error {
	if u.bytes == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	if u.had += b.Size(); u.had >= u.bytes {
		u.end()
	}
	return nil
}
func (*until) Progress(replication.Progress) {}

// Goal: a partition that nobody applies costs its window, at both ends, and no other partition on the same connection waits for it.
func TestAStreamThatIsStuckHoldsUpNoOther(t *testing.T) {
	value := make([]byte, 64<<10)
	for i := range value {
		value[i] = byte(rand.Uint32()) // so that it is as much on the wire
	}
	e := &endless{values: [][]byte{value}}
	client := serve(t, func(s *grpc.Server) { Register(s, e) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.Follow(ctx, replication.Resume{Partition: 1}, &until{})
	}()
	fctx, fcancel := context.WithCancel(ctx)
	u := &until{bytes: 3 * replication.PeerWindow, end: fcancel}
	client.Follow(fctx, replication.Resume{Partition: 2}, u)
	if u.had < u.bytes {
		t.Errorf("the other stream ended behind %d bytes", u.had)
	}
	if read, most := e.read[1].Load(), uint64(replication.Window+replication.BatchBytes+len(value)); read > most {
		t.Errorf("%d bytes were read for a stream that is stuck, %d may be", read, most)
	}
	cancel()
	<-ended
}

// orders are items of about 1 KB as a shop would keep them, as JSON.
func orders() (values [][]byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	words := []string{"Ceramic mug, 330 ml, dishwasher safe", "Notebook, dotted, 120 pages", "USB-C cable, braided, 2 m", "Berlin", "Paris", "Torino", "CREATED", "SHIPPED", "RETURNED"}
	for i := range 2000 {
		var lines []map[string]any
		for range 5 {
			lines = append(lines, map[string]any{"productId": fmt.Sprintf("%012x", rng.Uint64()>>16), "quantity": rng.IntN(9), "unitPrice": rng.IntN(1e5), "description": words[rng.IntN(3)]})
		}
		b, _ := json.Marshal(map[string]any{
			"pk": fmt.Sprintf("order#%d", i), "customerId": fmt.Sprintf("%016x", rng.Uint64()), "city": words[3+rng.IntN(3)], "status": words[6+rng.IntN(3)],
			"createdAt": fmt.Sprintf("2026-11-%02dT%02d:%02d:00Z", 1+rng.IntN(28), rng.IntN(24), rng.IntN(60)), "lines": lines,
			"notes": "Please leave the parcel with the neighbour if nobody is at home.", "paymentReference": fmt.Sprintf("%016x%016x", rng.Uint64(), rng.Uint64()),
		})
		values = append(values, b)
	}
	return values
}

// BenchmarkLink measures one stream over TCP on this machine, whose both ends share it: reading from memory, packing, summing, sending,
// unpacking. What is applied is thrown away.
func BenchmarkLink(b *testing.B) {
	for _, kind := range []struct {
		name   string
		values [][]byte
	}{{"orders", orders()}} {
		b.Run(kind.name, func(b *testing.B) {
			e := &endless{values: kind.values}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			server := NewServer(nil)
			Register(server, e)
			go server.Serve(listener)
			defer server.Stop()
			client, err := Dial(listener.Addr().String(), nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer client.Close()
			const each = 8 << 20
			b.SetBytes(each)
			b.ReportAllocs()
			b.ResetTimer()
			ctx, cancel := context.WithCancel(b.Context())
			u := &until{bytes: uint64(b.N) * each, end: cancel}
			client.Follow(ctx, replication.Resume{Partition: 1}, u)
			b.StopTimer()
			body, size, _ := packChanges(sample(kind.values))
			b.ReportMetric(float64(size)/float64(len(body)), "ratio")
		})
	}
}

func sample(values [][]byte) (changes []replication.Change) {
	for i, v := range values {
		if size := i * len(v); size > replication.BatchBytes {
			break
		}
		changes = append(changes, replication.Change{Key: binary.BigEndian.AppendUint64(nil, uint64(i)), Delta: v})
	}
	return changes
}

// BenchmarkLoopback is what BenchmarkLink is to be held against: TCP on this machine, copied in and out.
func BenchmarkLoopback(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	const each = 8 << 20
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		block := bytes.Repeat([]byte("x"), 256<<10)
		for {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	b.SetBytes(each)
	block := make([]byte, 256<<10)
	for range b.N {
		for got := 0; got < each; {
			n, err := conn.Read(block)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
}

// TestItemsLikeJSONTakeAThirdOnTheWire: the goal is a ratio of 3.
func TestItemsLikeJSONTakeAThirdOnTheWire(t *testing.T) {
	body, size, _ := packChanges(sample(orders()))
	if ratio := float64(size) / float64(len(body)); ratio < 3 {
		t.Errorf("%d bytes become %d: %.2f times fewer", size, len(body), ratio)
	}
}
