package op

import (
	"errors"
	"reflect"
	"testing"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/table"
)

func TestAResultIsTheSameAfterItWasCarried(t *testing.T) {
	full := Result{
		Old: []byte("old"), New: []byte{}, Dot: crdt.Dot{HLC: 7 << 40, Actor: 9}, Applied: 3, Conflicts: []Loss{{crdt.Class("Lost"), 4, 5}, {crdt.Class("x"), 1, 2}},
		More: true, Child: 300, Partition: 17, Next: table.Key("next"), Revision: 1 << 40, Given: []byte("given"),
	}
	results := []Result{{}, full}
	for _, err := range append([]error{
		&ConditionFailed{}, &ConditionFailed{Item: []byte("item")}, &expr.Error{Message: "wrong"}, &table.KeyError{Message: "a", Update: "b"}, &Stale{Revision: 12},
	}, plainErrors...) {
		results = append(results, Result{Err: err})
	}
	for _, want := range results {
		b := want.Append(nil)
		got, err := DecodeResult(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v was carried as %+v, %v", want, got, err)
		}
		for n := range b {
			if _, err := DecodeResult(b[:n]); err == nil && n > 0 {
				t.Errorf("%d of the %d bytes of %+v pass for a result", n, len(b), want)
			}
		}
	}
	got, err := DecodeResult((&Result{Err: errors.New("something else")}).Append(nil))
	if err != nil || got.Err == nil || got.Err.Error() != "something else" {
		t.Errorf("an error without a number was carried as %v, %v", got.Err, err)
	}
}
