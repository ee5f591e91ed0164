//go:build mutants

package sim

import (
	"strings"
	"testing"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Goal: what one region has lost of another's writes, unnoticed by the stream that brought them, the regions find out
// themselves, and put right while merging still can. Method: a planted bug that drops changes and moves the cursor over them.
func TestChangesThatWereDroppedAreFoundAndBroughtBack(t *testing.T) {
	mutant.Set(mutant.MergeSkipsDelta)
	defer mutant.Set("")
	const found = "found its copy different"
	toldAll, healed := 0, 0
	for seed := uint64(1); seed <= 60 && (toldAll == 0 || healed == 0); seed++ {
		violations := run(t, seed, Config{Regions: 2, Nodes: 1, Families: []string{"far net"}}, nil).Violations
		told, other := false, false
		for _, v := range violations {
			told = told || strings.Contains(v, found)
			other = other || !strings.Contains(v, found)
		}
		if told {
			toldAll++
		}
		if told && !other {
			healed++ // in the end all regions show what the merge of all changes makes
		}
	}
	if toldAll == 0 || healed == 0 {
		t.Errorf("in %d seeds regions found what was dropped, in %d of them it came back", toldAll, healed)
	}
}
