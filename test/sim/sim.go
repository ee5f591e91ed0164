package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Config is what a run may choose; zero values are drawn by the seed or are the defaults.
type Config struct {
	Regions  int // 0: drawn, 2 to 5
	Nodes    int // of each region; 0: drawn, 1 to 3
	Clients  int // of each region; default 2
	Think    time.Duration
	Chaos    time.Duration // how long things break; default 4 to 10 s
	HomeKeys int
	Families []string // nil: drawn, 1 to 3
}

// check refuses what no run could be made of.
func (c *Config) check() error {
	for _, f := range c.Families {
		if !slices.Contains(familyNames, f) {
			return fmt.Errorf("there is no family of faults %q; there are %s", f, strings.Join(familyNames, ", "))
		}
	}
	switch {
	case c.Regions != 0 && (c.Regions < 2 || c.Regions > len(regionNames)):
		return fmt.Errorf("%d regions: from 2 to %d can be simulated", c.Regions, len(regionNames))
	case c.Nodes < 0 || c.Nodes > maxNodes:
		return fmt.Errorf("%d nodes of a region: from 1 to %d can be simulated", c.Nodes, maxNodes)
	case c.Chaos < 0 || c.Clients < 0 || c.Think < 0 || c.HomeKeys < 0:
		return errors.New("no setting may be negative")
	}
	return nil
}

// maxPartitions is how many partitions the tables of a simulated region may have.
const maxPartitions = 4

// maxNodes is how many nodes a simulated region may have.
const maxNodes = 5

// Result is what came of one seed.
type Result struct {
	Seed       uint64
	Trace      uint64 // the same for every run of the seed
	Violations []string
	Count      *Counts
	Log        []string
}

// Limits on what a healthy world needs, in simulated time.
const (
	setUpLimit  = 2 * time.Minute
	settleLimit = 2 * time.Minute
)

// Run simulates one seed. The caller has made crypto/rand deterministic for it: Raft and the nodes' identities draw from there.
// out, if not nil, gets the whole trace.
func Run(seed uint64, cfg Config, out io.Writer) (result Result) {
	if cfg.Clients == 0 {
		cfg.Clients = 2
	}
	if cfg.Think == 0 {
		cfg.Think = 120 * time.Millisecond
	}
	if cfg.HomeKeys == 0 {
		cfg.HomeKeys = 3
	}
	w := newWorld(seed, cfg, out)
	w.count.Seeds = 1
	defer func() {
		if r := recover(); r != nil {
			w.violate("panic: %v\n%s", r, debug.Stack())
		}
		w.end()
		w.count.Steps, w.count.SimSeconds = w.steps, w.now.Seconds()
		result = Result{Seed: seed, Trace: w.trace, Violations: w.violations, Count: w.count}
	}()
	w.run()
	return result
}

func (w *world) run() {
	for _, m := range w.nodes {
		m.boot()
	}
	p := w.clients.proc
	ready := false
	p.Go(func() { w.setUp(); ready, w.history.begun = true, true })
	if !w.runUntil(setUpLimit, func() bool { return ready || len(w.violations) > 0 }) {
		w.violate("the tables are not set up within %s", setUpLimit)
	}
	if len(w.violations) > 0 {
		return
	}
	chaos := w.cfg.Chaos
	switch {
	case chaos != 0:
	case w.capped:
		chaos = w.between(2*minAway, 4*minAway)
	default:
		chaos = w.between(4*time.Second, 10*time.Second)
	}
	until := w.now + chaos
	w.chaos(until)
	for _, r := range w.regions {
		for n := range w.cfg.Clients {
			w.working++
			p.Go(func() { w.client(r, n, until); w.working-- })
		}
	}
	if w.chance(0.3) {
		w.working++
		p.Go(func() { w.backups(until); w.working-- })
	}
	if w.chance(0.5) {
		w.working++
		p.Go(func() { w.audits(until); w.working-- })
	}
	w.runUntil(chaos, func() bool { return len(w.violations) > 0 })
	w.heal()
	if !w.runUntil(settleLimit, func() bool { return w.working == 0 || len(w.violations) > 0 }) {
		w.violate("clients still wait %s after everything is healed", settleLimit)
	}
	if len(w.violations) > 0 {
		return
	}
	w.check()
}

// end ends every process.
func (w *world) end() {
	defer func() {
		if r := recover(); r != nil {
			w.violate("panic at the end: %v\n%s", r, debug.Stack())
		}
	}()
	for _, m := range w.nodes {
		if m.up() {
			m.proc.kill()
			m.engine.Abandon()
		}
	}
	w.clients.proc.kill()
	w.retire()
	for w.Len() > 0 { // what was to be abandoned
		e := w.pop()
		if e.at <= w.now {
			e.do()
		}
	}
}

// backups backs solo up, restores it, and looks at what came of it, from a client's task.
func (w *world) backups(until time.Duration) {
	home := w.regions[0]
	p := w.clients.proc
	for n := 0; w.now < until; n++ {
		p.Wait(context.Background(), nil, w.between(200*time.Millisecond, 3*time.Second))
		to := home.nodes[w.rng.IntN(len(home.nodes))]
		began := w.now
		id, ok := w.job(to, "CreateBackup", fmt.Sprintf(`{"TableName":%q}`, solo), opBackup)
		if !ok {
			continue
		}
		name := fmt.Sprintf("restored-%d", n)
		if _, ok := w.job(to, "RestoreBackup", fmt.Sprintf(`{"BackupID":%q,"TableName":%q}`, id, name), opRestore); ok {
			w.restored = append(w.restored, restored{name, began})
			w.say("restored %s", name)
		}
	}
}

// restored is a table that a restore has made: it must have every item of solo whose put was acknowledged before the backup began.
type restored struct {
	name  string
	began time.Duration
}

// job starts a job of the operator's and waits for its end. It returns the backup's id.
func (w *world) job(to *machine, operation, body string, kind opKind) (id string, ok bool) {
	starts := to.starts
	how := unknown
	defer func() {
		w.count.Ops[kind][how]++
		for _, f := range w.families {
			w.count.Cells[cell(kind, f, how)]++
		}
	}()
	a := w.request(to, operator+operation, body)
	if !a.ok() {
		if a.err == nil && a.status < 500 {
			how = rejected
		}
		return "", false
	}
	job, _ := a.body["ID"].(string)
	for to.starts == starts {
		w.clients.proc.Wait(context.Background(), nil, 100*time.Millisecond)
		a := w.request(to, operator+"DescribeJob", fmt.Sprintf(`{"ID":%q}`, job))
		if !a.ok() {
			if !to.up() {
				return "", false
			}
			continue
		}
		switch a.body["Status"] {
		case "DONE":
			how = done
			id, _ = a.body["BackupID"].(string)
			return id, true
		case "FAILED":
			how = rejected
			w.say("%s failed: %v", operation, a.body["Error"])
			return "", false
		}
	}
	return "", false
}
