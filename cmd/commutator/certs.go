package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/replication/transport"
)

func certsCommand() *cobra.Command {
	var dir, cluster string
	var days int
	var key bool
	c := &cobra.Command{
		Use:   "certs REGION/NODE...",
		Short: "Make certificates by which nodes prove to other regions who they are",
		Long: `Make a certificate for each node named, in a directory: REGION-NODE.pem and REGION-NODE-key.pem. The
authority that signs them, ca.pem and ca-key.pem, is made first unless it is there. Give each node
ca.pem and its own two files (tls: in its configuration), and keep ca-key.pem away from all of them.`,
		Example: `  commutator certs --dir certs us-east-1/us-east-1-a eu-west-1/eu-west-1-a
  commutator certs --gossip-key`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case key && len(args) == 0:
				_, err := fmt.Fprintln(c.OutOrStdout(), node.NewGossipKey())
				return err
			case key, len(args) == 0:
				return usageError{fmt.Errorf("name the nodes as REGION/NODE, or ask for --gossip-key")}
			case days < 1:
				return usageError{fmt.Errorf("--days %d: a certificate is good for one day or more", days)}
			}
			var identities []transport.Identity
			for _, arg := range args {
				region, name, ok := strings.Cut(arg, "/")
				if !ok || region == "" || name == "" || strings.ContainsAny(name, "/ ") {
					return usageError{fmt.Errorf("%q is no node: name it as REGION/NODE", arg)}
				}
				identities = append(identities, transport.Identity{Cluster: cluster, Region: region, Node: name})
			}
			made, err := node.MakeCertificates(dir, days, time.Now(), identities...)
			for _, file := range made {
				fmt.Fprintln(c.OutOrStdout(), file)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "dir", "certs", "directory of the authority, and for the files")
	f.StringVar(&cluster, "cluster", "commutator", "the cluster that the certificates name; nodes of others are not heard")
	f.IntVar(&days, "days", 365, "how long the certificates are good")
	f.BoolVar(&key, "gossip-key", false, "print a random key for gossipKey instead")
	return c
}
