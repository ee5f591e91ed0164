package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/node"
)

func serverCommand() *cobra.Command {
	var path, name string
	var verbose bool
	c := &cobra.Command{
		Use:   "server",
		Short: "Run one node of one region",
		Long: `Run one node of one region, as its configuration file says. docs/operate/node.md describes the file.
One file may serve all nodes of a region: --node says which of them this is, and {node} stands for that
name in data, listen, advertise and tls.`,
		Example: `  commutator server --config node.yaml
  commutator server --config us-east-1.yaml --node us-east-1-b
  commutator server --config node.yaml --verbose`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if path == "" {
				return usageError{errors.New("--config is not given")}
			}
			cfg, err := node.ReadConfig(path, name)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if verbose {
				level = slog.LevelDebug
			}
			cfg.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level})).With("region", cfg.Region, "node", cfg.Node)
			cfg.Fatal = func(err error) {
				cfg.Logger.Error("node: cannot go on", "err", err)
				if errors.Is(err, node.ErrRebuild) {
					startAgain()
				}
				os.Exit(3)
			}
			n, err := node.Open(cfg)
			if errors.Is(err, node.ErrRebuild) {
				cfg.Fatal(err)
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, n.Close()) }()
			defer onHangup(n.ReadKeys)()
			cfg.Logger.Info("serving", "http", n.HTTPAddr().String(), "data", cfg.Data)
			return n.Run(c.Context())
		},
	}
	c.Flags().StringVar(&path, "config", "", "the node's configuration file")
	c.Flags().StringVar(&name, "node", "", "the node's name, instead of the file's")
	c.Flags().BoolVar(&verbose, "verbose", false, "log details")
	return c
}

// startAgain puts a new start of this program in the place of this process. It returns only when that cannot be done.
func startAgain() {
	if program, err := os.Executable(); err == nil {
		syscall.Exec(program, os.Args, os.Environ())
	}
}

// onHangup calls do for each SIGHUP, which would end the process, until stop is called.
func onHangup(do func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range signals {
			do()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

func healthcheckCommand() *cobra.Command {
	var url string
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Exit with 0 when a URL answers 200, for container health checks",
		Example: "  commutator healthcheck --url http://127.0.0.1:9000/readyz",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), timeout)
			defer cancel()
			q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return usageError{err}
			}
			a, err := http.DefaultClient.Do(q)
			if err != nil {
				return err
			}
			defer a.Body.Close()
			if a.StatusCode != http.StatusOK {
				return fmt.Errorf("%s answers %s", url, a.Status)
			}
			return nil
		},
	}
	c.Flags().StringVar(&url, "url", "http://127.0.0.1:9000/readyz", "what to ask for")
	c.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait for the answer")
	return c
}
