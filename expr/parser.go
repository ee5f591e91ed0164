package expr

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// parser is a recursive-descent parser over one expression's tokens, with its depth and its number of
// operators bounded.
type parser struct {
	kind      string // such as "ConditionExpression"
	source    string
	toks      []token
	at        int
	ph        *Placeholders
	depth     int
	operators int
}

func newParser(kind, source string, ph *Placeholders) (*parser, error) {
	p := &parser{kind: kind, source: source, ph: ph}
	if strings.TrimSpace(source) == "" {
		return nil, p.errorf("The expression can not be empty;")
	}
	if len(source) > MaxSize {
		return nil, p.errorf("Expression size has exceeded the maximum allowed size; expression size: %d", len(source))
	}
	p.toks = lex(source)
	return p, nil
}

func (p *parser) errorf(format string, args ...any) error {
	return &Error{"Invalid " + p.kind + ": " + fmt.Sprintf(format, args...)}
}

func (p *parser) peek() token { return p.toks[p.at] }

func (p *parser) next() token {
	t := p.toks[p.at]
	if t.kind != tokEnd {
		p.at++
	}
	return t
}

// syntax is the error at the token to come: near gives it with its neighbours.
func (p *parser) syntax() error {
	t := p.peek()
	from, to := t.from, t.to
	if p.at > 0 {
		from = p.toks[p.at-1].from
	}
	if p.at+1 < len(p.toks) {
		to = p.toks[p.at+1].to
	}
	return p.errorf("Syntax error; token: %q, near: %q", t.text, p.source[from:to])
}

func (p *parser) is(text string) bool {
	t := p.peek()
	return t.kind == tokPunct && t.text == text
}

func (p *parser) keyword(word string) bool {
	t := p.peek()
	return t.kind == tokName && strings.EqualFold(t.text, word)
}

func (p *parser) take(text string) bool {
	if p.is(text) {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(text string) error {
	if !p.take(text) {
		return p.syntax()
	}
	return nil
}

func (p *parser) enter() error {
	p.depth++
	if p.depth > maxDepth {
		return p.errorf("The expression is nested too deeply;")
	}
	return nil
}

func (p *parser) operator() error {
	p.operators++
	if p.operators > MaxOperators {
		return p.errorf("The expression contains too many operators; operator count: %d", p.operators)
	}
	return nil
}

// condition parses a whole condition expression.
func (p *parser) condition() (node, error) {
	n, err := p.or()
	if err != nil {
		return n, err
	}
	if p.peek().kind != tokEnd {
		return n, p.syntax()
	}
	return n, nil
}

func (p *parser) or() (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer func() { p.depth-- }()
	left, err := p.and()
	for err == nil && p.keyword("OR") {
		p.at++
		if err = p.operator(); err != nil {
			break
		}
		var right node
		right, err = p.and()
		left = node{op: opOr, kids: []node{left, right}}
	}
	return left, err
}

func (p *parser) and() (node, error) {
	left, err := p.not()
	for err == nil && p.keyword("AND") {
		p.at++
		if err = p.operator(); err != nil {
			break
		}
		var right node
		right, err = p.not()
		left = node{op: opAnd, kids: []node{left, right}}
	}
	return left, err
}

func (p *parser) not() (node, error) {
	if !p.keyword("NOT") {
		return p.predicate()
	}
	p.at++
	if err := p.operator(); err != nil {
		return node{}, err
	}
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer func() { p.depth-- }()
	kid, err := p.not()
	return node{op: opNot, kids: []node{kid}}, err
}

var comparisons = map[string]Op{"=": OpEQ, "<>": OpNE, "<": OpLT, "<=": OpLE, ">": OpGT, ">=": OpGE}

var conditionFunctions = map[string]struct {
	op   Op
	args int
}{
	"attribute_exists": {opExists, 1}, "attribute_not_exists": {opNotExists, 1}, "attribute_type": {opType, 2},
	"begins_with": {OpBeginsWith, 2}, "contains": {opContains, 2},
}

func (p *parser) predicate() (node, error) {
	if p.is("(") {
		if n, ok, err := p.parenthesised(); ok || err != nil {
			return n, err
		}
	}
	if t := p.peek(); t.kind == tokName && p.toks[p.at+1].text == "(" && p.toks[p.at+1].kind == tokPunct && t.text != "size" {
		return p.function()
	}
	left, err := p.operand()
	if err != nil {
		return left, err
	}
	t := p.peek()
	if op, ok := comparisons[t.text]; ok && t.kind == tokPunct {
		p.at++
		if err := p.operator(); err != nil {
			return left, err
		}
		right, err := p.operand()
		return node{op: op, kids: []node{left, right}}, err
	}
	switch {
	case p.keyword("BETWEEN"):
		p.at++
		if err := p.operator(); err != nil {
			return left, err
		}
		low, err := p.operand()
		if err != nil {
			return left, err
		}
		if !p.keyword("AND") {
			return left, p.syntax()
		}
		p.at++
		high, err := p.operand()
		return node{op: OpBetween, kids: []node{left, low, high}}, err
	case p.keyword("IN"):
		p.at++
		if err := p.operator(); err != nil {
			return left, err
		}
		if err := p.expect("("); err != nil {
			return left, err
		}
		n := node{op: opIn, kids: []node{left}}
		for {
			kid, err := p.operand()
			if err != nil {
				return n, err
			}
			n.kids = append(n.kids, kid)
			if p.take(",") {
				continue
			}
			if err := p.expect(")"); err != nil {
				return n, err
			}
			if len(n.kids) > 101 {
				return n, p.errorf("Number of operands in IN exceeds limit of 100; number of operands: %d", len(n.kids)-1)
			}
			return n, nil
		}
	}
	return left, p.syntax()
}

// parenthesised parses a condition in parentheses. ok is false when what stands there is an operand in
// parentheses, as in (a) = :b.
func (p *parser) parenthesised() (n node, ok bool, err error) {
	start, operators := p.at, p.operators
	p.at++
	if p.operandEnds(start) {
		p.at, p.operators = start, operators
		return node{}, false, nil
	}
	inner := p.at
	n, err = p.or()
	if err != nil {
		return n, true, err
	}
	if err := p.expect(")"); err != nil {
		return n, true, err
	}
	// One level around anything is fine; two around the same thing are refused, as the service does.
	if p.toks[inner].text == "(" && p.closes(inner) == p.at-2 {
		return n, true, p.errorf("The expression has redundant parentheses;")
	}
	return n, true, nil
}

// closes returns the index of the token that closes the parenthesis at token i, or -1.
func (p *parser) closes(i int) int {
	depth := 0
	for ; i < len(p.toks); i++ {
		if p.toks[i].kind != tokPunct {
			continue
		}
		switch p.toks[i].text {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// operandEnds tells whether the parentheses that open at token i enclose a lone operand: behind them
// comes a comparison, BETWEEN, IN, or they hold no operator at all.
func (p *parser) operandEnds(i int) bool {
	end := p.closes(i)
	if end < 0 || end+1 >= len(p.toks) {
		return false
	}
	t := p.toks[end+1]
	if t.kind == tokPunct {
		_, ok := comparisons[t.text]
		return ok
	}
	return t.kind == tokName && (strings.EqualFold(t.text, "BETWEEN") || strings.EqualFold(t.text, "IN"))
}

func (p *parser) function() (node, error) {
	name := p.next().text
	p.at++ // (
	f, ok := conditionFunctions[name]
	if !ok {
		if _, update := updateFunctions[name]; update {
			return node{}, p.errorf("The function is not allowed in a condition expression; function: %s", name)
		}
		return node{}, p.errorf("Invalid function name; function: %s", name)
	}
	if err := p.operator(); err != nil {
		return node{}, err
	}
	n := node{op: f.op}
	var err error
	if n.kids, err = p.arguments(); err != nil {
		return n, err
	}
	if len(n.kids) != f.args {
		return n, p.arity(name, len(n.kids))
	}
	return n, nil
}

func (p *parser) arity(name string, n int) error {
	return p.errorf("Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, n)
}

// arguments parses operands up to the closing parenthesis.
func (p *parser) arguments() ([]node, error) {
	var out []node
	for {
		kid, err := p.operand()
		if err != nil {
			return nil, err
		}
		out = append(out, kid)
		if p.take(",") {
			continue
		}
		return out, p.expect(")")
	}
}

// operand parses a path, a value or size(path).
func (p *parser) operand() (node, error) {
	if p.is("(") {
		if err := p.enter(); err != nil {
			return node{}, err
		}
		defer func() { p.depth-- }()
		p.at++
		if p.is("(") {
			return node{}, p.errorf("The expression has redundant parentheses;")
		}
		n, err := p.operand()
		if err != nil {
			return n, err
		}
		return n, p.expect(")")
	}
	t := p.peek()
	switch t.kind {
	case tokColon:
		return p.value()
	case tokName:
		if p.toks[p.at+1].kind == tokPunct && p.toks[p.at+1].text == "(" {
			if t.text != "size" {
				if _, ok := conditionFunctions[t.text]; ok {
					return node{}, p.errorf("The function is not allowed to be used this way in an expression; function: %s", t.text)
				}
				if _, ok := updateFunctions[t.text]; ok {
					return node{}, p.errorf("The function is not allowed in a condition expression; function: %s", t.text)
				}
				return node{}, p.errorf("Invalid function name; function: %s", t.text)
			}
			p.at += 2
			if err := p.operator(); err != nil {
				return node{}, err
			}
			kids, err := p.arguments()
			if err != nil {
				return node{}, err
			}
			if len(kids) != 1 {
				return node{}, p.arity("size", len(kids))
			}
			return node{op: opSize, kids: kids}, nil
		}
		fallthrough
	case tokHash:
		path, err := p.path()
		return node{op: opPath, path: path}, err
	}
	return node{}, p.syntax()
}

func (p *parser) value() (node, error) {
	t := p.next()
	v, ok := p.ph.value(t.text)
	if !ok {
		return node{}, p.errorf("An expression attribute value used in expression is not defined; attribute value: %s", t.text)
	}
	return node{op: opValue, value: v}, nil
}

// path parses a document path: name(.name|[index])*.
func (p *parser) path() (item.Path, error) {
	name, err := p.pathName()
	if err != nil {
		return nil, err
	}
	path := item.Path{item.Named(name)}
	for {
		switch {
		case p.take("."):
			name, err := p.pathName()
			if err != nil {
				return nil, err
			}
			path = append(path, item.Named(name))
		case p.is("["):
			p.at++
			t := p.peek()
			if t.kind != tokIndex {
				return nil, p.syntax()
			}
			index, err := strconv.Atoi(t.text)
			if err != nil || index > 1<<31-1 {
				return nil, p.errorf("List index is not within the allowable range; index: [%s]", t.text)
			}
			p.at++
			if err := p.expect("]"); err != nil {
				return nil, err
			}
			path = append(path, item.At(index))
		default:
			if len(path) > 32 {
				return nil, p.errorf("The document path has too many nesting elements; nesting levels: %d", len(path))
			}
			return path, nil
		}
	}
}

func (p *parser) pathName() (string, error) {
	t := p.peek()
	switch t.kind {
	case tokName:
		if Reserved(t.text) {
			return "", p.errorf("Attribute name is a reserved keyword; reserved keyword: %s", t.text)
		}
		p.at++
		return t.text, nil
	case tokHash:
		p.at++
		name, ok := p.ph.name(t.text)
		if !ok {
			return "", p.errorf("An expression attribute name used in the document path is not defined; attribute name: %s", t.text)
		}
		return name, nil
	}
	return "", p.syntax()
}

// checkCondition refuses what parses but can never be meant: operands of types that their operator
// does not take, and bounds the wrong way round.
func (p *parser) checkCondition(n node) error {
	for _, kid := range n.kids {
		if err := p.checkCondition(kid); err != nil {
			return err
		}
	}
	switch n.op {
	case opExists, opNotExists:
		if n.kids[0].op != opPath {
			return p.errorf("Operator or function requires a document path; operator or function: %s", opNames[n.op])
		}
	case opSize:
		if k := n.kids[0]; k.op == opValue {
			switch k.value.Kind() {
			case item.KindN, item.KindBOOL, item.KindNULL:
				return p.operandType(opSize, k)
			}
		}
	case opType:
		k := n.kids[1]
		if k.op != opValue {
			return p.operandType(opType, k)
		}
		if k.value.Kind() != item.KindS {
			return p.operandType(opType, k)
		}
		if item.KindOf(k.value.Str()) == item.KindAbsent {
			return p.errorf("Invalid attribute type name found; type: %s, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}", k.value.Str())
		}
	case OpBeginsWith:
		for _, k := range n.kids {
			if k.op == opSize || k.op == opValue && k.value.Kind() != item.KindS && k.value.Kind() != item.KindB {
				return p.operandType(OpBeginsWith, k)
			}
		}
	case opContains:
		if samePath(n.kids[0], n.kids[1]) {
			return p.errorf("The first operand must be distinct from the remaining operands for this operator or function; operator: contains, first operand: %s", bracketed(n.kids[0].path))
		}
	case OpLT, OpLE, OpGT, OpGE:
		for _, k := range n.kids {
			if k.op == opValue && !k.value.Kind().IsKey() {
				return p.operandType(n.op, k)
			}
		}
		if samePath(n.kids[0], n.kids[1]) {
			return p.distinct(n)
		}
	case OpEQ, OpNE:
		if samePath(n.kids[0], n.kids[1]) {
			return p.distinct(n)
		}
	case OpBetween:
		for _, k := range n.kids {
			if k.op == opValue && !k.value.Kind().IsKey() {
				return p.operandType(n.op, k)
			}
		}
		low, high := n.kids[1], n.kids[2]
		if low.op == opValue && high.op == opValue {
			if low.value.Kind() != high.value.Kind() {
				return p.errorf("The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: %s, upper bound operand: AttributeValue: %s", show(low.value), show(high.value))
			}
			if item.Compare(low.value, high.value) > 0 {
				return p.errorf("The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: %s, upper bound operand: AttributeValue: %s", show(low.value), show(high.value))
			}
		}
	}
	return nil
}

func (p *parser) distinct(n node) error {
	return p.errorf("The first operand must be distinct from the remaining operands for this operator or function; operator: %s, first operand: %s", opNames[n.op], bracketed(n.kids[0].path))
}

func (p *parser) operandType(op Op, k node) error {
	kind := "N" // what size gives
	if k.op == opValue {
		kind = k.value.Kind().String()
	}
	if k.op == opPath {
		kind = "{PATH}"
	}
	return p.errorf("Incorrect operand type for operator or function; operator or function: %s, operand type: %s", opNames[op], kind)
}

func samePath(a, b node) bool {
	return a.op == opPath && b.op == opPath && comparePaths(a.path, b.path) == 0
}

// bracketed writes a path as messages do: [a, b, [0]].
func bracketed(path item.Path) string {
	parts := make([]string, len(path))
	for i, s := range path {
		parts[i] = s.Name
		if s.Index >= 0 {
			parts[i] = "[" + strconv.Itoa(s.Index) + "]"
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func show(v item.Value) string {
	if v.Kind() == item.KindN {
		return "{N:" + v.Number().String() + "}"
	}
	return "{" + v.Kind().String() + ":" + v.Str() + "}"
}
