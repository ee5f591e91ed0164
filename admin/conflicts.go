package admin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
)

// ListConflictsRequest asks for the conflicts whose losing write was acknowledged in this region, from
// the newest on.
type ListConflictsRequest struct {
	TableName string // "" for all tables
	Limit     int    // 1 to MaxConflicts; 0 means DefaultConflicts
}

// Limits of ListConflicts.
const (
	DefaultConflicts = 100
	MaxConflicts     = 10000
)

// ConflictList is the answer.
type ConflictList struct {
	Region    string
	Conflicts []Conflict
}

// Conflict is one conflict record. Source: MERGE.md, "Conflict record".
type Conflict struct {
	ID         string
	TableName  string
	Key        json.RawMessage // as DynamoDB writes a key
	Path       []string        // map keys; none: the whole item
	Class      crdt.Class
	Rule       string
	Winner     Side
	Loser      Side
	Stands     json.RawMessage `json:",omitempty"` // the value after merging, as DynamoDB writes it; none: absent
	DetectedAt time.Time
	DetectedIn string
}

// Side is one of the two writes.
type Side struct {
	Region      string
	Time        time.Time // of the write, by its region's clock
	HLC         crdt.HLC
	Operation   string
	Conditional bool            `json:",omitempty"`
	Value       json.RawMessage `json:",omitempty"`
}

func (o *Operator) listConflicts(ctx context.Context, q *ListConflictsRequest) (*ConflictList, error) {
	if q.Limit == 0 {
		q.Limit = DefaultConflicts
	}
	if q.Limit < 1 || q.Limit > MaxConflicts {
		return nil, invalid("Limit must be from 1 to %d", MaxConflicts)
	}
	tables := o.Region.Tables()
	if q.TableName != "" {
		t, err := o.Region.Opened(ctx, q.TableName)
		if err != nil {
			return nil, err
		}
		tables = []*region.Table{t}
	}
	list := &ConflictList{Region: o.Region.Name(), Conflicts: []Conflict{}}
	for _, t := range tables {
		var failed error
		found := 0
		err := t.Conflicts(ctx, func(c op.Conflict) bool {
			shown, err := o.show(t, c)
			if failed = err; err != nil {
				return false
			}
			list.Conflicts = append(list.Conflicts, shown)
			found++
			return found < q.Limit
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return nil, err
		}
		// Of each table the newest, and of these the newest over all.
		slices.SortStableFunc(list.Conflicts, func(a, b Conflict) int { return b.DetectedAt.Compare(a.DetectedAt) })
		list.Conflicts = list.Conflicts[:min(len(list.Conflicts), q.Limit)]
	}
	return list, nil
}

func (o *Operator) show(t *region.Table, c op.Conflict) (Conflict, error) {
	s := t.Schema()
	out := Conflict{
		ID: hex.EncodeToString(c.ID[:]), TableName: s.Name, Path: c.Conflict.Path, Class: c.Conflict.Class, Rule: c.Conflict.Rule,
		DetectedAt: time.UnixMilli(c.Detected.Millis()).UTC(), DetectedIn: o.Region.Name(),
	}
	var err error
	if out.Key, err = keyOf(s, c.Key); err != nil {
		return out, err
	}
	if out.Winner, err = side(t, c.Conflict.Winner); err != nil {
		return out, err
	}
	if out.Loser, err = side(t, c.Conflict.Loser); err != nil {
		return out, err
	}
	out.Stands, err = value(c.Conflict.Stands)
	return out, err
}

func side(t *region.Table, s crdt.Side) (Side, error) {
	v, err := value(s.Value)
	return Side{
		Region: t.RegionOf(s.Dot.Actor), Time: time.UnixMilli(s.Dot.HLC.Millis()).UTC(), HLC: s.Dot.HLC,
		Operation: s.Op.String(), Conditional: s.Conditional, Value: v,
	}, err
}

// value writes a stored value as DynamoDB does; nothing for an absent one.
func value(stored []byte) (json.RawMessage, error) {
	if stored == nil {
		return nil, nil
	}
	return wire.AppendValue(nil, stored)
}
