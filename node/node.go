// Package node is the composition root: it turns a Config into one running node of one region, and, for
// trying things out, into three regions in one process (dev.go). The command line and the tests share it.
//
// It owns the wiring, the clock, randomness, files and sockets, and leaves every rule to the packages
// that it wires. What is opened upward is closed downward, and Run leaves no goroutine behind.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	nodes "github.com/commutatordb/commutator/region/transport"
	"github.com/commutatordb/commutator/replication/transport"
)

// The parts of a data directory.
const (
	logDir   = "log"   // the Raft log
	stateDir = "state" // Pebble
	lockFile = "LOCK"
)

const (
	// drainFor is how long requests under way may take when a node stops.
	drainFor = 1500 * time.Millisecond
)

// Node is one node of one region.
type Node struct {
	*Engine

	httpListener, grpcListener, adminListener net.Listener
	http, admin                               *http.Server
	grpc                                      *grpc.Server
	metrics                                   *prometheus.Registry

	security *transport.Security // nil: nodes believe each other
	links    *links              // to the other nodes of the region
	clients  *connections
	crowd    *crowd

	mu      sync.Mutex
	regions map[string]*otherRegion // that are known
}

// Open opens a node's data and its listeners. Nothing is served before Run. The caller closes the node.
func Open(cfg Config) (n *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("node: configuration: %w", err)
	}
	cfg.fillIn()
	n = &Node{Engine: &Engine{cfg: cfg}, regions: map[string]*otherRegion{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
			n = nil
		}
	}()
	// What the configuration may be wrong about comes first: nothing is written for a node that cannot run.
	archive := cfg.Archive
	if archive == nil {
		if archive, err = openArchive(cfg); err != nil {
			return n, err
		}
	}
	if err := n.listen(); err != nil {
		return n, err
	}
	n.clients = newConnections(n.httpListener, defaultLimits.connections)
	if n.crowd, err = newCrowd(n.clients.count); err != nil {
		return n, err
	}
	if cfg.Crowded == nil {
		cfg.Crowded = n.crowd.Crowded
	}
	if cfg.Auth == "off" && !cfg.isLocal() {
		cfg.Logger.Warn("node: AUTH IS OFF: whoever can connect may read and change everything", "http", n.HTTPAddr().String())
	}
	if cfg.Several && cfg.Send == nil {
		cfg.Send = func(to uint64, m group.Message) { n.links.send(to, m) }
		cfg.Ask = func(ctx context.Context, to uint64, question []byte) ([]byte, error) {
			return n.links.ask(ctx, to, question)
		}
	}
	if cfg.Several {
		cfg.Advertise.GRPC = n.advertisedGRPC()
	}
	e, err := openEngine(cfg, archive)
	if err != nil {
		return n, err
	}
	n.Engine = e
	return n, n.openServers()
}

// listen opens the listeners. What connects waits until Run.
func (n *Node) listen() (err error) {
	l := n.cfg.Listen
	if n.httpListener, err = listen(l.HTTPListener, l.HTTP); err != nil {
		return fmt.Errorf("node: listen.http: %w", err)
	}
	if n.grpcListener, err = listen(l.GRPCListener, l.GRPC); err != nil {
		return fmt.Errorf("node: listen.grpc: %w", err)
	}
	if n.adminListener, err = listen(nil, l.Admin); err != nil {
		return fmt.Errorf("node: listen.admin: %w", err)
	}
	return nil
}

func (n *Node) openServers() error {
	n.security = n.cfg.TLS.security()
	var err error
	if n.links, err = openLinks(n); err != nil {
		return err
	}
	n.metrics = newMetrics(n)
	n.http = newHTTPServer(n.handler, defaultLimits)
	n.http.ErrorLog = slog.NewLogLogger(n.cfg.Logger.Handler(), slog.LevelDebug) // strangers must not fill the log
	n.admin = &http.Server{
		Handler:           admin.NewHandler(admin.Config{Ready: n.ready, Metrics: n.metrics}),
		ReadHeaderTimeout: defaultLimits.header, IdleTimeout: defaultLimits.idle, MaxHeaderBytes: defaultLimits.headerBytes,
	}
	n.grpc = transport.NewServer(n.security)
	transport.Register(n.grpc, n.rep)
	nodes.Register(n.grpc, nodes.Receiver{Admit: n.admit, Receive: n.Receive, MayAsk: n.mayAsk, Answer: n.Answer})
	for _, p := range n.cfg.Peers {
		if err := n.otherNodeAt(p.Region, p.GRPC, p.GRPC); err != nil {
			return err
		}
	}
	return nil
}

// listen returns l, or a listener at address; none for "".
func listen(l net.Listener, address string) (net.Listener, error) {
	if l != nil || address == "" {
		return l, nil
	}
	return net.Listen("tcp", address)
}

// HTTPAddr is where DynamoDB's API is served.
func (n *Node) HTTPAddr() net.Addr { return n.httpListener.Addr() }

// readyWithin is how long /readyz may take: a node of several asks the others how far it should be, which takes as long as a strong read.
const readyWithin = 500 * time.Millisecond

func (n *Node) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	if m, known := n.region.Member(n.cfg.NodeID); known && m.State != region.MemberHolds {
		return fmt.Errorf("node %d of region %s was let go", m.ID, n.cfg.Region)
	}
	return n.region.Ready(ctx)
}

// Run serves until ctx ends or something breaks, and then stops within drainFor and a little: requests
// under way are answered, new ones are not taken.
func (n *Node) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	// The region outlives the servers, so that what is under way can still be carried out.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	var others *connections // of nodes of this region and others
	g.Go(func() error { return n.run(gctx, inner) })
	g.Go(func() error { return n.links.run(inner) })
	g.Go(func() error { return n.keys.watch(gctx) })
	g.Go(func() error { return n.crowd.run(inner) })
	g.Go(func() error {
		return served(n.http.Serve(&doors{
			connections: n.clients, crowded: func() bool { return n.cfg.Crowded(1) }, refusal: n.handler.AppendCrowded, idle: defaultLimits.idle,
		}))
	})
	if n.adminListener != nil {
		g.Go(func() error { return served(n.admin.Serve(n.adminListener)) })
	}
	if n.grpcListener != nil {
		others = newConnections(n.grpcListener, defaultLimits.connections)
		g.Go(func() error { return served(n.grpc.Serve(others)) })
	}
	if n.cfg.Listen.Serf != "" {
		g.Go(func() error { return n.gossip(gctx) })
	}
	g.Go(func() error {
		<-gctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
		defer cancel()
		// The other nodes go on without an election, and answer what is under way here.
		if err := n.region.Resign(drain); err != nil {
			n.cfg.Logger.Debug("node: not all that this node leads could be handed over", "err", err)
		}
		if err := n.http.Shutdown(drain); err != nil {
			n.http.Close()
		}
		if others != nil {
			others.closeAll()
		}
		n.grpc.Stop()
		n.admin.Close()
		stopInner()
		return nil
	})
	return g.Wait()
}

// served turns a server's answer to being stopped into none.
func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// ReadKeys has the keys file read again now, while Run runs; it is read in any case when it changes.
func (n *Node) ReadKeys() { n.keys.readNow() }

// Close closes what Open has opened. Run must have returned, or never been called.
func (n *Node) Close() error {
	var errs []error
	for _, l := range []net.Listener{n.httpListener, n.grpcListener, n.adminListener} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	for _, o := range n.regions {
		errs = append(errs, o.close())
	}
	if n.crowd != nil {
		errs = append(errs, n.crowd.close())
	}
	if n.links != nil {
		errs = append(errs, n.links.close())
	}
	return errors.Join(append(errs, n.Engine.Close())...)
}
