package crdt

import "github.com/commutatordb/commutator/item"

// ShowKey gives the record its Key, made by key, if the item that it shows lacks the key attribute of
// that name: the write that created the item has not arrived yet.
func (r *Record) ShowKey(name string, key func() []byte) {
	if shown, ok := r.Visible(); ok && item.Attr(shown, name) == nil {
		r.Key = key()
		r.forget()
	}
}
