package table

import (
	"testing"
	"time"
)

// Four decreases may be made at any time of a UTC day, then one an hour after the last; at midnight all begins anew.
func TestDecreasesAreLimitedWithinADay(t *testing.T) {
	at := func(clock string) time.Time {
		now, err := time.Parse(time.DateTime, clock)
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	var s Scaled
	down := func(now time.Time) { s = s.Change(Throughput{10, 10}, Throughput{9, 10}, now) }
	for i, clock := range []string{"2026-10-09 00:10:00", "2026-10-09 00:11:00", "2026-10-09 00:12:00", "2026-10-09 00:21:34"} {
		now := at(clock)
		if next := s.NextDecrease(now); !next.Equal(now) || s.Today(now) != int64(i) {
			t.Fatalf("decrease %d: may be made at %v, there were %d", i, next, s.Today(now))
		}
		down(now)
	}
	now := at("2026-10-09 01:00:20")
	if next := s.NextDecrease(now); !next.Equal(at("2026-10-09 01:21:34")) || s.Today(now) != 4 {
		t.Errorf("the fifth may be made at %v, behind %d", next, s.Today(now))
	}
	now = at("2026-10-09 01:21:34")
	if next := s.NextDecrease(now); !next.Equal(now) {
		t.Errorf("an hour later it may be made at %v", next)
	}
	down(now)
	if next := s.NextDecrease(now); !next.Equal(at("2026-10-09 02:21:34")) || s.Today(now) != 5 {
		t.Errorf("the sixth may be made at %v", next)
	}
	down(at("2026-10-09 23:30:00"))
	if next := s.NextDecrease(at("2026-10-09 23:40:00")); !next.Equal(at("2026-10-10 00:00:00")) {
		t.Errorf("before midnight: %v", next)
	}
	now = at("2026-10-10 00:00:00")
	if next := s.NextDecrease(now); !next.Equal(now) || s.Today(now) != 0 {
		t.Errorf("at midnight: %v, %d", next, s.Today(now))
	}
}

func TestAChangeIsAnIncreaseADecreaseOrBoth(t *testing.T) {
	now := time.UnixMilli(1_760_000_000_000)
	for _, c := range []struct {
		to       Throughput
		up, down bool
	}{
		{Throughput{6, 5}, true, false}, {Throughput{5, 6}, true, false}, {Throughput{4, 5}, false, true},
		{Throughput{4, 6}, true, true}, {Throughput{4, 4}, false, true}, {Throughput{6, 6}, true, false},
	} {
		s := Scaled{}.Change(Throughput{5, 5}, c.to, now)
		if (s.Up != 0) != c.up || (s.Down != 0) != c.down || s.Downs != map[bool]int64{true: 1}[c.down] {
			t.Errorf("5/5 to %d/%d: %+v", c.to.Read, c.to.Write, s)
		}
	}
}

func TestWarmThroughputNeverFalls(t *testing.T) {
	for _, c := range []struct {
		before      Throughput
		billing     Billing
		provisioned Throughput
		want        Throughput
	}{
		{Throughput{}, OnDemand, Throughput{}, Throughput{12000, 4000}},
		{Throughput{13000, 1}, OnDemand, Throughput{}, Throughput{13000, 4000}},
		{Throughput{}, Provisioned, Throughput{5, 6}, Throughput{5, 6}},
		{Throughput{10, 1}, Provisioned, Throughput{5, 6}, Throughput{10, 6}},
		{Throughput{12000, 4000}, Provisioned, Throughput{1, 1}, Throughput{12000, 4000}},
	} {
		if got := Warm(c.before, c.billing, c.provisioned); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}
