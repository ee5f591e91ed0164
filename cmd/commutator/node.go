package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "Show the nodes of regions, drain one, let one go, and replace one by another",
		Example: `  commutator node list
  commutator node drain us-east-1-b
  commutator node remove 3 --region us-east-1
  commutator node replace us-east-1-c us-east-1-d`,
	}
	c.AddCommand(nodeListCommand(), nodeDrainCommand(), nodeRemoveCommand(), nodeReplaceCommand())
	return c
}

func nodeListCommand() *cobra.Command {
	var f *clientFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List the nodes of each region",
		Long: `List the nodes of each region: in how many of the region's Raft groups (its catalog, and every partition
of every table) each one votes, of those that it is to vote in, how many it leads, and the size of the items
in them. A node is JOINING until it votes in as many as it is to, and LEAVING until it votes in none; then it is GONE, and its number is never another's. "down" is one that
the node which answers has not heard of for a second, "drained" one that is to lead nothing.`,
		Example: `  commutator node list
  commutator node list --region us-east-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, failed := askAll[admin.NodeList](c.Context(), f, "ListNodes", admin.ListNodesRequest{})
			if all == nil {
				return failed
			}
			return errors.Join(show(c, all, func(w io.Writer) { nodeRows(w, all) }), failed)
		},
	}
	f = addClientFlags(c)
	addOutputFlag(c)
	return c
}

func nodeDrainCommand() *cobra.Command {
	var f *clientFlags
	timeout, undo := 2*time.Minute, false
	c := &cobra.Command{
		Use:   "drain NAME",
		Short: "Have a node hand over all that it leads, before it is stopped",
		Long: `Have a node, by its name or its number, hand over all that it leads to other nodes of its region, and lead
nothing until this is undone or it is started anew: clients then notice nothing of its stop, and a node
that is slow makes nobody wait but those that ask it. It goes on answering, and holds what it holds.
A node that is stopped in good order hands over by itself; drain one whose machine is to be worked on.

This waits until the node leads nothing. With several regions at hand, --region says whose node it is.`,
		Example: `  commutator node drain us-east-1-b
  commutator node drain 2 --region us-east-1 --undo`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := f.reach(c.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			region, id, err := findNode(ctx, up, args[0])
			if err != nil {
				return err
			}
			last, err := drainNode(ctx, region, id, undo, c.ErrOrStderr())
			if err != nil {
				return err
			}
			return show(c, []admin.NodeList{*last}, func(w io.Writer) { nodeRows(w, []admin.NodeList{*last}) })
		},
	}
	f = addClientFlags(c)
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait; what has begun goes on after that")
	c.Flags().BoolVar(&undo, "undo", false, "let the node lead again; groups come to it by and by")
	addOutputFlag(c)
	return c
}

// findNode returns the region that has a node of a name or a number, and its number.
func findNode(ctx context.Context, up []*client, name string) (in *client, id uint64, err error) {
	for _, c := range up {
		var l admin.NodeList
		if err := c.operator(ctx, "ListNodes", admin.ListNodesRequest{}, &l); err != nil {
			return nil, 0, err
		}
		for _, n := range l.Nodes {
			if n.Status == "GONE" || n.Name != name && strconv.FormatUint(n.ID, 10) != name {
				continue
			}
			if in != nil && (in.region != c.region || id != n.ID) {
				return nil, 0, usageError{fmt.Errorf("several nodes are called %s: --region says whose is meant, its number which", name)}
			}
			in, id = c, n.ID
		}
	}
	if in == nil {
		return nil, 0, usageError{fmt.Errorf("there is no node %q; `commutator node list` shows them", name)}
	}
	return in, id, nil
}

// drainNode has a node lead nothing, and waits until it does not.
func drainNode(ctx context.Context, c *client, id uint64, undo bool, progress io.Writer) (*admin.NodeList, error) {
	var last admin.NodeList
	if err := c.operator(ctx, "DrainNode", admin.DrainNodeRequest{ID: id, Undo: undo}, &last); err != nil || undo {
		return &last, err
	}
	said := -1
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		i := slices.IndexFunc(last.Nodes, func(n admin.NodeStatus) bool { return n.ID == id })
		if i < 0 || last.Nodes[i].Leads == 0 {
			return true, nil
		}
		if n := last.Nodes[i].Leads; n != said {
			said = n
			fmt.Fprintf(progress, "node %d leads %d of %d groups still\n", id, n, last.Nodes[i].Of)
		}
		last = admin.NodeList{}
		return false, c.operator(ctx, "ListNodes", admin.ListNodesRequest{}, &last)
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w; node %d is drained, and leads what no other node can: are they up, and have they all they need?", context.Cause(ctx), id)
	}
	return &last, err
}

func nodeRemoveCommand() *cobra.Command {
	var f *clientFlags
	timeout := 2 * time.Minute
	c := &cobra.Command{
		Use:   "remove ID",
		Short: "Let a node of a region go, be it up or down",
		Long: `Have a region go on without one of its nodes: one that is to be switched off, or one that has lost its
disk. Others are given what it holds, one change at a time for each partition, while requests go on, and
vote before it goes; what it leads it hands over first. Of the nodes that hold a partition more than half must
be up, the one to go among them or not. To have another take its place, see node replace.

This waits until the node holds nothing any more; then stop it, if it is up. Its number is never given
again. With several regions at hand, --region says whose node it is.`,
		Example: "  commutator node remove 3 --region us-east-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || id == 0 {
				return usageError{fmt.Errorf("%q is no node's number, as `commutator node list` shows them", args[0])}
			}
			up, err := f.reach(c.Context())
			if err != nil {
				return err
			}
			region := up[0].region
			if slices.ContainsFunc(up, func(o *client) bool { return o.region != region }) {
				return usageError{errors.New("there are several regions: --region says whose node it is")}
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			last, err := removeNode(ctx, up[0], id, c.ErrOrStderr())
			if err != nil {
				return err
			}
			return show(c, []admin.NodeList{*last}, func(w io.Writer) { nodeRows(w, []admin.NodeList{*last}) })
		},
	}
	f = addClientFlags(c)
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait; what has begun goes on after that")
	addOutputFlag(c)
	return c
}

// removeNode lets a node go, and waits until it is gone.
func removeNode(ctx context.Context, c *client, id uint64, progress io.Writer) (*admin.NodeList, error) {
	var last admin.NodeList
	if err := c.operator(ctx, "RemoveNode", admin.RemoveNodeRequest{ID: id}, &last); err != nil {
		return nil, err
	}
	said := -1
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		i := slices.IndexFunc(last.Nodes, func(n admin.NodeStatus) bool { return n.ID == id })
		if i < 0 || last.Nodes[i].Status == "GONE" {
			return true, nil
		}
		if n := last.Nodes[i].Groups; n != said {
			said = n
			fmt.Fprintf(progress, "node %d votes in %d of %d groups still, with items of %.1f MB\n", id, n, last.Nodes[i].Of, float64(last.Nodes[i].Bytes)/1e6)
		}
		last = admin.NodeList{}
		return false, c.operator(ctx, "ListNodes", admin.ListNodesRequest{}, &last)
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w; node %d is LEAVING still, and goes on: are more than half of the nodes up?", context.Cause(ctx), id)
	}
	return &last, err
}

// formats is a node's format, and the newest that its program knows if that is another.
func formats(n admin.NodeStatus) string {
	switch {
	case n.Knows == 0:
		return "-"
	case n.Knows == n.Format:
		return fmt.Sprint(n.Format)
	}
	return fmt.Sprintf("%d of %d", n.Format, n.Knows)
}

func nodeRows(w io.Writer, all []admin.NodeList) {
	fmt.Fprintln(w, "REGION\tNODE\tNAME\tZONE\tADDRESS\tSTATUS\tVOTES IN\tLEADS\tBYTES\tFORMAT")
	for _, l := range all {
		for _, n := range l.Nodes {
			state := n.Status
			if n.Drained {
				state += ", drained"
			}
			if !n.Up && n.Status != "GONE" {
				state += ", down"
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%d of %d\t%d\t%d\t%s\n", l.Region, n.ID, cmp.Or(n.Name, "-"), cmp.Or(n.Zone, "-"), cmp.Or(n.Address, "-"), state, n.Groups, n.Wanted, n.Leads, n.Bytes, formats(n))
		}
	}
}
