package crdt

// Combine returns a delta that stands for two of one region's writes to an item, made one after the other: joined anywhere, it leaves
// what joining first and then second leaves. ok is false where that takes both: the second had seen something beside the first, or
// they are of different kinds, which a conflict record tells apart. Both are stored forms.
func Combine(first, second []byte) (combined []byte, ok bool, err error) {
	a, err := Decode(first)
	if err != nil {
		return nil, false, err
	}
	b, err := Decode(second)
	if err != nil {
		return nil, false, err
	}
	if !a.delta || !b.delta || a.by != b.by || a.by.Transaction.Items > 0 || a.Newest().Actor != b.Newest().Actor {
		return nil, false, nil
	}
	// What the first had seen, and the first: a folded record's floor is in the former alone.
	had := a.ctx
	if had.Join(a.seen); !b.ctx.Equal(had) {
		return nil, false, nil
	}
	by, ctx := a.by, a.ctx
	a.join(b)
	a.forget()
	a.delta, a.by, a.ctx = true, by, ctx
	return a.Append(nil), true, nil
}
