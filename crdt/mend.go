package crdt

import "bytes"

// Mend joins another region's state of the same writes, which should be equal and is not: something was lost in one of the two, or in each.
// What both still have between them r shows afterwards. It tells whether that is something else than before; where it is not, r is as it
// was. name and key are ShowKey's.
func (r *Record) Mend(d *Record, name string, key func() []byte) bool {
	if !r.seen.Contains(d.seen) || !d.seen.Contains(r.seen) {
		return false
	}
	whole := *r
	whole.join(d)
	whole.look()
	whole.ShowKey(name, key)
	before, was := r.Visible()
	after, is := whole.Visible()
	if was == is && bytes.Equal(before, after) {
		return false
	}
	*r = whole
	return true
}

// AppendDeleted appends the stored form of an item that was deleted, of which no more is known than its newest write.
func AppendDeleted(dst []byte, newest Dot) []byte {
	seen := Vector{floor: newest}
	r := Record{seen: seen, dead: assign{dot: newest, by: Origin{Op: Delete}, ctx: seen}}
	return r.Append(dst)
}
