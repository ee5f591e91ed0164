package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The contract: for every operation of the model and every member of its input, wherever it stands, requests
// are made that keep the model's word or break one thing of it, and the answer is held to what the model says.
// An operation is held to it from the day it runs.

// trial is a value of some shape and what a request with it must lead to.
type trial struct {
	value any
	at    string // path of the member in question, as constraint messages have it
	what  string // for people
	want  want
	rule  string // wanted of a broken constraint: the rule in the message
}

type want int

const (
	accepted want = iota // neither mistyped nor against a constraint
	mistyped             // a SerializationException
	broken               // a ValidationException that names the member and the rule
)

// exception is where something else is right than what the model leads to. op, at and what are regular
// expressions of all of a trial's. The answer then has text; "" is whatever is no SerializationException.
type exception struct {
	op, at, what, text, reason string

	// pending: what the members do is not there. The exception may be left over.
	pending bool
}

var exceptions = []exception{
	{op: ".*(Table|TimeToLive|ContinuousBackups|ContributorInsights|StreamingDestination|AutoScaling)", at: "tableName", what: "too short", text: "at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3",
		reason: "the model's TableName may be an ARN; what is none is held to a name's length"},
	{op: ".*", at: "tableName", what: "too long", text: "at 'tableName' failed to satisfy constraint: Member must have length less than or equal to 255",
		reason: "1024 is for ARNs; what is none is held to a name's length"},
	{op: "DisableKinesisStreamingDestination", at: "streamArn", what: "too short", reason: "the service takes any ARN here, and finds that it has no such destination"},
	{op: "UpdateKinesisStreamingDestination", at: "streamArn", what: "too short", reason: "the service takes any ARN here, and finds that it has no such destination"},
	{op: "UpdateTable", at: "globalTableSettingsReplicationMode", what: "one of the words", text: "Only ENABLED and DISABLED settings replication are supported for a Regional Table", reason: "the service refuses the third to be set"},
	{op: "CreateTable|UpdateTable", at: "tableClass", what: "enum.*", text: "Invalid table-class parameter provided.", reason: "the service says so in its own words"},
	{op: "CreateTable", at: "tags.1.member.*", what: "absent|null|too .*", reason: "the service says so in its own words, behind what else is wrong"},
	{op: "TagResource", at: "tags.1.member.*", what: "absent|null|too .*", text: "The Tag ", reason: "the service says so in its own words"},
	{op: "UntagResource", at: "tagKeys", what: "too .*", text: "The Tag Key provided is invalid, Key: ", reason: "the service says so in its own words"},
	{op: "CreateTable", at: "vectorIndexes.*", what: ".*", text: "VectorIndexes are not supported", reason: "there are no vector indexes", pending: true},
	{op: "UpdateTable", at: "vectorIndexUpdates.*", what: ".*", text: "VectorIndexUpdates are not supported", reason: "there are no vector indexes", pending: true},
	{op: "CreateTable", at: "globalTableSourceArn", what: ".*", text: "GlobalTableSourceArn is not supported", reason: "there is one account", pending: true},
}

// TestContract is generated from the model. It asks for everything twice: where there is no table, and of a table
// whose name and key are those that the generator makes, so that much of it is carried out.
func TestContract(t *testing.T) {
	m := apiModel(t)
	used := make([]bool, len(exceptions))
	for _, c := range []struct{ name, table string }{{"without a table", ""}, {"of a table", "aaa"}} {
		t.Run(c.name, func(t *testing.T) { contract(t, m, c.table, used) })
	}
	for i, e := range exceptions {
		if !used[i] && !e.pending && !t.Failed() {
			t.Errorf("nothing needs the exception %+v", e)
		}
	}
}

// contract holds every operation to the model. The table, where one is named, is there before each.
func contract(t *testing.T, m *model, table string, used []bool) {
	h := newHandler(t, nil)
	for _, op := range sorted(m.Operations) {
		t.Run(op, func(t *testing.T) {
			input := m.Operations[op].Input.Shape
			if refusal := post(h, op, "{}").Body.String(); strings.Contains(refusal, "#UnknownOperationException") {
				if !strings.Contains(refusal, "does not have the operation "+op+" yet: ") {
					t.Errorf("it is not there, and does not say so: %s", refusal)
				}
				return
			}
			if table != "" {
				ensureTable(t, h, table)
			}
			g := generator{model: m}
			least, err := json.Marshal(g.least(input))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range g.trials(input, "") {
				body, err := json.Marshal(c.value)
				if err != nil {
					t.Fatal(err)
				}
				w := post(h, op, string(body))
				m.checkAnswer(t, op, w.Code, w.Body.Bytes())
				answer := w.Body.String()
				if c.kept(w.Code, answer) {
					if c.what == "null" && c.want == accepted && table == "" && !strings.Contains(c.at, ".") && !sameAnswer(h, op, body, least) {
						t.Errorf("%s: null is not as absent: %s", c.at, answer)
					}
					continue
				}
				if i := slices.IndexFunc(exceptions, func(e exception) bool { return covers(e.op, op) && covers(e.at, c.at) && covers(e.what, c.what) }); i >= 0 {
					used[i] = true
					if text := exceptions[i].text; text != "" && !strings.Contains(answer, text) || text == "" && strings.Contains(answer, "#SerializationException") {
						t.Errorf("%s: %s:\n%.300s\nis answered\n%d %.500s\nwant %q, since %s", c.at, c.what, body, w.Code, answer, text, exceptions[i].reason)
					}
					continue
				}
				t.Errorf("%s: %s:\n%.300s\nis answered\n%d %.500s", c.at, c.what, body, w.Code, answer)
			}
		})
	}
}

// sameAnswer tells whether two requests are answered alike. A table may come or go in between, so they are asked
// some times.
func sameAnswer(h http.Handler, op string, a, b []byte) bool {
	for range 5 {
		if post(h, op, string(a)).Body.String() == post(h, op, string(b)).Body.String() {
			return true
		}
	}
	return false
}

// ensureTable waits until the table is there and active; one that is being deleted has to be gone first.
func ensureTable(t *testing.T, h http.Handler, name string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		post(h, "CreateTable", `{"TableName":"`+name+`","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"aaa","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"aaa","AttributeType":"S"}]}`)
		w := post(h, "DescribeTable", `{"TableName":"`+name+`"}`)
		if strings.Contains(w.Body.String(), `"TableStatus":"ACTIVE"`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("table %s: %s", name, w.Body)
		}
	}
}

// covers tells whether a regular expression of an exception is about s.
func covers(pattern, s string) bool {
	return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(s)
}

// kept tells whether the answer is what the model leads to.
func (c *trial) kept(status int, answer string) bool {
	switch c.want {
	case mistyped:
		return strings.Contains(answer, "#SerializationException")
	case broken:
		return strings.Contains(answer, "#ValidationException") && strings.Contains(answer, "validation error") &&
			strings.Contains(answer, "at '"+c.at+"' failed to satisfy constraint: "+c.rule)
	}
	return !strings.Contains(answer, "#SerializationException") && !strings.Contains(answer, "failed to satisfy constraint")
}

// generator makes values of the model's shapes.
type generator struct {
	model *model
	stack []string // shapes within which this one stands
}

// least is a shape's least valid value: required members alone, and one element or entry.
func (g *generator) least(name string) any {
	s := g.model.Shapes[name]
	switch s.Type {
	case "structure":
		v := map[string]any{}
		if name == "AttributeValue" {
			v["S"] = "a"
		}
		for _, r := range s.Required {
			v[r] = g.least(s.Members[r].Shape)
		}
		return v
	case "map":
		return map[string]any{g.text(g.model.Shapes[s.Key.Shape]): g.least(s.Value.Shape)}
	case "list":
		return []any{g.least(s.Member.Shape)}
	case "string":
		return g.text(s)
	case "blob":
		return "AAAA"
	case "boolean":
		return true
	case "timestamp":
		return 1700000000
	}
	return max(1, number(s.Min, 1))
}

func number(n *int64, otherwise int64) int64 {
	if n == nil {
		return otherwise
	}
	return *n
}

// text is a valid string.
func (g *generator) text(s *shape) string {
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	if s == g.model.Shapes["ResourceArnString"] {
		return "arn:aws:dynamodb:" + regionName + ":000000000000:table/aaa"
	}
	n := int(max(3, number(s.Min, 0)))
	if s.Max != nil {
		n = min(n, int(*s.Max))
	}
	return strings.Repeat("a", n)
}

// wrongTypes are JSON values that are no value of a type of the model.
var wrongTypes = map[string][]any{
	"string":    {1, true, []any{}, map[string]any{}},
	"blob":      {1, true, []any{}, map[string]any{}},
	"boolean":   {1, "x", []any{}, map[string]any{}},
	"integer":   {"1", true, []any{}, map[string]any{}},
	"long":      {"1", true, []any{}, map[string]any{}},
	"double":    {"1", true, []any{}, map[string]any{}},
	"timestamp": {true, []any{}, map[string]any{}},
	"list":      {1, true, "x", map[string]any{}},
	"map":       {1, true, "x", []any{}},
	"structure": {1, true, "x", []any{}},
}

// trials are values of a shape that stands at a path.
func (g *generator) trials(name, at string) (out []trial) {
	s := g.model.Shapes[name]
	add := func(value any, what string, w want, rule string) {
		out = append(out, trial{value: value, at: at, what: what, want: w, rule: rule})
	}
	add(g.least(name), "the least", accepted, "")
	for _, v := range wrongTypes[s.Type] {
		add(v, fmt.Sprintf("%T for %s", v, s.Type), mistyped, "")
	}
	if slices.Contains(g.stack, name) {
		return out // within itself it is what it is
	}
	g.stack = append(g.stack, name)
	defer func() { g.stack = g.stack[:len(g.stack)-1] }()
	switch s.Type {
	case "string":
		if len(s.Enum) > 0 {
			for _, word := range s.Enum {
				add(word, "one of the words", accepted, "")
			}
			add("NO_SUCH_WORD", "enum", broken, "Member must satisfy enum value set: [")
			add(strings.ToLower(s.Enum[0]), "enum in lower case", broken, "Member must satisfy enum value set: [")
			break
		}
		if n := number(s.Min, 0); n > 0 {
			add(strings.Repeat("a", int(n-1)), "too short", broken, fmt.Sprintf("Member must have length greater than or equal to %d", n))
		}
		if s.Max != nil && *s.Max < 4096 {
			add(strings.Repeat("a", int(*s.Max+1)), "too long", broken, fmt.Sprintf("Member must have length less than or equal to %d", *s.Max))
		}
		if bad := "a?\x01\u00e9$"; s.Pattern != "" && !matches(s.Pattern, bad) {
			add(bad, "pattern", broken, "Member must satisfy regular expression pattern: ")
		}
	case "integer", "long":
		if s.Min != nil {
			add(*s.Min-1, "too small", broken, fmt.Sprintf("Member must have value greater than or equal to %d", *s.Min))
		}
		if s.Max != nil {
			add(*s.Max+1, "too large", broken, fmt.Sprintf("Member must have value less than or equal to %d", *s.Max))
		}
	case "list":
		if number(s.Min, 0) > 0 {
			add([]any{}, "too few", broken, fmt.Sprintf("Member must have length greater than or equal to %d", *s.Min))
		}
		if s.Max != nil && *s.Max <= 100 {
			var many []any
			for range *s.Max + 1 {
				many = append(many, g.least(s.Member.Shape))
			}
			add(many, "too many", broken, fmt.Sprintf("Member must have length less than or equal to %d", *s.Max))
		}
		for _, c := range g.trials(s.Member.Shape, at+".1.member") {
			c.value = []any{c.value}
			if c.want == broken && c.at == at+".1.member" {
				c.at, c.rule = at, "Member must satisfy constraint: [" // strings of a list are complained of together
			}
			out = append(out, c)
		}
	case "map":
		if number(s.Min, 0) > 0 {
			add(map[string]any{}, "too few", broken, fmt.Sprintf("Member must have length greater than or equal to %d", *s.Min))
		}
		key := g.text(g.model.Shapes[s.Key.Shape])
		if s.Max != nil && *s.Max <= 100 {
			many := map[string]any{}
			for i := range *s.Max + 1 {
				many[fmt.Sprintf("%s%d", key, i)] = g.least(s.Value.Shape)
			}
			add(many, "too many", broken, fmt.Sprintf("Member must have length less than or equal to %d", *s.Max))
		}
		for _, c := range g.trials(s.Value.Shape, at+"."+key+".member") {
			c.value = map[string]any{key: c.value}
			out = append(out, c)
		}
	case "structure":
		least := g.least(name).(map[string]any)
		with := func(member string, value any) map[string]any {
			v := maps.Clone(least)
			v[member] = value
			return v
		}
		if name != "AttributeValue" {
			add(with("NoSuchMember", map[string]any{"A": []any{1, nil}}), "a member that is not known", accepted, "")
		}
		for _, member := range sorted(s.Members) {
			path := strings.TrimPrefix(at+"."+camel(member), ".")
			if slices.Contains(s.Required, member) {
				without := maps.Clone(least)
				delete(without, member)
				out = append(out,
					trial{value: without, at: path, what: "absent", want: broken, rule: "Member must not be null"},
					trial{value: with(member, nil), at: path, what: "null", want: broken, rule: "Member must not be null"})
			} else if name != "AttributeValue" {
				out = append(out, trial{value: with(member, nil), at: path, what: "null", want: accepted})
			}
			for _, c := range g.trials(s.Members[member].Shape, path) {
				if name == "AttributeValue" {
					c.value = map[string]any{member: c.value}
				} else {
					c.value = with(member, c.value)
				}
				out = append(out, c)
			}
		}
	}
	return out
}

func camel(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// neverSucceed are operations that are there and have nothing to succeed with.
var neverSucceed = map[string]string{
	"CreateGlobalTable": only2019, "DescribeGlobalTable": only2019, "DescribeGlobalTableSettings": only2019, "UpdateGlobalTable": only2019, "UpdateGlobalTableSettings": only2019,
	"UpdateKinesisStreamingDestination": noKinesis, "DisableKinesisStreamingDestination": noKinesis,
}

const noKinesis = "there is no Kinesis, so no destination is ever ACTIVE"

const only2019 = "the service offers version 2017.11.29 no more"

// A script shows a success of every operation that runs, so that TestScripts holds an answer of each to the
// model.
func TestContractIsShownByAScriptOfEachOperation(t *testing.T) {
	m := apiModel(t)
	h := newHandler(t, nil)
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(append(b, "\n\n"...))
	}
	shown := map[string]bool{}
	for block := range strings.SplitSeq(all.String(), "\n\n") {
		if request, answer, ok := strings.Cut(block, "\n----\n"); ok && strings.HasPrefix(answer, "200") {
			for line := range strings.SplitSeq(request, "\n") {
				if _, ok := m.Operations[line]; ok {
					shown[line] = true
				}
			}
		}
	}
	for _, op := range sorted(m.Operations) {
		if neverSucceed[op] == "" && !shown[op] && !strings.Contains(post(h, op, "{}").Body.String(), "does not have the operation") {
			t.Errorf("no script has a success of %s", op)
		}
	}
}
