package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

// pairLag is how far one region is behind another with one table.
type pairLag struct {
	Table, From, To string
	LagMillis       int64
	Reachable       bool // From, as To sees it
}

func lagCommand() *cobra.Command {
	var f *clientFlags
	var name string
	c := &cobra.Command{
		Use:   "lag",
		Short: "Show how far each region is behind the others",
		Long: `Show, for each table and each pair of regions, how old the newest word of the one was when it
arrived in the other; while a region cannot be reached, how long ago it was heard from.`,
		Example: `  commutator lag
  commutator lag --table orders -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, failed := askAll[admin.Status](c.Context(), f, "Status", admin.StatusRequest{})
			if all == nil {
				return failed
			}
			pairs := lagPairs(all, name)
			return errors.Join(show(c, pairs, func(w io.Writer) { lagRows(w, pairs) }), failed)
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&name, "table", "", "only that of this table")
	addOutputFlag(c)
	return c
}

func lagPairs(all []admin.Status, name string) []pairLag {
	pairs := []pairLag{}
	for _, s := range all {
		for _, t := range s.Tables {
			if name != "" && t.Name != name {
				continue
			}
			for _, r := range t.Replicas {
				if r.Region == s.Region {
					continue
				}
				reachable := slices.ContainsFunc(s.Links, func(l admin.Link) bool { return l.Region == r.Region && l.Reachable })
				pairs = append(pairs, pairLag{t.Name, r.Region, s.Region, r.LagMillis, reachable})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b pairLag) int { return strings.Compare(a.Table, b.Table) })
	return pairs
}

func lagRows(w io.Writer, pairs []pairLag) {
	if len(pairs) == 0 {
		fmt.Fprintln(w, "no table has replicas in several regions")
		return
	}
	fmt.Fprintln(w, "TABLE\tFROM\tTO\tLAG\tLINK")
	for _, p := range pairs {
		link := "reachable"
		if !p.Reachable {
			link = "unreachable"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Table, p.From, p.To, time.Duration(p.LagMillis)*time.Millisecond, link)
	}
}
