// Package keyenc draws the keys of a node's store. It owns where each kind of row stands and leaves what
// a row means to its writer.
//
// All integers are big-endian, so that rows of one table or partition are neighbours in order:
//
//	'R' table(4) key                      record of an item            key: table.Key
//	'D' table(4) key                      trace of an item that was deleted and folded away
//	'I' partition(8) index(4) key         row of a secondary index     of a partition's items; key: table.Key of the index
//	'L' partition(8) seq(8)               change-log entry
//	'P' partition(8) name                 a partition's own state      name: see Meta...
//	'F' partition(8) hlc(8) id(16)        conflict record, oldest first
//	'K' name                              the region's catalog
//	'G' group(8)                          the snapshot that a Raft group's state came from last
package keyenc

import "encoding/binary"

const (
	tagRecord   = 'R'
	tagTrace    = 'D'
	tagIndex    = 'I'
	tagLog      = 'L'
	tagMeta     = 'P'
	tagConflict = 'F'
	tagCatalog  = 'K'
	tagGroup    = 'G'
)

// Record appends the key of an item's record.
func Record(dst []byte, table uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, tagRecord), table)
	return append(dst, key...)
}

// RecordKey returns the item's key within a record's key.
func RecordKey(b []byte) []byte { return b[5:] }

// Trace appends the key of what is left of an item that was deleted and folded away.
func Trace(dst []byte, table uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, tagTrace), table)
	return append(dst, key...)
}

// TraceKey returns the item's key within a trace's key.
func TraceKey(b []byte) []byte { return b[5:] }

// Index appends the key of the row that an item of a partition has in an index.
func Index(dst []byte, partition uint64, index uint32, key []byte) []byte {
	dst = binary.BigEndian.AppendUint32(Indexes(dst, partition), index)
	return append(dst, key...)
}

// IndexID returns the index's id within an index row's key.
func IndexID(b []byte) uint32 { return binary.BigEndian.Uint32(b[9:]) }

// IndexKey returns the index's own key within an index row's key.
func IndexKey(b []byte) []byte { return b[13:] }

// Log appends the key of a change-log entry.
func Log(dst []byte, partition, seq uint64) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, tagLog), partition)
	return binary.BigEndian.AppendUint64(dst, seq)
}

// LogOf appends the prefix of all change-log entries of a partition.
func LogOf(dst []byte, partition uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, tagLog), partition)
}

// LogSeq returns the sequence number within a change-log entry's key.
func LogSeq(b []byte) uint64 { return binary.BigEndian.Uint64(b[9:]) }

// Meta appends the key of one part of a partition's own state.
func Meta(dst []byte, partition uint64, name string) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, tagMeta), partition)
	return append(dst, name...)
}

// MetaName returns the name within the key of a partition's own state.
func MetaName(b []byte) string { return string(b[9:]) }

// Conflict appends the key of a conflict record.
func Conflict(dst []byte, partition, hlc uint64, id []byte) []byte {
	dst = Conflicts(dst, partition)
	dst = binary.BigEndian.AppendUint64(dst, hlc)
	return append(dst, id...)
}

// Catalog appends the key of a row of the catalog.
func Catalog(dst []byte, name string) []byte {
	return append(append(dst, tagCatalog), name...)
}

// CatalogName returns the name within a catalog row's key.
func CatalogName(b []byte) string { return string(b[1:]) }

// Installed appends the key under which a Raft group's host notes the snapshot that the state came from.
func Installed(dst []byte, group uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, tagGroup), group)
}

// End returns the least key beyond every key that begins with prefix, or nil when there is none.
func End(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xFF {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return nil
}

// Indexes appends the prefix of all index rows of a partition.
func Indexes(dst []byte, partition uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, tagIndex), partition)
}

// Conflicts appends the prefix of all conflict records of a partition.
func Conflicts(dst []byte, partition uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, tagConflict), partition)
}

// ConflictTime returns the clock reading within a conflict record's key.
func ConflictTime(b []byte) uint64 { return binary.BigEndian.Uint64(b[ConflictAt:]) }

// ConflictAt is where the time begins within a conflict record's key, behind which follows the id.
const ConflictAt = 9
