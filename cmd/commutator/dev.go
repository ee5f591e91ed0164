package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/node"
)

const defaultData = "./commutator-data"

func devCommand() *cobra.Command {
	var cfg node.DevConfig
	var key node.Credential
	var regions string
	var verbose bool
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run three regions in this process, to try things out",
		Long: `Run several regions in this process, each with its own endpoint, data and change log, and
a simulated network between them that can be cut and slowed down while it runs.`,
		Example: `  commutator dev
  commutator dev --in-memory --regions us-east-1,eu-west-1 --wan-latency 80ms
  commutator dev partition eu-west-1      # in another terminal
  commutator dev heal`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.Regions = strings.Split(regions, ",")
			if cfg.Keys == "" || c.Flags().Changed("access-key") || c.Flags().Changed("secret-key") {
				cfg.Credentials = []node.Credential{key}
			}
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			cfg.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return runDev(c.Context(), c.OutOrStdout(), cfg)
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Data, "data", defaultData, "directory for the data and the control socket")
	f.BoolVar(&cfg.InMemory, "in-memory", false, "keep no data on disk")
	f.StringVar(&regions, "regions", "us-east-1,eu-west-1,ap-northeast-1", "regions to run")
	f.IntVar(&cfg.Port, "port", 8000, "port of the first region's endpoint; the others follow")
	f.StringVar(&cfg.Host, "host", "127.0.0.1", "address to listen on")
	f.StringVar(&key.AccessKey, "access-key", devKey, "access key id that clients sign with")
	f.StringVar(&key.SecretKey, "secret-key", devKey, "its secret")
	f.StringVar(&cfg.Keys, "keys", "", `file of key pairs, instead of the two above or with them; read again when it changes:
a YAML list of {accessKey: ID, secretKey: SECRET}`)
	f.StringVar(&cfg.Auth, "auth", "on", "on, or off: any signature passes, and none does")
	f.BoolVar(&cfg.EnforceThroughput, "enforce-throughput", false, "refuse requests beyond a table's provisioned or maximum throughput, as the service does")
	f.IntSliceVar(&cfg.Partitions, "partitions", nil, "partitions that a table begins with: one number, or one for each region (default 1)")
	f.DurationVar(&cfg.Latency, "wan-latency", 0, "latency between regions, one way, such as 80ms")
	f.BoolVar(&verbose, "verbose", false, "log what the regions do")
	c.AddCommand(devPartitionCommand(), devHealCommand(), devDelayCommand(), devStatusCommand())
	return c
}

func runDev(ctx context.Context, out io.Writer, cfg node.DevConfig) (err error) {
	d, err := node.OpenDev(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	go func() {
		err := d.Run(ctx)
		cancel(err)
		done <- err
	}()
	if d.Ready(ctx) == nil {
		greet(out, d, cfg)
	}
	return <-done
}

func greet(out io.Writer, d *node.Dev, cfg node.DevConfig) {
	first := d.Nodes()[0]
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, n := range d.Nodes() {
		fmt.Fprintf(w, "%s\thttp://%s\n", n.Region().Name(), n.HTTPAddr())
	}
	w.Flush()
	key := shownKey(cfg)
	fmt.Fprintf(out, `
export AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s

aws dynamodb create-table --region %s --endpoint-url http://%s --table-name hello \
  --attribute-definitions AttributeName=pk,AttributeType=S --key-schema AttributeName=pk,KeyType=HASH --billing-mode PAY_PER_REQUEST
aws dynamodb put-item --region %s --endpoint-url http://%s --table-name hello --item '{"pk":{"S":"a"}}'
aws dynamodb scan --region %s --endpoint-url http://%s --table-name hello
`, key.AccessKey, key.SecretKey, first.Region().Name(), first.HTTPAddr(), first.Region().Name(), first.HTTPAddr(), first.Region().Name(), first.HTTPAddr())
	fmt.Fprintln(out, "\nready")
}

// shownKey is the key pair that the greeting tells people to sign with. A secret of theirs is not shown.
func shownKey(cfg node.DevConfig) node.Credential {
	switch {
	case cfg.Auth == "off":
		return node.Credential{AccessKey: "any", SecretKey: "any"}
	case len(cfg.Credentials) == 0:
		return node.Credential{AccessKey: "'one of " + cfg.Keys + "'", SecretKey: "'its secret'"}
	case cfg.Credentials[0].SecretKey != devKey:
		return node.Credential{AccessKey: cfg.Credentials[0].AccessKey, SecretKey: "'its secret'"}
	}
	return cfg.Credentials[0]
}

// controlCommand is a command to a running dev.
func controlCommand(use, short, example string, args cobra.PositionalArgs, request func(args []string) (node.ControlRequest, error)) *cobra.Command {
	var data string
	c := &cobra.Command{
		Use: use, Short: short, Example: example, Args: args,
		RunE: func(c *cobra.Command, args []string) error {
			q, err := request(args)
			if err != nil {
				return err
			}
			a, err := node.Control(data, q)
			if err != nil {
				return err
			}
			return showDev(c, a)
		},
	}
	c.Flags().StringVar(&data, "data", defaultData, "data directory of the running dev")
	addOutputFlag(c)
	return c
}

func devPartitionCommand() *cobra.Command {
	return controlCommand("partition REGION", "Cut a region off from all others", "  commutator dev partition eu-west-1", cobra.ExactArgs(1),
		func(args []string) (node.ControlRequest, error) {
			return node.ControlRequest{Command: "partition", Region: args[0]}, nil
		})
}

func devHealCommand() *cobra.Command {
	return controlCommand("heal", "Join all regions again", "  commutator dev heal", cobra.NoArgs,
		func([]string) (node.ControlRequest, error) { return node.ControlRequest{Command: "heal"}, nil })
}

func devDelayCommand() *cobra.Command {
	return controlCommand("delay LATENCY", "Set the latency between regions, one way", "  commutator dev delay 80ms", cobra.ExactArgs(1),
		func(args []string) (node.ControlRequest, error) {
			d, err := time.ParseDuration(args[0])
			if err != nil || d < 0 || d > time.Minute {
				return node.ControlRequest{}, usageError{fmt.Errorf("%q is no latency from 0s to 1m", args[0])}
			}
			return node.ControlRequest{Command: "delay", Delay: d}, nil
		})
}

func devStatusCommand() *cobra.Command {
	return controlCommand("status", "Show the regions and the network between them", "  commutator dev status", cobra.NoArgs,
		func([]string) (node.ControlRequest, error) { return node.ControlRequest{Command: "status"}, nil })
}

func showDev(c *cobra.Command, a node.ControlAnswer) error {
	return show(c, a, func(w io.Writer) {
		fmt.Fprintln(w, "REGION\tENDPOINT\tNETWORK")
		for _, r := range a.Regions {
			network := "connected"
			if r.CutOff {
				network = "cut off"
			} else if a.Delay > 0 {
				network += ", " + a.Delay.String() + " away"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", r.Region, r.Endpoint, network)
		}
	})
}
