// Package backup owns how a table goes to an archive and comes back: the layout of the archive, the
// manifest, checksums, progress. It leaves where objects lie to its archives (backup/s3, backup/local),
// and reading and writing items to whoever implements Source and Sink: it knows neither region nor
// storage.
//
// Invariants: an object's name is the SHA-256 of its bytes, and both are checked whenever it is read; a
// manifest is written last, so that what has no manifest is no backup; nothing that a manifest names is
// ever written over.
package backup

import (
	"context"
	"errors"
	"fmt"
)

// Archive keeps named objects. Names are made of letters, digits and ./_- ; they are prefixes of no
// other. Its methods are safe for concurrent use.
type Archive interface {
	// Put writes an object whole. Once it has returned, the object is durable. Writing an object that
	// exists already replaces it.
	Put(ctx context.Context, name string, data []byte) error
	// Get reads an object whole. It returns ErrNotFound, or an error when the object is larger than limit.
	Get(ctx context.Context, name string, limit int64) ([]byte, error)
	// List calls yield with the name and size of every object whose name begins with prefix, in order
	// of their names, until it returns false.
	List(ctx context.Context, prefix string, yield func(name string, size int64) bool) error
	// Delete removes an object; one that does not exist is no error.
	Delete(ctx context.Context, name string) error
	// String names the archive for people, without secrets.
	String() string
}

// ErrNotFound says that an archive has no object, or no backup, of a name.
var ErrNotFound = errors.New("backup: not found in the archive")

// CorruptError says that an object is not what was written, or is missing.
type CorruptError struct {
	Archive string
	Object  string
	Reason  string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("backup: object %s in %s is corrupt: %s", e.Object, e.Archive, e.Reason)
}
