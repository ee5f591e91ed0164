package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/replication"
)

const (
	verifyEvery = time.Hour
	// verifyRate is how many bytes of items a second a pass in the background reads, here and at the peer: live traffic goes first.
	verifyRate = 8 << 20
	maxChecks  = 100 // jobs remembered; those under way are never forgotten
	maxRunning = 4   // jobs under way
)

// verifier remembers what came of holding copies of tables against those of other regions: of passes in the background, and
// of jobs that operators have asked for.
type verifier struct {
	every time.Duration // between two passes of one table against one peer

	mu    sync.Mutex
	kept  map[[2]string]*passes // by table and peer
	jobs  map[string]*admin.VerifyJob
	order []string // of jobs, by age
	begun int      // jobs
}

// passes are those of one table against one peer, since the start.
type passes struct {
	completed, different, repaired, unsettled int64
	last                                      int64 // when one was last completed, s since the Unix epoch; 0 for never
}

func newVerifier() *verifier {
	return &verifier{kept: map[[2]string]*passes{}, jobs: map[string]*admin.VerifyJob{}}
}

// took takes note of a pass that was completed.
func (v *verifier) took(found admin.Verified, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := [2]string{found.TableName, found.Peer}
	p := v.kept[k]
	if p == nil {
		p = &passes{}
		v.kept[k] = p
	}
	p.completed++
	p.last = at.Unix()
	p.different += int64(found.Different)
	p.repaired += int64(found.Repaired)
	p.unsettled += int64(found.Unsettled)
}

func (v *verifier) differences() (n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.kept {
		n += p.different
	}
	return n
}

// verifyAll holds the tables against the peers' in turn, spread over the time, and repairs what merging repairs.
func (r *replicator) verifyAll(ctx context.Context) error {
	pace := func(ctx context.Context, bytes uint64) error {
		if r.tasks.Wait(ctx, nil, max(time.Duration(bytes)*time.Second/verifyRate, 1)) == task.Ended {
			return context.Cause(ctx)
		}
		return nil
	}
	var last *pair
	for {
		all, _ := r.pairs("")
		if r.tasks.Wait(ctx, nil, r.verify.every/time.Duration(max(len(all), 1))) == task.Ended {
			return nil
		}
		all, _ = r.pairs("")
		if len(all) == 0 {
			continue
		}
		next := all[0]
		if last != nil {
			if i := slices.IndexFunc(all, func(p pair) bool { return p.compare(*last) > 0 }); i >= 0 {
				next = all[i]
			}
		}
		last = &next
		r.judged(ctx, r.compare(ctx, next, admin.VerifyRequest{Repair: true}, pace, nil))
	}
}

// judged takes note of what a comparison has found, and says it aloud if that is a difference.
func (r *replicator) judged(ctx context.Context, found admin.Verified) {
	if found.Error != "" {
		if ctx.Err() == nil {
			r.logger.Info("verify: a table could not be compared", "table", found.TableName, "peer", found.Peer, "err", found.Error)
		}
		return
	}
	r.verify.took(found, r.now())
	if found.Different > 0 {
		r.logger.Error("verify: THIS REGION'S COPY OF A TABLE IS NOT WHAT ANOTHER'S IS; `commutator verify` lists the items, the runbook \"Regions differ\" says what to do",
			"table", found.TableName, "peer", found.Peer, "different", found.Different, "repaired", found.Repaired)
	} else if found.Unsettled > 0 {
		r.logger.Warn("verify: some items kept changing and could not be compared", "table", found.TableName, "peer", found.Peer, "items", found.Unsettled)
	}
}

// Verify is admin.Verifier's.
func (r *replicator) Verify(ctx context.Context, q admin.VerifyRequest) (admin.VerifyJob, error) {
	if _, err := r.current(ctx); err != nil {
		return admin.VerifyJob{}, admin.ErrElsewhere
	}
	if q.TableName != "" {
		if _, err := r.region.Definition(q.TableName); err != nil {
			return admin.VerifyJob{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term == 0 {
		return admin.VerifyJob{}, admin.ErrElsewhere
	}
	began := r.now().UTC()
	v := r.verify
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running() >= maxRunning {
		return admin.VerifyJob{}, &admin.Error{Code: "LimitExceededException", Message: fmt.Sprintf("%d comparisons are under way in this region", maxRunning)}
	}
	v.begun++
	job := &admin.VerifyJob{ID: fmt.Sprintf("%s-%d", began.Format("20060102T150405Z"), v.begun), Status: admin.JobRunning, Region: r.self, Started: began, Results: []admin.Verified{}}
	v.jobs[job.ID] = job
	v.order = append(v.order, job.ID)
	for i := 0; len(v.order) > maxChecks && i < len(v.order); {
		if v.jobs[v.order[i]].Status == admin.JobRunning {
			i++
			continue
		}
		delete(v.jobs, v.order[i])
		v.order = slices.Delete(v.order, i, i+1)
	}
	rctx := r.ctx
	r.running.Go(func() error {
		r.carryOut(rctx, job, q)
		return nil
	})
	return copyOf(job), nil
}

// running counts the jobs under way. v.mu is held.
func (v *verifier) running() (n int) {
	for _, j := range v.jobs {
		if j.Status == admin.JobRunning {
			n++
		}
	}
	return n
}

// carryOut does a job.
func (r *replicator) carryOut(ctx context.Context, job *admin.VerifyJob, q admin.VerifyRequest) {
	v := r.verify
	pairs, refused := r.pairs(q.TableName)
	for _, p := range pairs {
		at := -1
		tell := func(found admin.Verified) {
			v.mu.Lock()
			defer v.mu.Unlock()
			if at < 0 {
				at = len(job.Results)
				job.Results = append(job.Results, found)
			}
			found.Keys = slices.Clone(found.Keys) // they may yet be repaired
			job.Results[at] = found
		}
		found := r.compare(ctx, p, q, nil, tell)
		tell(found)
		if ctx.Err() != nil {
			break
		}
		r.judged(ctx, found)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	job.Results = append(job.Results, refused...)
	job.Finished, job.Status = r.now().UTC(), admin.JobDone
	if ctx.Err() != nil {
		job.Status, job.Error = admin.JobFailed, replication.ErrNotLeader.Error()
	}
}

// VerifyJob is admin.Verifier's.
func (r *replicator) VerifyJob(id string) (admin.VerifyJob, error) {
	v := r.verify
	v.mu.Lock()
	defer v.mu.Unlock()
	job, ok := v.jobs[id]
	switch {
	case ok:
		return copyOf(job), nil
	case r.region.Leads():
		return admin.VerifyJob{}, admin.NoVerifyJob(id)
	}
	return admin.VerifyJob{}, admin.ErrElsewhere
}

func copyOf(j *admin.VerifyJob) admin.VerifyJob {
	out := *j
	out.Results = slices.Clone(j.Results)
	return out
}

var (
	verifyPassesDesc    = prometheus.NewDesc("commutator_verify_passes_total", "Times that a table was held against another region's copy, to the end, since the start.", []string{"table", "peer"}, nil)
	verifyDifferentDesc = prometheus.NewDesc("commutator_verify_different_total", "Items found different from another region's copy, since the start.", []string{"table", "peer"}, nil)
	verifyRepairedDesc  = prometheus.NewDesc("commutator_verify_repaired_total", "Items of those that were repaired, since the start.", []string{"table", "peer"}, nil)
	verifyUnsettledDesc = prometheus.NewDesc("commutator_verify_unsettled_total", "Items that kept changing while they were compared, since the start.", []string{"table", "peer"}, nil)
	verifyLastDesc      = prometheus.NewDesc("commutator_verify_completed_timestamp_seconds", "When a table was last held against another region's copy to the end.", []string{"table", "peer"}, nil)
)

// Describe is prometheus.Collector's.
func (v *verifier) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{verifyPassesDesc, verifyDifferentDesc, verifyRepairedDesc, verifyUnsettledDesc, verifyLastDesc} {
		descs <- d
	}
}

// Collect is prometheus.Collector's.
func (v *verifier) Collect(metrics chan<- prometheus.Metric) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for k, p := range v.kept {
		metrics <- prometheus.MustNewConstMetric(verifyPassesDesc, prometheus.CounterValue, float64(p.completed), k[0], k[1])
		metrics <- prometheus.MustNewConstMetric(verifyDifferentDesc, prometheus.CounterValue, float64(p.different), k[0], k[1])
		metrics <- prometheus.MustNewConstMetric(verifyRepairedDesc, prometheus.CounterValue, float64(p.repaired), k[0], k[1])
		metrics <- prometheus.MustNewConstMetric(verifyUnsettledDesc, prometheus.CounterValue, float64(p.unsettled), k[0], k[1])
		metrics <- prometheus.MustNewConstMetric(verifyLastDesc, prometheus.GaugeValue, float64(p.last), k[0], k[1])
	}
}
