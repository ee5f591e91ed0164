package replication

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/crdt"
)

// someItem is a key with its newest write and what it shows.
type someItem struct {
	key    [9]byte
	newest crdt.Dot
	shows  byte
}

var items = rapid.Custom(func(t *rapid.T) someItem {
	var it someItem
	copy(it.key[:], rapid.SliceOfN(rapid.Byte(), 9, 9).Draw(t, "key"))
	it.newest = crdt.Dot{HLC: crdt.HLC(rapid.Uint64Range(1, 4).Draw(t, "hlc")), Actor: crdt.Actor(rapid.Uint32Range(1, 3).Draw(t, "actor"))}
	it.shows = rapid.Byte().Draw(t, "shows")
	return it
})

func digest(set []someItem) (d Digest) {
	for _, it := range set {
		d.Add(SumOf(it.key[:], it.newest, []byte{it.shows}))
	}
	return d
}

func TestADigestIsOfASetWhateverItsOrderAndItsParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := rapid.SliceOfDistinct(items, func(it someItem) [9]byte { return it.key }).Draw(t, "set")
		want := digest(set)
		shuffled := slices.Clone(set)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0)).Shuffle(len(set), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		cut := rapid.IntRange(0, len(set)).Draw(t, "cut")
		parts := digest(shuffled[:cut])
		parts.Join(digest(shuffled[cut:]))
		if digest(shuffled) != want || parts != want {
			t.Fatalf("in another order %v, in parts %v, want %v", digest(shuffled), parts, want)
		}
		if len(set) == 0 {
			return
		}
		// Any one change of the set is seen.
		i := rapid.IntRange(0, len(set)-1).Draw(t, "which")
		for name, change := range map[string]func(*someItem){
			"key": func(it *someItem) { it.key[8]++ }, "hlc": func(it *someItem) { it.newest.HLC++ }, "actor": func(it *someItem) { it.newest.Actor++ }, "item": func(it *someItem) { it.shows++ },
		} {
			other := slices.Clone(set)
			if change(&other[i]); digest(other) == want {
				t.Fatalf("with another %s the digest is the same", name)
			}
		}
		if digest(slices.Delete(slices.Clone(set), i, i+1)) == want {
			t.Fatal("with an item less the digest is the same")
		}
	})
}

func TestLeavesAreRangesOfKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(0, MaxLeafBits).Draw(t, "bits")
		a, b := rapid.SliceOfN(rapid.Byte(), 9, 20).Draw(t, "a"), rapid.SliceOfN(rapid.Byte(), 9, 20).Draw(t, "b")
		if bytes.Compare(a, b) > 0 {
			a, b = b, a
		}
		x, y := LeafOf(a, bits), LeafOf(b, bits)
		if x > y || y>>bits != 0 {
			t.Fatalf("of %x and %x with %d bits the leaves are %d and %d", a, b, bits, x, y)
		}
		if bytes.Compare(LeafStart(x, bits), a) > 0 || x < y && bytes.Compare(LeafStart(y, bits), a) <= 0 {
			t.Fatalf("leaf %d begins at %x and %d at %x, with %x between them", x, LeafStart(x, bits), y, LeafStart(y, bits), a)
		}
	})
}

func TestALeafHoldsSomeDozenItems(t *testing.T) {
	for items, want := range map[int64]int{-1: 0, 0: 0, 63: 0, 64: 1, 1 << 20: 15, 1 << 40: MaxLeafBits} {
		if got := LeafBits(items); got != want {
			t.Errorf("%d items: %d bits, want %d", items, got, want)
		}
	}
}

func TestLeavesThatAreNotTheSameAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (m map[uint32]Digest, run []Leaf) {
			m = rapid.MapOf(rapid.Uint32Range(0, 9), rapid.Custom(func(t *rapid.T) Digest { return Digest{Items: rapid.Uint64Range(1, 2).Draw(t, "items")} })).Draw(t, name)
			for at := range uint32(10) {
				if d, ok := m[at]; ok {
					run = append(run, Leaf{at, d})
				}
			}
			return m, run
		}
		a, runA := draw("a")
		b, runB := draw("b")
		var want []uint32
		for at := range uint32(10) {
			if a[at] != b[at] {
				want = append(want, at)
			}
		}
		if got := Unequal(runA, runB); !slices.Equal(got, want) {
			t.Fatalf("%v and %v: got %v, want %v", runA, runB, got, want)
		}
	})
}

func TestReachAsksEveryRegionForItsOwnWritesAndAllForTheFloor(t *testing.T) {
	east, west := crdt.NewActor("us-east-1", 1), crdt.NewActor("eu-west-1", 4)
	vector := func(floor crdt.HLC, e, w crdt.HLC) (v crdt.Vector) {
		if floor > 0 {
			v.Raise(crdt.Dot{HLC: floor, Actor: east})
		}
		v.Set(east, e)
		v.Set(west, w)
		return v
	}
	applied := map[string]crdt.HLC{"us-east-1": 20, "eu-west-1": 10}
	for _, c := range []struct {
		v    crdt.Vector
		want bool
	}{
		{vector(0, 20, 10), true}, {vector(0, 21, 10), false}, {vector(0, 20, 11), false}, {vector(10, 20, 0), true},
		{vector(11, 20, 0), false}, // what folded at 11 may hold a write of eu-west-1's at 11
		{crdt.Vector{}, true},
	} {
		if got := Reach(applied, c.v); got != c.want {
			t.Errorf("%v: got %v", c.v, got)
		}
	}
	gone := vector(0, 5, 5)
	gone.Set(crdt.NewActor("sa-east-1", 1), 99)
	if !Reach(applied, gone) || Reach(map[string]crdt.HLC{"us-east-1": 20, "eu-west-1": 10, "sa-east-1": 0}, gone) {
		t.Error("a region's writes count unless it is one of the table's")
	}
}

func TestARequestForTooMuchIsRefused(t *testing.T) {
	for _, q := range []ListRequest{{Bits: -1}, {Bits: MaxLeafBits + 1}, {Bits: 1, Leaves: []uint32{2}}, {Bits: 2, Leaves: []uint32{2, 1}}, {Bits: 18, Leaves: make([]uint32, MaxLeaves+1)}} {
		if q.Check() {
			t.Errorf("%d bits with %d leaves pass", q.Bits, len(q.Leaves))
		}
	}
	if q := (ListRequest{Bits: 2, Leaves: []uint32{0, 3}}); !q.Check() {
		t.Error("a right request is refused")
	}
}
