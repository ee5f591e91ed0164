package region

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// expiredAtMost is how long ago an item may have expired, in seconds: five years. What says that it did so before is not taken for a time.
// Source: the service's documentation of TTL.
const expiredAtMost = 5 * 365 * 24 * 3600

// Expiry is a run of a table's items, looked at for those whose time is over.
type Expiry struct {
	Over  []Expired
	Next  int64     // the earliest time at which another of them will be over, s since the Unix epoch; 0 for none
	Bytes int       // that were read
	Last  table.Key // the last item looked at; nil when there are no more behind
}

// Expired is an item whose time is over.
type Expired struct {
	Key    table.Key
	At     int64    // s since the Unix epoch, rounded down
	Newest crdt.Dot // of its record

	value item.Value // that said so
}

// Expiry looks at the items behind key after (nil: from the first), about maxBytes of them, for those whose attribute says that their
// time was over at now, in s since the Unix epoch. What it does not say as a number of seconds, of the last five years, says nothing.
func (t *Table) Expiry(ctx context.Context, attribute string, after table.Key, now int64, maxBytes int) (out Expiry, err error) {
	for _, p := range t.partitions() {
		end := p.End()
		if after != nil && end != nil && bytes.Compare(after, end) >= 0 {
			continue
		}
		if err := p.expiry(ctx, &out, attribute, after, end, now, maxBytes); err != nil || out.Last != nil {
			return out, err
		}
	}
	return out, nil
}

// expiry is Table.Expiry for a partition's items.
func (p *Partition) expiry(ctx context.Context, out *Expiry, attribute string, after, end table.Key, now int64, maxBytes int) error {
	from := keyenc.Record(nil, p.table.ID, p.Start)
	if after != nil && bytes.Compare(after, p.Start) >= 0 {
		from = append(keyenc.Record(nil, p.table.ID, after), 0)
	}
	rows := p.reader(ctx)
	it, err := rows.Iter(from, recordsEnd(p.table.ID, end))
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		key, stored := keyenc.RecordKey(it.Key()), it.Value()
		out.Bytes += len(key) + len(stored)
		if err := out.look(attribute, key, stored, now); err != nil {
			return fmt.Errorf("region: table %s, item %x: %w", p.table.Schema().Name, key, err)
		}
		if out.Bytes >= maxBytes {
			out.Last = bytes.Clone(key)
			break
		}
	}
	return errors.Join(it.Err(), rows.stood())
}

func (e *Expiry) look(attribute string, key table.Key, stored []byte, now int64) error {
	visible, exists, err := crdt.PeekVisible(stored)
	if err != nil || !exists {
		return err
	}
	raw := item.Attr(visible, attribute)
	if item.RawKind(raw) != item.KindN {
		return nil
	}
	value, err := item.DecodeValue(raw)
	if err != nil {
		return err
	}
	at, ok := seconds(value.Number())
	switch {
	case !ok || at < now-expiredAtMost:
	case at <= now:
		e.Over = append(e.Over, Expired{slices.Clone(key), at, crdt.PeekDot(stored), value})
	case e.Next == 0 || at < e.Next:
		e.Next = at
	}
	return nil
}

// seconds is a number without its fraction, if it is one of seconds that anybody may live to see.
func seconds(n item.Number) (int64, bool) {
	if n.Sign() <= 0 || n.Cmp(farthest) > 0 {
		return 0, false
	}
	whole, _, _ := strings.Cut(n.String(), ".")
	at, err := strconv.ParseInt(whole, 10, 64)
	return at, err == nil
}

var farthest = item.NumberFromInt(1 << 60)

// Command is what ends the item, if it still says what it said.
func (x *Expired) Command(attribute string) (*op.Command, error) {
	ph := expr.Given(map[string]string{"#at": attribute}, map[string]item.Value{":at": x.value})
	said, err := expr.BuildCondition("#at = :at", &ph)
	return &op.Command{Kind: op.Expire, Key: x.Key, Condition: said}, err
}
