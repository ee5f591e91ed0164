package replication

import "bytes"

// Range is the keys from Start up to End, nil for the end of the table: what a partition has. A partition may be cut while its stream goes
// on, or a copy is made of it; what is cut off is another, with a stream of its own. So whoever has to know of all that an origin
// has adds up what its partitions say of themselves.
type Range struct{ Start, End []byte }

// Covers tells whether ranges have every key there is among them.
func Covers(ranges []Range) bool {
	var at []byte
	for {
		next, found := at, false
		for _, r := range ranges {
			if bytes.Compare(r.Start, at) > 0 {
				continue
			}
			if r.End == nil {
				return true
			}
			if bytes.Compare(r.End, next) > 0 {
				next, found = r.End, true
			}
		}
		if !found {
			return false
		}
		at = next
	}
}
