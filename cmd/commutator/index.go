package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func indexCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "index",
		Short:   "Check secondary indexes",
		Example: "  commutator index check orders",
	}
	c.AddCommand(indexCheckCommand())
	return c
}

// indexReport is what a whole check of one region found.
type indexReport struct {
	Region      string
	TableName   string
	Items, Rows int
	Found       int                     // differences
	Differences []admin.IndexDifference // the first of them
}

func indexCheckCommand() *cobra.Command {
	var f *clientFlags
	limit := 0
	c := &cobra.Command{
		Use:   "check TABLE",
		Short: "Hold a table's index rows against its items",
		Long: `Make the rows of every index of a table anew from its items, and compare them with those that are
there; and look for rows that no item makes. Reads and writes go on meanwhile: the table is checked
piece by piece, each as of one moment. Every region that an endpoint names checks its own copy, on
the node that is asked.

A row may be missing, stale (no item makes it), or differ from what its item makes it; and the number of
rows may not be what was counted. The exit code is 1 if anything differs.`,
		Example: `  commutator index check orders
  commutator index check orders --endpoint http://127.0.0.1:8000 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 1 {
				return usageError{fmt.Errorf("--limit %d is less than 1", limit)}
			}
			clients, failed, err := f.connect(c.Context())
			if err != nil {
				return err
			}
			reports, wrong := []indexReport{}, 0
			var elsewhere error
			for _, cl := range clients {
				r, err := cl.checkIndexes(c, args[0], limit)
				switch e := (*operatorError)(nil); {
				case errors.As(err, &e) && e.code == "ResourceNotFoundException":
					elsewhere = err // the table may be in other regions
				case err != nil:
					failed = errors.Join(failed, err)
				default:
					reports = append(reports, r)
					wrong += r.Found
				}
			}
			if len(reports) == 0 {
				return errors.Join(elsewhere, failed)
			}
			if wrong > 0 {
				failed = errors.Join(failed, fmt.Errorf("%d index rows of %s are not what its items make them", wrong, args[0]))
			}
			return errors.Join(show(c, reports, func(w io.Writer) { indexRows(w, reports) }), failed)
		},
	}
	f = addClientFlags(c)
	c.Flags().IntVar(&limit, "limit", 100, "how many differences of each region to show, at most")
	addOutputFlag(c)
	return c
}

func (cl *client) checkIndexes(c *cobra.Command, name string, limit int) (indexReport, error) {
	out := indexReport{Region: cl.region, TableName: name, Differences: []admin.IndexDifference{}}
	for q := (admin.CheckIndexesRequest{TableName: name}); ; {
		var part admin.IndexCheck
		if err := cl.operator(c.Context(), "CheckIndexes", q, &part); err != nil {
			return out, err
		}
		out.Items += part.Items
		out.Rows += part.Rows
		out.Found += len(part.Differences)
		out.Differences = append(out.Differences, part.Differences[:min(len(part.Differences), limit-len(out.Differences))]...)
		if q.From = part.Next; q.From == nil {
			return out, nil
		}
		fmt.Fprintf(c.ErrOrStderr(), "%s: %d items and %d rows\n", cl.region, out.Items, out.Rows)
	}
}

func indexRows(w io.Writer, reports []indexReport) {
	fmt.Fprintln(w, "REGION\tTABLE\tITEMS\tROWS\tDIFFERENCES")
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\n", r.Region, r.TableName, r.Items, r.Rows, r.Found)
	}
	header := "\nREGION\tINDEX\tROW IS\tKEY"
	for _, r := range reports {
		for _, d := range r.Differences {
			if header != "" {
				fmt.Fprintln(w, header)
				header = ""
			}
			key := "-"
			if d.Key != nil {
				key = plainAttributes(d.Key)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Region, d.IndexName, d.Reason, cell(key))
		}
	}
}
