package crdt

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/commutatordb/commutator/item"
)

// source is where a history's choices come from: rapid, which shrinks what fails, or a seeded generator,
// which is faster.
type source interface{ pick(n int) int }

// profile bounds a history.
type profile struct {
	steps    int
	mixed    bool // one path may take values of different types
	deletes  bool
	expiries bool
	modes    bool
	folds    bool
	numbers  bool // only writes to numbers
	late     bool // a region joins
	hot      bool // written to without a pause: folded at the end alone
	halfHot  bool // in some regions; others fold
	oracle   bool
	shadow   bool
}

// region is one region's copy of the item and its stream.
type region struct {
	actor   Actor
	clock   Clock
	rec     *Record // nil: the key is not held
	shadow  *Record // the same writes, never folded
	applied Vector
	heard   []Vector // by region
	stable  HLC
	pos     []int // by region: how far its stream is applied
	stream  []entryLog
	dropped bool // the record was gone once: what came since lacks the stable delete
	held    writes
}

type entryLog struct {
	hlc   HLC
	delta []byte // nil: a heartbeat
	event int
	heard Vector
}

// world is a group of regions that write one item.
type world struct {
	src     source
	p       profile
	now     HLC
	regions []*region
	h       history
	log     []string
	checks  int
	settled bool
	folded  int // folds that did something
	gone    int // of them, records dropped

	trimmed  int // pieces let go before a fold
	combined int // deltas that were received as part of another
}

func newWorld(src source, p profile) *world {
	w := &world{src: src, p: p, now: 1000}
	for n := 2 + src.pick(3); n > 0; n-- {
		w.join(nil)
	}
	return w
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// join adds a region; from gives it its state.
func (w *world) join(from *region) {
	r := &region{actor: Actor(len(w.regions)+1)<<10 | Actor(len(w.regions))}
	if from != nil {
		r.clock.Last = from.clock.Last
		r.applied, r.stable, r.held = from.applied, from.stable, from.held
		r.pos = append([]int(nil), from.pos...)
		r.heard = append([]Vector(nil), from.heard...)
		r.dropped = from.dropped
		if from.rec != nil {
			rec, err := Decode(from.rec.Append(nil))
			if err != nil {
				panic(err)
			}
			r.rec = rec
		}
		if from.shadow != nil {
			c := *from.shadow
			r.shadow = &c
		}
	} else {
		r.pos = make([]int, len(w.regions))
		r.heard = make([]Vector, len(w.regions))
	}
	w.regions = append(w.regions, r)
	for _, o := range w.regions {
		o.pos = append(o.pos, 0)
		o.heard = append(o.heard, Vector{})
	}
	if from != nil {
		// The copy was taken from `from` with its own writes in it.
		for i, o := range w.regions {
			if o == from {
				r.pos[i] = len(from.stream)
				r.applied.Set(from.actor, from.clock.Last)
			}
		}
	}
}

func (w *world) index(r *region) int {
	for i, o := range w.regions {
		if o == r {
			return i
		}
	}
	panic("no region")
}

func (w *world) tick(r *region) HLC {
	w.now += HLC(w.src.pick(3))
	h := r.clock.Next(w.now + HLC(w.src.pick(4)))
	r.applied.Set(r.actor, h)
	return h
}

// step does one thing and returns a complaint.
func (w *world) step() error {
	r := w.regions[w.src.pick(len(w.regions))]
	switch k := w.src.pick(22); {
	case k >= 20 || (w.p.hot || w.p.halfHot) && k == 7:
		return w.calm()
	case k < 8:
		return w.write(r)
	case k < 14:
		from := w.regions[w.src.pick(len(w.regions))]
		for n := 1 + w.src.pick(3); n > 0; n-- {
			if err := w.deliver(r, from); err != nil {
				return err
			}
		}
	case k < 15:
		return w.replay(r, w.regions[w.src.pick(len(w.regions))])
	case k < 16:
		return w.exchange(r, w.regions[w.src.pick(len(w.regions))])
	case k < 18:
		w.heartbeat(r)
	default:
		if w.p.late && len(w.regions) < 5 && w.src.pick(10) == 0 {
			w.logf("region %d joins from %d", len(w.regions), w.index(r))
			w.join(r)
			return nil
		}
		return w.fold(r)
	}
	return nil
}

// calm lets streams run dry, all or but for one pair, so that stable times get somewhere: without it
// histories of this length hardly ever fold anything while regions still write.
func (w *world) calm() error {
	if !w.p.folds || w.src.pick(2) == 0 {
		return nil
	}
	w.logf("calm")
	for range 2 {
		for _, r := range w.regions {
			w.heartbeat(r)
		}
		away, from := w.src.pick(2*len(w.regions)), w.src.pick(len(w.regions))
		for i, to := range w.regions {
			for j, o := range w.regions {
				for to.pos[j] < len(o.stream) && i != j && (i != away || j != from) {
					if err := w.deliver(to, o); err != nil {
						return err
					}
				}
			}
		}
	}
	return w.fold(w.regions[w.src.pick(len(w.regions))])
}

func (w *world) heartbeat(r *region) {
	h := w.tick(r)
	r.stream = append(r.stream, entryLog{hlc: h, heard: r.applied})
}

func (w *world) visible(r *region) (item.Item, bool) {
	if r.rec == nil {
		return nil, false
	}
	b, ok := r.rec.Visible()
	if !ok {
		return nil, false
	}
	it, err := item.DecodeItem(b)
	if err != nil {
		panic(err)
	}
	return it, true
}

func (w *world) write(r *region) error {
	if len(w.h.events) >= 200 {
		return nil
	}
	it, ok := w.visible(r)
	if w.p.oracle {
		if want, wantOK := w.h.visible(r.held); !sameItem(item.AppendItem(nil, it), ok, want, wantOK) {
			return nil // a fold shows in a state with gaps: see check
		}
	}
	wr, did := w.random(it, ok)
	if !did {
		return nil
	}
	wr.Dot = Dot{w.tick(r), r.actor}
	wr.Stable = r.stable
	if w.src.pick(8) == 0 {
		wr.Conditional = true
	}
	if w.src.pick(8) == 0 {
		wr.Transaction = Transaction{ID: [16]byte{byte(wr.Dot.HLC)}, Items: 2}
	}
	w.logf("region %d writes #%d %v %v: %s", w.index(r), len(w.h.events), wr.Op, wr.Dot.HLC, describe(wr))
	return w.apply(r, wr)
}

func (w *world) apply(r *region, wr Write) error {
	e := &event{n: len(w.h.events)}
	if w.p.oracle {
		e = w.h.write(r.held, wr, r.rec == nil)
	} else {
		w.h.events = append(w.h.events, e)
	}
	w.open(r)
	delta := r.rec.Write(wr)
	r.held.add(e.n)
	b := delta.Append(nil)
	if back, err := Decode(b); err != nil || !bytes.Equal(back.Append(nil), b) {
		return fmt.Errorf("delta of #%d does not decode to itself: %v", e.n, err)
	}
	r.stream = append(r.stream, entryLog{wr.Dot.HLC, b, e.n, r.applied})
	if w.p.shadow {
		d, _ := Decode(b)
		if r.shadow == nil {
			r.shadow = new(Record)
		}
		r.shadow.Join(d)
	}
	// Property 6: what the client sees is what sequential semantics give.
	got, ok := r.rec.Visible()
	if wr.Op == Delete || wr.Op == Expire {
		if ok {
			return fmt.Errorf("#%d: visible after a delete", e.n)
		}
	} else {
		fresh := *r.rec
		fresh.forget()
		again, _ := fresh.Visible()
		if !ok || !bytes.Equal(got, wr.Item) || !bytes.Equal(again, wr.Item) {
			return fmt.Errorf("#%d: shows %s, computed %s, sequential semantics give %s", e.n, show(got, ok), show(again, true), show(wr.Item, true))
		}
	}
	return w.check(r)
}

func (w *world) deliver(to, from *region) error {
	if to == from {
		return nil
	}
	i := w.index(from)
	if to.pos[i] >= len(from.stream) {
		return nil
	}
	l := from.stream[to.pos[i]]
	to.pos[i]++
	to.clock.Observe(l.hlc)
	to.applied.Set(to.actor, to.clock.Last)
	to.applied.Set(from.actor, l.hlc)
	to.heard[i] = l.heard
	if l.delta == nil {
		return nil
	}
	w.logf("region %d receives #%d", w.index(to), l.event)
	events := []int{l.event}
	for to.pos[i] < len(from.stream) && from.stream[to.pos[i]].delta != nil && w.src.pick(3) > 0 {
		next := from.stream[to.pos[i]]
		combined, ok, err := Combine(l.delta, next.delta)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		w.logf("region %d receives #%d with it", w.index(to), next.event)
		w.combined++
		l.delta = combined
		to.pos[i]++
		to.clock.Observe(next.hlc)
		to.applied.Set(to.actor, to.clock.Last)
		to.applied.Set(from.actor, next.hlc)
		to.heard[i] = next.heard
		events = append(events, next.event)
	}
	if err := w.receive(to, l); err != nil {
		return err
	}
	for _, e := range events {
		to.held.add(e)
	}
	return w.check(to)
}

func (w *world) receive(to *region, l entryLog) error {
	d, err := Decode(l.delta)
	if err != nil {
		return err
	}
	if d.Stale(to.stable) {
		return nil // it was here once: as a delta it has nothing new, whether the key is held or not
	}
	if w.p.shadow {
		if to.shadow == nil {
			to.shadow = new(Record)
		}
		to.shadow.Join(d)
	}
	w.open(to)
	to.rec.Join(d)
	return nil
}

// open is what every write and join begins with.
func (w *world) open(r *region) {
	if r.rec == nil {
		r.rec = new(Record)
	}
	if pieces := r.rec.pieces(); pieces > 0 && w.p.folds {
		r.rec.Trim(r.stable)
		w.trimmed += pieces - r.rec.pieces()
	}
}

// pieces counts what a record holds below its root.
func (r *Record) pieces() (n int) {
	for i := range r.nodes {
		p := &r.nodes[i]
		n += len(p.sums) + len(p.adds) + len(p.removes) + len(p.appends)
		if p.assign.present() {
			n++
		}
	}
	return n
}

// replay delivers an old delta again: nothing may change.
func (w *world) replay(to, from *region) error {
	i := w.index(from)
	if to == from || to.pos[i] == 0 {
		return nil
	}
	l := from.stream[w.src.pick(to.pos[i])]
	if l.delta == nil {
		return nil
	}
	before, ok := w.visible(to)
	if err := w.receive(to, l); err != nil {
		return err
	}
	after, ok2 := w.visible(to)
	if !sameItem(item.AppendItem(nil, before), ok, after, ok2) {
		return fmt.Errorf("region %d: #%d delivered again changed the item", w.index(to), l.event)
	}
	return nil
}

// exchange gives one region the whole state of another.
func (w *world) exchange(to, from *region) error {
	if to == from || from.rec == nil {
		return nil
	}
	d, err := Decode(from.rec.Append(nil))
	if err != nil {
		return fmt.Errorf("whole state does not decode: %v", err)
	}
	if to.rec == nil && d.Stale(to.stable) {
		return nil
	}
	w.logf("region %d takes the whole state of %d", w.index(to), w.index(from))
	to.clock.Observe(d.Newest().HLC)
	to.applied.Set(to.actor, to.clock.Last)
	w.open(to)
	to.rec.Join(d)
	if w.p.shadow && from.shadow != nil {
		if to.shadow == nil {
			to.shadow = new(Record)
		}
		to.shadow.Join(from.shadow)
	}
	to.held.union(from.held)
	return w.check(to)
}

func (w *world) stableAt(r *region) HLC {
	var origins []Actor
	heard := make([]Vector, 0, len(w.regions))
	for i, o := range w.regions {
		origins = append(origins, o.actor)
		if o == r {
			heard = append(heard, r.applied)
		} else {
			heard = append(heard, r.heard[i])
		}
	}
	return Stable(origins, heard...)
}

func (w *world) fold(r *region) error {
	if !w.p.folds {
		return nil
	}
	r.stable = max(r.stable, w.stableAt(r))
	if r.rec == nil {
		return nil
	}
	if (w.p.hot || w.p.halfHot && w.index(r)%2 == 0) && !w.settled {
		w.logf("region %d knows that %d is stable", w.index(r), r.stable)
		w.open(r)
		return w.check(r)
	}
	before, ok := w.visible(r)
	was := *r.rec
	gone := r.rec.Fold(r.stable)
	w.open(r)
	if gone || r.rec.Seen().floor != was.Seen().floor {
		w.folded++
	}
	if gone {
		w.gone++
	}
	w.logf("region %d folds at %d, newest %v", w.index(r), r.stable, was.Newest().HLC)
	after, ok2 := w.visible(r)
	if !sameItem(item.AppendItem(nil, before), ok, after, ok2) || gone && ok {
		return fmt.Errorf("region %d: folding changed the item", w.index(r))
	}
	fresh := *r.rec
	fresh.forget()
	if again, _ := fresh.Visible(); ok && !bytes.Equal(again, item.AppendItem(nil, before)) {
		return fmt.Errorf("region %d: folded form shows %s, before %s", w.index(r), show(again, true), show(item.AppendItem(nil, before), true))
	}
	if gone {
		r.rec = nil
		r.dropped = true
	}
	return w.check(r)
}

// check compares what a region shows with the oracle and with its shadow. A folded record may show
// otherwise than an unfolded one only while writes are held whose causes are not: an item can look
// different for as long as the assignment that an edit was made on is still on its way.
func (w *world) check(r *region) error {
	w.checks++
	i := w.index(r)
	got, ok := w.visible(r)
	gotBytes := item.AppendItem(nil, got)
	if w.p.shadow && r.shadow != nil {
		sb, sok := r.shadow.Visible()
		if w.p.oracle {
			want, wantOK := w.h.visible(r.held)
			if !sameItem(sb, sok, want, wantOK) {
				return fmt.Errorf("region %d: unfolded shows %s, the history %s", i, show(sb, sok), show(item.AppendItem(nil, want), wantOK))
			}
			if w.h.closed(r.held) && !sameItem(gotBytes, ok, want, wantOK) {
				return fmt.Errorf("region %d: shows %s, the history %s", i, show(gotBytes, ok), show(item.AppendItem(nil, want), wantOK))
			}
		}
	}
	if r.rec == nil {
		return nil
	}
	// The stored form.
	b := r.rec.Append(nil)
	back, err := Decode(b)
	if err != nil {
		return fmt.Errorf("region %d: stored form does not decode: %v\n%x", i, err, b)
	}
	if !bytes.Equal(back.Append(nil), b) {
		return fmt.Errorf("region %d: stored form changes", i)
	}
	peeked, pok, err := PeekVisible(b)
	if err != nil || pok != ok || ok && !bytes.Equal(peeked, gotBytes) || PeekDot(b) != r.rec.Newest() {
		return fmt.Errorf("region %d: PeekVisible differs", i)
	}
	fresh := *back
	fresh.forget()
	if again, aok := fresh.Visible(); aok != ok || ok && !bytes.Equal(again, gotBytes) {
		return fmt.Errorf("region %d: shows %s, computed again %s", i, show(gotBytes, ok), show(again, aok))
	}
	if w.p.shadow && w.p.folds && r.shadow != nil && (!w.p.oracle || w.h.closed(r.held)) {
		// The same writes, folded and not, come out equal when joined.
		x, y := *r.rec, *r.shadow
		x.Join(r.shadow)
		y.Join(r.rec)
		xv, xok := x.Visible()
		if yv, yok := y.Visible(); xok != ok || yok != ok || !bytes.Equal(xv, yv) || ok && !bytes.Equal(xv, gotBytes) {
			return fmt.Errorf("region %d: shows %s, joined with unfolded %s and %s", i, show(gotBytes, ok), show(xv, xok), show(yv, yok))
		}
		if xb, yb := x.Append(nil), y.Append(nil); !bytes.Equal(xb, yb) && !r.dropped {
			return fmt.Errorf("region %d: folded joined with unfolded differs by order\n%x\n%x\n%+v\n%+v", i, xb, yb, x, y)
		}
		if xb := x.Append(nil); !bytes.Equal(xb, b) && r.rec.Seen().floor != (Dot{}) && !r.dropped {
			return fmt.Errorf("region %d: folded joined with unfolded is not the folded\n%x\n%x\n%+v\n%+v", i, xb, b, x, *r.rec)
		}
	}
	return nil
}

// settle delivers everything and compares all regions, then folds everywhere and compares bytes.
func (w *world) settle() error {
	for _, to := range w.regions {
		for _, from := range w.regions {
			for to != from && to.pos[w.index(from)] < len(from.stream) {
				if err := w.deliver(to, from); err != nil {
					return err
				}
			}
		}
	}
	first, firstOK := w.visible(w.regions[0])
	for i, r := range w.regions[1:] {
		if it, ok := w.visible(r); !sameItem(item.AppendItem(nil, it), ok, first, firstOK) {
			return fmt.Errorf("settled: region %d shows %s, region 0 %s", i+1, show(item.AppendItem(nil, it), ok), show(item.AppendItem(nil, first), firstOK))
		}
	}
	if !w.p.folds {
		for i, r := range w.regions[1:] {
			if a, b := w.regions[0].rec, r.rec; a != nil && b != nil && !bytes.Equal(a.Append(nil), b.Append(nil)) {
				return fmt.Errorf("settled: regions 0 and %d hold the same writes in different bytes\n%x\n%x", i+1, a.Append(nil), b.Append(nil))
			}
		}
		return nil
	}
	for range 3 {
		for _, r := range w.regions {
			w.heartbeat(r)
		}
		for _, to := range w.regions {
			for _, from := range w.regions {
				for to != from && to.pos[w.index(from)] < len(from.stream) {
					if err := w.deliver(to, from); err != nil {
						return err
					}
				}
			}
		}
	}
	var want []byte
	w.settled = true
	for i, r := range w.regions {
		if err := w.fold(r); err != nil {
			return err
		}
		if (r.rec != nil) != firstOK {
			return fmt.Errorf("quiescent: region %d holds a record: %v, visible: %v", i, r.rec != nil, firstOK)
		}
		if r.rec == nil {
			continue
		}
		b := r.rec.Append(nil)
		if want == nil {
			want = b
		}
		if !bytes.Equal(b, want) {
			return fmt.Errorf("quiescent: region %d has %x, region 0 %x\n%+v", i, b, want, *r.rec)
		}
		if err := w.bounded(r.rec, b); err != nil {
			return err
		}
	}
	return nil
}

// bounded is property 7: after quiescence a record costs a dot, and a counter an entry for each region.
func (w *world) bounded(r *Record, b []byte) error {
	shown, _ := r.Visible()
	if len(r.nodes) == 0 {
		if len(b) > len(shown)+headerSize {
			return fmt.Errorf("quiescent: %d bytes beyond the item", len(b)-len(shown))
		}
		return nil
	}
	for _, n := range r.nodes {
		if len(n.removes) > 0 {
			return fmt.Errorf("quiescent: %v keeps removes", n.path)
		}
		if !w.p.mixed && !w.p.modes && (len(n.sums) == 0 || len(n.appends) > 0 || len(n.adds) > 0) {
			return fmt.Errorf("quiescent: %v is kept, and is no counter: %+v", n.path, n)
		}
		if len(n.sums) > len(w.regions) {
			return fmt.Errorf("quiescent: %v keeps %d sums for %d regions", n.path, len(n.sums), len(w.regions))
		}
	}
	return nil
}

func show(b []byte, ok bool) string {
	if !ok {
		return "nothing"
	}
	it, err := item.DecodeItem(b)
	if err != nil {
		return fmt.Sprintf("%x", b)
	}
	return text(it.AsMap())
}

func text(v item.Value) string {
	switch k := v.Kind(); {
	case k == item.KindAbsent:
		return "-"
	case k == item.KindS:
		return fmt.Sprintf("%q", v.Str())
	case k == item.KindN:
		return v.Number().String()
	case k == item.KindM:
		var parts []string
		for _, f := range v.Fields() {
			parts = append(parts, f.Name+":"+text(f.Value))
		}
		return "{" + strings.Join(parts, " ") + "}"
	case k == item.KindBOOL:
		return fmt.Sprint(v.Bool())
	case k == item.KindNULL:
		return "NULL"
	}
	var parts []string
	for _, e := range v.Elems() {
		parts = append(parts, text(e))
	}
	return v.Kind().String() + "(" + strings.Join(parts, " ") + ")"
}

var kindText = map[item.ChangeKind]string{item.Assign: "SET", item.Increment: "INC", item.AddElements: "ADD", item.RemoveElements: "DELETE", item.Append: "APPEND"}

func describe(w Write) string {
	s := ""
	if w.Modes.Table == LastWriterWins {
		s = "lww "
	}
	if len(w.Modes.Attributes) > 0 {
		s += fmt.Sprint(w.Modes.Attributes, " ")
	}
	for _, c := range w.Changes {
		s += fmt.Sprintf("%s %s %s, ", kindText[c.Kind], strings.Join(c.Path, "."), text(c.Value))
	}
	if w.Item != nil {
		s += "-> " + show(w.Item, true)
	}
	return s
}
