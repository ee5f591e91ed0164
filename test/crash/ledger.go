package crash

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/commutatordb/commutator/crdt"
)

// State is what one client has made of the region: its tables, when it makes any, and its items.
type State struct {
	Tables string            // names, each with its indexes; "-" for a client that makes none
	Items  map[string]string // "table/sort key" -> item in stored form
}

func (s State) equal(o State) bool { return s.Tables == o.Tables && maps.Equal(s.Items, o.Items) }

// String writes the state for people.
func (s State) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tables %q", s.Tables)
	for _, key := range slices.Sorted(maps.Keys(s.Items)) {
		fmt.Fprintf(&b, "\n  %s = %q", key, s.Items[key])
	}
	return b.String()
}

// with returns the state with an item set, or gone ("").
func (s State) with(key, stored string) State {
	items := maps.Clone(s.Items)
	if items == nil {
		items = map[string]string{}
	}
	if items[key] = stored; stored == "" {
		delete(items, key)
	}
	return State{s.Tables, items}
}

// Ledger is the history of one client: every state that it has asked for, in order, and how many of them were
// acknowledged. A client asks for one thing at a time.
type Ledger struct {
	Client string

	mu     sync.Mutex
	states []State // states[0] is how it began
	acked  int
	stamp  crdt.HLC // the newest that an acknowledged write was given
}

func newLedger(client, tables string) *Ledger {
	return &Ledger{Client: client, states: []State{{Tables: tables}}}
}

func (l *Ledger) last() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[len(l.states)-1]
}

// ask notes what is about to be asked for, and returns its number.
func (l *Ledger) ask(s State) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = append(l.states, s)
	return len(l.states) - 1
}

// ack notes that all that was asked for has been acknowledged, with a stamp if it was a write.
func (l *Ledger) ack(stamp crdt.HLC) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = len(l.states) - 1
	l.stamp = max(l.stamp, stamp)
}

// Span is what one client's part of the region may be at one moment.
type Span struct {
	Client string
	First  int // number of states[0] in the ledger: the last one acknowledged
	states []State
	stamp  crdt.HLC
}

// Acked begins the spans of the ledgers: what is acknowledged now must be there. Asked ends them.
func Acked(ls []*Ledger) []Span {
	out := make([]Span, len(ls))
	for i, l := range ls {
		l.mu.Lock()
		out[i] = Span{Client: l.Client, First: l.acked, stamp: l.stamp}
		l.mu.Unlock()
	}
	return out
}

// Asked ends spans: nothing that was not asked for by now may be there.
func Asked(ls []*Ledger, spans []Span) {
	for i, l := range ls {
		l.mu.Lock()
		spans[i].states = slices.Clone(l.states[spans[i].First:])
		l.mu.Unlock()
	}
}

// find returns the number in the ledger of the state got, or an error when it is none of the span.
func (s Span) find(got State) (int, error) {
	for i := len(s.states) - 1; i >= 0; i-- {
		if s.states[i].equal(got) {
			return s.First + i, nil
		}
	}
	return 0, fmt.Errorf("client %s: found is none of its states %d to %d\nfound %v\nacknowledged %v", s.Client, s.First, s.First+len(s.states)-1, got, s.states[0])
}
