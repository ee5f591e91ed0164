package api

import (
	"fmt"
	"strings"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
)

// The parameters that expressions have replaced are turned into the expressions they mean: names and
// values become placeholders, so that there is one language to evaluate, store and merge.
// Source: Developer Guide, "Legacy DynamoDB conditional parameters"; DYNAMODB.md §3.

// legacyCondition is one entry of Expected, KeyConditions, QueryFilter or ScanFilter.
type legacyCondition struct {
	name     string
	operator string // ComparisonOperator
	values   []item.Value

	hasOperator, hasList bool // ComparisonOperator, AttributeValueList was given

	// Of Expected alone:
	value  item.Value // Value; absent for none
	exists string     // Exists: "", "true" or "false"
}

// legacyUpdate is one entry of AttributeUpdates.
type legacyUpdate struct {
	name, action string
	value        item.Value // absent for none
}

// readLegacyConditions reads a map of conditions by attribute name. class is what the model calls them.
func (q *request) readLegacyConditions(class string) ([]legacyCondition, error) {
	r := &q.reader
	var out []legacyCondition
	err := r.Map(class, func(name []byte) error {
		c := legacyCondition{name: string(name)}
		err := r.MapValue(class, func(name []byte) error {
			member := string(name)
			if r.Null() {
				return nil
			}
			switch member {
			case "ComparisonOperator":
				var err error
				c.hasOperator = true
				c.operator, err = r.String()
				return err
			case "AttributeValueList":
				c.hasList = true
				return r.Array(func() error {
					v, err := q.legacyValue()
					c.values = append(c.values, v)
					return err
				})
			case "Value":
				var err error
				if err = r.Field("AttributeValue"); err == nil {
					c.value, err = q.legacyValue()
				}
				return err
			case "Exists":
				yes, err := r.Bool()
				c.exists = fmt.Sprint(yes)
				return err
			}
			return r.Skip()
		})
		out = append(out, c)
		if err == nil {
			err = q.another()
		}
		return err
	})
	return out, err
}

// readAttributeUpdates reads a map of updates by attribute name.
func (q *request) readAttributeUpdates() ([]legacyUpdate, error) {
	r := &q.reader
	var out []legacyUpdate
	err := r.Map("AttributeValueUpdate", func(name []byte) error {
		u := legacyUpdate{name: string(name), action: "PUT"}
		err := r.MapValue("AttributeValueUpdate", func(name []byte) error {
			member := string(name)
			if r.Null() {
				return nil
			}
			var err error
			switch member {
			case "Action":
				u.action, err = r.String()
			case "Value":
				if err = r.Field("AttributeValue"); err == nil {
					u.value, err = q.legacyValue()
				}
			default:
				err = r.Skip()
			}
			return err
		})
		out = append(out, u)
		if err == nil {
			err = q.another()
		}
		return err
	})
	return out, err
}

// legacyValue reads a value and puts a broken rule aside.
func (q *request) legacyValue() (item.Value, error) {
	v, err := q.reader.Value()
	if err = putAside(&q.params.legacyErr, err); v.IsAbsent() {
		v = item.Null() // it will not be used
	}
	return v, err
}

// operators says how many values each comparison takes and what it is as an expression.
var operators = map[string]struct {
	least, most int
	form        string // %n is the name, %v each value, in turn
}{
	"EQ": {1, 1, "%n = %v"}, "NE": {1, 1, "%n <> %v"}, "LE": {1, 1, "%n <= %v"}, "LT": {1, 1, "%n < %v"},
	"GE": {1, 1, "%n >= %v"}, "GT": {1, 1, "%n > %v"}, "BETWEEN": {2, 2, "%n BETWEEN %v AND %v"},
	"NOT_NULL": {0, 0, "attribute_exists(%n)"}, "NULL": {0, 0, "attribute_not_exists(%n)"},
	"CONTAINS": {1, 1, "contains(%n, %v)"},
	// A missing attribute contains nothing, and still NOT_CONTAINS is false of it.
	"NOT_CONTAINS": {1, 1, "attribute_exists(%n) AND NOT contains(%n, %v)"},
	"BEGINS_WITH":  {1, 1, "begins_with(%n, %v)"}, "IN": {1, 100, ""},
}

// builder writes an expression of placeholders of its own.
type builder struct {
	text strings.Builder
	ph   expr.Placeholders
}

func newBuilder() *builder {
	return &builder{}
}

func (b *builder) name(s string) string {
	p := fmt.Sprintf("#n%d", len(b.ph.Names))
	b.ph.Names = append(b.ph.Names, expr.Name{Placeholder: p, Name: s})
	return p
}

func (b *builder) value(v item.Value) string {
	p := fmt.Sprintf(":v%d", len(b.ph.Values))
	b.ph.Values = append(b.ph.Values, expr.Value{Placeholder: p, Value: v})
	return p
}

// checkLegacyModel checks the enums of the legacy parameters.
func (p *params) checkLegacyModel(c *constraints) {
	for i := range p.attributeUpdates {
		u := &p.attributeUpdates[i]
		c.enum(u.action, "attributeUpdates."+shorten(u.name)+".member.action", "ADD", "PUT", "DELETE")
	}
	check := func(parameter string, required bool, list []legacyCondition) {
		for i := range list {
			x := &list[i]
			at := parameter + "." + shorten(x.name) + ".member.comparisonOperator"
			switch {
			case x.hasOperator:
				c.enum(x.operator, at, "IN", "NULL", "BETWEEN", "LT", "NOT_CONTAINS", "EQ", "GT", "NOT_NULL", "NE", "LE", "BEGINS_WITH", "GE", "CONTAINS")
			case required:
				c.required(at)
			}
		}
	}
	check("expected", false, p.expected)
	check("keyConditions", true, p.keyConditions)
	if p.has(mScanFilter) {
		check("scanFilter", true, p.legacyFilters)
	} else {
		check("queryFilter", true, p.legacyFilters)
	}
}

// check checks the comparison itself.
func (c *legacyCondition) check() error {
	operator := operators[c.operator]
	if n := len(c.values); n < operator.least || n > operator.most {
		return invalid("One or more parameter values were invalid: Invalid number of argument(s) for the %s ComparisonOperator", c.operator)
	}
	for _, v := range c.values {
		if v.Kind() != c.values[0].Kind() {
			return invalid("One or more parameter values were invalid: AttributeValues inside AttributeValueList must be of same type")
		}
	}
	for _, v := range c.values {
		scalar := v.Kind().IsKey()
		switch c.operator {
		case "LE", "LT", "GE", "GT", "BETWEEN", "IN", "CONTAINS", "NOT_CONTAINS":
			if !scalar {
				return c.badType(v)
			}
		case "BEGINS_WITH":
			if !scalar || v.Kind() == item.KindN {
				return c.badType(v)
			}
		}
	}
	if c.operator == "BETWEEN" && item.Compare(c.values[0], c.values[1]) > 0 {
		return invalid("The BETWEEN condition was provided a range where the lower bound is greater than the upper bound")
	}
	return nil
}

func (c *legacyCondition) badType(v item.Value) error {
	return invalid("One or more parameter values were invalid: ComparisonOperator %s is not valid for %s AttributeValue type", c.operator, v.Kind())
}

// comparison writes one condition.
func (b *builder) comparison(c *legacyCondition) {
	name := b.name(c.name)
	if c.operator == "IN" {
		b.text.WriteString(name + " IN (")
		for i, v := range c.values {
			if i > 0 {
				b.text.WriteString(", ")
			}
			b.text.WriteString(b.value(v))
		}
		b.text.WriteString(")")
		return
	}
	form := strings.ReplaceAll(operators[c.operator].form, "%n", name)
	for _, v := range c.values {
		form = strings.Replace(form, "%v", b.value(v), 1)
	}
	b.text.WriteString(form)
}

// conditions makes one condition of a list, joined by the request's ConditionalOperator; nil for none.
func (p *params) conditions(list []legacyCondition) (*expr.Condition, error) {
	if p.legacyErr != nil {
		return nil, p.legacyErr
	}
	if p.has(mConditionalOperator) && len(list) < 2 {
		if len(list) == 0 {
			return nil, invalid("ConditionalOperator cannot be used without Filter or Expected")
		}
		return nil, invalid("ConditionalOperator can only be used when Filter or Expected has two or more elements")
	}
	if len(list) == 0 {
		return nil, nil
	}
	for i := range list {
		if err := list[i].check(); err != nil {
			return nil, err
		}
	}
	join := ") AND ("
	if p.conditionalOperator == "OR" {
		join = ") OR ("
	}
	b := newBuilder()
	b.join(list, join)
	return expr.BuildCondition(b.text.String(), &b.ph)
}

// join writes conditions joined two by two, so that a long list makes no deep expression.
func (b *builder) join(list []legacyCondition, word string) {
	if len(list) == 1 {
		b.comparison(&list[0])
		return
	}
	b.text.WriteString("(")
	b.join(list[:len(list)/2], word)
	b.text.WriteString(word)
	b.join(list[len(list)/2:], word)
	b.text.WriteString(")")
}

// legacyCondition makes a condition of Expected; nil for none.
func (p *params) legacyCondition() (*expr.Condition, error) {
	for i := range p.expected {
		c := &p.expected[i]
		switch {
		case !c.value.IsAbsent() && c.hasList:
			return nil, invalid("One or more parameter values were invalid: Value and AttributeValueList cannot be used together for Attribute: %s", c.name)
		case c.hasOperator && c.exists != "":
			return nil, invalid("One or more parameter values were invalid: Exists and ComparisonOperator cannot be used together for Attribute: %s", c.name)
		case c.hasOperator && c.value.IsAbsent() && !c.hasList && c.operator != "NULL" && c.operator != "NOT_NULL":
			return nil, invalid("One or more parameter values were invalid: Value or AttributeValueList must be used with ComparisonOperator: %s for Attribute: %s", c.operator, c.name)
		case c.hasOperator:
			if !c.value.IsAbsent() {
				c.values = []item.Value{c.value}
			}
		case c.hasList:
			return nil, invalid("One or more parameter values were invalid: AttributeValueList can only be used with a ComparisonOperator for Attribute: %s", c.name)
		case c.exists == "false" && !c.value.IsAbsent():
			return nil, invalid("One or more parameter values were invalid: Value cannot be used when Exists is false for Attribute: %s", c.name)
		case c.exists == "false":
			c.operator = "NULL"
		case c.value.IsAbsent() && c.exists == "":
			return nil, invalid("One or more parameter values were invalid: Value must be provided when Exists is null for Attribute: %s", c.name)
		case c.value.IsAbsent():
			return nil, invalid("One or more parameter values were invalid: Value must be provided when Exists is true for Attribute: %s", c.name)
		default:
			c.operator, c.values = "EQ", []item.Value{c.value}
		}
	}
	return p.conditions(p.expected)
}

// legacyUpdate makes an update of AttributeUpdates.
func (p *params) legacyUpdate() (*expr.Update, error) {
	if p.legacyErr != nil {
		return nil, p.legacyErr
	}
	b := newBuilder()
	sections := map[string][]string{}
	for _, u := range p.attributeUpdates {
		if why := badName(u.name); why != "" {
			return nil, invalid("%s", why)
		}
		name := b.name(u.name)
		kind := u.value.Kind()
		switch u.action {
		case "PUT":
			if u.value.IsAbsent() {
				return nil, invalid("One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified")
			}
			sections["SET"] = append(sections["SET"], name+" = "+b.value(u.value))
		case "DELETE":
			switch {
			case u.value.IsAbsent():
				sections["REMOVE"] = append(sections["REMOVE"], name)
			case kind.IsSet():
				sections["DELETE"] = append(sections["DELETE"], name+" "+b.value(u.value))
			default:
				return nil, invalid("One or more parameter values were invalid: DELETE action with value is not supported for the type %s", kind)
			}
		case "ADD":
			switch {
			case u.value.IsAbsent():
				return nil, invalid("One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified")
			case kind == item.KindN || kind.IsSet():
				sections["ADD"] = append(sections["ADD"], name+" "+b.value(u.value))
			case kind == item.KindL:
				sections["SET"] = append(sections["SET"], fmt.Sprintf("%s = list_append(if_not_exists(%s, %s), %s)", name, name, b.value(item.L()), b.value(u.value)))
			default:
				return nil, invalid("One or more parameter values were invalid: ADD action is not supported for the type %s", kind)
			}
		}
	}
	if len(p.attributeUpdates) == 0 {
		return &expr.Update{}, nil
	}
	var text strings.Builder
	for _, section := range [...]string{"SET", "REMOVE", "ADD", "DELETE"} {
		if actions := sections[section]; len(actions) > 0 {
			text.WriteString(section + " " + strings.Join(actions, ", ") + " ")
		}
	}
	return expr.BuildUpdate(text.String(), &b.ph)
}

// legacyKeyTerms makes a key condition of KeyConditions.
func (p *params) legacyKeyTerms() ([]expr.KeyTerm, error) {
	if p.legacyErr != nil {
		return nil, p.legacyErr
	}
	ops := map[string]expr.Op{"EQ": expr.OpEQ, "LT": expr.OpLT, "LE": expr.OpLE, "GT": expr.OpGT, "GE": expr.OpGE, "BETWEEN": expr.OpBetween, "BEGINS_WITH": expr.OpBeginsWith}
	var out []expr.KeyTerm
	for i := range p.keyConditions {
		c := &p.keyConditions[i]
		if err := c.check(); err != nil {
			return nil, err
		}
		operator, ok := ops[c.operator]
		if !ok {
			return nil, invalid("Attempted conditional constraint is not an indexable operation")
		}
		t := expr.KeyTerm{Name: c.name, Op: operator, A: &c.values[0]}
		if len(c.values) > 1 {
			t.B = &c.values[1]
		}
		out = append(out, t)
	}
	return out, nil
}
