package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// Tags of a node in the Serf pool. They are hints: which regions there are is for the operator and the
// tables' replicas to say; gossip only tells where one is.
const (
	tagRegion = "region"
	tagGRPC   = "grpc"
)

const (
	joinEvery = 5 * time.Second // while nobody has been found
	leaveFor  = time.Second     // for saying goodbye
)

// gossip finds the other regions' nodes with Serf, until ctx ends.
func (n *Node) gossip(ctx context.Context) error {
	events := make(chan serf.Event, 256)
	cfg := serf.DefaultConfig()
	cfg.NodeName = n.cfg.Node + "." + n.cfg.Region
	cfg.Tags = map[string]string{tagRegion: n.cfg.Region, tagGRPC: n.advertisedGRPC()}
	cfg.EventCh = events
	cfg.EnableNameConflictResolution = false // a minority could be told to shut down
	cfg.LeavePropagateDelay = 0
	cfg.LogOutput, cfg.MemberlistConfig = io.Discard, memberlist.DefaultWANConfig()
	cfg.MemberlistConfig.LogOutput = io.Discard
	var err error
	if cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.BindPort, err = hostPort(n.cfg.Listen.Serf); err != nil {
		return fmt.Errorf("node: listen.serf: %w", err)
	}
	cfg.MemberlistConfig.AdvertisePort = cfg.MemberlistConfig.BindPort
	if a := n.cfg.Advertise.Serf; a != "" {
		host, port, err := hostPort(a)
		if err != nil {
			return fmt.Errorf("node: advertise.serf: %w", err)
		}
		ip, err := net.DefaultResolver.LookupIP(ctx, "ip4", host)
		if err != nil || len(ip) == 0 {
			return fmt.Errorf("node: advertise.serf: %s: %w", host, err)
		}
		cfg.MemberlistConfig.AdvertiseAddr, cfg.MemberlistConfig.AdvertisePort = ip[0].String(), port
	}
	pool, err := serf.Create(cfg)
	if err != nil {
		return fmt.Errorf("node: serf: %w", err)
	}
	defer func() {
		done := make(chan struct{})
		go func() { // Leave has no bound of its own
			defer close(done)
			if err := pool.Leave(); err != nil {
				n.cfg.Logger.Debug("node: serf: leave", "err", err)
			}
		}()
		select {
		case <-done:
		case <-time.After(leaveFor):
		}
		if err := pool.Shutdown(); err != nil {
			n.cfg.Logger.Warn("node: serf: shutdown", "err", err)
		}
		<-done
	}()
	join := time.NewTicker(joinEvery)
	defer join.Stop()
	for first := true; ; first = false {
		if first || pool.NumNodes() == 1 {
			if _, err := pool.Join(n.cfg.Join, true); err != nil && len(n.cfg.Join) > 0 {
				n.cfg.Logger.Debug("node: serf: nobody to join yet", "err", err)
			}
		}
	waiting:
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-join.C:
				break waiting
			case e := <-events:
				m, ok := e.(serf.MemberEvent)
				if !ok {
					continue
				}
				for _, member := range m.Members {
					n.found(m.EventType(), member)
				}
			}
		}
	}
}

// found takes note of what gossip says about a node.
func (n *Node) found(what serf.EventType, m serf.Member) {
	name, address := m.Tags[tagRegion], m.Tags[tagGRPC]
	n.cfg.Logger.Info("node: serf", slog.String("event", what.String()), slog.String("region", name), slog.String("node", m.Name))
	if name == "" || name == n.cfg.Region || address == "" {
		return
	}
	if what == serf.EventMemberJoin || what == serf.EventMemberUpdate {
		if err := n.addPeer(name, address); err != nil {
			n.cfg.Logger.Error("node: a region found by gossip cannot be used", "region", name, "err", err)
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

func hostPort(address string) (string, int, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	p, err := strconv.Atoi(port)
	return host, p, err
}
