package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/commutatordb/commutator/region/group"
	nodes "github.com/commutatordb/commutator/region/transport"
	"github.com/commutatordb/commutator/replication/transport"
)

// Member is one node of a region. A region's nodes are the same in the configuration of each.
type Member struct {
	ID   uint64 `yaml:"id"`   // from 1; never another node's again
	Node string `yaml:"node"` // its name
	GRPC string `yaml:"grpc"` // where the others reach it; "": where gossip finds it
}

// maxMembers bounds the nodes of a region for now: each holds a replica of everything.
const maxMembers = 7

// checkMembers returns what is wrong with the nodes of the region.
func (c *Config) checkMembers() error {
	if len(c.Nodes) == 0 {
		return nil
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("nodes: "+format, args...)) }
	ids, names := map[uint64]bool{}, map[string]bool{}
	for _, m := range c.Nodes {
		if m.ID == 0 || ids[m.ID] {
			wrong("%s: the id %d is 0, or another node's", m.Node, m.ID)
		}
		if !nodeName.MatchString(m.Node) || names[m.Node] {
			wrong("%q is given twice, or is no name of up to 63 letters, digits, - and _", m.Node)
		}
		ids[m.ID], names[m.Node] = true, true
		if m.GRPC == "" {
			if c.Listen.Serf == "" {
				wrong("%s: no grpc address is given, and there is no listen.serf to find one by", m.Node)
			}
		} else if _, port, err := hostPort(m.GRPC); err != nil || port == 0 {
			wrong("%s: %q is no address like host:9100", m.Node, m.GRPC)
		}
	}
	if !names[c.Node] {
		wrong("%s, which this node is, is not among them", c.Node)
	}
	if len(c.Nodes) > maxMembers {
		wrong("%d are given; %d are the most", len(c.Nodes), maxMembers)
	}
	if len(c.Nodes) > 1 && c.Listen.GRPC == "" && c.Listen.GRPCListener == nil {
		wrong("there are several, and no listen.grpc for them to reach this one")
	}
	return errors.Join(errs...)
}

// member returns the node of the region with that name, or nil.
func (c *Config) member(name string) *Member {
	i := slices.IndexFunc(c.Nodes, func(m Member) bool { return m.Node == name })
	if i < 0 {
		return nil
	}
	return &c.Nodes[i]
}

// links are the ways to the other nodes of the region.
type links struct {
	n *Node

	mu        sync.Mutex
	addresses map[uint64]string
	ways      map[uint64]*nodes.Link
	conns     []*grpc.ClientConn
}

// openLinks prepares the ways to the other nodes. Nothing is carried before run.
func openLinks(n *Node) (*links, error) {
	l := &links{n: n, addresses: map[uint64]string{}, ways: map[uint64]*nodes.Link{}}
	own := n.cfg.member(n.cfg.Node)
	for _, m := range n.cfg.Nodes {
		if m.ID == own.ID {
			continue
		}
		l.addresses[m.ID] = m.GRPC
		conn, err := transport.Connect(n.cfg.Region, m.Node, func(ctx context.Context, _ string) (net.Conn, error) {
			l.mu.Lock()
			address := l.addresses[m.ID]
			l.mu.Unlock()
			if address == "" {
				return nil, fmt.Errorf("node %s has not been found by gossip", m.Node)
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}, n.security)
		if err != nil {
			return l, fmt.Errorf("node: node %s: %w", m.Node, err)
		}
		l.conns = append(l.conns, conn)
		l.ways[m.ID] = nodes.NewLink(nodes.LinkConfig{
			Conn: conn, Hello: n.hello(m.ID), Logger: n.cfg.Logger,
			Accept:      func(h nodes.Hello) error { return n.knows(h, m.ID) },
			Unreachable: func(id uint64) { n.Unreachable(id) },
		})
	}
	return l, nil
}

// send takes a message to another node. It never waits.
func (l *links) send(to uint64, m group.Message) {
	if way := l.ways[to]; way != nil {
		way.Send(m)
	}
}

// found says that gossip has found a node of the region. What the configuration says goes first.
func (l *links) found(name, address string) {
	m := l.n.cfg.member(name)
	if m == nil || m.GRPC != "" || m.Node == l.n.cfg.Node {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addresses[m.ID] = address
}

func (l *links) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, way := range l.ways {
		g.Go(func() error { return way.Run(ctx) })
	}
	return g.Wait()
}

func (l *links) close() error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// hello is what this node says of itself to another of the region.
func (n *Node) hello(to uint64) nodes.Hello {
	return nodes.Hello{Region: n.cfg.Region, From: n.cfg.NodeID, To: to, Instance: n.id.Instance}
}

// knows refuses what does not come from the node of the region that it should: another, or one that has lost what it had.
func (n *Node) knows(h nodes.Hello, from uint64) error {
	switch {
	case h.Region != n.cfg.Region:
		return fmt.Errorf("a node of region %s speaks to one of region %s", h.Region, n.cfg.Region)
	case h.To != n.cfg.NodeID:
		return fmt.Errorf("node %d of region %s is not node %d", n.cfg.NodeID, n.cfg.Region, h.To)
	case h.From != from || from == n.cfg.NodeID || !slices.ContainsFunc(n.cfg.Nodes, func(m Member) bool { return m.ID == from }):
		return fmt.Errorf("node %d is none of region %s's, or not the one it should be", h.From, n.cfg.Region)
	}
	if known := n.region.NodeInstance(from); known != 0 && known != h.Instance {
		return fmt.Errorf("node %d of region %s has other data than it had: it may not vote as if it had it still", from, n.cfg.Region)
	}
	return nil
}

// admit is what another node of the region is asked before it is listened to.
func (n *Node) admit(ctx context.Context, h nodes.Hello) (nodes.Hello, error) {
	if err := n.knows(h, h.From); err != nil {
		return nodes.Hello{}, err
	}
	who, known, err := transport.Caller(ctx)
	if err != nil {
		return nodes.Hello{}, err
	}
	if m := n.cfg.member(who.Node); known && (who.Region != n.cfg.Region || m == nil || m.ID != h.From) {
		return nodes.Hello{}, fmt.Errorf("node %s of region %s speaks for node %d of region %s", who.Node, who.Region, h.From, n.cfg.Region)
	}
	return n.hello(h.From), nil
}
