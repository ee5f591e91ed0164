package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func partitionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "partition",
		Short:   "Show the partitions of tables, split and merge them, and say which nodes hold them",
		Example: "  commutator partition list orders",
	}
	c.AddCommand(partitionListCommand(), partitionSplitCommand(), partitionMergeCommand(), partitionMoveCommand())
	return c
}

func partitionSplitCommand() *cobra.Command {
	var f *clientFlags
	var at string
	timeout := 10 * time.Minute
	c := &cobra.Command{
		Use:   "split TABLE ID",
		Short: "Split a partition in two",
		Long: `Split a partition in two, while requests go on. The region does so by itself as partitions grow
(partitionSplitBytes in a node's file) or are written to much (partitionSplitWrites).

A partition is split at a hash of partition keys, so items of one partition key stay together. --at gives
it as "partition list" shows where partitions begin, in up to 16 hexadecimal digits; without it, it is one
in the middle of the items. Each region has partitions of its own: with several at hand, --region says
whose. This waits until the partition is split; what has begun goes on if it does not.`,
		Example: `  commutator partition split orders 17 --region eu-west-1
  commutator partition split orders 17 --at c0`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return onPartition(c, f, args, timeout, func(ctx context.Context, up []*client, id uint64) (*admin.PartitionList, error) {
				return splitPartition(ctx, up[0], admin.SplitPartitionRequest{TableName: args[0], ID: id, At: at}, c.ErrOrStderr())
			})
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&at, "at", "", "where to split: a hash in hexadecimal (default: in the middle of the items)")
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait; what has begun goes on after that")
	addOutputFlag(c)
	return c
}

func partitionMergeCommand() *cobra.Command {
	var f *clientFlags
	timeout := 2 * time.Minute
	c := &cobra.Command{
		Use:   "merge TABLE ID",
		Short: "Have an empty partition taken in by its left neighbour",
		Long: `Have an empty partition taken in by its left neighbour, the one above it in "partition list", which need not be
empty; requests go on. The region does so by itself with two neighbours that have both been empty for ten
minutes (partitionMergeAfter in a node's file), down to as many partitions as a table begins with.

A partition is empty when it has no items, keeps no changes that another region has not had, no conflict
records, and nothing of items that were deleted: of a global table, traces of those are kept for 30 days.
Every node that is to hold it, or its neighbour, must be up. What stands in the way is said. Requests for keys
that it would hold may wait for a second; if the nodes have not all closed it by then, it is as it was.

This waits until the partition is merged. With several regions at hand, --region says whose it is.`,
		Example: `  commutator partition merge orders 17
  commutator partition merge orders 17 --region eu-west-1`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return onPartition(c, f, args, timeout, func(ctx context.Context, up []*client, id uint64) (*admin.PartitionList, error) {
				return mergePartition(ctx, up[0], admin.MergePartitionRequest{TableName: args[0], ID: id}, c.ErrOrStderr())
			})
		},
	}
	f = addClientFlags(c)
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait; what has begun goes on after that")
	addOutputFlag(c)
	return c
}

// onPartition does something with the partition of one region that the arguments TABLE and ID name, and shows the table's partitions then.
func onPartition(c *cobra.Command, f *clientFlags, args []string, timeout time.Duration, do func(ctx context.Context, up []*client, id uint64) (*admin.PartitionList, error)) error {
	id, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil || id == 0 {
		return usageError{fmt.Errorf("%q is no partition's number, as `commutator partition list` shows them", args[1])}
	}
	up, err := f.reach(c.Context())
	if err != nil {
		return err
	}
	if slices.ContainsFunc(up, func(o *client) bool { return o.region != up[0].region }) {
		return usageError{errors.New("there are several regions: --region says whose partition it is")}
	}
	ctx, cancel := context.WithTimeout(c.Context(), timeout)
	defer cancel()
	l, err := do(ctx, up, id)
	if err != nil {
		return err
	}
	all := []admin.PartitionList{*l}
	return show(c, all, func(w io.Writer) { partitionRows(w, all) })
}

// mergePartition has a partition merged, and waits until it is.
func mergePartition(ctx context.Context, c *client, q admin.MergePartitionRequest, progress io.Writer) (*admin.PartitionList, error) {
	var answer admin.MergePartitionAnswer
	if err := c.operator(ctx, "MergePartition", q, &answer); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "partition %d is to be merged into its left neighbour\n", q.ID)
	var last admin.PartitionList
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		last = admin.PartitionList{}
		if err := c.operator(ctx, "ListPartitions", admin.ListPartitionsRequest{TableName: q.TableName}, &last); err != nil {
			return false, err
		}
		i := slices.IndexFunc(last.Partitions, func(p admin.PartitionStatus) bool { return p.ID == q.ID })
		if i >= 0 && last.Partitions[i].State != admin.PartitionMerging {
			return false, fmt.Errorf("partition %d was not merged: not every node has closed it in time, or it was written to; the log of the node that leads the catalog says which. It can be tried again", q.ID)
		}
		return i < 0, nil
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w; the merge goes on: are all nodes up that hold the partition?", context.Cause(ctx))
	}
	return &last, err
}

func partitionMoveCommand() *cobra.Command {
	var f *clientFlags
	var from, to string
	timeout := 30 * time.Minute
	c := &cobra.Command{
		Use:   "move TABLE ID --from NODE --to NODE",
		Short: "Have one node hold a partition instead of another",
		Long: `Have one node of a region, by its name or its number, hold a partition instead of another, while requests go
on: the new one is filled, votes, and then the old one goes. The region places partitions by itself, by zones,
by number, by size and by load, and replaces nodes that are lost or removed; this is for what it cannot know.
It leaves a partition where it was moved to for 24 hours, but for need, and moves others to make even what
that makes uneven. In a region with no more nodes than replicas every node holds everything: nothing can
be moved there.

This waits until the partition is moved; what has begun goes on if it does not. With several regions at
hand, --region says whose partition it is.`,
		Example: `  commutator partition move orders 17 --from us-east-1-b --to us-east-1-d
  commutator partition move orders 17 --from 2 --to 4 --region us-east-1`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" || to == "" {
				return usageError{errors.New("--from and --to say which node is to hold it no more, and which instead")}
			}
			return onPartition(c, f, args, timeout, func(ctx context.Context, up []*client, id uint64) (l *admin.PartitionList, err error) {
				q := admin.MovePartitionRequest{TableName: args[0], ID: id}
				if _, q.From, err = findNode(ctx, up, from); err != nil {
					return nil, err
				}
				if _, q.To, err = findNode(ctx, up, to); err != nil {
					return nil, err
				}
				return movePartition(ctx, up[0], q, c.ErrOrStderr())
			})
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&from, "from", "", "the node that is not to hold it any more")
	c.Flags().StringVar(&to, "to", "", "the node that is to hold it instead")
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait; what has begun goes on after that")
	addOutputFlag(c)
	return c
}

// movePartition has another node hold a partition, and waits until it does.
func movePartition(ctx context.Context, c *client, q admin.MovePartitionRequest, progress io.Writer) (*admin.PartitionList, error) {
	var last admin.PartitionList
	if err := c.operator(ctx, "MovePartition", q, &last); err != nil {
		return nil, err
	}
	said := ""
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		i := slices.IndexFunc(last.Partitions, func(p admin.PartitionStatus) bool { return p.ID == q.ID })
		if i < 0 {
			return false, fmt.Errorf("partition %d is gone", q.ID)
		}
		p := last.Partitions[i]
		switch {
		case !slices.Contains(p.Nodes, q.To):
			return false, fmt.Errorf("partition %d is to be held by %s now: somebody else has said so", q.ID, numbers(p.Nodes))
		case slices.Equal(p.Nodes, p.Voters) && len(p.Learners) == 0:
			return true, nil
		}
		now := "is about to be filled"
		if slices.Contains(p.Learners, q.To) {
			now = "is being filled"
		} else if slices.Contains(p.Voters, q.To) {
			now = "votes"
		}
		if now != said {
			said = now
			fmt.Fprintf(progress, "node %d %s\n", q.To, now)
		}
		last = admin.PartitionList{}
		return false, c.operator(ctx, "ListPartitions", admin.ListPartitionsRequest{TableName: q.TableName}, &last)
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w; the partition goes on its way: is node %d up, and more than half of those that hold it?", context.Cause(ctx), q.To)
	}
	return &last, err
}

// numbers are those of nodes, as the tables show them.
func numbers(ids []uint64) string {
	if len(ids) == 0 {
		return "-"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ","), "[]")
}

// splitPartition has a partition split, and waits until it is.
func splitPartition(ctx context.Context, c *client, q admin.SplitPartitionRequest, progress io.Writer) (*admin.PartitionList, error) {
	var answer admin.SplitPartitionAnswer
	if err := c.operator(ctx, "SplitPartition", q, &answer); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "partition %d is to be split off\n", answer.Child)
	var last admin.PartitionList
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		last = admin.PartitionList{}
		err := c.operator(ctx, "ListPartitions", admin.ListPartitionsRequest{TableName: q.TableName}, &last)
		return slices.ContainsFunc(last.Partitions, func(p admin.PartitionStatus) bool { return p.ID == answer.Child }), err
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w; the split goes on: are more than half of the nodes up?", context.Cause(ctx))
	}
	return &last, err
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
partitionsPerTable in a node's file, --partitions of dev. NODES are those that are to hold a partition, and
behind "now" those that do where it is others, with + for those that are being filled. STATE is ACTIVE, MOVING
while others hold it than are to, SPLITTING while it is made ready to be split, CLEANING while index rows
are removed of what was split off, or MERGING while it, which is empty, is on its way into its left
neighbour; all of them serve.`,
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
	fmt.Fprintln(w, "REGION\tPARTITION\tFROM\tSTATE\tITEMS\tBYTES\tLEADER\tNODES\tCHANGES\tUNFOLDED")
	for _, l := range all {
		for _, p := range l.Partitions {
			leader := "-"
			if p.Leader != 0 {
				leader = fmt.Sprint(p.Leader)
			}
			nodes := numbers(p.Nodes)
			if p.State == admin.PartitionMoving {
				nodes += " now " + numbers(p.Voters)
				for _, id := range p.Learners {
					nodes += fmt.Sprintf("+%d", id)
				}
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%d\t%d\n", l.Region, p.ID, cmp.Or(p.Start, "the first key"), p.State, p.Items, p.Bytes, leader, nodes, p.Changes, p.Unfolded)
		}
	}
}
