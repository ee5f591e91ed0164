//go:build drill

package drill

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// The region of deploy/docker-compose.3x3.yml whose nodes have accidents. Its fourth node joins.
const (
	nodesRegion = "us-east-1"
	downFor     = 5 * time.Second // how long a node is away
	restFor     = 2 * time.Second // between accidents
	nodesTable  = "accidents"
)

var nodesPorts = []string{"8000", "8010", "8020", "8030"}

// spread is a client of the region as one behind a name with all its nodes' addresses: a connection is made to the first that takes one. An
// attempt that is not answered is given up and made again elsewhere.
func spread() *dynamodb.Client {
	dial := func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		for _, i := range rand.Perm(len(nodesPorts)) {
			if c, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", "127.0.0.1:"+nodesPorts[i]); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
	return dynamodb.New(dynamodb.Options{
		Region: nodesRegion, BaseEndpoint: aws.String("http://dynamodb.example"), RetryMaxAttempts: 8,
		Credentials: credentials.NewStaticCredentialsProvider("commutator", "commutator", ""),
		HTTPClient:  &http.Client{Timeout: 1500 * time.Millisecond, Transport: &http.Transport{DialContext: dial}},
	})
}

// accident is one thing that happens to a node, and how it ends.
type accident struct {
	name       string
	begin, end func()
}

// TestANodeIsLost is the drill of a region of three nodes: each accident happens to it under load, and is over. How long clients wait is
// measured, and in the end nothing that was acknowledged may be missing, in this region and another.
func TestANodeIsLost(t *testing.T) {
	run(t, "make", "-s", "up", "NODES=3")
	downAfter(t)
	binary := filepath.Join(t.TempDir(), "commutator")
	run(t, "go", "build", "-o", binary, "./cmd/commutator")
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "commutator")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "commutator")
	// command asks the first node that answers: one of them may be away.
	command := func(args ...string) string {
		for _, port := range nodesPorts[:3] {
			url := "http://127.0.0.1:" + port
			if run(t, "sh", "-c", binary+" healthcheck --url http://127.0.0.1:9"+port[1:]+"/readyz >/dev/null 2>&1 && echo yes || true") == "yes" {
				return run(t, binary, append(args, "--endpoint", url)...)
			}
		}
		t.Fatal("no node is ready")
		return ""
	}
	c := spread()
	makeGlobal(t, nodesTable, []*dynamodb.Client{c, client(1), client(2)})

	var mu sync.Mutex
	var acked []string
	times := make([][]time.Time, 2*workers)
	failed := 0
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for w := range times {
		load.Go(func() {
			c := spread()
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d/%d", w, i)
				_, err := c.PutItem(context.WithoutCancel(ctx), &dynamodb.PutItemInput{TableName: aws.String(nodesTable), Item: map[string]types.AttributeValue{
					"pk": &types.AttributeValueMemberS{Value: key},
				}})
				mu.Lock()
				if err != nil {
					failed++
					t.Log("after the SDK's retries:", err)
				} else {
					acked = append(acked, key)
					times[w] = append(times[w], time.Now())
				}
				mu.Unlock()
			}
		})
	}
	container := func(node string) string { return "commutator-" + nodesRegion + "-" + node }
	ready := func(node string) { run(t, "deploy/ready.sh", nodesRegion+"-"+node) }
	gone := func(id int) {
		until(t, fmt.Sprintf("node %d is gone", id), time.Minute, func() bool {
			var all []struct {
				Nodes []struct {
					ID     int
					Status string
				}
			}
			if err := json.Unmarshal([]byte(command("node", "list", "-o", "json")), &all); err != nil {
				t.Fatal(err)
			}
			for _, n := range all[0].Nodes {
				if n.ID == id {
					return n.Status == "GONE"
				}
			}
			return false
		})
	}
	// leader is the node that leads the table's partition: its loss is what clients notice.
	leader := func() string {
		var all []struct{ Partitions []struct{ Leader int } }
		if err := json.Unmarshal([]byte(command("partition", "list", nodesTable, "--region", nodesRegion, "-o", "json")), &all); err != nil {
			t.Fatal(err)
		}
		return []string{"-", "a", "b", "c", "d"}[all[0].Partitions[0].Leader]
	}
	var node string
	accidents := []accident{
		{"kill", func() { run(t, "docker", "kill", container(node)) }, func() { run(t, "docker", "start", container(node)); ready(node) }},
		{"pause", func() { run(t, "docker", "pause", container(node)) }, func() { run(t, "docker", "unpause", container(node)); ready(node) }},
		{"cut off", func() { run(t, "deploy/node.sh", "cut", nodesRegion+"-"+node) }, func() { run(t, "deploy/node.sh", "heal", nodesRegion+"-"+node); ready(node) }},
		{"stop", func() { run(t, "docker", "stop", container(node)) }, func() { run(t, "docker", "start", container(node)); ready(node) }},
		{"drain", func() {
			command("node", "drain", nodesRegion+"-"+node, "--region", nodesRegion)
			if leader() == node {
				t.Errorf("node %s is drained and leads", node)
			}
		}, func() { command("node", "drain", nodesRegion+"-"+node, "--region", nodesRegion, "--undo") }},
		{"add", func() { node = "d"; run(t, "make", "-s", "one", "NODE="+nodesRegion+"-d") }, func() { ready("d") }},
		{"wipe", func() {
			run(t, "docker", "rm", "-f", container(node))
			run(t, "docker", "volume", "rm", "commutator_"+nodesRegion+"-"+node)
		}, func() {
			id := strings.Index("-abcd", node)
			command("node", "remove", strconv.Itoa(id), "--region", nodesRegion)
			gone(id)
		}},
	}
	for _, a := range accidents {
		time.Sleep(restFor) // the load is the point
		node = leader()
		begun := time.Now()
		a.begin()
		time.Sleep(downFor)
		a.end()
		mu.Lock()
		var longest time.Duration
		for _, at := range times {
			for i := range at[:len(at)-1] {
				if at[i+1].After(begun) {
					longest = max(longest, at[i+1].Sub(at[i]))
				}
			}
			longest = max(longest, time.Since(at[len(at)-1]))
		}
		t.Logf("%-8s %s: the longest that any of %d writers waited: %s", a.name, node, len(times), longest.Round(time.Millisecond))
		mu.Unlock()
	}
	time.Sleep(restFor)
	stop()
	load.Wait()
	if failed > 0 {
		t.Errorf("%d writes failed after the SDK's retries", failed)
	}
	missing := func(c *dynamodb.Client) (n int) {
		there := scan(t, c, nodesTable)
		for _, key := range acked {
			if there[key] == nil {
				n++
			}
		}
		return n
	}
	if n := missing(c); n > 0 {
		t.Errorf("%d of %d acknowledged items are missing", n, len(acked))
	}
	until(t, "another region has all", equalIn, func() bool { return missing(client(1)) == 0 })
	t.Logf("none of %d acknowledged items is missing, here and in %s", len(acked), regions[1])
}
