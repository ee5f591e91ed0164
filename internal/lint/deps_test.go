package lint

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The import table of the house. Imports point down only; two packages on one floor do not know each other, but for the four of
// region, which are drawn region -> region/group -> region/partition -> region/op, and a package's own small parts
// (api -> api/sigv4). It covers packages that do not exist yet. internal/... may be imported from everywhere.
//
// A line changes only with a decision record. ARCHITECTURE.md prints the table: go test ./internal/lint -rewrite
var house = []Room{
	{7, "cmd/...", []string{"node", "admin/...", "api/...", "region/...", "replication/...", "backup/...", "storage/...", "expr", "table", "crdt", "item"},
		"flags, files and exit codes; it may look at anything, but wiring stands in node and wire forms stay at the edges"},

	{7, "session", nil, "what a client program adds to its AWS SDK: it knows a header, and nothing of the server"},

	{6, "node", []string{"admin/...", "api/...", "region/...", "replication/...", "backup/...", "storage/...", "expr", "table", "crdt", "item"},
		"the composition root: it sees every package so that no other has to; it does not know flags"},

	{5, "api", []string{"api/sigv4", "api/iam", "api/wire", "region", "region/op", "expr", "table", "crdt", "item"},
		"the protocol: it asks a region, and knows neither the disk nor who follows the region's log"},
	{5, "api/sigv4", nil, "verifying a signature needs a request and a secret, nothing else"},
	{5, "api/iam", []string{"item"}, "a policy decides on names and keys"},
	{4, "api/wire", []string{"item"}, "JSON to stored values and back: a leaf that the API and the operator's view share"},
	{5, "admin/...", []string{"admin/...", "api/wire", "region", "region/op", "replication", "backup", "expr", "table", "crdt", "item"},
		"the operator's view: it asks region, replication and backup, and stays off their disk and their wire; items it shows as the API writes them"},

	{4, "region", []string{"region/group", "region/partition", "region/op", "region/placement", "storage", "storage/raftlog", "storage/keyenc", "expr", "table", "crdt", "item"},
		"one full copy of the data: it writes its log and never asks who reads it, so a dead peer cannot slow a write"},
	{4, "region/group", []string{"region/partition", "region/op", "storage", "storage/raftlog", "proto/...", "crdt", "item"},
		"a thin shell round Raft; the one place above the edges where wire forms may stand, for Raft's messages"},
	{4, "region/transport", []string{"region/group", "proto/..."}, "the wire between the nodes of a region: frames and queues; no rules"},
	{4, "region/partition", []string{"region/op", "storage", "storage/keyenc", "expr", "table", "crdt", "item"},
		"a state machine of (state, command) alone: it knows neither Raft nor other partitions"},
	{4, "region/op", []string{"expr", "table", "crdt", "item"}, "what is asked, not how it is carried out"},
	{4, "region/placement", nil, "who is to hold what follows from numbers: it knows neither groups nor tables"},

	{3, "storage", []string{"storage/keyenc", "table", "crdt", "item"}, "bytes on disk; it does not know what a write means"},
	{3, "storage/raftlog", nil, "a log of entries whose meaning it does not know"},
	{3, "storage/keyenc", []string{"table", "item"}, "keys as bytes that sort as keys do"},
	{3, "replication", []string{"crdt", "item"}, "windows, order, gaps and acks over interfaces of its own, so that a simulator can run it without an engine"},
	{3, "replication/transport", []string{"replication", "proto/...", "crdt", "item"}, "the wire between regions: conversion, gRPC, mTLS; no rules"},
	{3, "backup", []string{"proto/...", "table", "crdt", "item"}, "a snapshot and a log to an archive, and back, whatever engine they come from"},
	{3, "backup/s3", []string{"backup"}, "an archive in a bucket"},
	{3, "backup/local", []string{"backup"}, "an archive in a directory"},
	{3, "backup/archivetest", []string{"backup"}, "the suite that every archive passes"},

	{2, "expr", []string{"item"}, "a language over values; it knows no replica and no stamp"},
	{2, "table", []string{"item"}, "definitions, and rows as a pure function of them; it knows no storage"},
	{2, "crdt", []string{"item"}, "order and merge; it knows no disk, network or wall clock"},

	{1, "item", nil, "values know nothing above them: no table, no time, no JSON"},
	{1, "proto/...", []string{"proto/..."}, "generated wire forms; they know nothing of ours"},

	{0, "internal/...", []string{"internal/..."}, "tools for every package; if they knew one, they would carry it everywhere"},

	{8, "test/...", []string{"test/...", "session", "node", "admin/...", "api/...", "region/...", "replication/...", "backup/...", "storage/...", "expr", "table", "crdt", "item", "proto/..."},
		"conformance, simulation, drills and benchmarks see everything but the command line, which they run as a program"},
}

// everywhere is what each room may import besides its own line.
const everywhere = "internal/..."

// never is what no line of the table may allow, straight or through others.
var never = []struct{ from, to, why string }{
	{"region/...", "replication/...", "a region writes its log; replication reads it"},
	{"region/...", "api/...", "the answer goes up by returning"},
	{"region", "backup/...", "a backup is taken of a region, not by it"},
	{"replication/...", "region/...", "replication must run without the engine, in the simulator"},
	{"replication/...", "storage/...", "replication must run without the engine, in the simulator"},
	{"backup/...", "region/...", "an archive outlives the engine that wrote it"},
	{"backup/...", "storage/...", "an archive outlives the engine that wrote it"},
	{"storage/...", "region/...", "storage does not know what a write means"},
	{"storage/...", "replication/...", "neighbours do not know each other"},
	{"replication/...", "backup/...", "neighbours do not know each other"},
	{"backup/...", "replication/...", "neighbours do not know each other"},
	{"crdt", "storage/...", "merge is pure"},
	{"expr", "crdt", "the language is the same whatever is merged"},
	{"table", "crdt", "a definition is the same whatever is merged"},
}

// onlyBy is what only the packages named may import.
var onlyBy = []struct {
	pkg string
	by  []string
	why string
}{
	{"node", []string{"cmd/...", "test/..."}, "the composition root sees every package; who sees it sees everything"},
	{"proto/...", []string{"proto/...", "replication/transport", "region/group", "region/transport", "backup", "test/..."}, "a wire form must not become the form that we compute with"},
}

const module = "github.com/commutatordb/commutator"

var rewrite = flag.Bool("rewrite", false, "rewrite the table in ARCHITECTURE.md")

func withEverywhere(rooms []Room) []Room {
	rooms = slices.Clone(rooms)
	for i := range rooms {
		rooms[i].May = append([]string{everywhere}, rooms[i].May...)
	}
	return rooms
}

func parseModule(t *testing.T) *Tree {
	t.Helper()
	tree, err := Parse(os.DirFS("../.."), module)
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) == 0 {
		t.Fatal("no Go file found: the test looks in the wrong place")
	}
	return tree
}

func report(t *testing.T, problems []Problem) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	report(t, parseModule(t).Imports(withEverywhere(house), "cmd/..."))
}

// Every actual import is a line of the table, so what the table cannot reach, no package reaches.
func TestTableKeepsWhatMustNeverBe(t *testing.T) {
	reach := Reach(house)
	for _, n := range never {
		for _, r := range house {
			if !matches(n.from, strings.TrimSuffix(r.Name, "/...")) {
				continue
			}
			for _, to := range reach[r.Name] {
				if matches(n.to, strings.TrimSuffix(to, "/...")) {
					t.Errorf("the table lets %s reach %s: never, because %s", r.Name, to, n.why)
				}
			}
		}
	}
	for _, o := range onlyBy {
		for _, r := range house {
			if matchesAny(o.by, strings.TrimSuffix(r.Name, "/...")) {
				continue
			}
			for _, may := range r.May {
				if matches(o.pkg, strings.TrimSuffix(may, "/...")) {
					t.Errorf("the table lets %s import %s: only %s may, because %s", r.Name, may, strings.Join(o.by, ", "), o.why)
				}
			}
		}
	}
}

func TestTablePointsDown(t *testing.T) {
	for _, r := range house {
		if r.Why == "" {
			t.Errorf("%s: a line without a reason", r.Name)
		}
		for _, p := range r.May {
			to, ok := roomOf(house, strings.TrimSuffix(p, "/..."))
			own, _, _ := strings.Cut(r.Name, "/")
			top, _, _ := strings.Cut(p, "/")
			switch {
			case !ok:
				t.Errorf("%s may import %s, which has no room", r.Name, p)
			case to.Floor < r.Floor, to.Floor == r.Floor && own == top:
			default:
				t.Errorf("%s (floor %d) may import %s (floor %d): imports point down", r.Name, r.Floor, p, to.Floor)
			}
		}
	}
	// Within a family of one floor the arrows must not turn in a circle.
	for name, to := range Reach(house) {
		if slices.Contains(to, name) && !strings.HasSuffix(name, "/...") {
			t.Errorf("%s reaches itself by the table", name)
		}
	}
}

func TestArchitecturePrintsTheTable(t *testing.T) {
	const begin, end = "<!-- table: begin -->\n", "<!-- table: end -->"
	name := filepath.Join("..", "..", "ARCHITECTURE.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s: the marks %q and %q are gone", name, begin, end)
	}
	got := []byte(before + begin + markdown(house) + end + after)
	if bytes.Equal(got, text) {
		return
	}
	if !*rewrite {
		t.Fatalf("%s does not print the table as it is: go test ./internal/lint -run Architecture -rewrite, and read the diff", name)
	}
	if err := os.WriteFile(name, got, 0o644); err != nil {
		t.Fatal(err)
	}
}

// markdown prints the table, top floor first.
func markdown(rooms []Room) string {
	rooms = slices.Clone(rooms)
	slices.SortStableFunc(rooms, func(a, b Room) int { return b.Floor - a.Floor })
	var b strings.Builder
	b.WriteString("| floor | package | may import | because |\n|---|---|---|---|\n")
	for _, r := range rooms {
		may := "nothing of ours"
		if len(r.May) > 0 {
			may = "`" + strings.Join(r.May, "` `") + "`"
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", r.Floor, r.Name, may, r.Why)
	}
	return b.String()
}
