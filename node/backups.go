package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/backup/local"
	"github.com/commutatordb/commutator/backup/s3"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/table"
)

// backups runs a node's backups and restores, each a job that the operator API starts and asks after.
type backups struct {
	region  *region.Region
	archive backup.Archive
	now     func() time.Time
	tasks   task.Runtime
	logger  *slog.Logger

	mu        sync.Mutex
	jobs      map[string]*admin.BackupJob // by job id; the last maxJobs
	order     []string
	restoring map[string]int  // by table: restores under way
	running   *task.Group     // nil before Run
	ctx       context.Context // Run's
}

// maxJobs bounds the jobs remembered; those under way are never forgotten.
const maxJobs = 1000

// openArchive returns where backups go. It looks at the configuration alone.
func openArchive(cfg Config) (backup.Archive, error) {
	if c := cfg.Backup.S3; c.Endpoint != "" {
		a, err := s3.Open(s3.Config{Endpoint: c.Endpoint, Bucket: c.Bucket, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Region: c.Region})
		if err != nil {
			return nil, fmt.Errorf("node: backup: %w", err)
		}
		return a, nil
	}
	dir := cfg.Backup.Dir
	if dir == "" {
		dir = cfg.FS.PathJoin(cfg.Data, "backups")
	}
	return local.Open(dir), nil
}

func newBackups(r *region.Region, a backup.Archive, now func() time.Time, tasks task.Runtime, logger *slog.Logger) *backups {
	return &backups{region: r, archive: a, now: now, tasks: tasks, logger: logger, jobs: map[string]*admin.BackupJob{}, restoring: map[string]int{}}
}

// Run lets jobs run until ctx ends; those under way then fail.
func (b *backups) Run(ctx context.Context) error {
	g, gctx := task.NewGroup(ctx, b.tasks)
	b.mu.Lock()
	b.running, b.ctx = g, gctx
	b.mu.Unlock()
	for {
		err := b.dropUnfinished(gctx)
		if err == nil || gctx.Err() != nil {
			break
		}
		b.logger.Error("backups: a restore that was cut short could not be undone yet", "err", err)
		b.tasks.Wait(gctx, nil, retryAfter)
	}
	g.Go(func() error { b.tasks.Wait(gctx, nil, 0); return nil })
	return g.Wait()
}

// dropUnfinished deletes the tables of restores that a stop of this node has cut short. Those of other nodes may be
// under way.
func (b *backups) dropUnfinished(ctx context.Context) error {
	if err := b.region.Ready(ctx); err != nil {
		return err
	}
	defs, err := b.region.Definitions()
	if err != nil {
		return err
	}
	for _, d := range defs {
		if d.Restore == nil || !d.Restore.InProgress || d.Restore.Node != 0 && d.Restore.Node != b.region.NodeID() {
			continue
		}
		b.mu.Lock()
		restoring := b.restoring[d.Schema.Name] > 0 // begun meanwhile
		b.mu.Unlock()
		if restoring {
			continue
		}
		if err := b.drop(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// restores counts the restores under way to a table.
func (b *backups) restores(name string, by int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.restoring[name] += by; b.restoring[name] == 0 {
		delete(b.restoring, name)
	}
}

func (b *backups) drop(ctx context.Context, restored *table.Definition) error {
	_, err := b.region.Change(ctx, restored.Schema.Name, func(d *table.Definition) error {
		if d.ID != restored.ID {
			return nil // made by that name since
		}
		d.Status = table.Deleting
		return nil
	})
	if errors.Is(err, region.ErrNoTable) {
		return nil
	}
	return err
}

// start runs a job in the background and returns it as it begins.
func (b *backups) start(job *admin.BackupJob, run func(ctx context.Context, progress func(backup.Progress)) (*backup.Manifest, error)) (admin.BackupJob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil || b.ctx.Err() != nil {
		return admin.BackupJob{}, errors.New("node: the node is starting or stopping")
	}
	var random [4]byte
	rand.Read(random[:])
	job.ID = backup.NewID(b.now(), binary.BigEndian.Uint32(random[:]))
	job.Status, job.Started = admin.JobRunning, b.now().UTC()
	b.jobs[job.ID] = job
	b.order = append(b.order, job.ID)
	for i := 0; len(b.order) > maxJobs && i < len(b.order); i++ {
		if b.jobs[b.order[i]].Status != admin.JobRunning {
			delete(b.jobs, b.order[i])
			b.order = append(b.order[:i], b.order[i+1:]...)
		}
	}
	ctx := b.ctx
	b.running.Go(func() error {
		m, err := run(ctx, func(p backup.Progress) {
			b.mu.Lock()
			defer b.mu.Unlock()
			job.Items, job.Bytes, job.Chunks, job.Reused, job.TotalChunks = p.Items, p.Bytes, p.Chunks, p.Reused, p.Total
		})
		b.mu.Lock()
		defer b.mu.Unlock()
		job.Finished = b.now().UTC()
		if err != nil {
			job.Status, job.Error = admin.JobFailed, err.Error()
			return nil
		}
		job.Status, job.BackupID, job.Items, job.Content = admin.JobDone, m.ID, m.Items, m.Content
		return nil
	})
	return *job, nil
}

// Job is admin.Backups'.
func (b *backups) Job(id string) (admin.BackupJob, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	job, ok := b.jobs[id]
	if !ok {
		return admin.BackupJob{}, false
	}
	return *job, true
}

// Create is admin.Backups'.
func (b *backups) Create(ctx context.Context, name string) (admin.BackupJob, error) {
	t, err := b.region.Table(ctx, name)
	if err != nil {
		return admin.BackupJob{}, err
	}
	job := &admin.BackupJob{Kind: admin.JobBackup, TableName: name, Archive: b.archive.String()}
	return b.start(job, func(ctx context.Context, progress func(backup.Progress)) (*backup.Manifest, error) {
		return backup.Create(ctx, b.archive, tableSource{b.region, t}, job.ID, b.now, progress)
	})
}

// Restore is admin.Backups'.
func (b *backups) Restore(ctx context.Context, id, name string) (admin.BackupJob, error) {
	m, err := backup.Describe(ctx, b.archive, id)
	if err != nil {
		return admin.BackupJob{}, err
	}
	d := &table.Definition{}
	if err := json.Unmarshal(m.Definition, d); err != nil {
		return admin.BackupJob{}, fmt.Errorf("node: backup %s: definition: %w", id, err)
	}
	// A restored table is a new one of one region, as the service has it: what concerned only the old
	// one does not come along.
	d.Schema.Name, d.GlobalID, d.Version = name, "", 0
	d.Bare()
	d.Replicas, d.Stream, d.Scaling = nil, nil, nil
	d.Restore = &table.RestoreSummary{BackupID: id, SourceTable: m.Table, At: m.Started.UnixMilli(), InProgress: true, Node: b.region.NodeID()}
	for i := range d.Schema.Indexes {
		d.Schema.Indexes[i].Backfilling = false
	}
	b.restores(name, +1)
	if d, err = b.region.Create(ctx, d); err != nil {
		b.restores(name, -1)
		return admin.BackupJob{}, err
	}
	job := &admin.BackupJob{Kind: admin.JobRestore, TableName: name, BackupID: id, Archive: b.archive.String()}
	answer, err := b.start(job, func(ctx context.Context, progress func(backup.Progress)) (*backup.Manifest, error) {
		defer b.restores(name, -1)
		err := b.fill(ctx, m, name, progress)
		if err != nil {
			// Nothing of a restore that failed is to be seen.
			return nil, errors.Join(err, b.drop(context.WithoutCancel(ctx), d))
		}
		return m, nil
	})
	if err != nil {
		err = errors.Join(err, b.drop(ctx, d))
		b.restores(name, -1)
	}
	return answer, err
}

func (b *backups) fill(ctx context.Context, m *backup.Manifest, name string, progress func(backup.Progress)) error {
	changed, stop := b.region.Watch()
	defer stop()
	var t *region.Table
	for t == nil {
		var err error
		t, err = b.region.Opened(ctx, name)
		if errors.Is(err, region.ErrNotActive) {
			if b.tasks.Wait(ctx, changed, 0) == task.Ended {
				return context.Cause(ctx)
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := backup.Restore(ctx, b.archive, m, tableSink{t}, progress); err != nil {
		return err
	}
	_, err := b.region.Change(ctx, name, func(d *table.Definition) error {
		d.Restore.InProgress = false
		return nil
	})
	if err != nil {
		return err
	}
	for { // the table is ACTIVE when the job says that it is done
		if _, err := b.region.Table(ctx, name); !errors.Is(err, region.ErrNotActive) {
			return err
		}
		if b.tasks.Wait(ctx, changed, 0) == task.Ended {
			return context.Cause(ctx)
		}
	}
}

// List is admin.Backups'.
func (b *backups) List(ctx context.Context, name string) ([]*backup.Manifest, error) {
	return backup.List(ctx, b.archive, name)
}

// Describe is admin.Backups'.
func (b *backups) Describe(ctx context.Context, id string) (*backup.Manifest, error) {
	return backup.Describe(ctx, b.archive, id)
}

// tableSource is a table as a backup.Source.
type tableSource struct {
	region *region.Region
	table  *region.Table
}

func (s tableSource) Name() string   { return s.table.Schema().Name }
func (s tableSource) Region() string { return s.region.Name() }

func (s tableSource) Definition() (json.RawMessage, error) { return json.Marshal(s.table.Definition()) }

func (s tableSource) Partitions(ctx context.Context) ([]backup.Partition, error) {
	snaps, err := s.table.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]backup.Partition, len(snaps))
	for i, snap := range snaps {
		out[i] = pinned{snap}
	}
	return out, nil
}

// pinned is a partition's snapshot as a backup.Partition.
type pinned struct{ *region.Snapshot }

func (p pinned) Cut() (clock, seq uint64) { return uint64(p.State.Clock), p.State.Seq }

func (p pinned) Items(yield func([]byte, int) bool) error { return eachItem(p.Snapshot, yield) }

// eachItem calls yield with every visible item of a snapshot and its size.
func eachItem(s *region.Snapshot, yield func(stored []byte, size int) bool) error {
	var failed error
	err := s.Records(nil, func(_ table.Key, record []byte) bool {
		visible, ok, err := crdt.PeekVisible(record)
		if err == nil && ok {
			var size int
			if size, err = item.RawSize(visible); err == nil {
				return yield(visible, size)
			}
		}
		failed = err
		return err == nil
	})
	return errors.Join(err, failed)
}

// tableSink is a table as a backup.Sink.
type tableSink struct{ table *region.Table }

// restoreBytes is about how much one command of a restore carries.
const restoreBytes = 512 << 10

func (s tableSink) Write(ctx context.Context, items [][]byte) error {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && size < restoreBytes {
			size += len(items[n])
			n++
		}
		if err := s.table.Restore(ctx, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

func (s tableSink) Content(ctx context.Context) (items int64, hash backup.ContentHash, err error) {
	snaps, err := s.table.Snapshots(ctx)
	if err != nil {
		return 0, hash, err
	}
	for _, snap := range snaps {
		if err == nil {
			err = eachItem(snap, func(stored []byte, _ int) bool {
				items++
				hash.Add(stored)
				return ctx.Err() == nil
			})
		}
		err = errors.Join(err, snap.Close(), ctx.Err())
	}
	return items, hash, err
}
