package raftlog

import (
	"errors"
	"fmt"
)

// ErrCorrupt matches, with errors.Is, every *CorruptError.
var ErrCorrupt = errors.New("raftlog: corrupt")

// ErrClosed is returned by calls on a Log after Close.
var ErrClosed = errors.New("raftlog: closed")

// ErrTooLarge is returned by Commit for a batch of more than maxFrameBytes. Nothing was written.
var ErrTooLarge = errors.New("raftlog: batch too large")

// CorruptError says where acknowledged bytes are no longer what was written. The node must not vote or acknowledge
// with this log: its replicas are to be rebuilt from peers, or the directory restored.
type CorruptError struct {
	File   string // name within the directory
	Offset int64  // bytes from the start of the file
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("raftlog: corrupt: %s at offset %d: %s", e.File, e.Offset, e.Reason)
}

func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }
