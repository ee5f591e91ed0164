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

func statusCommand() *cobra.Command {
	var f *clientFlags
	c := &cobra.Command{
		Use:   "status",
		Short: "Show regions, the links between them, nodes, tables and replicas",
		Long: `Show what each region says of itself and of the others: its links, its nodes, how its Raft groups (its
catalog, and every partition) are, its tables with their items and sizes, and its tables' replicas.

Of a region of several nodes it shows how its groups are, as the node which answers has heard:
UNDER-REPLICATED are those with a replica on a node that is down, or one that is being filled;
MOVING those that are not held yet by the nodes that are to hold them;
LEADERLESS those that take no writes at the moment; ASLEEP those that have nothing to do; MOST LED and
LEAST LED tell how evenly the nodes that are up, and not drained, lead them.`,
		Example: `  commutator status
  commutator status --endpoint http://127.0.0.1:8000 -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, failed := askAll[admin.Status](c.Context(), f, "Status", admin.StatusRequest{})
			if all == nil {
				return failed
			}
			return errors.Join(show(c, all, func(w io.Writer) { statusRows(w, all) }), failed)
		},
	}
	f = addClientFlags(c)
	addOutputFlag(c)
	return c
}

func statusRows(w io.Writer, all []admin.Status) {
	fmt.Fprintln(w, "REGION\tTABLES\tLINK TO\tSTATE")
	for _, s := range all {
		if len(s.Links) == 0 {
			fmt.Fprintf(w, "%s\t%d\t-\t-\n", s.Region, len(s.Tables))
		}
		for _, l := range s.Links {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", s.Region, len(s.Tables), l.Region, linkState(l))
		}
	}
	several := slices.DeleteFunc(slices.Clone(all), func(s admin.Status) bool { return len(s.Nodes) < 2 })
	if len(several) > 0 {
		nodeStatusRows(w, several)
	}
	header := "\nTABLE\tREGION\tSTATUS\tPARTITIONS\tITEMS\tBYTES\tCONFLICTS\tREPLICAS"
	for _, s := range all {
		for _, t := range s.Tables {
			if header != "" {
				fmt.Fprintln(w, header)
				header = ""
			}
			var replicas []string
			state := string(t.Status)
			for _, r := range t.Replicas {
				if r.Region == s.Region && r.Seeding != nil {
					state += seedState(r.Seeding)
				}
				if r.Region != s.Region {
					replicas = append(replicas, fmt.Sprintf("%s %s", r.Region, r.Status))
				}
			}
			if replicas == nil {
				replicas = []string{"-"}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", t.Name, s.Region, state, t.Partitions, t.Items, t.Bytes, t.Conflicts, strings.Join(replicas, ", "))
		}
	}
}

// nodeStatusRows shows how the groups and the nodes are of regions of several nodes.
func nodeStatusRows(w io.Writer, all []admin.Status) {
	fmt.Fprintln(w, "\nREGION\tNODES\tUP\tGROUPS\tUNDER-REPLICATED\tMOVING\tMERGING\tLEADERLESS\tASLEEP\tMOST LED\tLEAST LED")
	var lists []admin.NodeList
	for _, s := range all {
		nodes, up, most, least := 0, 0, 0, s.Groups.Groups
		for _, n := range s.Nodes {
			if n.Status == "GONE" {
				continue
			}
			nodes++
			if !n.Up {
				continue
			}
			up++
			if most = max(most, n.Leads); !n.Drained {
				least = min(least, n.Leads)
			}
		}
		g := s.Groups
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", s.Region, nodes, up, g.Groups, g.UnderReplicated, g.Moving, g.Merging, g.Leaderless, g.Asleep, most, least)
		lists = append(lists, admin.NodeList{Region: s.Region, Nodes: s.Nodes})
	}
	fmt.Fprintln(w)
	nodeRows(w, lists)
}

// seedState says how far a replica has been filled. What is written meanwhile may make it more than there was.
func seedState(s *admin.Seeding) string {
	share := 100.0
	if s.OfItems > 0 {
		share = min(100, 100*float64(s.Items)/float64(s.OfItems))
	}
	return fmt.Sprintf(", %.0f%% from %s, %.1f MB/s", share, s.From, float64(s.BytesPerSecond)/1e6)
}

func linkState(l admin.Link) string {
	switch {
	case l.Reachable:
		return "reachable"
	case l.Heard.IsZero():
		return "never heard from"
	}
	return "unreachable, last heard from " + l.Heard.UTC().Format(time.RFC3339)
}
