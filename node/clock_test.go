package node

import (
	"log/slog"
	"testing"
	"time"

	"github.com/commutatordb/commutator/internal/task"
)

func TestAnOffsetIsWorkedOutOfTheFourTimesOfAnExchange(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	at := func(d time.Duration) int64 { return start.Add(d).UnixNano() }
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		received, answered, got time.Duration // got by the asker's clock, the others by the other's
		by, within              time.Duration
	}{
		"the same clocks":             {10 * ms, 15 * ms, 25 * ms, 0, 10 * ms},
		"an hour ahead":               {time.Hour + 10*ms, time.Hour + 10*ms, 20 * ms, time.Hour, 10 * ms},
		"behind":                      {-290 * ms, -280 * ms, 30 * ms, -300 * ms, 10 * ms},
		"one way slow":                {30 * ms, 30 * ms, 30 * ms, 15 * ms, 15 * ms},
		"at once, by a coarse clock":  {0, 5 * ms, 0, 2500 * time.Microsecond, 0},
		"an asker whose clock jumped": {10 * ms, 10 * ms, -time.Second, 510 * ms, 0},
	} {
		o := measure(start, at(c.received), at(c.answered), start.Add(c.got))
		if o.by != c.by || o.within != c.within || o.at.IsZero() {
			t.Errorf("%s: %s within %s, want %s within %s", name, o.by, o.within, c.by, c.within)
		}
	}
	if o := measure(start, 0, 0, start); !o.at.IsZero() {
		t.Error("nothing was told, and something measured")
	}
}

func TestARegionAheadOfMostTakesNoWritesUntilItIsNot(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const far, near = -800 * time.Millisecond, -400 * time.Millisecond // as seen from a region that is ahead
	for name, c := range map[string]struct {
		offsets []time.Duration // of the others
		fenced  bool
	}{
		"alone":                       {nil, false},
		"of two":                      {[]time.Duration{far}, false},
		"ahead of both others":        {[]time.Duration{far, far}, true},
		"ahead of one":                {[]time.Duration{far, near}, false},
		"behind both others":          {[]time.Duration{-far, -far}, false},
		"near both":                   {[]time.Duration{near, near}, false},
		"ahead of two of four others": {[]time.Duration{far, far, near, near}, false},
		"of three of four":            {[]time.Duration{far, far, far, near}, true},
		"ahead of one of three":       {[]time.Duration{far, near, near}, false},
		"ahead of three of three":     {[]time.Duration{far, far, far}, true},
	} {
		r := newReplicator(nil, func() time.Time { return now }, task.Goroutines, slog.New(slog.DiscardHandler))
		var peers []*peer
		for i := range c.offsets {
			p := &peer{name: string(rune('a' + i))}
			r.peers[p.name] = p
			peers = append(peers, p)
		}
		for i, p := range peers {
			r.noteOffset(p, offset{by: c.offsets[i], within: 100 * time.Millisecond, at: now})
		}
		if err := r.Fenced(t.Context()); (err != nil) != c.fenced {
			t.Errorf("%s: %v", name, err)
		}
		if len(peers) == 0 {
			continue
		}
		// A peer that has come near ends it, and so does silence, which tells nothing.
		later := now.Add(2 * offsetGood)
		r.now = func() time.Time { return later }
		if r.noteOffset(peers[0], offset{by: near, within: 0, at: later}); r.Fenced(t.Context()) != nil {
			t.Errorf("%s: still fenced when the others have not been heard from", name)
		}
	}
}

func TestAnOffsetIsGradedByWhatIsSure(t *testing.T) {
	for by, want := range map[time.Duration]time.Duration{
		0: 0, 105 * time.Millisecond: 0, 111 * time.Millisecond: warnClockOffset, -111 * time.Millisecond: warnClockOffset,
		-300 * time.Millisecond: alarmClockOffset, 600 * time.Millisecond: maxClockOffset,
	} {
		if got := grade(offset{by: by, within: 10 * time.Millisecond}); got != want {
			t.Errorf("%s: beyond %s, want %s", by, got, want)
		}
	}
}
