package admin

import (
	"context"
	"encoding/json"
	"time"
)

// ContributorsRequest asks which keys of a table, or of one of its global indexes, were accessed most.
type ContributorsRequest struct {
	TableName string
	IndexName string `json:",omitempty"`
}

// Contributors are the most accessed keys as the answering node has counted them.
type Contributors struct {
	Region, TableName string
	IndexName         string `json:",omitempty"`
	Rules             []ContributorRule
}

// ContributorRule is what one rule of Contributor Insights counts.
type ContributorRule struct {
	Rule  string // as DescribeContributorInsights names it
	Since time.Time
	Keys  []Contributor // the most frequent first
}

// Contributor is one key and how often it was accessed: Count times at most, Count-Unsure times at least.
type Contributor struct {
	Key    json.RawMessage // the values of the key's attributes, in an array
	Count  uint64
	Unsure uint64 `json:",omitempty"`
}

func (o *Operator) contributors(_ context.Context, q *ContributorsRequest) (*Contributors, error) {
	rules, err := o.Contributors(q.TableName, q.IndexName)
	if err != nil {
		return nil, err
	}
	return &Contributors{o.Region.Name(), q.TableName, q.IndexName, rules}, nil
}
