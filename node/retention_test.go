package node

import (
	"testing"
	"time"
)

// Goal: marks are those of whichever bound is nearer. Method: a table.
func TestChangeLogsAreMeasuredAgainstTheirBounds(t *testing.T) {
	for name, c := range map[string]struct {
		q             Retention
		bytes         uint64
		age           time.Duration
		percent, mark int
	}{
		"empty":                   {Retention{MaxBytes: 1000}, 0, 0, 0, 0},
		"half":                    {Retention{MaxBytes: 1000}, 500, 0, 50, 50},
		"nearly full":             {Retention{MaxBytes: 1000}, 999, 0, 99, 80},
		"full":                    {Retention{MaxBytes: 1000}, 1000, 0, 100, 100},
		"old, and no bound on it": {Retention{MaxBytes: 1000}, 100, 1000 * time.Hour, 10, 0},
		"young":                   {Retention{MaxBytes: 1000, MaxAge: time.Hour}, 100, 59 * time.Minute, 10, 0},
		"old":                     {Retention{MaxBytes: 1000, MaxAge: time.Hour}, 100, time.Hour, 100, 100},
		"too old for any":         {Retention{MaxBytes: 1000, MaxAge: time.Hour}, 100, 75 * time.Minute, 125, slowLimit},
		"too much for any":        {Retention{MaxBytes: 1000, MaxAge: time.Hour}, 1250, 0, 125, slowLimit},
	} {
		if percent, mark := c.q.full(c.bytes, c.age); percent != c.percent || mark != c.mark {
			t.Errorf("%s: %d percent, mark %d; want %d, %d", name, percent, mark, c.percent, c.mark)
		}
	}
}
