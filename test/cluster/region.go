//go:build linux

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// regionName is the region that the processes make up.
const regionName = "us-east-1"

// region is a region of processes. Its methods are for one goroutine.
type region struct {
	t       *testing.T
	program string
	dir     string
	net     string // the first three numbers of the nodes' addresses
	nodes   []*process
	ways    map[[2]int]*way // from a node to another
	options string          // lines for every node's file
	zones   []string        // of the nodes, where they have some
}

// process is one node.
type process struct {
	id  int
	cmd *exec.Cmd // nil: it does not run
	log *os.File
}

// build builds the program, once a test. tags are build tags.
func build(t *testing.T, tags string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "commutator")
	cmd := exec.Command("go", "build", "-tags", tags, "-o", program, "../../cmd/commutator")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// start starts a region of n nodes and waits until they are ready. options are lines for every node's file, zones are theirs, in order.
func start(t *testing.T, n int, options string, zones ...string) *region {
	t.Helper()
	r := &region{
		t: t, program: build(t, ""), dir: t.TempDir(), options: options, zones: zones, ways: map[[2]int]*way{},
		// Ports of 127.0.0.1 are given to others at any time; nobody else has these addresses.
		net: fmt.Sprintf("127.%d.%d", 1+rand.IntN(250), 1+rand.IntN(250)),
	}
	t.Cleanup(r.stop)
	for id := 1; id <= n; id++ {
		r.nodes = append(r.nodes, &process{id: id})
	}
	for from := 1; from <= n; from++ {
		for to := 1; to <= n; to++ {
			if from != to {
				r.ways[[2]int{from, to}] = newWay(t, r.address(to, 7000))
			}
		}
	}
	for id := 1; id <= n; id++ {
		r.start(id)
	}
	for id := 1; id <= n; id++ {
		r.ready(id)
	}
	return r
}

func (r *region) address(id, port int) string { return fmt.Sprintf("%s.%d:%d", r.net, id, port) }

// endpoint is where clients ask a node.
func (r *region) endpoint(id int) string { return "http://" + r.address(id, 8000) }

func (r *region) data(id int) string { return filepath.Join(r.dir, fmt.Sprintf("n%d", id)) }

// start starts a node that does not run.
func (r *region) start(id int) {
	r.t.Helper()
	var file bytes.Buffer
	fmt.Fprintf(&file, "region: %s\nnode: n%d\ndata: %s\nauth: off\n%s\n", regionName, id, r.data(id), r.options)
	if r.zones != nil {
		fmt.Fprintf(&file, "zone: %s\n", r.zones[id-1])
	}
	fmt.Fprintf(&file, "listen: {http: %q, grpc: %q, admin: %q}\nnodes:\n", r.address(id, 8000), r.address(id, 7000), r.address(id, 9000))
	for _, p := range r.nodes {
		address := r.address(p.id, 7000)
		if p.id != id {
			address = r.ways[[2]int{id, p.id}].address()
		}
		fmt.Fprintf(&file, "  - {id: %d, node: n%d, grpc: %q}\n", p.id, p.id, address)
	}
	path := filepath.Join(r.dir, fmt.Sprintf("n%d.yaml", id))
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		r.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(r.dir, fmt.Sprintf("n%d.log", id)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	p := r.nodes[id-1]
	p.log, p.cmd = log, exec.Command(r.program, "server", "--config", path)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
}

// ready waits until a node says that it is.
func (r *region) ready(id int) {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) { // it shows from outside alone
		a, err := http.Get("http://" + r.address(id, 9000) + "/readyz")
		var why []byte
		if err == nil {
			why, err = io.ReadAll(a.Body)
			a.Body.Close()
			if a.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			r.t.Fatalf("node %d is not ready after 2 minutes: %s, %v", id, why, err)
		}
	}
}

// kill ends a node as a power cut of its machine does, but that the kernel keeps what it was given.
func (r *region) kill(id int) {
	p := r.nodes[id-1]
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait() // says that it was killed
	p.log.Close()
	p.cmd = nil
}

// end asks a node to stop, and waits until it has.
func (r *region) end(id int) {
	p := r.nodes[id-1]
	r.signal(id, syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		r.t.Errorf("node %d, asked to stop: %v", id, err)
	}
	p.log.Close()
	p.cmd = nil
}

// pause stops a node where it is, as a machine that swaps or is moved; resume lets it go on.
func (r *region) pause(id int)  { r.signal(id, syscall.SIGSTOP) }
func (r *region) resume(id int) { r.signal(id, syscall.SIGCONT) }

func (r *region) signal(id int, s syscall.Signal) {
	if p := r.nodes[id-1]; p.cmd != nil {
		if err := p.cmd.Process.Signal(s); err != nil {
			r.t.Errorf("node %d: %v", id, err)
		}
	}
}

// cut lets nothing pass any more of what a node sends to another, and heal lets pass what waits, too.
func (r *region) cut(from, to int)  { r.ways[[2]int{from, to}].set(true) }
func (r *region) heal(from, to int) { r.ways[[2]int{from, to}].set(false) }

// isolate cuts a node off from all others; join ends that.
func (r *region) isolate(id int) { r.around(id, r.cut) }
func (r *region) join(id int)    { r.around(id, r.heal) }

func (r *region) around(id int, do func(from, to int)) {
	for _, p := range r.nodes {
		if p.id != id {
			do(id, p.id)
			do(p.id, id)
		}
	}
}

// stop ends all, and shows the last lines of each if the test has failed.
func (r *region) stop() {
	for _, p := range r.nodes {
		r.kill(p.id)
	}
	for _, w := range r.ways {
		w.close()
	}
	if !r.t.Failed() {
		return
	}
	for _, p := range r.nodes {
		b, err := os.ReadFile(filepath.Join(r.dir, fmt.Sprintf("n%d.log", p.id)))
		if err != nil {
			r.t.Error(err)
		}
		r.t.Logf("node %d:\n%s", p.id, b[max(0, len(b)-1500):])
	}
}

// way carries connections from one node to another, unless it is cut: then they stay, and nothing passes.
type way struct {
	listener net.Listener
	to       string
	work     sync.WaitGroup

	mu     sync.Mutex
	passes chan struct{} // closed while it is not cut
	conns  map[net.Conn]bool
	closed bool
}

func newWay(t *testing.T, to string) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{listener: l, to: to, passes: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(w.passes)
	w.work.Go(w.serve)
	return w
}

func (w *way) address() string { return w.listener.Addr().String() }

func (w *way) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.passes:
		if cut {
			w.passes = make(chan struct{})
		}
	default:
		if !cut {
			close(w.passes)
		}
	}
}

// wait waits while the way is cut.
func (w *way) wait() {
	w.mu.Lock()
	passes := w.passes
	w.mu.Unlock()
	<-passes
}

func (w *way) serve() {
	for {
		in, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		w.work.Go(func() {
			w.wait()
			out, err := net.Dial("tcp", w.to)
			if err != nil || !w.holds(in, out) {
				in.Close()
				if out != nil {
					out.Close()
				}
				return
			}
			defer w.lose(in, out)
			var both sync.WaitGroup
			both.Go(func() { w.carry(in, out) })
			both.Go(func() { w.carry(out, in) })
			both.Wait()
		})
	}
}

// carry ends both connections with either.
func (w *way) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		w.wait()
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *way) holds(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		w.conns[c] = true
	}
	return !w.closed
}

func (w *way) lose(conns ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		delete(w.conns, c)
	}
}

func (w *way) close() {
	w.set(false)
	err := w.listener.Close()
	w.mu.Lock()
	w.closed = true
	for c := range w.conns {
		err = errors.Join(err, c.Close())
	}
	w.mu.Unlock()
	w.work.Wait()
}
