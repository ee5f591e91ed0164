package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/table"
)

func regionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "region",
		Short: "Give a region replicas of all global tables, take them away, or go on without it",
		Example: `  commutator region add ap-northeast-1
  commutator region stale eu-west-1
  commutator region remove eu-west-1 --force`,
	}
	c.AddCommand(regionAddCommand(), regionRemoveCommand(), regionStaleCommand())
	return c
}

// others returns clients of all regions that answer but one, which one of them must know: a name misspelt would else have nothing to do, and
// say so with success.
func (f *clientFlags) others(ctx context.Context, name string) (others []*client, err error) {
	up, down, err := f.connect(ctx)
	if err != nil {
		return nil, err
	}
	others = slices.DeleteFunc(up, func(c *client) bool { return c.region == name })
	if len(others) == 0 {
		return nil, errors.Join(fmt.Errorf("only %s itself answers: give the --endpoint of another region", name), down)
	}
	for _, c := range others {
		var s admin.Status
		if err := c.operator(ctx, "Status", admin.StatusRequest{}, &s); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.Links, func(l admin.Link) bool { return l.Region == name }) || slices.ContainsFunc(s.Tables, func(t admin.TableStatus) bool { return statusIn(t, name) != "" }) {
			return others, nil
		}
	}
	return nil, fmt.Errorf("no region that answers knows one called %s, and no table has a replica there", name)
}

func regionStaleCommand() *cobra.Command {
	var f *clientFlags
	q := admin.GiveUpRegionRequest{}
	c := &cobra.Command{
		Use:   "stale REGION",
		Short: "Have the regions go on without one that is away",
		Long: `Have the regions go on without one that is away: they keep nothing for it any more, and fold and clean up
past it once each of them has what any has of its writes. Nothing is lost by that. When the region comes
back it hears of it, begins its replicas anew from another region's, writes again what it alone had, and
takes no requests for them meanwhile.

The regions that are left must be most of a table's, or half of them with the first by name among them. With
--force they need not be; then be sure that the region, and whoever it can reach, does not do the same.

The exit code is 1 if a table was refused.`,
		Example: `  commutator region stale eu-west-1
  commutator region stale eu-west-1 --table orders
  commutator region stale us-east-1 --force --endpoint http://eu.example:8000`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q.Region = args[0]
			others, err := f.others(c.Context(), q.Region)
			if err != nil {
				return err
			}
			var out admin.GivenUp
			if err := others[0].operator(c.Context(), "GiveUpRegion", q, &out); err != nil {
				return err
			}
			if len(out.Refused) > 0 {
				err = fmt.Errorf("the regions that are left are not enough to decide that for %s; --force does it all the same (see --help)", strings.Join(out.Refused, ", "))
			}
			return errors.Join(show(c, out, func(w io.Writer) {
				fmt.Fprintf(w, "%s\tis STALE in %d more tables\n", out.Region, out.Tables)
			}), err)
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&q.TableName, "table", "", "only of this table")
	c.Flags().BoolVar(&q.Force, "force", false, "even if the regions that are left are too few to decide it")
	addOutputFlag(c)
	return c
}

func regionAddCommand() *cobra.Command {
	var f *clientFlags
	c := &cobra.Command{
		Use:   "add REGION",
		Short: "Give a region a replica of every global table",
		Long: `Give a region a replica of every global table that another region has, and wait until each is ACTIVE: that
is seconds, and the time to copy the items. Writes go on everywhere. It may be interrupted and begun again.`,
		Example: `  commutator region add ap-northeast-1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.eachTable(c, args[0], func(t admin.TableStatus) bool { return len(t.Replicas) > 0 && statusIn(t, args[0]) == "" },
				func(region string) types.ReplicationGroupUpdate {
					return types.ReplicationGroupUpdate{Create: &types.CreateReplicationGroupMemberAction{RegionName: &region}}
				}, table.Active)
		},
	}
	f = addClientFlags(c)
	return c
}

func regionRemoveCommand() *cobra.Command {
	var f *clientFlags
	force := false
	c := &cobra.Command{
		Use:   "remove REGION",
		Short: "Take a region's replicas of all global tables away",
		Long: `Take a region's replicas of all global tables away, and wait until they are gone. The region gives them back
itself, once the others have all that was written there.

One that is gone for good cannot. With --force the others go on without it, bring each other what any of
them has of its writes, and take its replicas off their lists. What nobody has but the region is in its
data: should it come back, it stays closed until "region add" gives it its replicas again, and then
writes that again. It may be interrupted and begun again.`,
		Example: `  commutator region remove ap-northeast-1
  commutator region remove eu-west-1 --force`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if !force {
				return f.eachTable(c, name, func(t admin.TableStatus) bool { return statusIn(t, name) != "" },
					func(region string) types.ReplicationGroupUpdate {
						return types.ReplicationGroupUpdate{Delete: &types.DeleteReplicationGroupMemberAction{RegionName: &region}}
					}, "")
			}
			others, err := f.others(c.Context(), name)
			if err != nil {
				return err
			}
			said := map[string]string{}
			return poll(c.Context(), func(ctx context.Context) (bool, error) {
				var out admin.RemovedRegion
				if err := others[0].operator(ctx, "RemoveRegion", admin.RemoveRegionRequest{Region: name}, &out); err != nil {
					return false, err
				}
				for _, r := range out.Replicas {
					line := fmt.Sprintf("%s: %s", r.TableName, r.Status)
					if len(r.Waiting) > 0 {
						line += ", waiting for " + strings.Join(r.Waiting, ", ")
					}
					tell(c, said, r.TableName, line)
				}
				return out.Done, nil
			})
		},
	}
	f = addClientFlags(c)
	c.Flags().BoolVar(&force, "force", false, "without the region, which is gone for good")
	return c
}

// tell prints how far a table is, if that is news.
func tell(c *cobra.Command, said map[string]string, name, line string) {
	if said[name] != line {
		said[name] = line
		fmt.Fprintln(c.OutOrStdout(), line)
	}
}

// statusIn is the status of a table's replica in a region, "" for none.
func statusIn(t admin.TableStatus, region string) table.Status {
	for _, r := range t.Replicas {
		if r.Region == region {
			return r.Status
		}
	}
	return ""
}

// eachTable changes the replica of a region in each table that wants it, and waits until the other regions show what is to come of it.
func (f *clientFlags) eachTable(c *cobra.Command, name string, wants func(admin.TableStatus) bool, update func(region string) types.ReplicationGroupUpdate, until table.Status) error {
	others, err := f.others(c.Context(), name)
	if err != nil {
		return err
	}
	said, asked := map[string]string{}, map[string]bool{}
	err = poll(c.Context(), func(ctx context.Context) (bool, error) {
		done := true
		for _, from := range others {
			var s admin.Status
			if err := from.operator(ctx, "Status", admin.StatusRequest{}, &s); err != nil {
				return false, err
			}
			for _, t := range s.Tables {
				if !asked[t.Name] {
					if !wants(t) {
						continue
					}
					asked[t.Name] = true
					in := dynamodb.UpdateTableInput{TableName: &t.Name, ReplicaUpdates: []types.ReplicationGroupUpdate{update(name)}}
					if _, err := from.dynamo.UpdateTable(ctx, &in); err != nil {
						asked[t.Name] = false
						if busy := (*types.ResourceInUseException)(nil); !errors.As(err, &busy) {
							return false, err
						}
						done = false
						continue
					}
				}
				now := statusIn(t, name)
				done = done && now == until
				if now == "" {
					now = "no replica"
				}
				tell(c, said, t.Name+" in "+s.Region, fmt.Sprintf("%s: %s, says %s", t.Name, now, s.Region))
			}
		}
		return done, nil
	})
	if err == nil && len(said) == 0 {
		fmt.Fprintln(c.OutOrStdout(), "no table needs that")
	}
	return err
}
