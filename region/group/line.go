package group

import (
	"hash/crc32"
	"time"

	"github.com/commutatordb/commutator/region/op"
)

// Admission: what clients have a group do waits in line, in the order in which it came. A line that has grown long, for the pace at which it
// moves, takes no more, so that what it holds keeps its latency: past capacity every further client that waits only makes all of them wait longer. A
// refused one has had no effect, and is told at once to come again.
//
// How long those have waited that are answered now would say it too late: where a thousand are answered together, thousands have come
// meanwhile. A line that stands still, for want of a leader or of a disk, is no reason to refuse: it moves again, and then as fast as it did.
const (
	// crowd is how many commands wait before any is refused for the time that it would wait: fewer go into a few rounds.
	crowd = 64
	// patience is how long whoever comes may have to wait; half of it, if he goes where an eighth of the line goes.
	patience = 250 * time.Millisecond
	// standsFor is how long nobody has been answered in a line that stands still: a round of commands may take long, too.
	standsFor = time.Second
	// paceOver is over what time the pace is measured, at least: over some rounds.
	paceOver = 50 * time.Millisecond
)

// line is what waits at a group, under its Host's lock.
type line struct {
	waiting int
	slots   [256]uint16 // of them, by key

	pace     time.Duration // from one answer to the next, as measured last; 0 if it has not been
	answered int           // since then, of a line that was never empty
	since    time.Time
	moved    time.Time // when one was answered last
}

func slot(key []byte) uint8 { return uint8(crc32.ChecksumIEEE(key)) }

// crowded tells whether a command that comes now is refused. What regions and tables do for themselves never is.
func (l *line) crowded(p *proposal, now time.Time) bool {
	switch p.cmd.Kind {
	case op.Put, op.Update, op.Delete:
	default:
		return false
	}
	if l.waiting < crowd || now.Sub(l.moved) > standsFor {
		return false
	}
	ahead := time.Duration(l.waiting) * l.pace
	return ahead > patience || ahead > patience/2 && int(l.slots[p.slot]) >= l.waiting/8
}

func (l *line) join(p *proposal, now time.Time) {
	if l.waiting == 0 {
		l.since, l.answered = now, 0
	}
	l.waiting++
	l.slots[p.slot]++
}

func (l *line) leave(p *proposal, now time.Time) {
	l.waiting--
	l.slots[p.slot]--
	l.answered++
	l.moved = now
}

// measure measures the pace, once all have left that are answered together.
func (l *line) measure(now time.Time) {
	if took := now.Sub(l.since); took >= paceOver && l.answered > 0 {
		l.pace = took / time.Duration(l.answered)
		l.since, l.answered = now, 0
	}
}
