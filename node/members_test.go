package node_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/replication/transport"
)

// site is regions of several nodes each, over sockets, with certificates.
type site struct {
	t     *testing.T
	dir   string
	log   *logLines
	nodes map[string][]*siteNode // by region
}

type siteNode struct {
	site *site
	cfg  node.Config
	node *node.Node
	stop func()
	anew chan error // gets what has the node begin anew
}

// newSite starts a site; of the nodes of each region that may be, perRegion run and found it.
func newSite(t *testing.T, perRegion int, regions ...string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), log: &logLines{}, nodes: map[string][]*siteNode{}}
	grpc := map[string][]net.Listener{}
	var identities []transport.Identity
	for _, region := range regions {
		for i := range perRegion {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			grpc[region] = append(grpc[region], l)
			identities = append(identities, transport.Identity{Cluster: "commutator", Region: region, Node: fmt.Sprintf("n%d", i+1)})
		}
	}
	certs := filepath.Join(s.dir, "certs")
	if _, err := node.MakeCertificates(certs, 1, time.Now(), identities...); err != nil {
		t.Fatal(err)
	}
	for _, region := range regions {
		for i := range perRegion {
			name := fmt.Sprintf("n%d", i+1)
			pem := filepath.Join(certs, region+"-"+name)
			cfg := node.Config{
				Region: region, Node: name, Data: filepath.Join(s.dir, region, name),
				Listen: node.Listen{HTTP: "127.0.0.1:0", GRPCListener: grpc[region][i]}, Auth: "off",
				TLS: node.TLS{CA: filepath.Join(certs, "ca.pem"), Cert: pem + ".pem", Key: pem + "-key.pem"},
			}
			for _, other := range regions {
				for j, l := range grpc[other] {
					if other == region {
						cfg.Nodes = append(cfg.Nodes, node.Member{ID: uint64(j + 1), Node: fmt.Sprintf("n%d", j+1), GRPC: l.Addr().String()})
					} else {
						cfg.Peers = append(cfg.Peers, node.Peer{Region: other, GRPC: l.Addr().String()})
					}
				}
			}
			cfg.Logger = slog.New(slog.NewTextHandler(s.log, nil)).With("region", region, "node", name)
			n := &siteNode{site: s, cfg: cfg, anew: make(chan error, 1)}
			n.cfg.Fatal = n.fatal
			s.nodes[region] = append(s.nodes[region], n)
			n.start()
		}
	}
	return s
}

// fatal is the node's Config.Fatal.
func (n *siteNode) fatal(err error) {
	if !errors.Is(err, node.ErrRebuild) {
		panic(fmt.Sprintf("%s: %v", n.cfg.Node, err))
	}
	select {
	case n.anew <- err:
	default:
	}
}

// beginsAnew starts the node again each time it asks for it, until it votes in everything under another number.
func (n *siteNode) beginsAnew() {
	t := n.site.t
	t.Helper()
	was := n.member().ID
	n.site.until(n.cfg.Node+" has begun anew", func() bool {
		select {
		case <-n.anew:
			n.stop()
			n.start()
		default:
		}
		r := n.node.Region()
		held, groups := r.Holding()
		m, ok := r.Member(r.NodeID())
		return r.NodeID() != was && ok && m.State == "" && groups > 1 && held[r.NodeID()] != nil && held[r.NodeID()].Votes == groups
	})
}

// start starts the node on what its directory holds.
func (n *siteNode) start() {
	t := n.site.t
	t.Helper()
	if n.cfg.Listen.GRPCListener == nil { // where it was
		var err error
		if n.cfg.Listen.GRPCListener, err = net.Listen("tcp", n.member().GRPC); err != nil {
			t.Fatal(err)
		}
	}
	opened, err := node.Open(n.cfg)
	if errors.Is(err, node.ErrRebuild) {
		n.cfg.Listen.GRPCListener = nil
		n.start()
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	n.node, n.cfg.Listen.GRPCListener = opened, nil
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- opened.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, opened.Close()); err != nil && !errors.Is(err, node.ErrRebuild) && len(n.anew) == 0 {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
}

// join starts a node that the region does not know, and that knows some of the region's.
func (w *site) join(region string, knows ...*siteNode) *siteNode {
	w.t.Helper()
	id := len(w.nodes[region]) + 1
	name := fmt.Sprintf("n%d", id)
	certs := filepath.Join(w.dir, "certs")
	if _, err := node.MakeCertificates(certs, 1, time.Now(), transport.Identity{Cluster: "commutator", Region: region, Node: name}); err != nil {
		w.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	pem := filepath.Join(certs, region+"-"+name)
	cfg := knows[0].cfg
	cfg.Node, cfg.Data, cfg.Listen.GRPCListener = name, filepath.Join(w.dir, region, name), l
	cfg.TLS.Cert, cfg.TLS.Key = pem+".pem", pem+"-key.pem"
	cfg.Nodes = []node.Member{{ID: uint64(id), Node: name, GRPC: l.Addr().String(), Joins: true}}
	for _, k := range knows {
		cfg.Nodes = append(cfg.Nodes, k.member())
	}
	cfg.Logger = slog.New(slog.NewTextHandler(w.log, nil)).With("region", region, "node", name)
	n := &siteNode{site: w, cfg: cfg, anew: make(chan error, 1)}
	n.cfg.Fatal = n.fatal
	w.nodes[region] = append(w.nodes[region], n)
	n.start()
	return n
}

// members waits until these nodes, and no others, hold the region.
func (w *site) members(region string, ids ...uint64) {
	w.t.Helper()
	w.until(fmt.Sprintf("the members are %v", ids), func() bool {
		for _, n := range w.nodes[region] {
			if !slices.Contains(ids, n.node.Region().NodeID()) {
				continue
			}
			var have []uint64
			for _, m := range n.node.Region().Members() {
				if m.State == "" {
					have = append(have, m.ID)
				} else if m.State != "GONE" {
					return false
				}
			}
			if !slices.Equal(have, ids) {
				return false
			}
		}
		return true
	})
}

func (n *siteNode) member() node.Member {
	return n.cfg.Nodes[slices.IndexFunc(n.cfg.Nodes, func(m node.Member) bool { return m.Node == n.cfg.Node })]
}

func (n *siteNode) client() *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: n.cfg.Region, BaseEndpoint: aws.String("http://" + n.node.HTTPAddr().String()), Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
	})
}

func (n *siteNode) put(pk string) error {
	ctx, cancel := context.WithTimeout(n.site.t.Context(), 2*time.Minute)
	defer cancel()
	_, err := n.client().PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: item{"pk": s(pk)}})
	return err
}

func (n *siteNode) has(pk string) bool {
	out, err := n.client().GetItem(n.site.t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: item{"pk": s(pk)}, ConsistentRead: aws.Bool(true)})
	return err == nil && out.Item != nil
}

func (w *site) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) { // seen from outside alone
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not within 30 s; the log:\n%s", what, w.log)
		}
	}
}

func (w *site) create(region string) {
	w.t.Helper()
	_, err := w.nodes[region][0].client().CreateTable(w.t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String("orders"), BillingMode: types.BillingModePayPerRequest, KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, n := range w.nodes[region] {
		w.until(n.cfg.Node+" has the table", func() bool {
			d, err := n.client().DescribeTable(w.t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("orders")})
			return err == nil && d.Table.TableStatus == types.TableStatusActive
		})
	}
}

func TestARegionOfThreeNodesLosesAnyOneAndGoesOn(t *testing.T) {
	w := newSite(t, 3, "us-east-1")
	nodes := w.nodes["us-east-1"]
	w.create("us-east-1")
	written := 0
	write := func(from *siteNode) {
		t.Helper()
		pk := fmt.Sprint("item ", written)
		if err := from.put(pk); err != nil {
			t.Fatalf("%s, asked at %s: %v", pk, from.cfg.Node, err)
		}
		written++
	}
	for _, n := range nodes {
		write(n)
	}
	for round, down := range nodes {
		down.stop()
		for i, n := range nodes {
			if i == round {
				continue
			}
			write(n)
			for pk := range written {
				if !n.has(fmt.Sprint("item ", pk)) {
					t.Errorf("without %s, %s does not have item %d", down.cfg.Node, n.cfg.Node, pk)
				}
			}
		}
		down.start()
		w.until(down.cfg.Node+" has caught up", func() bool { return down.has(fmt.Sprint("item ", written-1)) })
	}
}

func TestANodeThatLostItsDiskIsNotListenedTo(t *testing.T) {
	w := newSite(t, 3, "us-east-1")
	nodes := w.nodes["us-east-1"]
	w.create("us-east-1")
	for _, n := range nodes {
		if err := n.put("at " + n.cfg.Node); err != nil {
			t.Fatal(err)
		}
	}
	nodes[2].stop()
	if err := os.RemoveAll(nodes[2].cfg.Data); err != nil {
		t.Fatal(err)
	}
	nodes[2].start()
	w.until("it is told why nobody listens", func() bool {
		return strings.Contains(w.log.String(), "node 3 of region us-east-1: region: the node had other data")
	})
	if err := nodes[0].put("later"); err != nil {
		t.Error(err)
	}
	// With one of the others gone there is no majority: the empty node must not make one.
	nodes[1].stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := nodes[0].client().PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: item{"pk": s("alone")}}); err == nil {
		t.Error("a node alone, with one that has lost its disk, acknowledges a write")
	}
}

func TestRegionsOfSeveralNodesFindWhoAnswers(t *testing.T) {
	w := newSite(t, 3, "us-east-1", "eu-west-1")
	w.create("us-east-1")
	east, west := w.nodes["us-east-1"], w.nodes["eu-west-1"]
	_, err := east[1].client().UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: aws.String("orders"),
		ReplicaUpdates: []types.ReplicationGroupUpdate{{Create: &types.CreateReplicationGroupMemberAction{RegionName: aws.String("eu-west-1")}}}})
	if err != nil {
		t.Fatal(err)
	}
	w.until("the other region has the table", func() bool {
		d, err := west[2].client().DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("orders")})
		return err == nil && d.Table.TableStatus == types.TableStatusActive && len(d.Table.Replicas) > 0 && d.Table.Replicas[0].ReplicaStatus == types.ReplicaStatusActive
	})
	for i := range 3 {
		if err := east[i].put(fmt.Sprint("east ", i)); err != nil {
			t.Fatal(err)
		}
		w.until("the write is in the other region", func() bool { return west[0].has(fmt.Sprint("east ", i)) })
	}
	// Whichever node answers for its region, another does without it.
	for i := range 2 {
		east[i].stop()
		if err := east[2].put(fmt.Sprint("without ", i)); err != nil {
			t.Fatal(err)
		}
		w.until("the write is in the other region", func() bool { return west[i].has(fmt.Sprint("without ", i)) })
		east[i].start()
		w.until("it is back", func() bool { return east[i].has(fmt.Sprint("without ", i)) })
	}
}

func TestANodeJoinsAndAnotherIsReplaced(t *testing.T) {
	w := newSite(t, 3, "us-east-1")
	w.create("us-east-1")
	nodes := w.nodes["us-east-1"]
	for i := range 50 {
		if err := nodes[i%3].put(fmt.Sprint("item ", i)); err != nil {
			t.Fatal(err)
		}
	}
	// It knows one of the region's; the others it hears of.
	fourth := w.join("us-east-1", nodes[1])
	w.members("us-east-1", 1, 2, 3, 4)
	w.until("the new node has everything", func() bool { return fourth.has("item 49") })
	if err := fourth.put("at the fourth"); err != nil {
		t.Fatal(err)
	}
	// The third loses its disk. It is let go, and a fifth takes its place.
	nodes[2].stop()
	if err := fourth.node.Region().LetGo(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	w.members("us-east-1", 1, 2, 4)
	fifth := w.join("us-east-1", fourth, nodes[0])
	w.members("us-east-1", 1, 2, 4, 5)
	w.until("the fifth has everything", func() bool { return fifth.has("at the fourth") })
	// A table made now is held by those that are there now.
	_, err := fifth.client().CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: aws.String("later"), BillingMode: types.BillingModePayPerRequest, KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The two of the first that are left go, too: those that joined have all there is.
	for i, n := range nodes[:2] {
		if err := fifth.node.Region().LetGo(t.Context(), uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		w.until(n.cfg.Node+" is gone", func() bool {
			m, _ := fifth.node.Region().Member(uint64(i + 1))
			return m.State == "GONE"
		})
		n.stop()
	}
	w.members("us-east-1", 4, 5)
	for i := range 50 {
		if pk := fmt.Sprint("item ", i); !fifth.has(pk) || !fourth.has(pk) {
			t.Errorf("%s is lost", pk)
		}
	}
	if err := fifth.put("at the end"); err != nil {
		t.Error(err)
	}
	w.until("the later table is there at both", func() bool {
		d, err := fourth.client().DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("later")})
		return err == nil && d.Table.TableStatus == types.TableStatusActive
	})
	// A number that is gone is not given again.
	nodes[0].start()
	w.until("it is told", func() bool { return strings.Contains(w.log.String(), "node 1 of region us-east-1 was let go") })
}
