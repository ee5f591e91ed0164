package expr

import (
	"strings"

	"github.com/commutatordb/commutator/item"
)

// KeyTerm is one part of a key condition: an attribute against one value, or two for BETWEEN.
type KeyTerm struct {
	Name string
	Op   Op          // OpEQ, OpLT, OpLE, OpGT, OpGE, OpBetween or OpBeginsWith
	A, B *item.Value // B: of OpBetween, else nil
}

// Holds tells whether the term holds for the attribute's value.
func (t *KeyTerm) Holds(v item.Value) bool {
	switch t.Op {
	case OpBetween:
		return compare(OpGE, v, *t.A) && compare(OpLE, v, *t.B)
	case OpBeginsWith:
		return v.Kind() == t.A.Kind() && strings.HasPrefix(v.Str(), t.A.Str())
	}
	return compare(t.Op, v, *t.A)
}

// ParseKeyCondition parses a key-condition expression into its terms, which all must hold. It shares
// the grammar of conditions and then refuses what a key condition may not have.
func ParseKeyCondition(source string, ph *Placeholders) ([]KeyTerm, error) {
	p := parser{kind: "KeyConditionExpression", source: source, ph: ph}
	root, err := p.condition()
	if err != nil {
		return nil, err
	}
	terms := make([]KeyTerm, 0, 2)
	if err := keyTerms(&terms, &root); err != nil {
		return nil, err
	}
	return terms, nil
}

func keyTerms(terms *[]KeyTerm, n *node) error {
	switch n.op {
	case opAnd:
		if err := keyTerms(terms, &n.kids[0]); err != nil {
			return err
		}
		return keyTerms(terms, &n.kids[1])
	case OpEQ, OpLT, OpLE, OpGT, OpGE, OpBetween, OpBeginsWith:
	default:
		return &Error{"Invalid operator used in KeyConditionExpression: " + opNames[n.op]}
	}
	if (n.op == OpBetween || n.op == OpBeginsWith) && n.kids[0].op != opPath {
		return &Error{"Invalid condition in KeyConditionExpression: " + opNames[n.op] + " operator must have the key attribute as its first operand"}
	}
	at := -1 // which operand the attribute is
	for i := range n.kids {
		switch n.kids[i].op {
		case opSize:
			return &Error{"KeyConditionExpressions cannot contain nested operations"}
		case opPath:
			if at >= 0 {
				return &Error{"Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"}
			}
			if len(n.kids[i].path) > 1 {
				return &Error{"KeyConditionExpressions cannot have conditions on nested attributes"}
			}
			at = i
		}
	}
	if at < 0 {
		return &Error{"Invalid condition in KeyConditionExpression: No key attribute specified"}
	}
	t := KeyTerm{Name: n.kids[at].path[0].Name, Op: n.op}
	if at == 0 {
		t.A = n.kids[1].value
	} else {
		t.Op, t.A = flipped(n.op), n.kids[0].value
	}
	if len(n.kids) == 3 {
		t.B = n.kids[2].value
	}
	for i := range *terms {
		if (*terms)[i].Name == t.Name {
			return &Error{"KeyConditionExpressions must only contain one condition per key"}
		}
	}
	*terms = append(*terms, t)
	return nil
}

// flipped is the operator of b op a, given that of a op b.
func flipped(op Op) Op {
	switch op {
	case OpLT:
		return OpGT
	case OpLE:
		return OpGE
	case OpGT:
		return OpLT
	case OpGE:
		return OpLE
	}
	return op
}
