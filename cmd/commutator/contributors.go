package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func contributorsCommand() *cobra.Command {
	var f *clientFlags
	var index string
	var most int
	c := &cobra.Command{
		Use:   "contributors TABLE",
		Short: "Show the most accessed and most throttled keys of a table",
		Long: `Show which keys of a table, or of one of its global indexes, were accessed and throttled most in each
region, as Contributor Insights has counted them since it was switched on, or since the node's start.
Rules are named as DescribeContributorInsights names them: PKC and PKT count partition keys accessed
and throttled, SKC and SKT whole keys. Beyond 500 keys counts are estimates: UNSURE is by how much one
may be too high.`,
		Example: `  aws dynamodb update-contributor-insights --table-name orders --contributor-insights-action ENABLE
  commutator contributors orders
  commutator contributors orders --index by-customer -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, failed := askAll[admin.Contributors](c.Context(), f, "Contributors", admin.ContributorsRequest{TableName: args[0], IndexName: index})
			if all == nil {
				return failed
			}
			return errors.Join(show(c, all, func(w io.Writer) { contributorRows(w, all, most) }), failed)
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&index, "index", "", "of this global index")
	c.Flags().IntVar(&most, "top", 10, "keys to show of each rule, with -o table")
	addOutputFlag(c)
	return c
}

func contributorRows(w io.Writer, all []admin.Contributors, most int) {
	fmt.Fprintln(w, "REGION\tRULE\tSINCE\tKEY\tCOUNT\tUNSURE")
	for _, a := range all {
		for _, r := range a.Rules {
			since := r.Since.UTC().Format(time.RFC3339)
			if len(r.Keys) == 0 {
				fmt.Fprintf(w, "%s\t%s\t%s\t-\t0\t0\n", a.Region, r.Rule, since)
			}
			for _, k := range r.Keys[:min(most, len(r.Keys))] {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\n", a.Region, r.Rule, since, k.Key, k.Count, k.Unsure)
			}
		}
	}
}
