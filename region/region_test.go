package region

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/expr"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
	"github.com/commutatordb/commutator/table"
)

// counted runs a test of a region whose tables have one partition, two, and five.
func counted(t *testing.T, test func(t *testing.T, partitions int)) {
	for _, n := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(n, "-partitions"), func(t *testing.T) { test(t, n) })
	}
}

// start opens a region on fs and runs it; stop ends it as a crash would, without a flush.
func start(t testing.TB, fs vfs.FS, partitions int) (r *Region, stop func()) {
	t.Helper()
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: 1, NoBackground: true, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var open *Region
	store, err := storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 64 << 20, MemTableBytes: 256 << 10, Flushed: func() {
		if open != nil {
			open.Flushed()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err = Open(Config{Partitions: partitions, Name: "us-east-1", Actor: crdt.NewActor("us-east-1", 1), NodeID: 1, Log: log, Store: store, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	open = r
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	if err := r.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return r, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := store.CloseWithoutFlush(); err != nil {
			t.Error(err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
}

func create(t testing.TB, r *Region, schema table.Schema) *Table {
	t.Helper()
	ctx := t.Context()
	changed, stop := r.Watch()
	defer stop()
	if _, err := r.Create(ctx, &table.Definition{Schema: schema}); err != nil {
		t.Fatal(err)
	}
	for {
		tab, err := r.Table(ctx, schema.Name)
		if err == nil {
			return tab
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("table %s is not active: %v", schema.Name, err)
		}
	}
}

var orders = table.Schema{
	Name: "orders", Hash: table.Attribute{Name: "pk", Kind: item.KindS}, Range: table.Attribute{Name: "sk", Kind: item.KindN},
	Indexes: []table.Index{{Name: "by-state", Global: true, Hash: []table.Attribute{{Name: "state", Kind: item.KindS}}, Projection: table.ProjectKeys}},
}

// order is in one of sixteen places, whatever partitions those are in.
func order(pk string, sk int, state string) item.Item {
	return item.NewItem(item.Field{Name: "pk", Value: item.S(fmt.Sprint(pk, "-", sk%16))}, item.Field{Name: "sk", Value: item.N(item.NumberFromInt(int64(sk)))},
		item.Field{Name: "state", Value: item.S(state)})
}

func put(t *testing.T, tab *Table, it item.Item) op.Result {
	t.Helper()
	stored := item.AppendItem(nil, it)
	key, err := tab.Schema().KeyOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	result, err := tab.Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored})
	if err != nil || result.Err != nil {
		t.Fatal(err, result.Err)
	}
	return result
}

func TestWritesSurviveACrashAndIndexesFollow(t *testing.T) {
	counted(t, func(t *testing.T, partitions int) {
		fs := vfs.NewCrashableMem()
		r, stop := start(t, fs, partitions)
		tab := create(t, r, orders)
		for i := range 200 {
			put(t, tab, order("a", i, "open"))
		}
		put(t, tab, order("a", 7, "closed"))
		stop()

		r, stop = start(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), partitions)
		defer stop()
		tab, err := r.Table(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		page, err := tab.Page(t.Context(), op.Page{}, true)
		if err != nil || len(page.Items) != 200 {
			t.Fatalf("%d items, %v", len(page.Items), err)
		}
		if items, _ := tab.Stats(); items != 200 {
			t.Errorf("%d items counted", items)
		}
		open, err := tab.Page(t.Context(), op.Page{Index: tab.Schema().Index("by-state")}, false)
		if err != nil || len(open.Items) != 200 {
			t.Fatalf("%d index rows, %v", len(open.Items), err)
		}
		states := map[string]int{}
		for _, stored := range open.Items {
			it, err := item.DecodeItem(stored)
			if err != nil {
				t.Fatal(err)
			}
			states[it.Get("state").Str()]++
		}
		if states["open"] != 199 || states["closed"] != 1 {
			t.Errorf("index rows: %v", states)
		}
	})
}

func TestConcurrentIncrementsAllCount(t *testing.T) {
	counted(t, func(t *testing.T, partitions int) {
		r, stop := start(t, vfs.NewCrashableMem(), partitions)
		defer stop()
		tab := create(t, r, table.Schema{Name: "counters", Hash: table.Attribute{Name: "pk", Kind: item.KindS}})
		one := expr.Given(nil, map[string]item.Value{":one": item.N(item.NumberFromInt(1))})
		update, err := expr.ParseUpdate("ADD visits :one", &one)
		if err != nil {
			t.Fatal(err)
		}
		key := tab.Schema().KeyOfValues(item.S("home"), item.Value{})
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 20 {
					if result, err := tab.Write(t.Context(), &op.Command{Kind: op.Update, Key: key, Update: update}); err != nil || result.Err != nil {
						t.Error(err, result.Err)
					}
				}
			})
		}
		wg.Wait()
		stored, err := tab.Get(t.Context(), key, true)
		if err != nil {
			t.Fatal(err)
		}
		it, err := item.DecodeItem(stored)
		if err != nil || it.Get("visits").Number().String() != "320" || it.Get("pk").Str() != "home" {
			t.Fatalf("%v, %v", it, err)
		}
	})
}

func TestADeletedTableIsGoneForGood(t *testing.T) {
	counted(t, func(t *testing.T, partitions int) {
		fs := vfs.NewCrashableMem()
		r, stop := start(t, fs, partitions)
		tab := create(t, r, orders)
		put(t, tab, order("a", 1, "open"))
		changed, unwatch := r.Watch()
		defer unwatch()
		if _, err := r.Delete(t.Context(), "orders", nil); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := r.Definition("orders"); err == ErrNoTable {
				break
			}
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Fatal("the table is not gone")
			}
		}
		tab = create(t, r, orders)
		if page, err := tab.Page(t.Context(), op.Page{}, true); err != nil || len(page.Items) != 0 {
			t.Fatalf("%d items in the new table, %v", len(page.Items), err)
		}
		stop()
		_, stop = start(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0}), partitions)
		stop()
	})
}

func BenchmarkPut(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			dir := b.TempDir()
			log, err := raftlog.Open(raftlog.Options{FS: vfs.Default, Dir: dir + "/log", Salt: 1})
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			store, err := storage.Open(storage.Options{FS: vfs.Default, Dir: dir + "/state"})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			r, err := Open(Config{Name: "us-east-1", Actor: 1, NodeID: 1, Log: log, Store: store, Now: time.Now})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			defer func() { cancel(); <-done }()
			r.Ready(ctx)
			r.Create(ctx, &table.Definition{Schema: table.Schema{Name: "t", Hash: table.Attribute{Name: "pk", Kind: item.KindS}}})
			changed, stop := r.Watch()
			defer stop()
			var tab *Table
			for tab == nil {
				if tab, err = r.Table(ctx, "t"); err != nil {
					<-changed
				}
			}
			payload := item.S(string(make([]byte, 1000)))
			var next, wg = make(chan int, 1024), sync.WaitGroup{}
			b.ReportAllocs()
			b.ResetTimer()
			for range clients {
				wg.Go(func() {
					for i := range next {
						it := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S(fmt.Sprint(i % 100000))}, item.Field{Name: "v", Value: payload}))
						key, _ := tab.Schema().KeyOf(it)
						if result, err := tab.Write(ctx, &op.Command{Kind: op.Put, Key: key, Item: it}); err != nil || result.Err != nil {
							b.Error(err, result.Err)
						}
					}
				})
			}
			for i := range b.N {
				next <- i
			}
			close(next)
			wg.Wait()
		})
	}
}

func TestATableWhoseLogIsGoneEndsTheNode(t *testing.T) {
	fs := vfs.NewCrashableMem()
	r, stop := start(t, fs, 1)
	tab := create(t, r, orders)
	put(t, tab, order("a", 1, "new"))
	if err := r.cfg.Store.Flush(); err != nil {
		t.Fatal(err)
	}
	id := tab.Partitions()[0].ID
	stop()
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", NoBackground: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	b := log.NewBatch()
	b.Remove(id)
	if err := log.Commit(b, true); err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer store.CloseWithoutFlush()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fatal := make(chan error, 1)
	again, err := Open(Config{Name: "us-east-1", Actor: crdt.NewActor("us-east-1", 1), NodeID: 1, Log: log, Store: store, Now: time.Now, Fatal: func(err error) {
		select {
		case fatal <- err:
		default:
		}
		cancel() // as the end of the process would end it
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-fatal:
		if !strings.Contains(err.Error(), "orders cannot be opened") {
			t.Errorf("it ended with %v", err)
		}
	default:
		t.Error("the node went on")
	}
}
