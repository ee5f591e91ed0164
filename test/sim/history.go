package sim

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/replication"
)

// history is what happened as the outside saw it: every operation of a client's, and every change that was shipped.
type history struct {
	ops    []*operation
	byMark map[string]*operation

	changes  map[stamped]*change // of all global tables
	dots     []stamped           // in the order of their first shipping
	byItem   map[writesTo][]crdt.Dot
	arrived  map[arrival]time.Duration
	seeded   map[*regionOf][]time.Duration // when a region was seeded anew
	leaders  map[leadership]*machine
	renewals map[incarnation]*renewal
	lonely   map[string]*renewal // by mark: operations whose changes were a region's alone when it was given up
	begun    bool                // the tables are set up
}

// outcome is what a client knows of an operation.
type outcome int

const (
	unknown  outcome = iota // no answer, or one that says nothing: it may take effect at any time
	done                    // acknowledged
	refused                 // its condition did not hold; it had no effect
	rejected                // refused for another reason; it had no effect
)

var outcomeNames = [...]string{"unknown", "done", "condition failed", "rejected"}

// operation is one request of a client's.
type operation struct {
	n        int
	mark     string // unique; every write leaves it in the item
	kind     opKind
	table    string
	key      string
	region   *regionOf
	client   int
	invoked  time.Duration
	returned time.Duration
	outcome  outcome

	delta  int      // counters
	elems  []string // sets
	expect string   // conditional writes: the value that must be there, "" for none
	before entry    // what the answer showed of the item
	known  bool     // before is known
	why    string   // of rejected and unknown
}

// entry is an item of a register: present, its mark, and its number.
type entry struct {
	there bool
	mark  string
	n     int
}

// writesTo are one actor's writes to an item.
type writesTo struct {
	actor crdt.Actor
	key   string
}

// stamped names a change: partitions of one region may give two items' writes one stamp.
type stamped struct {
	crdt.Dot
	key string
}

// change is one change of an origin's as its log gave it to be shipped.
type change struct {
	origin *regionOf
	delta  []byte
	marks  []string
	former incarnation   // whose log had it when it was given up; of no region: none
	stream string        // then
	from   string        // the stream that it was read from
	at     time.Duration // when, first
	lost   bool          // its origin has lost it: former is the incarnation that it was at most
}

func newHistory() *history {
	return &history{byMark: map[string]*operation{}, changes: map[stamped]*change{}, byItem: map[writesTo][]crdt.Dot{}, arrived: map[arrival]time.Duration{}, seeded: map[*regionOf][]time.Duration{}, leaders: map[leadership]*machine{}, renewals: map[incarnation]*renewal{}, lonely: map[string]*renewal{}}
}

// markPrefix begins every operation's mark; markSize is its length.
const (
	markPrefix = "op-"
	markSize   = len(markPrefix) + 6
)

func (h *history) begin(o *operation) *operation {
	o.n = len(h.ops)
	o.mark = fmt.Sprintf("%s%06d", markPrefix, o.n)
	h.ops = append(h.ops, o)
	h.byMark[o.mark] = o
	return o
}

// marksIn returns every mark in stored bytes.
func marksIn(b []byte) (marks []string) {
	for {
		i := bytes.Index(b, []byte(markPrefix))
		if i < 0 || len(b) < i+markSize {
			return marks
		}
		m := string(b[i : i+markSize])
		if !strings.ContainsFunc(m[len(markPrefix):], func(r rune) bool { return r < '0' || r > '9' }) {
			marks = append(marks, m)
		}
		b = b[i+markSize:]
	}
}

// shipped notes what an origin has read to be sent to a follower, before it is combined.
func (w *world) shipped(origin *regionOf, to replication.Resume, b replication.Batch) {
	h := w.history
	w.tracef("   %s ships %d changes in (%d, %d] to %s", origin.name, len(b.Changes), b.After, b.Seq, to.Region)
	for _, c := range b.Changes {
		dot := stamped{crdt.PeekDot(c.Delta), string(c.Key)}
		if have := h.changes[dot]; have != nil && !bytes.Equal(have.delta, c.Delta) {
			w.violate("%s ships two changes of an item stamped %v: %v and %v", origin.name, dot.Dot, have.marks, marksIn(c.Delta))
		}
		if have := h.changes[dot]; have != nil && have.origin != origin {
			w.violate("%s ships %v, which is %s's", origin.name, dot.Dot, have.origin.name)
		}
		if h.changes[dot] == nil {
			h.changes[dot] = &change{origin: origin, delta: bytes.Clone(c.Delta), marks: marksIn(c.Delta), from: replication.StreamName(origin.name, to.Instance, to.Partition), at: w.now}
			h.dots = append(h.dots, dot)
			of := writesTo{dot.Actor, string(c.Key)}
			h.byItem[of] = append(h.byItem[of], dot.Dot)
		}
	}
}
