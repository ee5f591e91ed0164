package api

import (
	"context"
	"errors"
	"slices"

	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/table"
)

// query answers Query.
func query(q *request, ctx context.Context) error {
	p := &q.params
	if err := q.read(searchMembers | mKeyConditionExpression | mKeyConditions | mQueryFilter | mScanIndexForward); err != nil {
		return err
	}
	terms, filter, projection, err := p.checkQuery()
	if err != nil {
		return err
	}
	s, err := q.newSearch(ctx, filter, projection)
	if err != nil {
		return err
	}
	if err := s.checkStartShape(); err != nil {
		return err
	}
	if err := s.bound(terms); err != nil {
		return err
	}
	s.page.Reverse = p.has(mScanIndexForward) && !p.forward
	if err := s.startAfter(); err != nil {
		if errors.Is(err, errStartOutside) {
			return s.startOutside(terms)
		}
		return err
	}
	if err := s.checkPaths(); err != nil {
		return err
	}
	if err := s.checkFilter(); err != nil {
		return err
	}
	return s.run(ctx)
}

// What Query has of expressions, and what these replace.
var (
	expressionsOfQuery = []member{mProjectionExpression, mFilterExpression, mKeyConditionExpression}
	legacyOfQuery      = []member{mAttributesToGet, mQueryFilter, mConditionalOperator, mKeyConditions}
)

// checkQuery checks a Query as far as that goes without the table, and returns its key condition, its filter
// and its projection, nil for none.
func (p *params) checkQuery() (terms []expr.KeyTerm, filter *expr.Condition, projection *expr.Projection, err error) {
	if err = p.checkModel(0); err != nil {
		return
	}
	if err = p.checkMixing(expressionsOfQuery, legacyOfQuery); err != nil {
		return
	}
	if filter, err = p.legacyFilter(); err != nil {
		return
	}
	if err = p.checkStart(); err != nil {
		return
	}
	if err = p.checkSelect(); err != nil {
		return
	}
	if !p.has(mKeyConditions | mKeyConditionExpression) {
		err = invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
		return
	}
	if err = p.checkPlaceholders(); err != nil {
		return
	}
	if terms, err = p.parseKeyCondition(); err != nil {
		return
	}
	if p.has(mFilterExpression) {
		if filter, err = expr.ParseCondition("FilterExpression", p.filter, &p.placeholders); err != nil {
			return
		}
	}
	if projection, err = p.parseProjection(); err != nil {
		return
	}
	err = p.placeholders.CheckUsed()
	return
}

// parseKeyCondition parses KeyConditionExpression, or KeyConditions.
func (p *params) parseKeyCondition() ([]expr.KeyTerm, error) {
	if p.has(mKeyConditionExpression) {
		return expr.ParseKeyCondition(p.keyCondition, &p.placeholders)
	}
	return p.legacyKeyTerms()
}

// startOutside is the answer to a starting key that the key condition does not reach.
func (s *search) startOutside(terms []expr.KeyTerm) error {
	start, err := item.DecodeItem(s.q.params.startKey)
	if err != nil {
		return err
	}
	hash := []table.Attribute{s.s.Hash}
	if s.index != nil {
		hash = s.index.Hash
	}
	ranged, one := false, true
	for i := range terms {
		t := &terms[i]
		if slices.ContainsFunc(hash, func(a table.Attribute) bool { return a.Name == t.Name }) {
			continue
		}
		ranged, one = true, one && t.Op == expr.OpEQ
		if !t.Holds(start.Get(t.Name)) {
			return invalid("The provided starting key does not match the range key predicate")
		}
	}
	if ranged && one {
		return invalid("The query can return at most one row and cannot be restarted")
	}
	return errStartOutside
}

// checkFilter refuses a filter on the keys of what is searched.
func (s *search) checkFilter() error {
	if s.filter == nil {
		return nil
	}
	what := "Filter Expression"
	if s.q.params.has(mQueryFilter) {
		what = "QueryFilter"
	}
	keys := s.keyAttributes()
	for path := range s.filter.Paths {
		for _, a := range keys {
			if a.Name == path[0].Name {
				return invalid("%s can only contain non-primary key attributes: Primary key attribute: %s", what, a.Name)
			}
		}
	}
	return nil
}

// bound makes the page's bounds of the key condition: every part of the partition key is equal to
// something, and so are parts of the sort key from the left on, but for the last one named, of which
// there may be a range.
func (s *search) bound(terms []expr.KeyTerm) error {
	s.terms = terms
	hash, sort := []table.Attribute{s.s.Hash}, s.s.KeyAttributes()[1:]
	if s.index != nil {
		hash, sort = s.index.Hash, s.index.Range
	}
	if n := len(terms); n == 0 || n > 2 && len(hash)+len(sort) <= 2 {
		return invalid("Conditions can be of length 1 or 2 only")
	}
	used := 0
	find := func(a table.Attribute) *expr.KeyTerm {
		for i := range terms {
			if terms[i].Name == a.Name {
				used++
				return &terms[i]
			}
		}
		return nil
	}
	values := make([]item.Value, 0, len(hash))
	for _, a := range hash {
		t := find(a)
		if t == nil {
			return invalid("Query condition missed key schema element: %s", a.Name)
		}
		if err := checkTerm(t, a, table.MaxPartitionKey); err != nil {
			return err
		}
		if t.Op != expr.OpEQ {
			return invalid("Query key condition not supported")
		}
		values = append(values, *t.A)
	}
	prefix := table.HashKey(values...)
	s.page.From, s.page.To = prefix, prefix.AfterPrefix()
	for i, a := range sort {
		t := find(a)
		if t == nil {
			if used < len(terms) {
				return invalid("Query condition missed key schema element: %s", a.Name)
			}
			return nil
		}
		if err := checkTerm(t, a, table.MaxSortKey); err != nil {
			return err
		}
		s.narrow(prefix, t)
		if t.Op != expr.OpEQ {
			if i+1 < len(sort) && used < len(terms) {
				return invalid("Query key condition not supported")
			}
			break
		}
		prefix = t.A.AppendOrdered(prefix[:len(prefix):len(prefix)])
	}
	if used < len(terms) {
		return invalid("Query key condition not supported")
	}
	return nil
}

// narrow applies one term to keys that begin with prefix.
func (s *search) narrow(prefix table.Key, t *expr.KeyTerm) {
	at := func(v *item.Value) table.Key { return v.AppendOrdered(prefix[:len(prefix):len(prefix)]) }
	switch a := at(t.A); t.Op {
	case expr.OpEQ:
		s.page.From, s.page.To = a, a.AfterPrefix()
	case expr.OpLT:
		s.page.To = a
	case expr.OpLE:
		s.page.To = a.AfterPrefix()
	case expr.OpGT:
		s.page.From = a.AfterPrefix()
	case expr.OpGE:
		s.page.From = a
	case expr.OpBetween:
		s.page.From, s.page.To = a, at(t.B).AfterPrefix()
	case expr.OpBeginsWith:
		a = a[:len(a)-2] // without what ends a string
		s.page.From, s.page.To = a, a.AfterPrefix()
	}
}

// checkTerm checks that a term's values are such as the key attribute may have, of at most limit bytes.
func checkTerm(t *expr.KeyTerm, a table.Attribute, limit int) error {
	for _, v := range [...]*item.Value{t.A, t.B} {
		switch {
		case v == nil:
		case v.Kind() != a.Kind:
			return invalid("One or more parameter values were invalid: Condition parameter type does not match schema type")
		case v.Kind() == item.KindN && t.Op == expr.OpBeginsWith:
			return invalid("Query key condition not supported")
		case v.Kind() != item.KindN && v.Len() == 0:
			kind := "string"
			if a.Kind == item.KindB {
				kind = "binary"
			}
			return invalid("One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty %s value. Key: %s", kind, a.Name)
		case v.Kind() != item.KindN && v.Len() > limit:
			return table.KeyTooLong(limit)
		}
	}
	return nil
}
