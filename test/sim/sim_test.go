package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"
)

func TestMain(m *testing.M) {
	// A seed lives a fraction of a second, and cores are scarcer than memory.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}

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
	cfg.Clients, cfg.HomeKeys, cfg.Think = env(t, "CLIENTS", 0), env(t, "HOMEKEYS", 0), time.Duration(env(t, "THINK", 0))*time.Millisecond
	if f := os.Getenv("FAMILIES"); f != "" {
		cfg.Families = strings.Split(f, ",")
	}
	if d := os.Getenv("CHAOS"); d != "" {
		var err error
		if cfg.Chaos, err = time.ParseDuration(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
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

// What a run of defaultSeeds must come to, so that it cannot quietly become an easy one.
const (
	defaultSeeds  = 1600
	shortSeeds    = 60
	faultsPerSeed = 200
	checkedInAll  = 200_000
)

// TestSeeds simulates SEEDS seeds from FROM on, in one process for each core, and replays one in fifty. SEED=n replays one, with its
// trace; REGIONS, NODES, FAMILIES and CHAOS (how long things break) choose what it would draw.
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
	or := defaultSeeds
	if testing.Short() {
		or = shortSeeds
	}
	seeds := env(t, "SEEDS", or)
	if seeds < 1 {
		t.Fatalf("SEEDS: %d is no number of seeds", seeds)
	}
	chosen(t) // refuse here what every process would refuse
	start := time.Now()
	total, violations, err := Many(t.Context(), share{From: env(t, "FROM", 1), Seeds: seeds, Replay: 50}, nil)
	if err != nil {
		t.Error(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
	total.Print(os.Stdout)
	t.Logf("%.1f seeds a second", float64(total.Seeds)/time.Since(start).Seconds())
	if total.Replayed*100 < total.Seeds {
		t.Errorf("%d of %d seeds replayed, want one in a hundred", total.Replayed, total.Seeds)
	}
	if seeds < defaultSeeds || os.Getenv("FAMILIES") != "" || os.Getenv("CHAOS") != "" || t.Failed() {
		return
	}
	if n := total.Total() / total.Seeds; n < faultsPerSeed {
		t.Errorf("%d faults a seed, want %d", n, faultsPerSeed)
	}
	if total.Checked < checkedInAll {
		t.Errorf("%d operations checked for linearizability, want %d", total.Checked, checkedInAll)
	}
	for _, m := range total.Unreached() {
		t.Errorf("never reached: %s", m)
	}
}

// TestShare is one process of Many.
func TestShare(t *testing.T) {
	text := os.Getenv(shareEnv)
	if text == "" {
		t.Skip("a part of TestSeeds")
	}
	var s share
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	cfg := chosen(t)
	if err := s.work(os.Stdout, func(seed uint64) Result { return run(t, seed, cfg, nil) }); err != nil {
		t.Fatal(err)
	}
}

// soak is what a long run leaves under docs/reliability.
type soak struct {
	Commit, Go, Began string
	Chaos             string `json:",omitempty"` // how long things broke in each seed, where it was not drawn
	Minutes           float64
	FirstSeed         int
	tally
	Violations []string
}

// TestSoak simulates SEEDS seeds from FROM on, or for SOAK (such as 3h), and writes what it came to into OUT.
func TestSoak(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("make soak runs it")
	}
	limit, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Fatal(err)
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=40").Output()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s := share{From: env(t, "FROM", 100_000), Seeds: env(t, "SEEDS", 1<<30), Replay: 100, Until: began.Add(limit)}
	write := func(total *Counts, violations []string) {
		out := soak{
			Commit: strings.TrimSpace(string(commit)), Go: runtime.Version(), Began: began.UTC().Format(time.RFC3339), Chaos: os.Getenv("CHAOS"),
			Minutes: time.Since(began).Minutes(), FirstSeed: s.From, tally: total.tally(), Violations: violations,
		}
		b, err := json.MarshalIndent(out, "", "  ")
		if err == nil {
			path := os.Getenv("OUT")
			os.MkdirAll(filepath.Dir(path), 0o755)
			err = os.WriteFile(path, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
	next := began
	total, violations, err := Many(t.Context(), s, func(total *Counts, violations []string) {
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Minute)
			fmt.Printf("%6.1f min: %d seeds, %d faults, %d violations\n", time.Since(began).Minutes(), total.Seeds, total.Total(), len(violations))
			write(total, violations)
		}
	})
	if err != nil {
		t.Error(err)
	}
	write(total, violations)
	total.Print(os.Stdout)
	for _, v := range violations {
		t.Error(v)
	}
}
