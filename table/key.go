package table

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/commutatordb/commutator/item"
)

// Key is where an item or an index row stands among its table's: the hash of the partition key, then
// the ordered bytes of the partition key and of the sort key (and, in an index row, of the item's own
// key, so that rows of different items never meet).
//
//	hash (8 bytes, big-endian), ordered partition key, [ordered sort key]
//
// Keys compare as bytes: partitions of a table are ranges of them.
type Key []byte

// HashSize is how many bytes of hash lead a Key.
const HashSize = 8

// Hash returns the 64-bit hash that leads a key whose partition key has these ordered bytes: XXH64,
// seed 0. It is part of the stored format.
func Hash(orderedPartition []byte) uint64 { return xxhash.Sum64(orderedPartition) }

// MaxPartitionKey and MaxSortKey are the limits of a key attribute's value, in bytes.
const (
	MaxPartitionKey = 2048
	MaxSortKey      = 1024
)

// KeyError says why a key cannot be had from an item. Its texts are the service's own.
type KeyError struct {
	Message string
	Update  string // what is said instead when an update expression made the item; "" for the same
}

func (e *KeyError) Error() string { return e.Message }

func keyErrorf(format string, args ...any) error {
	return &KeyError{Message: fmt.Sprintf(format, args...)}
}

// KeyOf returns the key of a stored item. It returns a KeyError when a key attribute is missing, of
// another type, empty or too long.
func (s *Schema) KeyOf(stored []byte) (Key, error) {
	key, err := appendPart(make(Key, HashSize, 64), stored, s.Hash, MaxPartitionKey)
	if err != nil {
		return nil, err
	}
	key.setHash(len(key))
	if s.HasRange() {
		return appendPart(key, stored, s.Range, MaxSortKey)
	}
	return key, nil
}

// KeyOfValues returns the key made of a partition key's value and, where the table has one, a sort
// key's. The values must be of the schema's types.
func (s *Schema) KeyOfValues(partition, sort item.Value) Key {
	key := Key(partition.AppendOrdered(make([]byte, HashSize, 64)))
	key.setHash(len(key))
	if s.HasRange() {
		key = sort.AppendOrdered(key)
	}
	return key
}

// Values takes a table's key apart.
func (s *Schema) Values(key Key) (item.Key, error) {
	if len(key) < HashSize {
		return item.Key{}, item.ErrOrdered
	}
	var k item.Key
	var err error
	rest := []byte(key[HashSize:])
	if k.Partition, rest, err = item.CutOrdered(rest, s.Hash.Kind); err != nil {
		return k, err
	}
	if s.HasRange() {
		if k.Sort, rest, err = item.CutOrdered(rest, s.Range.Kind); err != nil {
			return k, err
		}
	}
	if len(rest) > 0 {
		return k, item.ErrOrdered
	}
	return k, nil
}

// KeyItem returns an item of a key's attributes alone, in stored form.
func (s *Schema) KeyItem(key Key) ([]byte, error) {
	k, err := s.Values(key)
	if err != nil {
		return nil, err
	}
	it := item.NewItem(item.Field{Name: s.Hash.Name, Value: k.Partition})
	if s.HasRange() {
		it = it.With(s.Range.Name, k.Sort)
	}
	return item.AppendItem(nil, it), nil
}

// setHash fills in the hash of the ordered partition key, which ends at byte end.
func (k Key) setHash(end int) {
	h := Hash(k[HashSize:end])
	for i := range HashSize {
		k[i] = byte(h >> (56 - 8*i))
	}
}

func appendPart(key Key, stored []byte, a Attribute, limit int) (Key, error) {
	value := item.Attr(stored, a.Name)
	if value == nil {
		return nil, keyErrorf("One or more parameter values were invalid: Missing the key %s in the item", a.Name)
	}
	if kind := item.RawKind(value); kind != a.Kind {
		return nil, keyErrorf("One or more parameter values were invalid: Type mismatch for key %s expected: %s actual: %s", a.Name, a.Kind, kind)
	}
	if a.Kind != item.KindN {
		text, _, err := item.CutBytes(value[1:])
		if err != nil {
			return nil, err
		}
		if len(text) == 0 {
			return nil, keyErrorf("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty %s value. Key: %s", emptyName(a.Kind), a.Name)
		}
		if len(text) > limit {
			return nil, KeyTooLong(limit)
		}
	}
	return item.AppendRawOrdered(key, value)
}

// KeyTooLong is the KeyError for a partition key, or a sort key, that is longer than its limit.
func KeyTooLong(limit int) error {
	if limit == MaxPartitionKey {
		return keyErrorf("One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of%d bytes", limit)
	}
	return keyErrorf("One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of %d bytes", limit)
}

func emptyName(k item.Kind) string {
	if k == item.KindB {
		return "binary"
	}
	return "string"
}
