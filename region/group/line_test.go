package group

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/region/op"
)

func TestALineThatIsLongAndSlowRefusesTheKeysThatFillItThenAll(t *testing.T) {
	put := func(key string) *proposal {
		return &proposal{cmd: &op.Command{Kind: op.Put}, slot: slot([]byte(key))}
	}
	now := time.UnixMilli(1000)
	var l line
	come := func(p *proposal) *proposal {
		p.at = now
		l.join(p)
		return p
	}
	first := come(put("hot"))
	for i := range 2 * crowd {
		come(put("hot"))
		come(put(fmt.Sprint("cold ", i)))
	}
	if l.crowded(put("hot")) {
		t.Error("refused before it is known to be slow")
	}
	now = now.Add(patience + 1)
	l.leave(first, now)
	if !l.crowded(put("hot")) || l.crowded(put("cold")) {
		t.Errorf("slow: the hot key is refused: %v; another: %v", l.crowded(put("hot")), l.crowded(put("cold")))
	}
	second := come(put("hot"))
	now = now.Add(2*patience + 1)
	l.leave(second, now)
	merge := put("hot")
	merge.cmd.Kind = op.Merge
	if !l.crowded(put("hot")) || !l.crowded(put("cold")) || l.crowded(merge) {
		t.Errorf("very slow: the hot key is refused: %v; another: %v; what comes from another region: %v", l.crowded(put("hot")), l.crowded(put("cold")), l.crowded(merge))
	}
	short := line{waited: time.Minute, waiting: crowd - 1}
	short.slots[put("hot").slot] = crowd - 1
	if short.crowded(put("hot")) {
		t.Error("a short line refuses")
	}
	one := line{}
	one.join(first)
	if one.leave(first, now); one.waiting != 0 || one.waited != 0 || one.slots[first.slot] != 0 {
		t.Errorf("an empty line: %d waiting, %s", one.waiting, one.waited)
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
