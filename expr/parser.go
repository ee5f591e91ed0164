package expr

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// parser is a recursive-descent parser over one expression, with its depth and its number of operators
// bounded. What does not follow the grammar ends it. Whatever else is wrong is noted as a fault, and the
// faults are complained of in the service's order once the whole expression was read.
// Source of the order: answers of the service that the emulator dynalite was written against.
type parser struct {
	kind      string // such as "ConditionExpression"
	source    string
	ph        *Placeholders
	unbounded bool  // the expression is a program's, not a client's: it may be of any length
	tok, prev token // the token to come and the one before it
	depth     int
	operators int
	faults    *[faultKinds]error // the first of each kind; nil while there is none

	group struct{ from, to int } // where the parentheses that closed last stand
}

// faultKind is a kind of fault that is no error of syntax.
type faultKind uint8

const (
	faultParens    faultKind = iota
	faultFunction            // not a function, or not of this kind of expression
	faultMisused             // a function that stands where it may not
	faultReserved            // a reserved word
	faultSection             // a section of an update, twice
	faultName                // a # that is not defined; in conditions, a : too
	faultValue               // a : that is not defined
	faultOverlap             // paths that overlap
	faultConflict            // paths that conflict
	faultArity               // operands missing or too many
	faultDistinct            // operands that are the same
	faultOperand             // an operand of ADD or DELETE of a wrong type
	faultType                // any other operand of a wrong type
	faultCondition           // the first condition's fault, of the kinds name, arity, distinct and type
	faultKinds
)

func (p *parser) note(kind faultKind, format string, args ...any) {
	if p.faults == nil {
		p.faults = new([faultKinds]error)
	}
	if p.faults[kind] == nil {
		p.faults[kind] = p.errorf(format, args...)
	}
}

// fault returns the first fault there is, of kinds in their order.
func (p *parser) fault(kinds ...faultKind) error {
	if p.faults == nil {
		return nil
	}
	for _, k := range kinds {
		if p.faults[k] != nil {
			return p.faults[k]
		}
	}
	return nil
}

// start checks the expression's size and reads its first token.
func (p *parser) start() error {
	if strings.TrimSpace(p.source) == "" {
		return p.errorf("The expression can not be empty;")
	}
	if len(p.source) > MaxSize && !p.unbounded {
		return p.errorf("Expression size has exceeded the maximum allowed size; expression size: %d", len(p.source))
	}
	p.tok = scan(p.source, 0)
	return nil
}

func (p *parser) errorf(format string, args ...any) error {
	return &Error{"Invalid " + p.kind + ": " + fmt.Sprintf(format, args...)}
}

func (p *parser) next() {
	p.prev = p.tok
	p.tok = scan(p.source, p.tok.to)
}

func (p *parser) text(t token) string { return p.source[t.from:t.to] }

// syntax is the error at the token to come: near gives it with its neighbours.
func (p *parser) syntax() error {
	text, from, to := p.text(p.tok), p.tok.from, p.tok.to
	if p.prev.kind != tokNone {
		from = p.prev.from
	}
	if p.tok.kind == tokEnd {
		text, to = "<EOF>", p.prev.to
	} else if after := scan(p.source, p.tok.to); after.kind != tokEnd {
		to = after.to
	}
	return p.errorf("Syntax error; token: \"%s\", near: \"%s\"", text, p.source[from:to])
}

func (p *parser) is(punct byte) bool { return p.tok.kind == tokPunct && p.tok.punct == punct }

func (p *parser) keyword(word string) bool {
	return p.tok.kind == tokName && p.tok.to-p.tok.from == len(word) && strings.EqualFold(p.text(p.tok), word)
}

// call tells whether the token to come is a function's name: a parenthesis follows.
func (p *parser) call() bool {
	if p.tok.kind != tokName {
		return false
	}
	for i := p.tok.to; i < len(p.source); i++ {
		switch p.source[i] {
		case '(':
			return true
		case ' ', '\t', '\n', '\r':
		default:
			return false
		}
	}
	return false
}

func (p *parser) take(punct byte) bool {
	if p.is(punct) {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(punct byte) error {
	if !p.take(punct) {
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
	if p.operators > MaxOperators && !p.unbounded {
		return p.errorf("The expression contains too many operators; operator count: %d", p.operators)
	}
	return nil
}

// operands returns memory for some nodes.
func (p *parser) operands(kids ...node) []node {
	m := &p.ph.memory
	if cap(m.nodes)-len(m.nodes) < len(kids) {
		m.nodes = make([]node, 0, max(8, len(kids)))
	}
	at := len(m.nodes)
	m.nodes = append(m.nodes, kids...)
	return m.nodes[at:len(m.nodes):len(m.nodes)]
}

// condition parses a whole condition expression.
func (p *parser) condition() (node, error) {
	if err := p.start(); err != nil {
		return node{}, err
	}
	n, err := p.or(false)
	if err != nil {
		return n, err
	}
	if p.tok.kind != tokEnd {
		return n, p.syntax()
	}
	return n, p.fault(faultParens, faultFunction, faultMisused, faultReserved, faultCondition)
}

// or parses conditions joined by OR. bare: within parentheses an operand alone will do as well, as in
// (a) = :b.
func (p *parser) or(bare bool) (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	left, err := p.and(bare)
	for err == nil && p.keyword("OR") {
		p.next()
		if err = p.operator(); err != nil {
			break
		}
		var right node
		right, err = p.and(false)
		left = node{op: opOr, kids: p.operands(left, right)}
	}
	p.depth--
	return left, err
}

func (p *parser) and(bare bool) (node, error) {
	left, err := p.not(bare)
	for err == nil && p.keyword("AND") {
		p.next()
		if err = p.operator(); err != nil {
			break
		}
		var right node
		right, err = p.not(false)
		left = node{op: opAnd, kids: p.operands(left, right)}
	}
	return left, err
}

func (p *parser) not(bare bool) (node, error) {
	if !p.keyword("NOT") {
		return p.predicate(bare)
	}
	p.next()
	if err := p.operator(); err != nil {
		return node{}, err
	}
	if err := p.enter(); err != nil {
		return node{}, err
	}
	kid, err := p.not(false)
	p.depth--
	return node{op: opNot, kids: p.operands(kid)}, err
}

// comparison is the comparison that a token stands for, 0 for none.
func (t token) comparison() Op {
	if t.kind == tokPunct {
		switch t.punct {
		case '=':
			return OpEQ
		case punctNE:
			return OpNE
		case '<':
			return OpLT
		case punctLE:
			return OpLE
		case '>':
			return OpGT
		case punctGE:
			return OpGE
		}
	}
	return 0
}

// conditionFunction returns the function of conditions with a name and how many operands it takes.
func conditionFunction(name string) (op Op, operands int) {
	switch name {
	case "attribute_exists":
		return opExists, 1
	case "attribute_not_exists":
		return opNotExists, 1
	case "attribute_type":
		return opType, 2
	case "begins_with":
		return OpBeginsWith, 2
	case "contains":
		return opContains, 2
	case "size":
		return opSize, 1
	}
	return 0, 0
}

// updateFunction returns the function of updates with a name. All take two operands.
func updateFunction(name string) Op {
	switch name {
	case "if_not_exists":
		return opIfNotExists
	case "list_append":
		return opListAppend
	}
	return 0
}

// gives tells whether a node gives a value rather than a truth.
func (n *node) gives() bool { return n.op == opPath || n.op == opValue || n.op == opSize }

// isFunction tells whether a node is a function that gives no operand.
func (n *node) isFunction() bool { return n.op >= opExists && n.op <= opContains || n.op == opUnknown }

// predicate parses one condition: a comparison, a function, or anything in parentheses.
func (p *parser) predicate(bare bool) (node, error) {
	left, err := p.operand()
	if err != nil {
		return left, err
	}
	n := node{op: p.tok.comparison()}
	switch {
	case n.op != 0:
		p.next()
		if err := p.operator(); err != nil {
			return left, err
		}
		right, err := p.operand()
		if err != nil {
			return left, err
		}
		n.kids = p.operands(left, right)
	case p.keyword("BETWEEN"):
		p.next()
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
		p.next()
		high, err := p.operand()
		if err != nil {
			return left, err
		}
		n = node{op: OpBetween, kids: p.operands(left, low, high)}
	case p.keyword("IN"):
		p.next()
		if err := p.operator(); err != nil {
			return left, err
		}
		if err := p.expect('('); err != nil {
			return left, err
		}
		if n.kids, err = p.arguments(left); err != nil {
			return left, err
		}
		n.op = opIn
		if len(n.kids) > 101 && !p.unbounded {
			p.note(faultArity, "The IN operator is provided with too many operands; number of operands: %d", len(n.kids)-1)
		}
	case !left.gives(): // a function, or a condition in parentheses
		p.endCondition()
		return left, nil
	case left.op == opSize:
		p.note(faultMisused, "The function is not allowed to be used this way in an expression; function: size")
		return left, nil
	case bare && p.is(')'):
		return left, nil
	default:
		return left, p.syntax()
	}
	for i := range n.kids {
		if k := &n.kids[i]; !k.gives() && !k.isFunction() {
			return n, p.syntax() // a condition where an operand belongs
		}
		p.checkMisused(&n.kids[i])
	}
	p.checkCondition(&n)
	p.endCondition()
	return n, nil
}

// endCondition makes the first condition that has a fault the one that is complained of.
func (p *parser) endCondition() {
	if p.faults != nil && p.faults[faultCondition] == nil {
		p.faults[faultCondition] = p.fault(faultName, faultArity, faultDistinct, faultType)
	}
}

func (p *parser) checkMisused(n *node) {
	if n.isFunction() {
		name := opNames[n.op]
		if n.op == opUnknown {
			name = n.path[0].Name
		}
		p.note(faultMisused, "The function is not allowed to be used this way in an expression; function: %s", name)
	}
}

// operand parses a path, a value, a function, or something in parentheses, which may be a condition.
func (p *parser) operand() (node, error) {
	switch {
	case p.tok.kind == tokColon:
		return p.value(faultName)
	case p.tok.kind == tokHash:
		path, err := p.path()
		return node{op: opPath, path: path}, err
	case p.is('('):
		return p.parenthesised()
	case p.tok.kind != tokName || p.keyword("AND") || p.keyword("OR") || p.keyword("NOT") || p.keyword("BETWEEN") || p.keyword("IN"):
		return node{}, p.syntax()
	case p.call():
		return p.function()
	}
	path, err := p.path()
	return node{op: opPath, path: path}, err
}

// parenthesised parses a condition or an operand in parentheses. One level around anything is fine; two
// around the same thing are refused.
func (p *parser) parenthesised() (node, error) {
	from := p.tok.from
	p.next()
	inner := p.tok.from
	n, err := p.or(true)
	if err != nil {
		return n, err
	}
	if p.is(')') && p.group.from == inner && p.group.to == p.prev.to && p.source[inner] == '(' {
		p.note(faultParens, "The expression has redundant parentheses;")
	}
	if err := p.expect(')'); err != nil {
		return n, err
	}
	p.group.from, p.group.to = from, p.prev.to
	return n, nil
}

func (p *parser) function() (node, error) {
	name := p.text(p.tok)
	p.next()
	p.next() // (
	if err := p.operator(); err != nil {
		return node{}, err
	}
	if err := p.enter(); err != nil {
		return node{}, err
	}
	kids, err := p.arguments()
	p.depth--
	if err != nil {
		return node{}, err
	}
	for i := range kids {
		if k := &kids[i]; !k.gives() && !k.isFunction() {
			return node{}, p.syntax()
		}
		p.checkMisused(&kids[i])
	}
	op, operands := conditionFunction(name)
	n := node{op: op, kids: kids}
	switch {
	case op == 0 && updateFunction(name) != 0:
		p.note(faultFunction, "The function is not allowed in a condition expression; function: %s", name)
	case op == 0:
		p.note(faultFunction, "Invalid function name; function: %s", name)
	case len(kids) != operands:
		p.note(faultArity, "Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(kids))
	default:
		p.checkCondition(&n)
		return n, nil
	}
	return node{op: opUnknown, path: item.Path{item.Named(name)}}, nil
}

// arguments parses operands up to the closing parenthesis, and returns them behind those given.
func (p *parser) arguments(first ...node) ([]node, error) {
	var few [4]node
	kids := append(few[:0], first...)
	for {
		kid, err := p.operand()
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
		if !p.take(',') {
			return p.operands(kids...), p.expect(')')
		}
	}
}

// value parses a placeholder of a value. undefined is what it is a fault of when there is none.
func (p *parser) value(undefined faultKind) (node, error) {
	text := p.text(p.tok)
	v := p.ph.value(text)
	if v == nil {
		v = new(item.Value)
		p.note(undefined, "An expression attribute value used in expression is not defined; attribute value: %s", text)
	}
	p.next()
	return node{op: opValue, value: v}, nil
}

// path parses a document path: name(.name|[index])*.
func (p *parser) path() (item.Path, error) {
	m := &p.ph.memory
	if len(m.steps) == cap(m.steps) {
		m.steps = make([]item.Step, 0, 8)
	}
	at := len(m.steps)
	for {
		name, err := p.pathName()
		if err != nil {
			return nil, err
		}
		at = m.step(at, item.Named(name))
		for p.is('[') {
			p.next()
			if p.tok.kind != tokIndex {
				return nil, p.syntax()
			}
			text := p.text(p.tok)
			index, err := strconv.Atoi(text)
			if err != nil || index > 1<<31-1 {
				return nil, p.errorf("List index is not within the allowable range; index: [%s]", text)
			}
			p.next()
			if err := p.expect(']'); err != nil {
				return nil, err
			}
			at = m.step(at, item.At(index))
		}
		if !p.take('.') {
			break
		}
	}
	path := item.Path(m.steps[at:len(m.steps):len(m.steps)])
	if len(path) > maxPath {
		return nil, p.errorf("The document path has too many nesting elements; nesting levels: %d", len(path))
	}
	return path, nil
}

// maxPath is how many steps a path has at most: as deep as an item goes.
const maxPath = 32

// step adds a step to the path that begins at steps[at], and returns where it begins now.
func (m *memory) step(at int, s item.Step) int {
	if len(m.steps) == cap(m.steps) { // the paths before this one stay where they are
		path := m.steps[at:]
		m.steps = append(make([]item.Step, 0, 2*len(path)+8), path...)
		at = 0
	}
	m.steps = append(m.steps, s)
	return at
}

func (p *parser) pathName() (string, error) {
	text := p.text(p.tok)
	switch p.tok.kind {
	case tokName:
		if Reserved(text) {
			p.note(faultReserved, "Attribute name is a reserved keyword; reserved keyword: %s", text)
		}
		p.next()
		return text, nil
	case tokHash:
		p.next()
		name, ok := p.ph.name(text)
		if !ok {
			p.note(faultName, "An expression attribute name used in the document path is not defined; attribute name: %s", text)
		}
		return name, nil
	}
	return "", p.syntax()
}

// checkCondition notes what can never be meant: operands of types that their operator does not take, the
// same operand twice, and bounds the wrong way round.
func (p *parser) checkCondition(n *node) {
	if len(n.kids) == 2 && n.op != opIn && samePath(&n.kids[0], &n.kids[1]) {
		p.note(faultDistinct, "The first operand must be distinct from the remaining operands for this operator or function; operator: %s, first operand: %s", opNames[n.op], bracketed(n.kids[0].path))
	}
	switch n.op {
	case opExists, opNotExists:
		if n.kids[0].op != opPath {
			p.note(faultType, "Operator or function requires a document path; operator or function: %s", opNames[n.op])
		}
	case opSize:
		switch n.kids[0].kind() {
		case item.KindN, item.KindBOOL, item.KindNULL:
			p.operandType(n.op, &n.kids[0])
		}
	case opType:
		switch k := &n.kids[1]; {
		case k.kind() != item.KindS && (k.op != opValue || !k.value.IsAbsent()):
			p.operandType(opType, k)
		case k.kind() == item.KindS && item.KindOf(k.value.Str()) == item.KindAbsent:
			p.note(faultType, "Invalid attribute type name found; type: %s, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}", k.value.Str())
		}
	case OpBeginsWith:
		for i := range n.kids {
			switch n.kids[i].kind() {
			case item.KindAbsent, item.KindS, item.KindB:
			default:
				p.operandType(n.op, &n.kids[i])
			}
		}
	case OpLT, OpLE, OpGT, OpGE, OpBetween:
		for i := range n.kids {
			if k := n.kids[i].kind(); k != item.KindAbsent && !k.IsKey() {
				p.operandType(n.op, &n.kids[i])
			}
		}
		if n.op == OpBetween && n.kids[1].op == opValue && n.kids[2].op == opValue {
			p.checkBounds(*n.kids[1].value, *n.kids[2].value)
		}
	}
}

func (p *parser) checkBounds(low, high item.Value) {
	why := ""
	switch {
	case low.IsAbsent() || high.IsAbsent():
	case low.Kind() != high.Kind():
		why = "same data type for lower and upper bounds"
	case low.Kind().IsKey() && item.Compare(low, high) > 0:
		why = "upper bound to be greater than or equal to lower bound"
	}
	if why != "" {
		p.note(faultType, "The BETWEEN operator requires %s; lower bound operand: AttributeValue: %s, upper bound operand: AttributeValue: %s", why, show(low), show(high))
	}
}

// kind is the type that an operand is known to have before any item is, absent for unknown.
func (n *node) kind() item.Kind {
	switch n.op {
	case opValue:
		return n.value.Kind()
	case opSize:
		return item.KindN
	}
	return item.KindAbsent
}

func (p *parser) operandType(op Op, k *node) {
	kind := k.kind().String()
	if kind == "" {
		kind = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}" // it may be any
	}
	p.note(faultType, "Incorrect operand type for operator or function; operator or function: %s, operand type: %s", opNames[op], kind)
}

func samePath(a, b *node) bool {
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
