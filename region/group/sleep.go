package group

import (
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/commutatordb/commutator/internal/mutant"
)

// A group that has had nothing to do for a while sleeps: its time stands still at all its replicas, so that it sends nothing and costs nothing.
// The leader tells the others, once all of them have everything; whoever then gets a message for it, or a proposal or a read, wakes it at his
// replica, and what he sends wakes the others.
//
// While it sleeps nobody misses its leader. For that the nodes tell each other that they are there, once for all groups. When a node is not
// heard of, or has been started anew, the others wake every group in which it has a replica, and where it led, one of them stands for
// election at once.

const (
	// sleepTicks is how long a group has nothing to do before it sleeps.
	sleepTicks = 20
	// missedTicks is how long a node may not be heard of before the groups that it is in are woken: as long as a follower that is awake
	// waits at least.
	missedTicks = electionTicks
	// beatGroup is no group: a heartbeat of it is a node's own, its index the number of the node's start, and what it says to be committed the
	// number of groups that the node leads.
	beatGroup = 0
)

// beat is what is known of another node.
type beat struct {
	at    uint64 // the tick at which it was last heard of
	since uint64 // the tick since which it has been there without a pause
	start uint64 // the number of its start, 0 while it has not said
	leads uint64 // how many groups it leads
}

// sleepWord is the context of the heartbeat that tells a follower to sleep.
var sleepWord = []byte("sleep")

// Asleep is how many of the node's groups sleep.
func (h *Host) Asleep() int { return int(h.sleeping.Load()) }

// wake has the group's time pass.
func (g *Group) wake(h *Host) {
	g.awake = h.ticks
	if g.asleep {
		g.asleep = false
		h.sleeping.Add(-1)
		h.mark(g)
	}
}

func (g *Group) sleep(h *Host) {
	if !g.asleep {
		g.asleep = true
		h.sleeping.Add(1)
	}
}

// rest lets the group sleep, if this replica leads and nobody wants anything.
func (g *Group) rest(h *Host) {
	// What this tick has it send would overtake the word, or be overtaken.
	if h.ticks-g.awake < sleepTicks || g.node.HasReady() || !g.leads.Load() || !g.leading || !g.idle() || !g.settled(h) {
		return
	}
	last, err := h.cfg.Log.Group(g.ID).LastIndex()
	s := g.node.BasicStatus()
	if err != nil || s.Applied != last || s.HardState.GetCommit() != last || s.LeadTransferee != raft.None {
		return
	}
	all := true
	var followers []uint64
	g.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == h.cfg.NodeID {
			return
		}
		followers = append(followers, id)
		all = all && pr.Match == last && pr.State == tracker.StateReplicate && !h.missed(id)
	})
	if !all && !mutant.On(mutant.SleepsTooSoon) {
		return
	}
	for _, id := range followers {
		h.cfg.Send(id, Message{g.ID, &pb.Message{
			Type: pb.MsgHeartbeat.Enum(), From: new(h.cfg.NodeID), To: new(id), Term: new(s.HardState.GetTerm()), Commit: new(last), Context: sleepWord,
		}})
	}
	g.sleep(h)
}

// idle tells whether nobody waits for anything here.
func (g *Group) idle() bool {
	return len(g.queue) == 0 && len(g.sent.byNonce) == 0 && len(g.reads.come)+len(g.reads.asked) == 0 && len(g.ships) == 0
}

// told takes a leader's word that the group sleeps, and tells whether it was one; who cannot follow it takes it for a heartbeat.
func (g *Group) told(h *Host, m *pb.Message) bool {
	if m.GetType() != pb.MsgHeartbeat || string(m.GetContext()) != string(sleepWord) {
		return false
	}
	s := g.node.BasicStatus()
	last, err := h.cfg.Log.Group(g.ID).LastIndex()
	if err == nil && g.idle() && s.Lead == m.GetFrom() && s.HardState.GetTerm() == m.GetTerm() && m.GetCommit() == last && s.Applied == last {
		g.sleep(h)
		return true
	}
	g.wake(h)
	return true
}

// beat tells the others that this node is there, and wakes what those are in that have not been heard of.
func (h *Host) beat() {
	if h.ticks%heartbeatTicks != 0 {
		return
	}
	leads := h.leads()
	var up []uint64
	for _, id := range h.others() {
		h.cfg.Send(id, Message{beatGroup, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(h.cfg.NodeID), To: new(id), Index: new(h.start), Commit: new(leads)}})
		if h.missed(id) {
			h.wakeWithout(id)
		} else {
			up = append(up, id)
		}
	}
	h.up.Store(&up)
}

// Up returns the nodes that this one shares groups with and has heard of in the last second.
func (h *Host) Up() []uint64 {
	if up := h.up.Load(); up != nil {
		return slices.Clone(*up)
	}
	return nil
}

// others returns the nodes that this one shares groups with.
func (h *Host) others() (ids []uint64) {
	for _, g := range h.live {
		conf := g.members.Load()
		ids = append(append(ids, conf.GetVoters()...), conf.GetLearners()...)
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id uint64) bool { return id == h.cfg.NodeID })
}

// heard notes that a node has sent something.
func (h *Host) heard(m Message) {
	from := m.Raft.GetFrom()
	b, known := h.beats[from]
	if !known || h.missed(from) {
		b.since = h.ticks
	}
	b.at = h.ticks
	if m.Beat() {
		if b.start != 0 && b.start != m.Raft.GetIndex() {
			h.wakeWithout(from)
			b.since = h.ticks
		}
		b.start, b.leads = m.Raft.GetIndex(), m.Raft.GetCommit()
	}
	h.beats[from] = b
}

// missed tells whether a node has not been heard of for some time.
func (h *Host) missed(node uint64) bool {
	b, ok := h.beats[node]
	return node != h.cfg.NodeID && (!ok || h.ticks-b.at > missedTicks)
}

// wakeWithout wakes the groups of a node that leads nothing any more.
func (h *Host) wakeWithout(node uint64) {
	if mutant.On(mutant.SleepsOn) {
		return
	}
	for _, g := range h.live {
		if g.suspended.Load() {
			continue
		}
		conf := g.members.Load()
		voters := conf.GetVoters()
		if !slices.Contains(voters, node) && !slices.Contains(conf.GetLearners(), node) {
			continue
		}
		g.wake(h)
		switch g.leader.Load() {
		case node:
			if err := g.node.ForgetLeader(); err != nil {
				h.cfg.Logger.Debug("group: its leader cannot be forgotten", "group", g.ID, "err", err)
			}
			h.mark(g)
		case raft.None: // it was missed by Raft's own time, which may have been too soon for the others
		default:
			continue
		}
		// One stands from the next tick on, by when the others know, too.
		there := slices.DeleteFunc(slices.Clone(voters), func(id uint64) bool { return id == node || h.missed(id) })
		if len(there) <= len(voters)/2 {
			continue
		}
		if may := slices.DeleteFunc(there, func(id uint64) bool { return slices.Contains(h.spared, id) }); len(may) > 0 && may[g.ID%uint64(len(may))] == h.cfg.NodeID {
			g.stands = h.ticks + standTicks
		}
	}
}
