package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// Tags of a node in the Serf pool. They are hints: which regions there are is for the operator and the
// tables' replicas to say; gossip only tells where one is.
const (
	tagRegion = "region"
	tagNode   = "node"
	tagGRPC   = "grpc"
	tagSince  = "since" // when the node started, in ms since the Unix epoch
)

const (
	// joinEvery is how often the addresses to join are asked, friends or not: one that was started again
	// may know nobody.
	joinEvery = 5 * time.Second
	joinFor   = 3 * time.Second        // for finding a name's address, and for each connection
	leaveFor  = 500 * time.Millisecond // for each of the two goodbyes, Serf's and memberlist's
	// forgetAfter is how long a node that has failed is looked for.
	forgetAfter = time.Hour
)

// gossip finds the other regions' nodes with Serf, until ctx ends.
func (n *Node) gossip(ctx context.Context) error {
	events := make(chan serf.Event, 256)
	cfg := serf.DefaultConfig()
	// A name for each start: under its old name, a node that was killed and comes back elsewhere would be
	// refused for as long as others believe it to be alive.
	since := strconv.FormatInt(n.cfg.Now().UnixMilli(), 10)
	cfg.NodeName = n.cfg.Node + "." + n.cfg.Region + "." + since
	cfg.Tags = map[string]string{tagRegion: n.cfg.Region, tagNode: n.cfg.Node, tagGRPC: n.advertisedGRPC(), tagSince: since}
	cfg.ReconnectTimeout, cfg.TombstoneTimeout = forgetAfter, forgetAfter
	cfg.EventCh = events
	cfg.EnableNameConflictResolution = false // a minority could be told to shut down
	cfg.LeavePropagateDelay, cfg.BroadcastTimeout = 0, leaveFor
	cfg.LogOutput, cfg.MemberlistConfig = io.Discard, memberlist.DefaultWANConfig()
	cfg.MemberlistConfig.LogOutput = io.Discard
	key, err := gossipKey(n.cfg.GossipKey)
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	cfg.MemberlistConfig.SecretKey = key
	cfg.MemberlistConfig.TCPTimeout = joinFor
	if cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.BindPort, err = lookUp(ctx, n.cfg.Listen.Serf); err != nil {
		return fmt.Errorf("node: listen.serf: %w", err)
	}
	cfg.MemberlistConfig.AdvertisePort = cfg.MemberlistConfig.BindPort
	if a := n.cfg.Advertise.Serf; a != "" {
		if cfg.MemberlistConfig.AdvertiseAddr, cfg.MemberlistConfig.AdvertisePort, err = lookUp(ctx, a); err != nil {
			return fmt.Errorf("node: advertise.serf: %w", err)
		}
	}
	pool, err := serf.Create(cfg)
	if err != nil {
		return fmt.Errorf("node: serf: %w", err)
	}
	defer func() {
		// One after the other: a pool that is shut down while it leaves panics.
		if err := pool.Leave(); err != nil {
			n.cfg.Logger.Debug("node: serf: leave", "err", err)
		}
		if err := pool.Shutdown(); err != nil {
			n.cfg.Logger.Warn("node: serf: shutdown", "err", err)
		}
	}()
	go func() { // beside the events: a join waits for addresses that do not answer; it ends within joinFor of ctx
		for ctx.Err() == nil && len(n.cfg.Join) > 0 {
			if _, err := pool.Join(n.cfg.Join, true); err != nil {
				n.cfg.Logger.Debug("node: serf: not all could be joined", "err", err)
			}
			n.cfg.Tasks.Wait(ctx, nil, joinEvery)
		}
	}()
	starts := map[[2]string]int64{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			if m, ok := e.(serf.MemberEvent); ok {
				for _, member := range m.Members {
					n.found(m.EventType(), member, starts)
				}
			}
		}
	}
}

// lookUp returns the IP address and the port of host:port. No host is every address.
func lookUp(ctx context.Context, address string) (ip string, port int, err error) {
	host, port, err := hostPort(address)
	if err != nil || host == "" {
		return "0.0.0.0", port, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinFor)
	defer cancel()
	found, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return "", 0, err
	}
	first := max(0, slices.IndexFunc(found, func(ip net.IP) bool { return ip.To4() != nil }))
	return found[first].String(), port, nil
}

// found takes note of what gossip says about a node. Of the starts of one node the newest counts; starts holds when that was, by node.
func (n *Node) found(what serf.EventType, m serf.Member, starts map[[2]string]int64) {
	region, name, address := m.Tags[tagRegion], m.Tags[tagNode], m.Tags[tagGRPC]
	n.cfg.Logger.Info("node: serf", slog.String("event", what.String()), slog.String("region", region), slog.String("node", m.Name))
	if region == "" || name == "" || address == "" || region == n.cfg.Region && name == n.cfg.Node {
		return
	}
	since, _ := strconv.ParseInt(m.Tags[tagSince], 10, 64)
	key := [2]string{region, name}
	if since < starts[key] {
		return
	}
	switch what {
	case serf.EventMemberJoin, serf.EventMemberUpdate:
		starts[key] = since
		if region == n.cfg.Region {
			n.links.found(name, address)
		} else if err := n.otherNodeAt(region, name, address); err != nil {
			n.cfg.Logger.Error("node: a region found by gossip cannot be used", "region", region, "err", err)
		}
	case serf.EventMemberLeave, serf.EventMemberReap:
		if region != n.cfg.Region {
			n.otherNodeGone(region, name)
		}
	}
}

func (n *Node) advertisedGRPC() string {
	if n.cfg.Advertise.GRPC != "" {
		return n.cfg.Advertise.GRPC
	}
	if n.grpcListener == nil {
		return ""
	}
	return n.grpcListener.Addr().String()
}
