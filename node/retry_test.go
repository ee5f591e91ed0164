package node

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commutatordb/commutator/internal/task"
)

// Goal: what fails is tried again soon, then ever less often, and said once; however often there is something else to do. Method: a job that
// fails for an hour, and a replicator that is woken without a pause.
func TestWhatFailsIsTriedAgainEverLessOftenAndSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newReplicator(nil, time.Now, task.Goroutines, slog.New(slog.NewTextHandler(&log, nil)))
		g, ctx := task.NewGroup(t.Context(), r.tasks)
		r.ctx, r.running, r.jobs, r.failing = ctx, g, map[string]bool{}, map[string]failing{}
		begun, tries, soon := time.Now(), 0, 0
		job := func() error {
			at := time.Since(begun)
			if at > time.Hour {
				return nil
			}
			if tries++; at < time.Second {
				soon++
			}
			return errors.New("the region does not know yet")
		}
		for time.Since(begun) < time.Hour+time.Minute {
			r.start(ctx, "orders", job)
			time.Sleep(10 * time.Millisecond)
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if soon < 4 || tries > soon+int(time.Hour/maxWait) {
			t.Errorf("%d tries within the first second, %d in all", soon, tries)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 {
			t.Errorf("%d lines, want one for the failure and one for its end:\n%s", lines, log.String())
		}
	})
}
