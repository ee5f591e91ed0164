// Command bench measures a node against a ceiling: a bare net/http server that reads the same request
// bodies and answers the same response bodies, driven by the same client in the same run, alternating.
// Server and client are processes of their own on one machine. `make bench` runs it.
//
// It owns measuring, and leaves what is measured to package node.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/commutatordb/commutator/node"
)

var (
	seconds     = flag.Float64("seconds", 3, "length of one measurement")
	rounds      = flag.Int("rounds", 3, "measurements of each kind, alternating; the median is reported")
	connections = flag.Int("connections", 64, "connections")
	data        = flag.String("data", "", "directory for the data; default: a temporary one beside the working directory")
	partitions  = flag.Int("partitions", 1, "partitions that a table begins with")
	serve       = flag.String("serve", "", "internal: run as a server, `node or ceiling`")
	skipLag     = flag.Bool("skip-lag", false, "do not measure replication lag and idle cost")
	links       = flag.Bool("links", false, "measure what goes on between two regions, and nothing else")
	only        = flag.String("only", "", "one measurement: `idle`, or with -links replica, lag, counter, dead, catchup, back, verify or seed")
	seedBytes   = flag.Int64("seed-bytes", 1e9, "size of the table that a new replica is seeded with, about")
	catchUpSize = flag.Int64("catch-up-bytes", 200e6, "size of what a region is behind that has been cut off, about")
	cpuProfile  = flag.String("cpu-profile", "", "with -links and -only: `file` for a profile")
	openLoad    = flag.Bool("load", false, "measure regions under more than they can do, and nothing else")
	growth      = flag.Bool("growth", false, "measure how a table's throughput grows with the nodes of its region, and nothing else")
	nodeCounts  = flag.String("nodes", "", "with -load or -growth: how many nodes the regions have; default 1,3 and 3,5,7")
	replicas    = flag.Int("replicas", 3, "with -load or -growth: how many nodes hold a partition")
	cores       = flag.Float64("cores", 0.2, "with -load or -growth: processor time of a node, in cores, by a CPU cgroup; 0 does not limit it")
	cgroups     = flag.String("cgroups", "/sys/fs/cgroup/cpu", "directory of CPU cgroups, of version 1 or 2, in which others can be made")
	times       = flag.String("times", "0.5,1,2,3", "with -load: the rates, as multiples of what the region can do")
	config      = flag.String("config", "", "internal: a node's `file`")
)

// usageText stands above the flags.
const usageText = `Usage: go run ./test/bench [flags]

Without -links, -load and -growth: a node against a bare server, replication lag, a page of a Query, idle cost.

  go run ./test/bench -only idle
  go run ./test/bench -links -only catchup
  go run ./test/bench -load -nodes 1 -cores 0.5       # what a node does with three times what it can do
  go run ./test/bench -growth -nodes 3,5,7            # the throughput of one table, at each number of nodes

-load and -growth need Linux, for addresses such as 127.0.0.2 and, to limit nodes, a writable CPU cgroup: as root.

`

func main() {
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usageText)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch *serve {
	case "":
		err = run(ctx, os.Stdout)
	case "node":
		err = serveNode(ctx)
	case "ceiling":
		err = serveCeiling(ctx)
	default:
		err = fmt.Errorf("--serve %q is neither node nor ceiling", *serve)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// usage is what a server process has spent so far.
type usage struct {
	CPU     time.Duration
	Mallocs uint64
}

// serveUsage answers with this process's usage on an address that it prints, behind the address of the
// server under measurement.
func serveUsage(ctx context.Context, address net.Addr) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("%s %s\n", address, l.Addr())
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var u syscall.Rusage
		var m runtime.MemStats
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		runtime.ReadMemStats(&m)
		json.NewEncoder(w).Encode(usage{time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs})
	})}
	context.AfterFunc(ctx, func() { s.Close() })
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func serveNode(ctx context.Context) (err error) {
	cfg := node.Config{
		Region: "us-east-1", Data: *data, Listen: node.Listen{HTTP: "127.0.0.1:0"},
		Credentials: []node.Credential{{AccessKey: accessKey, SecretKey: secretKey}}, PartitionsPerTable: *partitions,
	}
	if *config != "" {
		if cfg, err = node.ReadConfig(*config, ""); err != nil {
			return err
		}
	}
	n, err := node.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	go serveUsage(ctx, n.HTTPAddr())
	return n.Run(ctx)
}

// serveCeiling answers PutItem's and GetItem's requests with bodies as large as the node's.
func serveCeiling(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	get, put := getAnswer(), []byte("{}")
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		answer := put
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "GetItem") {
			answer = get
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Write(answer)
	})}
	context.AfterFunc(ctx, func() { s.Close() })
	go serveUsage(ctx, l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// server is a child process under measurement.
type server struct {
	name    string
	cmd     *exec.Cmd
	address string
	usage   string
}

func start(name, dir string) (*server, error) {
	return startProcess(name, "-serve", name, "-data", dir, "-partitions", fmt.Sprint(*partitions))
}

// startProcess starts this program as a server with some flags.
func startProcess(name string, flags ...string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, cmd: exec.Command(self, flags...)}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the %s does not start: %w", name, err), s.stop())
	}
	_, err = fmt.Sscan(line, &s.address, &s.usage)
	return s, err
}

func (s *server) stop() error {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return s.cmd.Wait()
}

func (s *server) used() (usage, error) {
	var u usage
	a, err := http.Get("http://" + s.usage)
	if err != nil {
		return u, err
	}
	defer a.Body.Close()
	return u, json.NewDecoder(a.Body).Decode(&u)
}

// sample is one measurement.
type sample struct {
	rate   float64 // operations a second
	cpu    float64 // microseconds of the server's CPU for one
	allocs float64 // allocations in the server for one
	lat    []time.Duration
}

func (s *server) measure(ctx context.Context, requests [][]byte) (sample, error) {
	before, err := s.used()
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	lat, err := drive(ctx, s.address, requests, *connections, time.Duration(*seconds*float64(time.Second)))
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", s.name, err)
	}
	took := time.Since(begun)
	after, err := s.used()
	if err != nil {
		return sample{}, err
	}
	n := float64(len(lat))
	slices.Sort(lat)
	return sample{
		rate: n / took.Seconds(), cpu: float64((after.CPU - before.CPU).Microseconds()) / n,
		allocs: float64(after.Mallocs-before.Mallocs) / n, lat: lat,
	}, nil
}

// at returns a quantile of the sorted latencies, 0 for none.
func (s sample) at(q float64) time.Duration {
	if len(s.lat) == 0 {
		return 0
	}
	return s.lat[min(int(q*float64(len(s.lat))), len(s.lat)-1)].Round(time.Microsecond)
}

func median(samples []sample) sample {
	slices.SortFunc(samples, func(a, b sample) int { return int(a.rate - b.rate) })
	return samples[len(samples)/2]
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir := *data
	if dir == "" {
		if dir, err = os.MkdirTemp(".", ".bench-*"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if *only == "idle" {
		return measureDev(ctx, out, dir+"/dev")
	}
	switch {
	case *links:
		return measureLinks(ctx, out, dir+"/links")
	case *openLoad:
		return measureLoad(ctx, out, dir+"/load")
	case *growth:
		return measureGrowth(ctx, out, dir+"/growth")
	}
	subject, err := start("node", dir+"/node")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, subject.stop()) }()
	ceiling, err := start("ceiling", dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ceiling.stop()) }()
	if err := prepare(ctx, subject.address); err != nil {
		return err
	}
	fmt.Fprintf(out, "items of 1 KB, %d partitions, %d connections, %d rounds of %.0f s, %d cores, client and server on one machine\n\n", *partitions, *connections, *rounds, *seconds, runtime.NumCPU())
	fmt.Fprintf(out, "%-10s %-8s %10s %12s %11s %9s %9s %9s\n", "operation", "server", "ops/s", "CPU us/op", "allocs/op", "p50", "p99", "p99.9")
	for _, w := range []struct {
		name     string
		requests func(address string) ([][]byte, error)
		goal     float64
	}{{"GetItem", getRequests, 0.45}, {"PutItem", putRequests, 0.30}} {
		var ours, bare []sample
		for range *rounds {
			for _, s := range []*server{ceiling, subject} {
				requests, err := w.requests(s.address)
				if err != nil {
					return err
				}
				m, err := s.measure(ctx, requests)
				if err != nil {
					return err
				}
				if s == subject {
					ours = append(ours, m)
				} else {
					bare = append(bare, m)
				}
			}
		}
		o, b := median(ours), median(bare)
		for _, r := range []struct {
			name string
			sample
		}{{"ceiling", b}, {"node", o}} {
			fmt.Fprintf(out, "%-10s %-8s %10.0f %12.1f %11.1f %9s %9s %9s\n", w.name, r.name, r.rate, r.cpu, r.allocs, r.at(.5), r.at(.99), r.at(.999))
		}
		fmt.Fprintf(out, "%-10s %.2f of the ceiling (goal: at least %.2f)\n\n", w.name, o.rate/b.rate, w.goal)
	}
	if *skipLag {
		return nil
	}
	return measureDev(ctx, out, dir+"/dev")
}
