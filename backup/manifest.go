package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Layout of an archive:
//
//	objects/SHA256                a chunk (chunk.go), named by the hash of its bytes; shared by backups
//	backups/ID/manifest.json      a backup: {"sha256": of the manifest's bytes, "manifest": Manifest}
const (
	objectPrefix   = "objects/"
	backupPrefix   = "backups/"
	manifestName   = "manifest.json"
	manifestFormat = 1
	maxManifest    = 256 << 20
)

// Manifest describes one backup of one table.
type Manifest struct {
	Format     int // manifestFormat
	ID         string
	Table      string          // its name
	Region     string          // whose copy it is
	Definition json.RawMessage // table.Definition
	Started    time.Time       // the cut: the backup shows the table as it was at a moment behind it
	Finished   time.Time
	Partitions []PartitionManifest
	Items      int64
	Bytes      int64  // of the items, as DynamoDB counts them
	Stored     int64  // of the objects, those shared with other backups among them
	Content    string // ContentHash of all items, hexadecimal
}

// PartitionManifest is one partition's part of a backup.
type PartitionManifest struct {
	ID     uint64
	Clock  uint64 // HLC of the partition at its cut
	Seq    uint64 // of its change log at the cut
	Chunks []Chunk
}

// Chunk is one object of a backup: a run of items in key order.
type Chunk struct {
	Object string // its name in the archive
	Size   int64  // of the object, bytes
	Items  int
}

type envelope struct {
	SHA256   string          `json:"sha256"`
	Manifest json.RawMessage `json:"manifest"`
}

func manifestObject(id string) string { return path.Join(backupPrefix, id, manifestName) }

func writeManifest(ctx context.Context, a Archive, m *Manifest) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	e, err := json.Marshal(envelope{hex.EncodeToString(sum[:]), b})
	if err != nil {
		return err
	}
	return a.Put(ctx, manifestObject(m.ID), e)
}

// Describe reads a backup's manifest. It returns ErrNotFound, or a *CorruptError.
func Describe(ctx context.Context, a Archive, id string) (*Manifest, error) {
	if !validID(id) {
		return nil, fmt.Errorf("%w: %q is no backup's id", ErrNotFound, id)
	}
	name := manifestObject(id)
	b, err := a.Get(ctx, name, maxManifest)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("%w: backup %s in %s", ErrNotFound, id, a)
		}
		return nil, err
	}
	corrupt := func(reason string) error { return &CorruptError{a.String(), name, reason} }
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, corrupt(err.Error())
	}
	if sum := sha256.Sum256(e.Manifest); hex.EncodeToString(sum[:]) != e.SHA256 {
		return nil, corrupt("its checksum is wrong")
	}
	m := &Manifest{}
	if err := json.Unmarshal(e.Manifest, m); err != nil {
		return nil, corrupt(err.Error())
	}
	if m.Format != manifestFormat {
		return nil, fmt.Errorf("backup: %s has format %d; this version reads %d", id, m.Format, manifestFormat)
	}
	if m.ID != id {
		return nil, corrupt("it is the manifest of backup " + m.ID)
	}
	return m, nil
}

// validID tells whether id can be a backup's: what NewID makes.
func validID(id string) bool {
	return id != "" && len(id) < 100 && !strings.ContainsFunc(id, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
	})
}

// NewID returns the id of a backup begun at a time: ids sort by it. random tells apart those of one
// second.
func NewID(at time.Time, random uint32) string {
	return fmt.Sprintf("%s-%08x", at.UTC().Format("20060102T150405Z"), random)
}

// List returns the manifests of all backups in the archive, or of one table's (name not ""), from the
// oldest on. Manifests that cannot be read are in the error; the others are returned all the same.
func List(ctx context.Context, a Archive, table string) ([]*Manifest, error) {
	var ids []string
	err := a.List(ctx, backupPrefix, func(name string, _ int64) bool {
		if dir, file := path.Split(name); file == manifestName {
			ids = append(ids, path.Base(dir))
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	var out []*Manifest
	var errs []error
	for _, id := range ids {
		m, err := Describe(ctx, a, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if table == "" || m.Table == table {
			out = append(out, m)
		}
	}
	return out, errors.Join(errs...)
}
