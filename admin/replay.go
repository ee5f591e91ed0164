package admin

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
)

// DescribeConflictRequest asks for one conflict record of this region.
type DescribeConflictRequest struct{ ID string }

// ReplayConflictRequest has the write that lost made again, as a new write of this region.
type ReplayConflictRequest struct {
	ID     string
	DryRun bool // only say what would be written
	Force  bool // even though what stands has been changed since
}

// Replay is what was written, or would be.
type Replay struct {
	Conflict  Conflict
	Operation string // PutItem, UpdateItem or DeleteItem
	Text      string // the update expression, "" for none
	Written   bool
}

func (o *Operator) describeConflict(ctx context.Context, q *DescribeConflictRequest) (*Conflict, error) {
	t, c, err := o.conflict(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	shown, err := o.show(t, c)
	return &shown, err
}

// conflict finds a record by its id.
func (o *Operator) conflict(ctx context.Context, id string) (t *region.Table, found op.Conflict, err error) {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != len(found.ID) {
		return nil, found, invalid("%q is no conflict's id: %d hexadecimal digits", id, 2*len(found.ID))
	}
	for _, candidate := range o.Region.Tables() {
		err := candidate.Conflicts(ctx, func(c op.Conflict) bool {
			if bytes.Equal(c.ID[:], raw) {
				t, found = candidate, c
			}
			return t == nil
		})
		if err != nil || t != nil {
			return t, found, err
		}
	}
	return nil, found, &Error{"ResourceNotFoundException", fmt.Sprintf("region %s has no conflict %s: it is kept where the losing write was acknowledged", o.Region.Name(), id)}
}

func (o *Operator) replayConflict(ctx context.Context, q *ReplayConflictRequest) (*Replay, error) {
	t, c, err := o.conflict(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	r := &Replay{}
	if r.Conflict, err = o.show(t, c); err != nil {
		return nil, err
	}
	command, err := r.command(c)
	if err != nil {
		return nil, err
	}
	if !q.Force {
		if err := checkStands(ctx, t, c); err != nil {
			return nil, err
		}
	}
	if q.DryRun {
		return r, nil
	}
	result, err := t.Write(ctx, command)
	if err == nil {
		err = result.Err
	}
	if failed := (*expr.Error)(nil); errors.As(err, &failed) {
		return nil, invalid("the write cannot be made again: %s", failed.Message)
	}
	r.Written = err == nil
	return r, err
}

// command makes the losing write anew.
func (r *Replay) command(c op.Conflict) (*op.Command, error) {
	lost := c.Conflict.Loser
	noValue := invalid("conflict %x does not hold what was written: it was an edit, of which only the result is known", c.ID)
	switch {
	case c.Conflict.Class == crdt.ClassClockHeld && lost.Op == crdt.Update:
		return nil, noValue // what it holds is the edit's part of the item, and would be put for all of it
	case len(c.Conflict.Path) == 0 && (lost.Op == crdt.Delete || lost.Op == crdt.Expire):
		r.Operation = "DeleteItem"
		return &op.Command{Kind: op.Delete, Key: c.Key}, nil
	case len(c.Conflict.Path) == 0 && len(lost.Value) > 1:
		r.Operation = "PutItem"
		return &op.Command{Kind: op.Put, Key: c.Key, Item: lost.Value[1:]}, nil
	case len(c.Conflict.Path) == 0, c.Conflict.Class == crdt.ClassTypeMasked, c.Conflict.Class == crdt.ClassNumericOverflow:
		return nil, noValue
	}
	r.Operation = "UpdateItem"
	var names []string
	var ph expr.Placeholders
	for i, name := range c.Conflict.Path {
		placeholder := fmt.Sprintf("#p%d", i)
		ph.Names = append(ph.Names, expr.Name{Placeholder: placeholder, Name: name})
		names = append(names, placeholder)
	}
	path := strings.Join(names, ".")
	text := "REMOVE " + path
	shown := "REMOVE " + strings.Join(c.Conflict.Path, ".")
	if lost.Value != nil {
		v, err := item.DecodeValue(lost.Value)
		if err != nil {
			return nil, err
		}
		ph.Values = []expr.Value{{Placeholder: ":lost", Value: v}}
		text = "SET " + path + " = :lost"
		shown = "SET " + strings.Join(c.Conflict.Path, ".") + " = :lost"
	}
	update, err := expr.ParseUpdate(text, &ph)
	if err != nil {
		return nil, err
	}
	r.Text = shown
	return &op.Command{Kind: op.Update, Key: c.Key, Update: update}, nil
}

// checkStands refuses a replay over what has been written since the conflict was found.
func checkStands(ctx context.Context, t *region.Table, c op.Conflict) error {
	stored, err := t.Get(ctx, c.Key, true)
	if err != nil {
		return err
	}
	var now []byte
	if stored != nil {
		it, err := item.DecodeItem(stored)
		if err != nil {
			return err
		}
		if v := it.LookupKeys(c.Conflict.Path); !v.IsAbsent() {
			now = item.AppendValue(nil, v)
		}
	}
	if !bytes.Equal(now, c.Conflict.Stands) {
		return invalid("what stood after conflict %x has been changed since; force the replay to write over it", c.ID)
	}
	return nil
}
