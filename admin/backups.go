package admin

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/region"
)

// Backups is what the operator API needs of a node's backups.
type Backups interface {
	// Create and Restore start a job and return it as it begins.
	Create(ctx context.Context, tableName string) (BackupJob, error)
	Restore(ctx context.Context, backupID, tableName string) (BackupJob, error)
	Job(id string) (BackupJob, bool)
	List(ctx context.Context, tableName string) ([]*backup.Manifest, error)
	Describe(ctx context.Context, backupID string) (*backup.Manifest, error)
}

// Kinds and states of a BackupJob.
const (
	JobBackup  = "BACKUP"
	JobRestore = "RESTORE"

	JobRunning = "RUNNING"
	JobDone    = "DONE"
	JobFailed  = "FAILED"
)

// BackupJob is a backup or a restore, under way or ended.
type BackupJob struct {
	ID          string
	Kind        string
	Status      string
	TableName   string // the table backed up, or restored into
	BackupID    string `json:",omitempty"`
	Archive     string
	Started     time.Time
	Finished    time.Time `json:",omitzero"`
	Items       int64
	Bytes       int64
	Chunks      int
	Reused      int    `json:",omitempty"` // objects that the archive had already
	TotalChunks int    `json:",omitempty"`
	Content     string `json:",omitempty"` // hash of all items, once done
	Error       string `json:",omitempty"`
}

// BackupSummary is one backup in a list.
type BackupSummary struct {
	ID        string
	TableName string
	Region    string
	Created   time.Time
	Items     int64
	Bytes     int64
	Stored    int64
}

// BackupList is the answer of ListBackups. Damaged says which manifests could not be read.
type BackupList struct {
	Backups []BackupSummary
	Damaged string `json:",omitempty"`
}

// CreateBackupRequest asks for a backup of a table; the answer is a BackupJob.
type CreateBackupRequest struct{ TableName string }

// RestoreBackupRequest asks for a new table of a backup's items; the answer is a BackupJob.
type RestoreBackupRequest struct{ BackupID, TableName string }

// DescribeJobRequest asks how a job goes; the answer is a BackupJob.
type DescribeJobRequest struct{ ID string }

// ListBackupsRequest asks for the backups of a table, or of all; the answer is a BackupList.
type ListBackupsRequest struct{ TableName string }

// DescribeBackupRequest asks for a backup's manifest.
type DescribeBackupRequest struct{ BackupID string }

func (o *Operator) createBackup(ctx context.Context, q *CreateBackupRequest) (BackupJob, error) {
	job, err := o.Backups.Create(ctx, q.TableName)
	if errors.Is(err, region.ErrNotActive) {
		err = &Error{"TableInUseException", "Table is not in the correct state to be backed up: " + q.TableName}
	}
	return job, err
}

// tableName is what a table may be called. Source: the API model.
var tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

func (o *Operator) restoreBackup(ctx context.Context, q *RestoreBackupRequest) (BackupJob, error) {
	if !tableName.MatchString(q.TableName) {
		return BackupJob{}, invalid("%q is no table's name: 3 to 255 letters, digits, _ . and -", q.TableName)
	}
	job, err := o.Backups.Restore(ctx, q.BackupID, q.TableName)
	if errors.Is(err, region.ErrExists) {
		err = &Error{"TableAlreadyExistsException", "Table already exists: " + q.TableName}
	}
	return job, backupError(err)
}

func backupError(err error) error {
	var corrupt *backup.CorruptError
	switch {
	case errors.Is(err, backup.ErrNotFound):
		return &Error{"BackupNotFoundException", err.Error()}
	case errors.As(err, &corrupt):
		return &Error{"ValidationException", err.Error()}
	}
	return err
}

func (o *Operator) describeJob(_ context.Context, q *DescribeJobRequest) (BackupJob, error) {
	job, ok := o.Backups.Job(q.ID)
	if !ok {
		return job, &Error{"ResourceNotFoundException", "no job " + q.ID + " on this node since its start"}
	}
	return job, nil
}

func (o *Operator) listBackups(ctx context.Context, q *ListBackupsRequest) (*BackupList, error) {
	manifests, err := o.Backups.List(ctx, q.TableName)
	if err != nil && manifests == nil {
		return nil, backupError(err)
	}
	list := &BackupList{Backups: []BackupSummary{}}
	if err != nil {
		list.Damaged = err.Error()
	}
	for _, m := range manifests {
		list.Backups = append(list.Backups, BackupSummary{m.ID, m.Table, m.Region, m.Started, m.Items, m.Bytes, m.Stored})
	}
	return list, nil
}

func (o *Operator) describeBackup(ctx context.Context, q *DescribeBackupRequest) (*backup.Manifest, error) {
	m, err := o.Backups.Describe(ctx, q.BackupID)
	return m, backupError(err)
}
