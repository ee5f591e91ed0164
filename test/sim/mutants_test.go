//go:build mutants

package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
)

// aimed are the bugs that the seeds as they are drawn take long to come across: with these choices they do sooner.
var aimed = map[mutant.Name]Config{
	mutant.StaleLeader:       {Families: []string{"pause"}, Regions: 2, Nodes: 3, Think: 60 * time.Millisecond, HomeKeys: 1},
	mutant.ReadBeforeApply:   {Families: []string{"near net"}, Regions: 2, Nodes: 3, Think: 60 * time.Millisecond, HomeKeys: 1, Clients: 4},
	mutant.SendBeforeLog:     {Families: []string{"crash"}, Regions: 2, Nodes: 3},
	mutant.TruncateApplied:   {Families: []string{"crash"}, Regions: 2, Nodes: 3},
	mutant.SnapshotKeepsRows: {Families: []string{"crash", "near net"}, Regions: 2, Nodes: 3},
	mutant.VoteNotPersisted:  {Families: []string{"crash"}, Regions: 2, Nodes: 3},
	mutant.TieByArrival:      {Families: []string{"clock"}, Regions: 2, Nodes: 1},
	mutant.ProgressFirst:     {Families: []string{"far net"}, Regions: 2, Nodes: 1},
	mutant.FencedTaken:       {Families: []string{"away", "far net"}, Regions: 3, Nodes: 1},
	mutant.NotMadeAgain:      {Families: []string{"away"}, Regions: 3, Nodes: 1},
	mutant.SettledAlone:      {Families: []string{"away", "far net"}, Regions: 3, Nodes: 1},
	mutant.FoldUnsettled:     {Families: []string{"away", "far net"}, Regions: 3, Nodes: 1},
	mutant.OldDiskTaken:      {Families: []string{"old disk"}, Regions: 3, Nodes: 1},
	mutant.WriteUnasked:      {Families: []string{"old disk"}, Regions: 3, Nodes: 1},
	mutant.RemovedUnfenced:   {Families: []string{"removed"}, Regions: 3, Nodes: 1},
	mutant.IndexUnfilled:     {Families: []string{"schema"}, Regions: 3, Nodes: 1},
	mutant.ProgressPastGap:   {Families: []string{"far net"}, Regions: 2, Nodes: 1},
	mutant.DraftNotKept:      {Families: []string{"splits"}, Regions: 2, Nodes: 1},
	mutant.ChildUnfolded:     {Families: []string{"splits"}, Regions: 2, Nodes: 1},
	mutant.ChildClockBehind:  {Families: []string{"splits", "clock"}, Regions: 2, Nodes: 1},
	mutant.ChildFirst:        {Families: []string{"splits", "far net"}, Regions: 2, Nodes: 1},
	mutant.CutNotFlushed:     {Families: []string{"splits", "crash"}, Regions: 2, Nodes: 3},
}

const (
	mutantSeeds = 1500 // what a bug may take
	drawnSeeds  = 20   // with seeds as they are drawn, before aiming; FULL=1: mutantSeeds
)

// caught is how a bug was found.
type caught struct {
	Name   mutant.Name
	Breaks string
	Check  string
	By     string `json:",omitempty"` // the test; of the simulator: what it said
	Seeds  int    `json:",omitempty"` // that the simulator took, as they are drawn; 0: more than Tried
	Tried  int    `json:",omitempty"`
	Aimed  int    `json:",omitempty"` // that it took with Config
	Config string `json:",omitempty"`
}

// TestEveryPlantedBugIsCaught switches on one planted bug after the other (MUTANT=name,... to choose) and looks for the first seed
// that tells, or runs the test that is to tell. OUT=file gets the table as JSON.
func TestEveryPlantedBugIsCaught(t *testing.T) {
	names := strings.FieldsFunc(os.Getenv("MUTANT"), func(r rune) bool { return r == ',' })
	for _, name := range names {
		if !slices.ContainsFunc(mutant.Planted, func(b mutant.Bug) bool { return string(b.Name) == name }) {
			t.Fatalf("MUTANT: there is no planted bug %q; internal/mutant lists them", name)
		}
	}
	var table []caught
	for _, b := range mutant.Planted {
		if len(names) > 0 && !slices.Contains(names, string(b.Name)) {
			continue
		}
		start := time.Now()
		c := caught{Name: b.Name, Breaks: b.Breaks, Check: b.Check}
		if b.Test != "" {
			c.By = caughtByTest(t, b)
		} else {
			caughtBySeeds(t, &c)
		}
		seeds := ""
		if c.Seeds > 0 {
			seeds = fmt.Sprintf("%d", c.Seeds)
		} else if c.Tried > 0 {
			seeds = fmt.Sprintf("> %d", c.Tried)
		}
		if c.Aimed > 0 {
			seeds += fmt.Sprintf(" (aimed: %d)", c.Aimed)
		}
		fmt.Printf("%-24s %5.1fs  seeds %-18s %.160s\n", c.Name, time.Since(start).Seconds(), seeds, c.By)
		if c.By == "" {
			t.Errorf("%s is not caught: %s", b.Name, b.Breaks)
		}
		table = append(table, c)
	}
	if out := os.Getenv("OUT"); out != "" {
		commit, _ := exec.CommandContext(t.Context(), "git", "describe", "--always", "--dirty", "--abbrev=40").Output()
		b, err := json.MarshalIndent(struct {
			Commit string
			Bugs   []caught
		}{strings.TrimSpace(string(commit)), table}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func caughtBySeeds(t *testing.T, c *caught) {
	mutant.Set(c.Name)
	defer mutant.Set("")
	try := func(cfg Config, budget int) int {
		from := env(t, "FROM", 1)
		for seed := from; seed < from+budget; seed++ {
			if r := run(t, uint64(seed), cfg, nil); len(r.Violations) > 0 {
				c.By, _, _ = strings.Cut(r.Violations[0], "\n")
				c.By = c.By[:min(len(c.By), 200)]
				return seed
			}
		}
		return 0
	}
	cfg, aim := aimed[c.Name]
	budget := mutantSeeds
	if aim && os.Getenv("FULL") == "" {
		budget = env(t, "DRAWN", drawnSeeds)
	}
	if n := env(t, "SEEDS", 0); n > 0 {
		budget = n
	}
	c.Seeds = try(chosen(t), budget)
	if c.Seeds == 0 {
		c.Tried = budget
	}
	if aim && c.Seeds == 0 {
		c.Aimed, c.Config = try(cfg, mutantSeeds), fmt.Sprintf("%+v", cfg)
	}
}

// binaries are the compiled tests, by package.
var binaries = map[string]string{}

// caughtByTest runs the bug's test with and without it, and returns the test's name if it fails with it alone.
func caughtByTest(t *testing.T, b mutant.Bug) string {
	dir, err := filepath.Abs(filepath.Join("..", "..", b.Package))
	if err != nil {
		t.Fatal(err)
	}
	binary := binaries[b.Package]
	if binary == "" {
		binary = filepath.Join(t.TempDir(), strings.ReplaceAll(b.Package, "/", "-")+".test")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "mutants", "-o", binary, ".")
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", b.Package, err, out)
		}
		binaries[b.Package] = binary
	}
	passes := func(name mutant.Name) (bool, []byte) {
		test := exec.CommandContext(t.Context(), binary, "-test.run", "^("+b.Test+")$", "-test.short", "-test.v")
		test.Dir, test.Env = dir, append(os.Environ(), mutant.Variable+"="+string(name))
		out, err := test.CombinedOutput()
		if !bytes.Contains(out, []byte("=== RUN")) {
			t.Fatalf("%s has no test %s: %v\n%s", b.Package, b.Test, err, out)
		}
		return err == nil, out
	}
	if ok, _ := passes(b.Name); ok {
		return ""
	}
	if ok, out := passes(""); !ok {
		t.Errorf("%s of %s fails without a bug:\n%s", b.Test, b.Package, out)
		return ""
	}
	return b.Package + "." + b.Test
}
