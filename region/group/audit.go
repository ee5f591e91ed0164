package group

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
)

// The replicas of a group are held against each other as of one entry of its log, which says so: each pins what its store shows behind that entry,
// works out a digest of it beside the loop, and logs that. So every replica hears every digest. One whose digest is another than that of most voters
// does not hold what was logged, though every checksum is right, and must not be used any more.

// ErrDiverged is Config.Fatal's: this node's state is not what the log makes of it, by the word of most replicas.
var ErrDiverged = errors.New("group: this replica is not what the others are")

const (
	// maxPinned is how many states a node pins at once to be digested: each keeps what the store would let go. A group for which there is no
	// room has its audit without this replica.
	maxPinned = 4
	// auditRate is how many bytes of states a node digests in a second: what clients want shall have most of the disk.
	auditRate = 32 << 20
	// auditPiece is after how many bytes it pauses.
	auditPiece = 1 << 20
	// auditTries is how often a digest is logged until it is known to be.
	auditTries = 5
)

// pinned is a state to be digested.
type pinned struct {
	group  *Group
	at     uint64 // the entry behind which it stood
	ranges [][2][]byte
	snap   *storage.Snapshot
}

// audit is what is known of the digests as of one entry. It is the loop's.
type audit struct {
	at      uint64
	voters  []uint64
	digests map[uint64][]byte // by node
	judged  bool              // all of them are there
}

// Audits is what has come of audits, since the start.
type Audits struct {
	Done    int64 // in which every voter's replica was the same
	Differ  int64 // in which not
	Digests int64 // bytes of this node's states that were read
}

// Audits tells what has come of audits of which this node has heard.
func (h *Host) Audits() Audits {
	return Audits{h.auditsDone.Load(), h.auditsDiffer.Load(), h.auditBytes.Load()}
}

// ErrNotAudited says that not every voter has said what it holds.
var ErrNotAudited = errors.New("group: not every replica could be asked")

// Audit has all replicas held against each other, and tells whether those of all voters are the same. It returns ErrNotAudited if a voter is
// down, and Propose's errors.
func (g *Group) Audit(ctx context.Context) (same bool, err error) {
	result, err := g.Propose(ctx, &op.Command{Kind: op.Audit})
	if err != nil {
		return false, err
	}
	at, h := result.Revision, g.host
	for {
		done, lacks := false, false
		err := h.call(ctx, func() {
			a := &g.audit
			if lacks = a.at != at; lacks {
				return // another one has taken its place, or the entry had no effect
			}
			done, same = a.judged, a.judged && len(a.kinds()) == 1
			lacks = slices.ContainsFunc(a.voters, func(id uint64) bool { return a.digests[id] == nil && h.missed(id) })
		})
		switch {
		case err != nil:
			return false, err
		case done:
			return same, nil
		case lacks:
			return false, ErrNotAudited
		case h.cfg.Tasks.Wait(ctx, nil, 5*h.cfg.Tick) == task.Ended:
			return false, context.Cause(ctx)
		}
	}
}

// applyAudit takes an entry of an audit: that one begins, or what a replica has found.
func (g *Group) applyAudit(h *Host, at uint64, c *op.Command) {
	if c.Value != nil {
		g.hear(h, c)
		return
	}
	if !mutant.On(mutant.AuditLate) {
		h.show() // and no more than this entry
	}
	g.audit = audit{at: at, voters: slices.Clone(g.members.Load().GetVoters()), digests: map[uint64][]byte{}}
	p := &pinned{group: g, at: at, ranges: slices.Clone(g.machine.Ranges())}
	slices.SortFunc(p.ranges, func(a, b [2][]byte) int { return bytes.Compare(a[0], b[0]) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.unpinned || len(h.pinned) >= maxPinned {
		return
	}
	p.snap = h.cfg.Store.Snapshot()
	h.pinned = append(h.pinned, p)
	task.Poke(h.pins)
}

// hear takes what a replica has found.
func (g *Group) hear(h *Host, c *op.Command) {
	a := &g.audit
	if a.at != c.At || a.judged || !slices.Contains(a.voters, c.Node) {
		return // of one that is over
	}
	a.digests[c.Node] = c.Value
	kinds := a.kinds()
	own, most := string(a.digests[h.cfg.NodeID]), ""
	for digest, n := range kinds {
		if 2*n > len(a.voters) {
			most = digest // there is one at most
		}
	}
	if own != "" && most != "" && own != most && !mutant.On(mutant.DivergedGoesOn) {
		h.auditsDiffer.Add(1)
		h.fatal(fmt.Errorf("group %d: entry %d: %w", g.ID, a.at, ErrDiverged))
		return
	}
	if a.judged = len(a.digests) == len(a.voters); !a.judged {
		return
	}
	if len(kinds) == 1 {
		h.auditsDone.Add(1)
		return
	}
	h.auditsDiffer.Add(1)
	nodes := slices.Sorted(maps.Keys(a.digests))
	var said []string
	for _, id := range nodes {
		said = append(said, fmt.Sprintf("%d: %x", id, a.digests[id][:8]))
	}
	h.cfg.Logger.Error("group: replicas of one group are not the same", "group", g.ID, "entry", a.at, "digests", said)
}

// kinds returns how many voters have said what.
func (a *audit) kinds() map[string]int {
	kinds := map[string]int{}
	for _, d := range a.digests {
		kinds[string(d)]++
	}
	return kinds
}

// audits digests what is pinned, one state after the other, until ctx ends.
func (h *Host) audits(ctx context.Context) error {
	defer func() {
		h.mu.Lock()
		h.unpinned = true
		h.mu.Unlock()
		for h.nextPinned() != nil {
		}
	}()
	pace := func(n int) error {
		if h.cfg.Tasks.Wait(ctx, nil, max(time.Duration(n)*time.Second/auditRate, 1)) == task.Ended {
			return context.Cause(ctx)
		}
		return nil
	}
	for h.cfg.Tasks.Wait(ctx, h.pins, 0) != task.Ended {
		for p := h.firstPinned(); p != nil && ctx.Err() == nil; p = h.firstPinned() {
			digest, err := h.digest(p, pace)
			h.nextPinned()
			switch {
			case ctx.Err() != nil:
			case err != nil:
				h.cfg.Fatal(fmt.Errorf("group %d: audit: %w", p.group.ID, err))
				return nil
			default:
				h.say(ctx, p, digest)
			}
		}
	}
	return nil
}

func (h *Host) firstPinned() *pinned {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pinned) == 0 {
		return nil
	}
	return h.pinned[0]
}

// nextPinned lets the first one go.
func (h *Host) nextPinned() *pinned {
	h.mu.Lock()
	if len(h.pinned) == 0 {
		h.mu.Unlock()
		return nil
	}
	p := h.pinned[0]
	h.pinned = h.pinned[1:]
	h.mu.Unlock()
	if err := p.snap.Close(); err != nil {
		h.cfg.Logger.Error("group: a pinned state cannot be let go", "group", p.group.ID, "err", err)
	}
	return p
}

// say logs what this replica holds.
func (h *Host) say(ctx context.Context, p *pinned, digest []byte) {
	for range auditTries {
		_, err := p.group.Propose(ctx, &op.Command{Kind: op.Audit, Node: h.cfg.NodeID, At: p.at, Value: digest})
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrGone) || errors.Is(err, ErrClosed) {
			return
		}
		h.cfg.Logger.Debug("group: a digest is not logged yet", "group", p.group.ID, "err", err)
	}
}

// digest is the SHA-256 of every row of the state, keys and values with their lengths before them (4, big-endian).
func (h *Host) digest(p *pinned, pace func(bytes int) error) ([]byte, error) {
	sum := sha256.New()
	var size [4]byte
	since := 0
	for _, r := range p.ranges {
		it, err := p.snap.Iter(r[0], r[1])
		if err != nil {
			return nil, err
		}
		for ok := it.First(); ok; ok = it.Next() {
			for _, b := range [][]byte{it.Key(), it.Value()} {
				binary.BigEndian.PutUint32(size[:], uint32(len(b)))
				sum.Write(size[:])
				sum.Write(b)
				since += len(b)
			}
			if since >= auditPiece {
				h.auditBytes.Add(int64(since))
				if err := pace(since); err != nil {
					return nil, errors.Join(err, it.Close())
				}
				since = 0
			}
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return nil, err
		}
	}
	h.auditBytes.Add(int64(since))
	return sum.Sum(nil), nil
}
