package api

import (
	"errors"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/expr"
)

// member is one member of a data operation's request, as a bit.
type member uint64

const (
	mTableName member = 1 << iota
	mItem
	mKey
	mConsistentRead
	mProjectionExpression
	mConditionExpression
	mUpdateExpression
	mFilterExpression
	mKeyConditionExpression
	mNames
	mValues
	mReturnValues
	mReturnOnFailure
	mReturnCapacity
	mReturnMetrics
	mIndexName
	mSelect
	mLimit
	mScanIndexForward
	mExclusiveStartKey
	mSegment
	mTotalSegments
	mAttributesToGet
	mExpected
	mAttributeUpdates
	mKeyConditions
	mQueryFilter
	mScanFilter
	mConditionalOperator
)

var memberNames = map[member]string{
	mTableName: "TableName", mItem: "Item", mKey: "Key", mConsistentRead: "ConsistentRead", mProjectionExpression: "ProjectionExpression",
	mConditionExpression: "ConditionExpression", mUpdateExpression: "UpdateExpression", mFilterExpression: "FilterExpression",
	mKeyConditionExpression: "KeyConditionExpression", mNames: "ExpressionAttributeNames", mValues: "ExpressionAttributeValues",
	mReturnValues: "ReturnValues", mReturnOnFailure: "ReturnValuesOnConditionCheckFailure", mReturnCapacity: "ReturnConsumedCapacity",
	mReturnMetrics: "ReturnItemCollectionMetrics", mIndexName: "IndexName", mSelect: "Select", mLimit: "Limit",
	mScanIndexForward: "ScanIndexForward", mExclusiveStartKey: "ExclusiveStartKey", mSegment: "Segment", mTotalSegments: "TotalSegments",
	mAttributesToGet: "AttributesToGet", mExpected: "Expected", mAttributeUpdates: "AttributeUpdates", mKeyConditions: "KeyConditions",
	mQueryFilter: "QueryFilter", mScanFilter: "ScanFilter", mConditionalOperator: "ConditionalOperator",
}

var membersByName = func() map[string]member {
	out := make(map[string]member, len(memberNames))
	for m, name := range memberNames {
		out[name] = m
	}
	return out
}()

// params are the members of a data operation's request. Which were given is in given; the others are
// zero.
type params struct {
	given member

	tableName, indexName                   string // the table's name, also of an ARN: see givenTable
	givenTable                             string // the table as the request has it, a name or an ARN
	item, key, startKey                    []byte // stored forms
	projection, condition, update          string
	filter, keyCondition                   string
	placeholders                           expr.Placeholders
	returnValues, returnOnFailure          string
	returnCapacity, returnMetrics          string
	selects, conditionalOperator           string
	consistent, forward                    bool
	limit, segment, totalSegments          int64
	attributesToGet                        []string
	expected, keyConditions, legacyFilters []legacyCondition
	attributeUpdates                       []legacyUpdate

	// The first rule that values in each of these members broke: they are complained of in their turn.
	itemErr, valuesErr, startErr, legacyErr error

	writes    bool // the operation is a write: see misuse
	firstOnly bool // the operation reports one broken constraint and no more: UpdateItem does
}

func (p *params) has(m member) bool { return p.given&m != 0 }

// read reads the request's members, of which the operation knows those in known. A member that is null
// counts as not given, one that is not known is skipped. What breaks the protocol's types is returned;
// what breaks a rule is kept in params.
func (q *request) read(known member) error {
	r := &q.reader
	err := r.Object(func(name []byte) error {
		m := membersByName[string(name)]
		if m&known == 0 {
			return r.Skip()
		}
		if r.Null() {
			return nil
		}
		q.params.given |= m
		return q.readMember(m)
	})
	if err != nil {
		return err
	}
	return r.End()
}

func (q *request) readMember(m member) (err error) {
	p, r := &q.params, &q.reader
	switch m {
	case mTableName:
		p.givenTable, err = r.String()
		p.tableName = nameOfTable(p.givenTable)
	case mItem:
		// Not pooled: the item goes into a command.
		p.item, err = r.Item(make([]byte, 0, len(q.body)))
		err = putAside(&p.itemErr, err)
	case mKey:
		q.key, err = r.Item(q.key[:0])
		err = putAside(&p.itemErr, err)
		p.key = q.key
	case mExclusiveStartKey:
		q.start, err = r.Item(q.start[:0])
		err = putAside(&p.startErr, err)
		p.startKey = q.start
	case mConsistentRead:
		p.consistent, err = r.Bool()
	case mScanIndexForward:
		p.forward, err = r.Bool()
	case mNames:
		p.placeholders.Names = make([]expr.Name, 0, 4)
		err = r.Map("java.lang.String", func(name []byte) error {
			s, err := r.String()
			if err == nil {
				err = q.another()
			}
			p.placeholders.Names = append(p.placeholders.Names, expr.Name{Placeholder: string(name), Name: s})
			return err
		})
	case mValues:
		p.placeholders.Values = make([]expr.Value, 0, 4)
		err = r.Map("AttributeValue", func(name []byte) error {
			v, err := r.Value()
			if e := (*wire.ValidationError)(nil); errors.As(err, &e) {
				if p.valuesErr == nil {
					p.valuesErr = invalid("ExpressionAttributeValues contains invalid value: %s for key %s", e.Message, name)
				}
				err = nil
			}
			if err == nil {
				err = q.another()
			}
			p.placeholders.Values = append(p.placeholders.Values, expr.Value{Placeholder: string(name), Value: v})
			return err
		})
	case mLimit:
		p.limit, err = r.Int()
	case mSegment:
		p.segment, err = r.Int()
	case mTotalSegments:
		p.totalSegments, err = r.Int()
	case mAttributesToGet:
		err = r.Array(func() error {
			s, err := r.String()
			if err == nil {
				err = q.another()
			}
			p.attributesToGet = append(p.attributesToGet, s)
			return err
		})
	case mExpected:
		p.expected, err = q.readLegacyConditions("ExpectedAttributeValue")
	case mKeyConditions:
		p.keyConditions, err = q.readLegacyConditions("Condition")
	case mQueryFilter, mScanFilter:
		p.legacyFilters, err = q.readLegacyConditions("Condition")
	case mAttributeUpdates:
		p.attributeUpdates, err = q.readAttributeUpdates()
	default:
		*p.text(m), err = r.String()
	}
	return err
}

// another counts one more entry of those lists and maps that have no limit of their own, or none that is known:
// what is taken apart is many times as large as it was.
func (q *request) another() error {
	const most = 100_000 // more than an item has attributes
	if q.entries++; q.entries > most {
		return invalid("One or more parameter values were invalid: there are more than %d elements in the request", most)
	}
	return nil
}

// text is where a member that is a string goes.
func (p *params) text(m member) *string {
	switch m {
	case mProjectionExpression:
		return &p.projection
	case mConditionExpression:
		return &p.condition
	case mUpdateExpression:
		return &p.update
	case mFilterExpression:
		return &p.filter
	case mKeyConditionExpression:
		return &p.keyCondition
	case mReturnValues:
		return &p.returnValues
	case mReturnOnFailure:
		return &p.returnOnFailure
	case mReturnCapacity:
		return &p.returnCapacity
	case mReturnMetrics:
		return &p.returnMetrics
	case mIndexName:
		return &p.indexName
	case mSelect:
		return &p.selects
	case mConditionalOperator:
		return &p.conditionalOperator
	}
	panic("api: " + memberNames[m] + " is no string")
}

// putAside takes a broken rule out of an error of the Reader and keeps it in first, if it is the first.
func putAside(first *error, err error) error {
	if err == nil {
		return nil
	}
	if e := (*wire.ValidationError)(nil); !errors.As(err, &e) {
		return err
	}
	if *first == nil {
		*first = err
	}
	return nil
}
