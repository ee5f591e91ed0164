package region

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/region/partition"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/table"
)

const (
	// askLimit bounds one question: longer than whoever is asked waits for a leader.
	askLimit = 12 * time.Second
	// askPatience is how long it is looked for a node that can answer.
	askPatience = 10 * time.Second
	// askAgain is how long it is waited before all are asked again.
	askAgain = 50 * time.Millisecond
	// askLook is how often it is looked whether a node that was asked is still there.
	askLook = 250 * time.Millisecond
	// logSizeLimit bounds the question for a log's size, which others wait for.
	logSizeLimit = time.Second
	// firstRows and mostRows are how many bytes of rows are fetched at first, and at most, at a time.
	firstRows = 16 << 10
	mostRows  = 1 << 20
)

// ErrNotAsked is Config.Ask's: the question has not been sent.
var ErrNotAsked = errors.New("region: the node cannot be reached")

// askable returns the nodes that may hold the partition, in the order in which they should be asked.
func (p *Partition) askable() (ids []uint64) {
	r, w := p.table.region, p.word.Load()
	up := r.host.Up()
	for _, known := range [][]uint64{{w.Leader, p.last.Load()}, w.Voters, p.Nodes()} {
		for _, id := range known {
			if id != 0 && id != r.cfg.NodeID && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	p.mu.Lock()
	missed := p.missed
	p.mu.Unlock()
	late := func(id uint64) int {
		if !slices.Contains(up, id) {
			return len(missed)
		}
		return slices.Index(missed, id)
	}
	slices.SortStableFunc(ids, func(a, b uint64) int { return cmp.Compare(late(a), late(b)) })
	return ids
}

// ask asks the nodes that hold the partition, one after the other, until one has an answer. once says that the question has an effect, and is
// not asked again once a node may have heard it: group.ErrUnknown.
func (p *Partition) ask(ctx context.Context, q []byte, once bool) (answer []byte, err error) {
	r := p.table.region
	begun := r.cfg.Now()
	for err = errNoAskable; ; {
		for _, id := range p.askable() {
			answer, err = r.askNode(ctx, id, q, askLimit)
			switch {
			case err == nil:
				p.last.Store(id)
				return answer, nil
			case ctx.Err() != nil:
				return nil, fmt.Errorf("%w: %w", group.ErrUnknown, context.Cause(ctx))
			case errors.Is(err, errNotHere):
				p.miss(id)
			case errors.Is(err, ErrNotAsked), errors.Is(err, group.ErrNoLeader), errors.Is(err, group.ErrGone), errors.Is(err, group.ErrClosed):
			case errors.Is(err, op.ErrMoved), errors.Is(err, group.ErrOverloaded), errors.Is(err, ErrFull), errors.Is(err, ErrNoSplitKey):
				return nil, err
			case once:
				return nil, fmt.Errorf("%w: node %d: %w", group.ErrUnknown, id, err)
			}
			if p.here() != nil {
				return nil, group.ErrGone // it has come here meanwhile
			}
		}
		if p.isGone() || r.cfg.Now().Sub(begun) >= askPatience {
			break
		}
		if r.cfg.Tasks.Wait(ctx, nil, askAgain) == task.Ended {
			return nil, context.Cause(ctx)
		}
	}
	if p.isGone() {
		return nil, group.ErrGone
	}
	return nil, fmt.Errorf("%w: partition %d: %w", group.ErrNoLeader, p.ID, err)
}

// isGone tells whether the partition is none of the table's any more.
func (p *Partition) isGone() bool {
	if p.gone.Load() {
		return true
	}
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	return p.table.going
}

// askNode asks one node, and gives it up when it is not heard of any more, or has not answered for so long.
func (r *Region) askNode(ctx context.Context, id uint64, q []byte, limit time.Duration) ([]byte, error) {
	if r.cfg.Ask == nil {
		return nil, ErrNotAsked
	}
	ctx, cancel := r.cfg.Tasks.WithTimeout(ctx, limit)
	defer cancel()
	var answer []byte
	var err error
	done := make(chan struct{}, 1)
	r.cfg.Tasks.Go(func() {
		answer, err = r.cfg.Ask(ctx, id, q)
		task.Poke(done)
	})
	for r.cfg.Tasks.Wait(context.Background(), done, askLook) == task.Late {
		if !r.Up(id) {
			cancel()
		}
	}
	if err != nil {
		return nil, err
	}
	switch {
	case len(answer) == 0:
		return nil, errAnswer
	case answer[0] == answered:
		return answer[1:], nil
	case answer[0] == refused:
		return nil, refusalOf(answer[1:])
	case answer[0] == moved:
		d := reading{b: answer[1:]}
		if p := r.partition(d.number()); p != nil && !d.bad {
			p.hear(d.b)
		}
		return nil, op.ErrMoved
	}
	return nil, errAnswer
}

// doElsewhere has a command carried out by a node that holds the partition.
func (p *Partition) doElsewhere(ctx context.Context, c *op.Command) (op.Result, error) {
	answer, err := p.ask(ctx, c.Append(question(askDo, p.ID)), true)
	if err != nil {
		return op.Result{}, err
	}
	result, err := op.DecodeResult(answer)
	if err != nil {
		return op.Result{}, fmt.Errorf("%w: %w", group.ErrUnknown, err)
	}
	return result, nil
}

// syncElsewhere hears what the partition has come to, all that was acknowledged before among it.
func (p *Partition) syncElsewhere(ctx context.Context) error {
	answer, err := p.ask(ctx, binary.BigEndian.AppendUint64(question(askSync, p.ID), p.word.Load().SchemaSum), false)
	if err != nil {
		return err
	}
	return p.hear(answer)
}

// getElsewhere is Get for an item of the partition.
func (p *Partition) getElsewhere(ctx context.Context, key table.Key, strong bool) ([]byte, error) {
	answer, err := p.ask(ctx, appendBool(appendBytes(question(askGet, p.ID), key), strong), false)
	switch {
	case err != nil:
		return nil, err
	case len(answer) == 0:
		return nil, errAnswer
	case answer[0] == 0:
		return nil, nil
	}
	return answer[1:], nil
}

// fetched reads rows of a partition at a node that holds it.
type fetched struct {
	ctx   context.Context
	p     *Partition
	state *partition.State // as of which, or of later
	pin   uint64           // if not 0, of at, and as of then
	at    uint64
}

// Get is storage.Reader's.
func (f *fetched) Get(dst, key []byte) ([]byte, error) {
	rows, _, err := f.fetch(key, append(slices.Clone(key), 0), false, firstRows)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, storage.ErrNotFound
	}
	return append(dst, rows[0].Value...), nil
}

// Iter is storage.Reader's.
func (f *fetched) Iter(lower, upper []byte) (*storage.Iter, error) {
	return storage.IterPages(&fetching{fetched: f, most: firstRows}, lower, upper), nil
}

// Finder is storage.Reader's. Only who applies commands looks up so many rows.
func (f *fetched) Finder() (*storage.Finder, error) {
	return nil, errors.New("region: rows elsewhere are not looked up like that")
}

// fetching is a walk; the further it goes, the more is fetched at a time.
type fetching struct {
	*fetched
	most int
}

// Fetch is storage.Pages'.
func (f *fetching) Fetch(lower, upper []byte, last bool) ([]storage.Row, bool, error) {
	rows, all, err := f.fetch(lower, upper, last, f.most)
	f.most = min(4*f.most, mostRows)
	return rows, all, err
}

func (f *fetched) fetch(lower, upper []byte, last bool, most int) (rows []storage.Row, all bool, err error) {
	q := binary.AppendUvarint(question(askRows, f.p.ID), f.state.Applied)
	q = binary.AppendUvarint(appendOptional(q, f.state.Span.End), f.pin)
	q = appendBool(appendBytes(appendBytes(q, lower), upper), last)
	q = binary.AppendUvarint(q, uint64(most))
	var answer []byte
	if f.pin != 0 {
		answer, err = f.p.table.region.askNode(f.ctx, f.at, q, askLimit)
	} else {
		answer, err = f.p.ask(f.ctx, q, false)
	}
	if errors.Is(err, group.ErrGone) && f.p.here() != nil {
		err = op.ErrMoved // it has come here meanwhile: who reads begins anew
	}
	if err != nil {
		return nil, false, err
	}
	d := reading{b: answer}
	all = d.bool()
	for len(d.b) > 0 {
		rows = append(rows, storage.Row{Key: d.bytes(), Value: d.bytes()})
	}
	if d.bad {
		return nil, false, errAnswer
	}
	return rows, all, nil
}

// pinned is the partition as it stood at one moment, at whichever node. It holds space until closed.
type pinned struct {
	storage.Reader
	close func() error
}

// pin pins the partition as it stands, with all that was acknowledged before.
func (p *Partition) pin(ctx context.Context) (pinned, error) {
	for {
		g, err := p.here(), error(nil)
		if g == nil {
			out, err := p.pinElsewhere(ctx)
			if errors.Is(err, group.ErrGone) && p.here() != nil {
				continue
			}
			return out, err
		}
		if err = g.Read(ctx); err == nil {
			snap := p.table.region.cfg.Store.Snapshot()
			if p.replica.Load() == g {
				return pinned{snap, snap.Close}, nil
			}
			err = errors.Join(group.ErrGone, snap.Close())
		}
		if !errors.Is(err, group.ErrGone) || p.here() == g {
			return pinned{}, err
		}
	}
}

func (p *Partition) pinElsewhere(ctx context.Context) (pinned, error) {
	r := p.table.region
	answer, err := p.ask(ctx, question(askPin, p.ID), false)
	if err != nil {
		return pinned{}, err
	}
	d := reading{b: answer}
	at, pin := d.number(), d.number()
	if !d.done() {
		return pinned{}, errAnswer
	}
	return pinned{&fetched{ctx: ctx, p: p, state: &partition.State{}, pin: pin, at: at}, func() error {
		// Nobody waits for it: what is not let go is, after a while.
		ctx := context.WithoutCancel(ctx)
		_, err := r.askNode(ctx, at, binary.AppendUvarint(question(askUnpin, p.ID), pin), askAgain)
		if err != nil {
			r.cfg.Logger.Debug("region: what was pinned elsewhere is not let go yet", "partition", p.ID, "node", at, "err", err)
		}
		return nil
	}}, nil
}

// middle returns a hash in the middle of the partition's items.
func (p *Partition) middle(ctx context.Context) (table.Key, error) {
	if p.here() != nil {
		return p.middleHere()
	}
	answer, err := p.ask(ctx, question(askMiddle, p.ID), false)
	if err != nil {
		return nil, err
	}
	d := reading{b: answer}
	key := d.bytes()
	if !d.done() {
		return nil, errAnswer
	}
	return key, nil
}

// LogSize returns about how many bytes on disk the partition's change log takes, and the stamp of its first entry, 0 for none. It is 0 too
// if nobody who holds the partition can be asked.
func (p *Partition) LogSize() (bytes uint64, oldest crdt.HLC) {
	if p.here() != nil {
		return p.logSizeHere()
	}
	if s := p.State(); s.Trimmed == s.Seq {
		return 0, 0
	}
	ctx, cancel := p.table.region.cfg.Tasks.WithTimeout(context.Background(), logSizeLimit)
	defer cancel()
	answer, err := p.ask(ctx, question(askLogSize, p.ID), false)
	if err != nil {
		return 0, 0
	}
	d := reading{b: answer}
	bytes, oldest = d.number(), crdt.HLC(d.number())
	if !d.done() {
		return 0, 0
	}
	return bytes, oldest
}
