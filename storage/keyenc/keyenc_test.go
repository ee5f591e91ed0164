package keyenc

import (
	"bytes"
	"cmp"
	"testing"

	"pgregory.net/rapid"
)

func TestRowsOfOneKindSortByTheirParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
		x, y := rapid.SliceOf(rapid.Byte()).Draw(t, "x"), rapid.SliceOf(rapid.Byte()).Draw(t, "y")
		p, q := uint32(a>>32), uint32(b>>32)
		for name, c := range map[string][3]int{
			"records":   {bytes.Compare(Record(nil, p, x), Record(nil, q, y)), cmp.Compare(p, q), bytes.Compare(x, y)},
			"traces":    {bytes.Compare(Trace(nil, p, x), Trace(nil, q, y)), cmp.Compare(p, q), bytes.Compare(x, y)},
			"rows":      {bytes.Compare(Index(nil, 7, p, x), Index(nil, 7, q, y)), cmp.Compare(p, q), bytes.Compare(x, y)},
			"entries":   {bytes.Compare(Log(nil, 7, a), Log(nil, 7, b)), cmp.Compare(a, b), 0},
			"logs":      {bytes.Compare(Log(nil, a, 1), Log(nil, b, 2)), cmp.Compare(a, b), -1},
			"states":    {bytes.Compare(Meta(nil, a, string(x)), Meta(nil, b, string(y))), cmp.Compare(a, b), bytes.Compare(x, y)},
			"conflicts": {bytes.Compare(Conflict(nil, 7, a, x), Conflict(nil, 7, b, y)), cmp.Compare(a, b), bytes.Compare(x, y)},
			"catalog":   {bytes.Compare(Catalog(nil, string(x)), Catalog(nil, string(y))), bytes.Compare(x, y), 0},
		} {
			if want := cmp.Or(c[1], c[2]); c[0] != want {
				t.Fatalf("%s of %d and %d, %x and %x compare %d, want %d", name, a, b, x, y, c[0], want)
			}
		}
	})
}

func TestPartsComeBackFromTheirKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, key := rapid.Uint64().Draw(t, "n"), rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		if got := RecordKey(Record(nil, uint32(n), key)); !bytes.Equal(got, key) {
			t.Fatalf("record: %x, want %x", got, key)
		}
		if got := TraceKey(Trace(nil, uint32(n), key)); !bytes.Equal(got, key) {
			t.Fatalf("trace: %x, want %x", got, key)
		}
		if got := IndexKey(Index(nil, 1, uint32(n), key)); !bytes.Equal(got, key) {
			t.Fatalf("index: %x, want %x", got, key)
		}
		if got := LogSeq(Log([]byte{}, 1, n)); got != n {
			t.Fatalf("log: %d, want %d", got, n)
		}
		if got := MetaName(Meta(nil, n, string(key))); got != string(key) {
			t.Fatalf("meta: %q, want %q", got, key)
		}
		if got := CatalogName(Catalog(nil, string(key))); got != string(key) {
			t.Fatalf("catalog: %q, want %q", got, key)
		}
		if !bytes.HasPrefix(Index(nil, n, 3, key), Indexes(nil, n)) || IndexID(Index(nil, n, 3, key)) != 3 || !bytes.Equal(IndexKey(Index(nil, n, 3, key)), key) || !bytes.HasPrefix(Conflict(nil, n, 3, key), Conflicts(nil, n)) || ConflictTime(Conflict(nil, 3, n, key)) != n {
			t.Fatal("a row of a partition does not begin with its prefix, or does not end with its key")
		}
	})
}

func TestTheEndIsTheLeastKeyBeyondAPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := rapid.SampledFrom([]byte{0, 1, 0xfe, 0xff})
		prefix, key := rapid.SliceOfN(few, 0, 4).Draw(t, "prefix"), rapid.SliceOfN(few, 0, 6).Draw(t, "key")
		kept := bytes.Clone(prefix)
		end := End(prefix)
		within := bytes.Compare(key, prefix) >= 0 && (end == nil || bytes.Compare(key, end) < 0)
		if within != bytes.HasPrefix(key, prefix) {
			t.Fatalf("%x is in [%x, %x): %v", key, prefix, end, within)
		}
		if !bytes.Equal(prefix, kept) {
			t.Fatalf("End changed %x to %x", kept, prefix)
		}
	})
}
