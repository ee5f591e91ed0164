package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/commutatordb/commutator/admin"
)

func verifyCommand() *cobra.Command {
	var f *clientFlags
	q := admin.VerifyRequest{}
	limit := 0
	c := &cobra.Command{
		Use:   "verify [TABLE]",
		Short: "Prove that regions have the same items, or list those that differ",
		Long: `Have every region hold its copy of a table, or of every global table, against each other region's: has
it all that the other has, and does it show the same? Reads and writes go on meanwhile: what is still on
its way is waited for. Digests of ranges of keys are compared first, and what differs is then looked at
key by key; --deep compares every item whole, byte by byte, which takes the whole table over the wire.

An item may be BEHIND (writes, a delete or the whole item are missing here, and --repair merges them in),
GONE (there is none here; the other's is older than the traces that are kept of deletes, some 30 days, so
either it was lost here or its delete was lost there) or UNLIKE (both have seen the same writes, show
something else, and would not be alike if they were merged). Merging cannot tell who is right about the
last two. If you know that nothing of it was deleted, --bring-back takes what is GONE from the others.
Otherwise write the item again, or delete it, in the region that is right.

The exit code is 1 if anything is different, or could not be settled, or not every region was asked.`,
		Example: `  commutator verify
  commutator verify orders --deep
  commutator verify orders --repair -o json
  commutator verify orders --repair --bring-back --region eu-west-1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if limit < 0 {
				return usageError{fmt.Errorf("--limit %d is less than 0", limit)}
			}
			if len(args) == 1 {
				q.TableName = args[0]
			}
			clients, failed, err := f.connect(c.Context())
			if err != nil {
				return err
			}
			found, err := verifyAll(c, clients, q)
			if found == nil {
				return errors.Join(err, failed)
			}
			failed = errors.Join(failed, err)
			if f.region == "" {
				failed = errors.Join(failed, notAsked(found))
			}
			return errors.Join(show(c, found, func(w io.Writer) { verifiedRows(w, found, limit) }), failed, unequal(found))
		},
	}
	f = addClientFlags(c)
	c.Flags().BoolVar(&q.Deep, "deep", false, "compare every item whole")
	c.Flags().BoolVar(&q.Repair, "repair", false, "merge what a region lacks")
	c.Flags().BoolVar(&q.BringBack, "bring-back", false, "merge what is GONE from a region, too: it was lost there, and not deleted")
	c.Flags().IntVar(&limit, "limit", 20, "how many keys of each row to show, at most")
	addOutputFlag(c)
	return c
}

// verifyAll has all regions verify at once. Of a region's nodes the one that does so answers. It returns nil when no region
// has found out anything.
func verifyAll(c *cobra.Command, clients []*client, q admin.VerifyRequest) ([]admin.Verified, error) {
	by := map[string][]*client{}
	var order []string
	for _, cl := range clients {
		if by[cl.region] == nil {
			order = append(order, cl.region)
		}
		by[cl.region] = append(by[cl.region], cl)
	}
	jobs, errs, without := make([]admin.VerifyJob, len(order)), make([]error, len(order)), make([]error, len(order))
	said := &progressWriter{w: c.ErrOrStderr()}
	var g errgroup.Group
	for i, region := range order {
		g.Go(func() error {
			for _, cl := range by[region] {
				jobs[i], errs[i] = cl.verify(c, q, said)
				if code := codeOf(errs[i]); code == "ResourceNotFoundException" {
					without[i], errs[i] = errs[i], nil // the table may be in other regions
				} else if code == "NotLeaderException" {
					continue
				}
				break
			}
			return nil
		})
	}
	g.Wait()
	var found []admin.Verified
	missing := 0
	for i := range jobs {
		if without[i] != nil {
			missing++
		} else if errs[i] == nil {
			found = append(found, jobs[i].Results...)
			if found == nil {
				found = []admin.Verified{} // asked, and nothing to compare
			}
		}
	}
	if missing == len(order) {
		return nil, errors.Join(without...)
	}
	slices.SortStableFunc(found, func(a, b admin.Verified) int { return strings.Compare(a.TableName, b.TableName) })
	return found, errors.Join(errs...)
}

func codeOf(err error) string {
	if e := (*operatorError)(nil); errors.As(err, &e) {
		return e.code
	}
	return ""
}

// progressWriter writes lines that come from several at a time.
type progressWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *progressWriter) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// verify runs a job to its end, and says now and then how far it is.
func (cl *client) verify(c *cobra.Command, q admin.VerifyRequest, said *progressWriter) (admin.VerifyJob, error) {
	var job admin.VerifyJob
	if err := cl.operator(c.Context(), "Verify", q, &job); err != nil {
		return job, err
	}
	id, last := job.ID, time.Now()
	for first := true; job.Status == admin.JobRunning || first; first = false {
		err := poll(c.Context(), func(ctx context.Context) (bool, error) {
			job = admin.VerifyJob{}
			err := cl.operator(ctx, "DescribeVerify", admin.DescribeVerifyRequest{ID: id}, &job)
			return job.Status != admin.JobRunning || time.Since(last) >= 2*time.Second, err
		})
		if err != nil {
			return job, fmt.Errorf("job %s: %w", id, err)
		}
		if n := len(job.Results); job.Status == admin.JobRunning && n > 0 {
			r := job.Results[n-1]
			said.line("%s: %s against %s: %d items, %d different", cl.region, r.TableName, r.Peer, r.Items, r.Different)
		}
		last = time.Now()
	}
	if job.Status != admin.JobDone {
		return job, fmt.Errorf("%s: the comparison was broken off: %s", cl.region, job.Error)
	}
	return job, nil
}

// notAsked names the regions whose copies others were held against, and that were not asked what they lack themselves.
func notAsked(found []admin.Verified) error {
	type asked struct{ table, region string }
	by := map[asked]bool{}
	for _, r := range found {
		by[asked{r.TableName, r.Region}] = true
	}
	var errs []error
	for _, r := range found {
		if k := (asked{r.TableName, r.Peer}); !by[k] {
			by[k] = true
			errs = append(errs, fmt.Errorf("%s was not asked what it lacks of %s: give its endpoint too", k.region, k.table))
		}
	}
	return errors.Join(errs...)
}

// unequal is an error if copies are, or may be, different.
func unequal(found []admin.Verified) error {
	different, unsettled := 0, 0
	var errs []error
	for _, r := range found {
		different += r.Different - r.Repaired
		unsettled += r.Unsettled
		if r.Error != "" {
			errs = append(errs, fmt.Errorf("%s could not compare %s with %s: %s", r.Region, r.TableName, r.Peer, r.Error))
		}
	}
	if different > 0 {
		errs = append(errs, fmt.Errorf("%d items are different", different))
	}
	if unsettled > 0 {
		errs = append(errs, fmt.Errorf("%d items kept changing and may be different: run it again", unsettled))
	}
	return errors.Join(errs...)
}

func verifiedRows(w io.Writer, found []admin.Verified, limit int) {
	if len(found) == 0 {
		fmt.Fprintln(w, "no table has replicas in several regions")
		return
	}
	fmt.Fprintln(w, "TABLE\tREGION\tPEER\tITEMS\tLEAVES\tDIFFERENT\tUNSETTLED\tREPAIRED\tAS OF")
	for _, r := range found {
		asOf := r.AsOf.UTC().Format("2006-01-02T15:04:05.000Z")
		if r.Error != "" {
			asOf = "not compared"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", r.TableName, r.Region, r.Peer, r.Items, r.Leaves, r.Different, r.Unsettled, r.Repaired, asOf)
	}
	header := "\nTABLE\tREGION\tPEER\tKEY\tIS\tNEWEST WRITE HERE\tTHERE"
	for _, r := range found {
		for _, k := range r.Keys[:min(len(r.Keys), limit)] {
			if header != "" {
				fmt.Fprintln(w, header)
				header = ""
			}
			is := string(k.Reason)
			if k.Repaired {
				is += ", repaired"
			}
			here := k.Here
			if here == "" {
				here = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.TableName, r.Region, r.Peer, cell(plainAttributes(k.Key)), is, here, k.There)
		}
	}
}
