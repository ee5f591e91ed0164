package group

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// store is a machine that writes each command's value under its key.
type store struct {
	ledger
	n uint64
}

func (s *store) Apply(index uint64, c *op.Command, b *storage.Batch) op.Result {
	s.applied = index
	if c != nil {
		s.n++
		b.Set(s.key("n"+c.Name), c.Value)
	}
	return op.Result{}
}

// BenchmarkThreeNodes proposes 1 KB commands to 32 groups of three voters: three hosts in one process, each with a log and
// a store of its own, on one disk or in memory; messages go from loop to loop. The clients propose at the leader, or at
// the node that each of them knows.
func BenchmarkThreeNodes(b *testing.B) {
	for _, atLeader := range []bool{true, false} {
		b.Run(fmt.Sprintf("disk/leader=%v", atLeader), func(b *testing.B) { benchmarkThreeNodes(b, vfs.Default, b.TempDir(), atLeader) })
		b.Run(fmt.Sprintf("memory/leader=%v", atLeader), func(b *testing.B) { benchmarkThreeNodes(b, vfs.NewMem(), "", atLeader) })
	}
}

func benchmarkThreeNodes(b *testing.B, fs vfs.FS, dir string, atLeader bool) {
	const groups, clients = 32, 64
	voters := []uint64{1, 2, 3}
	hosts := make([]*Host, 3)
	opened := make([][]*Group, 3)
	var logs []*raftlog.Log
	segment := int64(0)
	if fs != vfs.Default {
		segment = 1 << 20 // a file in memory is copied as it grows
	}
	for i := range hosts {
		log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: fs.PathJoin(dir, fmt.Sprint("log", i)), Salt: 1, SegmentBytes: segment, NoBackground: fs != vfs.Default})
		if err != nil {
			b.Fatal(err)
		}
		defer log.Close()
		logs = append(logs, log)
		st, err := storage.Open(storage.Options{FS: fs, Dir: fs.PathJoin(dir, fmt.Sprint("state", i)), Flushed: func() {
			if h := hosts[i]; h != nil {
				h.Flushed()
			}
		}})
		if err != nil {
			b.Fatal(err)
		}
		defer st.Close()
		hosts[i] = NewHost(Config{
			NodeID: uint64(i + 1), Voters: voters, Log: log, Store: st, Now: time.Now,
			Send: func(to uint64, m Message) { hosts[to-1].Receive(uint64(i+1), m) },
		})
		for id := range groups {
			g, err := hosts[i].Open(uint64(id+1), &store{ledger: ledger{id: uint64(id + 1), store: st}}, nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			opened[i] = append(opened[i], g)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running, wg sync.WaitGroup
	for _, h := range hosts {
		running.Go(func() { h.Run(ctx) })
	}
	defer running.Wait()
	defer cancel()
	for _, g := range opened[0] {
		if err := g.Read(ctx); err != nil {
			b.Fatal(err)
		}
	}
	before := logs[0].Metrics()
	payload := make([]byte, 1000)
	next := make(chan int, 1024)
	b.ReportAllocs()
	b.ResetTimer()
	for c := range clients {
		wg.Go(func() {
			for i := range next {
				at := c % 3
				if atLeader {
					at = int(opened[0][i%groups].Leader() - 1)
				}
				if _, err := opened[at][i%groups].Propose(ctx, &op.Command{Kind: op.Catalog, Name: fmt.Sprint(i % 100000), Value: payload}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	wg.Wait()
	b.StopTimer()
	after := logs[0].Metrics()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
	b.ReportMetric(float64(after.Entries-before.Entries)/float64(after.Syncs-before.Syncs), "entries/sync")
}
