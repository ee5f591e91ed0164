package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func conflictsCommand() *cobra.Command {
	c := conflictsListCommand()
	c.Use, c.Short = "conflicts", "List, show and replay writes that lost against a write of another region"
	c.Example = `  commutator conflicts
  commutator conflicts --table orders --limit 20
  commutator conflicts show 0f3c5a0e6d2b4f7a8c9d0e1f2a3b4c5d
  commutator conflicts replay 0f3c5a0e6d2b4f7a8c9d0e1f2a3b4c5d --dry-run`
	c.AddCommand(conflictsListCommand(), conflictsShowCommand(), conflictsReplayCommand())
	return c
}

func conflictsListCommand() *cobra.Command {
	q := &admin.ListConflictsRequest{}
	var f *clientFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List writes that lost against a write of another region",
		Long: `List writes that lost against a write of another region, newest first: what won, what lost, and
what stands now. Each conflict is kept in the region that had acknowledged the losing write, for 30
days, so ask all regions to see all. When there are too many to keep, the oldest go first, and
` + "`commutator status`" + ` tells how many have gone.`,
		Example: `  commutator conflicts list
  commutator conflicts list --table orders --limit 20
  commutator conflicts list --endpoint http://127.0.0.1:8000,http://127.0.0.1:8001 -o json`,
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

// askForConflict asks every region for something about a conflict, which one of them has.
func askForConflict[A any](c *cobra.Command, f *clientFlags, operation string, in any) (*A, error) {
	up, down, err := f.connect(c.Context())
	if err != nil {
		return nil, err
	}
	errs := []error{down}
	for _, region := range up {
		out := new(A)
		err := region.operator(c.Context(), operation, in, out)
		if err == nil {
			return out, nil
		}
		if e := (*operatorError)(nil); !errors.As(err, &e) || e.code != "ResourceNotFoundException" {
			return nil, err // the region has it, and will not
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func conflictsShowCommand() *cobra.Command {
	var f *clientFlags
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one conflict whole",
		Long:    "Show one conflict whole: both writes with their times and values, the rule, and what stood after it.",
		Example: `  commutator conflicts show 0f3c5a0e6d2b4f7a8c9d0e1f2a3b4c5d`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := askForConflict[admin.Conflict](c, f, "DescribeConflict", admin.DescribeConflictRequest{ID: args[0]})
			if err != nil {
				return err
			}
			return show(c, found, func(w io.Writer) { conflictWhole(w, found) })
		},
	}
	f = addClientFlags(c)
	addOutputFlag(c)
	return c
}

func conflictWhole(w io.Writer, c *admin.Conflict) {
	path := strings.Join(c.Path, ".")
	if path == "" {
		path = "(item)"
	}
	row := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, value) }
	side := func(name string, s admin.Side) {
		row(name, fmt.Sprintf("%s by %s at %s", s.Operation, s.Region, s.Time.UTC().Format(time.RFC3339Nano)))
		if s.Conditional {
			row("", "under a condition")
		}
		row("", plainValue(s.Value))
	}
	row("conflict", c.ID)
	row("table", c.TableName)
	row("key", plainAttributes(c.Key))
	row("path", path)
	row("class", string(c.Class))
	row("rule", c.Rule)
	side("winner", c.Winner)
	side("loser", c.Loser)
	row("stands", plainValue(c.Stands))
	row("detected", c.DetectedAt.UTC().Format(time.RFC3339Nano)+" in "+c.DetectedIn)
}

func conflictsReplayCommand() *cobra.Command {
	var f *clientFlags
	q := admin.ReplayConflictRequest{}
	c := &cobra.Command{
		Use:   "replay ID",
		Short: "Make the write that lost again",
		Long: `Make the write that lost again, as a new write of the region that has the conflict: its value is put, set
or removed where it was written, and reaches all regions like any write. A replay over something that
has been written since is refused unless --force is given.`,
		Example: `  commutator conflicts replay 0f3c5a0e6d2b4f7a8c9d0e1f2a3b4c5d --dry-run
  commutator conflicts replay 0f3c5a0e6d2b4f7a8c9d0e1f2a3b4c5d`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q.ID = args[0]
			done, err := askForConflict[admin.Replay](c, f, "ReplayConflict", q)
			if err != nil {
				return err
			}
			return show(c, done, func(w io.Writer) {
				verb := "written"
				if !done.Written {
					verb = "would be written"
				}
				fmt.Fprintf(w, "%s\t%s %s %s\t%s\t%s\n", verb, done.Operation, done.Conflict.TableName, plainAttributes(done.Conflict.Key), done.Text, plainValue(done.Conflict.Loser.Value))
			})
		},
	}
	f = addClientFlags(c)
	c.Flags().BoolVar(&q.DryRun, "dry-run", false, "only say what would be written")
	c.Flags().BoolVar(&q.Force, "force", false, "even over what has been written since")
	addOutputFlag(c)
	return c
}

func conflictRows(w io.Writer, list []admin.Conflict) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no conflicts")
		return
	}
	fmt.Fprintln(w, "ID\tDETECTED\tTABLE\tKEY\tPATH\tCLASS\tWINNER\tLOSER\tSTANDS")
	for _, c := range list {
		path := strings.Join(c.Path, ".")
		if path == "" {
			path = "(item)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.ID, c.DetectedAt.UTC().Format("2006-01-02T15:04:05.000Z"), c.TableName,
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
