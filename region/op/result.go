package op

import (
	"errors"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/table"
)

// Result is what applying a command gives its proposer.
type Result struct {
	// Err is why the command changed nothing: a *ConditionFailed, an *expr.Error, a *table.KeyError, an
	// ErrUpdateTooLarge, an ErrNoIndex, or a *Stale of the catalog. A command that is refused is refused in every replica alike.
	Err error

	Old, New []byte   // the visible item before and after, stored form; nil for none
	Dot      crdt.Dot // of the write

	Applied   int       // Merge: deltas that were new
	Conflicts []Loss    // Merge: conflicts found
	More      bool      // Fold: there is more to fold at this stable time; Split, Prune: there is more to do
	Child     uint64    // Split: the partition that takes over from the key on with this very command
	Partition uint64    // of a write: who has carried it out
	Next      table.Key // Reindex, Forget: where to go on, nil at the end
	Revision  uint64    // Catalog: the row's new revision
	Given     []byte    // Close: what Absorb is to know
}

// Loss tells of a conflict who lost what against whom.
type Loss struct {
	Class         crdt.Class
	Winner, Loser crdt.Actor
}

// Errors of a command that this partition does not take any more.
var (
	// ErrFenced: it brings writes of an incarnation of a region that was given up.
	ErrFenced = errors.New("op: the other regions have gone on without who wrote this")
	// ErrClosed: what is here is of an incarnation that was given up. Its region begins anew.
	ErrClosed = errors.New("op: the other regions have gone on without this one, which begins anew")
	// ErrMoved: a key of the command's is another partition's now. Nothing of the command was carried out: whoever routes it looks again.
	ErrMoved = errors.New("op: the key is another partition's")
	// ErrBusy: the partition cannot be cut yet: an index is being filled, or rows are left of when it was cut last.
	ErrBusy = errors.New("op: the partition has other work to finish first")
	// ErrNotEmpty: the partition cannot be closed: it has items, or keeps what is left of items, changes that a region has not had, or conflict records.
	ErrNotEmpty = errors.New("op: the partition is not empty")
	// ErrLate: the command is of an attempt to merge that was given up, or is over.
	ErrLate = errors.New("op: the partition has heard of a later attempt")
)

// ConditionFailed says that a command's condition did not hold.
type ConditionFailed struct {
	Item []byte // the item it was held against, stored form; nil for none
}

func (*ConditionFailed) Error() string { return "The conditional request failed" }

// Stale says that a catalog row was not at the revision that its writer had read.
type Stale struct{ Revision uint64 }

func (*Stale) Error() string { return "op: the catalog row has changed meanwhile" }

// ErrUpdateTooLarge says that an update would make an item larger than MaxItemSize.
var ErrUpdateTooLarge = errors.New("Item size to update has exceeded the maximum allowed size")

// ErrNoIndex says that the partition does not follow a schema with that index: not yet, or not any more. It has no rows of it.
var ErrNoIndex = errors.New("op: the partition has no such index")

// MaxItemSize is the largest item a client may write, in bytes as item.Item.Size counts them.
const MaxItemSize = 400 << 10
