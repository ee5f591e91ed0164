package group

import (
	"hash/crc32"
	"time"

	"github.com/commutatordb/commutator/region/op"
)

// Admission: what clients have a group do waits in line, in the order in which it came. A line that has grown long and slow takes no more, so
// that what it holds keeps its latency: past capacity every further client that waits only makes all of them wait longer. A
// refused one has had no effect, and is told at once to come again.
const (
	// crowd is how many commands wait before any is refused for the time that they wait: fewer go into a few rounds.
	crowd = 256
	// patience is how long the commands answered last may have waited before those are refused that go where an eighth of the line goes; twice
	// as long, and every one is.
	patience = 250 * time.Millisecond
)

// line is what waits at a group, under its Host's lock.
type line struct {
	waiting int
	slots   [256]uint16   // of them, by key
	waited  time.Duration // how long the command answered last had, 0 once the line was empty
}

func slot(key []byte) uint8 { return uint8(crc32.ChecksumIEEE(key)) }

// crowded tells whether the command is refused. What regions and tables do for themselves never is.
func (l *line) crowded(p *proposal) bool {
	switch p.cmd.Kind {
	case op.Put, op.Update, op.Delete:
		return l.waiting >= crowd && l.waited > patience && (int(l.slots[p.slot]) >= l.waiting/8 || l.waited > 2*patience)
	}
	return false
}

func (l *line) join(p *proposal) {
	l.waiting++
	l.slots[p.slot]++
}

func (l *line) leave(p *proposal, now time.Time) {
	l.waiting--
	l.slots[p.slot]--
	l.waited = now.Sub(p.at)
	if l.waiting == 0 {
		l.waited = 0
	}
}
