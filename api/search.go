package api

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// pageBytes is how much one page of Query or Scan looks at, in bytes of items before filter and
// projection.
const pageBytes = 1 << 20

const searchMembers = mTableName | mIndexName | mSelect | mLimit | mConsistentRead | mExclusiveStartKey | mFilterExpression | mProjectionExpression |
	mNames | mValues | mAttributesToGet | mConditionalOperator | mReturnCapacity

// search is what Query and Scan share.
type search struct {
	q          *request
	t          *region.Table
	s          *table.Schema
	index      *table.Index   // nil: the table
	terms      []expr.KeyTerm // of a Query
	page       op.Page
	filter     *expr.Condition
	projection *expr.Projection // nil: whole items
	count      bool             // no items in the answer
	fetch      bool             // items come from the table, by a local index that does not carry them whole
}

// checkSelect checks Select against what else was given, before the table is looked up.
func (p *params) checkSelect() error {
	list := mProjectionExpression
	if p.has(mAttributesToGet) {
		list = mAttributesToGet
	}
	switch given := p.has(list); {
	case p.selects == "SPECIFIC_ATTRIBUTES" && !given:
		return invalid("One or more parameter values were invalid: Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES")
	case p.selects != "" && p.selects != "SPECIFIC_ATTRIBUTES" && given:
		return invalid("One or more parameter values were invalid: Cannot specify the %s when choosing to get %s", memberNames[list], p.selects)
	case p.selects == "ALL_PROJECTED_ATTRIBUTES" && !p.has(mIndexName):
		return invalid("One or more parameter values were invalid: ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName")
	}
	return nil
}

// legacyFilter makes a condition of QueryFilter or ScanFilter; nil for neither.
func (p *params) legacyFilter() (*expr.Condition, error) {
	if p.has(mFilterExpression) {
		return nil, nil
	}
	return p.conditions(p.legacyFilters)
}

// checkStart returns the rule that a value in ExclusiveStartKey broke.
func (p *params) checkStart() error {
	if p.startErr == nil {
		return nil
	}
	if e := (*wire.ValidationError)(nil); errors.As(p.startErr, &e) {
		return invalid("The provided starting key is invalid: %s", e.Message)
	}
	return p.startErr
}

// newSearch finds the table and the index, and checks that they can give what is asked for.
func (q *request) newSearch(ctx context.Context, filter *expr.Condition, projection *expr.Projection) (*search, error) {
	p := &q.params
	t, err := q.table(ctx)
	if err != nil {
		return nil, err
	}
	s := &search{q: q, t: t, s: t.Schema(), filter: filter, projection: projection, count: p.selects == "COUNT"}
	s.page = op.Page{Limit: int(p.limit), Bytes: pageBytes, Filter: filter}
	if !p.has(mIndexName) {
		return s, nil
	}
	if s.index = s.s.Index(p.indexName); s.index == nil || s.index.Backfilling {
		if err := t.AwaitSchema(ctx); err != nil {
			return nil, err
		}
		s.s = t.Schema()
		s.index = s.s.Index(p.indexName)
	}
	if s.index == nil {
		return nil, invalid("The table does not have the specified index: %s", p.indexName)
	}
	s.page.Index = s.index
	if s.index.Global {
		return s, s.checkGlobal()
	}
	whole := p.selects == "ALL_ATTRIBUTES" && s.index.Projection != table.ProjectAll
	s.fetch = whole || len(s.beyond()) > 0 || filter != nil && s.filtersBeyond()
	if s.fetch {
		s.page.Filter = nil // it is held against the table's item instead
	}
	return s, nil
}

// checkGlobal refuses what a global index cannot give.
func (s *search) checkGlobal() error {
	p := &s.q.params
	switch {
	case s.index.Deleting:
		return invalid("The table does not have the specified index: %s", s.index.Name)
	case s.index.Backfilling:
		return invalid("Cannot read from backfilling global secondary index: %s", s.index.Name)
	case p.consistent:
		return invalid("Consistent reads are not supported on global secondary indexes")
	case p.selects == "ALL_ATTRIBUTES" && s.index.Projection != table.ProjectAll:
		return invalid("One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global secondary index %s because its projection type is not ALL", s.index.Name)
	}
	if names := s.beyond(); len(names) > 0 {
		return invalid("One or more parameter values were invalid: Global secondary index %s does not project [%s]", s.index.Name, strings.Join(names, ", "))
	}
	return nil
}

// beyond returns the attributes of the projection that the index does not carry.
func (s *search) beyond() []string {
	if s.projection == nil {
		return nil
	}
	var out []string
	for path := range s.projection.Paths {
		if !s.s.Projects(s.index, path[0].Name) {
			out = append(out, path[0].Name)
		}
	}
	return out
}

func (s *search) filtersBeyond() bool {
	for path := range s.filter.Paths {
		if !s.s.Projects(s.index, path[0].Name) {
			return true
		}
	}
	return false
}

// keyAttributes are those of what is searched: the index's or the table's.
func (s *search) keyAttributes() []table.Attribute {
	if s.index != nil {
		return s.index.KeyAttributes()
	}
	return s.s.KeyAttributes()
}

// startAttributes are those a starting key has: the table's, and an index's as well.
func (s *search) startAttributes() []table.Attribute {
	out := s.s.KeyAttributes()
	if s.index != nil {
		for _, a := range s.index.KeyAttributes() {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// checkPaths refuses paths into keys, in the projection and the filter.
func (s *search) checkPaths() error {
	if s.projection != nil {
		if err := checkKeyPaths(s.s, s.projection.Paths); err != nil {
			return err
		}
	}
	if s.filter != nil {
		return checkKeyPaths(s.s, s.filter.Paths)
	}
	return nil
}

// checkStartShape checks that ExclusiveStartKey, if it was given, has the attributes that a starting key has.
func (s *search) checkStartShape() error {
	p := &s.q.params
	if !p.has(mExclusiveStartKey) || hasExactly(p.startKey, s.startAttributes()) {
		return nil
	}
	const mismatch = "The provided key element does not match the schema"
	queried := p.has(mKeyConditions | mKeyConditionExpression)
	if s.index == nil && !queried {
		return invalid("The provided starting key is invalid: " + mismatch)
	}
	names := s.startAttributes()
	if n, _, err := item.CutCount(p.startKey); err != nil || n != len(names) {
		return invalid("The provided starting key is invalid")
	}
	for _, a := range names {
		if item.Attr(p.startKey, a.Name) == nil {
			return invalid("The provided starting key is invalid")
		}
	}
	for _, a := range s.keyAttributes() {
		if queried && item.RawKind(item.Attr(p.startKey, a.Name)) != a.Kind {
			return invalid(mismatch)
		}
	}
	return invalid("The provided starting key is invalid: " + mismatch)
}

// startAfter moves the page behind ExclusiveStartKey, if one was given and has the right shape. It returns
// errStartOutside when that lies outside the page.
func (s *search) startAfter() error {
	p := &s.q.params
	if !p.has(mExclusiveStartKey) {
		return nil
	}
	key, err := s.s.KeyOf(p.startKey)
	if e := (*table.KeyError)(nil); errors.As(err, &e) {
		return invalid("The provided starting key is invalid: %s", e.Message)
	}
	if err != nil {
		return err
	}
	if s.index != nil {
		if key = s.s.RowKey(s.index, key, p.startKey); key == nil {
			return invalid("The provided starting key is invalid")
		}
	}
	if bytes.Compare(key, s.page.From) < 0 || s.page.To != nil && bytes.Compare(key, s.page.To) >= 0 {
		return errStartOutside
	}
	if s.page.Reverse {
		s.page.To = key
	} else {
		s.page.From = key.After()
	}
	return nil
}

var errStartOutside = invalid("The provided starting key is outside query boundaries based on provided conditions")

// run reads the page and writes the answer.
func (s *search) run(ctx context.Context) error {
	q := s.q
	used := q.h.usage(s.t)
	if err := used.accessPage(s.index, s.terms); err != nil {
		return err
	}
	result, err := s.t.Page(ctx, s.page, q.params.consistent)
	if err != nil {
		return q.lost(ctx, err)
	}
	taken := consumption{name: q.params.givenTable}
	taken.add(s.index, readUnits(result.LookedAt, q.params.consistent))
	if s.fetch {
		if err := s.fetchItems(ctx, &result, &taken); err != nil {
			return err
		}
	}
	used.charge(&taken, false)
	q.open()
	q.int("Count", len(result.Items))
	if !s.count {
		q.member("Items")
		q.out = append(q.out, '[')
		for i, stored := range result.Items {
			if i > 0 {
				q.out = append(q.out, ',')
			}
			if err := q.projected(stored, s.projection); err != nil {
				return err
			}
		}
		q.out = append(q.out, ']')
	}
	if result.Last != nil {
		q.member("LastEvaluatedKey")
		if err := q.attributes(result.LastItem, s.startAttributes()); err != nil {
			return err
		}
	}
	q.int("ScannedCount", result.Looked)
	q.consumed(&taken)
	q.close()
	return nil
}

// fetchItems replaces a local index's rows by their items, of which those that pass the filter stay.
func (s *search) fetchItems(ctx context.Context, result *op.PageResult, taken *consumption) error {
	kept := result.Items[:0]
	for _, row := range result.Items {
		key, err := s.s.KeyOf(row)
		if err != nil {
			return err
		}
		stored, err := s.t.Get(ctx, key, s.q.params.consistent)
		if err != nil {
			return s.q.lost(ctx, err)
		}
		if stored == nil {
			continue // deleted between the two reads
		}
		taken.add(nil, readUnits(sizeOf(stored), s.q.params.consistent))
		if s.filter != nil {
			it, err := item.DecodeItem(stored)
			if err != nil {
				return err
			}
			if !s.filter.Eval(it) {
				continue
			}
		}
		kept = append(kept, stored)
	}
	result.Items = kept
	return nil
}

// attributes writes an object of some attributes of a stored item, in the order given.
func (q *request) attributes(stored []byte, list []table.Attribute) error {
	q.out = append(q.out, '{')
	for i, a := range list {
		if i > 0 {
			q.out = append(q.out, ',')
		}
		var err error
		q.out = append(wire.AppendString(q.out, a.Name), ':')
		if q.out, err = wire.AppendValue(q.out, item.Attr(stored, a.Name)); err != nil {
			return err
		}
	}
	q.out = append(q.out, '}')
	return nil
}
