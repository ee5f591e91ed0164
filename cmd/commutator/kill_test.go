package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
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

// process is a dev in a process of its own, to be killed.
type process struct {
	cmd       *exec.Cmd
	endpoints []string
	ready     time.Duration // from the start until it said so
}

func startProcess(t *testing.T, program, dir string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, append([]string{"dev", "--data", dir, "--port", "0"}, args...)...)}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 2 && strings.HasPrefix(f[1], "http://") {
			p.endpoints = append(p.endpoints, f[1])
		}
		if lines.Text() == "ready" {
			p.ready = time.Since(begun)
			return p
		}
	}
	t.Fatalf("dev ended before it was ready: %v", p.cmd.Wait())
	return nil
}

// kill ends the process as a power cut does, without any goodbye.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

func (p *process) client(region int) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: east, BaseEndpoint: &p.endpoints[region], RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(devKey, devKey, ""),
	})
}

func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "commutator")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func makeTable(ctx context.Context, c *dynamodb.Client, name string) error {
	_, err := c.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	return err
}

func addReplica(ctx context.Context, c *dynamodb.Client, name, region string) error {
	_, err := c.UpdateTable(ctx, &dynamodb.UpdateTableInput{
		TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{{Create: &types.CreateReplicationGroupMemberAction{RegionName: &region}}},
	})
	return err
}

// settled waits until the table is ACTIVE with that many replicas in other regions, or gone where replicas is below 0.
func settled(t *testing.T, c *dynamodb.Client, name string, replicas int) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		d, err := c.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: &name})
		var none *types.ResourceNotFoundException
		if replicas < 0 && errors.As(err, &none) {
			return
		}
		if err == nil && d.Table.TableStatus == types.TableStatusActive && len(d.Table.Replicas) == replicas {
			active := 0
			for _, r := range d.Table.Replicas {
				if r.ReplicaStatus == types.ReplicaStatusActive {
					active++
				}
			}
			if active == replicas {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not settled after 15 s: %+v, %v", name, d, err)
		}
	}
}

// dropTable deletes a table, after any change of it that is still going on: one region may hear of another's leaving only now.
func dropTable(t *testing.T, c *dynamodb.Client, name string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := c.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &name})
		var busy *types.ResourceInUseException
		if err == nil {
			return
		}
		if !errors.As(err, &busy) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestKilled(t *testing.T) {
	program := build(t)
	t.Run("under load it has all that it acknowledged", func(t *testing.T) { killUnderLoad(t, program) })
	t.Run("while tables change it settles", func(t *testing.T) { killWhileTablesChange(t, program) })
}

// killUnderLoad kills dev at random moments while clients put items and
// increment counters in two regions, starts it again, and counts: every acknowledged put is there, and a
// counter holds at least the acknowledged increments and at most those whose outcome is unknown besides.
func killUnderLoad(t *testing.T, program string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	const (
		rounds  = 5
		writers = 6 // half of them in each region
	)
	p := startProcess(t, program, dir, "--regions", east+","+west)
	if err := makeTable(t.Context(), p.client(0), "load"); err != nil {
		t.Fatal(err)
	}
	settled(t, p.client(0), "load", 0)
	if err := addReplica(t.Context(), p.client(0), "load", west); err != nil {
		t.Fatal(err)
	}
	settled(t, p.client(0), "load", 1)
	settled(t, p.client(1), "load", 1)

	type tally struct{ puts, acked, unknown int }
	tallies := make([]tally, writers) // a writer's own until wg is done
	total, unknown := 0, 0
	for round := range rounds {
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				c, ta := p.client(i%2), &tallies[i]
				for {
					_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("load"), Item: map[string]types.AttributeValue{
						"pk": &types.AttributeValueMemberS{Value: fmt.Sprintf("w%d-%d", i, ta.puts)},
						"v":  &types.AttributeValueMemberS{Value: strings.Repeat("x", 500)},
					}})
					if err != nil {
						return
					}
					ta.puts++
					_, err = c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
						TableName: aws.String("load"), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "counter"}},
						UpdateExpression:          aws.String("ADD hits :one"),
						ExpressionAttributeValues: map[string]types.AttributeValue{":one": &types.AttributeValueMemberN{Value: "1"}},
					})
					if err != nil {
						ta.unknown++
						return
					}
					ta.acked++
				}
			})
		}
		time.Sleep(time.Duration(100+rng.IntN(500)) * time.Millisecond) // the moment is the point
		p.kill()
		wg.Wait()
		p = startProcess(t, program, dir, "--regions", east+","+west)
		if p.ready > 2*time.Second {
			t.Errorf("round %d: ready after %s", round, p.ready)
		}
	}
	acked, most, puts := 0, 0, 0
	for _, ta := range tallies {
		acked += ta.acked
		most += ta.acked + ta.unknown
		puts += ta.puts
	}
	if puts < rounds*writers {
		t.Fatalf("only %d items were put", puts)
	}
	shown := func(region int) (items map[string]bool, hits int) {
		items = map[string]bool{}
		pages := dynamodb.NewScanPaginator(p.client(region), &dynamodb.ScanInput{TableName: aws.String("load"), ConsistentRead: aws.Bool(true)})
		for pages.HasMorePages() {
			// Reading answers of a megabyte, this version of the SDK now and then closes the connection under itself, whatever server
			// it talks to; with its usual number of attempts nobody notices.
			page, err := pages.NextPage(t.Context(), func(o *dynamodb.Options) { o.RetryMaxAttempts = 5 })
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range page.Items {
				pk := it["pk"].(*types.AttributeValueMemberS).Value
				items[pk] = true
				if pk == "counter" {
					hits, _ = strconv.Atoi(it["hits"].(*types.AttributeValueMemberN).Value)
				}
			}
		}
		return items, hits
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		items, hits := shown(0)
		others, otherHits := shown(1)
		missing := ""
		for i, ta := range tallies {
			for k := range ta.puts {
				if pk := fmt.Sprintf("w%d-%d", i, k); !items[pk] || !others[pk] {
					missing = pk
				}
			}
		}
		if missing == "" && hits == otherHits && len(items) == len(others) && hits >= acked && hits <= most {
			total, unknown = puts+acked, most-acked
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s is missing; %d and %d items for %d puts; counters %d and %d for %d to %d", missing, len(items), len(others), puts, hits, otherHits, acked, most)
		}
	}
	t.Logf("%d acknowledged writes, %d increments of unknown outcome", total, unknown)
}

// killWhileTablesChange kills dev at random moments after a table was made, given a replica
// and deleted, and waits for the outcome after each start.
func killWhileTablesChange(t *testing.T, program string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	args := []string{"--regions", east + "," + west}
	p := startProcess(t, program, dir, args...)
	again := func() {
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
		p.kill()
		p = startProcess(t, program, dir, args...)
		if p.ready > 2*time.Second {
			t.Errorf("ready after %s", p.ready)
		}
	}
	for round := range 3 {
		name := fmt.Sprintf("table%d", round)
		if err := makeTable(t.Context(), p.client(0), name); err != nil {
			t.Fatal(err)
		}
		again()
		settled(t, p.client(0), name, 0)
		for i := range 30 {
			if _, err := p.client(0).PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: map[string]types.AttributeValue{
				"pk": &types.AttributeValueMemberS{Value: strconv.Itoa(i)}}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := addReplica(t.Context(), p.client(0), name, west); err != nil {
			t.Fatal(err)
		}
		again()
		settled(t, p.client(0), name, 1)
		settled(t, p.client(1), name, 1)
		if out, err := p.client(1).Scan(t.Context(), &dynamodb.ScanInput{TableName: &name}); err != nil || out.Count != 30 {
			t.Fatalf("the new replica has %d of 30 items (%v)", out.Count, err)
		}
		for region := range 2 {
			dropTable(t, p.client(region), name)
			again()
			settled(t, p.client(region), name, -1)
		}
	}
}
