package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"

	"github.com/commutatordb/commutator/crdt"
	pb "github.com/commutatordb/commutator/proto/replication/v1"
	"github.com/commutatordb/commutator/replication"
)

// maxBody bounds a body before compression: a batch, with one item of the largest size more.
const maxBody = 8 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// One encoder and one decoder serve all streams: EncodeAll and DecodeAll may be called concurrently.
var (
	encoder, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(256<<10))
	decoder, _ = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderConcurrency(1))
)

// packChanges returns a body and what its message says of it.
func packChanges(changes []replication.Change) (body []byte, size int, sum uint32) {
	for _, c := range changes {
		size += len(c.Key) + len(c.Delta) + 2*binary.MaxVarintLen32
	}
	raw := make([]byte, 0, size)
	for _, c := range changes {
		raw = append(binary.AppendUvarint(raw, uint64(len(c.Key))), c.Key...)
		raw = append(binary.AppendUvarint(raw, uint64(len(c.Delta))), c.Delta...)
	}
	return encoder.EncodeAll(raw, nil), len(raw), crc32.Checksum(raw, castagnoli)
}

// unpackChanges undoes packChanges. The bytes are another region's: everything is checked.
func unpackChanges(body []byte, count, size, sum uint32) ([]replication.Change, error) {
	if size > maxBody {
		return nil, fmt.Errorf("transport: a body of %d bytes", size)
	}
	raw, err := decoder.DecodeAll(body, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("transport: body: %w", err)
	}
	if len(raw) != int(size) || crc32.Checksum(raw, castagnoli) != sum {
		return nil, fmt.Errorf("transport: a body's checksum is wrong")
	}
	var out []replication.Change
	for len(raw) > 0 {
		var c replication.Change
		if c.Key, raw, err = cut(raw); err != nil {
			return nil, err
		}
		if c.Delta, raw, err = cut(raw); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) != int(count) {
		return nil, fmt.Errorf("transport: %d changes where %d were said", len(out), count)
	}
	return out, nil
}

func cut(b []byte) (part, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, fmt.Errorf("transport: a body ends too soon")
	}
	end := used + int(n)
	return b[used:end:end], b[end:], nil
}

func batchToProto(b replication.Batch) *pb.Batch {
	body, size, sum := packChanges(b.Changes)
	return &pb.Batch{After: b.After, Seq: b.Seq, Count: uint32(len(b.Changes)), Size: uint32(size), Crc32C: sum, Body: body}
}

func batchFromProto(m *pb.Batch) (replication.Batch, error) {
	changes, err := unpackChanges(m.Body, m.Count, m.Size, m.Crc32C)
	return replication.Batch{After: m.After, Seq: m.Seq, Changes: changes}, err
}

func progressToProto(p replication.Progress) *pb.Progress {
	return &pb.Progress{Seq: p.Seq, Clock: uint64(p.Clock), Applied: clocksToProto(p.Applied), SentUnixNano: p.SentAt, After: p.After, Start: p.Start, End: p.End}
}

func progressFromProto(m *pb.Progress) replication.Progress {
	return replication.Progress{Seq: m.Seq, Clock: crdt.HLC(m.Clock), Applied: clocksFromProto(m.Applied), SentAt: m.SentUnixNano, After: m.After, Range: rangeFromProto(m.Start, m.End)}
}

func rangeFromProto(start, end []byte) replication.Range {
	if len(end) == 0 {
		end = nil
	}
	return replication.Range{Start: start, End: end}
}

func seedToProto(p replication.SeedPart) *pb.SeedChunk {
	switch {
	case p.Done:
		return &pb.SeedChunk{Done: true}
	case p.Origin != nil:
		o := p.Origin
		return &pb.SeedChunk{Origin: &pb.SeedOrigin{
			Seq: o.Seq, Clock: uint64(o.Clock), Cursors: o.Cursors, Stable: uint64(o.Stable), Items: o.Items, Bytes: o.Bytes,
			Clocks: clocksToProto(o.Clocks), Shares: clocksToProto(o.Shares), Start: o.Start, End: o.End,
		}}
	}
	body, size, sum := packChanges(p.Items)
	return &pb.SeedChunk{Count: uint32(len(p.Items)), Size: uint32(size), Crc32C: sum, Body: body}
}

func seedFromProto(m *pb.SeedChunk) (replication.SeedPart, error) {
	if m.Done {
		return replication.SeedPart{Done: true}, nil
	}
	if o := m.Origin; o != nil {
		return replication.SeedPart{Origin: &replication.Origin{
			Seq: o.Seq, Clock: crdt.HLC(o.Clock), Cursors: o.Cursors, Stable: crdt.HLC(o.Stable), Items: o.Items, Bytes: o.Bytes,
			Clocks: clocksFromProto(o.Clocks), Shares: clocksFromProto(o.Shares), Range: rangeFromProto(o.Start, o.End),
		}}, nil
	}
	items, err := unpackChanges(m.Body, m.Count, m.Size, m.Crc32C)
	return replication.SeedPart{Items: items}, err
}

func digestToProto(p replication.DigestPart) *pb.DigestChunk {
	m := &pb.DigestChunk{End: p.End, Bytes: p.Bytes}
	for _, l := range p.Leaves {
		m.Leaves = append(m.Leaves, l.At)
		m.Items = append(m.Items, l.Items)
		m.Sums = append(m.Sums, l.Hi, l.Lo)
	}
	return m
}

func digestFromProto(m *pb.DigestChunk) (replication.DigestPart, error) {
	p := replication.DigestPart{End: m.End, Bytes: m.Bytes}
	if len(m.Items) != len(m.Leaves) || len(m.Sums) != 2*len(m.Leaves) {
		return p, fmt.Errorf("transport: digests of %d leaves with %d and %d numbers", len(m.Leaves), len(m.Items), len(m.Sums))
	}
	for i, at := range m.Leaves {
		p.Leaves = append(p.Leaves, replication.Leaf{At: at, Digest: replication.Digest{Items: m.Items[i], Hi: m.Sums[2*i], Lo: m.Sums[2*i+1]}})
	}
	return p, nil
}

const dotSize = 12

func listToProto(entries []replication.Entry, values bool) *pb.ListChunk {
	changes := make([]replication.Change, len(entries))
	for i, e := range entries {
		rest := e.Sum[:]
		if values {
			rest = e.Item
		}
		changes[i] = replication.Change{Key: e.Key, Delta: append(replication.AppendDot(nil, e.Newest), rest...)}
	}
	body, size, sum := packChanges(changes)
	return &pb.ListChunk{Count: uint32(len(entries)), Size: uint32(size), Crc32C: sum, Body: body, Values: values}
}

func listFromProto(m *pb.ListChunk) ([]replication.Entry, error) {
	changes, err := unpackChanges(m.Body, m.Count, m.Size, m.Crc32C)
	if err != nil {
		return nil, err
	}
	out := make([]replication.Entry, len(changes))
	for i, c := range changes {
		if len(c.Delta) < dotSize || !m.Values && len(c.Delta) != dotSize+len(out[i].Sum) {
			return nil, fmt.Errorf("transport: an entry of %d bytes", len(c.Delta))
		}
		d, rest := c.Delta[:dotSize], c.Delta[dotSize:]
		out[i] = replication.Entry{Key: c.Key, Newest: crdt.Dot{HLC: crdt.HLC(binary.BigEndian.Uint64(d)), Actor: crdt.Actor(binary.BigEndian.Uint32(d[8:]))}}
		if m.Values {
			out[i].Item = rest
		} else {
			copy(out[i].Sum[:], rest)
		}
	}
	return out, nil
}

func tablesToProto(t replication.Tables) *pb.Tables {
	m := &pb.Tables{Region: t.Region, Instance: t.Instance, Definitions: t.Definitions, Revision: t.Revision, Format: uint32(t.Format), Ask: t.Ask, ReceivedUnixNano: t.ReceivedAt, AnsweredUnixNano: t.AnsweredAt}
	for _, h := range t.Had {
		m.Had = append(m.Had, &pb.Had{Table: h.Table, Partition: h.Partition, Seq: h.Seq, Clock: uint64(h.Clock)})
	}
	for _, b := range t.Begins {
		m.Begins = append(m.Begins, &pb.Begin{Table: b.Table, Partition: b.Partition, Seq: b.Seq})
	}
	return m
}

func tablesFromProto(m *pb.Tables) replication.Tables {
	t := replication.Tables{Region: m.Region, Instance: m.Instance, Definitions: m.Definitions, Revision: m.Revision, Format: int(m.Format), Ask: m.Ask, ReceivedAt: m.ReceivedUnixNano, AnsweredAt: m.AnsweredUnixNano}
	for _, h := range m.Had {
		t.Had = append(t.Had, replication.Had{Table: h.GetTable(), Partition: h.GetPartition(), Seq: h.GetSeq(), Clock: crdt.HLC(h.GetClock())})
	}
	for _, b := range m.Begins {
		t.Begins = append(t.Begins, replication.Begin{Table: b.GetTable(), Partition: b.GetPartition(), Seq: b.GetSeq()})
	}
	return t
}

func clocksToProto(clocks map[string]crdt.HLC) map[string]uint64 {
	out := make(map[string]uint64, len(clocks))
	for name, h := range clocks {
		out[name] = uint64(h)
	}
	return out
}

func clocksFromProto(clocks map[string]uint64) map[string]crdt.HLC {
	if len(clocks) == 0 {
		return nil
	}
	out := make(map[string]crdt.HLC, len(clocks))
	for name, h := range clocks {
		out[name] = crdt.HLC(h)
	}
	return out
}

func beatToProto(b replication.Beat) *pb.BeatAnswer {
	m := &pb.BeatAnswer{Instance: b.Instance, ReceivedUnixNano: b.ReceivedAt, AnsweredUnixNano: b.AnsweredAt}
	for _, p := range b.Behind {
		m.Behind = append(m.Behind, &pb.BeatBehind{Table: p.Table, Partition: p.Partition})
	}
	return m
}

func beatFromProto(m *pb.BeatAnswer) replication.Beat {
	b := replication.Beat{Instance: m.Instance, ReceivedAt: m.ReceivedUnixNano, AnsweredAt: m.AnsweredUnixNano}
	for _, p := range m.Behind {
		b.Behind = append(b.Behind, replication.Behind{Table: p.GetTable(), Partition: p.GetPartition()})
	}
	return b
}
