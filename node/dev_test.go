package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
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

	"github.com/commutatordb/commutator/node"
)

var regions = []string{"us-east-1", "eu-west-1", "ap-northeast-1"}

// world is a running dev and an SDK client for each of its regions.
type world struct {
	t       *testing.T
	dir     string
	dev     *node.Dev
	clients []*dynamodb.Client
	stop    func()
}

// begin starts dev on a directory; it ends with the test, or when stop is called.
func begin(t *testing.T, cfg node.DevConfig) *world {
	t.Helper()
	cfg.Regions = regions
	cfg.Credentials = []node.Credential{{AccessKey: "commutator", SecretKey: "commutator"}}
	d, err := node.OpenDev(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	w := &world{t: t, dir: cfg.Data, dev: d}
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, d.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(w.stop)
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range d.Nodes() {
		w.clients = append(w.clients, dynamodb.New(dynamodb.Options{
			Region: n.Region().Name(), BaseEndpoint: aws.String("http://" + n.HTTPAddr().String()),
			Credentials: credentials.NewStaticCredentialsProvider("commutator", "commutator", ""),
		}))
	}
	return w
}

// until polls: the regions' progress is only to be seen from outside.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			for _, n := range w.dev.Nodes() {
				defs, err := n.Region().Definitions()
				b, _ := json.Marshal(defs)
				w.t.Logf("%s: %s %v", n.Region().Name(), b, err)
			}
			w.t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// table makes a table in the first region, and replicas of it in the others.
func (w *world) table(name string, replicas ...string) {
	w.t.Helper()
	ctx := w.t.Context()
	_, err := w.clients[0].CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.until("table", func() bool { return w.active(0, name) })
	w.replicate(name, replicas...)
}

func (w *world) active(region int, name string) bool {
	d, err := w.clients[region].DescribeTable(w.t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
	if err != nil || d.Table.TableStatus != types.TableStatusActive {
		return false
	}
	for _, r := range d.Table.Replicas {
		if r.ReplicaStatus != types.ReplicaStatusActive {
			return false
		}
	}
	return true
}

func (w *world) replicate(name string, replicas ...string) {
	w.t.Helper()
	for _, r := range replicas {
		_, err := w.clients[0].UpdateTable(w.t.Context(), &dynamodb.UpdateTableInput{
			TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{{Create: &types.CreateReplicationGroupMemberAction{RegionName: aws.String(r)}}},
		})
		if err != nil {
			w.t.Fatal(err)
		}
		w.until("replica "+r, func() bool {
			for i, region := range regions {
				if (region == r || i == 0) && !w.active(i, name) {
					return false
				}
			}
			return true
		})
	}
}

func (w *world) control(command, region string) {
	w.t.Helper()
	if _, err := node.Control(w.dir, node.ControlRequest{Command: command, Region: region}); err != nil {
		w.t.Fatal(err)
	}
}

type item = map[string]types.AttributeValue

func s(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
func n(v int) types.AttributeValue    { return &types.AttributeValueMemberN{Value: strconv.Itoa(v)} }

func (w *world) put(region int, name string, it item) {
	w.t.Helper()
	if _, err := w.clients[region].PutItem(w.t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: it}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(region int, name, pk, expression string, values item) {
	w.t.Helper()
	_, err := w.clients[region].UpdateItem(w.t.Context(), &dynamodb.UpdateItemInput{
		TableName: &name, Key: item{"pk": s(pk)}, UpdateExpression: &expression, ExpressionAttributeValues: values,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) get(region int, name, pk string) item {
	w.t.Helper()
	out, err := w.clients[region].GetItem(w.t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: item{"pk": s(pk)}, ConsistentRead: aws.Bool(true)})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Item
}

// all returns a region's items by key.
func (w *world) all(region int, name string) map[string]item {
	w.t.Helper()
	out := map[string]item{}
	pages := dynamodb.NewScanPaginator(w.clients[region], &dynamodb.ScanInput{TableName: &name, ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, it := range page.Items {
			out[it["pk"].(*types.AttributeValueMemberS).Value] = it
		}
	}
	return out
}

func (w *world) equal(name string) bool {
	first := w.all(0, name)
	for i := range regions[1:] {
		if !reflect.DeepEqual(first, w.all(i+1, name)) {
			return false
		}
	}
	return true
}

func TestDevKeepsEverythingOverARestart(t *testing.T) {
	dir := t.TempDir()
	w := begin(t, node.DevConfig{Data: dir})
	w.table("orders", regions[1:]...)
	for i := range 50 {
		w.put(i%3, "orders", item{"pk": s(fmt.Sprint(i)), "v": n(i)})
	}
	w.until("50 items everywhere", func() bool { return len(w.all(0, "orders")) == 50 && w.equal("orders") })
	w.stop()

	w = begin(t, node.DevConfig{Data: dir})
	for i := range regions {
		if got := len(w.all(i, "orders")); got != 50 {
			t.Errorf("%s has %d items after a restart", regions[i], got)
		}
	}
	w.put(1, "orders", item{"pk": s("later")})
	w.until("replication goes on", func() bool { return w.get(0, "orders", "later") != nil && w.get(2, "orders", "later") != nil })
}

// Web tools for local emulators send a session token with any key, made up or taken from elsewhere.
func TestDevTakesASessionTokenWithAKeyOfItsOwn(t *testing.T) {
	w := begin(t, node.DevConfig{InMemory: true, Data: t.TempDir()})
	list := func(secret string) error {
		c := dynamodb.New(dynamodb.Options{
			Region: regions[0], BaseEndpoint: w.clients[0].Options().BaseEndpoint,
			Credentials: credentials.NewStaticCredentialsProvider("commutator", secret, "token"),
		})
		_, err := c.ListTables(t.Context(), &dynamodb.ListTablesInput{})
		return err
	}
	if err := list("commutator"); err != nil {
		t.Error(err)
	}
	if err := list("wrong"); err == nil || !strings.Contains(err.Error(), "InvalidSignatureException") {
		t.Errorf("signed with another secret: %v", err)
	}
}

func TestTwoDevsCannotShareADirectory(t *testing.T) {
	w := begin(t, node.DevConfig{Data: t.TempDir()})
	if d, err := node.OpenDev(node.DevConfig{Data: w.dir, Regions: regions, Auth: "off"}); err == nil {
		d.Close()
		t.Error("a second dev opens the same directory")
	}
}

func TestDataOfAnotherRegionIsRefused(t *testing.T) {
	dir := t.TempDir()
	w := begin(t, node.DevConfig{Data: dir})
	w.stop()
	if err := os.Rename(filepath.Join(dir, "us-east-1"), filepath.Join(dir, "us-west-2")); err != nil {
		t.Fatal(err)
	}
	if d, err := node.OpenDev(node.DevConfig{Data: dir, Regions: []string{"us-west-2"}, Auth: "off"}); err == nil {
		d.Close()
		t.Error("the data of us-east-1 opens as us-west-2's")
	}
	if err := os.RemoveAll(filepath.Join(dir, "ap-northeast-1", "log")); err != nil {
		t.Fatal(err)
	}
	if d, err := node.OpenDev(node.DevConfig{Data: dir, Regions: []string{"ap-northeast-1"}, Auth: "off"}); err == nil {
		d.Close()
		t.Error("state without its log opens")
	}
	if err := os.Remove(filepath.Join(dir, "eu-west-1", "node.json")); err != nil {
		t.Fatal(err)
	}
	if d, err := node.OpenDev(node.DevConfig{Data: dir, Regions: []string{"eu-west-1"}, Auth: "off"}); err == nil {
		d.Close()
		t.Error("data without an identity opens")
	}
}

func TestANewReplicaReceivesTheItemsThatWereThere(t *testing.T) {
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders")
	for i := range 300 {
		w.put(0, "orders", item{"pk": s(fmt.Sprint(i)), "v": n(i)})
	}
	w.replicate("orders", "eu-west-1")
	if got := len(w.all(1, "orders")); got != 300 {
		t.Fatalf("an ACTIVE replica has %d of 300 items", got)
	}
	w.update(1, "orders", "7", "ADD v :one", item{":one": n(1)})
	w.replicate("orders", "ap-northeast-1")
	if v := w.get(2, "orders", "7")["v"]; !reflect.DeepEqual(v, n(8)) {
		t.Errorf("the third replica has %v", v)
	}
	w.update(2, "orders", "7", "ADD v :one", item{":one": n(1)})
	w.until("all three follow each other", func() bool {
		return reflect.DeepEqual(w.get(0, "orders", "7")["v"], n(9)) && w.equal("orders")
	})
}

func TestAReplicaThatIsRemovedIsGoneAndTheOthersGoOn(t *testing.T) {
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders", regions[1:]...)
	w.put(1, "orders", item{"pk": s("a")})
	w.until("replicated", func() bool { return w.equal("orders") && len(w.all(2, "orders")) == 1 })
	remove := func(region string) {
		t.Helper()
		_, err := w.clients[0].UpdateTable(t.Context(), &dynamodb.UpdateTableInput{
			TableName: aws.String("orders"), ReplicaUpdates: []types.ReplicationGroupUpdate{{Delete: &types.DeleteReplicationGroupMemberAction{RegionName: aws.String(region)}}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := func(i int) func() bool {
		return func() bool {
			_, err := w.clients[i].DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("orders")})
			var none *types.ResourceNotFoundException
			return errors.As(err, &none)
		}
	}
	remove("eu-west-1")
	w.until("eu-west-1 has no such table", gone(1))
	w.until("us-east-1 is settled", func() bool { return w.active(0, "orders") })
	w.put(2, "orders", item{"pk": s("b")})
	w.until("the others go on", func() bool { return w.get(0, "orders", "b") != nil })
	remove("ap-northeast-1")
	w.until("ap-northeast-1 has no such table", gone(2))
	w.until("it is a table of one region again", func() bool {
		d, err := w.clients[0].DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("orders")})
		return err == nil && d.Table.TableStatus == types.TableStatusActive && len(d.Table.Replicas) == 0
	})
	w.put(0, "orders", item{"pk": s("c")})
	w.replicate("orders", "eu-west-1")
	if got := len(w.all(1, "orders")); got != 3 {
		t.Errorf("a replica added again has %d items, want 3", got)
	}
}

func TestRegionsCutApartGoOnAndConverge(t *testing.T) {
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders", regions[1:]...)
	w.put(0, "orders", item{"pk": s("counter"), "hits": n(0)})
	w.until("the counter is everywhere", func() bool { return w.equal("orders") && w.get(2, "orders", "counter") != nil })
	for _, r := range regions {
		w.control("partition", r)
	}
	var wg sync.WaitGroup
	for i := range regions {
		wg.Go(func() {
			for k := range 40 {
				w.update(i, "orders", "counter", "ADD hits :one, seen :me", item{":one": n(1), ":me": &types.AttributeValueMemberSS{Value: []string{regions[i]}}})
				w.put(i, "orders", item{"pk": s(fmt.Sprintf("%s-%d", regions[i], k))})
			}
		})
	}
	wg.Wait()
	if got := w.get(1, "orders", "counter")["hits"]; !reflect.DeepEqual(got, n(40)) {
		t.Fatalf("a region that is cut off has %v", got)
	}
	w.control("heal", "")
	w.until("the sum and all items are everywhere", func() bool {
		return reflect.DeepEqual(w.get(0, "orders", "counter")["hits"], n(120)) && len(w.all(1, "orders")) == 121 && w.equal("orders")
	})
	if got := w.get(2, "orders", "counter")["seen"]; len(got.(*types.AttributeValueMemberSS).Value) != 3 {
		t.Errorf("the set is %v", got)
	}
}

// Each region's change log holds the others' changes between its own: a stream must not trip over them.
func TestStreamsGoOnWhileAllRegionsWrite(t *testing.T) {
	var log logLines
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	w.table("orders", regions[1:]...)
	for round := range 10 {
		for i := range regions {
			w.put(i, "orders", item{"pk": s(fmt.Sprintf("%d-%d", round, i))})
			for j := range regions {
				w.until("a write is everywhere", func() bool { return w.get(j, "orders", fmt.Sprintf("%d-%d", round, i)) != nil })
			}
		}
	}
	if text := log.String(); strings.Contains(text, "a gap") {
		t.Errorf("a stream has ended for a gap that is none:\n%.2000s", text)
	}
}

// logLines is a log that may be read while it is written.
type logLines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestRandomHistoriesConverge writes at random in regions that are cut off and healed at random, and
// holds what all regions end with against the merge rule for the attributes whose outcome it fixes: a
// counter that is only incremented holds the sum, a set that is only added to holds the union, and a
// register holds a value that some region wrote last.
func TestRandomHistoriesConverge(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("random", regions[1:]...)
	const keys = 8
	sums := map[string]int{}
	members := map[string]map[string]bool{}
	last := map[string]map[string]bool{} // key -> values that some region wrote last
	wrote := map[string][]string{}       // key + region -> its last value
	for step := range 400 {
		region, pk := rng.IntN(3), fmt.Sprintf("k%d", rng.IntN(keys))
		switch rng.IntN(12) {
		case 0:
			w.control("partition", regions[rng.IntN(3)])
		case 1:
			w.control("heal", "")
		case 2, 3, 4, 5:
			d := rng.IntN(9) - 4
			w.update(region, "random", pk, "ADD hits :d", item{":d": n(d)})
			sums[pk] += d
		case 6, 7, 8:
			m := fmt.Sprintf("m%d", rng.IntN(30))
			w.update(region, "random", pk, "ADD things :m", item{":m": &types.AttributeValueMemberSS{Value: []string{m}}})
			if members[pk] == nil {
				members[pk] = map[string]bool{}
			}
			members[pk][m] = true
		default:
			v := fmt.Sprintf("%s@%d", regions[region], step)
			w.update(region, "random", pk, "SET color = :v", item{":v": s(v)})
			wrote[pk+regions[region]] = []string{pk, v}
		}
	}
	w.control("heal", "")
	for _, pv := range wrote {
		if last[pv[0]] == nil {
			last[pv[0]] = map[string]bool{}
		}
		last[pv[0]][pv[1]] = true
	}
	w.until("all regions are equal", func() bool { return w.equal("random") })
	before := w.all(0, "random")
	w.until("everything has folded", func() bool {
		for _, n := range w.dev.Nodes() {
			for _, tab := range n.Region().Tables() {
				for _, p := range tab.Partitions() {
					if s := p.State(); s.Folded < s.Seq {
						return false
					}
				}
			}
		}
		return true
	})
	if !reflect.DeepEqual(before, w.all(0, "random")) || !w.equal("random") {
		t.Error("folding has changed what regions show")
	}
	for pk, it := range w.all(1, "random") {
		if sums[pk] != 0 || it["hits"] != nil {
			if !reflect.DeepEqual(it["hits"], n(sums[pk])) {
				t.Errorf("%s: hits %v, want %d", pk, it["hits"], sums[pk])
			}
		}
		if want := members[pk]; want != nil {
			got := map[string]bool{}
			for _, m := range it["things"].(*types.AttributeValueMemberSS).Value {
				got[m] = true
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: things %v, want %v", pk, got, want)
			}
		}
		if c, ok := it["color"].(*types.AttributeValueMemberS); ok && !last[pk][c.Value] {
			t.Errorf("%s: color %s was overwritten where it was written; last were %v", pk, c.Value, last[pk])
		}
	}
}
