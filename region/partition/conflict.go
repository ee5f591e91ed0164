package partition

import (
	"encoding/json"
	"fmt"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// keep keeps the conflicts whose losing write was acknowledged by this region; the others are kept where
// theirs was.
func (m *Machine) keep(now crdt.HLC, key table.Key, conflicts []crdt.Conflict, b *storage.Batch) {
	for i := range conflicts {
		if conflicts[i].Loser.Dot.Actor != m.cfg.Actor || mutant.On(mutant.ConflictsForgotten) {
			continue
		}
		c := op.Conflict{ID: conflicts[i].ID(key), Key: key, Detected: now, Conflict: conflicts[i]}
		value, err := json.Marshal(c)
		if err != nil {
			panic(fmt.Sprintf("partition %d: conflict: %v", m.cfg.ID, err)) // plain data only
		}
		b.Set(keyenc.Conflict(nil, m.cfg.Table, uint64(c.Detected), c.ID[:]), value)
	}
}
