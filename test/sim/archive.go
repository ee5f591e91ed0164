package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/commutatordb/commutator/backup"
)

// objects is the object store that all regions share. It is as good as its faults let it be.
type objects struct {
	w    *world
	data map[string][]byte
	old  map[string][]byte // what an object held before, for stale reads

	slow, fail, cut, flip, stale float64 // probabilities, by call
}

func newObjects(w *world) *objects {
	return &objects{w: w, data: map[string][]byte{}, old: map[string][]byte{}}
}

// archive is the object store as one process sees it: a backup.Archive.
type archive struct {
	o *objects
	p *proc
}

var _ backup.Archive = archive{}

var errStore = errors.New("sim: 503 Slow Down")

func (a archive) wait(ctx context.Context) error {
	w := a.o.w
	d := w.between(time.Millisecond, 20*time.Millisecond)
	if a.o.slow > 0 && w.chance(a.o.slow) {
		w.count.fault(faultStoreSlow)
		d *= 50
	}
	if a.p.Wait(ctx, nil, d) == 2 {
		return context.Cause(ctx)
	}
	if a.o.fail > 0 && w.chance(a.o.fail) {
		w.count.fault(faultStoreError)
		return errStore
	}
	return nil
}

// Put is backup.Archive's.
func (a archive) Put(ctx context.Context, name string, data []byte) error {
	if err := a.wait(ctx); err != nil {
		return err
	}
	a.o.old[name] = a.o.data[name]
	a.o.data[name] = slices.Clone(data)
	return a.wait(ctx) // an error now: it is there all the same
}

// Get is backup.Archive's.
func (a archive) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := a.wait(ctx); err != nil {
		return nil, err
	}
	w := a.o.w
	b, ok := a.o.data[name]
	if a.o.stale > 0 && w.chance(a.o.stale) {
		w.count.fault(faultStoreStale)
		b, ok = a.o.old[name], a.o.old[name] != nil
	}
	if !ok {
		return nil, backup.ErrNotFound
	}
	if int64(len(b)) > limit {
		return nil, errors.New("sim: the object is larger than asked for")
	}
	b = slices.Clone(b)
	if a.o.cut > 0 && w.chance(a.o.cut) {
		w.count.fault(faultStoreCut)
		b = b[:w.rng.IntN(len(b)+1)]
	}
	if a.o.flip > 0 && len(b) > 0 && w.chance(a.o.flip) {
		w.count.fault(faultStoreFlip)
		b[w.rng.IntN(len(b))] ^= 1 << w.rng.IntN(8)
	}
	return b, nil
}

// List is backup.Archive's.
func (a archive) List(ctx context.Context, prefix string, yield func(name string, size int64) bool) error {
	if err := a.wait(ctx); err != nil {
		return err
	}
	var names []string
	for name := range a.o.data {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if !yield(name, int64(len(a.o.data[name]))) {
			break
		}
	}
	return nil
}

// Delete is backup.Archive's.
func (a archive) Delete(ctx context.Context, name string) error {
	if err := a.wait(ctx); err != nil {
		return err
	}
	delete(a.o.data, name)
	return nil
}

// String is backup.Archive's.
func (a archive) String() string { return "sim" }
