package expr

import (
	"strings"

	"github.com/commutatordb/commutator/item"
)

// KeyTerm is one part of a key condition: an attribute against one value, or two for BETWEEN.
type KeyTerm struct {
	Name string
	Op   Op // OpEQ, OpLT, OpLE, OpGT, OpGE, OpBetween or OpBeginsWith
	A, B item.Value
}

// Holds tells whether the term holds for the attribute's value.
func (t *KeyTerm) Holds(v item.Value) bool {
	switch t.Op {
	case OpBetween:
		return compare(OpGE, v, t.A) && compare(OpLE, v, t.B)
	case OpBeginsWith:
		return v.Kind() == t.A.Kind() && strings.HasPrefix(v.Str(), t.A.Str())
	}
	return compare(t.Op, v, t.A)
}

// ParseKeyCondition parses a key-condition expression into its terms, which all must hold. It shares
// the grammar of conditions and then refuses what a key condition may not have.
func ParseKeyCondition(source string, ph *Placeholders) ([]KeyTerm, error) {
	p, err := newParser("KeyConditionExpression", source, ph)
	if err != nil {
		return nil, err
	}
	root, err := p.condition()
	if err != nil {
		return nil, err
	}
	if err := p.checkCondition(root); err != nil {
		return nil, err
	}
	var terms []KeyTerm
	if err := p.keyTerms(&terms, root); err != nil {
		return nil, err
	}
	for i := range terms {
		n := 0
		for j := range terms {
			if terms[j].Name == terms[i].Name {
				n++
			}
		}
		if n > 1 {
			return nil, &Error{"KeyConditionExpressions must only contain one condition per key"}
		}
	}
	return terms, nil
}

func (p *parser) keyTerms(terms *[]KeyTerm, n node) error {
	switch n.op {
	case opAnd:
		if err := p.keyTerms(terms, n.kids[0]); err != nil {
			return err
		}
		return p.keyTerms(terms, n.kids[1])
	case OpEQ, OpLT, OpLE, OpGT, OpGE, OpBetween, OpBeginsWith:
	case opOr, opNot, OpNE, opIn, opExists, opNotExists, opType, opContains:
		return p.errorf("Invalid operator used in KeyConditionExpression: %s", opNames[n.op])
	}
	t := KeyTerm{Op: n.op}
	kids := n.kids
	if kids[0].op == opValue && kids[1].op == opPath && len(kids) == 2 && n.op != OpBeginsWith {
		kids = []node{kids[1], kids[0]}
		t.Op = flipped(n.op)
	}
	if kids[0].op == opSize {
		return p.errorf("KeyConditionExpressions cannot contain nested operations")
	}
	if kids[0].op != opPath {
		return p.errorf("Invalid condition in KeyConditionExpression: %s operator must have the key attribute as its first operand", opNames[n.op])
	}
	if len(kids[0].path) != 1 {
		return p.errorf("KeyConditionExpressions cannot have conditions on nested attributes")
	}
	t.Name = kids[0].path[0].Name
	for _, k := range kids[1:] {
		switch k.op {
		case opPath:
			return p.errorf("Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition")
		case opSize:
			return p.errorf("KeyConditionExpressions cannot contain nested operations")
		}
	}
	t.A = kids[1].value
	if len(kids) == 3 {
		t.B = kids[2].value
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
