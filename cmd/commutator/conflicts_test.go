package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/table"
)

func (d *testDev) set(region int, key, value string) {
	d.t.Helper()
	table, expression := "notes", "SET colour = :v"
	_, err := d.clients[region].dynamo.UpdateItem(d.t.Context(), &dynamodb.UpdateItemInput{
		TableName: &table, Key: attributes{"pk": text(key)}, UpdateExpression: &expression, ExpressionAttributeValues: attributes{":v": text(value)},
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestConflictsShowWhatWonAndWhatLost(t *testing.T) {
	d := startDev(t)
	d.notes()
	d.set(0, "a", "white")
	d.eventually("the item in the other region", func() bool { return d.get(1, "notes", "a") != nil })
	d.control("partition", west)
	d.set(0, "a", "red")
	d.set(1, "a", "blue")
	d.control("heal", "")

	var found []admin.Conflict
	d.eventually("a conflict", func() bool {
		stdout, _ := d.run("conflicts", "--table", "notes", "-o", "json")
		if err := json.Unmarshal([]byte(stdout), &found); err != nil {
			t.Fatal(err)
		}
		return len(found) > 0
	})
	c := found[0]
	values := []string{plainSide(c.Winner), plainSide(c.Loser)}
	slices.Sort(values)
	if len(found) != 1 || !slices.Equal(values, []string{`eu-west-1 "blue"`, `us-east-1 "red"`}) || plainValue(c.Stands) != plainValue(c.Winner.Value) || c.DetectedIn != c.Loser.Region {
		t.Errorf("conflicts: %+v", found)
	}
	stdout, _ := d.run("conflicts")
	for _, text := range []string{"DETECTED", "notes", `pk="a"`, "colour", "ConcurrentAssign", plainSide(c.Winner) + "  " + plainSide(c.Loser)} {
		if !strings.Contains(stdout, text) {
			t.Errorf("%q is not in\n%s", text, stdout)
		}
	}
	d.apply(writeFile(t, t.TempDir(), "alone.yaml", strings.NewReplacer("notes", "alone", ", {Region: "+west+"}", "").Replace(notesFile)))
	if stdout, _ := d.run("conflicts", "--table", "alone"); stdout != "no conflicts\n" {
		t.Errorf("conflicts of a table that one region has: %q", stdout)
	}
	d.refused([]string{"conflicts", "--table", "none"}, "not found")
	if stdout, _ := d.run("conflicts", "show", c.ID); !strings.Contains(stdout, "loser     Update by "+c.Loser.Region) || !strings.Contains(stdout, plainValue(c.Loser.Value)) {
		t.Errorf("show says\n%s", stdout)
	}
	if stdout, _ := d.run("conflicts", "replay", c.ID, "--dry-run"); !strings.Contains(stdout, "would be written  UpdateItem notes") || !strings.Contains(stdout, "SET colour = :lost") {
		t.Errorf("a dry run says\n%s", stdout)
	}
	if stdout, _ := d.run("conflicts", "replay", c.ID); !strings.HasPrefix(stdout, "written") {
		t.Errorf("replay says\n%s", stdout)
	}
	d.eventually("the losing value in both regions", func() bool {
		for i := range 2 {
			if v, ok := d.get(i, "notes", "a")["colour"].(*types.AttributeValueMemberS); !ok || strconv.Quote(v.Value) != plainValue(c.Loser.Value) {
				return false
			}
		}
		return true
	})
	d.refused([]string{"conflicts", "replay", c.ID}, "changed since")
	d.refused([]string{"conflicts", "show", "00000000000000000000000000000000"}, "kept where the losing write was acknowledged")
	if stdout, _ := d.run("lag", "--table", "notes"); strings.Count(stdout, "notes") != 2 {
		t.Errorf("lag says\n%s", stdout)
	}
}

func TestALinkThatIsCutIsShown(t *testing.T) {
	heard := time.Date(2026, 11, 22, 10, 15, 0, 0, time.UTC)
	all := []admin.Status{{
		Region: east, Links: []admin.Link{{Region: west, Heard: heard, Error: "timeout"}, {Region: "sa-east-1"}},
		Tables: []admin.TableStatus{{Name: "notes", Status: table.Active, Replicas: []admin.ReplicaStatus{{Region: east}, {Region: west, Status: table.Active, LagMillis: 61_000}}}},
	}}
	var out bytes.Buffer
	statusRows(&out, all)
	lagRows(&out, lagPairs(all, ""))
	for _, text := range []string{"eu-west-1\tunreachable, last heard from 2026-11-22T10:15:00Z", "sa-east-1\tnever heard from", "eu-west-1 ACTIVE", "eu-west-1\tus-east-1\t1m1s\tunreachable"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is not in\n%s", text, &out)
		}
	}
}

func TestValuesAreWrittenForPeople(t *testing.T) {
	for raw, want := range map[string]string{
		``:                                    "absent",
		`{"S":"a\"b"}`:                        `"a\"b"`,
		`{"N":"1.5"}`:                         "1.5",
		`{"BOOL":false}`:                      "false",
		`{"NULL":true}`:                       "null",
		`{"SS":["a","b"]}`:                    "{a, b}",
		`{"L":[]}`:                            "[]",
		`{"L":[{"N":"1"},{"M":{}}]}`:          "[1, {}]",
		`{"M":{"b":{"N":"2"},"a":{"S":"x"}}}`: `{a="x", b=2}`,
		`{"B":"AAE="}`:                        `{"B":"AAE="}`,
	} {
		if got := plainValue(json.RawMessage(raw)); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
	if got := cell(strings.Repeat("é", 50) + "\n"); len([]rune(got)) != 40 || !strings.HasSuffix(got, "...") {
		t.Errorf("a long cell is %q", got)
	}
}
