package archivetest

import "github.com/commutatordb/commutator/backup"

// Partition is a backup.Partition that holds its items, in stored form.
type Partition struct {
	Number uint64
	Stored [][]byte
}

var _ backup.Partition = Partition{}

// ID is backup.Partition's.
func (p Partition) ID() uint64 { return p.Number }

// Cut is backup.Partition's.
func (p Partition) Cut() (clock, seq uint64) { return 7, 8 }

// Close is backup.Partition's.
func (p Partition) Close() error { return nil }

// Items is backup.Partition's; an item's size is that of its bytes.
func (p Partition) Items(yield func([]byte, int) bool) error {
	for _, it := range p.Stored {
		if !yield(it, len(it)) {
			break
		}
	}
	return nil
}
