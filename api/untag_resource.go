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
	if err := c.err(); err != nil {
		return err
	}
	if len(in.TagKeys) == 0 {
		return invalid("Atleast one Tag Key needs to be provided as Input.")
	}
	for i := range in.TagKeys {
		if err := checkTagKey(&in.TagKeys[i]); err != nil {
			return err
		}
	}
	if len(in.TagKeys) > maxTags {
		return errTooManyTags()
	}
	return q.h.changeTags(ctx, in.ResourceArn, func(d *table.Definition) error {
		removeTags(d, in.TagKeys)
		return nil
	})
}
