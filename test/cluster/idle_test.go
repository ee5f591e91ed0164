//go:build linux

package cluster

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	idleTables = 4
	idleParts  = 64
	idleFor    = 10 * time.Second
	idleLimit  = 0.05 // of a core, each node
)

// TestAnIdleRegionCostsNextToNothing makes 256 partitions in a region of three nodes, and looks at the time that the processes spend once the
// partitions sleep.
func TestAnIdleRegionCostsNextToNothing(t *testing.T) {
	r := start(t, 3, fmt.Sprint("partitionsPerTable: ", idleParts))
	c, begun := r.sdk(), time.Now()
	for i := range idleTables {
		name := aws.String(fmt.Sprint("idle-", i))
		_, err := c.CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: name, BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
			KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := dynamodb.NewTableExistsWaiter(c, func(o *dynamodb.TableExistsWaiterOptions) { o.MinDelay = 100 * time.Millisecond }).Wait(t.Context(), &dynamodb.DescribeTableInput{TableName: name}, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("made after %s", time.Since(begun).Round(time.Millisecond))
	const all = idleTables*idleParts + 1 // with the catalog
	for _, p := range r.nodes {
		for end := time.Now().Add(time.Minute); r.metric(p.id, "commutator_partitions_asleep") < all; sleep(t.Context(), 200*time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("node %d: %v of %d groups sleep", p.id, r.metric(p.id, "commutator_partitions_asleep"), all)
			}
		}
	}
	t.Logf("asleep after %s", time.Since(begun).Round(time.Millisecond))
	var before []time.Duration
	for _, p := range r.nodes {
		before = append(before, p.cpu(t))
	}
	begun = time.Now()
	sleep(t.Context(), idleFor) // nothing happens: that is the point
	for i, p := range r.nodes {
		share := float64(p.cpu(t)-before[i]) / float64(time.Since(begun))
		t.Logf("node %d: %.2f%% of a core with %d idle partitions", p.id, 100*share, idleTables*idleParts)
		if share > idleLimit {
			t.Errorf("node %d: more than %.0f%%", p.id, 100*idleLimit)
		}
	}

	// A drained node leads nothing.
	out, err := exec.Command(r.program, "node", "drain", "n3", "--endpoint", r.endpoint(1)).CombinedOutput()
	if err != nil || r.metric(3, "commutator_partitions_led") != 0 {
		t.Errorf("node drain: %v, it leads %v groups:\n%s", err, r.metric(3, "commutator_partitions_led"), out)
	}

	// A sleeping partition is woken by whoever wants something of it, and one whose leader is gone gets another.
	awake := r.writeEverywhere(c)
	killed := time.Now()
	r.kill(2)
	without := r.writeEverywhere(c)
	t.Logf("a write to each table and each of %d keys took %s at most; with a node killed %s, the last %s after it", idleKeys, awake, without, time.Since(killed).Round(time.Millisecond))
	if without > gapLimit {
		t.Errorf("a write took %s", without)
	}
}

const idleKeys = 100

// writeEverywhere writes some items to each idle table, all at once, and returns how long the slowest took.
func (r *region) writeEverywhere(c *dynamodb.Client) time.Duration {
	var slowest atomic.Int64
	var all sync.WaitGroup
	for i := range idleTables {
		for k := range idleKeys {
			all.Go(func() {
				begun := time.Now()
				_, err := c.PutItem(r.t.Context(), &dynamodb.PutItemInput{
					TableName: aws.String(fmt.Sprint("idle-", i)), Item: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: fmt.Sprint(k)}},
				})
				if err != nil {
					r.t.Error(err)
				}
				for took := int64(time.Since(begun)); ; {
					if was := slowest.Load(); took <= was || slowest.CompareAndSwap(was, took) {
						return
					}
				}
			})
		}
	}
	all.Wait()
	return time.Duration(slowest.Load()).Round(time.Millisecond)
}

// metric returns what a node shows under a name without labels, 0 when it does not.
func (r *region) metric(id int, name string) float64 {
	r.t.Helper()
	a, err := http.Get("http://" + r.address(id, 9000) + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// cpu is the time that a process has computed.
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// Behind the name, which may hold anything: user and system time are the twelfth and thirteenth, in hundredths of a second.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
