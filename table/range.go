package table

import "github.com/commutatordb/commutator/item"

// HashKey returns what all keys with these partition-key values begin with: the hash and the ordered
// values. A table has one, a global index may have several.
func HashKey(values ...item.Value) Key {
	key := make(Key, HashSize, 64)
	for _, v := range values {
		key = v.AppendOrdered(key)
	}
	key.setHash(len(key))
	return key
}

// AfterPrefix returns the least key beyond all that begin with k, nil when there is none.
func (k Key) AfterPrefix() Key {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i] != 0xFF {
			out := append(Key(nil), k[:i+1]...)
			out[i]++
			return out
		}
	}
	return nil
}

// After returns the least key beyond k.
func (k Key) After() Key { return append(append(make(Key, 0, len(k)+1), k...), 0) }
