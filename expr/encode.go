package expr

import (
	"encoding/binary"
	"errors"

	"github.com/commutatordb/commutator/item"
)

// The stored form of a parsed expression, as commands in a partition's log carry it:
//
//	condition = node
//	update    = count, (section, path, node)...     no node for REMOVE
//	node      = op, then: opPath: path; opValue: item's stored value, with its length before it;
//	            any other: count, node...
//	path      = count, (index + 1, or 0 and then length, name)...
//
// Counts, lengths and indexes are uvarints.

// ErrEncoding says that bytes are not a stored expression.
var ErrEncoding = errors.New("expr: not a stored expression")

// Append appends the condition's stored form.
func (c *Condition) Append(dst []byte) []byte { return c.root.append(dst) }

// DecodeCondition takes a stored condition off the front of b.
func DecodeCondition(b []byte) (c *Condition, rest []byte, err error) {
	d := decoder{b: b}
	root := d.node(0)
	if d.bad || !root.isCondition() {
		return nil, nil, ErrEncoding
	}
	return &Condition{root}, d.b, nil
}

// Append appends the update's stored form.
func (u *Update) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(u.actions)))
	for i := range u.actions {
		a := &u.actions[i]
		dst = appendPath(append(dst, byte(a.section)), a.path)
		if a.section != sectionRemove {
			dst = a.value.append(dst)
		}
	}
	return dst
}

// DecodeUpdate takes a stored update off the front of b.
func DecodeUpdate(b []byte) (u *Update, rest []byte, err error) {
	d := decoder{b: b}
	u = &Update{}
	for n := d.count(); n > 0 && !d.bad; n-- {
		a := action{section: section(d.byte()), path: d.path()}
		if a.section < sectionSet || a.section > sectionDelete || len(a.path) == 0 || a.path[0].Index >= 0 {
			d.bad = true
			break
		}
		if a.section != sectionRemove {
			a.value = d.node(0)
			ok := a.value.isUpdateValue()
			if a.section != sectionSet {
				k := a.value.kind()
				ok = a.value.op == opValue && (k.IsSet() || a.section == sectionAdd && k == item.KindN)
			}
			d.bad = d.bad || !ok
		}
		u.actions = append(u.actions, a)
	}
	if d.bad {
		return nil, nil, ErrEncoding
	}
	return u, d.b, nil
}

func (n *node) append(dst []byte) []byte {
	dst = append(dst, byte(n.op))
	switch n.op {
	case opPath:
		return appendPath(dst, n.path)
	case opValue:
		v := item.AppendValue(nil, *n.value)
		dst = binary.AppendUvarint(dst, uint64(len(v)))
		return append(dst, v...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(n.kids)))
	for i := range n.kids {
		dst = n.kids[i].append(dst)
	}
	return dst
}

func appendPath(dst []byte, path item.Path) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(path)))
	for _, s := range path {
		if s.Index >= 0 {
			dst = binary.AppendUvarint(dst, uint64(s.Index)+1)
			continue
		}
		dst = binary.AppendUvarint(append(dst, 0), uint64(len(s.Name)))
		dst = append(dst, s.Name...)
	}
	return dst
}

// isCondition tells whether a decoded tree is one that the parser could have made, so that Eval never
// meets a node it does not know.
func (n *node) isCondition() bool {
	operands := true
	for i := range n.kids {
		operands = operands && n.kids[i].isOperand()
	}
	switch n.op {
	case opAnd, opOr:
		return len(n.kids) == 2 && n.kids[0].isCondition() && n.kids[1].isCondition()
	case opNot:
		return len(n.kids) == 1 && n.kids[0].isCondition()
	case opExists, opNotExists:
		return len(n.kids) == 1 && operands
	case OpBetween:
		return len(n.kids) == 3 && operands
	case opIn:
		return len(n.kids) >= 2 && operands
	case opType, OpBeginsWith, opContains, OpEQ, OpNE, OpLT, OpLE, OpGT, OpGE:
		return len(n.kids) == 2 && operands
	}
	return false
}

func (n *node) isOperand() bool {
	return n.op == opPath || n.op == opValue || n.op == opSize && len(n.kids) == 1 && n.kids[0].isOperand()
}

func (n *node) isUpdateValue() bool {
	switch n.op {
	case opPath, opValue:
		return true
	case opIfNotExists:
		return len(n.kids) == 2 && n.kids[0].op == opPath && n.kids[1].isUpdateValue()
	case opPlus, opMinus, opListAppend:
		return len(n.kids) == 2 && n.kids[0].isUpdateValue() && n.kids[1].isUpdateValue()
	}
	return false
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a count of things that take at least a byte each.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) path() item.Path {
	var path item.Path
	for n := d.count(); n > 0 && !d.bad; n-- {
		if i := d.uvarint(); i > 0 {
			if i > 1<<31 {
				d.bad = true
			}
			path = append(path, item.At(int(i-1)))
			continue
		}
		path = append(path, item.Named(string(d.bytes())))
	}
	return path
}

func (d *decoder) node(depth int) node {
	n := node{op: Op(d.byte())}
	if depth > maxDepth {
		d.bad = true
	}
	if d.bad {
		return n
	}
	switch n.op {
	case opPath:
		n.path = d.path()
		if len(n.path) == 0 || n.path[0].Index >= 0 {
			d.bad = true
		}
	case opValue:
		v, err := item.DecodeValue(d.bytes())
		if err != nil {
			d.bad = true
		}
		n.value = &v
	default:
		for k := d.count(); k > 0 && !d.bad; k-- {
			n.kids = append(n.kids, d.node(depth+1))
		}
	}
	return n
}
