package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/node"
)

// Goal: what docs/operate/runbooks.md says of a region whose clock is ahead is what happens, and helps. Method: three nodes, each a region with a
// disk and a clock of its own, over TCP; the commands that an operator types.

// clocked is a node whose clock can be set wrong.
type clocked struct {
	t     *testing.T
	cfg   node.Config
	ahead atomic.Int64 // ns
	node  *node.Node
	stop  func()
}

func (n *clocked) start() {
	n.t.Helper()
	if n.cfg.Listen.GRPCListener == nil { // where it was
		var err error
		if n.cfg.Listen.GRPCListener, err = net.Listen("tcp", n.cfg.Listen.GRPC); err != nil {
			n.t.Fatal(err)
		}
	}
	opened, err := node.Open(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.node, n.cfg.Listen.GRPCListener = opened, nil
	n.cfg.Listen.HTTP = opened.HTTPAddr().String() // the same after the next start
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- opened.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, opened.Close()); err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(n.stop)
}

// startClocked starts a node for each of some regions. The commands of what it returns need their endpoints.
func startClocked(t *testing.T, regions ...string) (d *testDev, nodes []*clocked, endpoints string) {
	t.Helper()
	for _, region := range regions {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := &clocked{t: t, cfg: node.Config{
			Region: region, Data: t.TempDir(), Listen: node.Listen{HTTP: "127.0.0.1:0", GRPC: l.Addr().String(), GRPCListener: l},
			Credentials: []node.Credential{{AccessKey: devKey, SecretKey: devKey}},
		}}
		n.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) }
		nodes = append(nodes, n)
	}
	var urls []string
	for _, n := range nodes {
		for _, o := range nodes {
			if o != n {
				n.cfg.Peers = append(n.cfg.Peers, node.Peer{Region: o.cfg.Region, GRPC: o.cfg.Listen.GRPC})
			}
		}
		n.start()
		urls = append(urls, "http://"+n.cfg.Listen.HTTP)
	}
	for _, n := range nodes {
		if err := n.node.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	d = &testDev{t: t, dir: t.TempDir()}
	var err error
	if d.clients, _, err = (&clientFlags{endpoints: urls}).connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, nodes, strings.Join(urls, ",")
}

func TestARegionWhoseClockWasFarAheadIsSetRightAsTheRunbookSays(t *testing.T) {
	const ahead, wrong = 5 * time.Minute, 1
	d, nodes, endpoints := startClocked(t, east, west, far)
	command := func(args ...string) (string, error) {
		stdout, _, err := try(t, append(args, "--endpoint", endpoints)...)
		return stdout, err
	}
	must := func(args ...string) string {
		t.Helper()
		stdout, err := command(args...)
		if err != nil {
			t.Fatalf("%s: %v", strings.Join(args, " "), err)
		}
		return stdout
	}
	for _, name := range []string{"notes", "orders"} {
		must("apply", "-f", writeFile(t, t.TempDir(), name+".yaml", fmt.Sprintf(`
TableName: %s
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
BillingMode: PAY_PER_REQUEST
Replicas: [{Region: us-east-1}, {Region: eu-west-1}, {Region: ap-northeast-1}]
`, name)))
	}
	if err := d.like(0, "10"); err != nil {
		t.Fatal(err)
	}
	d.likes("10")

	// It writes with its clock ahead, until it finds out.
	put := func(region int, key string) error {
		_, err := d.clients[region].dynamo.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("notes"), Item: attributes{"pk": text(key)}})
		return err
	}
	isFenced := func(err error) bool {
		var e smithy.APIError
		if err != nil && (!errors.As(err, &e) || e.ErrorCode() != "RegionFencedException") {
			t.Fatal(err)
		}
		return err != nil
	}
	whileAhead := func(write func() error) {
		t.Helper()
		d.eventually("a write is taken", func() bool {
			nodes[wrong].ahead.Store(0)
			d.eventually("it takes writes", func() bool { return !isFenced(put(wrong, "clock-is-right")) })
			nodes[wrong].ahead.Store(int64(ahead))
			return !isFenced(write())
		})
	}
	whileAhead(func() error { return d.like(wrong, "5") })
	whileAhead(func() error { return put(wrong, "while-ahead") })
	d.eventually("it is fenced", func() bool { return isFenced(put(wrong, "fenced")) })

	// The others hold what it has written.
	held := map[string]string{} // ids by operation
	d.eventually("what is held is on record", func() bool {
		var found []admin.Conflict
		if err := json.Unmarshal([]byte(must("conflicts", "--region", east, "-o", "json")), &found); err != nil {
			t.Fatal(err)
		}
		for _, c := range found {
			if c.Class == crdt.ClassClockHeld {
				held[c.Loser.Operation] = c.ID
			}
		}
		return held["Put"] != "" && held["Update"] != ""
	})
	if got := must("conflicts", "replay", held["Put"], "--dry-run"); !strings.Contains(got, "would be written") || !strings.Contains(got, "PutItem notes") {
		t.Errorf("a replay of a put that is held says %q", got)
	}
	if _, err := command("conflicts", "replay", held["Update"]); err == nil || !strings.Contains(err.Error(), "does not hold what was written") {
		t.Errorf("a replay of an update that is held: %v", err)
	}
	if d.get(0, "notes", "while-ahead") != nil {
		t.Error("what was written ahead is there")
	}

	// 1. Its clock is set right, with the node stopped. Its stamps stay ahead.
	nodes[wrong].stop()
	nodes[wrong].ahead.Store(0)
	nodes[wrong].start()
	d.eventually("it takes writes", func() bool { return put(wrong, "after") == nil })
	// 2. The others go on without it, and it begins anew.
	must("region", "stale", west, "--force", "--region", east)
	d.eventually("all is everywhere", func() bool {
		for region := range nodes {
			for _, key := range []string{"while-ahead", "after"} {
				// While it begins anew its tables take no requests.
				a, err := d.clients[region].dynamo.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("notes"), Key: attributes{"pk": text(key)}})
				if err != nil || a.Item == nil {
					return false
				}
			}
		}
		return true
	})
	d.likes("15")
	if err := put(wrong, "anew"); err != nil {
		t.Fatal(err)
	}
	d.eventually("what it writes arrives", func() bool { return d.get(0, "notes", "anew") != nil && d.get(2, "notes", "anew") != nil })
	must("verify")
}
