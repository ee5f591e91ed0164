package api

import (
	"strings"
	"testing"

	"github.com/commutatordb/commutator/table"
)

func TestInsightsAreOfWhatIsActive(t *testing.T) {
	d := &table.Definition{Status: table.Updating, Schema: table.Schema{Name: "t", Indexes: []table.Index{{Name: "ready", Global: true}, {Name: "filling", Global: true, Backfilling: true}, {Name: "local"}}}}
	creating := d.Clone()
	creating.Status = table.Creating
	for _, c := range []struct {
		d           *table.Definition
		index, want string
	}{
		{d, "", ""}, {d, "ready", ""}, {creating, "", "TableStatus must be ACTIVE"}, {creating, "ready", "TableStatus must be ACTIVE"},
		{d, "filling", "IndexStatus must be ACTIVE"}, {d, "local", "Index: local not found for table: t"}, {creating, "none", "Index: none not found"},
	} {
		err := enableable(c.d, c.index)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, index %q: %v, want %q", c.d.Status, c.index, err, c.want)
		}
	}
}
