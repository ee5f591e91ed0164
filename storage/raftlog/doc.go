// Package raftlog is the one append-only log of all Raft groups of a node.
//
// It owns the segment files of one directory: their bytes, checksums, recovery and removal, and an index in
// memory of every live entry. It does not know what an entry means. It leaves to the caller the lock on the
// directory, when to sync, how far each group may be truncated (what the state machine has made durable
// elsewhere), snapshots of the state machine, and ending the process after a failed sync. That the whole
// directory was not emptied or exchanged for an older copy is for the node's identity file to say.
//
// Invariants:
//   - What [Log.Commit] acknowledged with sync is there after any crash, whole, or Open returns [ErrCorrupt].
//   - Nothing is replayed that was not handed to Commit, and no batch in part.
//   - Segments form one unbroken chain; only its oldest are ever removed, and only when nothing in them is live.
//
// # Bytes
//
// Integers are little-endian. A sum is CRC32C (Castagnoli), started from a key instead of zero: for frames the
// key is CRC32C(salt ‖ segment id), so that bytes of another segment, or bytes a client chose, never pass.
//
// A segment is a file named by its id, 16 hex digits and ".seg", of exactly the size its header states, zero
// where nothing was written yet:
//
//	 0        8        16        24        32        40        48        56    60    64
//	 | magic  | salt   | id      | first   | prev    | prevEnd | size    | 0   | sum | frames ...
//
//	magic    "CMTRLOG1"
//	salt     the caller's random number, the same in all segments of a log
//	id       1 and up; used again only for a segment that nothing linked to
//	first    sequence number of the first frame, which is a checkpoint
//	prev     id of the segment before; 0 if there was none
//	prevEnd  where in that segment the link frame to this one begins
//	size     of the file, bytes
//	sum      of bytes 0 to 60, key 0
//
// A frame is one Commit. It begins at a multiple of 32 and is padded with zeros to the next:
//
//	 0       4     8         16    20       24        28      32
//	 | magic | sum | seq     | lag | length | bodySum | zeros | body ... | padding |
//
//	magic    0x4d524643
//	sum      of bytes 8 to 32
//	seq      one more than the frame before, through all segments
//	lag      how many frames straight before this one were not known to be durable when it was written
//	length   of the body without padding, bytes
//	bodySum  of body and padding
//	zeros    how many 512-byte sectors of the file hold only zeros of this frame (its part of them)
//
// The body is a row of records; an empty body is a seal. A record is a kind (1 byte), a group (8), and:
//
//	1 hard state   term 8, vote 8, commit 8
//	2 entries      first index 8, count 4, entries; replaces what the group has from first on
//	3 snapshot     index 8, term 8, length 4, ConfState; the log is empty and goes on after index
//	4 conf state   length 4, ConfState
//	5 truncate     index 8, term 8; entries up to and with index are no longer needed
//	6 remove       nothing; the group is gone
//	7 rewrite      truncated index 8 and term 8, count 4, entries; the group's whole log, moved forward
//	8 checkpoint   has hard state 1 (2: and is let go), term 8, vote 8, commit 8, truncated index 8 and term 8,
//	               last index 8, length 4, ConfState; the group as it stood when the segment began
//	9 link         nothing; the "group" is the id of the segment that follows; last frame of a segment
//	10 let go      term 8, vote 8; nothing is left of the group but these, and a mark that the next hard state removes
//
//	entry          sum 4, length of data 4, term 8, type 1, data; the sum is of what follows it, its key made
//	               of group and index (entryKey); ConfState is in its protobuf form
//
// # Torn or rotten
//
// A crash may lose any sectors written since the last sync; rot changes bits of sectors that were durable. Both
// leave a frame whose sum is wrong, and to take the second for the first is to forget an acknowledged entry. They are
// told apart without a second write or sync, because space is zero before it is written and a sector (512 bytes,
// aligned) reaches the disk whole or not at all:
//
//   - A frame's header lies within one sector. All zero: never written. Wrong and not zero: rot.
//   - Header right, body wrong: if more sectors of the frame are zero than were when it was written, some never
//     reached the disk: torn. If not, all are there and one is wrong: rot.
//   - Torn or absent, but a later frame was written when this one was known to be durable (seq and lag), or the
//     next segment began after it: rot.
//   - A file shorter than its header says, a segment that its neighbour's link names and that is not there, or an
//     entry that a checkpoint counts and no segment holds: damage.
//
// So any flipped bits in what was acknowledged are found at Open, in the last frame too. What can still pass
// as torn: whole sectors of zeros where frames of the last synced group were (those after the newest frame that
// another durable frame follows). [Log.Seal] and [Log.Close] close that window; so does the next Commit. What
// may be reported as rot and is none: a power cut while the kernel was writing out a sector that a Commit was just
// then copying into, on a disk that then kept the half-copied sector.
package raftlog
