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
	// About seven writes a second, of which two of three are not the first of their millisecond.
	r.stamp = (r.stamp>>16+137)<<16 | (r.stamp+1)%3
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
	const (
		regions = 3
		header  = 12 // the newest stamp, and the format
		actor   = 4  // one that is not the header's
		stamp   = 3  // in the seconds around the header's
		views   = 7  // the path of the counter
		tags    = 6  // the path of the set
		was     = 18 // the attribute as it was put: until the item folds, what another region writes to that may come
	)
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
	for _, c := range []struct {
		name          string
		do            func(*replicas)
		fresh, folded int // at most
	}{
		{"put once", whole, header + 6, header},
		{"put at once in three regions", func(r *replicas) {
			all(r, func(i int) { r.write(i, Write{Origin: Origin{Op: Put}, Item: benchItem(int64(i))}) })
		}, header + 6 + (regions-1)*(actor+stamp), header},
		{"an attribute assigned", func(r *replicas) {
			whole(r)
			r.update(1, change(item.Assign, num(7), "views"))
			r.arrive()
		}, header + 25 + was + 2*(actor+stamp), header},
		{"one attribute assigned at once in three regions", func(r *replicas) {
			whole(r)
			all(r, func(i int) { r.update(i, change(item.Assign, num(int64(i)), "views")) })
		}, header + 24 + was + regions*(actor+stamp), header},
		{"a counter incremented in three regions", func(r *replicas) { whole(r); count(r) }, header + 6 + was + views + regions*12, header + views + regions*13},
		{"a counter incremented a thousand times in each of three regions", func(r *replicas) {
			whole(r)
			for range 1000 {
				count(r)
			}
		}, header + 6 + was + views + regions*16, header + views + regions*16},
		{"a set that three regions have added to", func(r *replicas) {
			whole(r)
			all(r, func(i int) { r.update(i, change(item.AddElements, strs(fmt.Sprint("from-", i)), "tags")) })
		}, header + 9 + was + tags + regions*(8+actor+2*stamp), header},
		{"a set with a hundred elements added", func(r *replicas) {
			whole(r)
			for i := range 100 {
				r.update(i%regions, change(item.AddElements, strs(fmt.Sprintf("element-%03d", i)), "tags"))
				r.arrive()
			}
		}, header + 9 + was + tags + 2 + regions*(actor+stamp) + 100*(11+7), header},
		{"a list that three regions have appended to", func(r *replicas) {
			whole(r)
			all(r, func(i int) { r.update(i, change(item.Append, item.L(item.S(fmt.Sprint("note-", i))), "notes")) })
		}, header + 20 + regions*(10+2+actor+2*stamp), header},
	} {
		r := &replicas{t: t}
		c.do(r)
		fresh := r.beside()
		r.fold()
		folded := r.beside()
		t.Logf("%-70s %d of %d, %d of %d folded", c.name, fresh, c.fresh, folded, c.folded)
		if fresh > c.fresh || folded > c.folded {
			t.Errorf("%s: %d bytes beside the item, %d folded; want at most %d and %d", c.name, fresh, folded, c.fresh, c.folded)
		}
	}
}

// Goal: an item that is written to without a pause does not grow without a bound. Method: regions write to one item at the same time, round after
// round, so that the newest write is never stable; what is kept beside the item is measured long after it has come to what it stays at.
func TestAnItemThatIsWrittenToWithoutAPauseDoesNotGrow(t *testing.T) {
	const rounds, regions = 200, 3
	key := func(region, round int) string { return fmt.Sprintf("of-%d-%04d", region, round) }
	for _, c := range []struct {
		name    string
		writers int
		bytes   int // at most. What removes and sets to absent is kept until the item folds, about 30 bytes each
		do      func(r *replicas, region, round int)
	}{
		{"elements come and go", 1, 4500, func(r *replicas, region, round int) {
			r.update(region, change(item.AddElements, strs(key(region, round)), "tags"))
			r.update(region, change(item.RemoveElements, strs(key(region, round)), "tags"))
		}},
		{"elements of three regions come and go", regions, 19000, func(r *replicas, region, round int) {
			r.update(region, change(item.AddElements, strs(key(region, round)), "tags"))
			r.update(region, change(item.RemoveElements, strs(key(region, round-1)), "tags"))
		}},
		{"fields of a map come and go", 1, 5300, func(r *replicas, region, round int) {
			r.edit(region, change(item.Assign, num(1), "m", key(region, round)))
			r.edit(region, change(item.Assign, item.Value{}, "m", key(region, round)))
		}},
		{"fields of three regions come and go", regions, 21500, func(r *replicas, region, round int) {
			r.edit(region, change(item.Assign, num(1), "m", key(region, round)))
			r.edit(region, change(item.Assign, item.Value{}, "m", key(region, round-1)))
		}},
		{"a counter is set back", 1, 100, func(r *replicas, region, round int) {
			r.update(region, change(item.Assign, num(0), "views"))
			r.update(region, change(item.Increment, num(1), "views"))
		}},
		{"an item with a set is deleted, and made again", 1, 100, func(r *replicas, region, round int) {
			r.write(region, Write{Origin: Origin{Op: Delete}})
			r.made(region, change(item.AddElements, strs(key(region, round)), "tags"))
		}},
		{"a list grows, and is begun anew", 1, 1000, func(r *replicas, region, round int) {
			r.update(region, change(item.Append, item.L(item.S(key(region, round))), "log"))
			if round%50 == 0 {
				r.update(region, change(item.Assign, item.L(), "log"))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &replicas{t: t}
			r.write(0, Write{Origin: Origin{Op: Put}, Item: benchItem(1)})
			r.update(0, change(item.Assign, item.M(), "m"))
			r.arrive()
			stable, most := HLC(0), 0
			for round := range rounds {
				known := benchStart + r.stamp // all have that, and have told
				for region := range c.writers {
					c.do(r, region, round)
				}
				for i := range r.at {
					r.at[i].Trim(stable)
				}
				for i := range r.at {
					if shown, _ := r.at[i].Visible(); round > rounds/2 {
						most = max(most, len(r.at[i].Append(nil))-len(shown))
					}
				}
				r.arrive()
				stable = known
			}
			t.Logf("%d bytes beside the item", most)
			if most > c.bytes {
				t.Errorf("%d bytes beside the item, want at most %d", most, c.bytes)
			}
			r.fold()
			r.beside()
			for i := range r.at[1:] {
				if a, b := r.at[0].Append(nil), r.at[i+1].Append(nil); string(a) != string(b) {
					t.Errorf("folded, region %d has %x, region 0 %x", i+1, b, a)
				}
			}
		})
	}
}

// edit is update of a field of a map.
func (r *replicas) edit(region int, c item.Change) {
	r.t.Helper()
	stored, _ := r.at[region].Visible()
	shown, err := item.DecodeItem(stored)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(region, Write{Origin: Origin{Op: Update}, Item: item.AppendItem(nil, assignAt(shown, c.Path, c.Value)), Changes: []item.Change{c}})
}

// made is update of an item that is not there.
func (r *replicas) made(region int, c item.Change) {
	it := item.NewItem(field(c.Path[0], c.Value))
	r.write(region, Write{Origin: Origin{Op: Update}, Item: item.AppendItem(nil, it), Changes: []item.Change{c}})
}
