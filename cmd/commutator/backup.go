package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/backup"
)

func backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup",
		Short: "Back tables up, and see what backups there are",
		Long: `Back tables up to the archive of a node's configuration (an S3-compatible bucket or a directory),
and see what backups are in it. Objects that an earlier backup has written are not written again.`,
		Example: `  commutator backup create --table orders
  commutator backup list`,
	}
	c.AddCommand(backupCreateCommand(), backupListCommand(), backupDescribeCommand())
	return c
}

func backupCreateCommand() *cobra.Command {
	var f *clientFlags
	var name string
	c := &cobra.Command{
		Use:   "create --table TABLE",
		Short: "Back a table up",
		Long:  "Back a table up as it is in one region at this moment. Prints the backup's id; progress goes to stderr.",
		Example: `  commutator backup create --table orders
  id=$(commutator backup create --table orders --region eu-west-1)`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if name == "" {
				return usageError{errors.New("--table is not given")}
			}
			cl, err := f.one(c.Context())
			if err != nil {
				return err
			}
			var job admin.BackupJob
			if err := cl.operator(c.Context(), "CreateBackup", admin.CreateBackupRequest{TableName: name}, &job); err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			fmt.Fprintf(c.ErrOrStderr(), "backing up %s of %s to %s\n", name, cl.region, job.Archive)
			if job, err = cl.await(c, job); err != nil {
				return err
			}
			return show(c, job, func(w io.Writer) { fmt.Fprintln(w, job.BackupID) })
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&name, "table", "", "the table to back up")
	addOutputFlag(c)
	return c
}

// await shows a job's progress on stderr until it has ended.
func (c *client) await(cmd *cobra.Command, job admin.BackupJob) (admin.BackupJob, error) {
	id, verb := job.ID, strings.ToLower(job.Kind)
	said := time.Now()
	err := poll(cmd.Context(), func(ctx context.Context) (bool, error) {
		if err := c.operator(ctx, "DescribeJob", admin.DescribeJobRequest{ID: id}, &job); err != nil {
			return false, err
		}
		if job.Status == admin.JobRunning {
			if time.Since(said) >= time.Second {
				said = time.Now()
				fmt.Fprintln(cmd.ErrOrStderr(), progress(job))
			}
			return false, nil
		}
		if job.Status == admin.JobDone {
			fmt.Fprintln(cmd.ErrOrStderr(), progress(job))
		}
		return true, nil
	})
	switch {
	case err != nil && cmd.Context().Err() != nil:
		return job, fmt.Errorf("%s job %s goes on in %s without being watched", verb, id, c.region)
	case err != nil:
		return job, fmt.Errorf("%s job %s: %w", verb, id, err)
	case job.Status != admin.JobDone:
		return job, fmt.Errorf("%s: the %s failed: %s", c.region, verb, job.Error)
	}
	return job, nil
}

// progress says how far a job is.
func progress(j admin.BackupJob) string {
	objects := fmt.Sprintf("%d new, %d reused", j.Chunks-j.Reused, j.Reused)
	if j.Kind == admin.JobRestore {
		objects = fmt.Sprintf("%d of %d", j.Chunks, j.TotalChunks)
	}
	return fmt.Sprintf("  items: %d, bytes: %s, objects: %s", j.Items, humanBytes(j.Bytes), objects)
}

func humanBytes(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n), "KMGTPE"
	for f /= 1 << 10; f >= 1<<10 && len(units) > 1; f /= 1 << 10 {
		units = units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}

func backupListCommand() *cobra.Command {
	var f *clientFlags
	q := admin.ListBackupsRequest{}
	c := &cobra.Command{
		Use:   "list",
		Short: "List backups, oldest first",
		Long:  "List the backups in the archives of all regions, oldest first.",
		Example: `  commutator backup list
  commutator backup list --table orders -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			lists, failed := askAll[admin.BackupList](c.Context(), f, "ListBackups", q)
			if lists == nil {
				return failed
			}
			found, damaged := []admin.BackupSummary{}, []string{}
			for _, l := range lists { // regions may share an archive
				for _, b := range l.Backups {
					if !slices.ContainsFunc(found, func(o admin.BackupSummary) bool { return o.ID == b.ID }) {
						found = append(found, b)
					}
				}
				if l.Damaged != "" && !slices.Contains(damaged, l.Damaged) {
					damaged = append(damaged, l.Damaged)
					failed = errors.Join(failed, errors.New(l.Damaged))
				}
			}
			slices.SortFunc(found, func(a, b admin.BackupSummary) int { return strings.Compare(a.ID, b.ID) })
			return errors.Join(show(c, found, func(w io.Writer) {
				if len(found) == 0 {
					fmt.Fprintln(w, "no backups")
					return
				}
				fmt.Fprintln(w, "BACKUP\tTABLE\tREGION\tCREATED\tITEMS\tBYTES\tSTORED")
				for _, b := range found {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", b.ID, b.TableName, b.Region, b.Created.UTC().Format(time.RFC3339), b.Items, humanBytes(b.Bytes), humanBytes(b.Stored))
				}
			}), failed)
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&q.TableName, "table", "", "only those of this table")
	addOutputFlag(c)
	return c
}

func backupDescribeCommand() *cobra.Command {
	var f *clientFlags
	var id string
	c := &cobra.Command{
		Use:   "describe ID",
		Short: "Show one backup",
		Example: `  commutator backup describe 20261122T101500Z-1a2b3c4d
  commutator backup describe --backup 20261122T101500Z-1a2b3c4d -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := oneID(id, args)
			if err != nil {
				return err
			}
			m, err := f.describeBackup(c.Context(), id)
			if err != nil {
				return err
			}
			return show(c, m, func(w io.Writer) { backupRows(w, m) })
		},
	}
	f = addClientFlags(c)
	c.Flags().StringVar(&id, "backup", "", "the backup's id")
	addOutputFlag(c)
	return c
}

// oneID takes a backup's id from the flag or the argument.
func oneID(flag string, args []string) (string, error) {
	if len(args) == 1 && flag == "" {
		return args[0], nil
	}
	if len(args) == 1 || flag == "" {
		return "", usageError{errors.New("give one backup's id; `commutator backup list` shows them")}
	}
	return flag, nil
}

// describeBackup asks the regions for a backup's manifest, until one has it.
func (f *clientFlags) describeBackup(ctx context.Context, id string) (*backup.Manifest, error) {
	up, down, err := f.connect(ctx)
	if err != nil {
		return nil, err
	}
	var first error
	for _, c := range up {
		m := &backup.Manifest{}
		if err = c.operator(ctx, "DescribeBackup", admin.DescribeBackupRequest{BackupID: id}, m); err == nil {
			return m, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, errors.Join(first, down)
}

func backupRows(w io.Writer, m *backup.Manifest) {
	objects := 0
	for _, p := range m.Partitions {
		objects += len(p.Chunks)
	}
	for _, row := range [][2]string{
		{"backup", m.ID}, {"table", m.Table}, {"region", m.Region},
		{"as of", m.Started.UTC().Format(time.RFC3339Nano)}, {"took", m.Finished.Sub(m.Started).Round(time.Millisecond).String()},
		{"items", fmt.Sprint(m.Items)}, {"bytes", humanBytes(m.Bytes)}, {"stored", humanBytes(m.Stored)},
		{"partitions", fmt.Sprint(len(m.Partitions))}, {"objects", fmt.Sprint(objects)}, {"content", m.Content},
	} {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
}
