package crdt

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Property 1: join is commutative, associative and idempotent on states that can be reached, folded or
// not, whole or deltas, down to their bytes.

// Single deltas out of order break FIFO per origin, so Join may not be asked to take them: what it
// skips as seen would be missing. The join beneath it must hold even then.
func joined(states ...*Record) *Record {
	out := new(Record)
	for _, s := range states {
		out.join(s)
	}
	out.forget()
	return out
}

func joinedPublicly(states ...*Record) *Record {
	out := new(Record)
	for _, s := range states {
		out.Join(s)
	}
	return out
}

func laws(src source, p profile) (log []string, complaint string) {
	w := newWorld(src, p)
	var states, whole []*Record
	for range p.steps {
		if err := w.step(); err != nil {
			return w.log, err.Error()
		}
		r := w.regions[src.pick(len(w.regions))]
		if r.rec != nil && !r.dropped {
			c := *r.rec
			states, whole = append(states, &c), append(whole, &c)
		}
		if n := len(r.stream); n > 0 && r.stream[n-1].delta != nil {
			d, err := Decode(r.stream[n-1].delta)
			if err != nil {
				return w.log, err.Error()
			}
			states = append(states, d)
		}
	}
	if len(states) == 0 {
		return nil, ""
	}
	bytesOf := func(r *Record) []byte { return r.Append(nil) }
	for range 10 {
		a, b, c := states[src.pick(len(states))], states[src.pick(len(states))], states[src.pick(len(states))]
		ab, ba := bytesOf(joined(a, b)), bytesOf(joined(b, a))
		if !bytes.Equal(ab, ba) {
			return w.log, "not commutative"
		}
		if !bytes.Equal(bytesOf(joined(a, b, c)), bytesOf(joined(a, joined(b, c)))) {
			return w.log, "not associative"
		}
		x := joined(a, b)
		x.join(a)
		x.forget()
		if !bytes.Equal(bytesOf(x), ab) {
			return w.log, "not idempotent"
		}
		if len(whole) == 0 {
			continue
		}
		a, b, c = whole[src.pick(len(whole))], whole[src.pick(len(whole))], whole[src.pick(len(whole))]
		abc := bytesOf(joinedPublicly(a, b, c))
		if !bytes.Equal(abc, bytesOf(joinedPublicly(c, joinedPublicly(b, a)))) || !bytes.Equal(abc, bytesOf(joinedPublicly(b, c, a))) {
			return w.log, "Join of whole states is no semilattice"
		}
	}
	return nil, ""
}

var lawProfiles = map[string]profile{
	"unfolded": {steps: 40, mixed: true, deletes: true, expiries: true, modes: true, late: true},
	"folded":   {steps: 60, mixed: true, deletes: true, expiries: true, modes: true, late: true, folds: true},
	"hot":      {steps: 120, mixed: true, deletes: true, expiries: true, modes: true, late: true, folds: true, hot: true},
	"half hot": {steps: 120, mixed: true, deletes: true, expiries: true, modes: true, late: true, folds: true, halfHot: true},
}

func TestJoinIsCommutativeAssociativeAndIdempotent(t *testing.T) {
	for name, p := range lawProfiles {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				if log, complaint := laws(fromRapid{t}, p); complaint != "" {
					t.Fatalf("%s\n%s", complaint, strings.Join(log, "\n"))
				}
			})
			for seed := *firstSeed; seed < *firstSeed+uint64(*histories); seed++ {
				if log, complaint := laws(fromSeed{rand.New(rand.NewPCG(seed, 2))}, p); complaint != "" {
					t.Fatalf("seed %d: %s\n%s", seed, complaint, strings.Join(log, "\n"))
				}
			}
		})
	}
}
