// Package format numbers what this program writes: to its disk, to the other nodes of its region, to other regions.
//
// It owns the two numbers and nothing else; docs/format says what they cover. A change of any format makes a new number, and what is new is
// written only where region.Region.Format has come to it.
//
// Invariant: a number never changes its meaning.
package format

// Oldest is the oldest format that this program reads; Known, in known.go, the newest.
const Oldest = 1

// Reads tells whether this program reads a format.
func Reads(n int) bool { return n >= Oldest && n <= Known }
