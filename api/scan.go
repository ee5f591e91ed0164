package api

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/table"
)

// scan answers Scan.
func scan(q *request, ctx context.Context) error {
	p := &q.params
	if err := q.read(searchMembers | mScanFilter | mSegment | mTotalSegments); err != nil {
		return err
	}
	if err := p.checkModel(0); err != nil {
		return err
	}
	if err := p.checkMixing([]member{mProjectionExpression, mFilterExpression}, []member{mAttributesToGet, mScanFilter, mConditionalOperator}); err != nil {
		return err
	}
	filter, err := p.legacyFilter()
	if err != nil {
		return err
	}
	if err := p.checkStart(); err != nil {
		return err
	}
	if err := p.checkSegments(); err != nil {
		return err
	}
	if err := p.checkSelect(); err != nil {
		return err
	}
	if err := p.checkPlaceholders(); err != nil {
		return err
	}
	if p.has(mFilterExpression) {
		if filter, err = expr.ParseCondition("FilterExpression", p.filter, &p.placeholders); err != nil {
			return err
		}
	}
	projection, err := p.parseProjection()
	if err != nil {
		return err
	}
	if err := p.placeholders.CheckUsed(); err != nil {
		return err
	}
	s, err := q.newSearch(ctx, filter, projection)
	if err != nil {
		return err
	}
	if p.has(mTotalSegments) {
		s.page.From, s.page.To = segment(uint64(p.segment), uint64(p.totalSegments))
	}
	if err := s.checkStartShape(); err != nil {
		return err
	}
	if err := s.startAfter(); err != nil {
		if errors.Is(err, errStartOutside) {
			return invalid("The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct Segment. TotalSegments: %d Segment: %d", p.totalSegments, p.segment)
		}
		return err
	}
	if err := s.checkPaths(); err != nil {
		return err
	}
	return s.run(ctx)
}

func (p *params) checkSegments() error {
	switch {
	case p.has(mSegment) && !p.has(mTotalSegments):
		return invalid("The TotalSegments parameter is required but was not present in the request when Segment parameter is present")
	case p.has(mTotalSegments) && !p.has(mSegment):
		return invalid("The Segment parameter is required but was not present in the request when parameter TotalSegments is present")
	case p.has(mSegment) && p.segment >= p.totalSegments:
		return invalid("The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: %d is not less than TotalSegments: %d", p.segment, p.totalSegments)
	}
	return nil
}

// segment returns the part of the key space that is segment i of n: an equal share of the hashes that
// keys begin with.
func segment(i, n uint64) (from, to table.Key) {
	if i > 0 {
		from = hashStart(i, n)
	}
	if i+1 < n {
		to = hashStart(i+1, n)
	}
	return from, to
}

// hashStart is i/n of the hash space, i < n.
func hashStart(i, n uint64) table.Key {
	start, _ := bits.Div64(i, 0, n)
	return binary.BigEndian.AppendUint64(nil, start)
}
