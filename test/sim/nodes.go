package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/region"
)

// replaceNodes lets nodes of regions go, some of which have lost their disks, and has others join, one at a time, from a client's task. What
// it has begun it ends, after everything is mended if need be.
func (w *world) replaceNodes(until time.Duration) {
	pause := func(lo, hi time.Duration) { w.clients.proc.Wait(context.Background(), nil, w.between(lo, hi)) }
	for pause(200*time.Millisecond, 2*time.Second); w.now < until; pause(200*time.Millisecond, 2*time.Second) {
		r := w.regions[w.rng.IntN(len(w.regions))]
		if len(r.founders) < 2 {
			continue // a region that begins as one node alone stays so
		}
		if len(r.nodes) > 1 && w.chance(0.3) {
			w.drain(r.nodes[w.rng.IntN(len(r.nodes))])
			continue
		}
		if len(r.nodes) < r.place.nodes && (len(r.nodes) < 3 || w.chance(0.6)) {
			w.join(r)
			continue
		}
		goes := r.nodes[w.rng.IntN(len(r.nodes))]
		if w.chance(0.5) {
			w.say("%s loses its disk", goes.name)
			w.count.fault(faultNodeLost)
			goes.goes = true
			goes.crash(0)
		}
		w.say("%s is let go", goes.name)
		w.count.fault(faultNodeGoes)
		w.letGo(goes)
		goes.goes = true
		r.nodes = slices.DeleteFunc(r.nodes, func(m *machine) bool { return m == goes })
		w.nodes = slices.DeleteFunc(w.nodes, func(m *machine) bool { return m == goes })
		goes.crash(100)
		w.say("%s is gone", goes.name)
	}
}

// join gives a region another node, and waits until it holds what all hold.
func (w *world) join(r *regionOf) {
	m := r.add(w, uint64(len(r.all)+1))
	m.joins = true
	w.say("%s joins", m.name)
	m.boot()
	instance := m.engine.Identity()
	w.tellOf(r, m, "TakeIn", func(ctx context.Context, at *region.Region) error {
		return at.TakeIn(ctx, region.Member{ID: m.id, Name: m.name, Instance: instance})
	})
	for !w.holds(r, m) {
		w.clients.proc.Wait(context.Background(), nil, 100*time.Millisecond)
	}
	w.say("%s has joined", m.name)
}

// holds tells whether a node votes in all groups, as it knows itself.
func (w *world) holds(r *regionOf, m *machine) bool {
	a := w.request(m, operator+"ListNodes", "{}")
	nodes, _ := a.body["Nodes"].([]any)
	for _, x := range nodes {
		if n := x.(map[string]any); n["ID"] == float64(m.id) {
			return n["Status"] == "HOLDS" && n["Of"].(float64) > 1
		}
	}
	return false
}

// letGo has a region let a node go, and waits until nothing is held by it.
func (w *world) letGo(goes *machine) {
	r := goes.region
	for i := 0; ; i++ {
		asked := r.nodes[i%len(r.nodes)]
		a := answer{}
		if asked != goes {
			a = w.request(asked, operator+"RemoveNode", fmt.Sprintf(`{"ID":%d}`, goes.id))
		}
		nodes, _ := a.body["Nodes"].([]any)
		for _, x := range nodes {
			if n := x.(map[string]any); n["ID"] == float64(goes.id) && n["Status"] == "GONE" {
				return
			}
		}
		w.clients.proc.Wait(context.Background(), nil, 200*time.Millisecond)
	}
}

// drain has a node hand over what it leads, and after some time lead again.
func (w *world) drain(m *machine) {
	r := m.region
	w.say("%s is drained", m.name)
	w.count.fault(faultNodeDrained)
	ask := func(operation, body string) (leads float64, drained bool) {
		for {
			a := w.request(r.nodes[w.rng.IntN(len(r.nodes))], operator+operation, body)
			nodes, _ := a.body["Nodes"].([]any)
			for _, x := range nodes {
				if n := x.(map[string]any); a.ok() && n["ID"] == float64(m.id) {
					return n["Leads"].(float64), n["Drained"] == true
				}
			}
			w.pause(50*time.Millisecond, 200*time.Millisecond)
		}
	}
	leads, drained := ask("DrainNode", fmt.Sprintf(`{"ID":%d}`, m.id))
	for drained && leads > 0 { // one that starts anew is drained no more
		w.pause(50*time.Millisecond, 200*time.Millisecond)
		leads, drained = ask("ListNodes", "{}")
	}
	w.say("%s leads %v groups, drained %v", m.name, leads, drained)
	w.pause(0, time.Second)
	ask("DrainNode", fmt.Sprintf(`{"ID":%d,"Undo":true}`, m.id))
}

// tellOf has one of a region's nodes, other than m, do something, one after the other until one has.
func (w *world) tellOf(r *regionOf, m *machine, what string, do func(context.Context, *region.Region) error) {
	p := w.clients.proc
	for i := 0; ; i++ {
		at := r.nodes[i%len(r.nodes)]
		if at == m {
			continue
		}
		ctx, cancel := p.WithTimeout(context.Background(), patience)
		err := w.call(ctx, w.clients, at, 0, func(ctx context.Context) error { return do(ctx, at.engine.Region()) })
		cancel()
		if err == nil {
			return
		}
		w.tracef("  %s at %s: %v", what, at.name, err)
		p.Wait(context.Background(), nil, 200*time.Millisecond)
	}
}
