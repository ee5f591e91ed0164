// Package globaltables checks what global tables do, in one region beside the other, as any client can see it: see README.md.
package globaltables

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/commutatordb/commutator/node"
)

// group is the regions under test.
type group struct {
	*testing.T
	regions   []string
	endpoints map[string]string
	clients   map[string]*dynamodb.Client
	creds     aws.CredentialsProvider
	patience  time.Duration             // for one thing to happen
	pause     time.Duration             // between two looks
	cut, heal func(region string) error // nil: cannot be done
	prefix    string
}

// start returns the regions that GLOBAL_ENDPOINTS names, or three of this process.
func start(t *testing.T) *group {
	var b [4]byte
	rand.Read(b[:])
	g := &group{T: t, endpoints: map[string]string{}, clients: map[string]*dynamodb.Client{}, prefix: "gt-" + hex.EncodeToString(b[:]) + "-"}
	if named := os.Getenv("GLOBAL_ENDPOINTS"); named != "" {
		g.outside(named)
	} else {
		g.inside()
	}
	for _, r := range g.regions {
		g.clients[r] = dynamodb.New(dynamodb.Options{
			Region: r, BaseEndpoint: aws.String(g.endpoints[r]), Credentials: g.creds,
			Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts = 8 }),
		})
	}
	return g
}

func (g *group) outside(named string) {
	for pair := range strings.SplitSeq(named, ",") {
		region, url, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok {
			g.Fatalf("GLOBAL_ENDPOINTS: %q is not region=url", pair)
		}
		g.regions, g.endpoints[region] = append(g.regions, region), strings.TrimSuffix(url, "/")
	}
	if len(g.regions) < 2 {
		g.Fatal("GLOBAL_ENDPOINTS names fewer than two regions")
	}
	cfg, err := config.LoadDefaultConfig(g.Context(), config.WithRegion(g.regions[0]))
	if err != nil {
		g.Fatal(err)
	}
	g.creds, g.patience, g.pause = cfg.Credentials, 20*time.Minute, 2*time.Second
	if wait := os.Getenv("GLOBAL_WAIT"); wait != "" {
		if g.patience, err = time.ParseDuration(wait); err != nil {
			g.Fatal(err)
		}
		g.pause = max(10*time.Millisecond, min(g.pause, g.patience/100))
	}
	command := func(name string) func(string) error {
		line := os.Getenv(name)
		if line == "" {
			return nil
		}
		return func(region string) error {
			out, err := exec.Command("sh", "-c", line, "sh", region).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", name, err, out)
			}
			return nil
		}
	}
	g.cut, g.heal = command("GLOBAL_CUT"), command("GLOBAL_HEAL")
}

func (g *group) inside() {
	g.regions = []string{"us-east-1", "eu-west-1", "ap-northeast-1"}
	dir := g.TempDir()
	d, err := node.OpenDev(node.DevConfig{Regions: g.regions, Data: dir, InMemory: true, Partitions: []int{1, 3, 2}, Credentials: []node.Credential{{AccessKey: "commutator", SecretKey: "commutator"}}})
	if err != nil {
		g.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	g.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, d.Close()); err != nil {
			g.Error(err)
		}
	})
	if err := d.Ready(g.Context()); err != nil {
		g.Fatal(err)
	}
	for _, n := range d.Nodes() {
		g.endpoints[n.Region().Name()] = "http://" + n.HTTPAddr().String()
	}
	g.creds, g.patience, g.pause = credentials.NewStaticCredentialsProvider("commutator", "commutator", ""), 30*time.Second, 5*time.Millisecond
	control := func(command string) func(string) error {
		return func(region string) error {
			_, err := node.Control(dir, node.ControlRequest{Command: command, Region: region})
			return err
		}
	}
	g.cut, g.heal = control("partition"), control("heal")
}

// run runs a check of its own name.
func (g *group) run(name string, check func(g *group)) {
	g.Run(name, func(t *testing.T) {
		of := *g
		of.T = t
		check(&of)
	})
}

// until polls: what other regions do is only to be seen from outside.
func (g *group) until(what string, ok func() bool) {
	g.Helper()
	for deadline := time.Now().Add(g.patience); !ok(); time.Sleep(g.pause) {
		if time.Now().After(deadline) {
			g.Fatalf("%s: not within %s", what, g.patience)
		}
	}
}

// table makes a table in a region, with a string key pk; it is removed when the check ends.
func (g *group) table(region, name string, change func(*dynamodb.CreateTableInput)) string {
	g.Helper()
	name = g.prefix + name
	in := &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	}
	if change != nil {
		change(in)
	}
	g.Cleanup(func() { g.drop(name) })
	if _, err := g.clients[region].CreateTable(g.Context(), in); err != nil {
		g.Fatal(err)
	}
	g.until(region+" has the table", func() bool { return g.settled(region, name) })
	return name
}

// global makes a table in the first region and replicas of it in others.
func (g *group) global(name string, change func(*dynamodb.CreateTableInput), others ...string) string {
	g.Helper()
	name = g.table(g.regions[0], name, change)
	for _, r := range others {
		g.must(g.change(g.regions[0], name, create(r)))
		g.joined(name, g.regions[0], r)
	}
	return name
}

// joined waits until regions have ACTIVE replicas of each other.
func (g *group) joined(name string, regions ...string) {
	g.Helper()
	for _, r := range regions {
		g.until(r+" has an active replica", func() bool { return g.settled(r, name) })
	}
}

func create(region string) types.ReplicationGroupUpdate {
	return types.ReplicationGroupUpdate{Create: &types.CreateReplicationGroupMemberAction{RegionName: &region}}
}

func remove(region string) types.ReplicationGroupUpdate {
	return types.ReplicationGroupUpdate{Delete: &types.DeleteReplicationGroupMemberAction{RegionName: &region}}
}

func disassociate(region string) types.ReplicationGroupUpdate {
	return types.ReplicationGroupUpdate{Disassociate: &types.DisassociateReplicationGroupMemberAction{RegionName: &region, DisassociationMode: types.DisassociationModeWaitForReplication}}
}

// change asks for replicas to be changed, once the table takes a change.
func (g *group) change(region, name string, updates ...types.ReplicationGroupUpdate) error {
	g.Helper()
	return g.update(region, &dynamodb.UpdateTableInput{TableName: &name, ReplicaUpdates: updates})
}

// update sends UpdateTable once the table takes a change.
func (g *group) update(region string, in *dynamodb.UpdateTableInput) (err error) {
	g.Helper()
	g.until(region+" takes a change", func() bool {
		_, err = g.clients[region].UpdateTable(g.Context(), in)
		var busy *types.ResourceInUseException
		return !errors.As(err, &busy)
	})
	return err
}

func (g *group) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// refused wants a ValidationException that says what.
func (g *group) refused(err error, what string) {
	g.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != "ValidationException" || !strings.Contains(e.ErrorMessage(), what) {
		g.Errorf("got %v, want a ValidationException: %s", err, what)
	}
}

// describe returns the table, nil where there is none.
func (g *group) describe(region, name string) *types.TableDescription {
	g.Helper()
	out, err := g.clients[region].DescribeTable(g.Context(), &dynamodb.DescribeTableInput{TableName: &name})
	var none *types.ResourceNotFoundException
	if errors.As(err, &none) {
		return nil
	}
	g.must(err)
	return out.Table
}

// settled tells whether the table and all its replicas and indexes are ACTIVE.
func (g *group) settled(region, name string) bool {
	g.Helper()
	d := g.describe(region, name)
	return d != nil && d.TableStatus == types.TableStatusActive &&
		!slices.ContainsFunc(d.Replicas, func(r types.ReplicaDescription) bool { return r.ReplicaStatus != types.ReplicaStatusActive }) &&
		!slices.ContainsFunc(d.GlobalSecondaryIndexes, func(x types.GlobalSecondaryIndexDescription) bool { return x.IndexStatus != types.IndexStatusActive })
}

// replica returns what a region shows of another's. A region that shows itself is borne with.
func replica(d *types.TableDescription, region string) *types.ReplicaDescription {
	for i := range d.Replicas {
		if aws.ToString(d.Replicas[i].RegionName) == region {
			return &d.Replicas[i]
		}
	}
	return nil
}

// drop removes a table from every region. What cannot be removed is only told.
func (g *group) drop(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), g.patience)
	defer cancel()
	for ctx.Err() == nil {
		left := 0
		for _, r := range slices.Backward(g.regions) { // the first was the source of the others
			c := g.clients[r]
			d, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
			var none *types.ResourceNotFoundException
			if errors.As(err, &none) {
				continue
			}
			if left++; err != nil || d.Table.TableStatus == types.TableStatusDeleting {
				continue
			}
			if aws.ToBool(d.Table.DeletionProtectionEnabled) {
				c.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: &name, DeletionProtectionEnabled: aws.Bool(false)})
			}
			c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: &name})
		}
		if left == 0 {
			return
		}
		time.Sleep(g.pause)
	}
	g.Logf("table %s is left behind", name)
}

type item = map[string]types.AttributeValue

func str(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
func num(v int) types.AttributeValue    { return &types.AttributeValueMemberN{Value: fmt.Sprint(v)} }

func (g *group) put(region, name string, it item) {
	g.Helper()
	_, err := g.clients[region].PutItem(g.Context(), &dynamodb.PutItemInput{TableName: &name, Item: it})
	g.must(err)
}

func (g *group) delete(region, name, pk string) {
	g.Helper()
	_, err := g.clients[region].DeleteItem(g.Context(), &dynamodb.DeleteItemInput{TableName: &name, Key: item{"pk": str(pk)}})
	g.must(err)
}

// get returns an item, nil where there is none.
func (g *group) get(region, name, pk string) item {
	g.Helper()
	out, err := g.clients[region].GetItem(g.Context(), &dynamodb.GetItemInput{TableName: &name, Key: item{"pk": str(pk)}, ConsistentRead: aws.Bool(true)})
	g.must(err)
	return out.Item
}

// converged waits until regions show the same item, and returns it. fence is written in each region behind what is to converge, and
// seen in all: then nothing is on its way any more that was written before, where order is kept; where it is not, the item has to stay.
func (g *group) converged(name, pk string, regions ...string) item {
	g.Helper()
	for _, from := range regions {
		fence := fmt.Sprintf("fence-%s-%s-%d", pk, from, time.Now().UnixNano())
		g.put(from, name, item{"pk": str(fence)})
		for _, to := range regions {
			g.until(to+" sees what "+from+" wrote", func() bool { return g.get(to, name, fence) != nil })
		}
	}
	var it item
	g.until("regions show the same", func() bool {
		it = g.get(regions[0], name, pk)
		return !slices.ContainsFunc(regions, func(r string) bool { return !reflect.DeepEqual(g.get(r, name, pk), it) })
	})
	return it
}

// atOnce calls f for each region, at the same moment as nearly as can be.
func atOnce(regions []string, f func(region string)) {
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for _, r := range regions {
		wg.Go(func() {
			<-begin
			f(r)
		})
	}
	close(begin)
	wg.Wait()
}

// ask sends a request that the SDK has no call for, and returns the answer's status and body. target is Service.Operation.
func (g *group) ask(region, target, body string) (int, string) {
	g.Helper()
	url := g.endpoints[region] + "/"
	if strings.HasPrefix(target, "DynamoDBStreams_") {
		url = strings.Replace(url, "://dynamodb.", "://streams.dynamodb.", 1)
	}
	r, err := http.NewRequestWithContext(g.Context(), http.MethodPost, url, strings.NewReader(body))
	g.must(err)
	r.Header.Set("X-Amz-Target", target)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	creds, err := g.creds.Retrieve(g.Context())
	g.must(err)
	sum := sha256.Sum256([]byte(body))
	g.must(v4.NewSigner().SignHTTP(g.Context(), creds, r, hex.EncodeToString(sum[:]), "dynamodb", region, time.Now()))
	w, err := http.DefaultClient.Do(r)
	g.must(err)
	defer w.Body.Close()
	answer, err := io.ReadAll(w.Body)
	g.must(err)
	return w.StatusCode, string(bytes.TrimSpace(answer))
}

// needs skips the check where the endpoint says that it does not have an operation.
func (g *group) needs(target string) {
	g.Helper()
	if _, answer := g.ask(g.regions[0], target, "{}"); strings.Contains(answer, "UnknownOperationException") {
		g.Skipf("the endpoint does not have %s: %s", target, answer)
	}
}

const (
	api     = "DynamoDB_20120810."
	streams = "DynamoDBStreams_20120810."
)

// merges tells whether the endpoint joins concurrent writes of one item where it is not told to let the last win.
func (g *group) merges() bool {
	status, _ := g.ask(g.regions[0], "Commutator_20261122.Status", "{}")
	return status == http.StatusOK
}

// lastWins asks for the last writer to win, of an endpoint that has another way; to any other it is a tag.
func lastWins(in *dynamodb.CreateTableInput) {
	in.Tags = append(in.Tags, types.Tag{Key: aws.String("commutator:conflict-resolution"), Value: aws.String("LastWriterWins")})
}
