package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// DevConfig is what dev is told: several regions of one node each in one process, with a simulated
// network between them.
type DevConfig struct {
	Regions     []string
	Host        string // where the regions listen; default 127.0.0.1
	Port        int    // of the first region's API; the others follow. 0: any free ports
	Data        string // directory; each region has one of its own in it
	InMemory    bool   // keep nothing; Data still holds the control socket
	Latency     time.Duration
	Credentials []Credential
	Keys        string // see Config
	Auth        string
	// EnforceThroughput is Config's.
	EnforceThroughput bool
	ExpireEvery       time.Duration // see Config
	// Partitions is each region's PartitionsPerTable, or one for all; nil: the default.
	Partitions []int
	Backup     Backup
	Logger     *slog.Logger
	Fatal      func(error)
}

// Dev is several regions in one process.
type Dev struct {
	nodes   []*Node
	wan     *wan
	dir     string
	control net.Listener
}

// controlSocket lies in dev's data directory: it is how `commutator dev partition` and its like find it.
const controlSocket = "dev.sock"

// OpenDev opens the regions and their listeners. Nothing is served before Run. The caller closes it.
func OpenDev(cfg DevConfig) (d *Dev, err error) {
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("dev: %w", err)
	}
	d = &Dev{wan: newWAN(cfg.Latency)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
			d = nil
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return d, fmt.Errorf("dev: %w", err)
	}
	if err := d.openControl(cfg.Data); err != nil {
		return d, err
	}
	// All addresses first: nothing is written when one of them is taken.
	http, grpc := make([]net.Listener, len(cfg.Regions)), make([]net.Listener, len(cfg.Regions))
	defer func() {
		for i := len(d.nodes); err != nil && i < len(cfg.Regions); i++ { // those of no node
			for _, l := range []net.Listener{http[i], grpc[i]} {
				if l != nil {
					l.Close()
				}
			}
		}
	}()
	regions := map[string]string{} // gRPC address -> region
	for i, name := range cfg.Regions {
		port := 0
		if cfg.Port > 0 {
			port = cfg.Port + i
		}
		if http[i], err = net.Listen("tcp", net.JoinHostPort(cfg.Host, strconv.Itoa(port))); err != nil {
			return d, fmt.Errorf("dev: region %s: %w", name, err)
		}
		if grpc[i], err = net.Listen("tcp", net.JoinHostPort(cfg.Host, "0")); err != nil {
			return d, fmt.Errorf("dev: region %s: %w", name, err)
		}
		regions[grpc[i].Addr().String()] = name
	}
	for i, name := range cfg.Regions {
		c := Config{
			Region: name, Data: filepath.Join(cfg.Data, name), Listen: Listen{HTTPListener: http[i], GRPCListener: grpc[i]},
			Credentials: cfg.Credentials, Keys: cfg.Keys, Auth: cfg.Auth, Insecure: true, Lenient: true, EnforceThroughput: cfg.EnforceThroughput, ExpireEvery: cfg.ExpireEvery, Backup: cfg.Backup, Dial: d.wan.Dial(name, regions), Logger: cfg.Logger, Fatal: cfg.Fatal,
		}
		if len(cfg.Partitions) > 0 {
			c.PartitionsPerTable = cfg.Partitions[i%len(cfg.Partitions)]
		}
		if c.Logger != nil {
			c.Logger = c.Logger.With("region", name)
		}
		if c.Backup.Dir == "" {
			c.Backup.Dir = filepath.Join(cfg.Data, "backups")
		}
		if cfg.InMemory {
			c.FS = vfs.NewMem()
		}
		for j, other := range cfg.Regions {
			if j != i {
				c.Peers = append(c.Peers, Peer{Region: other, GRPC: grpc[j].Addr().String()})
			}
		}
		n, err := Open(c)
		if err != nil {
			return d, err
		}
		d.nodes = append(d.nodes, n)
	}
	return d, nil
}

// Validate tells what is wrong with it; OpenDev asks before it writes anything.
func (cfg DevConfig) Validate() error {
	seen := map[string]bool{}
	for _, name := range cfg.Regions {
		switch {
		case !regionName.MatchString(name):
			return fmt.Errorf("%q is not a region's name like us-east-1", name)
		case seen[name]:
			return fmt.Errorf("region %s is given twice", name)
		}
		seen[name] = true
	}
	for _, n := range cfg.Partitions {
		if n < 1 || n > maxPartitions {
			return fmt.Errorf("%d partitions: a table begins with 1 to %d", n, maxPartitions)
		}
	}
	switch n := len(cfg.Partitions); {
	case len(cfg.Regions) == 0:
		return errors.New("no region is given")
	case n > 1 && n != len(cfg.Regions):
		return fmt.Errorf("partitions are given for %d regions, of %d", n, len(cfg.Regions))
	case cfg.Port < 0 || cfg.Port+len(cfg.Regions)-1 > 65535:
		return fmt.Errorf("port %d and those that follow, one for each region, are no ports", cfg.Port)
	case cfg.Latency < 0:
		return fmt.Errorf("a latency of %s is none", cfg.Latency)
	case cfg.Auth != "" && cfg.Auth != "on" && cfg.Auth != "off":
		return fmt.Errorf("auth: %q is neither on nor off", cfg.Auth)
	}
	for _, k := range cfg.Credentials {
		if k.AccessKey == "" || k.SecretKey == "" {
			return errors.New("a key pair lacks its access key or its secret key")
		}
	}
	return nil
}

func (d *Dev) openControl(dir string) error {
	path, done, err := socketPath(dir)
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	defer done()
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("dev: %s is in use by another dev", dir)
	}
	os.Remove(path) // left behind by a dev that was killed
	control, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("dev: control socket in %s: %w", dir, err)
	}
	control.SetUnlinkOnClose(false) // path may be good only now
	d.control, d.dir = control, dir
	return nil
}

// closeControl closes the control socket and takes it away, once.
func (d *Dev) closeControl() error {
	if d.control == nil {
		return nil
	}
	err := d.control.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return errors.Join(err, os.Remove(filepath.Join(d.dir, controlSocket)))
}

// maxSocketPath is the longest path that a Unix socket has everywhere, in bytes: Linux takes 107, others
// 103.
const maxSocketPath = 103

// socketPath returns a path of the control socket in a directory that is short enough for a socket. It is
// good until done is called.
func socketPath(dir string) (path string, done func(), err error) {
	path, done = filepath.Join(dir, controlSocket), func() {}
	if len(path) <= maxSocketPath {
		return path, done, nil
	}
	if absolute, err := filepath.Abs(path); err == nil {
		if wd, err := os.Getwd(); err == nil {
			if short, err := filepath.Rel(wd, absolute); err == nil && len(short) <= maxSocketPath {
				return short, done, nil
			}
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", done, err
	}
	path = fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), controlSocket)
	if _, err := os.Stat(filepath.Dir(path)); err != nil { // not Linux
		f.Close()
		return "", done, fmt.Errorf("the path of %s is longer than the %d bytes that a socket's may have: choose a shorter one", dir, maxSocketPath)
	}
	return path, func() { f.Close() }, nil
}

// Nodes returns the regions' nodes, in the order of the configuration.
func (d *Dev) Nodes() []*Node { return d.nodes }

// Ready waits until every region can serve.
func (d *Dev) Ready(ctx context.Context) error {
	for _, n := range d.nodes {
		if err := n.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run serves until ctx ends.
func (d *Dev) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range d.nodes {
		g.Go(func() error { return n.Run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return d.closeControl()
	})
	g.Go(func() error {
		for {
			conn, err := d.control.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("dev: control: %w", err)
			}
			d.serveControl(conn)
		}
	})
	return g.Wait()
}

// Close closes the regions. Run must have returned, or never been called.
func (d *Dev) Close() error {
	var errs []error
	g := errgroup.Group{}
	for _, n := range d.nodes {
		g.Go(n.Close)
	}
	errs = append(errs, g.Wait())
	return errors.Join(append(errs, d.closeControl())...)
}

// ControlRequest is one command to a running dev.
type ControlRequest struct {
	Command string // partition, heal, delay or status
	Region  string // partition
	Delay   time.Duration
}

// ControlAnswer is what dev says to it.
type ControlAnswer struct {
	Error   string `json:",omitempty"`
	Delay   time.Duration
	Regions []ControlRegion
}

// ControlRegion is one region of a running dev.
type ControlRegion struct {
	Region   string
	Endpoint string
	CutOff   bool
}

const controlTimeout = 5 * time.Second

func (d *Dev) serveControl(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(controlTimeout))
	var q ControlRequest
	if err := json.NewDecoder(io.LimitReader(conn, 4096)).Decode(&q); err != nil {
		return // somebody looked whether dev is there
	}
	var a ControlAnswer
	switch q.Command {
	case "partition":
		known := false
		for _, n := range d.nodes {
			known = known || n.region.Name() == q.Region
		}
		if !known {
			a.Error = fmt.Sprintf("there is no region %q here", q.Region)
			break
		}
		d.wan.Partition(q.Region)
	case "heal":
		d.wan.Heal()
	case "delay":
		d.wan.Delay(q.Delay)
	case "status":
	default:
		a.Error = fmt.Sprintf("unknown command %q", q.Command)
	}
	latency, cut := d.wan.State()
	a.Delay = latency
	for _, n := range d.nodes {
		r := ControlRegion{Region: n.region.Name(), Endpoint: "http://" + n.HTTPAddr().String()}
		for _, c := range cut {
			r.CutOff = r.CutOff || c == r.Region
		}
		a.Regions = append(a.Regions, r)
	}
	json.NewEncoder(conn).Encode(a)
}

// Control sends one command to the dev that holds a data directory.
func Control(dir string, q ControlRequest) (ControlAnswer, error) {
	var a ControlAnswer
	path, done, err := socketPath(dir)
	if err != nil {
		return a, fmt.Errorf("dev: no dev is running on %s: %w", dir, err)
	}
	defer done()
	conn, err := net.DialTimeout("unix", path, controlTimeout)
	if err != nil {
		return a, fmt.Errorf("dev: no dev is running on %s: %w", dir, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(controlTimeout))
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return a, fmt.Errorf("dev: control: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("dev: control: %w", err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("dev: %s", a.Error)
	}
	return a, nil
}
