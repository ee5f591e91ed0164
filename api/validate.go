package api

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// constraints gathers what a request breaks of the model's constraints (lengths, ranges, patterns,
// enums). The service reports them at once, the first ten.
type constraints struct{ broken []string }

// maxBroken is how many broken constraints are reported: a request of 16 MB can break millions.
const maxBroken = 10

func (c *constraints) breaks(value, at, rule string) {
	if len(c.broken) == maxBroken {
		return
	}
	c.broken = append(c.broken, fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, at, rule))
}

func quoted(s string) string { return "'" + shorten(s) + "'" }

func (c *constraints) required(at string) { c.breaks("null", at, "Member must not be null") }

// enum checks one of a list of words; they are reported in the model's own order.
func (c *constraints) enum(value, at string, words ...string) {
	for _, w := range words {
		if value == w {
			return
		}
	}
	c.breaks(quoted(value), at, "Member must satisfy enum value set: ["+strings.Join(words, ", ")+"]")
}

// elementOf is the path of a list's element, up to its own members; the first element is 1.
func elementOf(list string, i int) string { return list + "." + strconv.Itoa(i+1) + ".member." }

// length checks a length in bytes; most 0 means no limit.
func (c *constraints) length(value, at string, least, most int) {
	switch {
	case len(value) < least:
		c.breaks(quoted(value), at, "Member must have length greater than or equal to "+strconv.Itoa(least))
	case most > 0 && len(value) > most:
		c.breaks(quoted(value), at, "Member must have length less than or equal to "+strconv.Itoa(most))
	}
}

// lengths checks the lengths of a list's strings. All that is wrong with them is one complaint about the list.
func (c *constraints) lengths(list []string, at string, least, most int) {
	for _, s := range list {
		if len(s) < least || len(s) > most {
			c.breaks("'"+shorten("["+strings.Join(list, ", ")+"]")+"'", at, fmt.Sprintf("Member must satisfy constraint: [Member must have length less than or equal to %d, Member must have length greater than or equal to %d]", most, least))
			return
		}
	}
}

// count checks how many members a list has, countMap how many a map has. What the service shows of their
// content is not ours to repeat.
func (c *constraints) count(n int, at string, least, most int) { c.members(n, "[]", at, least, most) }

func (c *constraints) countMap(n int, at string, least, most int) {
	c.members(n, "{}", at, least, most)
}

func (c *constraints) members(n int, empty, at string, least, most int) {
	switch {
	case n < least:
		c.breaks("'"+empty+"'", at, "Member must have length greater than or equal to "+strconv.Itoa(least))
	case most > 0 && n > most:
		c.breaks(fmt.Sprintf("'%c%d members%c'", empty[0], n, empty[1]), at, "Member must have length less than or equal to "+strconv.Itoa(most))
	}
}

func (c *constraints) atLeast(value int64, at string, least int64) {
	if value < least {
		c.breaks("'"+strconv.FormatInt(value, 10)+"'", at, "Member must have value greater than or equal to "+strconv.FormatInt(least, 10))
	}
}

func (c *constraints) atMost(value int64, at string, most int64) {
	if value > most {
		c.breaks("'"+strconv.FormatInt(value, 10)+"'", at, "Member must have value less than or equal to "+strconv.FormatInt(most, 10))
	}
}

// pattern checks the letters of table and index names.
func (c *constraints) pattern(value, at string) {
	for i := range len(value) {
		switch b := value[i]; {
		case b|0x20 >= 'a' && b|0x20 <= 'z', b >= '0' && b <= '9', b == '_', b == '.', b == '-':
		default:
			c.breaks(quoted(value), at, "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+")
			return
		}
	}
}

// wholeName checks the name of a table or an index where it may not be an ARN.
func (c *constraints) wholeName(value, at string) {
	c.length(value, at, 3, 255)
	c.letters(value, at)
}

// letters is pattern for where no letters are wrong ones too.
func (c *constraints) letters(value, at string) {
	if value == "" {
		c.breaks("''", at, "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+")
	}
	c.pattern(value, at)
}

// name checks a table's or an index's name.
func (c *constraints) name(value, at string, least int) {
	c.pattern(value, at)
	c.length(value, at, least, 255)
}

// tableKey checks a table's name, or ARN, that is the key of a map of tables.
func (c *constraints) tableKey(given string) {
	var name constraints
	if name.name(nameOfTable(given), "", 1); len(name.broken) > 0 {
		c.breaks("'{"+shorten(given)+"=...}'", "requestItems", "Map keys must satisfy constraint: [Member must have length less than or equal to 255, "+
			"Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]")
	}
}

// err returns what was gathered as one ValidationException, or nil. Its envelope is the service's.
func (c *constraints) err() error {
	switch len(c.broken) {
	case 0:
		return nil
	case 1:
		return invalid("1 validation error detected: %s", c.broken[0])
	}
	return invalid("%d validation errors detected: %s", len(c.broken), strings.Join(c.broken, "; "))
}

// nameOfTable returns the table's name when s is a table's ARN, and s otherwise.
func nameOfTable(s string) string {
	if !strings.HasPrefix(s, "arn:") {
		return s
	}
	if _, name, ok := strings.Cut(s, ":table/"); ok {
		name, _, _ = strings.Cut(name, "/")
		return name
	}
	return s
}

// camel is a member's name as constraint messages have it: tableName.
func camel(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// checkModel checks the members that most data operations share against the model, and requires those in
// required. A bad table name is reported alone.
func (p *params) checkModel(required member) error {
	var c constraints
	if !p.has(mTableName) {
		c.required("tableName")
	} else {
		c.name(p.tableName, "tableName", 1)
		if err := c.err(); err != nil {
			return err
		}
	}
	for _, m := range [...]member{mItem, mKey} {
		if required&m != 0 && !p.has(m) {
			c.required(camel(memberNames[m]))
		}
	}
	if p.has(mReturnCapacity) {
		c.enum(p.returnCapacity, "returnConsumedCapacity", "INDEXES", "TOTAL", "NONE")
	}
	if p.has(mReturnMetrics) {
		c.enum(p.returnMetrics, "returnItemCollectionMetrics", "SIZE", "NONE")
	}
	if p.has(mReturnValues) {
		c.enum(p.returnValues, "returnValues", "ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW")
	}
	if p.has(mReturnOnFailure) {
		c.enum(p.returnOnFailure, "returnValuesOnConditionCheckFailure", "ALL_OLD", "NONE")
	}
	if p.has(mConditionalOperator) {
		c.enum(p.conditionalOperator, "conditionalOperator", "OR", "AND")
	}
	if p.has(mIndexName) {
		c.name(p.indexName, "indexName", 3)
	}
	if p.has(mSelect) {
		c.enum(p.selects, "select", "SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES")
	}
	if p.has(mLimit) {
		c.atLeast(p.limit, "limit", 1)
	}
	if p.has(mTotalSegments) {
		c.atLeast(p.totalSegments, "totalSegments", 1)
		c.atMost(p.totalSegments, "totalSegments", 1000000)
	}
	if p.has(mSegment) {
		c.atLeast(p.segment, "segment", 0)
		c.atMost(p.segment, "segment", 999999)
	}
	if p.has(mAttributesToGet) {
		c.count(len(p.attributesToGet), "attributesToGet", 1, 0)
	}
	p.checkLegacyModel(&c)
	if p.firstOnly && len(c.broken) > 1 {
		c.broken = c.broken[:1]
	}
	return c.err()
}

// misuse is a ValidationException about parameters that do not go together, or an expression that is
// wrong in itself. Writes put their envelope round it, reads do not.
func (p *params) misuse(format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if p.writes {
		message = "1 validation error detected: " + message
	}
	return invalid("%s", message)
}

// misused gives an expression's error the envelope of misuse.
func (p *params) misused(err error) error {
	if err == nil {
		return nil
	}
	if e := (*expr.Error)(nil); errors.As(err, &e) {
		return p.misuse("%s", e.Message)
	}
	return err
}

// checkItem returns the rule that a value in Item or Key broke. Those about sets and NULL have a write's
// envelope.
func (p *params) checkItem() error {
	if p.itemErr == nil {
		return nil
	}
	if e := (*wire.ValidationError)(nil); errors.As(p.itemErr, &e) {
		if strings.HasPrefix(e.Message, "One or more parameter values were invalid") || strings.HasPrefix(e.Message, "Input collection") {
			return p.misuse("%s", e.Message)
		}
	}
	return p.itemErr
}

// checkMixing checks that expressions and their placeholders go with what else was given. expressions are
// those the operation knows, legacy the parameters that they replace.
func (p *params) checkMixing(expressions, legacy []member) error {
	if p.given&^(mTableName|mItem|mKey|mConsistentRead|mReturnValues|mReturnOnFailure|mReturnCapacity|mReturnMetrics) == 0 {
		return nil // as most requests for one item are
	}
	used, old := p.given&all(expressions), p.given&all(legacy)
	if old&mKeyConditions != 0 && used&mKeyConditionExpression == 0 {
		old &^= mKeyConditions // they go with expressions of other kinds
	}
	if used != 0 && old != 0 {
		return p.misuse("Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {%s} Expression parameters: {%s}",
			joined(legacy, old, ", "), joined(expressions, used, ", "))
	}
	if p.has(mNames) && used == 0 {
		return p.misuse("ExpressionAttributeNames can only be specified when using expressions")
	}
	if valued := all(expressions) &^ mProjectionExpression; p.has(mValues) && used&valued == 0 {
		are := "are"
		if bits.OnesCount64(uint64(valued)) == 1 {
			are = "is"
		}
		return p.misuse("ExpressionAttributeValues can only be specified when using expressions: %s %s null", joined(expressions, valued, " and "), are)
	}
	return nil
}

// checkPlaceholders checks ExpressionAttributeNames and ExpressionAttributeValues in themselves.
func (p *params) checkPlaceholders() error {
	if p.has(mNames) {
		if len(p.placeholders.Names) == 0 {
			return p.misuse("ExpressionAttributeNames must not be empty")
		}
		for i := range p.placeholders.Names {
			if n := &p.placeholders.Names[i]; !isPlaceholder(n.Placeholder, '#') {
				return p.misuse("ExpressionAttributeNames contains invalid key: Syntax error; key: \"%s\"", shorten(n.Placeholder))
			}
		}
		for i := range p.placeholders.Names {
			n := &p.placeholders.Names[i]
			if why := badName(n.Name); why != "" {
				return p.misuse("ExpressionAttributeNames contains invalid value: %s for key %s", why, shorten(n.Placeholder))
			}
		}
	}
	if p.has(mValues) {
		if len(p.placeholders.Values) == 0 {
			return p.misuse("ExpressionAttributeValues must not be empty")
		}
		for i := range p.placeholders.Values {
			if v := &p.placeholders.Values[i]; !isPlaceholder(v.Placeholder, ':') {
				return p.misuse("ExpressionAttributeValues contains invalid key: Syntax error; key: \"%s\"", shorten(v.Placeholder))
			}
		}
		if p.valuesErr != nil {
			return p.valuesErr
		}
	}
	return nil
}

func all(list []member) (set member) {
	for _, m := range list {
		set |= m
	}
	return set
}

// joined returns the names of those in list that are in set, joined.
func joined(list []member, set member, by string) string {
	var out []string
	for _, m := range list {
		if set&m != 0 {
			out = append(out, memberNames[m])
		}
	}
	return strings.Join(out, by)
}

// badName says what is wrong with an attribute's name, "" for nothing.
func badName(name string) string {
	switch {
	case name == "":
		return "One or more parameter values were invalid: An attribute name may not be empty"
	case len(name) > maxName:
		return "One or more parameter values were invalid: An attribute name may not be longer than 65535 bytes"
	}
	return ""
}

// maxName is the length of the longest attribute name, in bytes.
const maxName = 65535

func isPlaceholder(s string, first byte) bool {
	if len(s) < 2 || s[0] != first {
		return false
	}
	for i := 1; i < len(s); i++ {
		if b := s[i]; b|0x20 < 'a' || b|0x20 > 'z' {
			if (b < '0' || b > '9') && b != '_' {
				return false
			}
		}
	}
	return true
}

// checkKeyPaths refuses paths into key attributes of the table or of an index: keys are scalars.
func checkKeyPaths(s *table.Schema, paths func(yield func(item.Path) bool)) error {
	for path := range paths {
		if len(path) == 1 {
			continue
		}
		name := path[0].Name
		for _, a := range s.KeyAttributes() {
			if a.Name == name {
				return errKeyPath("Key", name)
			}
		}
		for i := range s.Indexes {
			for _, a := range s.Indexes[i].KeyAttributes() {
				if a.Name == name {
					return errKeyPath("IndexKey", name)
				}
			}
		}
	}
	return nil
}

func errKeyPath(what, name string) error {
	return invalid("Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: %s: %s", what, name)
}

// keyOf returns the key that a stored item of nothing but key attributes stands for.
func keyOf(s *table.Schema, stored []byte) (table.Key, error) {
	if !hasExactly(stored, s.KeyAttributes()) {
		return nil, invalid("The provided key element does not match the schema")
	}
	return s.KeyOf(stored)
}

// hasExactly tells whether a stored item has the attributes, of their types, and no others.
func hasExactly(stored []byte, attributes []table.Attribute) bool {
	n, _, err := item.CutCount(stored)
	if err != nil || n != len(attributes) {
		return false
	}
	for _, a := range attributes {
		if item.RawKind(item.Attr(stored, a.Name)) != a.Kind {
			return false
		}
	}
	return true
}
