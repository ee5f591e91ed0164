package task

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitTellsWhatHasEndedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		token, closed := make(chan struct{}, 1), make(chan struct{})
		token <- struct{}{}
		close(closed)
		for name, c := range map[string]struct {
			ctx  context.Context
			c    <-chan struct{}
			d    time.Duration
			want Woken
		}{
			"a token":             {t.Context(), token, 0, Token},
			"a closed channel":    {t.Context(), closed, time.Second, Token},
			"time":                {t.Context(), make(chan struct{}), time.Second, Late},
			"time, no channel":    {t.Context(), nil, time.Second, Late},
			"an ended context":    {ended, make(chan struct{}), time.Second, Ended},
			"an ended one, no d":  {ended, nil, 0, Ended},
			"a negative duration": {ended, nil, -1, Ended},
		} {
			if got := Goroutines.Wait(c.ctx, c.c, c.d); got != c.want {
				t.Errorf("%s: %v", name, got)
			}
		}
		if len(token) != 0 {
			t.Error("the token was not taken")
		}
	})
}

func TestAGroupEndsWithItsFirstError(t *testing.T) {
	g, ctx := NewGroup(t.Context(), Goroutines)
	broken := errors.New("broken")
	g.Go(func() error {
		g.Go(func() error { <-ctx.Done(); return errors.New("later") })
		return nil
	})
	g.Go(func() error { return broken })
	if err := g.Wait(); err != broken || context.Cause(ctx) != broken {
		t.Errorf("got %v; the context ended with %v", err, context.Cause(ctx))
	}
}

func TestAGroupWithoutErrorsEndsItsContext(t *testing.T) {
	g, ctx := NewGroup(t.Context(), Goroutines)
	for range 10 {
		g.Go(func() error { return nil })
	}
	if err := g.Wait(); err != nil || ctx.Err() == nil {
		t.Errorf("got %v; the context: %v", err, ctx.Err())
	}
}
