package api

import (
	"context"

	"github.com/commutatordb/commutator/table"
)

// untagResource answers UntagResource. Its answer has no body.
func untagResource(q *request, ctx context.Context) error {
	var in struct {
		ResourceArn *string
		TagKeys     []string
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	if in.TagKeys == nil {
		c.required("tagKeys")
	}
	c.lengths(in.TagKeys, "tagKeys", 1, 128)
	if err := c.err(); err != nil {
		return err
	}
	return q.h.changeTags(ctx, in.ResourceArn, func(d *table.Definition) error {
		removeTags(d, in.TagKeys)
		return nil
	})
}
