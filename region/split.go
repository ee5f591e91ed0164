package region

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage/keyenc"
	"github.com/commutatordb/commutator/table"
)

// How a table comes to more partitions. That one is to be cut, and the id of what is cut off, is in the catalog first; the node that leads it
// has the partition's log do it (region/partition/split.go), and then puts the child into the catalog. It is gone on with from wherever a
// crash or another leader has left it. Source: docs/decisions/0023.

// SplitConfig says when a partition is cut by itself, and when two become one again.
type SplitConfig struct {
	Bytes  int64         // of its items; 0: 10 GiB; negative: never
	Writes float64       // a second, for a minute; 0: 20,000; negative: never
	Every  time.Duration // how often that is looked at; 0: 1 s
	Most   int           // how many partitions of a table there are at most, 0: 256; by hand there may be more
	Step   int           // how many items, or rows, one command of a split looks at; 0: 256
	// MergeAfter is for how long two neighbours must have been empty, and not written to, to be merged; 0: 10 min; negative: never.
	MergeAfter time.Duration
}

const (
	defaultSplitBytes  = 10 << 30
	defaultSplitWrites = 20_000
	defaultLook        = time.Second
	// readyWait is how long other nodes have for flushReady.
	readyWait = 100 * time.Millisecond
	// splitSteady is for how long a partition must have been written to so much.
	splitSteady = time.Minute
	// defaultSplitStep takes some milliseconds, in which other commands of the node wait.
	defaultSplitStep = 256
)

func (c *SplitConfig) fillIn() {
	if c.Bytes == 0 {
		c.Bytes = defaultSplitBytes
	}
	if c.Writes == 0 {
		c.Writes = defaultSplitWrites
	}
	if c.Every == 0 {
		c.Every = defaultLook
	}
	if c.Most == 0 {
		c.Most = 256
	}
	if c.Step == 0 {
		c.Step = defaultSplitStep
	}
	if c.MergeAfter == 0 {
		c.MergeAfter = defaultMergeAfter
	}
}

// Errors of Split.
var (
	ErrNoPartition = errors.New("region: the table has no such partition")
	ErrSplitting   = errors.New("region: the partition is being split already")
	ErrSplitKey    = errors.New("region: a partition is split at a hash, of up to 8 bytes, between its first key and its end")
	ErrNoSplitKey  = errors.New("region: there is no hash between the partition's items at which it could be split")
)

// Split has a partition cut in two at a hash, nil for one in the middle of its items, and returns the id of what is cut off. It returns when that
// is to happen for sure, not when it has. It returns ErrNoTable, ErrNotActive, ErrNoPartition, ErrSplitting, ErrMerging, ErrSplitKey or
// ErrNoSplitKey.
func (r *Region) Split(ctx context.Context, name string, id uint64, at table.Key) (child uint64, err error) {
	t, err := r.Table(ctx, name)
	if err != nil {
		return 0, err
	}
	if at == nil {
		p := t.partitions().byID(id)
		if p == nil {
			return 0, ErrNoPartition
		}
		if at, err = p.middle(ctx); err != nil {
			return 0, err
		}
	}
	_, child, err = r.allocate(ctx, 0, 1)
	if err != nil {
		return 0, err
	}
	_, err = r.Change(ctx, name, func(d *table.Definition) error {
		i := slices.IndexFunc(d.Partitions, func(p table.Partition) bool { return p.ID == id })
		switch {
		case d.ID != t.ID || d.Status != table.Active && d.Status != table.Updating:
			return ErrNotActive
		case i < 0:
			return ErrNoPartition
		case d.Partitions[i].Split != nil:
			return ErrSplitting
		case merging(d.Partitions, i):
			return ErrMerging
		case len(at) > hashBytes || bytes.Compare(at, d.Partitions[i].Start) <= 0 || i+1 < len(d.Partitions) && bytes.Compare(at, d.Partitions[i+1].Start) >= 0:
			return ErrSplitKey
		}
		d.Partitions[i].Split = &table.Splitting{Child: child, At: at}
		return nil
	})
	return child, err
}

// hashBytes is how many bytes of a key are the hash of its partition key. Items of one partition key are never parted.
const hashBytes = 8

// middleHere is middle by this node's replica.
func (p *Partition) middleHere() (table.Key, error) {
	store, id := p.table.region.cfg.Store, p.table.ID
	it, err := store.Iter(keyenc.Record(nil, id, p.Start), recordsEnd(id, p.own.Load().Span.End))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	if !it.First() {
		return nil, errors.Join(it.Err(), ErrNoSplitKey)
	}
	lo := hashOf(keyenc.RecordKey(it.Key()))
	if !it.Last() {
		return nil, errors.Join(it.Err(), ErrNoSplitKey)
	}
	hi := hashOf(keyenc.RecordKey(it.Key()))
	if lo >= hi {
		return nil, ErrNoSplitKey
	}
	// Hashes are even, items need not be: of what is in files, halves are sought. What is not yet, is little.
	at := lo + (hi-lo)/2
	row := func(hash uint64) []byte { return keyenc.Record(nil, id, binary.BigEndian.AppendUint64(nil, hash)) }
	if all := store.EstimateBytes(row(lo), row(hi)); all >= splitEstimate {
		for from, to := lo, hi; to-from > 1; {
			at = from + (to-from)/2
			if store.EstimateBytes(row(lo), row(at)) < all/2 {
				from = at
			} else {
				to = at
			}
		}
	}
	return binary.BigEndian.AppendUint64(nil, max(at, lo+1)), nil
}

// splitEstimate is how many bytes in files tell how a partition's items lie.
const splitEstimate = 8 << 20

func hashOf(key table.Key) uint64 {
	var b [hashBytes]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// keepSplit carries out the splits of the catalog, and orders those that are due, while this node leads it.
func (r *Region) keepSplit(ctx context.Context) error {
	changed, stop := r.Watch()
	defer stop()
	if r.cfg.Tasks.Wait(ctx, r.opened, 0) == task.Ended {
		return nil
	}
	for due := r.cfg.Now(); ; {
		r.flushReady()
		if r.Leads() {
			for _, t := range r.Tables() {
				if err := r.splitTable(ctx, t); err != nil && ctx.Err() == nil {
					r.cfg.Logger.Debug("region: split", "table", t.Schema().Name, "err", err)
				}
			}
		}
		wait := r.cfg.Split.Every
		if now := r.cfg.Now(); now.Before(due) && due.Sub(now) <= wait {
			wait = due.Sub(now)
		} else {
			r.orderSplits(ctx)
			due = now.Add(wait)
		}
		if r.cfg.Tasks.Wait(ctx, changed, max(wait, time.Millisecond)) == task.Ended {
			return nil
		}
	}
}

// flushReady writes what there is in memory when a draft is ready: each node has to wait, when it applies the cut, until that is on disk, and then
// it is little.
func (r *Region) flushReady() {
	for _, t := range r.Tables() {
		for _, p := range t.partitions() {
			was := p.ready
			if p.ready = p.State().Span.Ready; !p.ready || was {
				continue
			}
			if err := r.cfg.Store.Flush(); err != nil {
				r.cfg.Fatal(fmt.Errorf("region: partition %d: flush: %w", p.ID, err))
			}
		}
	}
}

// splitTable does what is to be done of a table's splits.
func (r *Region) splitTable(ctx context.Context, t *Table) error {
	d, err := r.definition(t.Schema().Name)
	if err != nil || d.ID != t.ID || d.Status == table.Deleting {
		return err
	}
	var errs []error
	for _, pd := range d.Partitions {
		p := t.partitions().byID(pd.ID)
		if p == nil {
			continue
		}
		if pd.Split != nil {
			errs = append(errs, r.splitPartition(ctx, t, p, *pd.Split))
		}
		if p.State().Span.Prune {
			errs = append(errs, p.steps(ctx, &op.Command{Kind: op.Prune, Limit: r.cfg.Split.Step}))
		}
	}
	return errors.Join(errs...)
}

func (r *Region) splitPartition(ctx context.Context, t *Table, p *Partition, s table.Splitting) error {
	if err := p.steps(ctx, &op.Command{Kind: op.Split, Key: s.At, Child: s.Child, Limit: r.cfg.Split.Step}); err != nil {
		return err
	}
	if p.here() == nil {
		if err := p.sync(ctx); err != nil {
			return err
		}
	}
	state := p.State()
	span := state.Span
	if span.Child != s.Child {
		return fmt.Errorf("partition %d is not split at %x yet", p.ID, s.At)
	}
	_, err := r.Change(ctx, t.Schema().Name, func(d *table.Definition) error {
		for i := range d.Partitions {
			pd := &d.Partitions[i]
			if d.ID == t.ID && pd.ID == p.ID && pd.Split != nil && pd.Split.Child == s.Child {
				pd.Split = nil
				d.Partitions = slices.Insert(d.Partitions, i+1, table.Partition{ID: s.Child, Start: span.End, End: span.Until, Parent: p.ID, Behind: state.Seq, Nodes: slices.Clone(pd.Nodes)})
				break
			}
		}
		return nil
	})
	if err == nil {
		r.cfg.Logger.Info("region: a partition was split", "table", t.Schema().Name, "partition", p.ID, "at", s.At, "into", s.Child)
	}
	return err
}

// steps proposes a command again and again until there is no more to do.
func (p *Partition) steps(ctx context.Context, c *op.Command) error {
	for {
		if !p.table.region.Leads() {
			return errors.New("it is another node's now")
		}
		if p.State().Span.Ready {
			p.table.region.flushReady()
			p.table.region.cfg.Tasks.Wait(ctx, nil, readyWait)
		}
		again := *c
		result, err := p.do(ctx, &again)
		if err = errors.Join(err, result.Err); err != nil || !result.More {
			return err
		}
	}
}

// load is what a partition's replica here has seen written to it.
type load struct {
	mu     sync.Mutex
	writes uint64
	keys   []table.Key // some of the last ones', at most loadKeys
	next   int         // of keys: the one that the next takes the place of
	looked uint64      // writes, at the last look
	steady int         // how many looks in a row have seen too many
}

const loadKeys = 256

func (l *load) add(n uint64, some []table.Key) {
	if n == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes += n
	for _, key := range some {
		if len(l.keys) < loadKeys {
			l.keys = append(l.keys, key)
		} else {
			l.keys[l.next] = key
			l.next = (l.next + 1) % loadKeys
		}
	}
}

// total is how often the partition was written to, since the start.
func (l *load) total() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

// look tells, once in every so long, whether the partition has been written to more often than so many times a second for long, and a
// hash that parts what was: nil if none does, as with one hot key.
func (l *load) look(most float64, every time.Duration) (over bool, at table.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.writes - l.looked
	l.looked = l.writes
	if most < 0 || float64(n) < most*every.Seconds() {
		l.steady = 0
		return false, nil
	}
	if l.steady++; time.Duration(l.steady)*every < splitSteady {
		return false, nil
	}
	l.steady = 0
	hashes := make([]uint64, len(l.keys))
	for i, key := range l.keys {
		hashes[i] = hashOf(key)
	}
	slices.Sort(hashes)
	if len(hashes) < loadKeys/4 {
		return true, nil
	}
	middle := hashes[len(hashes)/2]
	first, _ := slices.BinarySearch(hashes, middle)
	if first < len(hashes)/8 {
		return true, nil // most of it is below, or at, one hash
	}
	return true, binary.BigEndian.AppendUint64(nil, middle)
}

// orderSplits orders the splits that are due of partitions that this node leads.
func (r *Region) orderSplits(ctx context.Context) {
	c := &r.cfg.Split
	for _, t := range r.Tables() {
		d := t.Definition()
		if d.Status != table.Active {
			continue
		}
		room := c.Most - len(table.IDs(d.Partitions))
		for _, p := range t.partitions() {
			over, at := p.load.look(c.Writes, c.Every)
			state := p.State()
			if !p.Leads() || room <= 0 || state.Span.Prune || state.Span.Drafting {
				continue
			}
			if large := c.Bytes >= 0 && state.Bytes >= c.Bytes; !large && (!over || at == nil) {
				continue
			} else if large {
				at = nil
			}
			if _, err := r.Split(ctx, d.Schema.Name, p.ID, at); err == nil {
				room--
			} else if !errors.Is(err, ErrSplitting) && !errors.Is(err, ErrMerging) && !errors.Is(err, ErrNoSplitKey) && !errors.Is(err, group.ErrClosed) && ctx.Err() == nil {
				r.cfg.Logger.Debug("region: a split could not be ordered", "table", d.Schema.Name, "partition", p.ID, "err", err)
			}
		}
	}
}
