package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Source is a table to back up.
type Source interface {
	Name() string
	Region() string
	Definition() (json.RawMessage, error)
	// Partitions pins every partition as it stands, all at about one moment.
	Partitions(ctx context.Context) ([]Partition, error)
}

// Partition is one partition, pinned.
type Partition interface {
	ID() uint64
	Cut() (clock, seq uint64)
	// Items calls yield with every item in key order, in stored form and its size as DynamoDB counts,
	// until it returns false.
	Items(yield func(item []byte, size int) bool) error
	Close() error
}

// Progress is how far a backup or a restore has come. It is passed on after each chunk.
type Progress struct {
	Items, Bytes   int64 // done; Bytes as DynamoDB counts them while backing up, of objects while restoring
	Chunks, Reused int   // objects done; those that the archive had already
	Total          int   // objects in all; 0 while not known
}

// Create backs a table up and returns the backup's manifest, once all of it is in the archive.
func Create(ctx context.Context, a Archive, src Source, id string, now func() time.Time, progress func(Progress)) (m *Manifest, err error) {
	m = &Manifest{Format: manifestFormat, ID: id, Table: src.Name(), Region: src.Region(), Started: now().UTC()}
	if m.Definition, err = src.Definition(); err != nil {
		return nil, fmt.Errorf("backup: %s: %w", src.Name(), err)
	}
	have := map[string]int64{} // sizes: an object cut short is written again
	if err := a.List(ctx, objectPrefix, func(name string, size int64) bool { have[name] = size; return true }); err != nil {
		return nil, fmt.Errorf("backup: %s: %w", src.Name(), err)
	}
	parts, err := src.Partitions(ctx)
	if err != nil {
		return nil, fmt.Errorf("backup: %s: %w", src.Name(), err)
	}
	defer func() {
		for _, p := range parts {
			err = errors.Join(err, p.Close())
		}
	}()
	if mutant.On(mutant.ManifestFirst) {
		writeManifest(ctx, a, m)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer encoder.Close()
	var content ContentHash
	var done Progress
	for _, p := range parts {
		pm := PartitionManifest{ID: p.ID()}
		pm.Clock, pm.Seq = p.Cut()
		var c chunker
		write := func() error {
			object, items := c.object(encoder)
			chunk := Chunk{Object: objectName(object), Size: int64(len(object)), Items: items}
			if size, ok := have[chunk.Object]; ok && size == chunk.Size {
				done.Reused++
			} else if err := a.Put(ctx, chunk.Object, object); err != nil {
				return fmt.Errorf("backup: %s: object %s: %w", m.Table, chunk.Object, err)
			}
			have[chunk.Object] = chunk.Size
			pm.Chunks = append(pm.Chunks, chunk)
			m.Stored += chunk.Size
			done.Items += int64(items)
			done.Chunks++
			done.Bytes = m.Bytes
			progress(done)
			return ctx.Err()
		}
		var failed error
		err := p.Items(func(item []byte, size int) bool {
			content.Add(item)
			m.Items++
			m.Bytes += int64(size)
			if c.add(item) {
				failed = write()
			}
			return failed == nil
		})
		if err = errors.Join(err, failed); err != nil {
			return nil, err
		}
		if c.items > 0 {
			if err := write(); err != nil {
				return nil, err
			}
		}
		m.Partitions = append(m.Partitions, pm)
	}
	m.Content, m.Finished = content.String(), now().UTC()
	if err := writeManifest(ctx, a, m); err != nil {
		return nil, fmt.Errorf("backup: %s: manifest: %w", m.Table, err)
	}
	return m, nil
}
