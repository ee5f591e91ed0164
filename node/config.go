package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.yaml.in/yaml/v3"

	"github.com/commutatordb/commutator/api/sigv4"
	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/replication/transport"
)

// Config is one node's configuration; the yaml names are those of its file. docs/operate/node.md
// describes each.
type Config struct {
	Region string `yaml:"region"` // such as us-east-1
	Node   string `yaml:"node"`   // unique in the region; default: the region's name with -a
	Data   string `yaml:"data"`   // directory, made where it is not there

	Listen      Listen       `yaml:"listen"`
	Advertise   Advertise    `yaml:"advertise"`
	Join        []string     `yaml:"join"`  // Serf addresses of nodes of any region, host:port
	Peers       []Peer       `yaml:"peers"` // nodes of other regions at fixed addresses: for networks without gossip
	Nodes       []Member     `yaml:"nodes"` // of this region, this one among them; none: this one alone
	Credentials []Credential `yaml:"credentials"`
	Keys        string       `yaml:"keys"`     // a file with more credentials, read again when it changes
	Auth        string       `yaml:"auth"`     // "on" (default), or "off": any signature passes, and none does
	Insecure    bool         `yaml:"insecure"` // auth may be off where others than this machine can connect
	Backup      Backup       `yaml:"backup"`
	TLS         TLS          `yaml:"tls"`       // between regions
	GossipKey   string       `yaml:"gossipKey"` // base64 of 32 bytes; "": gossip is in the clear
	// PartitionsPerTable is how many partitions a table that is created in the region begins with, or a replica that comes to it; default: one
	// for each of its nodes.
	PartitionsPerTable int `yaml:"partitionsPerTable"`
	// PartitionSplitBytes is from how many bytes of items on a partition is split; default: 10 GiB; negative: never.
	PartitionSplitBytes int64 `yaml:"partitionSplitBytes"`
	// PartitionSplitWrites is from how many writes a second on, for a minute, a partition is split; default: 20,000; negative: never.
	PartitionSplitWrites float64 `yaml:"partitionSplitWrites"`
	// PartitionMergeAfter is for how long two neighbours must have been empty to be merged; default: 10 min; negative: never.
	PartitionMergeAfter time.Duration `yaml:"partitionMergeAfter"`
	// Replicas is how many nodes of the region hold each partition, if there are so many; default: 3. The same at all of them.
	Replicas int `yaml:"replicas"`
	// Zone is where the node stands, such as a rack or a building: replicas are spread over zones as evenly as can be. Default: none, as all that have none.
	Zone string `yaml:"zone"`
	// ReplaceAfter is for how long a node must not have been heard of for others to be given what it held; default: 10 min.
	ReplaceAfter time.Duration `yaml:"replaceAfter"`
	// EnforceThroughput refuses what is beyond a table's capacity; without it capacity is a number that is shown.
	EnforceThroughput bool `yaml:"enforceThroughput"`
	// Retention bounds what is kept for regions that are away.
	Retention Retention `yaml:"retention"`
	// SnapshotRate is how many bytes of snapshots the node sends in a second to others of its region that lack what the log has no more; default:
	// 64 MiB.
	SnapshotRate int64 `yaml:"snapshotBytesPerSecond"`

	// Reserve is how many bytes of the disk are left free: below that the node takes no writes; default: 128 MiB.
	Reserve int64 `yaml:"reserveBytes"`

	// What a file cannot give:
	FS vfs.FS `yaml:"-"` // default: the disk
	// Lenient is for dev's clients. It takes signatures made for any region, not only for this one, so that they need
	// not keep region names and ports apart; and a session token with a key that has none, as tools made for local
	// emulators send. The signature has to be the key's all the same.
	Lenient bool `yaml:"-"`
	// NodeID is this node's number in its region, and Voters are those of all its nodes; see region.Config. Default:
	// 1, alone.
	NodeID  uint64   `yaml:"-"`
	Voters  []uint64 `yaml:"-"`
	Several bool     `yaml:"-"` // see region.Config
	// Send takes a message to another node of the region. Set if there are several.
	Send func(to uint64, m group.Message) `yaml:"-"`
	// Ask has another node of the region answer a question; see region.Config. Set likewise.
	Ask  func(ctx context.Context, to uint64, question []byte) ([]byte, error) `yaml:"-"`
	Tick time.Duration                                                         `yaml:"-"` // of the region's groups; see group.Config
	Dial transport.Dialer                                                      `yaml:"-"` // to other regions; default: TCP
	// VerifyEvery is how often each global table is held against each other region's copy and repaired; default: an hour.
	VerifyEvery time.Duration `yaml:"-"`
	// ExpireEvery is how often a table with TTL is looked through for what is over; default: 30 s.
	ExpireEvery time.Duration  `yaml:"-"`
	Archive     backup.Archive `yaml:"-"` // instead of what Backup says
	// Crowded tells whether more is asked of the process than it has processor time for, and counts for it: see api.Config. Default of a Node: a
	// crowd of its own; of an Engine: it never is.
	Crowded func(protocol int) bool `yaml:"-"`
	Now     func() time.Time        `yaml:"-"` // default: time.Now
	Tasks   task.Runtime            `yaml:"-"` // default: goroutines
	Sizes   Sizes                   `yaml:"-"`
	Logger  *slog.Logger            `yaml:"-"` // nil discards
	Fatal   func(error)             `yaml:"-"` // must end the process; default: log and exit with 3
}

// Sizes are for simulation and tests, which want little of everything. Zero values mean the defaults.
type Sizes struct {
	CacheBytes       int64
	MemTableBytes    uint64
	SegmentBytes     int64
	KeepEntries      uint64 // see group.Config
	SeedBytes        int    // of one part of a seed
	MergeBytes       int    // of another region's changes that are merged at once beside clients' writes
	PieceBytes       int    // of a snapshot; see group.Config
	ImportTableBytes int64  // see storage.Options
	Split            region.SplitConfig
	NoBackground     bool // housekeeping of log and store happens in the call that makes it necessary, or never
}

// Listen says where a node listens, as host:port. "" is nowhere, except for HTTP, which must be given.
type Listen struct {
	HTTP  string `yaml:"http"`  // DynamoDB's API
	GRPC  string `yaml:"grpc"`  // other regions
	Admin string `yaml:"admin"` // health, metrics, pprof: without authentication
	Serf  string `yaml:"serf"`  // gossip, TCP and UDP

	// Listeners opened already, instead of the addresses; dev and tests have them.
	HTTPListener net.Listener `yaml:"-"`
	GRPCListener net.Listener `yaml:"-"`
}

// Advertise says under which addresses other nodes reach this one; default: where it listens.
type Advertise struct {
	GRPC string `yaml:"grpc"`
	Serf string `yaml:"serf"`
}

// Peer is a node of another region at a fixed address.
type Peer struct {
	Region string `yaml:"region"`
	GRPC   string `yaml:"grpc"`
}

// Credential is a key pair that may sign requests.
type Credential struct {
	AccessKey string `yaml:"accessKey"`
	SecretKey string `yaml:"secretKey"`
}

// Backup says where backups go: to S3-compatible storage, or to a directory.
type Backup struct {
	Dir string `yaml:"dir"` // default: backups/ in the data directory
	S3  S3     `yaml:"s3"`
}

// S3 is a bucket. Without an endpoint there is none.
type S3 struct {
	Endpoint  string `yaml:"endpoint"` // such as http://minio:9000
	Bucket    string `yaml:"bucket"`
	AccessKey string `yaml:"accessKey"`
	SecretKey string `yaml:"secretKey"`
	Region    string `yaml:"region"`
}

var inType = regexp.MustCompile(` (in type|into) (node\.)?[A-Z]\w*`)

// ReadConfig reads a node's configuration file. A name that it does not know is an error. One file may serve all nodes of a region: node, unless
// it is "", says which of them it is read for, and {node} stands for that name in data, listen, advertise and tls.
func ReadConfig(path, node string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("node: configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		var wrong *yaml.TypeError
		switch {
		case errors.Is(err, io.EOF):
			err = errors.New("the file is empty")
		case errors.As(err, &wrong):
			// The reader of the file knows no types of ours.
			err = errors.New(inType.ReplaceAllString(strings.Join(wrong.Errors, "\n"), ""))
		}
		return c, fmt.Errorf("node: configuration %s: %w", path, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("node: configuration %s: there is a second document in it", path)
	}
	if node != "" {
		c.Node = node
	}
	for _, v := range []*string{
		&c.Data, &c.Listen.HTTP, &c.Listen.GRPC, &c.Listen.Admin, &c.Listen.Serf, &c.Advertise.GRPC, &c.Advertise.Serf, &c.TLS.Cert, &c.TLS.Key,
	} {
		*v = strings.ReplaceAll(*v, "{node}", c.Node)
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("node: configuration %s: %w", path, err)
	}
	return c, nil
}

var (
	regionName = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}$`)
	nodeName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
)

// hostPort takes host:port apart; the port is a number from 0 on.
func hostPort(address string) (host string, port int, err error) {
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %s: %q is no port", address, number)
	}
	return host, int(n), nil
}

// Validate fills in defaults and returns what is wrong, all of it.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !regionName.MatchString(c.Region) {
		wrong("region: %q is not a region's name like us-east-1", c.Region)
	}
	if c.Node == "" {
		c.Node = c.Region + "-a"
	} else if !nodeName.MatchString(c.Node) {
		wrong("node: %q is no name of up to 63 letters, digits, - and _", c.Node)
	}
	if c.Data == "" {
		wrong("data: the directory for the data is not given")
	}
	if c.Listen.HTTP == "" && c.Listen.HTTPListener == nil {
		wrong("listen.http: the address for DynamoDB's API is not given")
	}
	for _, a := range []struct{ name, address string }{
		{"listen.http", c.Listen.HTTP}, {"listen.grpc", c.Listen.GRPC}, {"listen.admin", c.Listen.Admin}, {"listen.serf", c.Listen.Serf},
		{"advertise.grpc", c.Advertise.GRPC}, {"advertise.serf", c.Advertise.Serf},
	} {
		if _, _, err := hostPort(a.address); a.address != "" && err != nil {
			wrong("%s: %w", a.name, err)
		}
	}
	seen := map[Peer]bool{}
	for _, p := range c.Peers {
		if !regionName.MatchString(p.Region) || p.Region == c.Region || seen[p] {
			wrong("peers: %q at %q is this region, is given twice, or is no region's name", p.Region, p.GRPC)
		}
		seen[p] = true
		if _, port, err := hostPort(p.GRPC); err != nil || port == 0 {
			wrong("peers: %s: %q is no address like host:9100", p.Region, p.GRPC)
		}
	}
	if c.Listen.Serf == "" && len(c.Join) > 0 {
		wrong("join: there is no listen.serf to join with")
	}
	if c.Listen.Serf != "" && c.Listen.GRPC == "" && c.Listen.GRPCListener == nil {
		wrong("listen.grpc: the address for other regions is not given, and listen.serf would tell them of none")
	}
	for _, a := range c.Join {
		if _, port, err := hostPort(a); err != nil || port == 0 {
			wrong("join: %q is no address like host:7946", a)
		}
	}
	switch c.Auth {
	case "":
		c.Auth = "on"
	case "on", "off":
	default:
		wrong("auth: %q is neither on nor off", c.Auth)
	}
	if c.Auth == "on" && len(c.Credentials) == 0 && c.Keys == "" {
		wrong("credentials: there is no key pair that could sign a request; give one, or keys, or auth: off")
	}
	if c.Retention.MaxBytes < 0 || c.Retention.MaxAge < 0 {
		wrong("retention: a bound is less than 0")
	}
	if c.Reserve < 0 {
		wrong("reserveBytes: %d is less than 0", c.Reserve)
	}
	if c.SnapshotRate < 0 || c.SnapshotRate > 0 && c.SnapshotRate < 1<<20 {
		wrong("snapshotBytesPerSecond: %d is less than 1 MiB", c.SnapshotRate)
	}
	if c.Auth == "off" && !c.Insecure && !c.isLocal() {
		wrong("auth: off lets everybody who can connect to %s do everything; listen on this machine alone, as 127.0.0.1, or say insecure: true", c.Listen.HTTP)
	}
	if err := c.checkMembers(); err != nil {
		errs = append(errs, err)
	}
	if err := c.TLS.validate(c); err != nil {
		errs = append(errs, err)
	}
	if _, err := gossipKey(c.GossipKey); err != nil {
		errs = append(errs, err)
	}
	if c.Listen.GRPC != "" && !c.TLS.given() && !c.Insecure && !isLoopback(c.Listen.GRPC) {
		wrong("listen.grpc: without tls, whoever can connect to %s can read and write everything; give tls, or say insecure: true", c.Listen.GRPC)
	}
	keys := map[string]bool{}
	for _, k := range c.Credentials {
		if k.AccessKey == "" || k.SecretKey == "" {
			wrong("credentials: a key pair lacks accessKey or secretKey")
		} else if keys[k.AccessKey] {
			wrong("credentials: %s is given twice", k.AccessKey)
		}
		keys[k.AccessKey] = true
	}
	if c.PartitionsPerTable < 0 || c.PartitionsPerTable > maxPartitions {
		wrong("partitionsPerTable: %d is not from 1 to %d", c.PartitionsPerTable, maxPartitions)
	}
	if c.Replicas < 0 || c.Replicas > region.MaxMembers {
		wrong("replicas: %d is not from 1 to %d", c.Replicas, region.MaxMembers)
	}
	if err := checkZone(c.Zone); err != nil {
		errs = append(errs, err)
	}
	if d := c.ReplaceAfter; d != 0 && d < minReplaceAfter {
		wrong("replaceAfter: %v is less than %v: a node that is started again would be replaced", d, minReplaceAfter)
	}
	if n := c.PartitionSplitBytes; n > 0 && n < minSplitBytes {
		wrong("partitionSplitBytes: %d is less than %d; a negative number is for never", n, minSplitBytes)
	}
	switch s := c.Backup.S3; {
	case s == S3{}:
	case s.Endpoint == "":
		wrong("backup.s3: no endpoint is given")
	case s.Bucket == "":
		wrong("backup.s3: no bucket is given")
	case c.Backup.Dir != "":
		wrong("backup: both a directory and S3 are given")
	}
	return errors.Join(errs...)
}

const (
	// maxPartitions bounds what a table begins with. A page of a global index looks into each.
	maxPartitions = 256
	// minSplitBytes is some hundred items of the largest size: smaller partitions cost more than they are good for.
	minSplitBytes = 64 << 20
	// minReplaceAfter is what a start takes, and more.
	minReplaceAfter = 10 * time.Second
)

// split is when the region's partitions are split, and merged.
func (c *Config) split() region.SplitConfig {
	s := c.Sizes.Split
	if c.PartitionSplitBytes != 0 {
		s.Bytes = c.PartitionSplitBytes
	}
	if c.PartitionMergeAfter != 0 {
		s.MergeAfter = c.PartitionMergeAfter
	}
	if c.PartitionSplitWrites != 0 {
		s.Writes = c.PartitionSplitWrites
	}
	return s
}

// isLocal tells whether only this machine can connect to DynamoDB's API.
func (c *Config) isLocal() bool {
	if l := c.Listen.HTTPListener; l != nil {
		return isLoopback(l.Addr().String())
	}
	return isLoopback(c.Listen.HTTP)
}

func isLoopback(address string) bool {
	host, _, err := hostPort(address)
	ip := net.ParseIP(host)
	return err != nil || host == "localhost" || ip != nil && ip.IsLoopback() // what is no address is complained of elsewhere
}

// verifier checks signatures by those keys; nil takes any.
func (c *Config) verifier(keys *keyring) *sigv4.Verifier {
	if c.Auth == "off" {
		return nil
	}
	v := &sigv4.Verifier{Region: c.Region, Now: c.Now, Lookup: keys.secret}
	if c.Lenient {
		v.Region = ""
		v.Token = func(accessKeyID, token string) bool { return true }
	}
	return v
}

// fillIn gives what a file cannot give its defaults.
func (c *Config) fillIn() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if m := c.member(c.Node); m != nil {
		c.Zone = cmp.Or(m.Zone, c.Zone)
		c.NodeID, c.Voters, c.Several = m.ID, nil, true
		for _, m := range c.Nodes {
			if !m.Joins {
				c.Voters = append(c.Voters, m.ID)
			}
		}
	}
	if c.NodeID == 0 {
		c.NodeID = 1
	}
	if c.Reserve == 0 {
		c.Reserve = defaultReserve
	}
	c.Retention.fillIn()
	if c.Tasks == nil {
		c.Tasks = task.Goroutines
	}
	if c.VerifyEvery == 0 {
		c.VerifyEvery = verifyEvery
	}
	if c.ExpireEvery == 0 {
		c.ExpireEvery = expireEvery
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) {
			c.Logger.Error("node: cannot go on", "err", err)
			os.Exit(3)
		}
	}
}
