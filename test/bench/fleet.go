package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// fleet is a region of processes of this program on addresses of this machine, each with so much processor time.
type fleet struct {
	dir     string
	nodes   []*server
	cgroups []string
}

// quotaPeriod is by which a cgroup's processor time is given out, in microseconds: shorter than the kernel's 100 ms, so that a node which has
// used up its own stands still for some milliseconds, and its latency is that of a slow processor.
const quotaPeriod = 10_000

// startFleet starts n nodes, each of which may use so many cores, and makes and fills the table on so many partitions.
func startFleet(ctx context.Context, dir string, n, parts int) (f *fleet, err error) {
	f = &fleet{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop())
			f = nil
		}
	}()
	host := func(i, port int) string { return fmt.Sprintf("127.0.%d.%d:%d", 64+n, i, port) }
	for i := 1; i <= n; i++ {
		data := filepath.Join(dir, fmt.Sprint("n", i))
		if err := os.MkdirAll(data, 0o700); err != nil {
			return f, err
		}
		var file strings.Builder
		fmt.Fprintf(&file, "region: us-east-1\nnode: n%d\ndata: %s\nreplicas: %d\npartitionsPerTable: %d\npartitionSplitWrites: -1\n", i, data, *replicas, parts)
		fmt.Fprintf(&file, "credentials: [{accessKey: %s, secretKey: %s}]\n", accessKey, secretKey)
		fmt.Fprintf(&file, "listen: {http: %q, grpc: %q, admin: %q}\n", host(i, 8000), host(i, 7000), host(i, 9000))
		if n > 1 {
			fmt.Fprint(&file, "nodes:\n")
			for j := 1; j <= n; j++ {
				fmt.Fprintf(&file, "  - {id: %d, node: n%d, grpc: %q}\n", j, j, host(j, 7000))
			}
		}
		path := data + ".yaml"
		if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
			return f, err
		}
		s, err := startProcess("node", "-serve", "node", "-config", path)
		if err != nil {
			return f, err
		}
		f.nodes = append(f.nodes, s)
	}
	for i := range f.nodes {
		if err := ready(ctx, "http://"+host(i+1, 9000)+"/readyz"); err != nil {
			return f, err
		}
	}
	if err := prepare(ctx, f.nodes[0].address); err != nil {
		return f, err
	}
	// Leaders and replicas come to rest.
	select {
	case <-ctx.Done():
		return f, ctx.Err()
	case <-time.After(restFor):
	}
	return f, f.limit(*cores)
}

// restFor is how long a region has to spread its leaders before it is measured.
const restFor = 15 * time.Second

func ready(ctx context.Context, url string) error {
	for end := time.Now().Add(time.Minute); ; {
		a, err := http.Get(url)
		if err == nil {
			a.Body.Close()
			if a.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(a.Status)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: %w", url, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// limit puts each node into a CPU cgroup of its own.
func (f *fleet) limit(cores float64) error {
	if cores <= 0 {
		return nil
	}
	quota := strconv.Itoa(int(cores * quotaPeriod))
	for i, s := range f.nodes {
		dir := filepath.Join(*cgroups, fmt.Sprintf("commutator-bench-%d-%d", os.Getpid(), i+1))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("no CPU cgroup can be made (-cores 0 does without): %w", err)
		}
		f.cgroups = append(f.cgroups, dir)
		files := [][2]string{{"cpu.cfs_period_us", strconv.Itoa(quotaPeriod)}, {"cpu.cfs_quota_us", quota}}
		if _, err := os.Stat(filepath.Join(dir, "cpu.max")); err == nil { // version 2
			files = [][2]string{{"cpu.max", quota + " " + strconv.Itoa(quotaPeriod)}}
		}
		for _, file := range append(files, [2]string{"cgroup.procs", strconv.Itoa(s.cmd.Process.Pid)}) {
			if err := os.WriteFile(filepath.Join(dir, file[0]), []byte(file[1]), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop ends the nodes and removes what limited them.
func (f *fleet) stop() error {
	var errs []error
	for _, dir := range f.cgroups {
		// A process goes back before its cgroup is removed, and ends the sooner.
		for _, s := range f.nodes {
			os.WriteFile(filepath.Join(*cgroups, "cgroup.procs"), []byte(strconv.Itoa(s.cmd.Process.Pid)), 0o600)
		}
		errs = append(errs, os.Remove(dir))
	}
	for _, s := range f.nodes {
		errs = append(errs, s.cmd.Process.Signal(os.Interrupt))
	}
	for _, s := range f.nodes {
		errs = append(errs, s.cmd.Wait())
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}

// used is what each node has used since the start.
func (f *fleet) used() (all []time.Duration, err error) {
	for _, s := range f.nodes {
		u, err := s.used()
		if err != nil {
			return nil, err
		}
		all = append(all, u.CPU)
	}
	return all, nil
}

// requests signs requests of a kind for each node.
func (f *fleet) requests(of func(address string) ([][]byte, error)) (all [][][]byte, err error) {
	for _, s := range f.nodes {
		r, err := of(s.address)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// numbers reads a list of them; "" is what is given.
func numbers(list, without string) (out []float64, err error) {
	if list == "" {
		list = without
	}
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is no list of numbers, with commas between them", list)
		}
		out = append(out, n)
	}
	return out, nil
}

func (f *fleet) addresses() (all []string) {
	for _, s := range f.nodes {
		all = append(all, s.address)
	}
	return all
}

// resident is the nodes' resident memory.
func (f *fleet) resident() string {
	var all []string
	for _, s := range f.nodes {
		r, err := residentOf(s.cmd.Process.Pid)
		if err != nil {
			r = err.Error()
		}
		all = append(all, r)
	}
	return strings.Join(all, ", ")
}
