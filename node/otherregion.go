package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/replication/transport"
)

// otherRegion is another region as this node reaches it: a replication.Peer. One of its nodes answers for it at a time, and those
// that do not say so: then the next is asked.
type otherRegion struct {
	name string

	mu    sync.Mutex
	nodes []*otherNode
	at    int // the one to ask
}

// otherNode is one node of another region.
type otherNode struct {
	key     string // its name, or, where the configuration gives addresses alone, its address
	address string
	client  *transport.Client
}

var _ replication.Peer = (*otherRegion)(nil)

// found takes note of where a node of the region is: a connection that is lost is then made there. connect makes a client of a node
// that was not known, at the address that it has by then.
func (o *otherRegion) found(key, address string, connect func(address func() string) (*transport.Client, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.IndexFunc(o.nodes, func(n *otherNode) bool { return n.key == key }); i >= 0 {
		o.nodes[i].address = address
		return nil
	}
	n := &otherNode{key: key, address: address}
	var err error
	n.client, err = connect(func() string {
		o.mu.Lock()
		defer o.mu.Unlock()
		return n.address
	})
	if err == nil {
		o.nodes = append(o.nodes, n)
	}
	return err
}

// lost forgets a node, unless it is the only one.
func (o *otherRegion) lost(key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.nodes, func(n *otherNode) bool { return n.key == key })
	if i < 0 || len(o.nodes) == 1 {
		return nil
	}
	gone := o.nodes[i]
	o.nodes, o.at = slices.Delete(o.nodes, i, i+1), 0
	return gone.client.Close()
}

func (o *otherRegion) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for _, n := range o.nodes {
		errs = append(errs, n.client.Close())
	}
	return errors.Join(errs...)
}

// ask has the region's node that answers for it asked, as far as is known. Where that one does not, the next call asks another.
func (o *otherRegion) ask(ctx context.Context, do func(*transport.Client) error) error {
	o.mu.Lock()
	n := o.nodes[o.at%len(o.nodes)]
	o.mu.Unlock()
	err := do(n.client)
	// Who gives up asking says nothing of who was asked; a time that has run out does.
	if err != nil && !decided(err) && !errors.Is(context.Cause(ctx), context.Canceled) {
		o.mu.Lock()
		if len(o.nodes) > 0 && o.nodes[o.at%len(o.nodes)] == n {
			o.at++
		}
		o.mu.Unlock()
	}
	return err
}

// decided tells whether an error is the region's own answer, which no other node of it would give otherwise.
func decided(err error) bool {
	for _, e := range []error{replication.ErrTruncated, replication.ErrInstance, replication.ErrAhead, replication.ErrStaleMember, replication.ErrNoTable, replication.ErrNotMember, replication.ErrRequest} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Exchange is replication.Peer's. It asks every node, if it must.
func (o *otherRegion) Exchange(ctx context.Context, ours replication.Tables) (theirs replication.Tables, err error) {
	o.mu.Lock()
	n := len(o.nodes)
	o.mu.Unlock()
	for range n {
		err = o.ask(ctx, func(c *transport.Client) (err error) {
			theirs, err = c.Exchange(ctx, ours)
			return err
		})
		if err == nil || decided(err) || ctx.Err() != nil {
			break
		}
	}
	return theirs, err
}

// Beat is replication.Peer's.
func (o *otherRegion) Beat(ctx context.Context, region string) (b replication.Beat, err error) {
	err = o.ask(ctx, func(c *transport.Client) (err error) {
		b, err = c.Beat(ctx, region)
		return err
	})
	return b, err
}

// Follow is replication.Peer's.
func (o *otherRegion) Follow(ctx context.Context, from replication.Resume, sink replication.Sink) error {
	return o.ask(ctx, func(c *transport.Client) error { return c.Follow(ctx, from, sink) })
}

// Seed is replication.Peer's.
func (o *otherRegion) Seed(ctx context.Context, q replication.SeedRequest, receive func(replication.SeedPart) error) error {
	return o.ask(ctx, func(c *transport.Client) error { return c.Seed(ctx, q, receive) })
}

// Relay is replication.Peer's.
func (o *otherRegion) Relay(ctx context.Context, q replication.RelayRequest, receive func(replication.SeedPart) error) error {
	return o.ask(ctx, func(c *transport.Client) error { return c.Relay(ctx, q, receive) })
}

// Digest is replication.Copy's.
func (o *otherRegion) Digest(ctx context.Context, q replication.DigestRequest, receive func(replication.DigestPart) error) error {
	return o.ask(ctx, func(c *transport.Client) error { return c.Digest(ctx, q, receive) })
}

// List is replication.Copy's.
func (o *otherRegion) List(ctx context.Context, q replication.ListRequest, receive func([]replication.Entry) error) error {
	return o.ask(ctx, func(c *transport.Client) error { return c.List(ctx, q, receive) })
}

// Fetch is replication.Copy's.
func (o *otherRegion) Fetch(ctx context.Context, q replication.FetchRequest, receive func(replication.SeedPart) error) error {
	return o.ask(ctx, func(c *transport.Client) error { return c.Fetch(ctx, q, receive) })
}

// otherNodeAt makes a node of another region known to the replicator, or says where it is from now on. key tells it from others of
// its region.
func (n *Node) otherNodeAt(name, key, address string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	o, known := n.regions[name]
	if !known {
		o = &otherRegion{name: name}
	}
	err := o.found(key, address, func(address func() string) (*transport.Client, error) {
		return transport.Dial(name, func(ctx context.Context, _ string) (net.Conn, error) {
			if n.cfg.Dial != nil {
				return n.cfg.Dial(ctx, address())
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", address())
		}, n.security)
	})
	if err != nil {
		return fmt.Errorf("node: region %s at %s: %w", name, address, err)
	}
	if !known {
		n.regions[name] = o
		n.rep.AddPeer(name, o)
	}
	return nil
}

// otherNodeGone forgets a node of another region.
func (n *Node) otherNodeGone(name, key string) {
	n.mu.Lock()
	o := n.regions[name]
	n.mu.Unlock()
	if o == nil {
		return
	}
	if err := o.lost(key); err != nil {
		n.cfg.Logger.Debug("node: a connection does not close", "region", name, "node", key, "err", err)
	}
}
