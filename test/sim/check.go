package sim

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// check judges a healed world.
func (w *world) check() {
	if !w.settle() {
		return
	}
	w.checkReplicas()
	w.checkRegisters(w.checkHistory())
	w.checkBackups()
	w.checkSolo()
	w.checkBounds()
	w.countSplits()
	w.checkAlike()
}

const markKey = "mark-"

// settle writes a mark in every region and waits until every region shows all of them: streams are in order, so then everything
// before has arrived too.
func (w *world) settle() bool {
	marks := 0
	for _, r := range w.regions {
		w.clients.proc.Go(func() {
			for i := 0; ; i++ {
				o := &operation{region: r, table: shared, key: markKey + r.name, kind: opPut}
				if w.do(o); o.outcome == done {
					marks++
					return
				}
				w.clients.proc.Wait(context.Background(), nil, 100*time.Millisecond)
			}
		})
	}
	if !w.runUntil(settleLimit, func() bool { return marks == len(w.regions) || len(w.violations) > 0 }) {
		w.violate("a region takes no write within %s of being healed", settleLimit)
		return false
	}
	return w.comesTo("settled", w.apart) && w.comesTo("of one mind", w.unlike) && w.comesTo("at rest", w.unrested)
}

// comesTo waits until a look at the world finds nothing missing.
func (w *world) comesTo(state string, missing func() string) bool {
	next := w.now
	var why string
	if !w.runUntil(settleLimit, func() bool {
		if w.now < next {
			return len(w.violations) > 0
		}
		next = w.now + 200*time.Millisecond
		why = missing()
		return why == "" || len(w.violations) > 0
	}) {
		w.violate("not %s within %s of being healed: %s", state, settleLimit, why)
		w.traceKeys()
		for _, m := range w.nodes {
			w.stacks(m.proc)
		}
		return false
	}
	return len(w.violations) == 0
}

// apart says why not every replica has everything yet, "" when it has.
func (w *world) apart() string {
	for _, m := range w.nodes {
		if !m.up() {
			return m.name + " is down"
		}
	}
	var first map[string]string
	for _, in := range w.regions {
		items, _, why := in.shown(shared)
		if why != "" {
			return why
		}
		for _, r := range w.regions {
			if last := w.lastMark(r); !strings.Contains(items[markKey+r.name], last) {
				return fmt.Sprintf("%s has not %s's last mark", in.name, r.name)
			}
		}
		if first == nil {
			first = items
		} else if k := differs(first, items); k != "" {
			return fmt.Sprintf("%s differs from %s at %s", in.name, w.regions[0].name, k)
		}
	}
	_, _, why := w.regions[0].shown(solo)
	return why
}

// traceKeys writes every change, and what each node shows, into the trace.
func (w *world) traceKeys() {
	if w.out == nil {
		return
	}
	for _, m := range w.nodes {
		held, d, err := m.items(shared)
		if err != nil {
			continue
		}
		items := union(held)
		for _, key := range slices.Sorted(maps.Keys(items)) {
			raw, _ := m.engine.Store().Get(nil, keyenc.Record(nil, d.ID, d.Schema.KeyOfValues(value(key), noValue)))
			w.tracef("   %s: %s shows %q of %x", m.name, key, items[key], raw)
		}
	}
	for _, dot := range w.history.dots {
		c := w.history.changes[dot]
		w.tracef("   change of %q: %v of %s %v %x", dot.key, dot.Dot, c.origin.name, c.marks, c.delta)
	}
}

func (w *world) lastMark(r *regionOf) string {
	for _, o := range slices.Backward(w.history.ops) {
		if o.region == r && o.key == markKey+r.name && o.outcome == done {
			return o.mark
		}
	}
	return ""
}

func differs(a, b map[string]string) string {
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if b[k] != a[k] {
			return k
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			return k
		}
	}
	return ""
}

// items returns what a node's store shows of a table: visible items in stored form, by partition key, of the partitions that it is to hold.
func (m *machine) items(name string) (map[uint64]map[string]string, *table.Definition, error) {
	return m.stored(name, func(s *table.Schema, key table.Key, record []byte) (string, string, bool, error) {
		visible, there, err := crdt.PeekVisible(record)
		return keyText(s, key), string(visible), there, err
	})
}

// stored returns what show makes of the records that a node's store has of a table, by partition, of those that it is to hold.
func (m *machine) stored(name string, show func(s *table.Schema, key table.Key, record []byte) (k, v string, there bool, err error)) (map[uint64]map[string]string, *table.Definition, error) {
	d, err := m.engine.Region().Definition(name)
	if err != nil {
		return nil, nil, err
	}
	out := map[uint64]map[string]string{}
	for i := range d.Partitions {
		if p := &d.Partitions[i]; m.holding(p) {
			out[p.ID] = map[string]string{}
		}
	}
	prefix := keyenc.Record(nil, d.ID, nil)
	it, err := m.engine.Store().Iter(prefix, keyenc.End(prefix))
	if err != nil {
		return nil, nil, err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		key := keyenc.RecordKey(it.Key())
		k, v, there, err := show(&d.Schema, key, it.Value())
		if err != nil {
			return nil, nil, err
		}
		if of := out[partOf(d, key).ID]; there && of != nil {
			of[k] = v
		}
	}
	return out, d, it.Err()
}

func union(by map[uint64]map[string]string) map[string]string {
	out := map[string]string{}
	for _, of := range by {
		maps.Copy(out, of)
	}
	return out
}

func keyText(s *table.Schema, key []byte) string {
	v, err := s.Values(key)
	if err != nil {
		return fmt.Sprintf("%x", key)
	}
	return v.Partition.Str()
}

// checkReplicas holds every replica's indexes and counts against its items.
func (w *world) checkReplicas() {
	for _, m := range w.nodes {
		for _, name := range []string{shared, solo} {
			if name == solo && m.region.index != 0 {
				continue
			}
			held, d, err := m.items(name)
			if err != nil {
				w.violate("%s: %s: %v", m.name, name, err)
				continue
			}
			items := union(held)
			w.count.Compared += len(items)
			want := map[string]string{}
			for key, visible := range items {
				k := d.Schema.KeyOfValues(value(key), noValue)
				for _, row := range d.Schema.Rows(nil, k, nil, []byte(visible)) {
					want[fmt.Sprintf("%d/%x", row.Index, row.Key)] = string(row.Item)
				}
			}
			got := map[string]string{}
			for i, p := range d.Partitions {
				if !m.holding(&p) {
					continue
				}
				prefix := keyenc.Indexes(nil, p.ID)
				it, err := m.engine.Store().Iter(prefix, keyenc.End(prefix))
				if err != nil {
					w.violate("%s: %s: %v", m.name, name, err)
					continue
				}
				for ok := it.First(); ok; ok = it.Next() {
					got[fmt.Sprintf("%d/%x", keyenc.IndexID(it.Key()), keyenc.IndexKey(it.Key()))] = string(it.Value())
				}
				if err := it.Close(); err != nil {
					w.violate("%s: %s: %v", m.name, name, err)
				}
				cfg := partition.Config{ID: p.ID, Table: d.ID, Start: p.Start, Store: m.engine.Store()}
				if i+1 < len(d.Partitions) {
					cfg.End = d.Partitions[i+1].Start
				}
				found, err := partition.CheckIndexes(cfg, op.IndexCheck{Limit: 1 << 30})
				if err != nil || len(found.Differences) > 0 {
					w.violate("%s: the check of %s's indexes in partition %d finds %+v, %v", m.name, name, p.ID, found.Differences, err)
				}
			}
			if k := differs(want, got); k != "" {
				w.violate("%s: the index of %s is not what its items make: row %s is %q, want %q", m.name, name, k, got[k], want[k])
			}
			for _, t := range m.engine.Region().Tables() {
				for _, p := range t.Partitions() {
					if n := p.State().Items; t.ID == d.ID && held[p.ID] != nil && n != int64(len(held[p.ID])) {
						w.violate("%s: partition %d of %s counts %d items and has %d", m.name, p.ID, name, n, len(held[p.ID]))
					}
				}
			}
		}
	}
}

// checkHistory holds what the regions show against the changes that were shipped, and those against what clients did.
func (w *world) checkHistory() (times map[string]crdt.Dot) {
	h := w.history
	items, d, why := w.regions[0].shown(shared)
	if why != "" {
		w.violate("%s", why)
		return nil
	}
	// Every change was made by a client, once.
	times = map[string]crdt.Dot{}
	byKey := map[string][]stamped{}
	for _, dot := range h.dots {
		if c := h.changes[dot]; c.lost && w.alone(dot) {
			w.count.Lost++
		} else if w.alone(dot) {
			w.count.Again++
			for _, m := range c.marks {
				if o := h.byMark[m]; o == nil || o.outcome == refused || o.outcome == rejected {
					w.violate("%s alone has %s, which did not take effect: %+v", c.origin.name, m, o)
				}
				if o := h.byMark[m]; o != nil && o.region != c.origin {
					continue // another's, which it had seen, in what it did again
				}
				// What it did again it may have had alone again, when it was given up once more.
				if have := times[m]; have == (crdt.Dot{}) || dot.Compare(have) < 0 {
					times[m], h.lonely[m] = dot.Dot, h.renewals[c.former]
				}
			}
		}
	}
	for _, dot := range h.dots {
		c := h.changes[dot]
		if w.alone(dot) {
			continue
		}
		key := keyText(&d.Schema, []byte(dot.key))
		byKey[key] = append(byKey[key], dot)
		if w.again(c) {
			continue
		}
		if len(c.marks) > 1 {
			w.violate("a change of %s carries %v", key, c.marks)
		}
		for _, m := range c.marks {
			o := h.byMark[m]
			switch {
			case o == nil || o.key != key || o.table != shared:
				w.violate("%s has a change that no client made: %s", key, m)
			case o.outcome == refused || o.outcome == rejected:
				w.violate("%s of %s, which was %s, took effect: %s %s", opNames[o.kind], key, outcomeNames[o.outcome], m, o.why)
			case times[m] != crdt.Dot{}:
				w.violate("%s of %s took effect twice: %s at %v and %v", opNames[o.kind], key, m, times[m], dot.Dot)
			case o.region != c.origin:
				w.violate("%s of %s in %s took effect as a change of %s", opNames[o.kind], key, o.region.name, c.origin.name)
			}
			times[m] = dot.Dot
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		for _, dot := range byKey[key] {
			w.tracef("   change of %s: %v of %s %v", key, dot.Dot, h.changes[dot].origin.name, h.changes[dot].marks)
		}
	}
	// Every acknowledged write is among the changes.
	for _, o := range h.ops {
		if o.table == shared && o.outcome == done && marks(o.kind) && times[o.mark] == (crdt.Dot{}) && !w.lost(o) {
			w.violate("an acknowledged write is lost: %s of %s in %s, %s, at %s", opNames[o.kind], o.key, o.region.name, o.mark, o.invoked)
		}
	}
	w.checkClocks(times)
	// What is shown is the join of all changes, each origin's in their order.
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		dots := byKey[key]
		dots = w.interleave(dots)
		var r crdt.Record
		for _, dot := range dots {
			delta, err := crdt.Decode(h.changes[dot].delta)
			if err != nil {
				w.violate("a change of %s cannot be read: %v", key, err)
				return times
			}
			r.Join(delta)
		}
		r.ShowKey(d.Schema.Hash.Name, func() []byte {
			k, err := d.Schema.KeyItem(d.Schema.KeyOfValues(value(key), noValue))
			if err != nil {
				panic(err)
			}
			return k
		})
		want, there := r.Visible()
		got, shown := items[key]
		if there != shown || there && !bytes.Equal(want, []byte(got)) {
			w.violate("%s is not what the merge of its %d changes makes: shows %v %q, want %v %q", key, len(dots), shown, got, there, want)
		}
		w.count.Explained++
	}
	for _, key := range slices.Sorted(maps.Keys(items)) {
		if byKey[key] == nil {
			w.violate("%s is shown and nobody wrote it", key)
		}
	}
	w.checkCounters(items, times)
	w.checkUnseen(items, times)
	return times
}

// interleave returns dots in a random order that keeps each actor's own.
func (w *world) interleave(dots []stamped) (out []stamped) {
	slices.SortFunc(dots, func(a, b stamped) int { return a.Compare(b.Dot) })
	by := map[crdt.Actor][]stamped{}
	var actors []crdt.Actor
	for _, d := range dots {
		if by[d.Actor] == nil {
			actors = append(actors, d.Actor)
		}
		by[d.Actor] = append(by[d.Actor], d)
	}
	for len(out) < len(dots) {
		a := actors[w.rng.IntN(len(actors))]
		if len(by[a]) > 0 {
			out, by[a] = append(out, by[a][0]), by[a][1:]
		}
	}
	return out
}

// marks tells whether a kind of operation leaves its mark in the change it makes.
func marks(k opKind) bool {
	return k != opGet && k != opDelete && k != opQuery && k != opExpire
}

// checkClocks holds the stamps of each region's own writes against the order in which they were acknowledged, key by key.
func (w *world) checkClocks(times map[string]crdt.Dot) {
	last := map[string]*operation{} // by region and key: the write with the latest return among those before
	ops := slices.Clone(w.history.ops)
	slices.SortStableFunc(ops, func(a, b *operation) int { return cmp.Compare(a.invoked, b.invoked) })
	var acked []*operation
	for _, o := range ops {
		if o.table == shared && o.outcome == done && marks(o.kind) {
			acked = append(acked, o)
		}
	}
	slices.SortStableFunc(acked, func(a, b *operation) int { return cmp.Compare(a.returned, b.returned) })
	i := 0
	for _, o := range ops {
		if o.table != shared || !marks(o.kind) || times[o.mark] == (crdt.Dot{}) {
			continue
		}
		for ; i < len(acked) && acked[i].returned < o.invoked; i++ {
			a := acked[i]
			k := a.region.name + "/" + a.key
			if last[k] == nil || times[a.mark].Compare(times[last[k].mark]) > 0 {
				last[k] = a
			}
		}
		if before := last[o.region.name+"/"+o.key]; before != nil && times[before.mark].Compare(times[o.mark]) > 0 {
			w.violate("%s was acknowledged in %s before %s began, and is stamped later: %v, %v", before.mark, o.region.name, o.mark, times[before.mark], times[o.mark])
		}
	}
}

// checkCounters adds up what took effect: counters that are never set show exactly that.
func (w *world) checkCounters(items map[string]string, times map[string]crdt.Dot) {
	sums := map[string]int{}
	for _, o := range w.history.ops {
		if strings.HasPrefix(o.key, keyCnt) && o.kind == opAdd && times[o.mark] != (crdt.Dot{}) {
			sums[o.key] += o.delta
		}
	}
	if w.lastWriterWins {
		return // whole items: concurrent additions are lost, as the rule says
	}
	for _, key := range slices.Sorted(maps.Keys(sums)) {
		if got := numberOf(items[key], "n"); got != sums[key] {
			w.violate("the counter %s shows %d, and %d was added", key, got, sums[key])
		}
	}
}

// checkRegisters holds the keys that one region alone writes against one register each, with porcupine.
func (w *world) checkRegisters(times map[string]crdt.Dot) {
	by := map[string][]porcupine.Operation{}
	for _, o := range w.history.ops {
		if !strings.HasPrefix(o.key, keyHome) || o.outcome == rejected || o.outcome == unknown && o.kind == opGet || w.lossOf(o.region) {
			continue
		}
		returned := int64(o.returned)
		if o.outcome == unknown {
			if marks(o.kind) && times[o.mark] == (crdt.Dot{}) {
				continue // it never took effect
			}
			returned = w.tookEffectBy(o, times)
		}
		by[o.key] = append(by[o.key], porcupine.Operation{ClientId: o.n, Input: o, Call: int64(o.invoked), Output: o, Return: returned})
	}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		w.count.Checked += len(by[key])
		switch porcupine.CheckOperationsTimeout(registerModel, by[key], 20*time.Second) {
		case porcupine.Illegal:
			w.violate("%s is not linearizable", key)
			for _, op := range by[key] {
				o := op.Input.(*operation)
				w.tracef("   %s %s %s..%s %s expect %q delta %d saw %v %+v", o.mark, opNames[o.kind], o.invoked, o.returned, outcomeNames[o.outcome], o.expect, o.delta, o.known, o.before)
			}
		case porcupine.Unknown:
			w.violate("%s: the checker found no answer in time", key)
		}
	}
}

// tookEffectBy bounds when an unknown write of a key's took effect: before every one that is stamped later had returned.
func (w *world) tookEffectBy(o *operation, times map[string]crdt.Dot) int64 {
	by := int64(w.now) + 1
	if !marks(o.kind) {
		return by
	}
	for _, other := range w.history.ops {
		if other.key == o.key && other.outcome == done && marks(other.kind) && times[other.mark].Compare(times[o.mark]) > 0 {
			by = min(by, int64(other.returned))
		}
	}
	return by
}

var registerModel = porcupine.Model{
	Init: func() any { return entry{} },
	Step: func(state, input, output any) (bool, any) {
		s, o := state.(entry), input.(*operation)
		if o.outcome == done && o.known && o.before != s {
			return false, s
		}
		holds := true
		switch o.kind {
		case opPutNew:
			holds = !s.there
		case opSwap:
			holds = s.there && s.mark == cmp.Or(o.expect, "?")
		}
		switch {
		case o.outcome == refused:
			return !holds, s
		case !holds:
			return o.outcome == unknown, s
		}
		switch o.kind {
		case opGet:
			return true, s
		case opDelete:
			return true, entry{}
		case opAdd:
			return true, entry{true, o.mark, s.n + o.delta}
		case opSwap:
			return true, entry{true, o.mark, s.n}
		}
		return true, entry{true, o.mark, 0}
	},
}

// checkSolo looks for every acknowledged put of the table of one region, there and in what was restored of it.
func (w *world) checkSolo() {
	home := w.regions[0]
	find := func(name string, began time.Duration) {
		items, _, why := home.shown(name)
		if why != "" {
			w.violate("%s", why)
			return
		}
		puts := map[string][]*operation{}
		for _, o := range w.history.ops {
			if o.table != solo || o.kind != opPut {
				continue
			}
			puts[o.key] = append(puts[o.key], o)
			if _, ok := items[o.key]; !ok && o.outcome == done && o.returned < began {
				w.violate("%s lacks an item whose put was acknowledged: %s at %s", name, o.key, o.returned)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(items)) {
			mine := func(o *operation) bool { return strings.Contains(items[key], o.mark) }
			switch i := slices.IndexFunc(puts[key], mine); {
			case i < 0:
				w.violate("%s has an item that nobody put: %s", name, key)
			case puts[key][i].outcome == refused || puts[key][i].outcome == rejected:
				w.violate("%s has %s, whose put was %s", name, key, outcomeNames[puts[key][i].outcome])
			}
		}
	}
	find(solo, w.now)
	for _, r := range w.restored {
		find(r.name, r.began)
	}
}

// maxTasks is more than a node at rest may have, and maxWaitingEvents more than may be under way.
const (
	maxTasks  = 150
	maxEvents = 5000
)

// checkBounds looks for what has piled up.
func (w *world) checkBounds() {
	for _, m := range w.nodes {
		n := 0
		for _, t := range m.proc.tasks {
			if !t.over {
				n++
			}
		}
		if n > maxTasks {
			w.violate("%s has %d tasks at rest", m.name, n)
		}
	}
	events := 0
	for _, e := range w.events {
		if e.off == nil || !*e.off {
			events++
		}
	}
	if events > maxEvents {
		w.violate("%d events are under way at rest", events)
	}
}
