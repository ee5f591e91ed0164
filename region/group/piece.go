package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"

	pb "go.etcd.io/raft/v3/raftpb"
)

// A piece of a snapshot's state travels as raft's MsgSnap with the snapshot's metadata, and its data are the piece. It is answered by a receipt,
// which travels as MsgSnapStatus, its context the receipt. Raft sees neither.
//
// Bytes of a piece:
//
//	version 1 (1), id of the shipment (8, big-endian), flags (1; 1: there are no rows behind these),
//	length of the key that it comes behind (uvarint; 0: it is the first) and the key,
//	number of ranges of keys that the snapshot is of (uvarint), for each the keys from which and up to which, as above (to: empty for no end),
//	(length of key (uvarint), key, length of value (uvarint), value)...,
//	CRC-32C of all before (4, big-endian)
//
// Bytes of a receipt:
//
//	id of the shipment (8, big-endian), flags (1; 1: all rows are here, 2: the piece was not behind what is here),
//	the key of the last row that is here (nothing: none is)

const (
	pieceVersion = 1
	pieceLast    = 1
	pieceHead    = 1 + 8 + 1

	receiptAll     = 1
	receiptRefused = 2
	receiptHead    = 8 + 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errPiece = errors.New("group: not a piece of a snapshot")

// piece is some rows of a snapshot, behind those that came before it.
type piece struct {
	id    uint64
	last  bool
	after []byte // the key of the row before its first; empty: there is none
	// ranges are what the snapshot is of, in order. A replica that lags may have others: a partition is cut by its own log.
	ranges [][2][]byte
	rows   []byte
}

// beginPiece begins a piece's bytes; rows are appended to them, and then they are ended.
func beginPiece(id uint64, after []byte, ranges [][2][]byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{pieceVersion}, id)
	b = binary.AppendUvarint(appendField(append(b, 0), after), uint64(len(ranges)))
	for _, r := range ranges {
		b = appendField(appendField(b, r[0]), r[1])
	}
	return b
}

func endPiece(b []byte, last bool) []byte {
	if last {
		b[pieceHead-1] |= pieceLast
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func appendField(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(size)], b[n+int(size):], true
}

// parsePiece returns the piece that b holds, once it is known to be whole.
func parsePiece(b []byte) (p piece, err error) {
	n := len(b) - 4
	if n < pieceHead || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) || b[0] != pieceVersion {
		return p, errPiece
	}
	p.id, p.last = binary.BigEndian.Uint64(b[1:]), b[pieceHead-1]&pieceLast != 0
	var ok bool
	if p.after, p.rows, ok = cutField(b[pieceHead:n]); !ok {
		return p, errPiece
	}
	count, size := binary.Uvarint(p.rows)
	if size <= 0 {
		return p, errPiece
	}
	p.rows = p.rows[size:]
	for ; count > 0; count-- {
		var r [2][]byte
		var ok1, ok2 bool
		if r[0], p.rows, ok1 = cutField(p.rows); ok1 {
			r[1], p.rows, ok2 = cutField(p.rows)
		}
		if !ok1 || !ok2 || len(p.ranges) > 0 && bytes.Compare(p.ranges[len(p.ranges)-1][1], r[0]) > 0 {
			return p, errPiece
		}
		if len(r[1]) == 0 {
			r[1] = nil
		}
		p.ranges = append(p.ranges, [2][]byte{bytes.Clone(r[0]), bytes.Clone(r[1])})
	}
	return p, nil
}

// each calls f with each row.
func (p piece) each(f func(key, value []byte) error) error {
	for rest := p.rows; len(rest) > 0; {
		var key, value []byte
		var ok1, ok2 bool
		if key, rest, ok1 = cutField(rest); ok1 {
			value, rest, ok2 = cutField(rest)
		}
		if !ok1 || !ok2 {
			return errPiece
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

// receipt is how far a snapshot has come to a follower.
type receipt struct {
	id           uint64
	all, refused bool
	have         []byte
}

func (r receipt) message(from, to uint64) *pb.Message {
	flags := byte(0)
	if r.all {
		flags |= receiptAll
	}
	if r.refused {
		flags |= receiptRefused
	}
	b := append(binary.BigEndian.AppendUint64(nil, r.id), flags)
	return &pb.Message{Type: pb.MsgSnapStatus.Enum(), From: new(from), To: new(to), Context: append(b, r.have...)}
}

func parseReceipt(b []byte) (r receipt, ok bool) {
	if len(b) < receiptHead {
		return r, false
	}
	flags := b[receiptHead-1]
	return receipt{binary.BigEndian.Uint64(b), flags&receiptAll != 0, flags&receiptRefused != 0, b[receiptHead:]}, true
}
