package region

import (
	"errors"

	"github.com/commutatordb/commutator/region/op"
)

// ErrFull refuses what would add to this node's data while SetFull says that there is no room for it. It had no effect.
var ErrFull = errors.New("region: the disk has too little space left: there are no writes until there is more. Reads go on")

// SetFull says whether this node's disk has room for more. While it has not, the node takes no writes of items, from clients, other regions
// or backups, nor from the nodes that lead its partitions; tables can still be deleted, which makes room.
func (r *Region) SetFull(full bool) { r.host.SetFull(full) }

// Full tells what SetFull said last.
func (r *Region) Full() bool { return r.host.Full() }

// roomFor returns ErrFull for a command that adds to the data of a partition here, while there is no room for more.
func (r *Region) roomFor(c *op.Command) error {
	if !r.Full() {
		return nil
	}
	switch c.Kind {
	case op.Put, op.Update, op.Delete, op.Merge, op.Mend, op.Restore:
		return ErrFull
	}
	return nil
}
