package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The service's API model: see model/README.md.

type model struct {
	Operations map[string]struct {
		Input, Output ref
		Errors        []ref
	}
	Shapes map[string]*shape
}

// ref names a shape.
type ref struct{ Shape string }

type shape struct {
	Type               string
	Required           []string
	Members            map[string]ref // of a structure
	Member, Key, Value ref            // of a list; of a map
	Enum               []string
	Min, Max           *int64
	Pattern            string
}

var readModel = sync.OnceValues(func() (*model, error) {
	b, err := os.ReadFile("model/dynamodb.json")
	if err != nil {
		return nil, err
	}
	m := new(model)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, err
	}
	// The model requires these no more since there are vector indexes; the service was recorded to.
	in := m.Shapes["CreateTableInput"]
	in.Required = append(in.Required, "AttributeDefinitions", "KeySchema")
	return m, nil
})

func apiModel(t testing.TB) *model {
	t.Helper()
	m, err := readModel()
	if err != nil {
		t.Fatal(err)
	}
	// What SDKs of late 2026 have, and the model here has not yet.
	m.Shapes["TableDescription"].Members["DisassociationProtectionEnabled"] = m.Shapes["TableDescription"].Members["DeletionProtectionEnabled"]
	return m
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// matches tells whether s matches a pattern of the model, which Java reads: the few that Go cannot read
// match everything.
func matches(pattern, s string) bool {
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	return err != nil || re.MatchString(s)
}

// unmodelled are error types that any operation may answer with, as the service does, though the model names
// them for none.
var unmodelled = []string{
	"com.amazon.coral.service#AccessDeniedException",
	"com.amazon.coral.validate#ValidationException", "com.amazon.coral.service#SerializationException", "com.amazon.coral.service#UnknownOperationException",
}

// checkAnswer reports what of an answer the model does not know.
func (m *model) checkAnswer(t testing.TB, op string, status int, body []byte) {
	t.Helper()
	o, ok := m.Operations[op]
	if !ok {
		return // a request that means to be wrong
	}
	var wrong []string
	if status != 200 {
		wrong = m.checkError(o.Errors, status, body)
	} else if len(body) > 0 || o.Output.Shape != "" {
		wrong = m.checkJSON(o.Output.Shape, body)
	}
	for _, w := range wrong {
		t.Errorf("%s: %d %.500s\n%s", op, status, body, w)
	}
}

// checkError wants an error that the operation may answer with.
func (m *model) checkError(errors []ref, status int, body []byte) (wrong []string) {
	var e struct {
		Type    string `json:"__type"`
		Message *string
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return []string{err.Error()}
	}
	silent := e.Type == "com.amazon.coral.service#SerializationException" || e.Type == "com.amazon.coral.service#UnknownOperationException"
	if (e.Message == nil || *e.Message == "") && !silent {
		wrong = append(wrong, "there is no message")
	}
	if status != 400 {
		wrong = append(wrong, "an error of the client's is a 400")
	}
	if slices.Contains(unmodelled, e.Type) {
		return wrong
	}
	space, name, _ := strings.Cut(e.Type, "#")
	if space != "com.amazonaws.dynamodb.v20120810" || !slices.Contains(errors, ref{name}) {
		wrong = append(wrong, "the operation has no error "+e.Type)
	}
	return wrong
}

// checkJSON returns where a document is not of the shape.
func (m *model) checkJSON(shape string, body []byte) (wrong []string) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return []string{err.Error()}
	}
	m.check(shape, v, "", &wrong)
	return wrong
}

func (m *model) check(name string, v any, at string, wrong *[]string) {
	s := m.Shapes[name]
	complain := func(format string, args ...any) { *wrong = append(*wrong, at+": "+fmt.Sprintf(format, args...)) }
	mistyped := func() { complain("%v is no %s (%s)", v, s.Type, name) }
	switch s.Type {
	case "structure":
		fields, ok := v.(map[string]any)
		if !ok {
			mistyped()
			return
		}
		for _, r := range s.Required {
			if _, ok := fields[r]; !ok {
				complain("there is no %s", r)
			}
		}
		if name == "AttributeValue" && len(fields) != 1 {
			complain("an AttributeValue of %d types", len(fields))
		}
		for _, f := range sorted(fields) {
			if member, ok := s.Members[f]; ok {
				m.check(member.Shape, fields[f], at+"."+f, wrong)
			} else {
				complain("%s has no member %s", name, f)
			}
		}
	case "map":
		entries, ok := v.(map[string]any)
		if !ok {
			mistyped()
		}
		for _, k := range sorted(entries) {
			m.check(s.Key.Shape, k, at+"."+k, wrong)
			m.check(s.Value.Shape, entries[k], at+"."+k, wrong)
		}
	case "list":
		list, ok := v.([]any)
		if !ok {
			mistyped()
		}
		for i, e := range list {
			m.check(s.Member.Shape, e, fmt.Sprintf("%s[%d]", at, i), wrong)
		}
	case "string":
		text, ok := v.(string)
		switch {
		case !ok:
			mistyped()
		case len(s.Enum) > 0 && !slices.Contains(s.Enum, text):
			complain("%q is none of %v", text, s.Enum)
		case s.Pattern != "" && !matches(s.Pattern, text):
			complain("%q does not match %s", text, s.Pattern)
		}
	case "blob":
		text, ok := v.(string)
		if _, err := base64.StdEncoding.Strict().DecodeString(text); !ok || err != nil {
			mistyped()
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			mistyped()
		}
	case "integer", "long":
		n, ok := v.(json.Number)
		if !ok {
			mistyped()
			return
		}
		if _, err := n.Int64(); err != nil {
			mistyped()
		}
	case "double", "timestamp":
		if _, ok := v.(json.Number); !ok {
			mistyped()
		}
	default:
		complain("the model has a type %q that this test does not know", s.Type)
	}
}

func TestModelFindsWhatIsWrongWithAnAnswer(t *testing.T) {
	m := apiModel(t)
	for body, want := range map[string]string{
		`{"Table":{"TableStatus":"ACTIVE","CreationDateTime":1.5,"ItemCount":3}}`: "",
		`{"Table":{"TableStatus":"GONE"}}`:                                        "none of",
		`{"Table":{"CreationDateTime":"today"}}`:                                  "no timestamp",
		`{"Table":{"ItemCount":"3"}}`:                                             "no long",
		`{"Table":{"ItemCount":1.5}}`:                                             "no long",
		`{"Table":{"Other":1}}`:                                                   "no member Other",
		`{"Table":{"GlobalSecondaryIndexes":{}}}`:                                 "no list",
		`{"Table":{"KeySchema":[{"AttributeName":"a"}]}}`:                         "there is no KeyType",
		`{"Table":[]}`: "no structure",
		`{"Table":`:    "unexpected EOF",
	} {
		got := strings.Join(m.checkJSON("DescribeTableOutput", []byte(body)), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	for body, want := range map[string]string{
		`{"Item":{"a":{"B":"AAA="},"b":{"M":{"c":{"L":[{"NULL":true}]}}}}}`: "",
		`{"Item":{"a":{"B":"AAA"}}}`:                                        "no blob",
		`{"Item":{"a":{"B":"AAA=","S":""}}}`:                                "of 2 types",
		`{"Item":{"a":{"M":{"c":{"L":[{"BOOL":"true"}]}}}}}`:                "no boolean",
	} {
		got := strings.Join(m.checkJSON("GetItemOutput", []byte(body)), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	for body, want := range map[string]string{
		`{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"x"}`:         "",
		`{"__type":"com.amazon.coral.validate#ValidationException","message":"x"}`:                      "",
		`{"__type":"com.amazon.coral.validate#ValidationException"}`:                                    "no message",
		`{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","message":"x"}`:   "has no error",
		`{"__type":"com.amazon.coral.service#ResourceNotFoundException","message":"of another family"}`: "has no error",
	} {
		got := strings.Join(m.checkError(m.Operations["GetItem"].Errors, 400, []byte(body)), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}
