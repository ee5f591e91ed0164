// Command commutator is DynamoDB's API and global tables on your own machines. It owns flags, files and
// exit codes: each verb is one file, a thin one over package node or over the API of a running node.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes: DESIGN.md §10.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "commutator:", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	if h := hint(err); h != "" {
		fmt.Fprintln(os.Stderr, " ", h)
	}
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "commutator",
		Short: "DynamoDB's API and global tables on your own machines",
		Long: `DynamoDB's API and global tables on your own machines. Every region takes reads and
writes alone; what regions write at the same time is merged instead of lost.`,
		Example: `  commutator dev
  commutator apply -f tables.yaml
  commutator conflicts --table orders`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		devCommand(), serverCommand(), healthcheckCommand(), certsCommand(),
		applyCommand(), planCommand(), conflictsCommand(), statusCommand(), lagCommand(), regionCommand(), verifyCommand(), contributorsCommand(), indexCommand(), partitionCommand(), nodeCommand(), backupCommand(), restoreCommand(),
	)
	checkUsage(root)
	return root
}

// checkUsage makes wrong arguments a usageError, in every command, and a group without a verb show its
// help.
func checkUsage(c *cobra.Command) {
	for _, sub := range c.Commands() {
		checkUsage(sub)
	}
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, a []string) error {
			if err := args(c, a); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q; see %s --help", args[0], c.CommandPath(), c.CommandPath())}
			}
			return c.Help()
		}
	}
}
