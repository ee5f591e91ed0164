package api

import (
	"context"
	"errors"
	"reflect"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// tagResource answers TagResource. Its answer has no body.
func tagResource(q *request, ctx context.Context) error {
	var in struct {
		ResourceArn *string
		Tags        []tagShape
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	if in.Tags == nil {
		c.required("tags")
	}
	if err := c.err(); err != nil {
		return err
	}
	if len(in.Tags) == 0 {
		return invalid("Atleast one Tag needs to be provided as Input.")
	}
	if err := checkTags(in.Tags); err != nil {
		return err
	}
	return q.h.changeTags(ctx, in.ResourceArn, func(d *table.Definition) error { return addTags(d, in.Tags) })
}

// changeTags changes the tags of the table with the ARN.
func (h *Handler) changeTags(ctx context.Context, arn *string, change func(*table.Definition) error) error {
	name, err := h.tableOfARN(arn)
	if err != nil {
		return err
	}
	_, err = h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		if d.Status == table.Creating || d.Status == table.Deleting {
			return errChanging(d)
		}
		before := d.Schema.Clone().Modes
		if err := change(d); err != nil {
			return err
		}
		if !reflect.DeepEqual(before, d.Schema.Modes) {
			d.Version = h.version(d) // tags are a replica's own, modes are every replica's
		}
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errNoResource(*arn)
	}
	return err
}
