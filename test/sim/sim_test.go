package sim

import (
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"
)

// run simulates one seed with the process's randomness under its rule.
func run(t *testing.T, seed uint64, cfg Config, out io.Writer) (result Result) {
	t.Run("seed", func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		result = Run(seed, cfg, out)
	})
	return result
}

// chosen is what the environment says of what a seed would draw.
func chosen(t *testing.T) Config {
	cfg := Config{Regions: env(t, "REGIONS", 0), Nodes: env(t, "NODES", 0)}
	if f := os.Getenv("FAMILIES"); f != "" {
		cfg.Families = strings.Split(f, ",")
	}
	return cfg
}

func env(t *testing.T, name string, or int) int {
	text := os.Getenv(name)
	if text == "" {
		return or
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestSeeds simulates SEEDS seeds from FROM on (default: from the first), and replays one in fifty. SEED=n replays one, with its trace.
func TestSeeds(t *testing.T) {
	if os.Getenv("SEED") != "" {
		seed := uint64(env(t, "SEED", 0))
		r := run(t, seed, chosen(t), os.Stdout)
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s", seed, v)
		}
		r.Count.Print(os.Stdout)
		t.Logf("trace %016x", r.Trace)
		return
	}
	seeds, from := env(t, "SEEDS", 20), env(t, "FROM", 1)
	total := newCounts()
	start := time.Now()
	failed := 0
	for i := range seeds {
		seed := uint64(from + i)
		r := run(t, seed, chosen(t), nil)
		total.Add(r.Count)
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s (replay: make sim SEED=%d)", seed, v, seed)
		}
		if len(r.Violations) > 0 {
			if failed++; failed >= 5 {
				t.Fatal("enough")
			}
			continue
		}
		if i%50 == 0 {
			again := run(t, seed, chosen(t), nil)
			total.Replayed++
			if again.Trace != r.Trace {
				t.Errorf("seed %d: replayed, it is another: trace %016x, then %016x", seed, r.Trace, again.Trace)
			}
		}
	}
	total.Print(os.Stdout)
	t.Logf("%.1f seeds a second", float64(seeds)/time.Since(start).Seconds())
}

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // a seed lives a fraction of a second, and two cores have more memory than time
	os.Exit(m.Run())
}
