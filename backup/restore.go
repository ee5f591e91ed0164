package backup

import (
	"context"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/commutatordb/commutator/internal/mutant"
)

// Sink is a table to restore into: new, and hidden from clients until the restore is done.
type Sink interface {
	// Write makes items, in stored form, durable before it returns.
	Write(ctx context.Context, items [][]byte) error
	// Content returns how many items the table has, and their ContentHash.
	Content(ctx context.Context) (items int64, hash ContentHash, err error)
}

// chunks returns every chunk of the backup, in order.
func (m *Manifest) chunks() []Chunk {
	var out []Chunk
	for _, p := range m.Partitions {
		out = append(out, p.Chunks...)
		if mutant.On(mutant.LastChunkDropped) {
			out = out[:max(0, len(out)-1)]
		}
	}
	return out
}

// Check looks, without reading them, whether all objects of a backup are there in the right size. It
// returns a *CorruptError that names the first one that is not.
func Check(ctx context.Context, a Archive, m *Manifest) error {
	sizes := map[string]int64{}
	if err := a.List(ctx, objectPrefix, func(name string, size int64) bool { sizes[name] = size; return true }); err != nil {
		return fmt.Errorf("backup: %s: %w", m.ID, err)
	}
	for _, c := range m.chunks() {
		size, ok := sizes[c.Object]
		if !ok {
			return &CorruptError{a.String(), c.Object, "it is missing"}
		}
		if size != c.Size {
			return &CorruptError{a.String(), c.Object, fmt.Sprintf("it has %d bytes, and had %d", size, c.Size)}
		}
	}
	return nil
}

// Read reads every item of a backup, in chunks, checking all that can be checked: sizes, checksums,
// counts, and in the end the content hash. It returns a *CorruptError that names the object at fault.
func Read(ctx context.Context, a Archive, m *Manifest, progress func(Progress), yield func(items [][]byte) error) error {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxObject))
	if err != nil {
		return err
	}
	defer decoder.Close()
	chunks := m.chunks()
	done := Progress{Total: len(chunks)}
	var content ContentHash
	for _, c := range chunks {
		items, err := readChunk(ctx, a, c, decoder)
		if err != nil {
			return err
		}
		for _, item := range items {
			content.Add(item)
		}
		if err := yield(items); err != nil {
			return err
		}
		done.Items += int64(len(items))
		done.Bytes += c.Size
		done.Chunks++
		progress(done)
	}
	if done.Items != m.Items || content.String() != m.Content {
		return &CorruptError{a.String(), manifestObject(m.ID), fmt.Sprintf("it promises %d items with content %s, its objects hold %d with %s", m.Items, m.Content, done.Items, content)}
	}
	return nil
}

// Restore writes a backup's items into a table and proves that it then holds exactly them.
func Restore(ctx context.Context, a Archive, m *Manifest, sink Sink, progress func(Progress)) error {
	if err := Check(ctx, a, m); err != nil {
		return err
	}
	err := Read(ctx, a, m, progress, func(items [][]byte) error { return sink.Write(ctx, items) })
	if err != nil {
		return err
	}
	items, content, err := sink.Content(ctx)
	if err != nil {
		return err
	}
	if items != m.Items || content.String() != m.Content {
		return fmt.Errorf("backup: %s: the restored table holds %d items with content %s, not the backup's %d with %s", m.ID, items, content, m.Items, m.Content)
	}
	return nil
}
