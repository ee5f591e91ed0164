package placement

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMain has every run draw the same regions, so that its outcome is the code's; -rapid.seed=0 draws others each time.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// nodes reads nodes such as "1 2 3b 4a- 5x": a number, a zone, and - for down, ! for lost, < for leaving, ~ for drained.
func nodes(text string) (out []Node) {
	for _, word := range strings.Fields(text) {
		n := Node{Up: true}
		fmt.Sscanf(word, "%d%s", &n.ID, &n.Zone)
		for i, flag := range map[string]func(){"-": func() { n.Up = false }, "!": func() { n.Up, n.Lost = false, true }, "<": func() { n.Leaving = true }, "~": func() { n.Drained = true }} {
			if strings.Contains(n.Zone, i) {
				flag()
				n.Zone = strings.ReplaceAll(n.Zone, i, "")
			}
		}
		out = append(out, n)
	}
	return out
}

// held returns a table's partitions, each held by the nodes given, as "1 2 3", or "1 2 3 of 1 2" where those are the voters so far; "all" is nil.
func held(table uint32, by ...string) (out []Partition) {
	for i, text := range by {
		p := Partition{ID: uint64(table)*100 + uint64(i), Table: table}
		want, voters, moving := strings.Cut(text, " of ")
		read := func(text string) (ids []uint64) {
			for _, word := range strings.Fields(text) {
				var id uint64
				fmt.Sscan(word, &id)
				ids = append(ids, id)
			}
			return ids
		}
		if want != "all" {
			p.Nodes = read(want)
		}
		p.Voters = p.Nodes
		if moving {
			p.Voters = read(voters)
		}
		out = append(out, p)
	}
	return out
}

func said(changes []Change) string {
	var lines []string
	for _, c := range changes {
		lines = append(lines, fmt.Sprintf("%d: %s -> %s: %s", c.Partition, strings.Trim(fmt.Sprint(c.Was), "[]"), strings.Trim(fmt.Sprint(c.Nodes), "[]"), c.Why))
	}
	return strings.Join(lines, "\n")
}

func weighing(partitions []Partition, bytes ...int64) []Partition {
	for i := range partitions {
		partitions[i].Bytes = bytes[i]
	}
	return partitions
}

func TestNext(t *testing.T) {
	const gib = 1 << 30
	hot := held(1, "1 2 3", "1 2 3", "4 5 6", "4 5 6")
	hot[0].Load, hot[1].Load = 9000, 9000
	stays := held(1, "1 2 3", "1 2 3", "1 2 3", "1 2 3")
	for i := range stays {
		stays[i].Stays = true
	}
	for _, c := range []struct {
		name, nodes string
		partitions  []Partition
		want        string
	}{
		{"as many nodes as replicas: every node holds everything", "1 2 3", held(1, "all of 1 2 3"), ""},
		{"one of them lost: nobody could take its place", "1 2 3!", held(1, "all of 1 2 3"), ""},
		{"a fourth node: who holds what gets a name first", "1 2 3 4", held(1, "all of 1 2 3"), "100: <nil> -> 1 2 3: there are more nodes than replicas"},
		{"and one that leaves has its replicas until another votes", "1 2 3< 4 5", held(1, "all of 1 2 3"), "100: <nil> -> 1 2 3: there are more nodes than replicas"},
		{"who holds what is not known", "1 2 3 4", held(1, "all of "), ""},
		{"a lost node is replaced", "1 2 3! 4", held(1, "1 2 3"), "100: 1 2 3 -> 1 2 4: a node is lost"},
		{"one that is down for a moment is not", "1 2 3- 4", held(1, "1 2 3"), ""},
		{"by who holds least of the table", "1 2 3! 4 5", append(held(1, "1 2 3"), held(2, "1 4 5")...), "100: 1 2 3 -> 1 2 4: a node is lost"},
		{"by another zone", "1a 2b 3c! 4a 5c", held(1, "1 2 3"), "100: 1 2 3 -> 1 2 5: a node is lost"},
		{"by nobody while nobody is there", "1 2 3! 4-", held(1, "1 2 3"), ""},
		{"by a drained node if there is no other", "1 2 3! 4~", held(1, "1 2 3"), "100: 1 2 3 -> 1 2 4: a node is lost"},
		{"a partition without a majority is left alone", "1 2! 3! 4 5", held(1, "1 2 3"), ""},
		{"who has fewest replicas that are up comes first", "1 2 3! 4- 5", held(1, "1 2 3", "1 3 4 of 1 3 4", "2 3 4"), "100: 1 2 3 -> 1 2 5: a node is lost"},
		{"what has begun is waited for", "1 2 3! 4 5", held(1, "1 3 4 of 1 2 3"), ""},
		{"but not if who was to come is lost", "1 2 3 4! 5", held(1, "1 3 4 of 1 2 3"), "100: 1 3 4 -> 1 2 3: a node is lost"},
		{"two at a time come to a node", "1 2 3! 4", held(1, "1 2 3", "1 2 3", "1 2 3"), "100: 1 2 3 -> 1 2 4: a node is lost\n101: 1 2 3 -> 1 2 4: a node is lost"},
		{"a node that leaves is replaced", "1 2 3< 4", held(1, "1 2 3"), "100: 1 2 3 -> 1 2 4: a node leaves"},
		{"or goes without, if nobody else is left", "1 2 3<", held(1, "1 2 3"), "100: 1 2 3 -> 1 2: a node leaves"},
		{"but not while somebody may come back", "1 2 3< 4-", held(1, "1 2 3"), ""},
		{"nor if those that stay carry nothing alone", "1 2- 3<", held(1, "1 2 3"), ""},
		{"one that is gone is as one that leaves", "1 2 4", held(1, "1 2 3"), "100: 1 2 3 -> 1 2 4: a node leaves"},
		{"too few", "1 2 3 4", held(1, "1 2"), "100: 1 2 -> 1 2 3: there are too few replicas"},
		{"too many", "1a 2b 3c 4c", held(1, "1 2 3 4"), "100: 1 2 3 4 -> 1 2 4: there are too many replicas"},
		{"too many, and one is down", "1a 2b 3c- 4c", held(1, "1 2 3 4"), "100: 1 2 3 4 -> 1 2 4: there are too many replicas"},
		{"zones come before counts", "1a 2a 3b 4c", held(1, "1 2 3", "1 3 4", "2 3 4"), "100: 1 2 3 -> 2 3 4: zones hold it more evenly"},
		{"a table is spread", "1 2 3 4", held(1, "1 2 3", "1 2 3", "1 2 3", "1 2 3"), "100: 1 2 3 -> 2 3 4: nodes hold the table more evenly\n101: 1 2 3 -> 1 3 4: nodes hold the table more evenly"},
		{"tables of one partition are spread", "1 2 3 4", append(held(1, "1 2 3"), held(2, "1 2 3")...), "100: 1 2 3 -> 2 3 4: nodes hold as many replicas"},
		{"nothing is moved while a node of it is down", "1 2 3- 4", held(1, "1 2 3", "1 2 3", "1 2 3"), ""},
		{"nor to a drained node", "1 2 3 4~", held(1, "1 2 3", "1 2 3", "1 2 3"), ""},
		{"nor what is to stay", "1 2 3 4", stays, ""},
		{"bytes: two partitions change places", "1 2 3 4", weighing(held(1, "1 2 3", "1 2 4", "1 3 4", "2 3 4"), 8*gib, 8*gib, 8*gib, gib), ""},
		{"bytes: what is large and what is small change places", "1 2 3 4 5 6", weighing(held(1, "1 2 3", "1 2 3", "4 5 6", "4 5 6"), 8*gib, 8*gib, gib, gib),
			"100: 1 2 3 -> 2 3 4: nodes hold as many bytes\n102: 4 5 6 -> 1 5 6: nodes hold as many bytes\n101: 1 2 3 -> 1 3 5: nodes hold as many bytes\n103: 4 5 6 -> 2 4 6: nodes hold as many bytes"},
		{"bytes: what is nearly even stays", "1 2 3 4 5 6", weighing(held(1, "1 2 3", "1 2 3", "4 5 6", "4 5 6"), 8*gib, 8*gib, 8*gib, 7*gib), ""},
		{"load: what is hot is parted", "1 2 3 4 5 6", hot,
			"100: 1 2 3 -> 2 3 4: nodes are written to as much\n102: 4 5 6 -> 1 5 6: nodes are written to as much\n101: 1 2 3 -> 1 3 5: nodes are written to as much\n103: 4 5 6 -> 2 4 6: nodes are written to as much"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.ReplaceAll(said(Next(3, nodes(c.nodes), c.partitions)), ":  ->", ": <nil> ->")
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		name, nodes string
		partitions  []Partition
		n           int
		want        string
	}{
		{"as many nodes as replicas: every node holds everything", "1 2 3", nil, 2, "[[] []]"},
		{"every node has as many", "1 2 3 4", nil, 4, "[[1 2 3] [1 2 4] [1 3 4] [2 3 4]]"},
		{"those that hold little of other tables come first", "1 2 3 4 5", held(2, "1 2 3"), 1, "[[1 4 5]]"},
		{"one in each zone", "1a 2a 3a 4b 5c 6c", nil, 3, "[[1 4 5] [2 4 6] [3 4 5]]"},
		{"not on those that are lost, leave or are drained", "1 2! 3< 4~ 5 6", nil, 1, "[[1 5 6]]"},
		{"on one that is down for a moment if need be", "1 2- 3 4!", nil, 1, "[[1 2 3]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := fmt.Sprint(New(3, nodes(c.nodes), c.partitions, 1, c.n)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// region draws a region of several nodes and tables. settled: everything is where it is to be, and everybody is up.
func region(t *rapid.T, settled bool) (factor int, ns []Node, ps []Partition) {
	factor = rapid.IntRange(1, 5).Draw(t, "factor")
	zones := rapid.IntRange(1, 4).Draw(t, "zones")
	n := rapid.IntRange(1, 9).Draw(t, "nodes")
	often := func(what string, of int) bool { return !settled && rapid.IntRange(1, of).Draw(t, what) == 1 }
	for id := range uint64(n) {
		of := Node{ID: id + 1, Zone: fmt.Sprint(rapid.IntRange(1, zones).Draw(t, "zone")), Up: !often("down", 6), Leaving: often("leaves", 8), Drained: often("drained", 10)}
		of.Lost = !of.Up && often("lost", 2)
		ns = append(ns, of)
	}
	some := func(what string, most int) []uint64 {
		return slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.Uint64Range(1, uint64(n)), 1, min(most, n), rapid.ID).Draw(t, what)))
	}
	for table := range uint32(rapid.IntRange(1, 4).Draw(t, "tables")) {
		for i := range rapid.IntRange(1, 8).Draw(t, "partitions") {
			p := Partition{ID: uint64(table)*100 + uint64(i), Table: table, Nodes: some("holds", factor+1), Stays: often("stays", 10)}
			p.Bytes = rapid.Int64Range(0, 10<<30).Draw(t, "bytes")
			p.Load = rapid.Float64Range(0, 20000).Draw(t, "load")
			p.Voters = p.Nodes
			if often("moves", 4) {
				p.Voters = some("votes", factor+1)
			}
			if often("all", 5) {
				p.Nodes = nil
			}
			ps = append(ps, p)
		}
	}
	return factor, ns, ps
}

func find(ps []Partition, id uint64) *Partition {
	return &ps[slices.IndexFunc(ps, func(p Partition) bool { return p.ID == id })]
}

func of(ns []Node, id uint64) *Node {
	if i := slices.IndexFunc(ns, func(n Node) bool { return n.ID == id }); i >= 0 {
		return &ns[i]
	}
	return nil
}

func ups(ns []Node, ids []uint64) (n int) {
	for _, id := range ids {
		if of(ns, id).Up {
			n++
		}
	}
	return n
}

// What is said of any region can be carried out, and is no more than may be under way at a time.
func TestChangesCanBeCarriedOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor, ns, ps := region(t, false)
		coming, changed := map[uint64]int{}, map[uint64]bool{}
		for _, p := range ps {
			for _, id := range p.Nodes {
				if !slices.Contains(p.Voters, id) && 2*ups(ns, p.Voters) > len(p.Voters) {
					coming[id]++
				}
			}
		}
		before := coming
		coming = map[uint64]int{}
		for _, c := range Next(factor, ns, ps) {
			p := find(ps, c.Partition)
			if changed[p.ID] {
				t.Fatalf("%v: it is the second one for its partition", c)
			}
			changed[p.ID] = true
			if !slices.IsSorted(c.Nodes) || len(slices.Compact(slices.Clone(c.Nodes))) != len(c.Nodes) || len(c.Nodes) == 0 || !slices.Equal(c.Was, p.Nodes) {
				t.Fatalf("%v, was %v", c, p.Nodes)
			}
			if c.Why == Named {
				continue
			}
			if 2*ups(ns, p.Voters) <= len(p.Voters) {
				t.Fatalf("%v: of its voters %v more than half are down", c, p.Voters)
			}
			gone := slices.DeleteFunc(slices.Clone(p.Nodes), func(id uint64) bool { return slices.Contains(c.Nodes, id) })
			come := slices.DeleteFunc(slices.Clone(c.Nodes), func(id uint64) bool { return slices.Contains(p.Nodes, id) })
			if len(gone) > 1 || len(come) > 1 {
				t.Fatalf("%v: more than one goes or comes, of %v", c, p.Nodes)
			}
			for _, id := range come {
				if n := of(ns, id); !n.Up || n.Leaving {
					t.Fatalf("%v: node %d is given it", c, id)
				}
				if !slices.Contains(p.Voters, id) && 2*ups(ns, p.Voters) > len(p.Voters) {
					coming[id]++
				}
			}
			if ups(ns, c.Nodes) < ups(ns, p.Nodes) && 2*ups(ns, c.Nodes) <= len(c.Nodes) {
				t.Fatalf("%v: more than half of who is left are down", c)
			}
			if len(come) == 0 && len(c.Nodes) < factor && !slices.ContainsFunc(gone, func(id uint64) bool { return of(ns, id).Leaving }) {
				t.Fatalf("%v: it has too few then", c)
			}
		}
		for id, n := range coming {
			if n > 0 && before[id]+n > MaxComing {
				t.Fatalf("%d come to node %d, and %d did before", n, id, before[id])
			}
		}
	})
}

// What is said depends on what there is, not on the order in which it is listed.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor, ns, ps := region(t, false)
		want := said(Next(factor, ns, ps))
		if got := said(Next(factor, rapid.Permutation(ns).Draw(t, "nodes"), rapid.Permutation(ps).Draw(t, "partitions"))); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// settle carries out what is said until nothing is, and returns how many changes that took.
func settle(t *rapid.T, factor int, ns []Node, ps []Partition) (changes []Change) {
	for round := 0; ; round++ {
		now := Next(factor, ns, ps)
		if len(now) == 0 {
			return changes
		}
		if round > 1000 {
			t.Fatalf("it does not end:\n%s", said(now))
		}
		for _, c := range now {
			p := find(ps, c.Partition)
			p.Nodes, p.Voters = c.Nodes, c.Nodes
		}
		changes = append(changes, now...)
	}
}

// Carried out again and again it comes to an end, soon, where each partition is held by as many as it can be, and evenly.
func TestItEndsWhereEverythingIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor, ns, ps := region(t, false)
		stuck := map[uint64]bool{}
		for i := range ps {
			p := &ps[i]
			stuck[p.ID] = 2*ups(ns, p.Voters) <= len(p.Voters)
			if p.Nodes == nil || stuck[p.ID] {
				continue
			}
			// Who is up comes, and then those go that are not to hold it.
			for _, id := range p.Nodes {
				if !slices.Contains(p.Voters, id) && of(ns, id).Up {
					p.Voters = slices.Sorted(slices.Values(append(slices.Clone(p.Voters), id)))
				} else if !slices.Contains(p.Voters, id) {
					stuck[p.ID] = true
				}
			}
			if !stuck[p.ID] {
				p.Voters = p.Nodes
			}
			stuck[p.ID] = stuck[p.ID] || 2*ups(ns, p.Voters) <= len(p.Voters)
		}
		changes := settle(t, factor, ns, ps)
		if most := 4 * factor * len(ps); len(changes) > most {
			t.Fatalf("%d changes of %d partitions", len(changes), len(ps))
		}
		good := slices.DeleteFunc(slices.Clone(ns), func(n Node) bool { return !n.Up || n.Leaving })
		staying := slices.DeleteFunc(slices.Clone(ns), func(n Node) bool { return n.Leaving })
		zones := map[string]int{}
		for _, n := range good {
			zones[n.Zone]++
		}
		per := map[uint32]map[uint64]int{}
		all := true
		for _, p := range ps {
			if stuck[p.ID] || p.Nodes == nil {
				all = false
				continue
			}
			if len(p.Nodes) > factor {
				t.Fatalf("%d nodes hold partition %d: %v", len(p.Nodes), p.ID, p.Nodes)
			}
			held := ups(ns, p.Nodes)
			if len(staying) > factor && held < len(p.Nodes) && held < len(good) && slices.ContainsFunc(p.Nodes, func(id uint64) bool { return of(ns, id).Lost }) {
				t.Fatalf("partition %d is held by %v, and %d nodes are up", p.ID, p.Nodes, len(good))
			}
			if per[p.Table] == nil {
				per[p.Table] = map[uint64]int{}
			}
			for _, id := range p.Nodes {
				per[p.Table][id]++
			}
			if p.Stays || held < len(p.Nodes) || slices.ContainsFunc(ns, func(n Node) bool { return n.Drained }) {
				all = false
			}
		}
		if !all || len(good) < len(ns) {
			return
		}
		for _, p := range ps {
			in := map[string]int{}
			for _, id := range p.Nodes {
				in[of(ns, id).Zone]++
			}
			for a, n := range in {
				for b := range zones {
					if in[b] < zones[b] && n-in[b] > 1 {
						t.Fatalf("partition %d has %d replicas in zone %s, and %d in zone %s", p.ID, n, a, in[b], b)
					}
				}
			}
		}
		for table, on := range per {
			for _, a := range ns {
				for _, b := range ns {
					if a.Zone == b.Zone && on[a.ID]-on[b.ID] > 1 {
						t.Fatalf("table %d: node %d holds %d, node %d, of the same zone, %d", table, a.ID, on[a.ID], b.ID, on[b.ID])
					}
				}
			}
		}
	})
}

// A region that has come to rest and loses a node moves what that one held, and no more.
func TestALostNodeMovesNoMoreThanItHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor, ns, ps := region(t, true)
		settle(t, factor, ns, ps)
		lost := &ns[rapid.IntRange(0, len(ns)-1).Draw(t, "lost")]
		lost.Up, lost.Lost = false, true
		for _, c := range Next(factor, ns, ps) {
			if c.Why == Lost && !slices.Contains(c.Was, lost.ID) || c.Why != Lost && slices.Contains(c.Was, lost.ID) {
				t.Fatalf("%v, when node %d is lost", c, lost.ID)
			}
		}
	})
}

// What a new table begins with is even: nothing of it is moved.
func TestANewTableStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor, ns, _ := region(t, true)
		var ps []Partition
		for i, on := range New(factor, ns, nil, 1, rapid.IntRange(1, 20).Draw(t, "partitions")) {
			if on == nil {
				if len(ns) > factor {
					t.Fatalf("partition %d: every node is to hold it, of %d", i, len(ns))
				}
				return
			}
			ps = append(ps, Partition{ID: uint64(i), Table: 1, Nodes: on, Voters: on})
		}
		if got := Next(factor, ns, ps); len(got) != 0 {
			t.Fatal(said(got))
		}
	})
}

// What the node that leads the catalog does every second, in a large region that is at rest.
func BenchmarkNext(b *testing.B) {
	ns := nodes("1a 2b 3c 4a 5b 6c 7a")
	var ps []Partition
	for i, on := range New(3, ns, nil, 1, 1000) {
		for table := range uint32(5) {
			ps = append(ps, Partition{ID: uint64(table)*1000 + uint64(i), Table: table, Nodes: on, Voters: on, Bytes: 1 << 30, Load: 10})
		}
	}
	for b.Loop() {
		Next(3, ns, ps)
	}
}
