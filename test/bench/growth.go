package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// measureGrowth measures what one table does in regions of ever more nodes, each with the same processor time: two partitions for each node,
// clients at every one, waiting for their answers.
func measureGrowth(ctx context.Context, out io.Writer, dir string) error {
	counts, err := numbers(*nodeCounts, "3,5,7")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "each partition at %d nodes, each node with %g cores\n%-6s %-14s %9s %9s %9s %9s  %s\n", *replicas, *cores, "nodes", "", "a second", "a node", "p50", "p99", "cores that each node used")
	for _, n := range counts {
		if err := growTo(ctx, out, dir, int(n)); err != nil {
			return err
		}
	}
	return nil
}

func growTo(ctx context.Context, out io.Writer, dir string, n int) (err error) {
	f, err := startFleet(ctx, dir, n, 2*n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	length := time.Duration(*seconds * float64(time.Second))
	for _, w := range []struct {
		name     string
		requests func(address string) ([][]byte, error)
	}{{"put", putRequests}, {"strong get", getRequests}, {"eventual get", eventualRequests}} {
		if *only != "" && *only != w.name {
			continue
		}
		requests, err := f.requests(w.requests)
		if err != nil {
			return err
		}
		closed(ctx, f.addresses(), requests, closedConnections, length/2) // warm
		before, err := f.used()
		if err != nil {
			return err
		}
		o := closed(ctx, f.addresses(), requests, closedConnections, length)
		after, err := f.used()
		if err != nil {
			return err
		}
		var each []string
		for i := range after {
			each = append(each, fmt.Sprintf("%.2f", (after[i]-before[i]).Seconds()/length.Seconds()))
		}
		s, rate := sample{lat: o[""]}, float64(len(o[""]))/length.Seconds()
		fmt.Fprintf(out, "%-6d %-14s %9.0f %9.0f %9s %9s  %s", n, w.name, rate, rate/float64(n), ms(s.at(.5)), ms(s.at(.99)), strings.Join(each, " "))
		if refused := count(o) - len(s.lat); refused > 0 {
			fmt.Fprintf(out, "; %d refused", refused)
		}
		fmt.Fprintln(out)
	}
	return ctx.Err()
}
