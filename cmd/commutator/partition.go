package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func partitionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "partition",
		Short:   "Show the partitions of tables",
		Example: "  commutator partition list orders",
	}
	c.AddCommand(partitionListCommand())
	return c
}

func partitionListCommand() *cobra.Command {
	var f *clientFlags
	c := &cobra.Command{
		Use:   "list TABLE",
		Short: "List a table's partitions in each region",
		Long: `List the partitions that a table has in each region, in the order of their keys. A partition holds the
keys from its own FROM up to the next one's: keys begin with the hash of their partition key. CHANGES
counts the changes that its change log keeps for other regions, UNFOLDED those of them that are not known
to have been seen by all. How many partitions a table begins with is the region's own matter:
partitionsPerTable in a node's file, --partitions of dev.`,
		Example: `  commutator partition list orders
  commutator partition list orders --region eu-west-1 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, failed := askAll[admin.PartitionList](c.Context(), f, "ListPartitions", admin.ListPartitionsRequest{TableName: args[0]})
			if all == nil {
				return failed
			}
			return errors.Join(show(c, all, func(w io.Writer) { partitionRows(w, all) }), failed)
		},
	}
	f = addClientFlags(c)
	addOutputFlag(c)
	return c
}

func partitionRows(w io.Writer, all []admin.PartitionList) {
	fmt.Fprintln(w, "REGION\tPARTITION\tFROM\tITEMS\tBYTES\tLEADER\tCHANGES\tUNFOLDED")
	for _, l := range all {
		for _, p := range l.Partitions {
			leader := "-"
			if p.Leader != 0 {
				leader = fmt.Sprint(p.Leader)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%s\t%d\t%d\n", l.Region, p.ID, cmp.Or(p.Start, "the first key"), p.Items, p.Bytes, leader, p.Changes, p.Unfolded)
		}
	}
}
