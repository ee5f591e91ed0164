package admin

import (
	"context"
	"encoding/hex"
	"encoding/json"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/table"
)

// CheckIndexesRequest asks to hold the rows of a table's indexes on this node against its items, some at a time.
type CheckIndexesRequest struct {
	TableName string
	From      []byte // Next of the answer before; none: from the beginning
}

// CheckIndexesLimit is how many items and rows one request looks at.
const CheckIndexesLimit = 20000

// IndexCheck is the answer. Each is of one moment; the check is done when there is no Next.
type IndexCheck struct {
	Region      string
	TableName   string
	Items, Rows int // looked at
	Differences []IndexDifference
	Next        []byte `json:",omitempty"`
}

// IndexDifference is one row that is not what its item makes it.
type IndexDifference struct {
	IndexName string
	Reason    op.IndexReason
	Key       json.RawMessage `json:",omitempty"` // the item's, as DynamoDB writes a key; none: there is no such item
	Row       string          `json:",omitempty"` // the row's own key, in hexadecimal
}

func (o *Operator) checkIndexes(ctx context.Context, q *CheckIndexesRequest) (*IndexCheck, error) {
	if q.TableName == "" {
		return nil, invalid("TableName must be given")
	}
	t, err := o.Region.Opened(ctx, q.TableName)
	if err != nil {
		return nil, err
	}
	found, err := t.CheckIndexes(ctx, op.IndexCheck{From: q.From, Limit: CheckIndexesLimit})
	if err != nil {
		return nil, err
	}
	out := &IndexCheck{Region: o.Region.Name(), TableName: q.TableName, Items: found.Items, Rows: found.Rows, Next: found.Next, Differences: []IndexDifference{}}
	for _, d := range found.Differences {
		shown := IndexDifference{IndexName: d.Index, Reason: d.Reason, Row: hex.EncodeToString(d.Row)}
		if shown.Key, err = keyOf(t.Schema(), d.Key); err != nil {
			return nil, err
		}
		out.Differences = append(out.Differences, shown)
	}
	return out, nil
}

// keyOf writes a key as DynamoDB does; nothing for none.
func keyOf(s *table.Schema, key table.Key) (json.RawMessage, error) {
	if key == nil {
		return nil, nil
	}
	stored, err := s.KeyItem(key)
	if err != nil {
		return nil, err
	}
	return wire.AppendItem(nil, stored)
}
