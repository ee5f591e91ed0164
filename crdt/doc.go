// Package crdt owns order and merge: the clock and the dots that order writes, the record that is kept
// of an item, the delta that a write adds to it, and the one function, Join, that brings any two of them
// together. What the modes mean is decided here (Write) and nowhere else.
//
// It leaves the meaning of expressions to package expr, which gives it the edits of an update
// (item.Change); bytes on disk and checksums to storage; shipping, FIFO per origin and the vectors of
// streams to replication; conditions, keys and what is done with conflicts to region. It has no clock
// of its own, no goroutine, no randomness.
//
// Invariants: two records that hold the same writes show the same item, in whatever order, how often
// and by whatever ways the writes came, folded or not; equal records have equal bytes; a write shows in
// its own region exactly what DynamoDB's sequential semantics give.
//
// # The rule
//
// A write overrides what it had seen; what it had not seen is merged. For each path the greatest
// assignment at or above it governs; increments, set edits and appends that it had not seen are
// applied to its value. A delete and a write that had not seen each other: the later wins, and where
// the write wins the whole item comes back.
//
// # Stored form of a record
//
// All integers are big-endian or uvarint (of the shortest form).
//
//	record  = header, rest
//	header  = HLC (8; its top 4 bits hold the format), actor (4)    the newest dot seen
//
//	format 0, folded: the steady state. rest is the stored item (package item) to the end.
//	format 1, open with an item:    length (uvarint), stored item, state
//	format 2, open and deleted:     state
//	format 3, delta:                origin, vector (seen by the writer), state without its seen
//
//	state   = flags (1), [seen], [writes], [dead], [expired], [expiry], [root], [count (uvarint), node...]
//	flags     01 root, 02 root's value is the visible item, 04 writes differs from seen,
//	          08 dead, 10 expired, 20 expiry, 80 nodes,
//	          40 all was folded at the header's dot: seen is left out, and of the root all but its value
//	seen      a vector; the entry of the header's dot is left out
//	writes, expired = vector;  dead, expiry = assign without value
//	root    = assign, with a stored item in a delta and otherwise without value; then, unless flag 02, [value]:
//	          where it is deleted the stored item; else what of it is otherwise than in the visible item: length,
//	          stored item of those attributes, count and names of those that it does not have
//	node    = path, flags (1), [assign], [sums], [adds], [removes], [appends]
//	flags     01 assign, 02 sums, 04 adds, 08 removes, 10 appends; each list: count (uvarint), then
//	sum     = actor, HLC, HLC of the entry's first increment (below that of the sum), number
//	add     = element, dot
//	remove  = element, dot, vector
//	append  = dot, length, stored L
//	assign  = origin, dot, [dot of the expiry, when origin's operation is Expire], vector, totals, [value]
//	          at the header's dot, without totals, and no Expire: origin + 80, vector, [value]
//	          in a delta, the delta's own assignments: 80 or C0, totals, [value]
//	totals  = count (uvarint), then each: path below the assignment's, actor, HLC, number
//	origin  = flags (1), [transaction id (16), items (2)]
//	flags     lower 4 bits operation, 10 conditional, 20 transaction, 40 no value
//	vector  = 2*entries + (1 if it has a floor) (uvarint), [dot of the floor], dot...    sorted by actor
//	dot     = actor, HLC
//	actor   = 2*index (uvarint) into the actors met so far, of which 0 is the header's and 1 FFFFFFFF,
//	          or 2*(incarnation<<22 + hash of the region) + 1 (uvarint)
//	HLC     = 2*(how many ms below the header's), and 1 more if its counter, within the header's ms how far it is
//	          below the header's, is not 0 and follows (both uvarint)
//	number  = 4*n, or 4*(-n)-2, of a whole number of less than 62 bits (uvarint), or 1, stored N
//	path    = count (uvarint), each: length (uvarint), name
//	element, value, item = length (uvarint), stored form
package crdt
