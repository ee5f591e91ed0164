package replication

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/commutatordb/commutator/crdt"
)

func applied(a, b, c crdt.HLC) map[string]crdt.HLC {
	return map[string]crdt.HLC{"a": a, "b": b, "c": c}
}

func TestNothingIsStableBeforeEveryStreamIsHeard(t *testing.T) {
	s := NewStability("a")
	s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1}})
	hear := []struct {
		region    string
		partition uint64
	}{{"b", 1}, {"c", 1}, {"b", 2}}
	for i, h := range hear {
		if got := s.Stable(100); got != 0 {
			t.Fatalf("with %d of 3 streams heard %d is stable", i, got)
		}
		s.Heard(h.region, h.partition, Progress{Clock: 50, Applied: applied(50, 50, 50)})
	}
	if got := s.Stable(100); got != 50 {
		t.Fatalf("with all heard %d is stable", got)
	}
}

func TestWhatIsStableIsTheLeastOfAllThatIsKnown(t *testing.T) {
	base := func() *Stability {
		s := NewStability("a")
		s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1}})
		s.Heard("b", 1, Progress{Clock: 50, Applied: map[string]crdt.HLC{"a": 51, "c": 52}})
		s.Heard("b", 2, Progress{Clock: 53, Applied: map[string]crdt.HLC{"a": 54, "c": 55}})
		s.Heard("c", 1, Progress{Clock: 56, Applied: map[string]crdt.HLC{"a": 57, "b": 58}})
		return s
	}
	for name, c := range map[string]struct {
		change func(*Stability)
		clock  crdt.HLC
		want   crdt.HLC
	}{
		"a member's clock":        {func(*Stability) {}, 100, 50},
		"the own clock":           {func(*Stability) {}, 49, 49},
		"a second stream's clock": {func(s *Stability) { s.Heard("b", 2, Progress{Clock: 40, Applied: applied(60, 60, 60)}) }, 100, 40},
		"the own writes there": {func(s *Stability) {
			s.Heard("c", 1, Progress{Clock: 60, Applied: map[string]crdt.HLC{"a": 41, "b": 60}})
		}, 100, 41},
		"a third region's writes there": {func(s *Stability) {
			s.Heard("c", 1, Progress{Clock: 60, Applied: map[string]crdt.HLC{"a": 60, "b": 42}})
		}, 100, 42},
		"one that has not heard of us":      {func(s *Stability) { s.Heard("c", 1, Progress{Clock: 60, Applied: map[string]crdt.HLC{"b": 60}}) }, 100, 0},
		"one that has not heard the third":  {func(s *Stability) { s.Heard("c", 1, Progress{Clock: 60, Applied: map[string]crdt.HLC{"a": 60}}) }, 100, 0},
		"what a member says of itself":      {func(s *Stability) { s.Heard("c", 1, Progress{Clock: 60, Applied: applied(60, 60, 1)}) }, 100, 50},
		"a region that does not count":      {func(s *Stability) { s.Heard("z", 1, Progress{Clock: 1}) }, 100, 50},
		"a member gone":                     {func(s *Stability) { s.SetMembers(map[string][]uint64{"c": {1}}) }, 100, 56},
		"a member joining, without streams": {func(s *Stability) { s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1}, "d": nil}) }, 100, 0},
		"a member joining, not heard":       {func(s *Stability) { s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1}, "d": {9}}) }, 100, 0},
		"a partition split off, not heard":  {func(s *Stability) { s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1, 2}}) }, 100, 0},
		"the same members again":            {func(s *Stability) { s.SetMembers(map[string][]uint64{"b": {2, 1}, "c": {1}}) }, 100, 50},
		"a member gone and back": {func(s *Stability) {
			s.SetMembers(map[string][]uint64{"b": {1, 2}})
			s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1}})
		}, 100, 0},
		"nobody else": {func(s *Stability) { s.SetMembers(nil) }, 77, 77},
	} {
		s := base()
		c.change(s)
		if got := s.Stable(c.clock); got != c.want {
			t.Errorf("%s: %d is stable, want %d", name, got, c.want)
		}
	}
}

func TestARegionTellsTheLeastItHasAppliedOfEachOther(t *testing.T) {
	s := NewStability("a")
	s.SetMembers(map[string][]uint64{"b": {1, 2}, "c": {1}, "d": nil})
	s.Heard("b", 1, Progress{Clock: 50})
	s.Heard("c", 1, Progress{Clock: 60})
	if got, want := s.Applied(), map[string]crdt.HLC{"c": 60}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v: b's second stream is not heard", got, want)
	}
	s.Heard("b", 2, Progress{Clock: 40})
	if got, want := s.Applied(), map[string]crdt.HLC{"b": 40, "c": 60}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Goal: MERGE.md's sentence. When T is stable in a region's partition, it holds every write up to T of its
// keys, and every write that still arrives has seen all of them of its key. Method: regions of one or two partitions write with clocks of
// their own, and state progress as node/source.go does: what is applied is taken first, then log and
// clock are read. Streams deliver in order, each with delays of its own.

type simWrite struct {
	region, key int
	hlc         crdt.HLC
	seen        map[*simWrite]bool // all that its region held then
}

type simMessage struct {
	write    *simWrite // or
	progress Progress
}

type simRegion struct {
	name   string
	behind crdt.HLC   // how far its clock lags
	clocks []crdt.HLC // by partition: the newest stamp given or received
	logs   [][]*simWrite
	held   map[*simWrite]bool
	stable *Stability
	tops   []crdt.HLC             // by partition: the greatest time that was stable
	links  map[int][][]simMessage // by origin and its partition: on the way, in order
	sent   map[int][]int          // by follower and partition: of the log
}

func TestWhatIsStableIsHeldAndSeen(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	folded := 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		regions := make([]*simRegion, 2+random.IntN(3))
		for i := range regions {
			partitions := 1 + random.IntN(2)
			regions[i] = &simRegion{name: names[i], behind: crdt.HLC(random.IntN(300)), clocks: make([]crdt.HLC, partitions), tops: make([]crdt.HLC, partitions), logs: make([][]*simWrite, partitions),
				held: map[*simWrite]bool{}, stable: NewStability(names[i]), links: map[int][][]simMessage{}, sent: map[int][]int{}}
		}
		for i, r := range regions {
			members := map[string][]uint64{}
			for j, o := range regions {
				if i == j {
					continue
				}
				r.links[j], o.sent[i] = make([][]simMessage, len(o.logs)), make([]int, len(o.logs))
				for p := range o.logs {
					members[o.name] = append(members[o.name], uint64(p))
				}
			}
			r.stable.SetMembers(members)
		}
		now := crdt.HLC(1000)
		all := []*simWrite{}
		for range 400 {
			now += crdt.HLC(random.IntN(3))
			i := random.IntN(len(regions))
			r := regions[i]
			p := random.IntN(len(r.logs))
			switch random.IntN(8) {
			case 0: // a write, by a clock that may lag
				r.clocks[p] = max(now-r.behind, r.clocks[p]+1)
				w := &simWrite{i, p + len(r.logs)*random.IntN(2), r.clocks[p], maps.Clone(r.held)}
				r.logs[p] = append(r.logs[p], w)
				r.held[w] = true
				all = append(all, w)
			case 1, 2, 3: // the log is read for a follower, perhaps not to its end
				j := random.IntN(len(regions))
				if j == i {
					continue
				}
				progress := Progress{Applied: r.stable.Applied(), Clock: r.clocks[p], Seq: uint64(len(r.logs[p]))}
				link := &regions[j].links[i][p]
				upTo := len(r.logs[p]) - random.IntN(1+len(r.logs[p])-r.sent[j][p])*random.IntN(2)
				for _, w := range r.logs[p][r.sent[j][p]:upTo] {
					*link = append(*link, simMessage{write: w})
				}
				if r.sent[j][p] = upTo; upTo == len(r.logs[p]) {
					*link = append(*link, simMessage{progress: progress})
				}
			default: // something arrives
				j := random.IntN(len(regions))
				if j == i {
					continue
				}
				q := random.IntN(len(regions[j].logs))
				link := r.links[j][q]
				if len(link) == 0 {
					continue
				}
				m := link[0]
				r.links[j][q] = link[1:]
				if m.write == nil {
					r.stable.Heard(regions[j].name, uint64(q), m.progress)
					break
				}
				w := m.write
				k := w.key % len(r.logs)
				for h := range r.held {
					if h.key == w.key && h.hlc <= r.tops[k] && !w.seen[h] {
						t.Fatalf("seed %d: region %s: %d is stable, and %+v arrives without having seen %+v", seed, r.name, r.tops[k], w, h)
					}
				}
				r.held[w] = true
				r.clocks[k] = max(r.clocks[k], w.hlc)
			}
			for k := range r.tops {
				if r.tops[k] = max(r.tops[k], r.stable.Stable(r.clocks[k])); r.tops[k] > 0 {
					folded++
				}
			}
			for _, w := range all {
				if top := r.tops[w.key%len(r.tops)]; w.hlc <= top && !r.held[w] {
					t.Fatalf("seed %d: region %s: %d is stable, and %+v is not here", seed, r.name, top, w)
				}
			}
		}
	}
	if folded == 0 {
		t.Error("nothing ever became stable: this test has shown nothing")
	}
}

func TestWhatWasCutOffCountsBeforeItIsKnown(t *testing.T) {
	s := NewStability("a")
	s.SetMembers(map[string][]uint64{"b": {1}})
	s.Heard("b", 1, Progress{Clock: 50, Applied: applied(50, 50, 50)})
	if got := s.Applied()["b"]; got != 50 {
		t.Fatalf("%d is applied before", got)
	}
	// Partition 1 is cut, and goes on; what was cut off may still ship what is older than that.
	s.Heard("b", 1, Progress{Seq: 7, Clock: 80, Applied: applied(80, 80, 80), Range: Range{End: []byte{9}}})
	if got, ok := s.Applied()["b"]; ok || s.Stable(100) != 0 || s.AppliedOf("b", 2) != 0 {
		t.Errorf("%d is applied, %d stable, though nothing is known of what was cut off", got, s.Stable(100))
	}
	if !s.Passed("b", 1, 7) || s.Passed("b", 1, 8) || s.Passed("b", 2, 0) {
		t.Error("who waits for what was written before the cut is told wrong")
	}
	s.SetMembers(map[string][]uint64{"b": {1, 2}})
	if s.Stable(100) != 0 {
		t.Error("something is stable before it is heard")
	}
	s.Heard("b", 2, Progress{Clock: 60, Applied: applied(60, 60, 60), Range: Range{Start: []byte{9}}})
	if got := s.Applied()["b"]; got != 60 || s.Stable(100) != 60 || s.AppliedOf("b", 1) != 80 || s.AppliedOf("b", 2) != 60 {
		t.Errorf("%d is applied and %d stable, want 60", got, s.Stable(100))
	}
}

func TestRangesCoverWhatOneOrAnotherHas(t *testing.T) {
	r := func(start, end string) Range {
		out := Range{Start: []byte(start)}
		if end != "" {
			out.End = []byte(end)
		}
		return out
	}
	for name, c := range map[string]struct {
		ranges []Range
		want   bool
	}{
		"nothing":                {nil, false},
		"all":                    {[]Range{r("", "")}, true},
		"two":                    {[]Range{r("", "k"), r("k", "")}, true},
		"in any order":           {[]Range{r("m", ""), r("", "k"), r("k", "m")}, true},
		"one that was cut since": {[]Range{r("", ""), r("k", "")}, true},
		"a gap":                  {[]Range{r("", "k"), r("m", "")}, false},
		"no first":               {[]Range{r("k", "")}, false},
		"no last":                {[]Range{r("", "k"), r("k", "m")}, false},
	} {
		if got := Covers(c.ranges); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
