package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// addOutputFlag gives a command that lists something the flag -o.
func addOutputFlag(c *cobra.Command) {
	c.Flags().StringP("output", "o", "table", "table for people, json for programs")
}

// show prints an answer: as JSON with -o json, else as the table that rows writes, cells parted by tabs.
func show(c *cobra.Command, answer any, rows func(w io.Writer)) error {
	format, err := c.Flags().GetString("output")
	if err != nil {
		return err
	}
	switch format {
	case "json":
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(answer)
	case "table":
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		rows(w)
		return w.Flush()
	}
	return usageError{fmt.Errorf("--output %q is neither table nor json", format)}
}
