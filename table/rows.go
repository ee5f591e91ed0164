package table

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/commutatordb/commutator/item"
)

// Row is one row of a secondary index: where it stands, and the projected item before and after.
type Row struct {
	Index uint32
	Key   Key    // of the index: hash, index key, then the item's own ordered key
	Item  []byte // stored form, projected; nil: the row goes
	Was   []byte // likewise; nil: there was none
}

// Rows appends the changes of index rows that follow when an item turns from old to new (stored forms,
// nil for none). key is the item's own. A row whose projected bytes stay the same is not written.
func (s *Schema) Rows(dst []Row, key Key, old, new []byte) []Row {
	for i := range s.Indexes {
		x := &s.Indexes[i]
		oldKey, newKey := s.RowKey(x, key, old), s.RowKey(x, key, new)
		var was, is []byte
		if oldKey != nil {
			was = s.Project(x, old)
		}
		if newKey != nil {
			is = s.Project(x, new)
		}
		switch {
		case bytes.Equal(oldKey, newKey):
			if !bytes.Equal(was, is) {
				dst = append(dst, Row{Index: x.ID, Key: newKey, Item: is, Was: was})
			}
			continue
		case oldKey != nil:
			dst = append(dst, Row{Index: x.ID, Key: oldKey, Was: was})
		}
		if newKey != nil {
			dst = append(dst, Row{Index: x.ID, Key: newKey, Item: is})
		}
	}
	return dst
}

// RowKey returns the key of the item's row in an index, or nil when the item has none: an index
// attribute is missing, of another type, empty or too long (an item merged from several regions may be
// like that; a client's own write is refused before).
func (s *Schema) RowKey(x *Index, key Key, stored []byte) Key {
	if stored == nil {
		return nil
	}
	row := make(Key, HashSize, len(key)+64)
	var err error
	for _, a := range x.Hash {
		if row, err = appendPart(row, stored, a, MaxPartitionKey); err != nil {
			return nil
		}
	}
	row.setHash(len(row))
	for _, a := range x.Range {
		if row, err = appendPart(row, stored, a, MaxSortKey); err != nil {
			return nil
		}
	}
	return append(row, key[HashSize:]...)
}

// CheckIndexKeys returns a KeyError when an index key attribute of a stored item is there but has a
// value that no row can carry: another type, empty, or too long. An attribute that is as it was in old,
// nil for no item, is not looked at: an index that came after the item has passed over it, and what is
// written beside it is no concern of the index.
func (s *Schema) CheckIndexKeys(old, stored []byte) error {
	for i := range s.Indexes {
		x := &s.Indexes[i]
		for _, a := range x.Hash {
			if err := checkIndexKey(x, a, old, stored, MaxPartitionKey); err != nil {
				return err
			}
		}
		for _, a := range x.Range {
			if err := checkIndexKey(x, a, old, stored, MaxSortKey); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkIndexKey(x *Index, a Attribute, old, stored []byte, limit int) error {
	value := item.Attr(stored, a.Name)
	if value == nil || old != nil && bytes.Equal(value, item.Attr(old, a.Name)) {
		return nil
	}
	if kind := item.RawKind(value); kind != a.Kind {
		return &KeyError{
			fmt.Sprintf("One or more parameter values were invalid: Type mismatch for Index Key %s Expected: %s Actual: %s IndexName: %s", a.Name, a.Kind, kind, x.Name),
			"The update expression attempted to update the secondary index key to unsupported type",
		}
	}
	if a.Kind == item.KindN {
		return nil
	}
	text, _, err := item.CutBytes(value[1:])
	if err != nil {
		return err
	}
	if len(text) == 0 {
		why := fmt.Sprintf("The AttributeValue for a key attribute cannot contain an empty %s value. IndexName: %s, IndexKey: %s", emptyName(a.Kind), x.Name, a.Name)
		return &KeyError{
			"One or more parameter values are not valid. A value specified for a secondary index key is not supported. " + why,
			"One or more parameter values are not valid. The update expression attempted to update a secondary index key to a value that is not supported. " + why,
		}
	}
	if len(text) > limit {
		return &KeyError{
			fmt.Sprintf("One or more parameter values were invalid: Size of index key %s has exceeded the maximum size limit of %d bytes; IndexName: %s", a.Name, limit, x.Name),
			"The update expression attempted to update the secondary index key beyond allowed size limits",
		}
	}
	return nil
}

// Project returns what an index row carries of an item, in stored form. It may return stored itself.
func (s *Schema) Project(x *Index, stored []byte) []byte {
	if x.Projection == ProjectAll {
		return stored
	}
	n, rest, err := item.CutCount(stored)
	if err != nil {
		return nil
	}
	kept := 0
	fields := make([]byte, 0, len(rest))
	for ; n > 0; n-- {
		name, _, after, err := item.CutField(rest)
		if err != nil {
			return nil
		}
		if s.projects(x, string(name)) {
			kept++
			fields = append(fields, rest[:len(rest)-len(after)]...)
		}
		rest = after
	}
	return append(binary.AppendUvarint(make([]byte, 0, len(fields)+2), uint64(kept)), fields...)
}

// Projects tells whether rows of the index carry the named top-level attribute.
func (s *Schema) Projects(x *Index, name string) bool {
	return x.Projection == ProjectAll || s.projects(x, name)
}

func (s *Schema) projects(x *Index, name string) bool {
	if name == s.Hash.Name || name == s.Range.Name {
		return true
	}
	for _, a := range x.Hash {
		if a.Name == name {
			return true
		}
	}
	for _, a := range x.Range {
		if a.Name == name {
			return true
		}
	}
	for _, include := range x.Include {
		if include == name && x.Projection == ProjectInclude {
			return true
		}
	}
	return false
}
