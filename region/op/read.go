package op

import (
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/table"
)

// Page asks for a run of items, or of index rows, in key order.
type Page struct {
	Index   *table.Index // nil: the table itself
	From    table.Key    // the least key of interest; nil: from the beginning
	To      table.Key    // the least key beyond; nil: to the end
	Reverse bool         // from the end to the beginning

	Filter *expr.Condition // what does not pass counts as looked at and is left out
	Limit  int             // items to look at, at most; 0 for no limit
	Bytes  int             // stop behind the item with which this many bytes have been looked at; 0 for no limit
}

// PageResult is what a Page found.
type PageResult struct {
	Items    [][]byte    // stored forms, in order
	Keys     []table.Key // of Items, in the table or the index
	Looked   int         // items looked at, those filtered out among them
	LookedAt int         // their size in bytes, by item.Item.Size
	Last     table.Key   // where it stopped short of the end; nil when there is no more
	LastItem []byte      // the item at Last, stored form
}
