// Package expr owns the expression language: lexer, parser, checks and evaluation of condition, filter,
// projection, key-condition and update expressions. A parsed expression is data: it can be stored and
// read back (encode.go), since conditions and updates travel in a partition's log.
//
// It leaves what an item is to package item, and where conditions are evaluated to region/partition. It
// knows nothing of replicas or of time.
//
// Invariants: a parsed expression holds no placeholders; evaluation changes nothing and depends on the
// item alone. Every error a client's expression can cause is an *Error whose text is the service's own.
package expr

import (
	"fmt"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// Error is a fault in an expression, or in what it meets when evaluated. The API answers it as a
// ValidationException.
type Error struct {
	Message string
}

func (e *Error) Error() string { return e.Message }

// Limits of the language. Source: Developer Guide, "Quotas"; the parser's depth is our own bound on
// recursion, above any expression that the operator limit allows.
const (
	MaxSize      = 4096 // bytes of one expression
	MaxOperators = 300  // operators and functions in one expression
	maxDepth     = 320
)

// Op is what a node does. Its numbers are stored and must not change.
type Op uint8

// The operators and functions.
const (
	opPath        Op = 1
	opValue       Op = 2
	opSize        Op = 3
	OpEQ          Op = 10
	OpNE          Op = 11
	OpLT          Op = 12
	OpLE          Op = 13
	OpGT          Op = 14
	OpGE          Op = 15
	OpBetween     Op = 16
	opIn          Op = 17
	opExists      Op = 20
	opNotExists   Op = 21
	opType        Op = 22
	OpBeginsWith  Op = 23
	opContains    Op = 24
	opAnd         Op = 30
	opOr          Op = 31
	opNot         Op = 32
	opPlus        Op = 40
	opMinus       Op = 41
	opIfNotExists Op = 42
	opListAppend  Op = 43

	opUnknown Op = 255 // a function that is none; no expression that was taken has it
)

var opNames = map[Op]string{
	opSize: "size", OpEQ: "=", OpNE: "<>", OpLT: "<", OpLE: "<=", OpGT: ">", OpGE: ">=", OpBetween: "BETWEEN", opIn: "IN",
	opExists: "attribute_exists", opNotExists: "attribute_not_exists", opType: "attribute_type",
	OpBeginsWith: "begins_with", opContains: "contains", opAnd: "AND", opOr: "OR", opNot: "NOT",
	opPlus: "+", opMinus: "-", opIfNotExists: "if_not_exists", opListAppend: "list_append",
}

// node is one point of a parsed expression.
type node struct {
	op    Op
	path  item.Path   // opPath
	value *item.Value // opValue; it may be the placeholder's own
	kids  []node
}

// Condition is a parsed condition or filter expression.
type Condition struct{ root node }

// ParseCondition parses a condition or filter expression. kind is the parameter's name, such as
// "ConditionExpression", for messages.
func ParseCondition(kind, source string, ph *Placeholders) (*Condition, error) {
	p := parser{kind: kind, source: source, ph: ph}
	root, err := p.condition()
	if err != nil {
		return nil, err
	}
	return &Condition{root}, nil
}

// BuildCondition is ParseCondition for an expression that a program wrote: neither its length nor its number
// of operators is limited, its depth is.
func BuildCondition(source string, ph *Placeholders) (*Condition, error) {
	p := parser{kind: "condition", source: source, ph: ph, unbounded: true}
	root, err := p.condition()
	if err != nil {
		return nil, err
	}
	return &Condition{root}, nil
}

// Paths calls yield with the paths that the condition reads, each as often as it is read, until yield
// returns false. A nil Condition reads none.
func (c *Condition) Paths(yield func(item.Path) bool) {
	if c != nil {
		c.root.paths(yield)
	}
}

func (n *node) paths(yield func(item.Path) bool) bool {
	if n.op == opPath && !yield(n.path) {
		return false
	}
	for i := range n.kids {
		if !n.kids[i].paths(yield) {
			return false
		}
	}
	return true
}

// Eval tells whether the condition holds for an item; nil stands for an item that does not exist. A
// comparison of different types or with a missing attribute is false (<> is true).
func (c *Condition) Eval(it item.Item) bool { return c.root.eval(it) }

func (n *node) eval(it item.Item) bool {
	switch n.op {
	case opAnd:
		return n.kids[0].eval(it) && n.kids[1].eval(it)
	case opOr:
		return n.kids[0].eval(it) || n.kids[1].eval(it)
	case opNot:
		return !n.kids[0].eval(it)
	case opExists:
		return !n.kids[0].operand(it).IsAbsent()
	case opNotExists:
		return n.kids[0].operand(it).IsAbsent()
	case opType:
		v := n.kids[0].operand(it)
		return !v.IsAbsent() && v.Kind().String() == n.kids[1].operand(it).Str()
	case OpBetween:
		v := n.kids[0].operand(it)
		return compare(OpGE, v, n.kids[1].operand(it)) && compare(OpLE, v, n.kids[2].operand(it))
	case opIn:
		v := n.kids[0].operand(it)
		for i := range n.kids[1:] {
			if compare(OpEQ, v, n.kids[1+i].operand(it)) {
				return true
			}
		}
		return false
	case OpBeginsWith:
		v, prefix := n.kids[0].operand(it), n.kids[1].operand(it)
		return v.Kind() == prefix.Kind() && (v.Kind() == item.KindS || v.Kind() == item.KindB) && strings.HasPrefix(v.Str(), prefix.Str())
	case opContains:
		v, part := n.kids[0].operand(it), n.kids[1].operand(it)
		if v.Kind() == item.KindS || v.Kind() == item.KindB {
			return v.Kind() == part.Kind() && strings.Contains(v.Str(), part.Str())
		}
		return !part.IsAbsent() && v.Contains(part)
	default:
		return compare(n.op, n.kids[0].operand(it), n.kids[1].operand(it))
	}
}

// operand is the value of an operand of a condition.
func (n *node) operand(it item.Item) item.Value {
	switch n.op {
	case opPath:
		return it.Lookup(n.path)
	case opValue:
		return *n.value
	case opSize:
		v := n.kids[0].operand(it)
		switch v.Kind() {
		case item.KindAbsent, item.KindN, item.KindBOOL, item.KindNULL:
			return item.Value{}
		}
		return item.N(item.NumberFromInt(int64(v.Len())))
	}
	panic(fmt.Sprintf("expr: op %d is no operand", n.op))
}

func compare(op Op, a, b item.Value) bool {
	if a.IsAbsent() || b.IsAbsent() {
		return op == OpNE
	}
	switch op {
	case OpEQ:
		return item.Equal(a, b)
	case OpNE:
		return !item.Equal(a, b)
	}
	if a.Kind() != b.Kind() || !a.Kind().IsKey() {
		return false
	}
	c := item.Compare(a, b)
	switch op {
	case OpLT:
		return c < 0
	case OpLE:
		return c <= 0
	case OpGT:
		return c > 0
	case OpGE:
		return c >= 0
	}
	panic(fmt.Sprintf("expr: op %d is no comparison", op))
}
