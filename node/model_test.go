package node_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/node"
)

// The model says what an item must show from its history alone, by the first sentence of MERGE.md: a write
// overrides what it had seen; what it had not seen is merged. Writes are numbered in the order of their
// clocks, and each carries the set of those that its region had seen.

// modelWrite is one write of an item.
type modelWrite struct {
	n    int
	seen map[int]bool

	deletes bool
	assigns map[string]any      // path, parts joined by dots, "" for the whole item -> value, nil for none
	incs    map[string]int      // path -> by how much
	adds    map[string][]string // path -> elements
	removes map[string][]string
	appends map[string][]string
}

// A model value is an int, a set (map[string]bool), a list ([]string), a string or a map[string]any.

type model []*modelWrite

func below(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

func under(ancestor, path string) bool {
	return ancestor == "" || path == ancestor || strings.HasPrefix(path, ancestor+".")
}

// governing is the last assignment at a path or above it.
func (m model) governing(held map[int]bool, path string) (by *modelWrite, at string) {
	for _, w := range m {
		if !held[w.n] {
			continue
		}
		for p := range w.assigns {
			if under(p, path) && (by == nil || w.n > by.n) {
				by, at = w, p
			}
		}
	}
	return by, at
}

// show is what a region that holds these writes must show; nil for no item.
func (m model) show(held map[int]bool) map[string]any {
	lastWrite, lastDelete := -1, -1
	for _, w := range m {
		if held[w.n] && w.deletes {
			lastDelete = w.n
		} else if held[w.n] {
			lastWrite = w.n
		}
	}
	if lastWrite <= lastDelete {
		return nil
	}
	it, _ := m.value(held, "").(map[string]any)
	return it
}

func (m model) value(held map[int]bool, path string) any {
	g, at := m.governing(held, path)
	var base any
	if g != nil {
		base = g.assigns[at]
		for _, name := range strings.FieldsFunc(strings.TrimPrefix(path, at), func(r rune) bool { return r == '.' }) {
			fields, _ := base.(map[string]any)
			base = fields[name]
		}
	}
	live := func(w *modelWrite) bool { return held[w.n] && (g == nil || !g.seen[w.n] && w != g) }
	removed := func(elem string, of int) bool {
		for _, r := range m {
			if held[r.n] && r.seen[of] && slices.Contains(r.removes[path], elem) {
				return true
			}
		}
		return false
	}
	sum, list, set := 0, []string{}, map[string]bool{}
	if s, ok := base.(map[string]bool); ok {
		for e := range s {
			if !removed(e, g.n) {
				set[e] = true
			}
		}
	}
	counted, appended := false, false
	names := map[string]bool{}
	for _, w := range m {
		if !held[w.n] {
			continue
		}
		for p := range w.assigns {
			if p != path && under(path, p) && (g == nil || w.n >= g.n) {
				names[strings.SplitN(strings.TrimPrefix(strings.TrimPrefix(p, path), "."), ".", 2)[0]] = true
			}
		}
		if !live(w) {
			continue
		}
		for p := range w.incs {
			if p != path && under(path, p) {
				names[strings.SplitN(strings.TrimPrefix(strings.TrimPrefix(p, path), "."), ".", 2)[0]] = true
			}
		}
		for _, edits := range []map[string][]string{w.adds, w.appends} {
			for p := range edits {
				if path == "" {
					names[p] = true
				}
			}
		}
		if d, ok := w.incs[path]; ok {
			sum, counted = sum+d, true
		}
		for _, e := range w.adds[path] {
			if !removed(e, w.n) {
				set[e] = true
			}
		}
		if x, ok := w.appends[path]; ok {
			list, appended = append(list, x...), true
		}
	}
	switch base := base.(type) {
	case int:
		return base + sum
	case []string:
		return append(slices.Clone(base), list...)
	case string:
		return base
	}
	_, isSet := base.(map[string]bool)
	fields, isMap := base.(map[string]any)
	switch {
	case isSet || len(set) > 0:
		if len(set) == 0 {
			return nil
		}
		return set
	case counted:
		return sum
	case appended:
		return list
	case !isMap && len(names) == 0:
		return nil
	}
	out := map[string]any{}
	for name := range fields {
		names[name] = true
	}
	for name := range names {
		if v := m.value(held, below(path, name)); v != nil {
			out[name] = v
		}
	}
	return out
}

func plain(v types.AttributeValue) any {
	switch v := v.(type) {
	case *types.AttributeValueMemberN:
		n, _ := strconv.Atoi(v.Value)
		return n
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberSS:
		set := map[string]bool{}
		for _, e := range v.Value {
			set[e] = true
		}
		return set
	case *types.AttributeValueMemberL:
		list := []string{}
		for _, e := range v.Value {
			list = append(list, e.(*types.AttributeValueMemberS).Value)
		}
		return list
	case *types.AttributeValueMemberM:
		fields := map[string]any{}
		for name, e := range v.Value {
			fields[name] = plain(e)
		}
		return fields
	}
	return nil
}

func attribute(v any) types.AttributeValue {
	switch v := v.(type) {
	case int:
		return n(v)
	case string:
		return s(v)
	case map[string]bool:
		return &types.AttributeValueMemberSS{Value: slices.Sorted(maps.Keys(v))}
	case []string:
		list := &types.AttributeValueMemberL{Value: []types.AttributeValue{}}
		for _, e := range v {
			list.Value = append(list.Value, s(e))
		}
		return list
	case map[string]any:
		fields := &types.AttributeValueMemberM{Value: item{}}
		for name, e := range v {
			fields.Value[name] = attribute(e)
		}
		return fields
	}
	return nil
}

// TestRandomHistoriesShowWhatTheMergeRuleSays writes in regions that are all cut off, so that what each
// write has seen is known; heals, and holds every region against the model, before and after. Between
// times dev is started again while its regions are cut off.
func TestRandomHistoriesShowWhatTheMergeRuleSays(t *testing.T) {
	for _, mode := range []string{"Merge", "LastWriterWins"} {
		t.Run(mode, func(t *testing.T) { randomHistories(t, mode) })
	}
}

func randomHistories(t *testing.T, mode string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	w := begin(t, node.DevConfig{Data: dir})
	w.table("model")
	d, err := w.clients[0].DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("model")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.clients[0].TagResource(t.Context(), &dynamodb.TagResourceInput{ResourceArn: d.Table.TableArn, Tags: []types.Tag{
		{Key: aws.String("commutator:conflict-resolution"), Value: &mode}}})
	if err != nil {
		t.Fatal(err)
	}
	w.replicate("model", regions[1:]...)
	keys := []string{"a", "b", "c"}
	histories := map[string]model{}
	seen := make([]map[int]bool, len(regions)) // all keys' writes, numbered together
	for i := range seen {
		seen[i] = map[int]bool{}
	}
	number := 0
	check := func(region int, pk, when string) {
		t.Helper()
		want := histories[pk].show(seen[region])
		var got map[string]any
		if it := w.get(region, "model", pk); it != nil {
			got = plain(&types.AttributeValueMemberM{Value: it}).(map[string]any)
		}
		if !reflect.DeepEqual(got, want) {
			for _, h := range histories[pk] {
				t.Logf("%+v", *h)
			}
			t.Fatalf("%s: %s in %s shows\n %v, want\n %v", when, pk, regions[region], got, want)
		}
	}
	write := func(region int) {
		pk := keys[rng.IntN(len(keys))]
		h := &modelWrite{n: number, seen: maps.Clone(seen[region])}
		number++
		time.Sleep(2 * time.Millisecond) // so that the clocks of the regions agree on the order
		shown := histories[pk].show(seen[region])
		text := fmt.Sprintf("w%d", h.n)
		elems := map[string]bool{fmt.Sprintf("e%d", rng.IntN(4)): true, fmt.Sprintf("e%d", rng.IntN(4)): true}
		set := attribute(elems)
		var expression string
		values := item{}
		kind := rng.IntN(11)
		if shown == nil {
			kind = rng.IntN(3) / 2 // a delete of what is not there is one of what may be elsewhere
		}
		if _, there := shown["m"]; kind == 8 && !there {
			kind = 7
		}
		switch kind {
		case 0:
			h.assigns = map[string]any{"": map[string]any{"pk": pk, "c": text, "n": rng.IntN(10), "s": elems, "l": []string{text}, "m": map[string]any{"x": text}}}
			if rng.IntN(2) == 0 {
				h.assigns[""] = map[string]any{"pk": pk, "c": text}
			}
		case 1:
			h.deletes = true
		case 2, 3:
			h.incs = map[string]int{"n": rng.IntN(9) - 4}
			expression, values[":d"] = "ADD n :d", n(h.incs["n"])
		case 4:
			h.adds = map[string][]string{"s": slices.Sorted(maps.Keys(elems))}
			expression, values[":s"] = "ADD s :s", set
		case 5:
			h.removes = map[string][]string{"s": slices.Sorted(maps.Keys(elems))}
			expression, values[":s"] = "DELETE s :s", set
		case 6:
			h.appends = map[string][]string{"l": {text}}
			expression, values[":x"], values[":none"] = "SET l = list_append(if_not_exists(l, :none), :x)", attribute([]string{text}), attribute([]string{})
		case 7:
			h.assigns = map[string]any{"m": map[string]any{"x": text, "y": text}}
			expression, values[":m"] = "SET m = :m", attribute(h.assigns["m"])
		case 8:
			h.assigns = map[string]any{"m.x": text}
			h.incs = map[string]int{"m.k": 1}
			expression, values[":x"], values[":one"] = "SET m.x = :x ADD m.k :one", s(text), n(1)
		case 9:
			h.assigns = map[string]any{"n": 100, "c": text}
			expression, values[":n"], values[":c"] = "SET n = :n, c = :c", n(100), s(text)
		case 10:
			h.assigns = map[string]any{"l": nil, "n": nil}
			expression = "REMOVE l, n"
		}
		switch {
		case h.deletes:
			_, err := w.clients[region].DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("model"), Key: item{"pk": s(pk)}})
			if err != nil {
				t.Fatal(err)
			}
		case expression == "":
			w.put(region, "model", attribute(h.assigns[""]).(*types.AttributeValueMemberM).Value)
		default:
			if len(values) == 0 {
				values = nil
			}
			w.update(region, "model", pk, expression, values)
		}
		if mode == "LastWriterWins" && !h.deletes {
			it := w.get(region, "model", pk) // each write is one of the whole item, as it showed then
			*h = modelWrite{n: h.n, seen: h.seen, assigns: map[string]any{"": plain(&types.AttributeValueMemberM{Value: it})}}
		}
		histories[pk] = append(histories[pk], h)
		seen[region][h.n] = true
		check(region, pk, fmt.Sprintf("after write %d", h.n))
	}
	marks := 0
	// together waits until each region has seen all that the others have written: streams are in order.
	together := func() {
		t.Helper()
		marks++
		for i := range regions {
			w.put(i, "model", item{"pk": s("mark-" + regions[i]), "v": n(marks)})
		}
		w.until("marks", func() bool {
			for i := range regions {
				for _, of := range regions {
					if !reflect.DeepEqual(w.get(i, "model", "mark-"+of)["v"], n(marks)) {
						return false
					}
				}
			}
			return true
		})
		for i := 1; i < len(regions); i++ {
			maps.Copy(seen[0], seen[i])
		}
		for i := range regions {
			seen[i] = maps.Clone(seen[0])
			for _, pk := range keys {
				check(i, pk, "together")
			}
		}
	}
	for round := range 6 {
		for _, r := range regions {
			w.control("partition", r)
		}
		for range 4 + rng.IntN(20) {
			write(rng.IntN(len(regions)))
		}
		if round == 3 {
			w.stop()
			w = begin(t, node.DevConfig{Data: dir})
		} else {
			w.control("heal", "")
		}
		together()
		if round%2 == 0 { // what follows meets records that have folded
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
		}
	}
	if !w.equal("model") {
		t.Error("the regions are not equal")
	}
}
