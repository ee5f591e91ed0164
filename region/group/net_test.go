package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
)

// A region of three nodes in one goroutine: hosts over real logs and stores on memory disks, and a network that does
// what the test says.

// ledger is a machine that numbers the commands it is given, and keeps their names.
type ledger struct {
	id      uint64
	store   *storage.Store
	applied uint64
	names   []string
}

func (l *ledger) key(rest string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte("ledger/"), l.id), rest...)
}

func (l *ledger) AppliedKey() []byte { return l.key("applied") }

func (l *ledger) Bounds() [][2][]byte { return l.Ranges() }

func (l *ledger) Ranges() [][2][]byte {
	return [][2][]byte{{l.key("a"), l.key("b")}, {l.key("n"), l.key("o")}}
}

func (l *ledger) Reload() error {
	l.applied, l.names = 0, nil
	value, err := l.store.Get(nil, l.AppliedKey())
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l.applied = binary.BigEndian.Uint64(value)
	it, err := l.store.Iter(l.key("n"), l.key("o"))
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		l.names = append(l.names, string(it.Value()))
	}
	if len(l.names) != int(binary.BigEndian.Uint64(value[8:])) {
		return fmt.Errorf("%d names, not %d", len(l.names), binary.BigEndian.Uint64(value[8:]))
	}
	return it.Close()
}

func (l *ledger) Apply(index uint64, c *op.Command, b *storage.Batch) op.Result {
	l.applied = index
	if c == nil {
		return op.Result{}
	}
	l.names = append(l.names, c.Name)
	b.Set(binary.BigEndian.AppendUint64(l.key("n"), uint64(len(l.names))), []byte(c.Name))
	return op.Result{Revision: uint64(len(l.names))}
}

func (l *ledger) Finish(b *storage.Batch) {
	b.Set(l.AppliedKey(), binary.BigEndian.AppendUint64(nil, l.applied), binary.BigEndian.AppendUint64(nil, uint64(len(l.names))))
}
func (l *ledger) Committed()      {}
func (l *ledger) Applied() uint64 { return l.applied }

// shown is how many commands the store shows, which is what a reader sees.
func (l *ledger) shown(t *testing.T) int {
	value, err := l.store.Get(nil, l.AppliedKey())
	if errors.Is(err, storage.ErrNotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return int(binary.BigEndian.Uint64(value[8:]))
}

// replica is one node.
type replica struct {
	id      uint64
	net     *network
	fs      *vfs.MemFS
	log     *raftlog.Log
	store   *storage.Store
	host    *Host
	groups  []*Group
	ledgers []*ledger
	down    bool
	paused  bool

	mu    sync.Mutex // files are used by Pebble's goroutines too
	ops   int        // on files, so far
	dieAt int        // before this one the power fails; 0: never
	after *vfs.MemFS // what the disk then has
	spare vfs.CrashCloneCfg
}

// MaybeError is called before each operation on a file; it makes none fail, but the power may.
func (r *replica) MaybeError(errorfs.Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ops++; r.ops == r.dieAt {
		r.after = r.fs.CrashClone(r.spare)
	}
	return nil
}

// String is errorfs.Injector's.
func (r *replica) String() string { return fmt.Sprint("node ", r.id) }

// dead tells whether the power has failed. What the node has done since did not happen.
func (r *replica) dead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.after != nil
}

// step lets the node work, and ends it if the power failed meanwhile.
func (r *replica) step() {
	r.host.Step()
	r.ended()
}

// carry lets the node move snapshots, likewise.
func (r *replica) carry() {
	r.host.Carry()
	r.ended()
}

func (r *replica) ended() {
	if r.dead() {
		r.shut()
		r.fs = r.after
	}
}

// network is the nodes, and the messages on their way between them.
type network struct {
	t      *testing.T
	voters []uint64          // all nodes
	joins  int               // how many of them, the last, are none of the founders
	want   map[uint64]Wanted // who is to hold the groups
	nodes  []*replica        // node n is at n-1
	groups int
	keep   uint64
	flying []flying
	cut    map[[2]uint64]bool              // from, to
	drops  func(to uint64, m Message) bool // nil: none
	trace  io.Writer                       // of what was delivered, if set
	fatal  []error
}

type flying struct {
	from, to uint64
	raw      []byte
	once     bool
}

func newNetwork(t *testing.T, voters, groups int) *network { return newGrowing(t, voters, 0, groups) }

// newGrowing is newNetwork with nodes beside the founders, which hold nothing until they are wanted.
func newGrowing(t *testing.T, founders, joins, groups int) *network {
	voters := founders + joins
	n := &network{joins: joins, t: t, groups: groups, keep: defaultKeepEntries, cut: map[[2]uint64]bool{}}
	for i := range voters {
		n.voters = append(n.voters, uint64(i+1))
	}
	for _, id := range n.voters {
		r := &replica{id: id, net: n, fs: vfs.NewCrashableMem()}
		n.nodes = append(n.nodes, r)
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (r *replica) open() error {
	n := r.net
	r.after = nil
	var err error
	fs := errorfs.Wrap(r.fs, r)
	if r.log, err = raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: r.id, NoBackground: true, SegmentBytes: 64 << 10}); err != nil {
		return err
	}
	r.store, err = storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 1 << 20, NoBackground: true, ImportTableBytes: 200})
	if err != nil {
		return err
	}
	r.host = NewHost(Config{
		NodeID: r.id, Voters: n.voters[:len(n.voters)-n.joins], Several: true, PieceBytes: 60, Log: r.log, Store: r.store, Now: func() time.Time { return time.UnixMilli(1000) },
		Send: func(to uint64, m Message) {
			if !r.dead() {
				n.send(r.id, to, m)
			}
		}, Fatal: func(err error) { n.fatal = append(n.fatal, err) },
	})
	r.host.keep, r.host.want = n.keep, n.want
	r.groups, r.ledgers, r.down = make([]*Group, n.groups), make([]*ledger, n.groups), false
	for _, id := range r.host.LeftBehind() {
		r.clear(int(id - 1))
	}
	for i := range n.groups {
		if err := r.begin(i); err != nil {
			return err
		}
	}
	return nil
}

// begin opens a group.
func (r *replica) begin(group int) error {
	l := &ledger{id: uint64(group + 1), store: r.store}
	if err := l.Reload(); err != nil {
		return err
	}
	g, err := r.host.Open(l.id, l, nil, nil)
	r.groups[group], r.ledgers[group] = g, l
	return err
}

// removeRows removes the rows of a group that is let go.
func (r *replica) removeRows(group int) {
	b := r.store.NewBatch()
	for _, rows := range (&ledger{id: uint64(group + 1)}).Bounds() {
		b.DeleteRange(rows[0], rows[1])
	}
	if err := r.store.Commit(b); err != nil {
		r.net.t.Fatal(err)
	}
}

// clear ends what LetGo has begun.
func (r *replica) clear(group int) {
	r.removeRows(group)
	if err := r.host.unstate(uint64(group + 1)); err != nil {
		r.net.t.Fatal(err)
	}
	r.host.cleared(uint64(group + 1))
}

// letGo has the node hold a group no more, and open it anew.
func (r *replica) letGo(group int) {
	r.groups[group].suspend(r.host)
	without := uint64(0) // as the others have it
	for _, o := range r.net.nodes {
		if o != r {
			without = max(without, o.groups[group].applied)
		}
	}
	if err := r.host.letGo(r.groups[group], without); err != nil {
		r.net.t.Fatal(err)
	}
	r.clear(group)
	if err := r.begin(group); err != nil {
		r.net.t.Fatal(err)
	}
}

// crash ends a node as a loss of power would.
func (r *replica) crash(c vfs.CrashCloneCfg) {
	r.fs = r.fs.CrashClone(c)
	r.shut()
}

func (r *replica) shut() {
	if r.down {
		return
	}
	r.down = true
	r.store.CloseWithoutFlush()
	r.log.Close()
	r.mu.Lock()
	r.dieAt = 0
	r.mu.Unlock()
}

func (n *network) close() {
	for _, r := range n.nodes {
		r.shut()
	}
}

func (n *network) send(from, to uint64, m Message) {
	raw, err := m.Append(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	n.flying = append(n.flying, flying{from, to, raw, m.Once()})
}

// deliver brings the message at i to its node; one that comes again stays.
func (n *network) deliver(i int, again bool) {
	f := n.flying[i]
	if !again || f.once {
		n.flying = slices.Delete(n.flying, i, i+1)
	}
	to := n.nodes[f.to-1]
	if to.down || n.cut[[2]uint64{f.from, f.to}] {
		return
	}
	m, err := DecodeMessage(f.raw)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.drops != nil && n.drops(f.to, m) {
		return
	}
	if n.trace != nil {
		fmt.Fprintf(n.trace, "%d>%d %x\n", f.from, f.to, f.raw)
	}
	to.host.Receive(f.from, m)
}

// settle delivers everything, in order, and lets everybody work, for some ticks.
func (n *network) settle(ticks int) {
	for range ticks {
		for _, r := range n.nodes {
			if !r.down {
				r.host.Tick()
			}
		}
		for {
			for _, r := range n.nodes {
				if !r.down && !r.paused {
					r.step()
				}
				if !r.down && !r.paused {
					r.carry()
				}
			}
			if len(n.flying) == 0 {
				break
			}
			for range len(n.flying) {
				n.deliver(0, false)
			}
		}
		if len(n.fatal) > 0 {
			n.t.Fatal(n.fatal)
		}
	}
}

// leader returns the node that leads the group, nil when there is none or they do not agree.
func (n *network) leader(group int) *replica {
	var leader *replica
	for _, r := range n.nodes {
		if !r.down && r.groups[group].Leads() {
			if leader != nil {
				return nil
			}
			leader = r
		}
	}
	return leader
}

// elect settles until the group has a leader.
func (n *network) elect(group int) *replica {
	n.t.Helper()
	for range 20 {
		n.settle(10)
		if r := n.leader(group); r != nil {
			return r
		}
	}
	n.t.Fatal("nobody leads")
	return nil
}

// wants has every node hear which are to hold all groups.
func (n *network) wants(nodes ...uint64) {
	of := map[uint64]Wanted{}
	for id := range n.groups {
		of[uint64(id+1)] = Wanted{Voters: nodes}
	}
	n.wantsOf(of)
}

// wantsOf has every node hear who is to hold the groups.
func (n *network) wantsOf(of map[uint64]Wanted) {
	n.want = of
	for _, r := range n.nodes {
		r.host.wants(of)
	}
}

// members tells whether exactly these nodes vote in the group, by what each of them has heard, and nobody is about to.
func (n *network) members(group int, nodes ...uint64) bool {
	for _, id := range nodes {
		voters, learners := n.nodes[id-1].groups[group].Members()
		if !slices.Equal(voters, nodes) || len(learners) > 0 {
			return false
		}
	}
	return true
}

func (r *replica) propose(group int, name string) *proposal {
	r.net.t.Helper()
	p := r.host.newProposal(r.groups[group], note(name))
	if err := r.host.submit(p); err != nil {
		r.net.t.Fatal(err)
	}
	return p
}

func (r *replica) read(group int) *read {
	r.net.t.Helper()
	rd := &read{group: r.groups[group], done: make(chan struct{}, 1)}
	if err := r.host.submitRead(rd); err != nil {
		r.net.t.Fatal(err)
	}
	return rd
}

func (r *read) answered() bool { return len(r.done) > 0 }

func TestAProposalAtAnyNodeIsAppliedAtAll(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	n := newNetwork(t, 3, 2)
	defer n.close()
	n.elect(0)
	n.elect(1)
	var want []string
	for i := range 30 {
		r := n.nodes[i%3]
		p := r.propose(0, fmt.Sprint(i))
		n.settle(1)
		if !p.answered() || p.err != nil || p.result.Revision != uint64(i+1) {
			t.Fatalf("proposal %d: answered %v, %v, %+v", i, p.answered(), p.err, p.result)
		}
		if got := r.ledgers[0].shown(t); got != i+1 {
			t.Fatalf("answered, and %d of %d shown", got, i+1)
		}
		want = append(want, fmt.Sprint(i))
	}
	n.settle(5)
	for _, r := range n.nodes {
		if !slices.Equal(r.ledgers[0].names, want) || len(r.ledgers[1].names) > 0 {
			t.Errorf("node %d: %q, %q", r.id, r.ledgers[0].names, r.ledgers[1].names)
		}
	}
}

func TestAReadAtAFollowerSeesWhatWasAcknowledged(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 2)
	n := newNetwork(t, 3, 1)
	defer n.close()
	leader := n.elect(0)
	p := leader.propose(0, "a")
	// Its followers hear of the entry, and not that it is committed.
	for !p.answered() {
		leader.host.Step()
		for i := 0; i < len(n.flying); {
			if n.flying[i].from == leader.id && len(leader.ledgers[0].names) > 0 {
				i++
				continue
			}
			n.deliver(i, false)
		}
		for _, r := range n.nodes {
			r.host.Step()
		}
	}
	follower := n.nodes[leader.id%3]
	if follower.ledgers[0].shown(t) != 0 {
		t.Fatal("shown already")
	}
	rd := follower.read(0)
	follower.host.Step()
	if rd.answered() {
		t.Fatal("answered without asking")
	}
	n.settle(1)
	if !rd.answered() || rd.err != nil || follower.ledgers[0].shown(t) != 1 {
		t.Errorf("answered %v, %v, %d shown", rd.answered(), rd.err, follower.ledgers[0].shown(t))
	}
}
