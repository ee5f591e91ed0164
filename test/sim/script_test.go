package sim

import (
	"testing"
	"testing/cryptotest"
	"time"
)

// scripted is a world in which nothing breaks by itself, whose tables have one partition, and whose change logs come to their bound with a few
// writes. The script is run by a client's task.
func scripted(t *testing.T, regions, nodes int, script func(w *world)) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, 1)
	w := newWorld(1, Config{Regions: regions, Nodes: nodes, Families: []string{}}, nil)
	defer w.end()
	w.capped = true
	for _, r := range w.regions {
		r.partitions = 1
	}
	for _, m := range w.nodes {
		m.boot()
	}
	over := false
	w.clients.proc.Go(func() {
		w.setUp()
		script(w)
		over = true
	})
	if !w.runUntil(time.Hour, func() bool { return over || len(w.violations) > 0 }) {
		t.Error("the script is not over after an hour")
	}
	for _, v := range w.violations {
		t.Error(v)
	}
}
