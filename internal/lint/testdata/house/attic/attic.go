// Package attic is in no line of the table.
package attic // want: package "attic" has no room in the house
