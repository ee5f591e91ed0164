package crdt

import (
	"fmt"
	"testing"

	"github.com/commutatordb/commutator/item"
)

// replicas are what three regions have of one item: each applies what another writes at once, unless it is held back.
type replicas struct {
	t     *testing.T
	at    [3]Record
	stamp HLC
	held  []held
}

type held struct {
	to    int
	delta []byte
}

func (r *replicas) write(region int, w Write) {
	r.stamp += 1 << 16 // a millisecond
	w.Dot = Dot{benchStart + r.stamp, NewActor([]string{"us-east-1", "eu-west-1", "ap-northeast-1"}[region], 1)}
	delta := r.at[region].Write(w).Append(nil)
	for to := range r.at {
		if to != region {
			r.held = append(r.held, held{to, delta})
		}
	}
}

// arrive delivers what is held back.
func (r *replicas) arrive() {
	r.t.Helper()
	for _, h := range r.held {
		delta, err := Decode(h.delta)
		if err != nil {
			r.t.Fatal(err)
		}
		r.at[h.to].Join(delta)
	}
	r.held = nil
}

func (r *replicas) fold() {
	for i := range r.at {
		r.at[i].Fold(benchStart + r.stamp)
	}
}

// beside is what a record takes beside its item, in bytes: the same in every region.
func (r *replicas) beside() int {
	r.t.Helper()
	sizes := map[int]bool{}
	size := 0
	for i := range r.at {
		stored := r.at[i].Append(nil)
		shown, ok, err := PeekVisible(stored)
		if err != nil || !ok {
			r.t.Fatalf("region %d shows nothing: %v", i, err)
		}
		size = len(stored) - len(shown)
		sizes[size] = true
	}
	if len(sizes) > 1 {
		r.t.Errorf("the regions' records are of different sizes: %v", sizes)
	}
	return size
}

func (r *replicas) update(region int, c item.Change) {
	r.t.Helper()
	stored, _ := r.at[region].Visible()
	shown, err := item.DecodeItem(stored)
	if err != nil {
		r.t.Fatal(err)
	}
	shown = shown.With(c.Path[0], sequential(shown.Get(c.Path[0]), c))
	r.write(region, Write{Origin: Origin{Op: Update}, Item: item.AppendItem(nil, shown), Changes: []item.Change{c}})
}

// Goal: what an item costs beside what a client sees, in bytes (MERGE.md, property 7, and REPLICATION.md §3). A test that needs more
// room here is to say why.
func TestWhatARecordTakesBesideItsItem(t *testing.T) {
	const regions = 3
	all := func(r *replicas, f func(region int)) {
		for i := range regions {
			f(i)
		}
		r.arrive()
	}
	whole := func(r *replicas) {
		r.write(0, Write{Origin: Origin{Op: Put}, Item: benchItem(1)})
		r.arrive()
	}
	count := func(r *replicas) {
		all(r, func(i int) { r.update(i, change(item.Increment, num(1), "views")) })
	}
	// Until it is folded, an item that is updated is kept as it was put, beside what is shown: what another region writes to it may come.
	again := len(benchItem(1))
	for _, c := range []struct {
		name          string
		do            func(*replicas)
		fresh, folded int // at most
	}{
		{"put once", whole, 24, 12},
		{"put at once in three regions", func(r *replicas) {
			all(r, func(i int) { r.write(i, Write{Origin: Origin{Op: Put}, Item: benchItem(int64(i))}) })
		}, 40, 12},
		{"an attribute assigned", func(r *replicas) {
			whole(r)
			r.update(1, change(item.Assign, num(7), "views"))
			r.arrive()
		}, again + 64, 12},
		{"one attribute assigned at once in three regions", func(r *replicas) {
			whole(r)
			all(r, func(i int) { r.update(i, change(item.Assign, num(int64(i)), "views")) })
		}, again + 72, 12},
		{"a counter incremented in three regions", func(r *replicas) { whole(r); count(r) }, again + 90, 12 + regions*26},
		{"a counter incremented a thousand times in each of three regions", func(r *replicas) {
			whole(r)
			for range 1000 {
				count(r)
			}
		}, again + 100, 12 + regions*29},
		{"a set that three regions have added to", func(r *replicas) {
			whole(r)
			all(r, func(i int) { r.update(i, change(item.AddElements, strs(fmt.Sprint("from-", i)), "tags")) })
		}, again + 90, 12},
		{"a set with a hundred elements added", func(r *replicas) {
			whole(r)
			for i := range 100 {
				r.update(i%regions, change(item.AddElements, strs(fmt.Sprintf("element-%03d", i)), "tags"))
				r.arrive()
			}
		}, again + 64 + 100*(11+8), 12},
	} {
		r := &replicas{t: t}
		c.do(r)
		fresh := r.beside()
		r.fold()
		folded := r.beside()
		if fresh > c.fresh || folded > c.folded {
			t.Errorf("%s: %d bytes beside the item, %d folded; want at most %d and %d", c.name, fresh, folded, c.fresh, c.folded)
		}
	}
}
