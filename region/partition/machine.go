// Package partition owns the state machine of one key range: a command in, a batch of writes and a
// result out. Conditions, stamps, merging, index rows and the change log meet here.
//
// It leaves agreement on the commands to region/group, disk to package storage, and other partitions to
// package region. It has no clock, goroutine, context or randomness.
//
// Invariants: what Apply does is a function of the state and the command alone; a local write, a remote
// delta and a restored item leave by one function (commit.go); the change log's sequence numbers have no
// gap; the clock never goes backwards.
package partition

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/mutant"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// Config is what a machine is told when it is opened.
type Config struct {
	ID    uint64    // of the partition
	Table uint32    // storage id of its table
	Start table.Key // the least key that may be its
	// End is the least key beyond, nil for the end of the table, when the partition began: where it ends now, its state says.
	End   table.Key
	Actor crdt.Actor // this region: who stamps
	Store storage.Reader
}

// records returns the range of the partition's records, [from, to).
func (c *Config) records() (from, to []byte) { return c.share(keyenc.Record) }

// traces returns the range of the traces of its deleted items.
func (c *Config) traces() (from, to []byte) { return c.share(keyenc.Trace) }

// share returns the partition's range of rows that stand by the table and the item's key.
func (c *Config) share(row func(dst []byte, table uint32, key []byte) []byte) (from, to []byte) {
	if c.End == nil {
		to = keyenc.End(row(nil, c.Table, nil))
	} else {
		to = row(nil, c.Table, c.End)
	}
	return row(nil, c.Table, c.Start), to
}

// holds tells whether a key is the partition's.
func (c *Config) holds(key table.Key) bool {
	return bytes.Compare(key, c.Start) >= 0 && (c.End == nil || bytes.Compare(key, c.End) < 0)
}

// Machine is the state machine of one partition. It belongs to one goroutine; State returns what others
// may read.
type Machine struct {
	cfg    Config    // with End as it is now
	first  table.Key // Config.End as it was given
	schema *table.Schema
	// revision is the schema's in the catalog, 0 for one from before revisions were told. It never falls.
	revision uint64
	modes    crdt.Modes
	state    State
	respan   bool // state.Span is to be written

	cursors map[string]uint64   // stream -> last sequence number applied
	clocks  map[string]crdt.HLC // stream -> its newest write up to there
	shares  map[string]crdt.HLC // stream -> its newest write of which this partition alone may have its share
	places  map[string]bool     // streams whose partition is being copied: see op.Cursor

	// written holds, by their keys in the store, the records and traces that this run of commands has put in the
	// batch and that the store does not show yet; nil for one deleted.
	written map[string][]byte

	kept map[string]bool // the keys of conflict records that this run has put in the batch

	writes uint64      // items written since Written was asked
	sample []table.Key // some of their keys
	large  uint64      // records written since Large was asked

	finder *storage.Finder // of a command that looks up many rows, while it does; nil otherwise

	rows    []table.Row // scratch
	scratch []byte
}

// State is a partition's own state, beside its records. It is written with every batch.
type State struct {
	Applied uint64   // index of the last Raft entry applied
	Clock   crdt.HLC // the newest stamp given or received
	Seq     uint64   // the last change-log entry
	Folded  uint64   // the change-log entries up to here have been folded
	Trimmed uint64   // the change-log entries up to here are gone
	Stable  crdt.HLC // everything up to here is stable (MERGE.md)
	Items   int64    // visible items
	Bytes   int64    // their sizes, by item.Item.Size
	// Traced: of every item whose delete is later than this and was folded away here, there is a trace. See trace.go.
	Traced crdt.HLC
	// Wrote is the newest stamp given to a write of this region's, and Cut that of the change log's entries that are gone.
	Wrote, Cut crdt.HLC
	Indexes    []IndexState
	Span       Span // in a row of its own

	// Of the conflict records, which stand beside the items:
	Conflicts     uint64   // how many there are
	ConflictBytes uint64   // their values' size
	Shed          uint64   // conflicts that are kept no more, or never were, for want of room
	Oldest        crdt.HLC // when the oldest of them was detected; 0 for none
}

// Names of a partition's own rows; see keyenc.Meta.
const (
	metaState    = "state"
	metaSchema   = "schema"   // JSON
	metaRevision = "revision" // of the schema; 8 bytes, big-endian
	metaCursor   = "cursor/"  // 8 bytes, big-endian
	metaPlace    = "place/"   // see replication.Place
	metaClock    = "clock/"   // 8 bytes, big-endian
	metaShare    = "share/"   // likewise
	metaSpan     = "span"     // a Span as JSON, of a partition that was cut or is about to be
)

// Open reads a machine's state, or begins one. It returns a *storage.CorruptionError when what is there
// is not what was written.
func Open(cfg Config) (*Machine, error) {
	m := &Machine{cfg: cfg, first: cfg.End}
	if err := m.Reload(); err != nil {
		return nil, err
	}
	return m, nil
}

// Reload reads the machine's state anew, after the store's rows have been replaced by a snapshot's. Errors are
// Open's.
func (m *Machine) Reload() error {
	m.schema, m.revision, m.modes, m.state = &table.Schema{}, 0, crdt.Modes{}, State{}
	m.cursors, m.written = map[string]uint64{}, map[string][]byte{}
	m.clocks, m.shares = map[string]crdt.HLC{}, map[string]crdt.HLC{}
	m.kept, m.places = map[string]bool{}, map[string]bool{}
	m.cfg.End, m.respan = m.first, false
	var span Span
	prefix := keyenc.Meta(nil, m.cfg.ID, "")
	it, err := m.cfg.Store.Iter(prefix, keyenc.End(prefix))
	if err != nil {
		return fmt.Errorf("partition %d: open: %w", m.cfg.ID, err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		name, value := keyenc.MetaName(it.Key()), it.Value()
		switch {
		case name == metaState:
			if m.state, err = decodeState(value); err != nil {
				return fmt.Errorf("partition %d: open: %w", m.cfg.ID, err)
			}
			if mutant.On(mutant.ClockNotPersisted) {
				m.state.Clock = 0
			}
		case name == metaSchema:
			schema := &table.Schema{}
			if err := json.Unmarshal(value, schema); err != nil {
				return fmt.Errorf("partition %d: open: schema: %w", m.cfg.ID, err)
			}
			m.follow(schema)
		case name == metaSpan:
			if err := json.Unmarshal(value, &span); err != nil {
				return fmt.Errorf("partition %d: open: span: %w", m.cfg.ID, err)
			}
		case name == metaRevision && len(value) == 8:
			m.revision = binary.BigEndian.Uint64(value)
		case strings.HasPrefix(name, metaPlace):
			m.places[name[len(metaPlace):]] = true
		case len(name) > len(metaCursor) && name[:len(metaCursor)] == metaCursor && len(value) == 8:
			m.cursors[name[len(metaCursor):]] = binary.BigEndian.Uint64(value)
		case strings.HasPrefix(name, metaClock) && len(value) == 8:
			m.clocks[name[len(metaClock):]] = crdt.HLC(binary.BigEndian.Uint64(value))
		case strings.HasPrefix(name, metaShare) && len(value) == 8:
			m.shares[name[len(metaShare):]] = crdt.HLC(binary.BigEndian.Uint64(value))
		default:
			return fmt.Errorf("partition %d: open: unknown row %q", m.cfg.ID, name)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("partition %d: open: %w", m.cfg.ID, err)
	}
	m.state.Span = span
	if span.Cut {
		m.cfg.End = span.End
	} else {
		m.state.Span.End = m.cfg.End
	}
	return nil
}

// Ranges returns the ranges of keys, [from, to), that hold the machine's whole state, and nothing else.
func (m *Machine) Ranges() [][2][]byte {
	var out [][2][]byte
	if !m.state.Span.Closed { // then its keys are another's, or about to be
		from, to := m.cfg.records()
		traces, end := m.cfg.traces()
		out = append(out, [2][]byte{from, to}, [2][]byte{traces, end})
	}
	for _, prefix := range [][]byte{
		keyenc.Meta(nil, m.cfg.ID, ""), keyenc.LogOf(nil, m.cfg.ID), keyenc.Indexes(nil, m.cfg.ID), keyenc.Conflicts(nil, m.cfg.ID),
	} {
		out = append(out, [2][]byte{prefix, keyenc.End(prefix)})
	}
	if d := m.state.Span.Draft; d != nil {
		out = append(out, d.ranges()...)
	}
	return out
}

// Bounds returns the ranges within which those of Ranges lie, whatever has become of the partition at another replica.
func (m *Machine) Bounds() [][2][]byte {
	out := [][2][]byte{
		{keyenc.Record(nil, m.cfg.Table, m.cfg.Start), keyenc.End(keyenc.Record(nil, m.cfg.Table, nil))},
		{keyenc.Trace(nil, m.cfg.Table, m.cfg.Start), keyenc.End(keyenc.Trace(nil, m.cfg.Table, nil))},
	}
	for _, prefix := range [][]byte{keyenc.Meta(nil, m.cfg.ID, ""), keyenc.Conflicts(nil, m.cfg.ID)} {
		out = append(out, [2][]byte{prefix, keyenc.End(prefix)})
	}
	// Of a child to come, whose id is greater, too.
	for _, prefix := range [][]byte{keyenc.LogOf(nil, m.cfg.ID), keyenc.Indexes(nil, m.cfg.ID)} {
		out = append(out, [2][]byte{prefix, keyenc.End(prefix[:1])})
	}
	return out
}

func (m *Machine) follow(s *table.Schema) {
	m.schema = s
	m.modes = crdt.Modes{Table: mode(s.Modes.Table)}
	if len(s.Modes.Attributes) > 0 {
		m.modes.Attributes = make(map[string]crdt.Mode, len(s.Modes.Attributes))
	}
	for _, a := range s.Modes.Attributes {
		m.modes.Attributes[a.Name] = mode(a.Mode)
	}
}

func mode(m table.Mode) crdt.Mode {
	if m == table.LastWriterWins {
		return crdt.LastWriterWins
	}
	return crdt.Merge
}

// State returns the partition's state after the last committed batch.
func (m *Machine) State() State {
	s := m.state
	s.Indexes = slices.Clone(s.Indexes)
	s.Span.Draft = nil // of the machine alone, but that there is one
	s.Span.Drafting = m.state.Span.Draft != nil
	s.Span.Ready = s.Span.Drafting && m.state.Span.Draft.Ready
	return s
}

// Written returns how many items were written since the last call, and some of their keys: every sampleEvery'th, and no more than sampleMost.
// It is no part of the state.
func (m *Machine) Written() (n uint64, some []table.Key) {
	n, some = m.writes, m.sample
	m.writes, m.sample = 0, nil
	return n, some
}

// Large returns how many times, since the last call, a record was written that keeps much for merging beside its item: more than largeBeside
// bytes, and more than a tenth of the item. It is no part of the state.
func (m *Machine) Large() (n uint64) {
	n, m.large = m.large, 0
	return n
}

const largeBeside = 1 << 10

const (
	sampleEvery = 4
	sampleMost  = 64
)

// Schema returns the schema that the partition follows. It must not be changed.
func (m *Machine) Schema() *table.Schema { return m.schema }

// Applied returns the index of the last Raft entry applied.
func (m *Machine) Applied() uint64 { return m.state.Applied }

// AppliedKey is where Finish writes the state, which begins with Applied.
func (m *Machine) AppliedKey() []byte { return keyenc.Meta(nil, m.cfg.ID, metaState) }

// Cursors returns how far each stream of another region has been applied.
func (m *Machine) Cursors() map[string]uint64 {
	out := make(map[string]uint64, len(m.cursors))
	for k, v := range m.cursors {
		out[k] = v
	}
	return out
}

// Clocks returns, by stream, the newest write up to its cursor.
func (m *Machine) Clocks() map[string]crdt.HLC { return maps.Clone(m.clocks) }

// Shares returns, by stream, the newest write of which this partition alone may have its share.
func (m *Machine) Shares() map[string]crdt.HLC { return maps.Clone(m.shares) }

// Apply carries out the command of the Raft entry at index; nil stands for an entry without one. What it
// writes goes to b; it is in force for the next Apply at once. It panics when the store cannot be read:
// no replica may go on from a state it does not know.
func (m *Machine) Apply(index uint64, c *op.Command, b *storage.Batch) op.Result {
	if index <= m.state.Applied {
		panic(fmt.Sprintf("partition %d: entry %d applied behind entry %d", m.cfg.ID, index, m.state.Applied))
	}
	m.state.Applied = index
	if c == nil {
		return op.Result{}
	}
	if m.schema.Closed && c.Kind != op.Alter {
		return op.Result{Err: op.ErrClosed}
	}
	if m.state.Span.Closed && c.Kind != op.Close && c.Kind != op.Reopen && c.Kind != op.Alter {
		return op.Result{Err: op.ErrMoved}
	}
	if !m.holdsAll(c) {
		return op.Result{Err: op.ErrMoved}
	}
	switch c.Kind {
	case op.Put:
		return m.put(c, b)
	case op.Update:
		return m.update(c, b)
	case op.Delete, op.Expire:
		return m.delete(c, b)
	case op.Merge, op.Mend:
		return m.merge(c, b)
	case op.Restore:
		return m.restore(c, b)
	case op.Rebase:
		return m.rebase(c, b)
	case op.Held:
		return m.held(c, b)
	case op.Recall:
		return m.recall(c, b)
	case op.Fold:
		return m.fold(c, b)
	case op.Alter:
		return m.alter(c, b)
	case op.Reindex:
		return m.reindex(c, b)
	case op.Split:
		return m.split(c, b)
	case op.Prune:
		return m.prune(c, b)
	case op.Forget:
		return m.forget(c, b)
	case op.Close:
		return m.close(c)
	case op.Reopen:
		return m.reopen(c)
	case op.Absorb:
		return m.absorb(c, b)
	}
	return op.Result{Err: fmt.Errorf("partition %d: %w: kind %d", m.cfg.ID, op.ErrEncoding, c.Kind)}
}

// Finish writes the state that the commands since the last Finish have led to.
func (m *Machine) Finish(b *storage.Batch) {
	if s := m.state; s.Trimmed > s.Folded || s.Folded > s.Seq || s.Items < 0 || s.Bytes < 0 {
		panic(fmt.Sprintf("partition %d: an impossible state: %+v", m.cfg.ID, s)) // it must not become durable
	}
	b.Set(keyenc.Meta(m.scratch[:0], m.cfg.ID, metaState), m.state.encode())
	if m.respan {
		m.respan = false
		b.Set(keyenc.Meta(m.scratch[:0], m.cfg.ID, metaSpan), m.state.Span.encode())
	}
}

// Committed tells the machine that the store shows all that it has written.
func (m *Machine) Committed() {
	clear(m.written)
	clear(m.kept)
}

// alter takes over another schema. Nodes propose it, and one may do so with a definition that has been changed
// since: going back to that would undo what the newer one has begun, such as filling an index.
func (m *Machine) alter(c *op.Command, b *storage.Batch) op.Result {
	if c.Revision < m.revision {
		return op.Result{}
	}
	for _, x := range m.schema.Indexes {
		if c.Schema.Index(x.Name) == nil || c.Schema.Index(x.Name).ID != x.ID {
			prefix := keyenc.Index(nil, m.cfg.ID, x.ID, nil)
			b.DeleteRange(prefix, keyenc.End(prefix))
		}
	}
	if m.schema.Solo && !c.Schema.Solo {
		m.state.Traced = max(m.state.Traced, m.state.Clock) // what a region deletes alone leaves nothing
	}
	m.countAnew(c.Schema)
	m.dropDraft(c.Schema, b)
	m.follow(c.Schema)
	value, err := json.Marshal(c.Schema)
	if err != nil {
		panic(fmt.Sprintf("partition %d: schema: %v", m.cfg.ID, err))
	}
	b.Set(keyenc.Meta(nil, m.cfg.ID, metaSchema), value)
	if m.revision = c.Revision; m.revision > 0 {
		b.Set(keyenc.Meta(nil, m.cfg.ID, metaRevision), binary.BigEndian.AppendUint64(nil, m.revision))
	}
	return op.Result{}
}

// record returns the stored record of an item, nil for none.
func (m *Machine) record(key table.Key) []byte {
	m.scratch = keyenc.Record(m.scratch[:0], m.cfg.Table, key)
	return m.row(m.scratch)
}

// row returns what stands at a key, as the commands before left it; nil for nothing.
func (m *Machine) row(at []byte) []byte {
	if r, ok := m.written[string(at)]; ok && !mutant.On(mutant.ReadPastRun) {
		return r
	}
	var r []byte
	var err error
	if m.finder != nil {
		r, err = m.finder.Get(nil, at)
	} else {
		r, err = m.cfg.Store.Get(nil, at)
	}
	if err != nil && !errors.Is(err, storage.ErrNotFound) {
		panic(fmt.Sprintf("partition %d: read %x: %v", m.cfg.ID, at, err))
	}
	return r
}

// stamp gives the next local write its dot.
func (m *Machine) stamp(proposed crdt.HLC) crdt.Dot {
	m.state.Clock = max(proposed, m.state.Clock+1)
	if mutant.On(mutant.StampProposed) {
		m.state.Clock = proposed
	}
	m.state.Wrote = m.state.Clock
	return crdt.Dot{HLC: m.state.Clock, Actor: m.cfg.Actor}
}

// observe lifts the clock over a stamp received.
func (m *Machine) observe(h crdt.HLC) { m.state.Clock = max(m.state.Clock, h) }

const stateSize = 15 * 8 // without indexes

// encode draws the state: fifteen big-endian words, in the order of the struct, and its indexes.
func (s State) encode() []byte {
	if mutant.On(mutant.AppliedOneTooLow) {
		s.Applied--
	}
	b := make([]byte, 0, stateSize)
	for _, v := range [...]uint64{s.Applied, uint64(s.Clock), s.Seq, s.Folded, s.Trimmed, uint64(s.Stable), uint64(s.Items), uint64(s.Bytes),
		s.Conflicts, s.ConflictBytes, s.Shed, uint64(s.Oldest),
		uint64(s.Traced), uint64(s.Wrote), uint64(s.Cut)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	for i := range s.Indexes {
		b = s.Indexes[i].append(b)
	}
	return b
}

func decodeState(b []byte) (State, error) {
	if len(b) < stateSize {
		return State{}, fmt.Errorf("partition: a state of %d bytes", len(b))
	}
	word := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	s := State{
		Applied: word(0), Clock: crdt.HLC(word(1)), Seq: word(2), Folded: word(3), Trimmed: word(4),
		Stable: crdt.HLC(word(5)), Items: int64(word(6)), Bytes: int64(word(7)),
		Conflicts: word(8), ConflictBytes: word(9), Shed: word(10), Oldest: crdt.HLC(word(11)),
		Traced: crdt.HLC(word(12)), Wrote: crdt.HLC(word(13)), Cut: crdt.HLC(word(14)),
	}
	for rest := b[stateSize:]; len(rest) > 0; {
		var x IndexState
		var err error
		if x, rest, err = cutIndexState(rest); err != nil {
			return State{}, err
		}
		s.Indexes = append(s.Indexes, x)
	}
	return s, nil
}
