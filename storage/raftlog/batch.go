package raftlog

import (
	"encoding/binary"
	"fmt"
	"math"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/commutatordb/commutator/internal/mutant"
)

// maxRetainedBytes bounds the buffer a Batch keeps over Reset: a rare large batch must not stay in memory.
const maxRetainedBytes = 4 << 20

// Batch gathers what several groups want to persist in one write and one sync. Its parts take effect in the order
// of the calls, all or none. It is for one goroutine, and can be used again after Reset.
type Batch struct {
	log  *Log
	buf  []byte // room for a frame's header, then the records
	recs []record
	refs []entryRef
}

// NewBatch returns an empty batch for l.
func (l *Log) NewBatch() *Batch {
	return &Batch{log: l, buf: make([]byte, frameHeaderBytes, 4096)}
}

// Reset empties b. It must be called between a Commit that succeeded and the next use.
func (b *Batch) Reset() {
	if cap(b.buf) > maxRetainedBytes {
		b.buf = make([]byte, frameHeaderBytes, 4096)
	}
	b.buf = b.buf[:frameHeaderBytes]
	clear(b.recs) // they point to entries
	b.recs, b.refs = b.recs[:0], b.refs[:0]
}

// Empty reports whether there is nothing to commit.
func (b *Batch) Empty() bool { return len(b.recs) == 0 }

// Bytes is how much Commit would write now.
func (b *Batch) Bytes() int { return alignFrame(len(b.buf)) }

// Append adds what a raft.Ready wants saved: the hard state, unless hs is nil or all zero, and entries of
// consecutive indexes, which replace whatever the group has from the first of them on. The data of
// entries is copied, but the entries themselves are kept in the cache and must not be changed after.
func (b *Batch) Append(group uint64, hs *pb.HardState, entries []*pb.Entry) {
	if h := (hardState{hs.GetTerm(), hs.GetVote(), hs.GetCommit()}); h != (hardState{}) {
		if mutant.On(mutant.VoteNotPersisted) {
			h.vote = 0
		}
		b.buf = appendHardState(appendRecordHead(b.buf, recordHardState, group), h)
		b.recs = append(b.recs, record{kind: recordHardState, group: group, hard: h, hasHard: true})
	}
	if len(entries) == 0 {
		return
	}
	first := entries[0].GetIndex()
	b.buf = appendRecordHead(b.buf, recordEntries, group)
	b.buf = binary.LittleEndian.AppendUint64(b.buf, first)
	b.recs = append(b.recs, record{
		kind: recordEntries, group: group, index: first,
		refs: b.appendEntries(group, first, entries), ents: entries,
	})
}

// SetSnapshot makes the group's log empty, to go on after the snapshot's index with its term and ConfState. It
// is how a new group is given its first voters, and what follows a snapshot from the leader.
func (b *Batch) SetSnapshot(group uint64, m *pb.SnapshotMetadata) {
	conf := marshalConfState(m.GetConfState())
	b.buf = b.appendPosition(recordSnapshot, group, m.GetIndex(), m.GetTerm())
	b.buf = appendBytes(b.buf, conf)
	b.recs = append(b.recs, record{
		kind: recordSnapshot, group: group, index: m.GetIndex(), term: m.GetTerm(), conf: conf,
	})
}

// SetConfState remembers the group's ConfState, as of the last configuration change applied.
func (b *Batch) SetConfState(group uint64, cs *pb.ConfState) {
	conf := marshalConfState(cs)
	b.buf = appendBytes(appendRecordHead(b.buf, recordConfState, group), conf)
	b.recs = append(b.recs, record{kind: recordConfState, group: group, conf: conf})
}

// Truncate says that entries of the group up to and with index will never be needed again; the term of
// index itself stays known. An index already truncated, or past the last entry committed before this call, changes
// nothing. It need not be synced: what is lost in a crash can be said again.
func (b *Batch) Truncate(group uint64, index uint64) {
	g := b.log.lookup(group)
	if g == nil {
		return
	}
	term, ok := g.truncatable(index)
	if !ok {
		return
	}
	b.buf = b.appendPosition(recordTruncate, group, index, term)
	b.recs = append(b.recs, record{kind: recordTruncate, group: group, index: index, term: term})
}

// Remove forgets the group, with all it has. A *Group got before is empty from then on and no longer the log's: get
// another one to start the group again.
func (b *Batch) Remove(group uint64) {
	b.buf = appendRecordHead(b.buf, recordRemove, group)
	b.recs = append(b.recs, record{kind: recordRemove, group: group})
}

// LetGo forgets what the group has, but for the term and the vote that it must not go back on, and marks it as left until a hard state
// is appended: until then something of it may be elsewhere.
func (b *Batch) LetGo(group, term, vote uint64) {
	h := hardState{term: term, vote: vote}
	b.buf = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(appendRecordHead(b.buf, recordLetGo, group), term), vote)
	b.recs = append(b.recs, record{kind: recordLetGo, group: group, hard: h, hasHard: true})
}

// rewrite moves the whole log of a group forward, unchanged.
func (b *Batch) rewrite(group, index, term uint64, entries []*pb.Entry) {
	b.buf = b.appendPosition(recordRewrite, group, index, term)
	b.recs = append(b.recs, record{
		kind: recordRewrite, group: group, index: index, term: term,
		refs: b.appendEntries(group, index+1, entries),
	})
}

func (b *Batch) appendPosition(kind recordKind, group, index, term uint64) []byte {
	le := binary.LittleEndian
	return le.AppendUint64(le.AppendUint64(appendRecordHead(b.buf, kind, group), index), term)
}

func (b *Batch) appendEntries(group, first uint64, entries []*pb.Entry) []entryRef {
	b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(len(entries)))
	start := len(b.refs)
	for i, e := range entries {
		if e.GetIndex() != first+uint64(i) {
			panic(fmt.Sprintf("raftlog: group %d: entry %d follows %d", group, e.GetIndex(), first+uint64(i)-1))
		}
		if t := e.GetType(); t < 0 || t > math.MaxUint8 {
			panic(fmt.Sprintf("raftlog: group %d: entry %d has type %d", group, e.GetIndex(), t))
		}
		var ref entryRef
		b.buf, ref = appendEntry(b.buf, group, first+uint64(i), e)
		b.refs = append(b.refs, ref)
	}
	return b.refs[start:len(b.refs):len(b.refs)]
}

func marshalConfState(cs *pb.ConfState) []byte {
	if cs == nil {
		return nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(cs)
	if err != nil {
		panic(fmt.Sprintf("raftlog: encode ConfState %v: %v", cs, err))
	}
	return b
}
