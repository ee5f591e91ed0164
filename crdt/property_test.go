package crdt

import (
	"flag"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The properties of MERGE.md, on random histories: regions that write, receive in any order that is FIFO
// for each origin, receive again, exchange whole states, join late and fold at their own stable times.
// Choices come from rapid, which shrinks a failure; -histories=N runs N more from seeds.

var histories = flag.Int("histories", 60, "random histories for each profile")
var firstSeed = flag.Uint64("seed", 1, "seed of the first of them")

// TestMain has every run draw the same histories, so that its outcome is the code's; -rapid.seed=0 draws others each time.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

type fromRapid struct{ t *rapid.T }

func (s fromRapid) pick(n int) int {
	if n <= 1 {
		return 0
	}
	return rapid.IntRange(0, n-1).Draw(s.t, "")
}

type fromSeed struct{ *rand.Rand }

func (s fromSeed) pick(n int) int { return s.IntN(n) }

var profiles = map[string]profile{
	"numbers":          {steps: 60, numbers: true, folds: true, shadow: true, oracle: true},
	"numbers, deletes": {steps: 60, numbers: true, deletes: true, folds: true, shadow: true, oracle: true, late: true},
	"typed":            {steps: 60, folds: true, shadow: true, oracle: true, late: true},
	"deletes":          {steps: 70, deletes: true, folds: true, shadow: true, oracle: true, late: true},
	"expiries":         {steps: 70, deletes: true, expiries: true, folds: true, shadow: true, oracle: true, late: true},
	"modes":            {steps: 60, deletes: true, modes: true, folds: true, shadow: true, oracle: true, late: true},
	"mixed":            {steps: 60, mixed: true, deletes: true, expiries: true, modes: true, folds: true, shadow: true, oracle: true, late: true},
	"wild":             {steps: 80, mixed: true, deletes: true, expiries: true, modes: true, folds: true, late: true},
	"hot":              {steps: 120, mixed: true, deletes: true, expiries: true, modes: true, folds: true, shadow: true, oracle: true, late: true, hot: true},
	"half hot":         {steps: 120, mixed: true, deletes: true, expiries: true, modes: true, folds: true, shadow: true, oracle: true, late: true, halfHot: true},
	"half hot, typed":  {steps: 120, folds: true, shadow: true, oracle: true, late: true, halfHot: true},
	"hot, typed":       {steps: 120, folds: true, shadow: true, oracle: true, late: true, hot: true},
	"unfolded":         {steps: 60, mixed: true, deletes: true, expiries: true, modes: true, shadow: true, oracle: true, late: true},
}

func run(src source, p profile) (w *world, err error) {
	w = newWorld(src, p)
	for range p.steps {
		if err = w.step(); err != nil {
			return w, err
		}
	}
	return w, w.settle()
}

func TestHistories(t *testing.T) {
	for name, p := range profiles {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				if w, err := run(fromRapid{t}, p); err != nil {
					t.Fatalf("%v\n%s", err, strings.Join(w.log, "\n"))
				}
			})
		})
	}
}

// A region that dropped its record, of an item deleted and expired, is equal to those that hold theirs when it is written anew.
func TestAnItemDeletedAndExpiredIsMadeAnewInEqualBytes(t *testing.T) {
	if w, err := run(fromSeed{rand.New(rand.NewPCG(104825, 1))}, profiles["mixed"]); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(w.log, "\n"))
	}
}

func TestSeededHistories(t *testing.T) {
	for name, p := range profiles {
		t.Run(name, func(t *testing.T) {
			checks, folded, trimmed, gone, combined := 0, 0, 0, 0, 0
			defer func() {
				t.Logf("%d checks, %d folds, %d pieces trimmed, %d records dropped, %d deltas combined", checks, folded, trimmed, gone, combined)
				if combined == 0 {
					t.Error("no deltas were combined")
				}
			}()
			for seed := *firstSeed; seed < *firstSeed+uint64(*histories); seed++ {
				w, err := run(fromSeed{rand.New(rand.NewPCG(seed, 1))}, p)
				if err != nil {
					t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(w.log, "\n"))
				}
				checks, folded, trimmed, gone, combined = checks+w.checks, folded+w.folded, trimmed+w.trimmed, gone+w.gone, combined+w.combined
			}
		})
	}
}
