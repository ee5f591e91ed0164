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
	set(&want.Index, in.IndexName)
	changed := false
	d, err := q.h.cfg.Region.Change(ctx, name, func(d *table.Definition) error {
		if want.Index != "" {
			if x := d.Schema.Index(want.Index); x == nil || !x.Global {
				return errNoIndex(want.Index)
			}
		}
		old := d.Insight(want.Index)
		want.Throttled = in.ContributorInsightsMode != nil && *in.ContributorInsightsMode == modeThrottled
		switch {
		case old == nil && want.Off: // it never was on
			return nil
		case old == nil:
			d.Insights = append(d.Insights, want)
			slices.SortFunc(d.Insights, func(a, b table.Insight) int { return strings.Compare(a.Index, b.Index) })
		default:
			if in.ContributorInsightsMode == nil {
				want.Throttled = old.Throttled
			}
			if changed = old.Off != want.Off || old.Throttled != want.Throttled; changed {
				*old = want
			}
		}
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return errNoTable()
	}
	if err != nil {
		return err
	}
	if changed {
		q.h.usages.forget(d.ID, want.Index)
	}
	status := "ENABLING"
	if want.Off {
		status = "DISABLING"
	}
	return q.encode(insightsShape{name, want.Index, status, insightMode(&want)})
}

type insightsShape struct {
	TableName                 string
	IndexName                 string `json:",omitempty"`
	ContributorInsightsStatus string
	ContributorInsightsMode   string `json:",omitempty"`
}

func insightMode(s *table.Insight) string {
	switch {
	case s.Off:
		return ""
	case s.Throttled:
		return modeThrottled
	}
	return modeAll
}

// insightsOf shows the setting of a table (index "") or an index.
func insightsOf(d *table.Definition, index string) insightsShape {
	s := d.Insight(index)
	if s == nil || s.Off {
		return insightsShape{d.Schema.Name, index, "DISABLED", ""}
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

func errNoIndex(name string) *Error {
	return dynamoError("ResourceNotFoundException", "Requested resource not found: Index: %s not found", name)
}

// withIndex returns the definition of a table that has the global index, "" for no index.
func (h *Handler) withIndex(name, index string) (*table.Definition, error) {
	d, err := h.cfg.Region.Definition(name)
	if errors.Is(err, region.ErrNoTable) {
		return nil, errNoTable()
	}
	if err != nil || index == "" {
		return d, err
	}
	if x := d.Schema.Index(index); x == nil || !x.Global {
		return nil, errNoIndex(index)
	}
	return d, nil
}

// listContributorInsights answers ListContributorInsights: of one table or of all, each with its global indexes.
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
			if slices.Compare(at[:], after[:]) <= 0 {
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
