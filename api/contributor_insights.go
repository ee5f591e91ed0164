package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// Contributor Insights counts accesses by key. The service graphs them in CloudWatch; here the operator API and
// `commutator contributors` tell them.

const (
	modeAll       = "ACCESSED_AND_THROTTLED_KEYS"
	modeThrottled = "THROTTLED_KEYS"
)

// updateContributorInsights answers UpdateContributorInsights.
func updateContributorInsights(q *request, ctx context.Context) error {
	var in struct{ TableName, IndexName, ContributorInsightsAction, ContributorInsightsMode *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	var c constraints
	if in.IndexName != nil {
		c.name(*in.IndexName, "indexName", 3)
	}
	if in.ContributorInsightsAction == nil {
		c.required("contributorInsightsAction")
	} else {
		c.enum(*in.ContributorInsightsAction, "contributorInsightsAction", "ENABLE", "DISABLE")
	}
	if in.ContributorInsightsMode != nil {
		c.enum(*in.ContributorInsightsMode, "contributorInsightsMode", modeAll, modeThrottled)
	}
	if err := c.err(); err != nil {
		return err
	}
	want := table.Insight{Off: *in.ContributorInsightsAction == "DISABLE", At: q.h.cfg.Now().UnixMilli()}
	want.Throttled = in.ContributorInsightsMode != nil && *in.ContributorInsightsMode == modeThrottled
	want.Rules = want.At
	set(&want.Index, in.IndexName)
	var shown insightsShape
	d, err := q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		if err := enableable(d, want.Index); err != nil {
			return err
		}
		old := d.Insight(want.Index)
		switch {
		case old == nil && want.Off, old != nil && old.Off && want.Off, old != nil && !old.Off && !want.Off && old.Throttled == want.Throttled:
			shown = insightsOf(d, want.Index) // it is so already
			return nil
		case old == nil:
			d.Insights = append(d.Insights, want)
			slices.SortFunc(d.Insights, func(a, b table.Insight) int { return strings.Compare(a.Index, b.Index) })
		default:
			to := want
			if !old.Off {
				to.Rules = old.Rules // what rules stay keep their names
			}
			if want.Off {
				to.Throttled = old.Throttled
			}
			*old = to
		}
		shown = insightsOf(d, want.Index)
		shown.ContributorInsightsStatus = map[bool]string{true: "DISABLING", false: "ENABLING"}[want.Off]
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errTableNotFound(name)
	}
	if err != nil {
		return err
	}
	if s := d.Insight(want.Index); s != nil && s.At == want.At {
		q.h.usages.forget(d.ID, want.Index)
	}
	return q.encode(shown)
}

// enableable refuses a table, or an index of it, that is not there or is only being made.
func enableable(d *table.Definition, index string) error {
	what := ""
	if d.Status == table.Creating {
		what = "TableStatus"
	}
	if index != "" {
		x := d.Schema.Index(index)
		if x == nil || !x.Global {
			return errNoIndex(index, d.Schema.Name)
		}
		if x.Backfilling && what == "" {
			what = "IndexStatus"
		}
	}
	if what == "" {
		return nil
	}
	return invalid("Table or Index is not in a valid state to update Key Access Insights: %s must be ACTIVE to enable ContributorInsights.", what)
}

type insightsShape struct {
	TableName                 string
	IndexName                 string `json:",omitempty"`
	ContributorInsightsStatus string
	ContributorInsightsMode   string `json:",omitempty"`
}

func insightMode(s *table.Insight) string {
	if s.Throttled {
		return modeThrottled
	}
	return modeAll
}

// insightsOf shows the setting of a table (index "") or an index. One that was disabled still has its mode.
func insightsOf(d *table.Definition, index string) insightsShape {
	s := d.Insight(index)
	switch {
	case s == nil:
		return insightsShape{d.Schema.Name, index, "DISABLED", ""}
	case s.Off:
		return insightsShape{d.Schema.Name, index, "DISABLED", insightMode(s)}
	}
	return insightsShape{d.Schema.Name, index, "ENABLED", insightMode(s)}
}

// describeContributorInsights answers DescribeContributorInsights.
func describeContributorInsights(q *request, _ context.Context) error {
	var in struct{ TableName, IndexName *string }
	if err := q.decode(&in); err != nil {
		return err
	}
	name, err := q.h.tableName(in.TableName)
	if err != nil {
		return err
	}
	index := ""
	if in.IndexName != nil {
		index = *in.IndexName
		var c constraints
		c.name(index, "indexName", 3)
		if err := c.err(); err != nil {
			return err
		}
	}
	d, err := q.h.withIndex(name, index)
	if err != nil {
		return err
	}
	out := struct {
		insightsShape
		ContributorInsightsRuleList []string `json:",omitempty"`
		LastUpdateDateTime          *seconds `json:",omitempty"`
	}{insightsShape: insightsOf(d, index)}
	if s := d.Insight(index); s != nil {
		out.LastUpdateDateTime = new(seconds(s.At))
		if !s.Off {
			out.ContributorInsightsRuleList = ruleNames(d, s)
		}
	}
	return q.encode(out)
}

func errNoIndex(name, of string) *Error {
	return dynamoError("ResourceNotFoundException", "Requested resource not found: Index: %s not found for table: %s", name, of)
}

// withIndex returns the definition of a table that has the global index, "" for no index.
func (h *Handler) withIndex(name, index string) (*table.Definition, error) {
	d, err := h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return nil, errTableNotFound(name)
	}
	if err != nil || index == "" {
		return d, err
	}
	if x := d.Schema.Index(index); x == nil || !x.Global {
		return nil, errNoIndex(index, name)
	}
	return d, nil
}

// listContributorInsights answers ListContributorInsights: of one table or of all, each with its global indexes. What is
// disabled is not listed.
func listContributorInsights(q *request, _ context.Context) error {
	var in struct {
		TableName, NextToken *string
		MaxResults           *int64
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var name string
	var c constraints
	if in.TableName != nil {
		name = nameOfTable(*in.TableName)
		c.name(name, "tableName", 1)
	}
	most := int64(100)
	if in.MaxResults != nil {
		most = *in.MaxResults
		c.atMost(most, "maxResults", 100)
	}
	if err := c.err(); err != nil {
		return err
	}
	if most < 1 {
		return invalid("One or more parameter values were invalid: MaxResults must be greater than zero")
	}
	after, err := insightsToken(in.NextToken)
	if err != nil {
		return err
	}
	var defs []*table.Definition
	if name != "" {
		d, err := q.h.withIndex(name, "")
		if err != nil {
			return err
		}
		defs = []*table.Definition{d}
	} else if defs, err = q.h.cfg.Region.Definitions(); err != nil {
		return err
	}
	out := struct {
		ContributorInsightsSummaries []insightsShape
		NextToken                    string `json:",omitempty"`
	}{ContributorInsightsSummaries: []insightsShape{}}
	for _, d := range defs {
		for _, index := range globalIndexes(&d.Schema) {
			at := [2]string{d.Schema.Name, index}
			if set := d.Insight(index); set == nil || set.Off || slices.Compare(at[:], after[:]) <= 0 {
				continue
			}
			if int64(len(out.ContributorInsightsSummaries)) == most {
				last := out.ContributorInsightsSummaries[most-1]
				token, err := json.Marshal([2]string{last.TableName, last.IndexName})
				out.NextToken = base64.RawURLEncoding.EncodeToString(token)
				return errors.Join(err, q.encode(out))
			}
			out.ContributorInsightsSummaries = append(out.ContributorInsightsSummaries, insightsOf(d, index))
		}
	}
	return q.encode(out)
}

// globalIndexes returns the table's global indexes by name, behind "" for the table.
func globalIndexes(s *table.Schema) []string {
	out := []string{""}
	for i := range s.Indexes {
		if s.Indexes[i].Global {
			out = append(out, s.Indexes[i].Name)
		}
	}
	slices.Sort(out)
	return out
}

// insightsToken reads a NextToken: the table and index behind which to go on.
func insightsToken(token *string) (after [2]string, err error) {
	if token == nil {
		return after, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(*token)
	if err == nil {
		err = json.Unmarshal(raw, &after)
	}
	if err != nil {
		return after, invalid("Invalid NextToken")
	}
	return after, nil
}

// Contributors are the keys that one rule of Contributor Insights has counted on this node.
type Contributors struct {
	Rule  string // as DescribeContributorInsights names it
	Since time.Time
	Keys  []Contributor // the most frequent first
}

// Contributor is one key and how often it was accessed: Count times at most, Count-Unsure times at least.
type Contributor struct {
	Key           json.RawMessage // the values of the key's attributes, in an array
	Count, Unsure uint64
}

// Contributors returns what was counted of a table or, unless index is "", of one of its global indexes.
func (h *Handler) Contributors(name, index string) ([]Contributors, error) {
	d, err := h.withIndex(name, index)
	if err != nil {
		return nil, err
	}
	s := d.Insight(index)
	if s == nil || s.Off {
		return nil, invalid("Contributor Insights is not enabled for it: UpdateContributorInsights enables it")
	}
	since, counted := h.usages.contributorsOf(d.ID, s)
	if at := time.UnixMilli(s.At); since.Before(at) {
		since = at
	}
	var out []Contributors
	for _, rule := range ruleNames(d, s) {
		kind := strings.Split(rule, "-")[1]
		c := Contributors{Rule: rule, Since: since, Keys: []Contributor{}}
		for _, k := range counted[strings.Index("PKC SKC PKT SKT", kind)/4] {
			c.Keys = append(c.Keys, Contributor{json.RawMessage("[" + k.Key + "]"), k.Seen, k.Unsure})
		}
		out = append(out, c)
	}
	return out, nil
}
