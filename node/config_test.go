package node_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/replication/transport"
)

func TestReadConfigTellsWhatIsWrong(t *testing.T) {
	const good = `region: us-east-1
data: /data
listen: {http: "127.0.0.1:8000", grpc: "127.0.0.1:9100", serf: ":7946", admin: "127.0.0.1:0"}
join: ["other.example:7946"]
credentials: [{accessKey: a, secretKey: b}]
`
	path := filepath.Join(t.TempDir(), "node.yaml")
	certs := t.TempDir()
	if _, err := node.MakeCertificates(certs, 1, time.Now(), transport.Identity{Cluster: "commutator", Region: "eu-west-1", Node: "b"}, transport.Identity{Cluster: "commutator", Region: "us-east-1", Node: "us-east-1-a"}); err != nil {
		t.Fatal(err)
	}
	read := func(text string) (node.Config, error) {
		t.Helper()
		text = strings.ReplaceAll(text, "CERTS", certs)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return node.ReadConfig(path, "")
	}
	c, err := read(good)
	if err != nil || c.Node != "us-east-1-a" || c.Auth != "on" {
		t.Fatalf("%+v, %v", c, err)
	}
	for name, x := range map[string]struct{ old, new, want string }{
		"empty":                  {good, "", "empty"},
		"no YAML":                {good, "{{{", "yaml"},
		"a list":                 {good, "- a", "line 1"},
		"unknown name":           {"region:", "bogus: 1\nregion:", "field bogus not found"},
		"unknown name inside":    {"{http:", "{htpp: x, http:", "field htpp not found"},
		"wrong type":             {"us-east-1", "[us-east-1]", "line 1"},
		"a name twice":           {"region:", "data: x\nregion:", "already defined"},
		"two documents":          {"region:", "region: eu-west-1\n---\nregion:", "second document"},
		"no region":              {"region: us-east-1\n", "", "region:"},
		"no region's name":       {"us-east-1", "mars", "mars"},
		"no data":                {"data: /data\n", "", "data:"},
		"no address":             {`http: "127.0.0.1:8000", `, "", "listen.http"},
		"no port":                {"127.0.0.1:8000", "127.0.0.1", "listen.http"},
		"a port too great":       {":8000", ":99999", "99999"},
		"a port by name":         {":9100", ":http", "listen.grpc"},
		"gossip without gRPC":    {`grpc: "127.0.0.1:9100", `, "", "listen.grpc"},
		"join without gossip":    {`serf: ":7946", `, "", "join:"},
		"join without a port":    {"example:7946", "example", "join:"},
		"auth":                   {"credentials:", "auth: maybe\ncredentials:", "auth:"},
		"gRPC in the clear":      {`grpc: "127.0.0.1:9100"`, `grpc: ":9100"`, "without tls, whoever can connect"},
		"half of tls":            {"region:", "tls: {ca: x}\nregion:", "tls: ca, cert and key belong together"},
		"a cluster without tls":  {"region:", "tls: {cluster: x}\nregion:", "tls: a cluster is given"},
		"tls from nowhere":       {"region:", "tls: {ca: /none, cert: /none, key: /none}\nregion:", "/none"},
		"another node's tls":     {"region:", "tls: {ca: CERTS/ca.pem, cert: CERTS/eu-west-1-b.pem, key: CERTS/eu-west-1-b-key.pem}\nregion:", "is the certificate of node b of region eu-west-1"},
		"tls of another cluster": {"region:", "tls: {cluster: x, ca: CERTS/ca.pem, cert: CERTS/us-east-1-us-east-1-a.pem, key: CERTS/us-east-1-us-east-1-a-key.pem}\nregion:", "in cluster commutator, not"},
		"a gossip key too short": {"region:", "gossipKey: AAAA\nregion:", "gossipKey: 3 bytes, not 32"},
		"auth off for all":       {`"127.0.0.1:8000", grpc: "127.0.0.1:9100"`, `":8000", grpc: "127.0.0.1:9100"`, "auth: off lets everybody"},
		"no credentials":         {"credentials: [{accessKey: a, secretKey: b}]", "", "credentials:"},
		"half a key pair":        {", secretKey: b", "", "secretKey"},
		"a key twice":            {"{accessKey: a, secretKey: b}", "{accessKey: a, secretKey: b}, {accessKey: a, secretKey: c}", "a is given twice"},
		"node":                   {"region:", "node: a b\nregion:", "node:"},
		"this region as a peer":  {"region:", "peers: [{region: us-east-1, grpc: 'x:1'}]\nregion:", "peers:"},
		"nodes without this":     {"region:", "nodes: [{id: 1, node: b, grpc: 'x:1'}]\nregion:", "which this node is, is not among them"},
		"a node twice":           {"region:", "node: a\nnodes: [{id: 1, node: a, grpc: 'x:1'}, {id: 1, node: b, grpc: 'x:2'}]\nregion:", "the id 1 is 0, or another node's"},
		"a node without a port":  {"region:", "node: a\nnodes: [{id: 1, node: a, grpc: 'x:1'}, {id: 2, node: b, grpc: x}]\nregion:", "is no address like host:9100"},
		"replicas":               {"region:", "replicas: 8\nregion:", "replicas: 8 is not from 1 to 7"},
		"a zone":                 {"region:", "zone: a b\nregion:", "zone: "},
		"a node's zone":          {"region:", "node: a\nnodes: [{id: 1, node: a, grpc: 'x:1', zone: a/b}]\nregion:", "nodes: a: zone: "},
		"two zones":              {"region:", "node: a\nzone: x\nnodes: [{id: 1, node: a, grpc: 'x:1', zone: y}]\nregion:", "it is in zone y, and zone is x"},
		"replaced too soon":      {"region:", "replaceAfter: 5s\nregion:", "replaceAfter: 5s is less than 10s"},
		"no duration":            {"region:", "replaceAfter: soon\nregion:", "soon"},
		"a peer twice":           {"region:", "peers: [{region: eu-west-1, grpc: 'x:1'}, {region: eu-west-1, grpc: 'x:1'}]\nregion:", "peers:"},
		"a peer without a port":  {"region:", "peers: [{region: eu-west-1, grpc: x}]\nregion:", "peers:"},
		"S3 without a bucket":    {"region:", "backup: {s3: {endpoint: 'http://x:9000'}}\nregion:", "bucket"},
		"S3 without an endpoint": {"region:", "backup: {s3: {bucket: b}}\nregion:", "endpoint"},
		"S3 and a directory":     {"region:", "backup: {dir: d, s3: {endpoint: 'http://x:9000', bucket: b}}\nregion:", "both"},
		"advertise":              {"region:", "advertise: {grpc: host}\nregion:", "advertise.grpc"},
	} {
		text := strings.Replace(good, x.old, x.new, 1)
		if strings.HasPrefix(name, "auth off") {
			text += "auth: off\n"
		}
		_, err := read(text)
		if err == nil || !strings.Contains(err.Error(), x.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "node.Config") {
			t.Errorf("%s: the reader of a file is told of Go: %v", name, err)
		}
	}
	if _, err := node.ReadConfig(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestOneFileServesAllNodesOfARegion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region.yaml")
	if err := os.WriteFile(path, []byte(`region: us-east-1
node: a
data: /data/{node}
listen: {http: "127.0.0.1:8000", grpc: "127.0.0.1:7000"}
advertise: {grpc: "{node}.wan:7000", serf: "{node}.wan:7946"}
nodes: [{id: 1, node: a, grpc: "a.nodes:7000"}, {id: 2, node: b, grpc: "b.nodes:7000"}]
auth: off
`), 0o644); err != nil {
		t.Fatal(err)
	}
	for given, want := range map[string]string{"": "a", "b": "b"} {
		c, err := node.ReadConfig(path, given)
		if err != nil || c.Node != want || c.Data != "/data/"+want || c.Advertise != (node.Advertise{GRPC: want + ".wan:7000", Serf: want + ".wan:7946"}) {
			t.Errorf("for %q: %+v, %v", given, c, err)
		}
	}
	if _, err := node.ReadConfig(path, "c"); err == nil || !strings.Contains(err.Error(), "c, which this node is, is not among them") {
		t.Errorf("for a node that the file does not have: %v", err)
	}
}

func TestANodeThatCannotRunWritesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, change := range map[string]func(*node.Config){
		"a port in use":     func(c *node.Config) { c.Listen.GRPC = taken.Addr().String() },
		"no S3 endpoint":    func(c *node.Config) { c.Backup.S3 = node.S3{Endpoint: "ftp://x", Bucket: "b"} },
		"no such interface": func(c *node.Config) { c.Listen.Admin = "192.0.2.1:0" },
	} {
		c := node.Config{Region: "us-east-1", Data: filepath.Join(t.TempDir(), "data"), Auth: "off", Listen: node.Listen{HTTP: "127.0.0.1:0"}}
		change(&c)
		if n, err := node.Open(c); err == nil {
			n.Close()
			t.Errorf("%s: the node opens", name)
		}
		if _, err := os.Stat(c.Data); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something was written (%v)", name, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "data")
	for name, c := range map[string]node.DevConfig{
		"no region":         {Regions: []string{""}},
		"a region twice":    {Regions: []string{"us-east-1", "us-east-1"}},
		"no port":           {Regions: regions, Port: 65534},
		"a latency below 0": {Regions: regions, Latency: -time.Second},
	} {
		c.Data, c.Auth = dir, "off"
		if d, err := node.OpenDev(c); err == nil {
			d.Close()
			t.Errorf("%s: dev opens", name)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something was written (%v)", name, err)
		}
	}
}

func TestDevIsFoundInADirectoryWithALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a", 100), strings.Repeat("b", 100))
	w := begin(t, node.DevConfig{Data: dir, InMemory: true})
	w.control("partition", "eu-west-1")
	if d, err := node.OpenDev(node.DevConfig{Data: dir, Regions: regions, Auth: "off"}); err == nil {
		d.Close()
		t.Error("a second dev opens the same directory")
	}
	w.stop()
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("dev leaves %v behind (%v)", names, err)
	}
}

// TestNodesFindEachOtherAgainAtOtherAddresses runs two nodes that know each other by gossip alone, and
// starts one of them again with every address another.
func TestNodesFindEachOtherAgainAtOtherAddresses(t *testing.T) {
	free := func() string {
		for range 100 { // below the ports that systems give by themselves: other tests, beside this one, are given those
			address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
			if l, err := net.Listen("tcp", address); err == nil {
				l.Close()
				return address
			}
		}
		t.Fatal("no port is free")
		return ""
	}
	certs, strangers, key := t.TempDir(), t.TempDir(), node.NewGossipKey()
	start := func(region, data, serf string, join ...string) (n *node.Node, stop func()) {
		// The file that a node of another cluster would have stands beside: same names, another authority.
		dir := certs
		if region == "sa-east-1" {
			dir = strangers
		}
		files := filepath.Join(dir, region+"-"+region+"-a")
		if _, err := node.MakeCertificates(dir, 1, time.Now(), transport.Identity{Cluster: "commutator", Region: region, Node: region + "-a"}); err != nil {
			t.Fatal(err)
		}
		n, err := node.Open(node.Config{
			Region: region, Data: data, Auth: "off", Join: join, GossipKey: key,
			TLS:    node.TLS{CA: filepath.Join(dir, "ca.pem"), Cert: files + ".pem", Key: files + "-key.pem"},
			Listen: node.Listen{HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", Serf: serf},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		stopped := false
		stop = func() {
			if stopped {
				return
			}
			stopped = true
			cancel()
			if err := errors.Join(<-done, n.Close()); err != nil {
				t.Error(err)
			}
		}
		t.Cleanup(stop)
		return n, stop
	}
	reaches := func(n *node.Node, region string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			for _, l := range n.Links() {
				if l.Region == region && l.Reachable {
					return
				}
			}
			if time.Now().After(end) {
				t.Fatalf("%s is not reached: %+v", region, n.Links())
			}
		}
	}
	serf, data := free(), t.TempDir()
	east, _ := start("us-east-1", t.TempDir(), serf)
	stranger, _ := start("sa-east-1", t.TempDir(), free(), serf)
	west, stop := start("eu-west-1", data, free(), serf)
	reaches(east, "eu-west-1")
	reaches(west, "us-east-1")
	stop()
	west, _ = start("eu-west-1", data, free(), serf)
	reaches(west, "us-east-1")
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // heard since the restart
		if l := east.Links(); len(l) == 2 && l[0].Region == "eu-west-1" && l[0].Reachable && time.Since(l[0].Heard) < time.Second {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the node that stayed does not find the other again: %+v", east.Links())
		}
	}
	// The stranger knows the gossip's key, and is found; it is not believed.
	for _, l := range append(east.Links()[1:], stranger.Links()...) {
		if l.Reachable || l.Error == "" {
			t.Errorf("a node of another authority is heard: %+v", l)
		}
	}
}

func TestANodeStopsThoughConnectionsAreOpen(t *testing.T) {
	grpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(node.Config{
		Region: "us-east-1", Data: t.TempDir(), Auth: "off", Listen: node.Listen{HTTP: "127.0.0.1:0", GRPCListener: grpc},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	for _, a := range []struct{ address, say string }{
		{grpc.Addr().String(), ""},             // says nothing
		{grpc.Addr().String(), "PRI * HTTP/2"}, // says half of it
		{n.HTTPAddr().String(), ""},
		{n.HTTPAddr().String(), "POST / HTTP/1.1\r\nHo"},
		{n.HTTPAddr().String(), "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Length: 9\r\n\r\n{"},
		{n.HTTPAddr().String(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}, // kept alive
	} {
		conn, err := net.Dial("tcp", a.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(a.say)); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(a.say, "GET") {
			if _, err := conn.Read(make([]byte, 100)); err != nil { // by now those before have been accepted too
				t.Fatal(err)
			}
		}
	}
	cancel()
	begun := time.Now()
	if err := errors.Join(<-done, n.Close()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}
