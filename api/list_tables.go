package api

import "context"

// listTables answers ListTables.
func listTables(q *request, _ context.Context) error {
	var in struct {
		ExclusiveStartTableName *string
		Limit                   *int64
	}
	if err := q.decode(&in); err != nil {
		return err
	}
	var c constraints
	after, limit := "", int64(100)
	if in.ExclusiveStartTableName != nil {
		after = *in.ExclusiveStartTableName
		c.letters(after, "exclusiveStartTableName")
		c.length(after, "exclusiveStartTableName", 3, 255)
	}
	if in.Limit != nil {
		limit = *in.Limit
		c.atLeast(limit, "limit", 1)
		c.atMost(limit, "limit", 100)
	}
	if err := c.err(); err != nil {
		return err
	}
	defs, err := q.h.cfg.Region.Definitions()
	if err != nil {
		return err
	}
	out := struct {
		TableNames             []string
		LastEvaluatedTableName string `json:",omitempty"`
	}{TableNames: []string{}}
	for _, d := range defs {
		if d.Schema.Name <= after {
			continue
		}
		if int64(len(out.TableNames)) == limit {
			out.LastEvaluatedTableName = out.TableNames[limit-1]
			break
		}
		out.TableNames = append(out.TableNames, d.Schema.Name)
	}
	return q.encode(out)
}
