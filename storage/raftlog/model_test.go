package raftlog

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"
)

// model is what a log must hold: the plainest program that does the same.
type model map[uint64]*modelGroup

type modelGroup struct {
	term, vote, commit uint64
	voters             []uint64
	trunc, truncTerm   uint64
	ents               []*pb.Entry
	left               bool
}

// String is in the form of dump.
func (m model) String() string {
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(m)) {
		g := m[id]
		fmt.Fprintf(&out, "group %d hard %d/%d/%d voters %v after %d/%d:", id, g.term, g.vote, g.commit, g.voters, g.trunc, g.truncTerm)
		if g.left {
			fmt.Fprint(&out, " left")
		}
		for _, e := range g.ents {
			fmt.Fprint(&out, brief(e))
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

func (m model) group(id uint64) *modelGroup {
	if m[id] == nil {
		m[id] = &modelGroup{}
	}
	return m[id]
}

// step does one random thing of the kind several groups do, to the batch and to the model. intn draws from [0, n).
func (m model) step(intn func(n int) int, b *Batch) {
	for range 1 + intn(3) {
		id := uint64(1 + intn(5))
		// A truncation looks at what is committed, so it comes before the group's other changes.
		if g := m[id]; g != nil && len(g.ents) > 0 && !slices.ContainsFunc(b.recs, func(r record) bool { return r.group == id }) && intn(2) == 0 {
			n := 1 + intn(len(g.ents))
			g.trunc, g.truncTerm = g.ents[n-1].GetIndex(), g.ents[n-1].GetTerm()
			g.ents = slices.Clone(g.ents[n:])
			b.Truncate(id, g.trunc)
		}
		switch k := intn(20); {
		case k == 0 && m[id] != nil:
			delete(m, id)
			b.Remove(id)
		case k == 3:
			g := m.group(id)
			*g = modelGroup{term: uint64(intn(9)), vote: uint64(intn(4)), left: true}
			b.LetGo(id, g.term, g.vote)
		case k == 1:
			g := m.group(id)
			index := g.trunc + uint64(len(g.ents)+intn(5))
			g.trunc, g.truncTerm, g.voters, g.ents = index, uint64(intn(9)), []uint64{uint64(intn(9))}, nil
			b.SetSnapshot(id, &pb.SnapshotMetadata{Index: new(g.trunc), Term: new(g.truncTerm), ConfState: &pb.ConfState{Voters: g.voters}})
		case k == 2:
			g := m.group(id)
			g.voters = []uint64{1, uint64(2 + intn(9))}
			b.SetConfState(id, &pb.ConfState{Voters: g.voters})
		default:
			g := m.group(id)
			keep := len(g.ents)
			if keep > 0 && intn(4) == 0 {
				keep -= 1 + intn(keep)
			}
			term := uint64(1 + intn(9))
			size := 0
			if intn(8) > 0 {
				size = intn([]int{20, 200, 2000}[intn(3)])
			}
			ents := run(g.trunc+uint64(keep)+1, 1+intn(4), term, size)
			g.ents = append(slices.Clone(g.ents[:keep]), ents...)
			var hs *pb.HardState
			if intn(2) == 0 {
				g.term, g.vote, g.commit, g.left = 1+term, uint64(intn(4)), g.trunc, false
				hs = hard(g.term, g.vote, g.commit)
			}
			b.Append(id, hs, ents)
		}
	}
}

// Whatever is appended, overwritten, truncated, removed and reopened, the log holds what the model holds.
func TestLogHoldsWhatTheModelHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		intn := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") }
		opts := testOptions(vfs.NewMem())
		l := mustOpen(t, opts)
		m := make(model)
		for range intn(60) {
			switch intn(12) {
			case 0:
				l = reopen(t, l, opts)
			case 1:
				if err := l.Seal(); err != nil {
					rt.Fatal(err)
				}
			case 2:
				l.cache.evict(int64(intn(5000)))
			default:
				b := l.NewBatch()
				m.step(intn, b)
				if err := l.Commit(b, intn(2) == 0); err != nil {
					rt.Fatal(err)
				}
			}
			got, err := dump(l)
			if err != nil {
				rt.Fatal(err)
			}
			if want := m.String(); got != want {
				rt.Fatalf("got:\n%swant:\n%s", got, want)
			}
			checkInvariants(t, l)
		}
		mustClose(t, l)
	})
}
