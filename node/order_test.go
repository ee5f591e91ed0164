package node

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/commutatordb/commutator/internal/task"
)

func TestWhatIsLessUrgentGivesWayForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &order{tasks: task.Goroutines}
		took := func(u urgency) time.Duration {
			begun := time.Now()
			o.giveWay(t.Context(), u)
			return time.Since(begun)
		}
		for _, c := range []struct {
			busy     urgency
			waits    []urgency
			waitsNot []urgency
		}{
			{live, []urgency{repair, copied}, []urgency{live}},
			{repair, []urgency{copied}, []urgency{live, repair}},
		} {
			o.begin(c.busy)
			for _, u := range c.waits {
				if d := took(u); d != patience {
					t.Errorf("%d waits %s for %d, which does not end", u, d, c.busy)
				}
				go func() {
					time.Sleep(2 * look)
					o.end(c.busy)
				}()
				if d := took(u); d < look || d > 3*look {
					t.Errorf("%d waits %s for %d, which ends after %s", u, d, c.busy, 2*look)
				}
				o.begin(c.busy)
			}
			for _, u := range c.waitsNot {
				if d := took(u); d > 0 {
					t.Errorf("%d waits %s for %d", u, d, c.busy)
				}
			}
			send := reading(o, func(int) error {
				if c.busy == repair && took(copied) > 0 {
					t.Error("a seed waits for what is on its way")
				}
				return nil
			})
			if err := send(1); err != nil {
				t.Error(err)
			}
			o.end(c.busy)
		}
	})
}
