package storage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// pagesOf fetches n rows at a time from a reader.
type pagesOf struct {
	r Reader
	n int
}

func (p pagesOf) Fetch(lower, upper []byte, last bool) (rows []Row, all bool, err error) {
	it, err := p.r.Iter(lower, upper)
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	first, next := it.First, it.Next
	if last {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		if len(rows) == p.n {
			return rows, false, it.Err()
		}
		rows = append(rows, Row{slices.Clone(it.Key()), slices.Clone(it.Value())})
	}
	return rows, true, it.Err()
}

// TestPagesAreWalkedAsTheStoreIs moves both about at random.
func TestPagesAreWalkedAsTheStoreIs(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	b := s.NewBatch()
	for i := range 40 {
		b.Set(fmt.Appendf(nil, "k%02d", i*2), fmt.Appendf(nil, "value %d", i))
	}
	if err := s.Commit(b); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Custom(func(t *rapid.T) []byte { return fmt.Appendf(nil, "k%02d", rapid.IntRange(0, 82).Draw(t, "key")) })
		lower, upper := key.Draw(t, "lower"), key.Draw(t, "upper")
		if bytes.Compare(lower, upper) > 0 {
			lower, upper = upper, lower
		}
		want, err := s.Iter(lower, upper)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		got := IterPages(pagesOf{s, rapid.IntRange(1, 5).Draw(t, "page")}, lower, upper)
		defer got.Close()
		there := false
		for range rapid.IntRange(1, 30).Draw(t, "moves") {
			var a, b bool
			switch move := rapid.SampledFrom([]string{"first", "last", "seekGE", "seekLT", "next", "prev", "next", "prev"}).Draw(t, "move"); {
			case move == "first":
				a, b = want.First(), got.First()
			case move == "last":
				a, b = want.Last(), got.Last()
			case move == "seekGE":
				k := key.Draw(t, "to")
				a, b = want.SeekGE(k), got.SeekGE(k)
			case move == "seekLT":
				k := key.Draw(t, "to")
				a, b = want.SeekLT(k), got.SeekLT(k)
			case !there:
				continue // where a walk stands that has ended is nobody's business
			case move == "next":
				a, b = want.Next(), got.Next()
			default:
				a, b = want.Prev(), got.Prev()
			}
			if there = a; a != b {
				t.Fatalf("there is a row: %v, by pages %v", a, b)
			}
			if a && (!bytes.Equal(want.Key(), got.Key()) || !bytes.Equal(want.Value(), got.Value())) {
				t.Fatalf("%s = %s, by pages %s = %s", want.Key(), want.Value(), got.Key(), got.Value())
			}
		}
	})
}

type noPages struct{}

func (noPages) Fetch(_, _ []byte, _ bool) ([]Row, bool, error) {
	return nil, false, errors.New("cut off")
}

func TestAWalkOfPagesTellsWhatStoppedIt(t *testing.T) {
	it := IterPages(noPages{}, []byte("a"), []byte("b"))
	if it.First() || it.Err() == nil || it.Next() || it.Close() == nil {
		t.Error("a walk that was cut off looks like one that has come to its end")
	}
}
