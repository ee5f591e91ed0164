package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/commutatordb/commutator/table"
)

// fill writes to a region, and has it written to disk, for so long.
func (w *world) fill(r *regionOf, d time.Duration) {
	for until := w.now + d; w.now < until; w.pause(3*time.Second, 3*time.Second) {
		w.must(r, "PutItem", fmt.Sprintf(`{"TableName":%q,"Item":{"pk":{"S":"k-%d"},"x":{"S":"%0400d"}}}`, shared, w.rng.IntN(1000), 0))
		for _, m := range r.nodes {
			if err := m.engine.Store().Flush(); err != nil {
				w.violate("%s: flush: %v", m.name, err)
			}
		}
	}
}

// knows returns a region's word of another's replica.
func (w *world) knows(r, of *regionOf) (status table.Status, incarnation uint16) {
	d, err := r.nodes[0].engine.Region().Definition(shared)
	if err != nil || d.Replica(of.name) == nil {
		return "", 0
	}
	return d.Replica(of.name).Status, d.Replica(of.name).Incarnation
}

// kept returns how many entries a region's change logs have.
func (w *world) kept(r *regionOf) (n uint64) {
	for _, p := range r.nodes[0].table().Partitions() {
		n += p.State().Seq - p.State().Trimmed
	}
	return n
}

// Goal: at the bound of the change logs the others go on without a region that is away, not before it has been for MinAway, and their logs
// are cut; back, it begins anew by itself. Method: three regions of one and of three nodes, one of them cut off.
func TestAtTheBoundOfTheChangeLogsRegionsGoOnWithoutOneThatIsAway(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			scripted(t, 3, nodes, func(w *world) {
				home, other, away := w.regions[0], w.regions[1], w.regions[2]
				_, was := w.knows(home, away)
				w.cutOffRegion(away, true)
				w.fill(home, minAway-5*time.Second)
				if _, now := w.knows(home, away); now != was {
					w.violate("given up before it was away for %s", minAway)
				}
				if w.kept(home) == 0 {
					w.violate("a change log is cut that a region has not got")
				}
				w.fill(home, 3*minAway)
				for _, r := range []*regionOf{home, other} {
					if status, now := w.knows(r, away); now != was+1 || status != table.Stale {
						w.violate("%s has the region that is away as %s, incarnation %d; it was %d", r.name, status, now, was)
					}
				}
				w.pause(5*time.Second, 5*time.Second)
				if n := w.kept(home); n > 5 {
					w.violate("%d changes are kept, though nobody waits for them", n)
				}
				w.cutOffRegion(away, false)
				for until := w.now + time.Minute; !w.anew(away) && w.now < until; {
					w.pause(time.Second, time.Second)
				}
				if !w.anew(away) {
					w.violate("the region that was away has not begun anew a minute after it is back")
				}
			})
		})
	}
}

// Goal: a region that can be reached is waited for until the bound has been exceeded by a quarter for ten times MinAway, and then given up once;
// writes go on.
// Method: one whose clock is an hour behind holds what the others write.
func TestARegionWithinReachIsWaitedForBeyondTheBound(t *testing.T) {
	scripted(t, 3, 1, func(w *world) {
		home, slow := w.regions[0], w.regions[2]
		_, was := w.knows(home, slow)
		slow.nodes[0].proc.skew = -time.Hour
		w.fill(home, 9*minAway)
		if _, now := w.knows(home, slow); now != was {
			w.violate("a region within reach was given up within %s", 9*minAway)
		}
		w.fill(home, 4*minAway)
		if _, now := w.knows(home, slow); now != was+1 {
			w.violate("a region within reach is incarnation %d (was %d), long after the bound was exceeded", now, was)
		}
	})
}

// Goal: no side of a cut gives the other up that may not. Method: of two regions the second by name; and of three the one that is alone. Their
// logs grow, and they take writes.
func TestARegionAloneGivesNobodyUpThoughItsChangeLogsAreFull(t *testing.T) {
	for regions, alone := range map[int]int{2: 0, 3: 2} {
		t.Run(fmt.Sprintf("of %d", regions), func(t *testing.T) {
			scripted(t, regions, 1, func(w *world) {
				alone := w.regions[alone]
				w.cutOffRegion(alone, true)
				w.fill(alone, 15*minAway)
				for _, r := range w.regions {
					if status, now := w.knows(alone, r); now != 0 || status != table.Active {
						w.violate("%s has %s as %s, incarnation %d", alone.name, r.name, status, now)
					}
				}
				if n := w.kept(alone); n < uint64(3*minAway/time.Second) {
					w.violate("%d changes are kept", n)
				}
			})
		})
	}
}
