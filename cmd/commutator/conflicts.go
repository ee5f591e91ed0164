package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func conflictsCommand() *cobra.Command {
	q := &admin.ListConflictsRequest{}
	var f *clientFlags
	c := &cobra.Command{
		Use:   "conflicts",
		Short: "List writes that lost against a write of another region",
		Long: `List writes that lost against a write of another region, newest first: what won, what lost, and
what stands now. Each conflict is kept in the region that had acknowledged the losing write, so ask
all regions to see all.`,
		Example: `  commutator conflicts
  commutator conflicts --table orders --limit 20
  commutator conflicts --endpoint http://127.0.0.1:8000,http://127.0.0.1:8001 -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.Limit < 1 || q.Limit > admin.MaxConflicts {
				return usageError{fmt.Errorf("--limit %d is not from 1 to %d", q.Limit, admin.MaxConflicts)}
			}
			lists, failed := askAll[admin.ConflictList](c.Context(), f, "ListConflicts", q)
			if lists == nil {
				return failed
			}
			found := []admin.Conflict{}
			for _, l := range lists {
				found = append(found, l.Conflicts...)
			}
			slices.SortStableFunc(found, func(a, b admin.Conflict) int { return b.DetectedAt.Compare(a.DetectedAt) })
			found = found[:min(len(found), q.Limit)]
			return errors.Join(show(c, found, func(w io.Writer) { conflictRows(w, found) }), failed)
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&q.TableName, "table", "", "only those of this table")
	c.Flags().IntVar(&q.Limit, "limit", admin.DefaultConflicts, "how many, at most")
	addOutputFlag(c)
	return c
}

func conflictRows(w io.Writer, list []admin.Conflict) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no conflicts")
		return
	}
	fmt.Fprintln(w, "DETECTED\tTABLE\tKEY\tPATH\tCLASS\tWINNER\tLOSER\tSTANDS")
	for _, c := range list {
		path := strings.Join(c.Path, ".")
		if path == "" {
			path = "(item)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.DetectedAt.UTC().Format("2006-01-02T15:04:05.000Z"), c.TableName,
			cell(plainAttributes(c.Key)), cell(path), c.Class, plainSide(c.Winner), plainSide(c.Loser), cell(plainValue(c.Stands)))
	}
}

func plainSide(s admin.Side) string { return s.Region + " " + cell(plainValue(s.Value)) }

// cell makes text fit a table's cell.
func cell(s string) string {
	const most = 40 // characters
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-3]) + "..."
	}
	return s
}

// plainAttributes writes a map of attributes, in DynamoDB's JSON, for people: pk="a", sk=1.
func plainAttributes(raw json.RawMessage) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return string(raw)
	}
	var parts []string
	for name, v := range m {
		parts = append(parts, name+"="+plainValue(v))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// plainValue writes a value in DynamoDB's JSON for people.
func plainValue(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "absent"
	}
	var v struct {
		S    *string
		N    *string
		BOOL *bool
		NULL *bool
		SS   []string
		NS   []string
		L    *[]json.RawMessage
		M    json.RawMessage
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields() // B and BS stay as they are
	if d.Decode(&v) != nil {
		return string(raw)
	}
	switch {
	case v.S != nil:
		return fmt.Sprintf("%q", *v.S)
	case v.N != nil:
		return *v.N
	case v.BOOL != nil:
		return fmt.Sprint(*v.BOOL)
	case v.NULL != nil:
		return "null"
	case v.SS != nil:
		return fmt.Sprintf("{%s}", strings.Join(v.SS, ", "))
	case v.NS != nil:
		return fmt.Sprintf("{%s}", strings.Join(v.NS, ", "))
	case v.L != nil:
		var parts []string
		for _, e := range *v.L {
			parts = append(parts, plainValue(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case v.M != nil:
		return "{" + plainAttributes(v.M) + "}"
	}
	return string(raw)
}
