package api

import (
	"context"
	"errors"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// updateTimeToLive answers UpdateTimeToLive. All replicas of a table share the setting. The service refuses a second change within
// half an hour; here there is nothing that would need the time.
func updateTimeToLive(q *request, ctx context.Context) error {
	type specification struct {
		AttributeName *string
		Enabled       *bool
	}
	var in struct {
		TableName               *string
		TimeToLiveSpecification *specification
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	var c constraints
	s := in.TimeToLiveSpecification
	switch {
	case s == nil:
		c.required("timeToLiveSpecification")
	default:
		if s.AttributeName == nil {
			c.required("timeToLiveSpecification.attributeName")
		} else {
			c.length(*s.AttributeName, "timeToLiveSpecification.attributeName", 1, 255)
		}
		if s.Enabled == nil {
			c.required("timeToLiveSpecification.enabled")
		}
	}
	if err := c.err(); err != nil {
		return err
	}
	_, err = q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		switch {
		case d.Status == table.Creating:
			return errChanging(d)
		case !*s.Enabled && d.TTL == "":
			return invalid("TimeToLive is already disabled")
		case d.TTL != "" && d.TTL != *s.AttributeName:
			return invalid("TimeToLive is active on a different AttributeName: current AttributeName is %s", d.TTL)
		case *s.Enabled && d.TTL != "":
			return invalid("TimeToLive is already enabled")
		}
		d.TTL = ""
		if *s.Enabled {
			d.TTL = *s.AttributeName
		}
		d.Version = q.h.version(d)
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	return q.encode(struct{ TimeToLiveSpecification *specification }{s})
}
