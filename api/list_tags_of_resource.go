package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/region"
)

// listTagsOfResource answers ListTagsOfResource, in one page: a table has few tags.
func listTagsOfResource(q *request, _ context.Context) error {
	var in struct{ ResourceArn, NextToken *string } // there is one page: any token leads to it
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableOfARN(in.ResourceArn)
	if err != nil {
		return err
	}
	d, err := q.h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return errNoResource(*in.ResourceArn)
	}
	if err != nil {
		return err
	}
	out := struct{ Tags []tagShape }{[]tagShape{}}
	for _, t := range d.Tags {
		out.Tags = append(out.Tags, tagShape{&t.Key, &t.Value})
	}
	return q.encode(out)
}
