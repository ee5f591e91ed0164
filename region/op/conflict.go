package op

import (
	"encoding/json"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/table"
)

// Conflict is a conflict record as it is kept: what was found, for which item, and when by this region's
// clock.
type Conflict struct {
	ID       [16]byte
	Key      table.Key
	Detected crdt.HLC
	Conflict crdt.Conflict
}

// DecodeConflict reads a conflict record as it is kept.
func DecodeConflict(b []byte) (Conflict, error) {
	var c Conflict
	err := json.Unmarshal(b, &c)
	return c, err
}
