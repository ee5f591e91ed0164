package group

import (
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/cryptotest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var seeds = flag.Int("seeds", 100, "how many seeds TestReplicasAgreeWhateverFails goes through")

// Goal: whatever the network and the power do, replicas apply the same commands in the same order, each once; an
// answer is that of the proposer's own command; a read shows what was acknowledged before it began; and nothing is
// left waiting. Method: a seeded loop picks what happens next. The commands of a ledger are numbered as they are
// applied, so that the numbers answered are a witness of their order: what is called after an answer with number k
// came must get a greater one, or show at least k.

// call is a client's proposal or read on its way.
type call struct {
	at    *replica
	name  string
	write *proposal
	read  *read
	floor int // the greatest number answered before it was called
}

type chaos struct {
	*network
	rng     *rand.Rand
	calls   []call
	floor   int
	made    int
	order   []string          // the commands as the first replica to apply them did
	checked []int             // by node: how many of its ledger's names have been held against order
	known   map[string]int    // answered commands, with their numbers
	none    map[string]string // commands answered with an error that means they have no effect
	unknown int
	wanted  []uint64 // the nodes that are to hold the group
	going   []*going // by node; nil: it is not being let go
}

// going is a node on its way to hold the group no more.
type going struct {
	by    *replica // who was asked for the members
	asked *read
	steps []func() // what is left to be done, once it is out of the host
}

func (c *chaos) failf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("after %d calls: %s", c.made, fmt.Sprintf(format, args...))
}

// look checks what a node has come to.
func (c *chaos) look(r *replica) {
	c.t.Helper()
	if len(c.fatal) > 0 {
		c.failf("Fatal: %v", c.fatal)
	}
	names := r.ledgers[0].names
	from := min(c.checked[r.id-1], len(names))
	for i := from; i < len(names); i++ {
		switch {
		case i == len(c.order):
			if slices.Contains(c.order, names[i]) {
				c.failf("%s applied twice", names[i])
			}
			c.order = append(c.order, names[i])
		case c.order[i] != names[i]:
			c.failf("node %d: command %d is %s, elsewhere %s", r.id, i+1, names[i], c.order[i])
		}
	}
	c.checked[r.id-1] = len(names)
	floor := c.floor
	c.calls = slices.DeleteFunc(c.calls, func(k call) bool {
		switch {
		case k.at != r:
			return false
		case k.write != nil && k.write.answered():
			number := int(k.write.result.Revision)
			switch err := k.write.err; {
			case errors.Is(err, ErrUnknown):
				c.unknown++
			case err != nil:
				c.none[k.name] = err.Error()
			case number <= k.floor:
				c.failf("node %d: %s has number %d, and %d was answered before it was called", r.id, k.name, number, k.floor)
			case r.ledgers[0].shown(c.t) < number:
				c.failf("node %d: %s is answered and not shown", r.id, k.name)
			default:
				c.known[k.name] = number
				floor = max(floor, number)
			}
			return true
		case k.read != nil && k.read.answered():
			if errors.Is(k.read.err, ErrGone) && c.joins > 0 {
				return true // it was suspended
			}
			if k.read.err != nil {
				c.failf("node %d: read: %v", r.id, k.read.err)
			}
			shown := r.ledgers[0].shown(c.t)
			if shown < k.floor {
				c.failf("node %d: a read shows %d commands, and %d was answered before it was called", r.id, shown, k.floor)
			}
			floor = max(floor, shown)
			return true
		}
		return false
	})
	c.floor = floor
}

func (c *chaos) restart(r *replica) {
	if err := r.open(); err != nil {
		c.failf("node %d: open: %v", r.id, err)
	}
	r.paused = false
	c.checked[r.id-1] = 0
}

// crashed forgets what was under way at a node.
func (c *chaos) crashed(r *replica) {
	c.calls = slices.DeleteFunc(c.calls, func(k call) bool { return k.at == r })
	c.stay(r)
	for _, g := range c.going {
		if g != nil && g.by == r {
			g.by, g.asked = nil, nil
		}
	}
}

// stay has a node be let go no more.
func (c *chaos) stay(r *replica) {
	if g := c.going[r.id-1]; g != nil && g.asked != nil {
		g.asked.ended.Store(true)
	}
	c.going[r.id-1] = nil
}

// letGo takes a node one step further on its way to hold the group no more, or back.
func (c *chaos) letGo(r *replica) {
	if r.down || r.paused {
		return
	}
	g := c.going[r.id-1]
	switch {
	case g == nil:
		if slices.Contains(c.wanted, r.id) {
			return
		}
		r.groups[0].suspend(r.host)
		c.look(r)
		c.going[r.id-1] = &going{}
	case len(g.steps) > 0:
		if g.steps[0](); r.dead() {
			return // the power failed meanwhile
		}
		if g.steps = g.steps[1:]; len(g.steps) == 0 {
			c.going[r.id-1] = nil
			c.checked[r.id-1] = 0
			counts.moves++
		}
	case g.asked == nil:
		by := c.nodes[c.rng.IntN(len(c.nodes))]
		if !by.down && c.going[by.id-1] == nil {
			g.by, g.asked = by, by.read(0)
		}
	case g.asked.answered():
		err, by := g.asked.err, g.by
		if g.by, g.asked = nil, nil; err != nil {
			return
		}
		voters, learners := by.groups[0].Members()
		if slices.Contains(slices.Concat(voters, learners, c.wanted), r.id) {
			r.groups[0].resume(r.host)
			c.going[r.id-1] = nil
			return
		}
		if err := r.host.letGo(r.groups[0], 0); err != nil {
			c.failf("node %d: let go: %v", r.id, err)
		}
		g.steps = []func(){
			func() { r.removeRows(0) },
			func() { r.clear(0) },
			func() {
				if err := r.begin(0); err != nil {
					c.failf("node %d: begin: %v", r.id, err)
				}
			},
		}
	}
}

func (c *chaos) act() {
	rng := c.rng
	r := c.nodes[rng.IntN(len(c.nodes))]
	if c.joins > 0 && rng.IntN(20) == 0 {
		for _, r := range c.nodes {
			if c.going[r.id-1] != nil {
				c.letGo(r)
			}
		}
	}
	switch d := rng.IntN(1000); {
	case d < 400:
		if len(c.flying) == 0 {
			return
		}
		i := rng.IntN(min(len(c.flying), 8)) // order is lost within some messages
		switch rng.IntN(20) {
		case 0:
			c.flying = slices.Delete(c.flying, i, i+1)
		case 1:
			c.deliver(i, true)
		case 2: // late
			f := c.flying[i]
			c.flying = append(slices.Delete(c.flying, i, i+1), f)
		default:
			c.deliver(i, false)
		}
	case d < 750:
		if !r.down && !r.paused {
			if rng.IntN(100) == 0 { // the power may fail in the midst of it
				r.spare = vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(3) * 50, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))}
				r.dieAt = r.ops + 1 + rng.IntN(2+58*rng.IntN(2))
			}
			if rng.IntN(3) == 0 {
				r.carry()
			} else {
				r.step()
			}
			r.dieAt = 0
			if r.down {
				c.crashed(r)
				return
			}
			c.look(r)
		}
	case d < 850:
		if !r.down && !r.paused {
			r.host.Tick()
		}
	case d < 950:
		if r.down || c.going[r.id-1] != nil || len(c.calls) >= 30 {
			return
		}
		c.made++
		k := call{at: r, name: fmt.Sprint("c", c.made), floor: c.floor}
		if rng.IntN(3) == 0 {
			k.read = r.read(0)
		} else {
			k.write = r.propose(0, k.name)
		}
		c.calls = append(c.calls, k)
	case d < 965:
		if !r.down {
			if err := r.store.Flush(); err != nil {
				c.t.Fatal(err)
			}
			r.host.Flushed()
		}
	case d < 975:
		r.paused = !r.paused
	case d < 983:
		c.cut[[2]uint64{r.id, c.voters[rng.IntN(len(c.voters))]}] = true
	case d < 991:
		clear(c.cut)
	case d < 993:
		r.host.Unreachable(c.voters[rng.IntN(len(c.voters))])
	case d < 994:
		if c.joins > 0 && rng.IntN(2) == 0 {
			c.wanted = three(rng, c.voters)
			c.wants(c.wanted...)
			counts.changes++
		} else if c.joins > 0 {
			for _, r := range c.nodes {
				if c.going[r.id-1] == nil {
					c.letGo(r)
				}
			}
		}
	case d < 996:
		if !r.down {
			r.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(3) * 50, RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
			c.crashed(r)
		}
	default:
		if r.down {
			c.restart(r)
		}
	}
}

// three draws three of some nodes, in order.
func three(rng *rand.Rand, of []uint64) []uint64 {
	some := slices.Clone(of)
	rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	return slices.Sorted(slices.Values(some[:3]))
}

// runChaos returns a sum of everything that was delivered and applied.
func runChaos(t *testing.T, seed uint64, joins, steps int) uint64 {
	cryptotest.SetGlobalRandom(t, seed)
	c := &chaos{network: newGrowing(t, 3, joins, 1), rng: rand.New(rand.NewPCG(seed, 0)), checked: make([]int, 3+joins), known: map[string]int{}, none: map[string]string{}}
	defer c.close()
	sum := fnv.New64a()
	c.trace = sum
	c.keep = 32
	for _, r := range c.nodes {
		r.host.keep = c.keep
	}
	c.wanted, c.going = c.voters[:3], make([]*going, 3+joins)
	for range steps {
		c.act()
	}
	// Peace: whatever waits must come to an end, and everybody to the same state.
	clear(c.cut)
	for _, r := range c.nodes {
		if r.down {
			c.restart(r)
		}
		r.paused = false
		if g := c.going[r.id-1]; g != nil {
			c.stay(r)
			r.groups[0].resume(r.host)
			for _, step := range g.steps {
				step()
			}
			c.checked[r.id-1] = 0
		}
	}
	members := c.nodes
	if joins > 0 {
		want := three(c.rng, c.voters)
		c.wants(want...)
		members = nil
		for _, id := range want {
			members = append(members, c.nodes[id-1])
		}
		for tries := 0; !c.members(0, want...); tries++ {
			if tries == 40 {
				c.failf("the members are not %v", want)
			}
			c.settle(10)
		}
		// Who is no member any more hears nothing, and clients there give up.
		for _, k := range c.calls {
			if !slices.Contains(want, k.at.id) && k.read != nil {
				k.read.ended.Store(true)
			}
		}
	}
	c.settle(unknownTicks + leaderTicks + 50)
	c.calls = slices.DeleteFunc(c.calls, func(k call) bool { return k.read != nil && k.read.ended.Load() })
	for _, r := range c.nodes {
		c.look(r)
		g := r.groups[0]
		if r.host.waiting != 0 || r.host.bytes != 0 || r.host.reading != 0 || len(g.queue) != 0 || len(g.sent.byNonce) != 0 || len(g.reads.come)+len(g.reads.asked) != 0 || len(g.ships)+len(r.host.ships) != 0 || g.arrived != nil {
			c.failf("node %d: left: %d commands of %d bytes, %d reads", r.id, r.host.waiting, r.host.bytes, r.host.reading)
		}
	}
	if len(c.calls) > 0 {
		c.failf("%d calls without an answer", len(c.calls))
	}
	for i, r := range members {
		p, rd := r.propose(0, fmt.Sprint("last", i)), r.read(0)
		c.settle(3)
		if !p.answered() || p.err != nil || !rd.answered() || rd.err != nil {
			c.failf("node %d in peace: answered %v, %v, read %v, %v", r.id, p.answered(), p.err, rd.answered(), rd.err)
		}
	}
	for _, r := range members {
		c.look(r)
		if len(r.ledgers[0].names) != len(c.order) {
			c.failf("node %d has %d commands of %d", r.id, len(r.ledgers[0].names), len(c.order))
		}
	}
	for name, number := range c.known {
		if number > len(c.order) || c.order[number-1] != name {
			c.failf("%s was answered number %d, and is not there", name, number)
		}
	}
	for name, err := range c.none {
		if slices.Contains(c.order, name) {
			c.failf("%s was answered %q, and took effect", name, err)
		}
	}
	fmt.Fprintf(sum, "%q", c.order)
	counts.commands += len(c.order)
	counts.unknown += c.unknown
	for _, r := range c.nodes {
		if _, err := r.store.Get(nil, []byte("G\x00\x00\x00\x00\x00\x00\x00\x01")); err == nil {
			counts.snapshots++
		}
	}
	return sum.Sum64()
}

var counts struct{ commands, unknown, snapshots, changes, moves int }

func TestReplicasAgreeWhateverFails(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 20)
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runChaos(t, uint64(seed), 0, 4000) })
	}
	t.Logf("%d commands, %d answered unknown, %d replicas had a snapshot", counts.commands, counts.unknown, counts.snapshots)
	if n >= 20 && (counts.snapshots == 0 || counts.unknown == 0) {
		t.Error("the seeds do not reach what they should")
	}
}

// Goal: the same while the members change: any three of five nodes, at any time.
func TestReplicasAgreeWhileTheirMembersChange(t *testing.T) {
	n := *seeds
	if testing.Short() {
		n = min(n, 20)
	}
	counts.changes, counts.moves = 0, 0
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runChaos(t, uint64(seed), 2, 4000) })
	}
	if t.Logf("%d changes of what is wanted, %d replicas let go and begun again", counts.changes, counts.moves); n >= 20 && (counts.changes == 0 || counts.moves == 0) {
		t.Error("the seeds do not reach what they should")
	}
}

func TestASeedIsReplayable(t *testing.T) {
	var sums []uint64
	for range 2 {
		t.Run("once", func(t *testing.T) { sums = append(sums, runChaos(t, 7, 2, 4000)) })
	}
	if sums[0] != sums[1] {
		t.Errorf("%x and %x", sums[0], sums[1])
	}
}
