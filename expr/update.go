package expr

import (
	"errors"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// Update is a parsed update expression.
type Update struct {
	actions []action
}

// Section is one of the four kinds of action. Its numbers are stored.
type section uint8

const (
	sectionSet    section = 1
	sectionRemove section = 2
	sectionAdd    section = 3
	sectionDelete section = 4
)

var sectionNames = map[section]string{sectionSet: "SET", sectionRemove: "REMOVE", sectionAdd: "ADD", sectionDelete: "DELETE"}

type action struct {
	section section
	path    item.Path
	value   node // none for REMOVE
}

// ParseUpdate parses an update expression.
func ParseUpdate(source string, ph *Placeholders) (*Update, error) {
	return (&parser{kind: "UpdateExpression", source: source, ph: ph}).update()
}

// BuildUpdate is ParseUpdate for an expression that a program wrote: neither its length nor its number of
// actions is limited. Its paths must be apart.
func BuildUpdate(source string, ph *Placeholders) (*Update, error) {
	return (&parser{kind: "update", source: source, ph: ph, unbounded: true}).update()
}

func (p *parser) update() (*Update, error) {
	if err := p.start(); err != nil {
		return nil, err
	}
	u := &Update{actions: make([]action, 0, 4)}
	var seen [5]bool
	for p.tok.kind != tokEnd {
		s := p.section()
		if s == 0 {
			return nil, p.syntax()
		}
		if seen[s] {
			p.note(faultSection, "The \"%s\" section can only be used once in an update expression;", sectionNames[s])
		}
		seen[s] = true
		p.next()
		for {
			a, err := p.action(s)
			if err != nil {
				return nil, err
			}
			for i := range u.actions {
				if p.unbounded {
					break
				}
				p.checkPaths(u.actions[i].path, a.path)
			}
			u.actions = append(u.actions, a)
			if err := p.operator(); err != nil {
				return nil, err
			}
			if !p.take(',') {
				break
			}
		}
	}
	return u, p.fault(faultReserved, faultFunction, faultSection, faultName, faultValue, faultOverlap, faultConflict, faultOperand, faultType)
}

// section is the section that begins with the token to come, 0 for none.
func (p *parser) section() section {
	switch {
	case p.keyword("SET"):
		return sectionSet
	case p.keyword("REMOVE"):
		return sectionRemove
	case p.keyword("ADD"):
		return sectionAdd
	case p.keyword("DELETE"):
		return sectionDelete
	}
	return 0
}

func (p *parser) action(s section) (action, error) {
	a := action{section: s}
	if p.section() != 0 {
		return a, p.syntax()
	}
	var err error
	if a.path, err = p.path(); err != nil {
		return a, err
	}
	switch s {
	case sectionSet:
		if err := p.expect('='); err != nil {
			return a, err
		}
		a.value, err = p.setValue()
	case sectionAdd, sectionDelete:
		if p.tok.kind != tokColon {
			return a, p.syntax()
		}
		if a.value, err = p.value(faultValue); err != nil {
			return a, err
		}
		switch kind := a.value.value.Kind(); {
		case kind == item.KindAbsent || kind.IsSet() || s == sectionAdd && kind == item.KindN:
		default:
			p.note(faultOperand, "Incorrect operand type for operator or function; operator: %s, operand type: %s, typeSet: ALLOWED_FOR_%s_OPERAND", sectionNames[s], typeNames[kind], sectionNames[s])
		}
	}
	return a, err
}

// typeNames are the long type names that some messages use.
var typeNames = map[item.Kind]string{
	item.KindS: "STRING", item.KindN: "NUMBER", item.KindB: "BINARY", item.KindBOOL: "BOOLEAN", item.KindNULL: "NULL",
	item.KindM: "MAP", item.KindL: "LIST", item.KindSS: "STRING_SET", item.KindNS: "NUMBER_SET", item.KindBS: "BINARY_SET",
}

// setValue parses operand [(+|-) operand], all of it or each operand in parentheses or not.
func (p *parser) setValue() (node, error) {
	if !p.take('(') {
		left, err := p.setOperand()
		if err != nil {
			return left, err
		}
		return p.arithmetic(left)
	}
	left, err := p.setOperand()
	if err != nil {
		return left, err
	}
	whole, err := p.arithmetic(left)
	if err != nil {
		return whole, err
	}
	if err := p.expect(')'); err != nil || whole.op != left.op { // arithmetic of arithmetic there is none
		return whole, err
	}
	return p.arithmetic(left)
}

func (p *parser) arithmetic(left node) (node, error) {
	n := node{op: opPlus}
	switch {
	case p.is('+'):
	case p.is('-'):
		n.op = opMinus
	default:
		return left, nil
	}
	p.next()
	if err := p.operator(); err != nil {
		return left, err
	}
	right, err := p.setOperand()
	if err != nil {
		return left, err
	}
	n.kids = p.operands(left, right)
	for i := range n.kids {
		switch k := &n.kids[i]; {
		case k.op == opListAppend:
			p.note(faultType, "Incorrect operand type for operator or function; operator or function: %s, operand type: L", opNames[n.op])
		case k.kind() != item.KindAbsent && k.kind() != item.KindN:
			p.operandType(n.op, k)
		}
	}
	return n, nil
}

// setOperand parses a path, a value, if_not_exists or list_append.
func (p *parser) setOperand() (node, error) {
	switch {
	case p.tok.kind == tokColon:
		return p.value(faultValue)
	case p.is('('):
		if err := p.enter(); err != nil {
			return node{}, err
		}
		p.next()
		n, err := p.setOperand()
		p.depth--
		if err != nil {
			return n, err
		}
		return n, p.expect(')')
	case p.call():
		return p.setFunction()
	case p.tok.kind == tokHash || p.tok.kind == tokName && p.section() == 0:
		path, err := p.path()
		return node{op: opPath, path: path}, err
	}
	return node{}, p.syntax()
}

func (p *parser) setFunction() (node, error) {
	name := p.text(p.tok)
	p.next()
	p.next() // (
	if err := p.operator(); err != nil {
		return node{}, err
	}
	if err := p.enter(); err != nil {
		return node{}, err
	}
	var few [2]node
	kids := few[:0]
	for {
		kid, err := p.setOperand()
		if err != nil {
			return kid, err
		}
		kids = append(kids, kid)
		if !p.take(',') {
			break
		}
	}
	p.depth--
	if err := p.expect(')'); err != nil {
		return node{}, err
	}
	n := node{op: updateFunction(name), kids: p.operands(kids...)}
	condition, _ := conditionFunction(name)
	switch {
	case condition != 0:
		p.note(faultFunction, "The function is not allowed in an update expression; function: %s", name)
	case n.op == 0:
		p.note(faultFunction, "Invalid function name; function: %s", name)
	case len(n.kids) != 2:
		p.note(faultType, "Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(n.kids))
	case n.op == opIfNotExists && n.kids[0].op != opPath:
		p.note(faultType, "Operator or function requires a document path; operator or function: if_not_exists")
	case n.op == opListAppend:
		for i := range n.kids {
			if k := &n.kids[i]; k.kind() != item.KindAbsent && k.kind() != item.KindL {
				p.operandType(opListAppend, k)
			}
		}
	}
	return n, nil
}

// checkPaths notes two paths of one expression of which one is the other or lies below it, or that disagree
// on whether something is a map or a list.
func (p *parser) checkPaths(one, two item.Path) {
	switch relate(one, two) {
	case pathsOverlap:
		p.note(faultOverlap, "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: %s, path two: %s", bracketed(one), bracketed(two))
	case pathsConflict:
		p.note(faultConflict, "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: %s, path two: %s", bracketed(one), bracketed(two))
	}
}

type relation uint8

const (
	pathsApart    relation = iota
	pathsOverlap           // equal, or one below the other
	pathsConflict          // one says map where the other says list
)

func relate(a, b item.Path) relation {
	for i := range min(len(a), len(b)) {
		if (a[i].Index < 0) != (b[i].Index < 0) {
			return pathsConflict
		}
		if a[i] != b[i] {
			return pathsApart
		}
	}
	return pathsOverlap
}

func comparePaths(a, b item.Path) int {
	return slices.CompareFunc(a, b, func(x, y item.Step) int {
		if x.Index != y.Index {
			return x.Index - y.Index
		}
		return strings.Compare(x.Name, y.Name)
	})
}

// Errors that an update meets in an item. Their texts are the service's own.
var (
	errNoAttribute = &Error{"The provided expression refers to an attribute that does not exist in the item"}
	errPath        = &Error{"The document path provided in the update expression is invalid for update"}
	errTooLarge    = &Error{"Item size to update has exceeded the maximum allowed size"}
	errNesting     = &Error{"Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"}

	// ErrOperandType: what the item has is of a type that the action cannot work on.
	ErrOperandType = &Error{"An operand in the update expression has an incorrect data type"}
)

// Paths calls yield with the paths that the update touches, in the order of the expression.
func (u *Update) Paths(yield func(item.Path) bool) {
	for i := range u.actions {
		if !yield(u.actions[i].path) {
			return
		}
	}
}

// OnlyTakes tells whether the update has actions and all of them take away: such an update makes no item.
func (u *Update) OnlyTakes() bool {
	for i := range u.actions {
		if s := u.actions[i].section; s != sectionRemove && s != sectionDelete {
			return false
		}
	}
	return len(u.actions) > 0
}

// Clauses returns how many actions the update has, and how many of them are REMOVE.
func (u *Update) Clauses() (actions, removes int) {
	for i := range u.actions {
		if u.actions[i].section == sectionRemove {
			removes++
		}
	}
	return len(u.actions), removes
}

// Apply carries out the update on an item (nil attributes where there is none yet; exists says which)
// and returns the new item and what its changes mean. Right sides read the item as it was. It returns an
// *Error when the update does not fit the item.
func (u *Update) Apply(old item.Item, exists bool) (item.Item, []item.Change, error) {
	values := make([]item.Value, len(u.actions))
	elements := 0
	for i := range u.actions {
		a := &u.actions[i]
		var err error
		switch a.section {
		case sectionSet:
			values[i], err = a.value.updateValue(old)
		case sectionAdd:
			values[i], err = added(old.Lookup(a.path), *a.value.value)
		case sectionDelete:
			values[i], err = deleted(old.Lookup(a.path), *a.value.value)
		}
		if err != nil {
			return nil, nil, err
		}
		if values[i].Kind() == item.KindL {
			if elements += values[i].Len(); elements > maxElements {
				return nil, nil, errTooLarge
			}
		}
		if !shallow(values[i], maxPath-len(a.path)+1) {
			return nil, nil, errNesting
		}
	}
	root := old.AsMap()
	var err error
	for _, i := range u.order() {
		a := &u.actions[i]
		switch {
		case a.section == sectionRemove || a.section == sectionDelete && values[i].IsAbsent():
			if !exists {
				continue
			}
			if a.section == sectionDelete && old.Lookup(a.path).IsAbsent() {
				continue // nothing to take away from
			}
			root, err = remove(root, a.path)
		default:
			root, err = set(root, a.path, values[i])
		}
		if err != nil {
			return nil, nil, err
		}
	}
	new := root.AsItem()
	return new, u.changes(old, new), nil
}

// maxElements is more elements than the lists of one item can have, at two bytes each. Longer ones are not
// even made: list_append could be told to make any number of them.
const maxElements = 400 << 10

// shallow tells whether a value has at most so many levels. An attribute is on an item's first.
func shallow(v item.Value, levels int) bool {
	if levels == 0 {
		return false
	}
	switch v.Kind() {
	case item.KindL:
		for _, e := range v.Elems() {
			if !shallow(e, levels-1) {
				return false
			}
		}
	case item.KindM:
		for _, f := range v.Fields() {
			if !shallow(f.Value, levels-1) {
				return false
			}
		}
	}
	return true
}

// order is the order in which actions are carried out: writes first, those into one list by rising
// index, so that what goes past its end is put there in order; then removals, by falling index, so that
// each still stands where the expression says.
func (u *Update) order() []int {
	order := make([]int, len(u.actions))
	for i := range order {
		order[i] = i
	}
	if len(order) == 1 {
		return order
	}
	slices.SortStableFunc(order, func(i, j int) int {
		a, b := &u.actions[i], &u.actions[j]
		ra, rb := a.section == sectionRemove, b.section == sectionRemove
		switch {
		case ra != rb && ra:
			return 1
		case ra != rb:
			return -1
		case ra:
			return comparePaths(b.path, a.path)
		}
		return comparePaths(a.path, b.path)
	})
	return order
}

// updateValue evaluates the right side of a SET.
func (n *node) updateValue(it item.Item) (item.Value, error) {
	switch n.op {
	case opPath:
		v := it.Lookup(n.path)
		if v.IsAbsent() {
			return v, errNoAttribute
		}
		return v, nil
	case opValue:
		return *n.value, nil
	case opIfNotExists:
		if v := it.Lookup(n.kids[0].path); !v.IsAbsent() {
			return v, nil
		}
		return n.kids[1].updateValue(it)
	}
	a, err := n.kids[0].updateValue(it)
	if err != nil {
		return a, err
	}
	b, err := n.kids[1].updateValue(it)
	if err != nil {
		return b, err
	}
	if n.op == opListAppend {
		if a.Kind() != item.KindL || b.Kind() != item.KindL {
			return a, ErrOperandType
		}
		if a.Len()+b.Len() > maxElements {
			return a, errTooLarge
		}
		return item.L(slices.Concat(a.Elems(), b.Elems())...), nil
	}
	if a.Kind() != item.KindN || b.Kind() != item.KindN {
		return a, ErrOperandType
	}
	if n.op == opMinus {
		return number(a.Number().Sub(b.Number()))
	}
	return number(a.Number().Add(b.Number()))
}

func number(n item.Number, err error) (item.Value, error) {
	if err != nil {
		return item.Value{}, numberError(err)
	}
	return item.N(n), nil
}

func numberError(err error) error {
	if errors.Is(err, item.ErrNumberOverflow) || errors.Is(err, item.ErrNumberUnderflow) || errors.Is(err, item.ErrNumberDigits) {
		return &Error{err.Error()}
	}
	return err
}

func added(old, v item.Value) (item.Value, error) {
	switch {
	case v.Kind() == item.KindN:
		if old.IsAbsent() {
			return v, nil
		}
		if old.Kind() != item.KindN {
			return v, ErrOperandType
		}
		return number(old.Number().Add(v.Number()))
	case old.IsAbsent():
		return v, nil
	case old.Kind() != v.Kind():
		return v, ErrOperandType
	}
	return item.Union(old, v), nil
}

// deleted returns the set that is left, absent for none.
func deleted(old, v item.Value) (item.Value, error) {
	switch {
	case old.IsAbsent():
		return item.Value{}, nil
	case old.Kind() != v.Kind():
		return item.Value{}, ErrOperandType
	}
	return item.Difference(old, v), nil
}

// set returns v with the value at path, whose parent must be there.
func set(v item.Value, path item.Path, to item.Value) (item.Value, error) {
	if len(path) == 0 {
		return to, nil
	}
	s := path[0]
	switch {
	case s.Index < 0 && v.Kind() == item.KindM:
		inner := v.Field(s.Name)
		if inner.IsAbsent() && len(path) > 1 {
			return v, errPath
		}
		inner, err := set(inner, path[1:], to)
		if err != nil {
			return v, err
		}
		return v.WithField(s.Name, inner), nil
	case s.Index >= 0 && v.Kind() == item.KindL:
		var inner item.Value
		if s.Index < v.Len() {
			inner = v.Elems()[s.Index]
		} else if len(path) > 1 {
			return v, errPath
		}
		inner, err := set(inner, path[1:], to)
		if err != nil {
			return v, err
		}
		return v.WithElem(s.Index, inner), nil
	}
	return v, errPath
}

// remove returns v without what is at path. A missing last step is nothing to remove; a missing parent
// is an error.
func remove(v item.Value, path item.Path) (item.Value, error) {
	s := path[0]
	switch {
	case s.Index < 0 && v.Kind() == item.KindM:
		if len(path) == 1 {
			return v.WithField(s.Name, item.Value{}), nil
		}
		inner := v.Field(s.Name)
		if inner.IsAbsent() {
			return v, errPath
		}
		inner, err := remove(inner, path[1:])
		if err != nil {
			return v, err
		}
		return v.WithField(s.Name, inner), nil
	case s.Index >= 0 && v.Kind() == item.KindL:
		if s.Index >= v.Len() {
			if len(path) > 1 {
				return v, errPath
			}
			return v, nil
		}
		if len(path) == 1 {
			return item.L(slices.Delete(slices.Clone(v.Elems()), s.Index, s.Index+1)...), nil
		}
		inner, err := remove(v.Elems()[s.Index], path[1:])
		if err != nil {
			return v, err
		}
		return v.WithElem(s.Index, inner), nil
	}
	return v, errPath
}

// changes says what the update means, as MERGE.md's table has it: increments, set edits and appends
// stay what they are; all else assigns the smallest enclosing path that is not inside a list.
func (u *Update) changes(old, new item.Item) []item.Change {
	out := make([]item.Change, 0, len(u.actions))
	assigned := make(map[string]bool, 1)
	for i := range u.actions {
		a := &u.actions[i]
		keys := mapKeys(a.path)
		if len(keys) == len(a.path) {
			if c, ok := a.edit(old); ok {
				c.Path = keys
				out = append(out, c)
				continue
			}
		}
		if id := strings.Join(keys, "\x00"); !assigned[id] {
			assigned[id] = true
			out = append(out, item.Change{Kind: item.Assign, Path: keys, Value: new.LookupKeys(keys)})
		}
	}
	return out
}

// mapKeys returns the path's leading steps into maps.
func mapKeys(path item.Path) []string {
	var keys []string
	for _, s := range path {
		if s.Index >= 0 {
			break
		}
		keys = append(keys, s.Name)
	}
	return keys
}

// edit returns the action as an edit that merges, if it is one.
func (a *action) edit(old item.Item) (item.Change, bool) {
	switch a.section {
	case sectionAdd:
		if a.value.value.Kind() == item.KindN {
			return item.Change{Kind: item.Increment, Value: *a.value.value}, true
		}
		return item.Change{Kind: item.AddElements, Value: *a.value.value}, true
	case sectionDelete:
		return item.Change{Kind: item.RemoveElements, Value: *a.value.value}, true
	case sectionSet:
	default:
		return item.Change{}, false
	}
	n := &a.value
	switch n.op {
	case opPlus, opMinus:
		self, other := &n.kids[0], &n.kids[1]
		if n.op == opPlus && !self.continues(a.path, old) {
			self, other = other, self
		}
		if !self.continues(a.path, old) {
			return item.Change{}, false
		}
		d, err := other.updateValue(old)
		if err != nil || d.Kind() != item.KindN {
			return item.Change{}, false
		}
		if n.op == opMinus {
			d = item.N(d.Number().Neg())
		}
		return item.Change{Kind: item.Increment, Value: d}, true
	case opListAppend:
		if !n.kids[0].continues(a.path, old) {
			return item.Change{}, false
		}
		tail, err := n.kids[1].updateValue(old)
		if err != nil || tail.Kind() != item.KindL {
			return item.Change{}, false
		}
		return item.Change{Kind: item.Append, Value: tail}, true
	}
	return item.Change{}, false
}

// continues tells whether an operand stands for what is at the path already: the path itself, or
// if_not_exists of it whose default is what an edit would start from anyhow (0 or the empty list).
// A default of another value makes the write an assignment when the attribute is missing: as an
// increment it would count the default once for each region that did the same.
func (n *node) continues(path item.Path, old item.Item) bool {
	if n.op == opPath {
		return comparePaths(n.path, path) == 0
	}
	if n.op != opIfNotExists || comparePaths(n.kids[0].path, path) != 0 {
		return false
	}
	if !old.Lookup(path).IsAbsent() {
		return true
	}
	d, err := n.kids[1].updateValue(old)
	if err != nil {
		return false
	}
	return d.Kind() == item.KindN && d.Number().IsZero() || d.Kind() == item.KindL && d.Len() == 0
}
