package api

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Resource policies are kept with the table or the stream that they are of, and shown again. Nothing is decided by them.

const (
	maxPolicy = 20 << 10    // bytes of a policy document. Source: PutResourcePolicy's documentation
	noPolicy  = "NO_POLICY" // the ExpectedRevisionId that means: there shall be none yet
)

// putResourcePolicy answers PutResourcePolicy.
func putResourcePolicy(q *request, ctx context.Context) error {
	var in struct {
		ResourceArn, Policy, ExpectedRevisionId *string
		ConfirmRemoveSelfResourceAccess         *bool
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.policyOf(in.ResourceArn, in.ExpectedRevisionId)
	if in.Policy == nil {
		c.required("policy")
	}
	if err := c.err(); err != nil {
		return err
	}
	if err := checkPolicy(*in.Policy); err != nil {
		return err
	}
	return q.changePolicy(ctx, *in.ResourceArn, in.ExpectedRevisionId, in.Policy)
}

// deleteResourcePolicy answers DeleteResourcePolicy.
func deleteResourcePolicy(q *request, ctx context.Context) error {
	var in struct{ ResourceArn, ExpectedRevisionId *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.policyOf(in.ResourceArn, in.ExpectedRevisionId)
	if err := c.err(); err != nil {
		return err
	}
	return q.changePolicy(ctx, *in.ResourceArn, in.ExpectedRevisionId, nil)
}

// getResourcePolicy answers GetResourcePolicy.
func getResourcePolicy(q *request, _ context.Context) error {
	var in struct{ ResourceArn *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.policyOf(in.ResourceArn, nil)
	if err := c.err(); err != nil {
		return err
	}
	name, stream, err := q.h.policyHolder(*in.ResourceArn)
	if err != nil {
		return err
	}
	d, err := q.h.definition(name)
	if err != nil {
		return err
	}
	at, err := policyAt(d, stream)
	if err != nil {
		return err
	}
	if *at == nil {
		return errNoPolicy(*in.ResourceArn)
	}
	return q.encode(struct{ Policy, RevisionId string }{(*at).Document, (*at).Revision})
}

func (c *constraints) policyOf(arn, expected *string) {
	if arn == nil {
		c.required("resourceArn")
	} else {
		c.length(*arn, "resourceArn", 1, 1283)
	}
	if expected != nil {
		c.length(*expected, "expectedRevisionId", 1, 255)
	}
}

// checkPolicy refuses what is no policy document: an object with a Statement.
func checkPolicy(document string) error {
	if len(document) > maxPolicy {
		return invalid("One or more parameter values were invalid: The policy document may have at most %d bytes, not %d", maxPolicy, len(document))
	}
	var policy struct{ Statement json.RawMessage }
	if err := json.Unmarshal([]byte(document), &policy); err != nil || policy.Statement == nil {
		return invalid("Invalid policy document: it must be a JSON object with a Statement")
	}
	return nil
}

// changePolicy sets the policy of the resource, nil for none, if its revision is the expected one.
func (q *request) changePolicy(ctx context.Context, arn string, expected, document *string) error {
	name, stream, err := q.h.policyHolder(arn)
	if err != nil {
		return err
	}
	var revision *string
	_, err = q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		at, err := policyAt(d, stream)
		if err != nil {
			return err
		}
		old := *at
		switch {
		case expected == nil:
		case document != nil && *expected == noPolicy && old == nil:
		case old == nil || *expected != old.Revision:
			return errNoPolicy(arn)
		}
		switch {
		case document == nil:
			*at, revision = nil, nil
			if old != nil {
				revision = &old.Revision
			}
		case old != nil && old.Document == *document: // the same once more
			revision = &old.Revision
		default:
			*at = &table.Policy{Document: *document, Revision: q.h.newRevision(old)}
			revision = &(*at).Revision
		}
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	return q.encode(struct {
		RevisionId *string `json:",omitempty"`
	}{revision})
}

// newRevision is the present in milliseconds, as the service's revisions are, and never the last one's.
func (h *Handler) newRevision(old *table.Policy) string {
	now := h.cfg.Now().UnixMilli()
	if old != nil {
		if last, err := strconv.ParseInt(old.Revision, 10, 64); err == nil {
			now = max(now, last+1)
		}
	}
	return strconv.FormatInt(now, 10)
}

// policyHolder returns the table that an ARN is of, and the label of its stream where it is a stream's.
func (h *Handler) policyHolder(arn string) (name, stream string, err error) {
	own, label, isStream := strings.Cut(arn, "/stream/")
	if name, err = h.tableOfARN(&own); isStream {
		stream = label
	}
	return name, stream, err
}

// policyAt returns where the definition keeps the table's policy, or its stream's.
func policyAt(d *table.Definition, stream string) (**table.Policy, error) {
	switch {
	case stream == "":
		return &d.Policy, nil
	case d.Stream == nil || d.Stream.Label != stream:
		return nil, dynamoError("ResourceNotFoundException", "Requested resource not found: Stream: %s not found", stream)
	}
	return &d.StreamPolicy, nil
}

func errNoPolicy(arn string) *Error {
	return dynamoError("PolicyNotFoundException", "Resource-based policy not found for the provided ResourceArn: %s", arn)
}
