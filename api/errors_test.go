package api

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
)

func TestErrorsOfTheRegionAreAnswered(t *testing.T) {
	busy := errors.New("busy")
	h := &Handler{cfg: Config{Overloaded: func(err error) bool { return errors.Is(err, busy) }}}
	for _, c := range []struct {
		err    error
		kind   string
		status int
	}{
		{fmt.Errorf("write: %w", busy), spaceDynamo + "ProvisionedThroughputExceededException", http.StatusBadRequest},
		{fmt.Errorf("write: %w", region.ErrNoTable), spaceDynamo + "ResourceNotFoundException", http.StatusBadRequest},
		{region.ErrNotActive, spaceDynamo + "ResourceNotFoundException", http.StatusBadRequest},
		{op.ErrUpdateTooLarge, spaceValidate + "ValidationException", http.StatusBadRequest},
		{errors.New("the disk is gone"), spaceDynamo + "InternalServerError", http.StatusInternalServerError},
	} {
		if got := h.translate(c.err); got.kind != c.kind || got.status != c.status {
			t.Errorf("%v: %d %s, want %d %s", c.err, got.status, got.kind, c.status, c.kind)
		}
	}
}
