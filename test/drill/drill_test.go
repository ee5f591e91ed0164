//go:build drill

package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
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

// The deployment of deploy/docker-compose.yml.
var (
	regions   = []string{"us-east-1", "eu-west-1", "ap-northeast-1"}
	endpoints = []string{"http://127.0.0.1:8000", "http://127.0.0.1:8001", "http://127.0.0.1:8002"}
)

const (
	loadFor   = 5 * time.Second  // before, during and after the cut
	equalIn   = 60 * time.Second // after the healing
	workers   = 4                // writers in each region
	tableName = "drill"
	cutRegion = "eu-west-1"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root(t)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String())
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func client(i int) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: regions[i], BaseEndpoint: aws.String(endpoints[i]), RetryMaxAttempts: 5,
		Credentials: credentials.NewStaticCredentialsProvider("commutator", "commutator", ""),
	})
}

// ledger is what clients were told, and what they could not know.
type ledger struct {
	mu      sync.Mutex
	puts    map[string]string // key -> value, acknowledged
	acked   int               // increments acknowledged
	unknown int               // increments without an answer: each may have been made
	during  []int             // writes acknowledged during the cut, by region
	failed  int
}

// load writes in one region until ctx ends: an item of its own, and an increment of a counter that all
// regions share, in turn.
func (l *ledger) load(ctx context.Context, c *dynamodb.Client, region, worker int, cut func() bool) {
	for i := 0; ctx.Err() == nil; i++ {
		key, value := fmt.Sprintf("%s/%d/%d", regions[region], worker, i), strconv.Itoa(i*i)
		_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(tableName), Item: map[string]types.AttributeValue{
			"pk": &types.AttributeValueMemberS{Value: key}, "value": &types.AttributeValueMemberS{Value: value},
		}})
		isCut := cut()
		l.mu.Lock()
		if err == nil {
			l.puts[key] = value
			if isCut {
				l.during[region]++
			}
		} else if ctx.Err() == nil {
			l.failed++
		}
		l.mu.Unlock()
		_, err = c.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName: aws.String(tableName), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "counter"}},
			UpdateExpression: aws.String("ADD hits :one"), ExpressionAttributeValues: map[string]types.AttributeValue{":one": &types.AttributeValueMemberN{Value: "1"}},
		}, func(o *dynamodb.Options) { o.RetryMaxAttempts = 1 }) // a retry could count twice
		l.mu.Lock()
		if err == nil {
			l.acked++
		} else {
			l.unknown++
		}
		l.mu.Unlock()
	}
}

// scan returns a table's items by key.
func scan(t *testing.T, c *dynamodb.Client, table string) map[string]map[string]types.AttributeValue {
	t.Helper()
	out := map[string]map[string]types.AttributeValue{}
	pages := dynamodb.NewScanPaginator(c, &dynamodb.ScanInput{TableName: &table, ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range page.Items {
			out[it["pk"].(*types.AttributeValueMemberS).Value] = it
		}
	}
	return out
}

// until polls what only shows from outside.
func until(t *testing.T, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(begun)
}

// downAfter takes the deployment down when the test ends, and shows what the containers said last if it has failed.
func downAfter(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			names, _ := exec.Command("docker", "ps", "-a", "--filter", "label=com.docker.compose.project=commutator", "--format", "{{.Names}}").Output()
			for _, name := range strings.Fields(string(names)) {
				out, _ := exec.Command("docker", "logs", "--tail", "60", name).CombinedOutput()
				t.Logf("%s: %s", name, out)
			}
		}
		cmd := exec.Command("make", "-s", "down")
		cmd.Dir = root(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("make down: %v\n%s", err, out)
		}
	})
}

// TestRegionCutOffAndBackAgain is the drill: load in all regions, one of them cut off from the others, all
// go on taking writes, healed, all equal and nothing acknowledged missing; then the table is restored
// from MinIO and compared.
func TestRegionCutOffAndBackAgain(t *testing.T) {
	run(t, "make", "-s", "up")
	downAfter(t)
	clients := []*dynamodb.Client{client(0), client(1), client(2)}
	makeGlobal(t, tableName, clients)

	l := &ledger{puts: map[string]string{}, during: make([]int, len(regions))}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	cut := false
	isCut := func() bool { mu.Lock(); defer mu.Unlock(); return cut }
	setCut := func(v bool) { mu.Lock(); defer mu.Unlock(); cut = v }
	var load sync.WaitGroup
	for region := range regions {
		for worker := range workers {
			load.Go(func() { l.load(ctx, clients[region], region, worker, isCut) })
		}
	}
	time.Sleep(loadFor) // the load is the point
	run(t, "deploy/wan.sh", "cut", cutRegion)
	setCut(true)
	t.Logf("%s is cut off from the other regions", cutRegion)
	time.Sleep(loadFor)
	if reflect.DeepEqual(hits(t, clients[0]), hits(t, clients[1])) {
		t.Error("the regions agree while they are cut apart: the cut did not bite")
	}
	setCut(false)
	run(t, "deploy/wan.sh", "heal", cutRegion)
	t.Logf("healed")
	time.Sleep(loadFor)
	stop()
	load.Wait()
	for i, r := range regions {
		t.Logf("%-15s took %d writes during the cut", r, l.during[i])
		if l.during[i] == 0 {
			t.Errorf("%s took no write during the cut", r)
		}
	}
	if l.failed > 0 {
		t.Errorf("%d puts failed", l.failed)
	}

	var all map[string]map[string]types.AttributeValue
	took := until(t, "all regions are equal", equalIn, func() bool {
		all = scan(t, clients[0], tableName)
		return reflect.DeepEqual(all, scan(t, clients[1], tableName)) && reflect.DeepEqual(all, scan(t, clients[2], tableName))
	})
	t.Logf("all regions hold the same %d items, %s after the load", len(all), took.Round(100*time.Millisecond))
	missing := 0
	for key, value := range l.puts {
		if v, ok := all[key]["value"].(*types.AttributeValueMemberS); !ok || v.Value != value {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged items are missing or wrong", missing, len(l.puts))
	}
	sum, err := strconv.Atoi(hits(t, clients[2]))
	if err != nil || sum < l.acked || sum > l.acked+l.unknown {
		t.Errorf("the counter is %d (%v); %d increments were acknowledged, %d more may have been made", sum, err, l.acked, l.unknown)
	}
	t.Logf("none of %d acknowledged items is missing; the counter is %d, with %d increments acknowledged", len(l.puts), sum, l.acked)

	restore(t, clients[0], all)
}

func hits(t *testing.T, c *dynamodb.Client) string {
	t.Helper()
	out, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: aws.String(tableName), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "counter"}}, ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		t.Fatal(err)
	}
	n, _ := out.Item["hits"].(*types.AttributeValueMemberN)
	if n == nil {
		return ""
	}
	return n.Value
}

func makeGlobal(t *testing.T, tableName string, clients []*dynamodb.Client) {
	t.Helper()
	ctx := t.Context()
	_, err := clients[0].CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: aws.String(tableName), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		t.Fatal(err)
	}
	active := func(i int) func() bool {
		return func() bool {
			d, err := clients[i].DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(tableName)})
			if err != nil {
				var none *types.ResourceNotFoundException
				if !errors.As(err, &none) {
					t.Fatal(err)
				}
				return false
			}
			for _, r := range d.Table.Replicas {
				if r.ReplicaStatus != types.ReplicaStatusActive {
					return false
				}
			}
			return d.Table.TableStatus == types.TableStatusActive
		}
	}
	until(t, "the table is ACTIVE", 30*time.Second, active(0))
	for i, r := range regions[1:] {
		// The regions find each other by gossip: until they have, a replica is refused.
		until(t, "a replica in "+r+" is taken", 30*time.Second, func() bool {
			_, err := clients[0].UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: aws.String(tableName), ReplicaUpdates: []types.ReplicationGroupUpdate{
				{Create: &types.CreateReplicationGroupMemberAction{RegionName: aws.String(r)}},
			}})
			return err == nil
		})
		until(t, "the replica in "+r+" is ACTIVE", 30*time.Second, active(i+1))
		until(t, "the table is ACTIVE again", 30*time.Second, active(0))
	}
}

// restore backs the table up to MinIO, restores it under another name, and compares.
func restore(t *testing.T, c *dynamodb.Client, want map[string]map[string]types.AttributeValue) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "commutator")
	run(t, "go", "build", "-o", binary, "./cmd/commutator")
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "commutator")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "commutator")
	id := run(t, binary, "backup", "create", "--endpoint", endpoints[0], "--table", tableName)
	id = id[strings.LastIndexByte(id, '\n')+1:]
	t.Logf("backed up to MinIO as %s", id)
	t.Log(run(t, binary, "backup", "list", "--endpoint", endpoints[0]))
	t.Log(run(t, binary, "restore", "--endpoint", endpoints[0], "--backup", id, "--to", "restored"))
	if got := scan(t, c, "restored"); !reflect.DeepEqual(got, want) {
		t.Errorf("the restored table has %d items, and is not the one backed up, with %d", len(got), len(want))
	} else {
		t.Logf("the restored table holds the same %d items", len(got))
	}
}
