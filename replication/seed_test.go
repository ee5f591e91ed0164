package replication

import (
	"reflect"
	"testing"

	"github.com/commutatordb/commutator/crdt"
)

// Goal: a seed that was cut off goes on from where it had come to, and is followed from the moment that
// it first showed.

func part(keys ...string) SeedPart {
	var p SeedPart
	for _, k := range keys {
		p.Items = append(p.Items, Change{Key: []byte(k), Delta: []byte("12345")})
	}
	return p
}

func take(t *testing.T, p *Place, parts ...SeedPart) []byte {
	t.Helper()
	for _, x := range parts {
		if err := p.Take(x); err != nil {
			t.Fatal(err)
		}
	}
	return p.Encode()
}

func moment(seq uint64, cursors map[string]uint64) SeedPart {
	return SeedPart{Origin: &Origin{Seq: seq, Clock: crdt.HLC(100 + seq), Cursors: cursors, Stable: crdt.HLC(seq), Items: 5, Bytes: 50}}
}

func TestASeedThatGoesOnIsFollowedFromItsFirstMoment(t *testing.T) {
	var p Place
	noted := take(t, &p, moment(7, map[string]uint64{"x": 3}), part("a", "b"))
	p, err := DecodePlace(noted)
	if err != nil {
		t.Fatal(err)
	}
	if string(p.After) != "b" || p.Items != 2 || p.Bytes != 12 || p.Done {
		t.Errorf("goes on from %+v", p)
	}
	take(t, &p, moment(20, map[string]uint64{"x": 9}), part("c"), SeedPart{Done: true})
	want := Origin{Seq: 7, Clock: 120, Cursors: map[string]uint64{"x": 3}, Stable: 7, Items: 5, Bytes: 50}
	if !reflect.DeepEqual(*p.Origin, want) || !p.Done || p.Items != 3 {
		t.Errorf("got %+v of %+v, want %+v", p, *p.Origin, want)
	}
}

func TestPartitionsCopiedAtDifferentMomentsAreFollowedFromWhatAllHave(t *testing.T) {
	a := moment(7, map[string]uint64{"x": 3, "y": 1}).Origin
	b := moment(9, map[string]uint64{"x": 4}).Origin
	if got := Earlier(*a, *b); got.Seq != 7 || got.Clock != 109 || !reflect.DeepEqual(got.Cursors, map[string]uint64{"x": 3}) {
		t.Errorf("got %+v", got)
	}
}

func TestASeedThatCannotBeIsRefused(t *testing.T) {
	for name, parts := range map[string][]SeedPart{
		"no moment":    {part("a")},
		"done at once": {{Done: true}},
		"out of order": {moment(1, nil), part("b"), part("a")},
		"a key twice":  {moment(1, nil), part("b", "b")},
	} {
		var p Place
		var err error
		for _, x := range parts {
			err = p.Take(x)
		}
		if err == nil {
			t.Errorf("%s: taken, %+v", name, p)
		}
	}
}

func TestWhatIsNoPlaceIsRefused(t *testing.T) {
	if p, err := DecodePlace([]byte("{")); err == nil {
		t.Errorf("got %+v", p)
	}
	if p, err := DecodePlace(nil); err != nil || p.Origin != nil {
		t.Errorf("nothing: got %+v, %v", p, err)
	}
}
