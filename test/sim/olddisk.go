package sim

import (
	"slices"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/replication"
)

// askAtStart is how long a region waits with its first write for the others' word of what they have of it.
const askAtStart = 3500 * time.Millisecond // a little more than in package node

// oldDisk has a region of one node start on a copy of its disk that was made some time before: what it acknowledged in between is
// gone, but for what others have had of it. The first, whose table of its own is judged by itself, keeps its disk.
func (w *world) oldDisk(r *regionOf) {
	m := r.nodes[0]
	if r.index == 0 || len(r.nodes) > 1 || !m.up() || m.stopping {
		return
	}
	w.say("%s's disk is copied", m.name)
	made, copied := w.now, m.disk.crash(w.rng, 100)
	clocks := map[string]crdt.HLC{} // by stream
	if t := m.table(); t != nil {
		for _, p := range t.Partitions() {
			clocks[replication.StreamName(r.name, m.engine.Region().Instance(), p.ID)] = p.State().Wrote
		}
	}
	w.pause(0, 4*time.Second)
	// Started where it can reach the others, it hears of what it has lost before it takes a write.
	w.still = true
	defer func() { w.still = false }()
	for !w.whole() {
		w.pause(50*time.Millisecond, 200*time.Millisecond)
	}
	was := w.newest(r)
	w.count.fault(faultOldDisk)
	m.crash(0)
	w.losses = append(w.losses, loss{r, made, w.now})
	lost := 0
	for dot, c := range w.history.changes {
		// A partition that was split off since is not on the copy at all.
		if clock, ok := clocks[c.from]; c.origin == r && (ok && dot.HLC > clock || !ok && c.at >= made) {
			c.stream, c.former, c.lost = c.from, incarnation{r, was + 1}, true
			lost++
		}
	}
	w.say("%s starts on the disk of %s ago, and has lost %d changes that were shipped", m.name, w.now-made, lost)
	m.mem = copied
	m.boot()
	for until := w.now + askAtStart; w.now < until && w.newest(r) == was; {
		w.pause(20*time.Millisecond, 50*time.Millisecond)
	}
	w.still = false
	for !w.anew(r) {
		w.pause(50*time.Millisecond, 200*time.Millisecond)
	}
	w.say("%s is back, as incarnation %d", r.name, w.newest(r))
}

// loss is a stretch of time of which a region has lost what it did.
type loss struct {
	of            *regionOf
	since, before time.Duration
}

// whole tells whether nothing is broken at this moment.
func (w *world) whole() bool {
	return len(w.net.cuts) == 0 && !slices.ContainsFunc(w.nodes, func(m *machine) bool { return !m.goes && (!m.serves() || m.proc.paused) })
}

// table returns a node's shared table, nil while it is not open.
func (m *machine) table() *region.Table {
	for _, t := range m.engine.Region().Tables() {
		if t.Schema().Name == shared {
			return t
		}
	}
	return nil
}

// lossOf tells whether a region has lost anything.
func (w *world) lossOf(r *regionOf) bool {
	return slices.ContainsFunc(w.losses, func(l loss) bool { return l.of == r })
}

// lost tells whether an operation was one of those.
func (w *world) lost(o *operation) bool {
	for _, l := range w.losses {
		if o.region == l.of && o.returned >= l.since && o.invoked <= l.before {
			return true
		}
	}
	return false
}
