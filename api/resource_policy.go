package api

import (
	"context"
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
	at, err := q.h.policyHolder(*in.ResourceArn)
	if err != nil {
		return err
	}
	if _, err := q.h.definition(ctx, at.table); err != nil {
		return err
	}
	policy, err := readPolicy(*in.Policy, at.stream != "")
	if err != nil {
		return err
	}
	if policy.locksOut(q.h.cfg.Account) && (in.ConfirmRemoveSelfResourceAccess == nil || !*in.ConfirmRemoveSelfResourceAccess) {
		return serviceError("AccessDeniedException", "The new resource policy will not allow you to update the resource policy in the future.")
	}
	document, err := policy.canonical()
	if err != nil {
		return err
	}
	return q.changePolicy(ctx, at, in.ExpectedRevisionId, &document)
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
	at, err := q.h.policyHolder(*in.ResourceArn)
	if err != nil {
		return err
	}
	return q.changePolicy(ctx, at, in.ExpectedRevisionId, nil)
}

// getResourcePolicy answers GetResourcePolicy.
func getResourcePolicy(q *request, ctx context.Context) error {
	var in struct{ ResourceArn *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	c.policyOf(in.ResourceArn, nil)
	if err := c.err(); err != nil {
		return err
	}
	at, err := q.h.policyHolder(*in.ResourceArn)
	if err != nil {
		return err
	}
	d, err := q.h.definition(ctx, at.table)
	if err != nil {
		return err
	}
	policy, err := at.of(d)
	if err != nil {
		return err
	}
	if *policy == nil {
		return errNoPolicy("%s", *in.ResourceArn)
	}
	return q.encode(struct{ Policy, RevisionId string }{shownPolicy((*policy).Document), (*policy).Revision})
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

// changePolicy sets the policy of the resource, nil for none, if its revision is the expected one. The service lets 15 seconds pass
// between two changes; nothing here needs them.
func (q *request) changePolicy(ctx context.Context, at policyHolder, expected, document *string) error {
	var revision *string
	_, err := q.h.cfg.Region.Change(ctx, at.table, func(d *table.Definition) error {
		policy, err := at.of(d)
		if err != nil {
			return err
		}
		old := *policy
		switch {
		case expected == nil:
		case document != nil && *expected == noPolicy:
			if old != nil {
				return errNoPolicy("Requested policy update expecting none to be present for %s, but a policy exists with revision id %s.", at, old.Revision)
			}
		case old == nil:
			return errNoPolicy("Requested update for policy with revision id %s, but %s has no associated policy.", *expected, at)
		case *expected != old.Revision:
			return errNoPolicy("Requested update for policy with revision id %s, but the policy associated to target %s has revision id %s.", *expected, at, old.Revision)
		}
		if old != nil {
			revision = &old.Revision
		}
		switch {
		case document != nil && old != nil && old.Document == *document: // the same once more
		case d.Status == table.Deleting:
			return errChanging(d)
		case document == nil:
			*policy = nil
		default:
			*policy = &table.Policy{Document: *document, Revision: q.h.newRevision(old)}
			revision = &(*policy).Revision
		}
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(at.table)
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

// policyHolder is what a policy is of: a table, or its stream with this label.
type policyHolder struct{ table, stream string }

func (p policyHolder) String() string {
	if p.stream != "" {
		return "stream " + p.stream
	}
	return "table " + p.table
}

// policyHolder returns what an ARN is of.
func (h *Handler) policyHolder(arn string) (policyHolder, error) {
	none := policyHolder{}
	parts := strings.SplitN(arn, ":", 6)
	if parts[0] != "arn" || len(parts) == 1 {
		return none, parameter("ARNs must start with 'arn:': %s", shorten(arn))
	}
	if len(parts) < 6 || parts[2] != "dynamodb" {
		return none, parameter("Provided Arn is not a DynamoDB resource arn: %s", shorten(arn))
	}
	path := strings.Split(parts[5], "/")
	of := policyHolder{}
	switch {
	case len(path) == 4 && path[0] == "table" && path[2] == "index":
		return none, parameter("Invalid resource arn provided, only table or stream is accepted. Provided resource arn: %s", shorten(arn))
	case len(path) == 2 && path[0] == "table" && path[1] != "":
		of.table = path[1]
	case len(path) == 4 && path[0] == "table" && path[2] == "stream":
		of.table, of.stream = path[1], path[3]
	default:
		return none, parameter("Provided Arn is not a DynamoDB resource arn: %s", shorten(arn))
	}
	switch {
	case parts[1] != "aws" || parts[3] != h.cfg.Region.Name():
		return none, parameter("Invalid resource Arn: %s", shorten(arn))
	case parts[4] != h.cfg.Account:
		return none, invalid("This action is only supported by accounts that match the resource owner’s account.")
	}
	return of, nil
}

// of returns where the definition keeps the policy.
func (p policyHolder) of(d *table.Definition) (**table.Policy, error) {
	switch {
	case p.stream == "":
		return &d.Policy, nil
	case d.Stream == nil || d.Stream.Label != p.stream:
		return nil, dynamoError("ResourceNotFoundException", "Requested resource not found: Stream: %s not found for Table: %s", p.stream, p.table)
	}
	return &d.StreamPolicy, nil
}

func errNoPolicy(format string, args ...any) *Error {
	return dynamoError("PolicyNotFoundException", "Resource-based policy not found for the provided ResourceArn: "+format, args...)
}
