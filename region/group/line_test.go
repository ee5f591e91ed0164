package group

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/region/op"
)

func TestALineThatIsTooLongForItsPaceRefusesTheKeysThatFillItThenAll(t *testing.T) {
	put := func(key string) *proposal {
		return &proposal{cmd: &op.Command{Kind: op.Put}, slot: slot([]byte(key))}
	}
	now := time.UnixMilli(1000)
	var l line
	// Half of it is of one key.
	fill := func(to int) {
		for i := l.waiting; i < to; i++ {
			l.join(put([]string{"hot", fmt.Sprint("cold ", i)}[i%2]), now)
		}
	}
	// One is answered each millisecond, and another comes.
	move := func(n int) {
		for i := range n {
			now = now.Add(time.Millisecond)
			l.leave(put([]string{"hot", fmt.Sprint("cold ", l.waiting-1)}[i%2]), now)
			l.measure(now)
		}
	}
	fill(1000)
	if l.crowded(put("hot"), now) {
		t.Error("refused before it is known how it moves")
	}
	move(1000 - 100)
	merge := put("hot")
	merge.cmd.Kind = op.Merge
	for _, c := range []struct {
		waiting   int
		hot, cold bool
	}{{100, false, false}, {150, true, false}, {251, true, true}} {
		if fill(c.waiting); l.crowded(put("hot"), now) != c.hot || l.crowded(put("another"), now) != c.cold || l.crowded(merge, now) {
			t.Errorf("%d wait, 1 ms each: the hot key is refused: %v; another: %v; what comes from another region: %v", l.waiting, l.crowded(put("hot"), now), l.crowded(put("another"), now), l.crowded(merge, now))
		}
	}
	if l.pace *= 1000; !l.crowded(put("another"), now) {
		t.Error("a thousand times slower, it takes one more")
	}
	few := line{waiting: crowd - 1, pace: l.pace, moved: now}
	if few.crowded(put("hot"), now) {
		t.Error("a short line refuses")
	}
	l.pace /= 1000
	// Twice as fast, the same line is one for which only who fills it is refused, and then nobody.
	l.pace /= 2
	if !l.crowded(put("hot"), now) || l.crowded(put("another"), now) {
		t.Error("faster: the hot key is let in, or another refused")
	}
	if l.pace /= 2; l.crowded(put("hot"), now) {
		t.Error("faster still: the hot key is refused")
	}
	l.pace *= 100
	if !l.crowded(put("hot"), now) || l.crowded(put("hot"), now.Add(standsFor+1)) {
		t.Error("slow: the hot key is let in while the line moves, or refused while it stands still")
	}
	l = line{}
	first := put("hot")
	l.join(first, now)
	now = now.Add(time.Minute)
	if l.leave(first, now); l.waiting != 0 || l.slots[first.slot] != 0 {
		t.Errorf("an empty line: %d waiting", l.waiting)
	}
	if l.join(first, now.Add(time.Hour)); l.answered != 0 || l.since != now.Add(time.Hour) {
		t.Error("the time in which nobody waited is measured")
	}
}

func TestALongQueueOfOneGroupLetsOthersInBetween(t *testing.T) {
	n := openNode(t, vfs.NewCrashableMem())
	defer n.close()
	hot, names := n.open(1)
	quiet, others := n.open(2)
	var other *proposal
	names.during = func() {
		if other == nil {
			other = n.propose(quiet, note("between"))
		}
	}
	before := 0 // of the queue, when what came during its first round is applied
	others.during = func() { before = len(names.names) }
	all := make([]*proposal, 8*maxRound)
	for i := range all {
		all[i] = n.propose(hot, note("x"))
	}
	n.host.Step() // ends when it finds that there is more to take
	n.host.Step()
	if !other.answered() || before > 4*maxRound {
		t.Errorf("what came during the first round is answered: %v, behind %d of the queue", other.answered(), before)
	}
	for range 8 {
		n.host.Step()
	}
	if len(names.names) != len(all) || n.host.waiting != 0 {
		t.Errorf("%d of %d applied, %d wait", len(names.names), len(all), n.host.waiting)
	}
}
