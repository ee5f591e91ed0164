package sim

import (
	"context"
	"slices"
	"time"
)

// drawnFamilies are the families that a seed draws one to three of.
var drawnFamilies = []string{"near net", "far net", "crash", "pause", "clock", "disk", "archive", "region", "members", "away", "nodes", "removed", "old disk", "splits", "slow", "schema"}

// familyNames are all families. "placed" is asked for by name (make test does): regions of more nodes take a seed several times as long.
var familyNames = append(slices.Clone(drawnFamilies), "placed")

// draw chooses the families.
func (w *world) draw() {
	n := 1 + w.rng.IntN(3)
	for _, i := range w.rng.Perm(len(drawnFamilies))[:n] {
		w.families = append(w.families, drawnFamilies[i])
	}
	if w.cfg.Families != nil {
		w.families = w.cfg.Families
	}
	// Where nothing else keeps regions from each other for long.
	w.capped = len(w.regions) > 2 && w.chance(0.9) && slices.Contains(w.families, "away") && !slices.ContainsFunc(w.families, func(f string) bool {
		return !slices.Contains([]string{"away", "disk", "archive", "schema", "splits"}, f)
	})
}

// chaos begins to break things, until the given time. Whatever it breaks it mends, or heal does.
func (w *world) chaos(until time.Duration) {
	w.say("families %v", w.families)
	// A little of this is always there.
	w.net.near.late, w.net.far.late = 0.04, 0.06
	w.net.near.dup, w.net.far.dup = 0.03, 0.06
	w.net.last.loss = 0.005
	every := func(lo, hi time.Duration, f func()) {
		var again func()
		again = func() {
			if w.now >= until {
				return
			}
			if !w.still {
				f()
			}
			w.after(w.between(lo, hi), again)
		}
		w.after(w.between(lo/4, hi), again)
	}
	// Housekeeping that nobody orders in production, Pebble does it by size: here it may happen at any time.
	// The word that a flush is over may come when there is more in memory again, so it may as well come without one.
	for _, m := range w.nodes {
		every(500*time.Millisecond, 5*time.Second, func() {
			switch {
			case !m.up() || m.engine == nil:
			case w.chance(0.5):
				m.engine.Region().Flushed()
			default:
				w.count.fault(faultFlush)
				if err := m.engine.Store().Flush(); err != nil {
					w.violate("%s: flush: %v", m.name, err)
				}
				if w.chance(0.1) {
					w.count.fault(faultCompact)
					if err := m.engine.Store().Compact(); err != nil {
						w.violate("%s: compact: %v", m.name, err)
					}
				}
			}
		})
	}
	for _, f := range w.families {
		switch f {
		case "near net":
			w.net.near.loss = w.rng.Float64() * 0.15
			w.net.near.dup = w.rng.Float64() * 0.15
			w.net.near.late = w.rng.Float64() * 0.1
			w.net.last.loss = w.rng.Float64() * 0.05
			w.net.last.late = w.rng.Float64() * 0.05
			every(300*time.Millisecond, 4*time.Second, w.cutNear)
		case "far net":
			q := &w.net.far
			q.loss, q.dup, q.swap, q.late = w.rng.Float64()*0.1, w.rng.Float64()*0.2, w.rng.Float64()*0.1, w.rng.Float64()*0.2
			q.breaking, q.corrupt = w.rng.Float64()*0.05, w.rng.Float64()*0.05
			every(500*time.Millisecond, 5*time.Second, w.cutFar)
		case "crash":
			w.faithless = true
			every(500*time.Millisecond, 5*time.Second, func() { w.crashSome(w.anyNode()) })
		case "pause":
			every(300*time.Millisecond, 4*time.Second, w.pauseSome)
		case "clock":
			for _, m := range w.nodes {
				w.count.fault(faultSkew)
				m.proc.skew = w.between(-400*time.Millisecond, 400*time.Millisecond)
			}
			if w.chance(0.3) {
				w.count.fault(faultCoarse)
				for _, m := range w.nodes {
					m.proc.grain = []time.Duration{100 * time.Millisecond, time.Second}[w.rng.IntN(2)]
				}
			}
			every(500*time.Millisecond, 4*time.Second, w.jump)
		case "disk":
			w.rots = true
			every(time.Second, 6*time.Second, w.failWrite)
		case "archive":
			o := w.objects
			o.slow, o.fail, o.cut, o.flip, o.stale = w.rng.Float64()*0.3, w.rng.Float64()*0.2, w.rng.Float64()*0.1, w.rng.Float64()*0.1, w.rng.Float64()*0.1
		case "region":
			every(2*time.Second, 8*time.Second, w.regionDown)
		case "slow":
			every(time.Second, 6*time.Second, w.slowRegion)
		case "schema":
			w.working++
			w.clients.proc.Go(func() { w.changeSchemas(until); w.working-- })
		case "nodes":
			w.working++
			w.clients.proc.Go(func() { w.replaceNodes(until); w.working-- })
		case "placed":
			w.working++
			w.clients.proc.Go(func() { w.movePartitions(until); w.working-- })
		case "splits":
			w.reshard(until)
		}
	}
	if slices.Contains(w.families, "placed") && !slices.Contains(w.families, "splits") {
		w.reshard(until)
	}
	families := slices.DeleteFunc(slices.Clone(w.families), func(f string) bool { return !slices.Contains(reshaping, f) })
	for range max(1, len(w.regions)/2-1) { // at a time
		w.working++
		w.clients.proc.Go(func() { w.reshape(until, slices.Clone(families)); w.working-- })
	}
}

// reshard has partitions split, and empty ones merged, by hand.
func (w *world) reshard(until time.Duration) {
	w.working += 2
	w.clients.proc.Go(func() { w.splitByHand(until); w.working-- })
	w.clients.proc.Go(func() { w.mergeByHand(until); w.working-- })
}

func (w *world) anyNode() *machine { return w.nodes[w.rng.IntN(len(w.nodes))] }

func (w *world) cut(a, b *machine, on bool) {
	if on {
		w.net.cuts[[2]*machine{a, b}] = true
	} else {
		delete(w.net.cuts, [2]*machine{a, b})
	}
}

// mend undoes something later, unless everything is mended by then.
func (w *world) mend(after time.Duration, f func()) {
	w.after(after, func() {
		if !w.calm {
			f()
		}
	})
}

// cutNear cuts nodes of one region off from each other.
func (w *world) cutNear() {
	r := w.regions[w.rng.IntN(len(w.regions))]
	a := r.nodes[w.rng.IntN(len(r.nodes))]
	others := r.nodes
	oneWay := w.chance(0.4)
	switch {
	case len(r.nodes) == 1: // its clients
		others = []*machine{w.clients}
		w.count.fault(faultCutNode)
	case oneWay:
		others = []*machine{r.nodes[w.rng.IntN(len(r.nodes))]}
		w.count.fault(faultCutOneWay)
	case w.chance(0.5):
		others = []*machine{r.nodes[w.rng.IntN(len(r.nodes))]}
		w.count.fault(faultCutPair)
	default:
		w.count.fault(faultCutNode)
	}
	w.say("cut %s from %d of its region, one way: %v", a.name, len(others), oneWay)
	for _, b := range others {
		if a == b {
			continue
		}
		w.cut(a, b, true)
		if !oneWay {
			w.cut(b, a, true)
		}
		w.mend(w.between(100*time.Millisecond, 4*time.Second), func() { w.cut(a, b, false); w.cut(b, a, false) })
	}
}

// cutFar cuts regions off from each other.
func (w *world) cutFar() {
	a := w.regions[w.rng.IntN(len(w.regions))]
	var others []*regionOf
	for _, r := range w.regions {
		if r != a {
			others = append(others, r)
		}
	}
	oneWay := w.chance(0.3)
	flap := 1
	switch {
	case w.chance(0.4):
		w.count.fault(faultCutRegion)
	default:
		others = others[:1]
		if oneWay {
			w.count.fault(faultCutOneWay)
		} else {
			w.count.fault(faultCutPair)
		}
	}
	if w.chance(0.2) {
		w.count.fault(faultFlap)
		flap = 5
	}
	w.say("cut %s from %d regions, one way: %v, %d times", a.name, len(others), oneWay, flap)
	set := func(on bool) {
		for _, o := range others {
			for _, x := range a.nodes {
				for _, y := range o.nodes {
					w.cut(x, y, on)
					if !oneWay || !on {
						w.cut(y, x, on)
					}
				}
			}
		}
	}
	var next func(n int)
	next = func(n int) {
		set(true)
		w.mend(w.between(200*time.Millisecond, 5*time.Second)/time.Duration(flap), func() {
			set(false)
			if n > 1 {
				w.mend(w.between(20*time.Millisecond, 200*time.Millisecond), func() { next(n - 1) })
			}
		})
	}
	next(flap)
}

// slowRegion has everything between one region and the others take long: a round trip is a second or two.
func (w *world) slowRegion() {
	w.count.fault(faultSlow)
	w.net.slowed = w.regions[w.rng.IntN(len(w.regions))]
	lo := w.between(100*time.Millisecond, 500*time.Millisecond)
	w.net.slow = quality{delay: [2]time.Duration{lo, 2 * lo}, dup: w.net.far.dup}
	w.say("the ways to %s are slow: %s", w.net.slowed.name, lo)
	w.mend(w.between(time.Second, 5*time.Second), func() { w.net.slowed = nil })
}

// restart boots a node later.
func (w *world) restart(m *machine, after time.Duration) {
	w.mend(after, func() {
		if m.up() {
			return
		}
		m.bootRotten()
		if m.up() && w.chance(0.15) { // and once more, soon
			m.strike(1+w.rng.IntN(12), func() {
				w.count.fault(faultCrashEarly)
				m.crashAndRestart()
			})
		}
	})
}

// bootRotten starts the node, now and then with a bit of its disk flipped. Either it refuses, at once or when it reads
// everything back, and then the disk is mended and it starts again; or it goes on, and whatever it shows is held against the
// history as ever.
func (m *machine) bootRotten() {
	w := m.w
	if !w.rots || !w.chance(0.3) {
		m.boot()
		return
	}
	files := m.ours()
	name := files[w.rng.IntN(len(files))]
	b, _ := read(m.mem, name)
	if len(b) == 0 {
		m.boot()
		return
	}
	whole := again(m.mem)
	at := w.rng.IntN(len(b))
	b[at] ^= 1 << w.rng.IntN(8)
	write(m.mem, name, b)
	w.count.fault(faultFlip)
	err := m.start()
	if err == nil {
		_, err = m.engine.Store().Scrub(context.Background(), func(int) error { return nil })
		if err == nil {
			_, err = m.engine.Log().Scrub(context.Background(), func(int) error { return nil })
		}
		if err != nil {
			m.stop()
			m.drain()
			m.proc.kill()
			m.engine.Abandon()
		}
	}
	w.say("%s: a bit of %s flips at %d, refused: %v", m.name, name, at, err != nil)
	if err == nil {
		w.count.FlipsHarmless++
		return
	}
	w.count.FlipsRefused++
	m.mem = whole
	m.boot()
}

func (m *machine) crashAndRestart() {
	w := m.w
	w.restart(m, w.between(50*time.Millisecond, 3*time.Second))
	m.crash([]int{0, 50, 100, w.rng.IntN(101)}[w.rng.IntN(4)])
}

// strike has do called before the node's nth write from now, instead of which the disk then says that it failed.
func (m *machine) strike(nth int, do func()) {
	m.disk.armed = nth
	m.disk.strike = func() error {
		do()
		return errDisk
	}
}

func (w *world) crashSome(m *machine) {
	if !m.up() {
		return
	}
	switch x := w.rng.Float64(); {
	case x < 0.45:
		w.count.fault(faultCrash)
		m.crashAndRestart()
	case x < 0.85:
		m.strike(1+w.rng.IntN(30), func() {
			w.count.fault(faultCrashInWrite)
			m.crashAndRestart()
		})
	default:
		w.count.fault(faultStop)
		m.halt(func() {
			if w.calm {
				m.boot()
				return
			}
			w.restart(m, w.between(10*time.Millisecond, time.Second))
		})
	}
}

// promised has who has just given its vote crash at its next write, now and then.
func (m *machine) promised() {
	w := m.w
	if w.faithless && !w.calm && m.up() && w.chance(0.3) {
		m.strike(1+w.rng.IntN(2), func() {
			w.count.fault(faultCrashPromised)
			m.crashAndRestart()
		})
	}
}

func (w *world) pauseSome() {
	m := w.anyNode()
	if !m.up() || m.proc.paused {
		return
	}
	w.count.fault(faultPause)
	p, d := m.proc, w.between(50*time.Millisecond, 4*time.Second)
	w.say("%s pauses for %s", m.name, d)
	p.paused = true
	w.mend(d, func() { p.paused = false })
}

// jump sets a node's wall clock: a little ahead, or far back.
func (w *world) jump() {
	m := w.anyNode()
	w.count.fault(faultJump)
	d := w.between(-2*time.Second, 2*time.Second)
	if w.chance(0.1) {
		d = -w.between(0, 400*24*time.Hour)
	}
	w.say("%s's clock is off by %s", m.name, d)
	m.proc.skew = d
}

func (w *world) failWrite() {
	m := w.anyNode()
	if !m.up() {
		return
	}
	m.strike(1+w.rng.IntN(20), func() {
		w.count.fault(faultWriteFails)
		w.say("%s: a write fails", m.name)
		w.restart(m, w.between(50*time.Millisecond, 2*time.Second))
	})
}

// regionDown takes a whole region away, for some time.
func (w *world) regionDown() {
	r := w.regions[w.rng.IntN(len(w.regions))]
	w.count.fault(faultRegionDown)
	w.say("region %s goes down", r.name)
	d := w.between(500*time.Millisecond, 6*time.Second)
	for _, m := range r.nodes {
		if m.up() {
			m.crash([]int{0, 100, 50}[w.rng.IntN(3)])
			w.restart(m, d+w.between(0, time.Second))
		}
	}
}

// heal ends every fault.
func (w *world) heal() {
	w.say("heal")
	w.calm = true
	clear(w.net.cuts)
	w.net.slowed = nil
	for _, q := range []*quality{&w.net.near, &w.net.far, &w.net.last} {
		*q = quality{delay: q.delay}
	}
	o := w.objects
	o.slow, o.fail, o.cut, o.flip, o.stale = 0, 0, 0, 0, 0
	for _, m := range w.nodes {
		m.proc.paused = false
		m.proc.skew, m.proc.grain = 0, 0
		if m.disk != nil {
			m.disk.armed = 0
		}
		if !m.up() {
			m.boot()
		}
	}
}
