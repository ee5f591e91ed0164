//go:build !nextformat

package format

// Known is the newest format that this program reads, and writes once every node of its region does.
const Known = 1
