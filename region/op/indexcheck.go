package op

import "github.com/commutatordb/commutator/table"

// IndexCheck asks to hold index rows against the rows that follow from the items.
type IndexCheck struct {
	From  []byte // Next of the result before; nil: from the beginning
	Limit int    // items and rows to look at, at most
}

// IndexCheckResult is what an IndexCheck found. A whole check is as many as it takes until Next is nil: each is of one moment, and no two
// of the same one.
type IndexCheckResult struct {
	Items, Rows int // looked at
	Differences []IndexDifference
	Next        []byte // where to go on; nil when all has been looked at
}

// IndexDifference is one row that is not what its item makes.
type IndexDifference struct {
	Index  string
	Reason IndexReason
	Key    table.Key // of the item; nil if what is wrong belongs to none
	Row    table.Key // of the row
}

// IndexReason says what is wrong with a row.
type IndexReason string

// The reasons.
const (
	RowMissing IndexReason = "missing" // the item is there, and its row is not
	RowStale   IndexReason = "stale"   // the row is there, and no item makes it
	RowDiffers IndexReason = "differs" // the row does not hold what the item makes it hold
	RowCount   IndexReason = "count"   // the number of rows, or their size, is not what was counted
)
