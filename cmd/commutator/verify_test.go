package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/commutatordb/commutator/admin"
)

func TestRegionsThatAreEqualAreShownSo(t *testing.T) {
	d := startDev(t)
	if stdout, _ := d.run("verify"); stdout != "no table has replicas in several regions\n" {
		t.Errorf("without tables verify says %q", stdout)
	}
	d.notes()
	for i := range 30 {
		d.put(i%2, "notes", attributes{"pk": text(fmt.Sprint(i)), "body": text("note")})
	}
	for _, args := range [][]string{{"verify"}, {"verify", "notes", "--deep"}, {"verify", "notes", "--repair"}} {
		stdout, _ := d.run(append(args, "-o", "json")...)
		var found []admin.Verified
		if err := json.Unmarshal([]byte(stdout), &found); err != nil || len(found) != 2 {
			t.Fatalf("%v says %s (%v)", args, stdout, err)
		}
		for _, r := range found {
			if !r.Equal() || r.Different != 0 || r.TableName != "notes" {
				t.Errorf("%v says %+v", args, r)
			}
		}
	}
	d.eventually("30 items on both sides", func() bool {
		stdout, _ := d.run("verify")
		return strings.Contains(stdout, "notes  us-east-1  eu-west-1  30 ") && strings.Contains(stdout, "notes  eu-west-1  us-east-1  30 ")
	})
	d.refused([]string{"verify", "nosuch"}, "not found")
	d.refused([]string{"verify", "notes", "--endpoint", d.clients[0].url}, "eu-west-1 was not asked what it lacks of notes")
	if stdout, _ := d.run("verify", "notes", "--region", east); strings.Count(stdout, "notes") != 1 {
		t.Errorf("of one region verify says %s", stdout)
	}
}

// answering is a region whose operator API answers as given, by operation.
func answering(t *testing.T, region string, answer func(operation, body string) (int, string)) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprintf(w, "healthy: dynamodb.%s.amazonaws.com\n", region)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		code, text := answer(operation, string(body))
		w.WriteHeader(code)
		io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestRegionsThatDifferAreShownAndFail(t *testing.T) {
	var asked []string
	leader := answering(t, "us-east-1", func(operation, body string) (int, string) {
		asked = append(asked, operation+" "+body)
		status := "DONE"
		if operation == "Verify" {
			status = "RUNNING"
		}
		return 200, fmt.Sprintf(`{"ID":"7","Status":%q,"Results":[{"TableName":"orders","Region":"us-east-1","Peer":"eu-west-1","Items":9,"Leaves":4,"Different":3,"Unsettled":2,"Repaired":1,"AsOf":"2026-11-23T05:00:00Z","Keys":[
			{"Key":{"pk":{"S":"a"}},"Reason":"BEHIND","Here":"x","There":"y","Repaired":true},{"Key":{"pk":{"S":"b"}},"Reason":"GONE","There":"z"}]},
			{"TableName":"orders","Region":"us-east-1","Peer":"sa-east-1","Error":"the region cannot be reached"}]}`, status)
	})
	follower := answering(t, "us-east-1", func(string, string) (int, string) {
		return 400, `{"__type":"x#NotLeaderException","message":"ask another"}`
	})
	other := answering(t, "eu-west-1", func(string, string) (int, string) {
		return 200, `{"ID":"1","Status":"DONE","Results":[{"TableName":"orders","Region":"eu-west-1","Peer":"us-east-1"},{"TableName":"orders","Region":"eu-west-1","Peer":"sa-east-1"}]}`
	})
	endpoints := strings.Join([]string{follower, leader, other}, ",")
	stdout, stderr, err := try(t, "verify", "orders", "--repair", "--endpoint", endpoints)
	if err == nil {
		t.Fatalf("regions that differ pass: %s %s", stdout, stderr)
	}
	for _, text := range []string{"2 items are different", "2 items kept changing", "us-east-1 could not compare orders with sa-east-1: the region cannot be reached", "sa-east-1 was not asked what it lacks of orders"} {
		if strings.Count(err.Error(), text) != 1 {
			t.Errorf("%q is not once in %v", text, err)
		}
	}
	for _, line := range []string{
		"orders  us-east-1  eu-west-1  9      4       3          2          1         2026-11-23T05:00:00.000Z\n",
		"orders  us-east-1  eu-west-1  pk=\"a\"  BEHIND, repaired  x                  y\n", "orders  us-east-1  eu-west-1  pk=\"b\"  GONE              -                  z\n",
		"not compared",
	} {
		if !strings.Contains(stdout, line) {
			t.Errorf("%q is not in\n%s", line, stdout)
		}
	}
	if len(asked) != 2 || !strings.Contains(asked[0], `"TableName":"orders","Deep":false,"Repair":true`) || !strings.Contains(asked[1], `DescribeVerify {"ID":"7"}`) {
		t.Errorf("asked %q", asked)
	}
	if stdout, _, _ := try(t, "verify", "--endpoint", endpoints, "--limit", "1"); strings.Contains(stdout, `pk="b"`) {
		t.Errorf("beyond the limit: %s", stdout)
	}
	if _, _, err := try(t, "verify", "--endpoint", follower); err == nil || !strings.Contains(err.Error(), "ask another") {
		t.Errorf("a node that does not lead: %v", err)
	}
}
