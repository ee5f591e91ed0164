package api

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// Capacity is counted in half units, so that it stays whole: an eventually consistent read of up to 4 KB
// is one half, a write of up to 1 KB two.
// Source: Developer Guide, "DynamoDB read and write operations"; rounding as DYNAMODB.md §3 tells.
type halves int

// readUnits is what reading size bytes takes. Reading nothing takes as much as the first 4 KB.
func readUnits(size int, consistent bool) halves {
	units := halves(max(1, (size+4095)/4096))
	if consistent {
		return 2 * units
	}
	return units
}

// writeUnits is what a write takes whose larger image has this many bytes.
func writeUnits(size int) halves { return 2 * halves(max(1, (size+1023)/1024)) }

// consumption is what a request took of one table.
type consumption struct {
	name    string
	table   halves
	indexes []indexConsumption // sorted by name
}

type indexConsumption struct {
	name   string
	global bool
	taken  halves
}

func (c *consumption) add(index *table.Index, h halves) {
	if index == nil {
		c.table += h
		return
	}
	i, ok := slices.BinarySearchFunc(c.indexes, index.Name, func(x indexConsumption, name string) int { return strings.Compare(x.name, name) })
	if !ok {
		c.indexes = slices.Insert(c.indexes, i, indexConsumption{name: index.Name, global: index.Global})
	}
	c.indexes[i].taken += h
}

// addWrite counts a write that turned old into new, stored forms, nil for none.
func (c *consumption) addWrite(s *table.Schema, key table.Key, old, new []byte) {
	c.add(nil, writeUnits(max(sizeOf(old), sizeOf(new))))
	for i := range s.Indexes {
		x := &s.Indexes[i]
		was, is := s.RowKey(x, key, old), s.RowKey(x, key, new)
		switch {
		case was == nil && is == nil:
		case was == nil:
			c.add(x, writeUnits(sizeOf(s.Project(x, new))))
		case is == nil:
			c.add(x, writeUnits(sizeOf(s.Project(x, old))))
		case !bytes.Equal(was, is): // the old row goes, a new one comes
			c.add(x, writeUnits(sizeOf(s.Project(x, old)))+writeUnits(sizeOf(s.Project(x, new))))
		default:
			before, after := s.Project(x, old), s.Project(x, new)
			if !bytes.Equal(before, after) {
				c.add(x, writeUnits(max(sizeOf(before), sizeOf(after))))
			}
		}
	}
}

func sizeOf(stored []byte) int {
	if stored == nil {
		return 0
	}
	n, err := item.RawSize(stored)
	if err != nil {
		return 0 // a stored item is whole: its checksum was right
	}
	return n
}

func (c *consumption) total() halves {
	h := c.table
	for _, x := range c.indexes {
		h += x.taken
	}
	return h
}

// append writes a ConsumedCapacity.
func (c *consumption) append(dst []byte, withIndexes bool) []byte {
	dst = wire.AppendString(append(dst, `{"TableName":`...), c.name)
	dst = c.total().append(append(dst, `,"CapacityUnits":`...))
	if !withIndexes {
		return append(dst, '}')
	}
	dst = c.table.append(append(dst, `,"Table":{"CapacityUnits":`...))
	dst = append(dst, '}')
	dst = c.appendIndexes(dst, "LocalSecondaryIndexes", false)
	dst = c.appendIndexes(dst, "GlobalSecondaryIndexes", true)
	return append(dst, '}')
}

func (c *consumption) appendIndexes(dst []byte, member string, global bool) []byte {
	none := true
	for _, x := range c.indexes {
		if x.global != global {
			continue
		}
		if none {
			dst = append(append(append(dst, `,"`...), member...), `":{`...)
		} else {
			dst = append(dst, ',')
		}
		none = false
		dst = append(wire.AppendString(dst, x.name), `:{"CapacityUnits":`...)
		dst = append(x.taken.append(dst), '}')
	}
	if none {
		return dst
	}
	return append(dst, '}')
}

func (h halves) append(dst []byte) []byte {
	dst = strconv.AppendInt(dst, int64(h)/2, 10)
	if h%2 == 1 {
		return append(dst, ".5"...)
	}
	return append(dst, ".0"...)
}
