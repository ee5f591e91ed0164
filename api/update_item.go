package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// updateItem answers UpdateItem.
func updateItem(q *request, ctx context.Context) error {
	p := &q.params
	p.writes, p.firstOnly = true, true
	if err := q.read(writeMembers | mKey | mUpdateExpression | mAttributeUpdates); err != nil {
		return err
	}
	update, condition, err := p.checkUpdate()
	if err != nil {
		return err
	}
	t, err := q.table(ctx)
	if err != nil {
		return err
	}
	s := t.Schema()
	key, err := keyOf(s, p.key)
	if err != nil {
		return err
	}
	if err := checkKeyPaths(s, update.Paths); err != nil {
		return err
	}
	if err := checkKeyPaths(s, condition.Paths); err != nil {
		return err
	}
	for path := range update.Paths {
		if name := path[0].Name; name == s.Hash.Name || s.HasRange() && name == s.Range.Name {
			return invalid("One or more parameter values were invalid: Cannot update attribute %s. This attribute is part of the key", name)
		}
	}
	c := &op.Command{Kind: op.Update, Key: key, Update: update, Condition: condition}
	used := q.h.usage(t)
	result, err := q.carryOut(ctx, t, c, used, p.key)
	if err != nil {
		return p.updateError(err)
	}
	attributes, err := returned(p.returnValues, update, result)
	if err != nil {
		return err
	}
	q.open()
	if attributes != nil {
		q.member("Attributes")
		if err := q.item(attributes); err != nil {
			return err
		}
	}
	q.written(t, c, result, used, p.key)
	q.close()
	return nil
}

// What UpdateItem has of expressions, and what these replace.
var (
	expressionsOfUpdates = []member{mUpdateExpression, mConditionExpression}
	legacyOfUpdates      = []member{mAttributeUpdates, mExpected, mConditionalOperator}
)

// checkUpdate checks an UpdateItem as far as that goes without the table, and returns its update and its
// condition, nil for none.
func (p *params) checkUpdate() (*expr.Update, *expr.Condition, error) {
	if err := p.checkModel(mKey); err != nil {
		return nil, nil, err
	}
	if err := p.checkMixing(expressionsOfUpdates, legacyOfUpdates); err != nil {
		return nil, nil, err
	}
	if err := p.checkItem(); err != nil {
		return nil, nil, err
	}
	if err := p.checkPlaceholders(); err != nil {
		return nil, nil, err
	}
	update, err := p.parseUpdate()
	if err != nil {
		return nil, nil, err
	}
	condition, err := p.parseCondition()
	return update, condition, err
}

// updateError words what an update was refused for: an update expression and AttributeUpdates say the same
// thing differently.
func (p *params) updateError(err error) error {
	if p.has(mAttributeUpdates) {
		if errors.Is(err, expr.ErrOperandType) {
			return invalid("Type mismatch for attribute to update")
		}
		return err
	}
	if e := (*table.KeyError)(nil); errors.As(err, &e) && e.Update != "" {
		return invalid("%s", e.Update)
	}
	return err
}

// parseUpdate parses UpdateExpression, or AttributeUpdates. With neither the update has no actions.
func (p *params) parseUpdate() (*expr.Update, error) {
	if p.has(mUpdateExpression) {
		update, err := expr.ParseUpdate(p.update, &p.placeholders)
		return update, p.misused(err)
	}
	if p.has(mAttributeUpdates) {
		return p.legacyUpdate()
	}
	return &expr.Update{}, nil
}

// returned gives what ReturnValues asks for of an update, stored form; nil for nothing. UPDATED_* are the
// paths that the update names and nothing around them.
func returned(what string, update *expr.Update, result op.Result) ([]byte, error) {
	from := result.New
	switch what {
	case "ALL_OLD":
		return result.Old, nil
	case "ALL_NEW":
		return result.New, nil
	case "UPDATED_OLD":
		from = result.Old
	case "UPDATED_NEW":
	default:
		return nil, nil
	}
	if from == nil {
		return nil, nil
	}
	it, err := item.DecodeItem(from)
	if err != nil {
		return nil, err
	}
	var paths []item.Path
	for path := range update.Paths {
		paths = append(paths, path)
	}
	part := expr.NewProjection(paths).Apply(it)
	if len(part) == 0 {
		return nil, nil
	}
	return item.AppendItem(nil, part), nil
}
