package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/internal/task"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
	"github.com/commutatordb/commutator/table"
)

// openTable returns a table of a region alone, by a clock, that has a replica in eu-west-1.
func openTable(t *testing.T, now func() time.Time) (*region.Region, *region.Table) {
	t.Helper()
	fs := vfs.NewMem()
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: 1, NoBackground: true})
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(storage.Options{FS: fs, Dir: "state"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := region.Open(region.Config{Name: "us-east-1", Actor: crdt.NewActor("us-east-1", 0), NodeID: 1, Log: log, Store: store, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, store.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := r.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	changed, stop := r.Watch()
	defer stop()
	if _, err := r.Create(ctx, &table.Definition{
		Schema:   table.Schema{Name: "orders", Hash: table.Attribute{Name: "pk", Kind: item.KindS}},
		Replicas: []table.Replica{{Region: "eu-west-1", Status: table.Active, Version: 1}, {Region: "us-east-1", Status: table.Active, Version: 1}},
	}); err != nil {
		t.Fatal(err)
	}
	for {
		if tab, err := r.Table(ctx, "orders"); err == nil {
			return r, tab
		}
		<-changed
	}
}

// arrived is a batch of eu-west-1's puts, each of some bytes, up to a number, and stamped then.
func arrived(t *testing.T, tab *region.Table, from, to, bytes int, at time.Time) replication.Batch {
	t.Helper()
	b := replication.Batch{After: uint64(from), Seq: uint64(to)}
	for i := from; i < to; i++ {
		stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S(fmt.Sprint(i))}, item.Field{Name: "data", Value: item.B(string(make([]byte, bytes)))}))
		key, err := tab.Schema().KeyOf(stored)
		if err != nil {
			t.Fatal(err)
		}
		w := crdt.Write{Dot: crdt.Dot{HLC: crdt.At(at.UnixMilli(), uint16(i)), Actor: crdt.NewActor("eu-west-1", 0)}, Origin: crdt.Origin{Op: crdt.Put}, Item: stored}
		b.Changes = append(b.Changes, replication.Change{Key: key, Delta: (&crdt.Record{}).Write(w).Append(nil)})
	}
	return b
}

// follower is where a stream of eu-west-1's goes.
func follower(t *testing.T, now func() time.Time) (*sink, *region.Table) {
	r, tab := openTable(t, now)
	return &sink{r: newReplicator(r, now, task.Goroutines, slog.New(slog.DiscardHandler)), t: tab, s: stream{peer: "eu-west-1"}, stream: "eu"}, tab
}

// writeHere writes an item as a client here does.
func writeHere(t *testing.T, tab *region.Table) {
	t.Helper()
	stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("own")}))
	key, err := tab.Schema().KeyOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	if result, err := tab.Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored}); err != nil || result.Err != nil {
		t.Fatal(err, result.Err)
	}
}

func TestAStreamIsFurtherOnlyWithTheLastPartOfABatch(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	k, tab := follower(t, func() time.Time { return now })
	writeHere(t, tab)
	b := arrived(t, tab, 0, 3, 1000, now)
	k.r.mergeBytes = 1
	whole := b.Changes[2].Delta
	b.Changes[2].Delta = whole[:len(whole)-1]
	if err := k.Apply(t.Context(), b); err == nil || tab.Cursor("eu") != 0 {
		t.Errorf("when the last part cannot be merged (%v) the cursor is at %d", err, tab.Cursor("eu"))
	}
	if items, _ := tab.Stats(); items != 3 {
		t.Errorf("%d items, want a client's and the first two parts'", items)
	}
	b.Changes[2].Delta = whole
	if err := k.Apply(t.Context(), b); err != nil || tab.Cursor("eu") != 3 {
		t.Errorf("sent again: %v, the cursor is at %d", err, tab.Cursor("eu"))
	}
	if items, _ := tab.Stats(); items != 4 {
		t.Errorf("%d items, want a client's and all parts'", items)
	}
}

func TestClientsWaitForLittleOfWhatIsCaughtUpWith(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	k, tab := follower(t, func() time.Time { return now })
	commands := func(from, to int) uint64 {
		t.Helper()
		before := tab.Partitions()[0].State()
		if err := k.Apply(t.Context(), arrived(t, tab, from, to, 16<<10, now)); err != nil {
			t.Fatal(err)
		}
		after := tab.Partitions()[0].State()
		if after.Items-before.Items != int64(to-from) || tab.Cursor("eu") != uint64(to) {
			t.Fatalf("of %d changes up to %d, %d were applied, and the cursor is at %d", to-from, to, after.Items-before.Items, tab.Cursor("eu"))
		}
		return after.Applied - before.Applied
	}
	const n = 64 // in all 1 MB
	if got := commands(0, n); got != 1 {
		t.Errorf("where nobody writes, what has come is applied by %d commands", got)
	}
	writeHere(t, tab)
	if got, want := commands(n, 2*n), uint64(5); got != want { // of 15 changes, the last of 4
		t.Errorf("beside a client's writes it is applied by %d commands, want %d", got, want)
	}
	if got := commands(2*n, 2*n+1); got != 1 {
		t.Errorf("a change by %d commands", got)
	}
	if now = now.Add(2 * besideFor); commands(2*n+1, 3*n) != 1 {
		t.Error("when they have ended it is still applied in parts")
	}
}
