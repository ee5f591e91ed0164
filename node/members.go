package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/commutatordb/commutator/internal/format"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/group"
	nodes "github.com/commutatordb/commutator/region/transport"
	"github.com/commutatordb/commutator/replication/transport"
)

// Member is one node of a region. Those that a region begins with are the same in the configuration of each.
type Member struct {
	ID    uint64 `yaml:"id"`    // from 1; never another node's again
	Node  string `yaml:"node"`  // its name
	GRPC  string `yaml:"grpc"`  // where the others reach it; "": where gossip finds it
	Joins bool   `yaml:"joins"` // it is none of those that the region began with: they take it in
	Zone  string `yaml:"zone"`  // see Config.Zone
}

// checkMembers returns what is wrong with the nodes of the region.
func (c *Config) checkMembers() error {
	if len(c.Nodes) == 0 {
		return nil
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("nodes: "+format, args...)) }
	ids, names, founders := map[uint64]bool{}, map[string]bool{}, 0
	for _, m := range c.Nodes {
		if m.ID == 0 || ids[m.ID] {
			wrong("%s: the id %d is 0, or another node's", m.Node, m.ID)
		}
		if !nodeName.MatchString(m.Node) || names[m.Node] {
			wrong("%q is given twice, or is no name of up to 63 letters, digits, - and _", m.Node)
		}
		ids[m.ID], names[m.Node] = true, true
		if !m.Joins {
			founders++
		}
		if err := checkZone(m.Zone); err != nil {
			wrong("%s: %w", m.Node, err)
		}
		if m.Node == c.Node && m.Zone != "" && c.Zone != "" && m.Zone != c.Zone {
			wrong("%s: it is in zone %s, and zone is %s", m.Node, m.Zone, c.Zone)
		}
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
	switch {
	case founders == 0:
		wrong("all of them join; the region begins with none")
	case founders > region.MaxMembers:
		wrong("the region begins with %d; %d are the most", founders, region.MaxMembers)
	}
	if c.Listen.GRPC == "" && c.Listen.GRPCListener == nil {
		wrong("there is no listen.grpc for them to reach this one")
	}
	return errors.Join(errs...)
}

// checkZone returns what is wrong with a zone's name; "" is right.
func checkZone(zone string) error {
	if zone != "" && !nodeName.MatchString(zone) {
		return fmt.Errorf("zone: %q is no name of up to 63 letters, digits, - and _", zone)
	}
	return nil
}

// member returns the node of the region with that name, or nil.
func (c *Config) member(name string) *Member {
	i := slices.IndexFunc(c.Nodes, func(m Member) bool { return m.Node == name })
	if i < 0 {
		return nil
	}
	return &c.Nodes[i]
}

// links are the ways to the other nodes of the region: those that the configuration names, to begin with, and those that the catalog has.
type links struct {
	n *Node

	mu        sync.Mutex
	addresses map[uint64]string
	names     map[string]uint64
	ways      map[uint64]*way
	closed    bool
	added     chan struct{} // gets a token when there is a way that does not run
}

// way is the way to one of them.
type way struct {
	link *nodes.Link
	conn *grpc.ClientConn
	stop context.CancelFunc // nil: it does not run
}

// openLinks prepares the ways to the nodes that the configuration names. Nothing is carried before run.
func openLinks(n *Node) (*links, error) {
	l := &links{n: n, addresses: map[uint64]string{}, names: map[string]uint64{}, ways: map[uint64]*way{}, added: make(chan struct{}, 1)}
	for _, m := range n.cfg.Nodes {
		if err := l.add(m.ID, m.Node, m.GRPC); err != nil {
			return l, err
		}
	}
	return l, nil
}

// add makes a way to a node, unless there is one or it is this node, or says where the node is from now on.
func (l *links) add(id uint64, name, address string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if id == l.n.cfg.NodeID || l.closed {
		return nil
	}
	l.names[name] = id
	if address != "" {
		l.addresses[id] = address
	}
	if l.ways[id] != nil {
		return nil
	}
	conn, err := transport.Connect(l.n.cfg.Region, name, func(ctx context.Context, _ string) (net.Conn, error) {
		l.mu.Lock()
		address := l.addresses[id]
		l.mu.Unlock()
		if address == "" {
			return nil, fmt.Errorf("node %s has not been found", name)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}, l.n.security)
	if err != nil {
		return fmt.Errorf("node: node %s: %w", name, err)
	}
	l.ways[id] = &way{conn: conn, link: nodes.NewLink(nodes.LinkConfig{
		Conn: conn, To: id, Hello: func() nodes.Hello { return l.n.hello(id) }, Logger: l.n.cfg.Logger,
		Accept:      func(h nodes.Hello) error { return l.n.accept(h, id) },
		Unreachable: func(id uint64) { l.n.Unreachable(id) },
	})}
	task.Poke(l.added)
	return nil
}

// send takes a message to another node. It never waits.
func (l *links) send(to uint64, m group.Message) {
	l.mu.Lock()
	w := l.ways[to]
	l.mu.Unlock()
	if w != nil {
		w.link.Send(m)
	}
}

// ask has another node answer a question.
func (l *links) ask(ctx context.Context, to uint64, question []byte) ([]byte, error) {
	l.mu.Lock()
	w := l.ways[to]
	l.mu.Unlock()
	if w == nil {
		return nil, region.ErrNotAsked
	}
	if w.conn.GetState() != connectivity.Ready {
		w.conn.Connect()
		return nil, region.ErrNotAsked
	}
	return nodes.Ask(ctx, w.conn, l.n.hello(to), question)
}

// found says that gossip has found a node of the region.
func (l *links) found(name, address string) {
	if m := l.n.cfg.member(name); m != nil && m.GRPC != "" {
		return // what the configuration says goes first
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if id, ok := l.names[name]; ok {
		l.addresses[id] = address
	}
}

// run carries messages until ctx ends. Who joins and who goes, the catalog tells, or those who ask.
func (l *links) run(ctx context.Context) error {
	changed, stop := l.n.region.Watch()
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	for {
		gone := map[uint64]bool{}
		for _, m := range l.n.region.Members() {
			if gone[m.ID] = m.State == region.MemberGone; gone[m.ID] {
				continue
			}
			if configured := l.n.cfg.member(m.Name); configured != nil && configured.GRPC != "" {
				m.Address = configured.GRPC // what the configuration says goes first, also of a node that has begun anew under another number
			}
			if err := l.add(m.ID, m.Name, m.Address); err != nil {
				l.n.cfg.Logger.Error("node: there is no way to another node of the region", "node", m.ID, "err", err)
			}
		}
		l.mu.Lock()
		for id, w := range l.ways {
			switch {
			case gone[id]:
				delete(l.ways, id)
				if w.stop != nil {
					w.stop()
				} else {
					w.conn.Close()
				}
			case w.stop == nil:
				var wctx context.Context
				wctx, w.stop = context.WithCancel(ctx)
				g.Go(func() error {
					defer w.conn.Close() // which has nothing to say once nothing is carried
					return w.link.Run(wctx)
				})
			}
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-changed:
		case <-l.added:
		}
	}
}

func (l *links) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var errs []error
	for _, w := range l.ways {
		if w.stop == nil {
			errs = append(errs, w.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// joins tells whether this node is none of those that the region began with.
func (n *Node) joins() bool {
	m := n.cfg.member(n.cfg.Node)
	return m != nil && m.Joins || n.id.Anew
}

// hello is what this node says of itself to another of the region.
func (n *Node) hello(to uint64) nodes.Hello {
	return nodes.Hello{
		Region: n.cfg.Region, From: n.cfg.NodeID, To: to, Instance: n.id.Instance,
		Name: n.cfg.Node, Address: n.advertisedGRPC(), Joins: n.joins(), Epoch: n.region.Epoch(), Knows: format.Known,
	}
}

// knows refuses what does not come from the node of the region that it should: another, one that is gone, or one that has lost what it had.
func (n *Node) knows(h nodes.Hello, from uint64) error {
	switch {
	case h.Region != n.cfg.Region:
		return fmt.Errorf("a node of region %s speaks to one of region %s", h.Region, n.cfg.Region)
	case h.To != n.cfg.NodeID:
		return fmt.Errorf("node %d of region %s is not node %d", n.cfg.NodeID, n.cfg.Region, h.To)
	case h.From != from || from == n.cfg.NodeID:
		return fmt.Errorf("node %d of region %s answers for node %d", h.From, n.cfg.Region, from)
	}
	m, known := n.region.Member(from)
	switch {
	case !known || m.Instance == 0:
		return nil
	case m.State == region.MemberGone:
		return fmt.Errorf("node %d of region %s was let go: a number is never given again", from, n.cfg.Region)
	case m.Instance != h.Instance:
		return fmt.Errorf("node %d of region %s: %w", from, n.cfg.Region, region.ErrOtherData)
	case h.Epoch < m.Epoch:
		return fmt.Errorf("node %d of region %s: %w", from, n.cfg.Region, region.ErrOldData)
	case max(h.Knows, format.Oldest) < n.region.Format():
		return fmt.Errorf("node %d of region %s: %w", from, n.cfg.Region, region.ErrOldProgram)
	}
	return nil
}

// renumber has a number for a node that comes with data that is not to be used any more, 0 for none: who leads the region's catalog gives it.
func (n *Node) renumber(ctx context.Context, h nodes.Hello, refused error) uint64 {
	if !errors.Is(refused, region.ErrOtherData) && !errors.Is(refused, region.ErrOldData) || !n.region.Leads() {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, admitLimit)
	defer cancel()
	number, err := n.region.Replace(ctx, h.From)
	if err != nil {
		n.cfg.Logger.Debug("node: another node of the region has no number to begin anew with yet", "node", h.From, "err", err)
		return 0
	}
	return number
}

// accept is what this node makes of the answer of one that it speaks to.
func (n *Node) accept(h nodes.Hello, from uint64) error {
	if h.Renumber != 0 && h.Renumber != n.cfg.NodeID && h.Region == n.cfg.Region && h.To == n.cfg.NodeID {
		why := fmt.Sprintf("node %d has other or newer data of this node", h.From)
		n.rebuild.renumbered(h.Renumber, why)
		return errors.New(why)
	}
	return n.knows(h, from)
}

// mayAsk refuses a node that is none of the region's, or not the one that it says it is.
func (n *Node) mayAsk(ctx context.Context, h nodes.Hello) error {
	if err := n.knows(h, h.From); err != nil {
		return err
	}
	return n.certifies(ctx, h)
}

// certifies tells whether a node's certificate, if there is one, is of the node that it says it is.
func (n *Node) certifies(ctx context.Context, h nodes.Hello) error {
	who, certified, err := transport.Caller(ctx)
	if err == nil && certified && (who.Region != n.cfg.Region || who.Node != h.Name) {
		err = fmt.Errorf("node %s of region %s speaks for node %s of region %s", who.Node, who.Region, h.Name, n.cfg.Region)
	}
	return err
}

// admit is what another node of the region is asked before it is listened to. One that nobody knows is taken in, if it asks to.
func (n *Node) admit(ctx context.Context, h nodes.Hello) (nodes.Hello, error) {
	refused := n.knows(h, h.From)
	if refused != nil && !errors.Is(refused, region.ErrOtherData) && !errors.Is(refused, region.ErrOldData) {
		return nodes.Hello{}, refused
	}
	if err := n.certifies(ctx, h); err != nil {
		return nodes.Hello{}, err
	}
	m, known := n.region.Member(h.From)
	configured := n.cfg.member(h.Name)
	_, in := n.region.Member(n.cfg.NodeID)
	switch {
	case known && m.Name != h.Name, !known && configured != nil && configured.ID != h.From:
		return nodes.Hello{}, fmt.Errorf("node %d of region %s is not %s", h.From, n.cfg.Region, h.Name)
	case refused != nil:
		answer := n.hello(h.From)
		answer.Renumber = n.renumber(ctx, h, refused)
		return answer, refused
	case known && m.Instance != 0, !known && configured != nil && !configured.Joins:
	case n.joins() && !in:
		// Who is being taken in does not know yet whom the region has, and must be able to answer.
		if err := n.links.add(h.From, h.Name, h.Address); err != nil {
			return nodes.Hello{}, err
		}
	case !h.Joins:
		return nodes.Hello{}, fmt.Errorf("node %s is none of region %s's, and does not ask to join it", h.Name, n.cfg.Region)
	case h.Address == "":
		return nodes.Hello{}, fmt.Errorf("node %s does not say where it can be reached", h.Name)
	default:
		ctx, cancel := context.WithTimeout(ctx, admitLimit)
		defer cancel()
		if err := n.region.TakeIn(ctx, region.Member{ID: h.From, Name: h.Name, Address: h.Address, Instance: h.Instance, Epoch: h.Epoch, Knows: h.Knows, Format: n.region.Format()}); err != nil {
			return nodes.Hello{}, err
		}
		if err := n.links.add(h.From, h.Name, h.Address); err != nil {
			return nodes.Hello{}, err
		}
	}
	return n.hello(h.From), nil
}

// admitLimit is how long a node that joins may wait for the region to take it in; it asks again.
const admitLimit = 10 * time.Second
