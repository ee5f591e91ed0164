// Package local is a backup archive in a directory.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/commutatordb/commutator/backup"
)

// Archive keeps objects as files below a directory.
type Archive struct{ dir string }

var _ backup.Archive = (*Archive)(nil)

// Open returns the archive in a directory, which is made with the first object.
func Open(dir string) *Archive { return &Archive{dir} }

// String is backup.Archive's.
func (a *Archive) String() string { return a.dir }

func (a *Archive) path(name string) (string, error) {
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return "", fmt.Errorf("local: %q is no object's name", name)
	}
	return filepath.Join(a.dir, filepath.FromSlash(name)), nil
}

// Put is backup.Archive's: the object is synced under another name first, so that a crash never leaves a
// part of it.
func (a *Archive) Put(_ context.Context, name string, data []byte) error {
	path, err := a.path(name)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Get is backup.Archive's.
func (a *Archive) Get(_ context.Context, name string, limit int64) ([]byte, error) {
	path, err := a.path(name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backup.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("local: %s has %d bytes, more than %d", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}

// List is backup.Archive's.
func (a *Archive) List(ctx context.Context, prefix string, yield func(string, int64) bool) error {
	err := filepath.WalkDir(a.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.IsDir() || strings.HasPrefix(e.Name(), ".tmp-") {
			return nil
		}
		rel, err := filepath.Rel(a.dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !yield(name, info.Size()) {
			return fs.SkipAll
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Delete is backup.Archive's.
func (a *Archive) Delete(_ context.Context, name string) error {
	path, err := a.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
