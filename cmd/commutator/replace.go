package main

import (
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

func nodeReplaceCommand() *cobra.Command {
	var f *clientFlags
	timeout := 10 * time.Minute
	c := &cobra.Command{
		Use:   "replace OLD NEW",
		Short: "Let a node of a region go once another is there to take its place",
		Long: `Let a node go, by its name or its number, be it up or down, once another of its region has joined: one
that is up and has what it is to have. Start that one first ("joins" in its file). As it holds least, most of what the old one
held goes there; the region's rules say what does, with zones and replicas in mind. Requests go on.

This waits until the new node has what it is to have, then lets the old one go as node remove does, and waits until it holds
nothing any more; then stop it, if it is up. Run again it goes on, or finds that it is done. If the new one is not there in
time, leaves, or is drained, nothing is done. With several regions at hand, --region says whose nodes they are.`,
		Example: `  commutator node replace us-east-1-c us-east-1-d
  commutator node replace 3 4 --region us-east-1 --timeout 1h`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := f.reach(c.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			in, _, err := findNode(ctx, up, args[1])
			if err != nil {
				return err
			}
			last, err := replaceNode(ctx, in, args[0], args[1], c.ErrOrStderr())
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

// replaceNode lets a node of a region go once another is there, and waits until it is gone.
func replaceNode(ctx context.Context, c *client, from, to string, progress io.Writer) (*admin.NodeList, error) {
	var last admin.NodeList
	var gone admin.NodeStatus
	said := ""
	err := poll(ctx, func(ctx context.Context) (bool, error) {
		last = admin.NodeList{}
		if err := c.operator(ctx, "ListNodes", admin.ListNodesRequest{}, &last); err != nil {
			return false, err
		}
		var comes admin.NodeStatus
		var err error
		if gone, err = nodeOf(&last, from); err != nil {
			return false, err
		}
		if comes, err = nodeOf(&last, to); err != nil {
			return false, err
		}
		switch {
		case gone.ID == comes.ID:
			return false, usageError{errors.New("a node cannot take its own place")}
		case gone.Status == "GONE", gone.Status == "LEAVING": // it was let go before
			return true, nil
		case comes.Status == "GONE", comes.Status == "LEAVING":
			return false, fmt.Errorf("node %d is %s: it cannot take the place of another", comes.ID, comes.Status)
		case comes.Drained:
			return false, fmt.Errorf("node %d is drained: it would be given nothing; node drain --undo ends that", comes.ID)
		}
		state := fmt.Sprintf("votes in %d of the %d groups that it is to vote in", comes.Groups, comes.Wanted)
		if !comes.Up {
			state = "is down"
		} else if comes.Status == "HOLDS" {
			return true, nil
		}
		if state != said {
			said = state
			fmt.Fprintf(progress, "node %d %s\n", comes.ID, state)
		}
		return false, nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%w; node %s is not up with all that it is to have, and node %s stays", context.Cause(ctx), to, from)
	case err != nil:
		return nil, err
	case gone.Status == "GONE":
		return &last, nil
	}
	return removeNode(ctx, c, gone.ID, progress)
}

// nodeOf returns the node of a name or a number. Of a name, one that is not gone goes first.
func nodeOf(l *admin.NodeList, name string) (admin.NodeStatus, error) {
	is := func(n admin.NodeStatus) bool { return n.Name == name || strconv.FormatUint(n.ID, 10) == name }
	i := slices.IndexFunc(l.Nodes, func(n admin.NodeStatus) bool { return is(n) && n.Status != "GONE" })
	if i < 0 {
		i = slices.IndexFunc(l.Nodes, is)
	}
	if i < 0 {
		return admin.NodeStatus{}, usageError{fmt.Errorf("region %s has no node %q; `commutator node list` shows them", l.Region, name)}
	}
	return l.Nodes[i], nil
}
