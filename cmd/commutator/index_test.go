package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestIndexesThatHoldWhatTheyShouldAreChecked(t *testing.T) {
	d := startDev(t)
	d.apply(writeFile(t, t.TempDir(), "orders.yaml", `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}, {AttributeName: day, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
BillingMode: PAY_PER_REQUEST
GlobalSecondaryIndexes: [{IndexName: by-day, KeySchema: [{AttributeName: day, KeyType: HASH}], Projection: {ProjectionType: ALL}}]
Replicas: [{Region: us-east-1}, {Region: eu-west-1}]
`))
	for i := range 5 {
		d.put(0, "orders", attributes{"pk": text(fmt.Sprint(i)), "day": text("mon")})
	}
	stdout, _ := d.run("index", "check", "orders", "--region", east)
	if want := "us-east-1  orders  5      5     0\n"; !strings.Contains(stdout, want) {
		t.Errorf("check says\n%s", stdout)
	}
	// The third region has no such table.
	if stdout, _ := d.run("index", "check", "orders"); strings.Count(stdout, "orders") != 2 {
		t.Errorf("check of all regions says\n%s", stdout)
	}
	d.refused([]string{"index", "check", "nosuch"}, "not found")
	d.refused([]string{"index", "check"}, "accepts 1 arg")
	d.refused([]string{"index", "check", "orders", "--limit", "0"}, "--limit 0")
}

// What is wrong is listed, asked for piece by piece, and makes the command fail.
func TestDifferencesOfIndexesAreShownAndFail(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprintln(w, "healthy: dynamodb.us-east-1.amazonaws.com")
			return
		}
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, string(body))
		if len(asked) == 1 {
			io.WriteString(w, `{"Region":"us-east-1","TableName":"orders","Items":2,"Rows":1,"Next":"bmV4dA==","Differences":[{"IndexName":"by-day","Reason":"missing","Key":{"pk":{"S":"a"}},"Row":"00"}]}`)
			return
		}
		io.WriteString(w, `{"Region":"us-east-1","TableName":"orders","Items":0,"Rows":3,"Differences":[{"IndexName":"by-day","Reason":"stale","Row":"01"}]}`)
	}))
	defer server.Close()
	stdout, stderr, err := try(t, "index", "check", "orders", "--endpoint", server.URL)
	if err == nil || !strings.Contains(err.Error(), "2 index rows of orders are not what its items make them") {
		t.Errorf("the command ends with %v, %s", err, stderr)
	}
	for _, line := range []string{"us-east-1  orders  2      4     2\n", "us-east-1  by-day  missing  pk=\"a\"\n", "us-east-1  by-day  stale    -\n"} {
		if !strings.Contains(stdout, line) {
			t.Errorf("%q is not in\n%s", line, stdout)
		}
	}
	if len(asked) != 2 || !strings.Contains(asked[1], `"From":"bmV4dA=="`) {
		t.Errorf("asked %q", asked)
	}
	stdout, _, err = try(t, "index", "check", "orders", "--endpoint", server.URL, "--limit", "1", "-o", "json")
	if err == nil || strings.Count(stdout, "Reason") != 1 || !strings.Contains(stdout, `"Found": 1`) {
		t.Errorf("%v\n%s", err, stdout)
	}
}
