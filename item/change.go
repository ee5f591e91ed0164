package item

// ChangeKind says what an edit means, so that an increment can stay an increment on its way to
// other regions. Source: MERGE.md, "Operations and what they become".
type ChangeKind uint8

// The kinds of edit. Their numbers are stored in deltas and must not change.
const (
	Assign         ChangeKind = 1 // the value at Path becomes Value; absent Value: removed
	Increment      ChangeKind = 2 // Value, a signed N, is added to the number at Path (0 where absent)
	AddElements    ChangeKind = 3 // Value, a set, is united with the set at Path
	RemoveElements ChangeKind = 4 // Value, a set, is taken from the set at Path
	Append         ChangeKind = 5 // Value, a list, goes behind the list at Path
)

// Change is one edit of an update expression. Path is a sequence of map keys, never empty and never
// through a list: a write to or below a list element is an Assign of the smallest enclosing path
// outside the list, with that path's whole new value.
type Change struct {
	Kind  ChangeKind
	Path  []string
	Value Value
}
