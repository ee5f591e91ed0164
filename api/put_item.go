package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
)

const writeMembers = mTableName | mConditionExpression | mNames | mValues | mReturnValues | mReturnOnFailure | mReturnCapacity | mReturnMetrics |
	mExpected | mConditionalOperator

// What PutItem and DeleteItem have of expressions, and what these replace.
var (
	expressionsOfWrites = []member{mConditionExpression}
	legacyOfWrites      = []member{mExpected, mConditionalOperator}
)

// putItem answers PutItem.
func putItem(q *request, ctx context.Context) error {
	p := &q.params
	p.writes = true
	if err := q.read(writeMembers | mItem); err != nil {
		return err
	}
	condition, err := p.checkPut()
	if err != nil {
		return err
	}
	t, err := q.table(ctx)
	if err != nil {
		return err
	}
	s := t.Schema()
	key, err := s.KeyOf(p.item)
	if err != nil {
		return err
	}
	if err := s.CheckIndexKeys(nil, p.item); err != nil {
		return err
	}
	if condition != nil {
		if err := checkKeyPaths(s, condition.Paths); err != nil {
			return err
		}
	}
	return q.write(ctx, t, &op.Command{Kind: op.Put, Key: key, Item: p.item, Condition: condition}, p.item)
}

// checkPut checks a PutItem as far as that goes without the table, and returns its condition, nil for none.
func (p *params) checkPut() (*expr.Condition, error) {
	if err := p.checkModel(mItem); err != nil {
		return nil, err
	}
	if err := p.checkMixing(expressionsOfWrites, legacyOfWrites); err != nil {
		return nil, err
	}
	if err := p.checkItem(); err != nil {
		return nil, err
	}
	if err := p.checkReturnValues(); err != nil {
		return nil, err
	}
	if sizeOf(p.item) > op.MaxItemSize {
		return nil, errItemTooLarge()
	}
	if err := p.checkPlaceholders(); err != nil {
		return nil, err
	}
	return p.parseCondition()
}

func errItemTooLarge() *Error { return invalid("Item size has exceeded the maximum allowed size") }

// checkReturnValues is for PutItem and DeleteItem, which have only the old item to give.
func (p *params) checkReturnValues() error {
	switch p.returnValues {
	case "", "NONE", "ALL_OLD":
		return nil
	}
	return p.misuse("Return values set to invalid value")
}

// parseCondition parses ConditionExpression, or Expected, and checks that no placeholder is left over;
// nil for neither.
func (p *params) parseCondition() (*expr.Condition, error) {
	var condition *expr.Condition
	var err error
	if p.has(mConditionExpression) {
		condition, err = expr.ParseCondition("ConditionExpression", p.condition, &p.placeholders)
	} else {
		condition, err = p.legacyCondition()
	}
	if err == nil && p.has(mNames|mValues) {
		err = p.placeholders.CheckUsed()
	}
	return condition, p.misused(err)
}

// write carries out a Put or Delete and answers with the old item where it was asked for. keyed is an item
// with the key's attributes, stored form.
func (q *request) write(ctx context.Context, t *region.Table, c *op.Command, keyed []byte) error {
	used := q.h.usage(t)
	result, err := q.carryOut(ctx, t, c, used, keyed)
	if err != nil {
		return err
	}
	q.open()
	if q.params.returnValues == "ALL_OLD" && result.Old != nil {
		q.member("Attributes")
		if err := q.item(result.Old); err != nil {
			return err
		}
	}
	q.written(t, c, result, used, keyed)
	q.close()
	return nil
}

// carryOut has the table write, if there is capacity for it, and turns what the command was refused for into an answer.
func (q *request) carryOut(ctx context.Context, t *region.Table, c *op.Command, used *usage, keyed []byte) (op.Result, error) {
	if why := q.h.cfg.Fenced(ctx); why != nil {
		return op.Result{}, errFenced(q.h.cfg.Region.Name(), why)
	}
	if err := used.throttleWrite(c, keyed); err != nil {
		return op.Result{}, err
	}
	result, err := t.Write(ctx, c)
	if err != nil {
		return result, q.lost(ctx, err)
	}
	if result.Err == nil {
		return result, nil
	}
	if failed := (*op.ConditionFailed)(nil); errors.As(result.Err, &failed) {
		used.charge(&consumption{table: writeUnits(sizeOf(failed.Item))}, true)
		if q.params.returnOnFailure == "ALL_OLD" {
			return result, errCondition(failed.Item)
		}
		return result, errCondition(nil)
	}
	return result, result.Err
}

// written writes what a write took, and how large its item collection is.
func (q *request) written(t *region.Table, c *op.Command, result op.Result, used *usage, keyed []byte) {
	if q.wantsCapacity() || used != nil {
		taken := consumption{name: q.params.givenTable}
		taken.addWrite(t.Schema(), c.Key, result.Old, result.New)
		used.wrote(&taken, result.New)
		q.consumed(&taken)
	}
	q.wroteAt(t, result)
	q.collectionMetrics(t.Schema(), keyed)
}
