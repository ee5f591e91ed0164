package rot

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

var (
	seed  = flag.Uint64("seed", 1, "of the damage")
	scale = flag.Float64("scale", 1, "how many flips, as a multiple of what make test does")
)

func newRand(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(*seed, stream)) }

func times(n int) int {
	if testing.Short() {
		n /= 10
	}
	return int(float64(n) * *scale)
}

// outcome is what came of one piece of damage.
type outcome string

const (
	open     outcome = "refused at open"
	read     outcome = "refused at read"
	scrub    outcome = "found by scrub"
	harmless outcome = "harmless"
	silent   outcome = "SILENT"
)

var outcomes = []outcome{open, read, scrub, harmless, silent}

// tally counts outcomes by kind of what was damaged.
type tally struct {
	mu    sync.Mutex
	count map[string]map[outcome]int
}

// add counts one, and fails the test for one that is silent. what says how to do it again.
func (c *tally) add(t *testing.T, kind string, o outcome, what string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[string]map[outcome]int{}
	}
	if c.count[kind] == nil {
		c.count[kind] = map[outcome]int{}
	}
	c.count[kind][o]++
	if o == silent {
		t.Errorf("%s: the data is another, and nothing says so (seed %d)", what, *seed)
	}
}

func (c *tally) total() (n int) {
	for _, by := range c.count {
		for _, k := range by {
			n += k
		}
	}
	return n
}

func (c *tally) log(t *testing.T, title string) {
	t.Helper()
	line := fmt.Sprintf("%-24s %7s", title, "all")
	for _, o := range outcomes {
		line += fmt.Sprintf(" %15s", o)
	}
	t.Log(line)
	for _, kind := range slices.Sorted(maps.Keys(c.count)) {
		all, line := 0, ""
		for _, o := range outcomes {
			all += c.count[kind][o]
			line += fmt.Sprintf(" %15d", c.count[kind][o])
		}
		t.Logf("%-24s %7d%s", kind, all, line)
	}
}

// flip returns data with one bit changed.
func flip(data []byte, off, bit int) []byte {
	data = slices.Clone(data)
	data[off] ^= 1 << bit
	return data
}
