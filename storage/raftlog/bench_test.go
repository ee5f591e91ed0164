package raftlog

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

func benchOptions(b *testing.B) Options {
	return Options{FS: vfs.Default, Dir: b.TempDir() + "/log", Salt: 1}
}

// BenchmarkCommit is one synced batch an iteration, of entries of 1 KB spread over as many groups, on the disk that
// holds the temporary directory. The log is truncated as it goes, as a store does that flushes.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			l := mustOpen(b, benchOptions(b))
			defer mustClose(b, l)
			data := make([]byte, 1024)
			for i := range data {
				data[i] = byte(i + 1)
			}
			batch := l.NewBatch()
			ents := make([]*pb.Entry, n)
			term := new(uint64(1))
			kind := pb.EntryNormal.Enum()
			b.ReportAllocs()
			b.SetBytes(int64(n) * 1024)
			index := uint64(0)
			for b.Loop() {
				index++
				shared := new(index)
				slab := make([]pb.Entry, n) // what raft would have allocated
				batch.Reset()
				for g := range n {
					e := &slab[g]
					e.Term, e.Index, e.Type, e.Data = term, shared, kind, data
					ents[g] = e
					batch.Append(uint64(g+1), nil, ents[g:g+1])
				}
				if index%1000 == 0 {
					for g := range n {
						batch.Truncate(uint64(g+1), index-500)
					}
				}
				if err := l.Commit(batch, true); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(float64(l.Metrics().SpareMisses), "misses")
		})
	}
}

// BenchmarkReplay opens a log of 64 MB of 1 KB entries in 16 groups.
func BenchmarkReplay(b *testing.B) {
	opts := benchOptions(b)
	l := mustOpen(b, opts)
	const entries = 64 << 10
	for i := uint64(1); i <= entries/64; i++ {
		mustCommit(b, l, false, func(batch *Batch) {
			for g := uint64(1); g <= 16; g++ {
				batch.Append(g, nil, run(4*i-3, 4, 1, 1024))
			}
		})
	}
	mustClose(b, l)
	b.SetBytes(entries * 1024)
	b.ReportAllocs()
	for b.Loop() {
		l := mustOpen(b, opts)
		mustClose(b, l)
	}
}

// BenchmarkOpenNew is what a new log adds to the start of a node.
func BenchmarkOpenNew(b *testing.B) {
	for b.Loop() {
		l := mustOpen(b, benchOptions(b))
		mustClose(b, l)
	}
}

// BenchmarkEntries reads ranges of 16 entries of 1 KB, as raft does to send them.
func BenchmarkEntries(b *testing.B) {
	for _, from := range []string{"cache", "disk"} {
		b.Run(from, func(b *testing.B) {
			opts := benchOptions(b)
			l := mustOpen(b, opts)
			mustCommit(b, l, true, func(batch *Batch) { batch.Append(1, nil, run(1, 1024, 1, 1024)) })
			if from == "disk" {
				l = reopen(b, l, opts)
			}
			defer mustClose(b, l)
			g := l.Group(1)
			b.ReportAllocs()
			b.SetBytes(16 << 10)
			i := uint64(0)
			for b.Loop() {
				lo := 1 + i*16%1008
				if _, err := g.Entries(lo, lo+16, 1<<20); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

func BenchmarkTerm(b *testing.B) {
	l := mustOpen(b, testOptions(vfs.NewMem()))
	defer mustClose(b, l)
	mustCommit(b, l, true, func(batch *Batch) { batch.Append(1, nil, run(1, 100, 1, 10)) })
	g := l.Group(1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Term(50); err != nil {
			b.Fatal(err)
		}
	}
}
