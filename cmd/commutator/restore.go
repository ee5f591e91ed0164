package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
)

func restoreCommand() *cobra.Command {
	var f *clientFlags
	q := admin.RestoreBackupRequest{}
	c := &cobra.Command{
		Use:   "restore --backup ID --to TABLE",
		Short: "Restore a backup into a new table",
		Long: `Restore a backup into a new table of one region. Every object's checksum is verified, and in the end
the table's items against the backup's; until then nobody sees the table, and if anything is wrong
there will be none. Replicas are added with apply, or with UpdateTable.`,
		Example: `  commutator restore --backup 20261122T101500Z-1a2b3c4d --to orders-restored
  commutator restore --backup 20261122T101500Z-1a2b3c4d --to orders --region eu-west-1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if q.BackupID == "" || q.TableName == "" {
				return usageError{errors.New("--backup and --to must be given; `commutator backup list` shows the backups")}
			}
			cl, err := f.one(c.Context())
			if err != nil {
				return err
			}
			var job admin.BackupJob
			if err := cl.operator(c.Context(), "RestoreBackup", q, &job); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "restoring %s to %s in %s from %s\n", q.BackupID, q.TableName, cl.region, job.Archive)
			if job, err = cl.await(c, job); err != nil {
				return err
			}
			return show(c, job, func(w io.Writer) {
				fmt.Fprintf(w, "%s is there in %s: %d items, verified; content hash %s, as in the backup\n", job.TableName, cl.region, job.Items, job.Content)
			})
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&q.BackupID, "backup", "", "the backup's id")
	c.Flags().StringVar(&q.TableName, "to", "", "the table to make; it must not exist")
	addOutputFlag(c)
	return c
}
