//go:build linux

package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMoreThanANodeCanDoIsRefusedAndTheRestIsDone asks a node that may use one processor for more than that can do, from connections that wait for
// nothing but their own answers. Each request is done or refused as the service refuses what is too much; what was done is there; and the next one
// finds nothing of it.
func TestMoreThanANodeCanDoIsRefusedAndTheRestIsDone(t *testing.T) {
	const connections, each = 2500, 6
	t.Setenv("GOMAXPROCS", "1") // the node's
	r := start(t, 1, "")
	makeTable(t, newClient([]string{r.endpoint(1)}, 0, 10*time.Second))
	transport := &http.Transport{MaxIdleConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	ask := func(operation, body string) (outcome string, answer []byte) {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.endpoint(1), strings.NewReader(body))
		if err != nil {
			return err.Error(), nil
		}
		q.Header.Set("Content-Type", "application/x-amz-json-1.0")
		q.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
		a, err := client.Do(q)
		if err != nil {
			return err.Error(), nil
		}
		defer a.Body.Close()
		if answer, err = io.ReadAll(a.Body); err != nil {
			return err.Error(), nil
		}
		if a.StatusCode == http.StatusOK {
			return "done", answer
		}
		var e struct {
			Type string `json:"__type"`
		}
		if err := json.Unmarshal(answer, &e); err != nil {
			return err.Error(), nil
		}
		_, name, _ := strings.Cut(e.Type, "#")
		return fmt.Sprint(a.StatusCode, " ", name), nil
	}
	key := func(i int) string { return fmt.Sprintf(`{"pk":{"S":"%d"}}`, i) }
	outcomes := make([]string, connections*each)
	var load sync.WaitGroup
	for c := range connections {
		load.Go(func() {
			for i := c * each; i < (c+1)*each; i++ {
				outcomes[i], _ = ask("PutItem", fmt.Sprintf(`{"TableName":%q,"Item":%s}`, tableName, key(i)))
			}
		})
	}
	load.Wait()
	again := ""
	for range 3 { // as often as an SDK asks
		if again, _ = ask("PutItem", fmt.Sprintf(`{"TableName":%q,"Item":%s}`, tableName, key(-1))); again == "done" {
			break
		}
	}
	if again != "done" {
		t.Errorf("who comes when all is over: %s", again)
	}
	count := map[string]int{}
	for i, outcome := range outcomes {
		if count[outcome]++; outcome != "done" || i%10 > 0 {
			continue
		}
		if _, got := ask("GetItem", fmt.Sprintf(`{"TableName":%q,"Key":%s,"ConsistentRead":true}`, tableName, key(i))); !strings.Contains(string(got), `"pk"`) {
			t.Errorf("item %d was written, and is read as %s", i, got)
		}
	}
	t.Log(count)
	refused := count["400 ThrottlingException"] + count["400 ProvisionedThroughputExceededException"]
	if count["done"] == 0 || refused == 0 || count["done"]+refused != len(outcomes) {
		t.Errorf("of %d requests: %v", len(outcomes), count)
	}
}
