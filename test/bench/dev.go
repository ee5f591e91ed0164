package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/node"
)

const (
	lagWrites  = 200
	idleTables = 10
	idleFor    = 20 * time.Second
	pageItems  = 100
	pages      = 2000
)

// startDev starts a dev and an SDK client for each of its regions. stop ends it; ctx ends it, too.
func startDev(ctx context.Context, regions []string, dir string) (d *node.Dev, clients []*dynamodb.Client, stop func() error, err error) {
	d, err = node.OpenDev(node.DevConfig{Regions: regions, Data: dir, Partitions: []int{*partitions}, Credentials: []node.Credential{{AccessKey: accessKey, SecretKey: secretKey}}})
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = func() error {
		cancel()
		return errors.Join(<-done, d.Close())
	}
	if err := d.Ready(ctx); err != nil {
		return nil, nil, nil, errors.Join(err, stop())
	}
	for _, n := range d.Nodes() {
		clients = append(clients, dynamodb.New(dynamodb.Options{
			Region: n.Region().Name(), BaseEndpoint: aws.String("http://" + n.HTTPAddr().String()),
			Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		}))
	}
	return d, clients, stop, nil
}

// measureDev measures, with an unmodified SDK, after what time a write is to be seen in the other regions, how long a page of a Query
// takes, and what three idle regions with ten tables cost.
func measureDev(ctx context.Context, out io.Writer, dir string) (err error) {
	regions := []string{"us-east-1", "eu-west-1", "ap-northeast-1"}
	begun := time.Now()
	_, clients, stop, err := startDev(ctx, regions, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	fmt.Fprintf(out, "dev: three regions ready after %s\n", time.Since(begun).Round(time.Millisecond))
	for i := range idleTables {
		if err := globalTable(ctx, clients, regions, fmt.Sprintf("table-%d", i)); err != nil {
			return err
		}
	}
	if *only != "idle" {
		if err := measureReads(ctx, out, clients); err != nil {
			return err
		}
	}

	runtime.GC()
	before, err := cpu()
	if err != nil {
		return err
	}
	select {
	case <-time.After(idleFor):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := cpu()
	if err != nil {
		return err
	}
	rss, err := resident()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "idle, three regions with %d global tables: %.2f%% of a core (goal: under 2%%), %s resident (goal: under 300 MB)\n",
		idleTables, 100*float64(after-before)/float64(idleFor), rss)
	return nil
}

// measureReads measures after what time a write is to be seen in the other regions, and how long a page of a Query takes.
func measureReads(ctx context.Context, out io.Writer, clients []*dynamodb.Client) error {
	var lags []time.Duration
	for i := range lagWrites {
		key := map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: fmt.Sprint(i)}}
		begun := time.Now()
		if _, err := clients[0].PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("table-0"), Item: key}); err != nil {
			return err
		}
		for _, c := range clients[1:] {
			for {
				got, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("table-0"), Key: key})
				if err != nil {
					return err
				}
				if got.Item != nil {
					break
				}
			}
		}
		lags = append(lags, time.Since(begun))
	}
	slices.Sort(lags)
	fmt.Fprintf(out, "write in one region until read in both others, by the SDK: p50 %s, p99 %s (goal: p50 under 50 ms)\n",
		lags[len(lags)/2].Round(10*time.Microsecond), lags[len(lags)*99/100].Round(10*time.Microsecond))
	return measureQuery(ctx, out, clients[0])
}

// measureQuery measures Query pages of pageItems small items, one after the other: on one connection, that is.
func measureQuery(ctx context.Context, out io.Writer, c *dynamodb.Client) error {
	name := aws.String("pages")
	attribute := func(name string, t types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: &name, AttributeType: t}
	}
	_, err := c.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{attribute("pk", types.ScalarAttributeTypeS), attribute("sk", types.ScalarAttributeTypeN)},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}, {AttributeName: aws.String("sk"), KeyType: types.KeyTypeRange},
		},
	})
	if err != nil {
		return err
	}
	if err := waitActive(ctx, c, *name); err != nil {
		return err
	}
	for i := range 10 * pageItems {
		item := map[string]types.AttributeValue{
			"pk": &types.AttributeValueMemberS{Value: fmt.Sprint(i % 10)}, "sk": &types.AttributeValueMemberN{Value: fmt.Sprint(i)},
			"status": &types.AttributeValueMemberS{Value: "DELIVERED"}, "total": &types.AttributeValueMemberN{Value: "1284.95"},
		}
		if _, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: item}); err != nil {
			return err
		}
	}
	var took []time.Duration
	for i := range pages {
		begun := time.Now()
		page, err := c.Query(ctx, &dynamodb.QueryInput{
			TableName: name, KeyConditionExpression: aws.String("pk = :pk"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: fmt.Sprint(i % 10)}},
		})
		if err != nil {
			return err
		}
		if page.Count != pageItems {
			return fmt.Errorf("a page has %d items and should have %d", page.Count, pageItems)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	fmt.Fprintf(out, "Query page of %d small items on one connection, by the SDK: p50 %s, p99 %s (goal: p50 under 2 ms)\n",
		pageItems, took[pages/2].Round(10*time.Microsecond), took[pages*99/100].Round(10*time.Microsecond))
	return nil
}

func globalTable(ctx context.Context, clients []*dynamodb.Client, regions []string, name string) error {
	_, err := clients[0].CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		return err
	}
	if err := waitActive(ctx, clients[0], name); err != nil {
		return err
	}
	for i, r := range regions[1:] {
		_, err := clients[0].UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{
			{Create: &types.CreateReplicationGroupMemberAction{RegionName: &r}},
		}})
		if err != nil {
			return err
		}
		if err := waitActive(ctx, clients[i+1], name); err != nil {
			return err
		}
		if err := waitActive(ctx, clients[0], name); err != nil {
			return err
		}
	}
	return nil
}

// waitActive waits until a region shows the table and all its replicas as ACTIVE.
func waitActive(ctx context.Context, c *dynamodb.Client, name string) error {
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) {
		d, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &name})
		active := err == nil && d.Table.TableStatus == types.TableStatusActive
		if active {
			for _, r := range d.Table.Replicas {
				active = active && r.ReplicaStatus == types.ReplicaStatusActive
			}
		}
		if active {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("table %s is not active after 15 s", name)
}

func cpu() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// resident is this process's resident memory, as /proc says it.
func resident() (string, error) { return residentOf(os.Getpid()) }

func residentOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", errors.New("/proc has no VmRSS of it")
}
