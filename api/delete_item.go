package api

import (
	"context"

	"github.com/commutatordb/commutator/region/op"
)

// deleteItem answers DeleteItem.
func deleteItem(q *request, ctx context.Context) error {
	p := &q.params
	p.writes = true
	if err := q.read(writeMembers | mKey); err != nil {
		return err
	}
	if err := p.checkModel(mKey); err != nil {
		return err
	}
	if err := p.checkMixing(expressionsOfWrites, legacyOfWrites); err != nil {
		return err
	}
	if err := p.checkItem(); err != nil {
		return err
	}
	if err := p.checkReturnValues(); err != nil {
		return err
	}
	if err := p.checkPlaceholders(); err != nil {
		return err
	}
	condition, err := p.parseCondition()
	if err != nil {
		return err
	}
	t, err := q.table(ctx)
	if err != nil {
		return err
	}
	key, err := keyOf(t.Schema(), p.key)
	if err != nil {
		return err
	}
	if err := checkKeyPaths(t.Schema(), condition.Paths); err != nil {
		return err
	}
	return q.write(ctx, t, &op.Command{Kind: op.Delete, Key: key, Condition: condition}, p.key)
}
