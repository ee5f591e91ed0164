package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/commutatordb/commutator/api/wire"
	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
	"github.com/commutatordb/commutator/storage"
	"github.com/commutatordb/commutator/storage/raftlog"
	"github.com/commutatordb/commutator/table"
)

// alone is a node that knows one region, which it cannot reach, and has no backup.
type alone struct{ heard time.Time }

func (a alone) Links() []Link {
	return []Link{{Region: "eu-west-1", Heard: a.heard, Error: "refused"}}
}
func (alone) Seeding(string) *Seeding { return nil }
func (alone) Lag(string) map[string]time.Duration {
	return map[string]time.Duration{"eu-west-1": 20 * time.Millisecond}
}
func (alone) Create(context.Context, string) (BackupJob, error) {
	return BackupJob{}, region.ErrNotActive
}
func (alone) Restore(_ context.Context, id, _ string) (BackupJob, error) {
	if id == "gone" {
		return BackupJob{}, backup.ErrNotFound
	}
	return BackupJob{}, region.ErrExists
}
func (alone) Job(string) (BackupJob, bool) { return BackupJob{}, false }
func (alone) List(context.Context, string) ([]*backup.Manifest, error) {
	return []*backup.Manifest{}, errors.New("one manifest is damaged")
}
func (alone) Describe(context.Context, string) (*backup.Manifest, error) {
	return nil, backup.ErrNotFound
}

var now = time.UnixMilli(1_700_000_000_000).UTC()

// start runs a region with a table that has replicas in two.
func start(t *testing.T) (*Operator, *region.Table) {
	t.Helper()
	fs := vfs.NewMem()
	log, err := raftlog.Open(raftlog.Options{FS: fs, Dir: "log", Salt: 1, NoBackground: true, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(storage.Options{FS: fs, Dir: "state", CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return now }
	r, err := region.Open(region.Config{Name: "us-east-1", Actor: crdt.NewActor("us-east-1", 0), NodeID: 1, Log: log, Store: store, Now: clock})
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
	d := &table.Definition{Schema: table.Schema{Name: "orders", Hash: table.Attribute{Name: "pk", Kind: item.KindS}}, Replicas: []table.Replica{
		{Region: "ap-south-1", Status: table.Gone, Version: 1}, {Region: "eu-west-1", Status: table.Active, Version: 1}, {Region: "us-east-1", Status: table.Active, Version: 1}}}
	if _, err := r.Create(ctx, d); err != nil {
		t.Fatal(err)
	}
	for {
		tab, err := r.Table(ctx, "orders")
		if err == nil {
			return &Operator{Region: r, Links: alone{now.Add(-3 * time.Second)}, Backups: alone{}, Now: clock}, tab
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatalf("the table is not active: %v", err)
		}
	}
}

func TestRequestsThatCannotBeCarriedOutAreNamed(t *testing.T) {
	o, _ := start(t)
	for name, c := range map[string]struct{ target, body, code, message string }{
		"an unknown operation":      {version + "Explode", "{}", "UnknownOperationException", `"` + version + `Explode"`},
		"another version":           {"20120810.Status", "{}", "UnknownOperationException", "20120810.Status"},
		"no version":                {"Status", "{}", "UnknownOperationException", "Status"},
		"nothing":                   {"", "{}", "UnknownOperationException", ""},
		"an unknown field":          {version + "Status", `{"Verbose": true}`, "SerializationException", "Verbose"},
		"no body":                   {version + "Status", "", "SerializationException", "EOF"},
		"no JSON":                   {version + "Status", "{", "SerializationException", ""},
		"more than a request":       {version + "Status", "{} {}", "SerializationException", ""},
		"a type":                    {version + "ListConflicts", `{"Limit": "many"}`, "SerializationException", "Limit"},
		"a limit below 1":           {version + "ListConflicts", `{"Limit": -1}`, "ValidationException", "Limit must be from 1 to 10000"},
		"a limit too large":         {version + "ListConflicts", `{"Limit": 10001}`, "ValidationException", "Limit must be from 1 to 10000"},
		"a table that is not there": {version + "ListConflicts", `{"TableName": "nope"}`, "ResourceNotFoundException", "Requested resource not found"},
		"a table that is busy":      {version + "CreateBackup", `{"TableName": "orders"}`, "TableInUseException", "orders"},
		"a backup that is not":      {version + "RestoreBackup", `{"BackupID": "gone", "TableName": "again"}`, "BackupNotFoundException", ""},
		"a table that is there":     {version + "RestoreBackup", `{"BackupID": "b", "TableName": "orders"}`, "TableAlreadyExistsException", "orders"},
		"no table's name":           {version + "RestoreBackup", `{"BackupID": "b", "TableName": "a/b"}`, "ValidationException", `"a/b"`},
		"no job":                    {version + "DescribeJob", `{"ID": "7"}`, "ResourceNotFoundException", "no job 7"},
		"no backup":                 {version + "DescribeBackup", `{"BackupID": "b"}`, "BackupNotFoundException", ""},
	} {
		answer, err := o.Handle(t.Context(), c.target, []byte(c.body))
		var refused *Error
		if !errors.As(err, &refused) || refused.ErrorCode() != c.code || !strings.Contains(refused.Message, c.message) || answer != nil {
			t.Errorf("%s: got %s, %v; want %s with %q", name, answer, err, c.code, c.message)
		}
	}
}

func ask[A any](t *testing.T, o *Operator, operation, body string) (a A) {
	t.Helper()
	answer, err := o.Handle(t.Context(), version+operation, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func put(t *testing.T, tab *region.Table, pk, v string) {
	t.Helper()
	stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S(pk)}, item.Field{Name: "v", Value: item.S(v)}))
	key, err := tab.Schema().KeyOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := tab.Write(t.Context(), &op.Command{Kind: op.Put, Key: key, Item: stored}); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
}

func TestStatusTellsOfTablesAndLinks(t *testing.T) {
	o, tab := start(t)
	put(t, tab, "a", "1")
	s := ask[Status](t, o, "Status", "{}")
	if s.Region != "us-east-1" || len(s.Links) != 1 || s.Links[0].Reachable || len(s.Tables) != 1 {
		t.Fatalf("%+v", s)
	}
	ts := s.Tables[0]
	if ts.Name != "orders" || ts.Status != table.Active || ts.Items != 1 || ts.Bytes == 0 {
		t.Errorf("%+v", ts)
	}
	// A replica that is gone is not shown, and one that cannot be reached lags since it was heard.
	if len(ts.Replicas) != 2 || ts.Replicas[0] != (ReplicaStatus{Region: "eu-west-1", Status: table.Active, LagMillis: 3000}) || ts.Replicas[1] != (ReplicaStatus{Region: "us-east-1", Status: table.Active}) {
		t.Errorf("%+v", ts.Replicas)
	}
}

func TestPartitionsAreListedInOrder(t *testing.T) {
	o, tab := start(t)
	put(t, tab, "a", "1")
	l := ask[PartitionList](t, o, "ListPartitions", `{"TableName":"orders"}`)
	if l.Region != "us-east-1" || l.TableName != "orders" || len(l.Partitions) != 1 {
		t.Fatalf("%+v", l)
	}
	if p := l.Partitions[0]; p.ID == 0 || p.Start != "" || p.Items != 1 || p.Bytes == 0 || p.Leader != 1 || p.Changes != 1 || p.Unfolded != 1 {
		t.Errorf("%+v", p)
	}
}

func TestAnEmptyPartitionIsMergedByHand(t *testing.T) {
	o, tab := start(t)
	put(t, tab, "a", "1")
	list := func() []PartitionStatus {
		return ask[PartitionList](t, o, "ListPartitions", `{"TableName":"orders"}`).Partitions
	}
	changed, stop := o.Region.Watch()
	defer stop()
	await := func(n int) []PartitionStatus {
		for {
			if l := list(); len(l) == n {
				return l
			}
			<-changed
		}
	}
	first := list()[0].ID
	child := ask[SplitPartitionAnswer](t, o, "SplitPartition", fmt.Sprintf(`{"TableName":"orders","ID":%d,"At":"ffffffffffffffff"}`, first)).Child
	await(2)
	var refused *Error
	for _, id := range []uint64{0, first, child + 100} {
		if _, err := o.Handle(t.Context(), version+"MergePartition", fmt.Appendf(nil, `{"TableName":"orders","ID":%d}`, id)); !errors.As(err, &refused) {
			t.Errorf("partition %d: %v", id, err)
		}
	}
	ask[MergePartitionAnswer](t, o, "MergePartition", fmt.Sprintf(`{"TableName":"orders","ID":%d}`, child))
	if l := await(1); l[0].ID != first || l[0].Items != 1 {
		t.Errorf("%+v", l)
	}
}

func TestAPartitionIsSplitByHand(t *testing.T) {
	o, tab := start(t)
	for i := range 20 {
		put(t, tab, fmt.Sprint(i), "1")
	}
	first := ask[PartitionList](t, o, "ListPartitions", `{"TableName":"orders"}`).Partitions[0].ID
	var refused *Error
	if _, err := o.Handle(t.Context(), version+"SplitPartition", fmt.Appendf(nil, `{"TableName":"orders","ID":%d,"At":"00112233445566778899"}`, first)); !errors.As(err, &refused) {
		t.Errorf("at what is no hash: %v", err)
	}
	a := ask[SplitPartitionAnswer](t, o, "SplitPartition", fmt.Sprintf(`{"TableName":"orders","ID":%d}`, first))
	if a.Child == 0 || a.ID != first {
		t.Fatalf("%+v", a)
	}
	changed, stop := o.Region.Watch()
	defer stop()
	var l PartitionList
	for len(l.Partitions) < 2 {
		if l = ask[PartitionList](t, o, "ListPartitions", `{"TableName":"orders"}`); len(l.Partitions) < 2 {
			<-changed
		}
	}
	if p := l.Partitions; p[1].ID != a.Child || p[1].Parent != first || p[0].Items+p[1].Items != 20 || p[0].Items == 0 || p[1].Items == 0 {
		t.Errorf("%+v", p)
	}
}

func TestConflictsAreListedUpToTheLimit(t *testing.T) {
	o, tab := start(t)
	if l := ask[ConflictList](t, o, "ListConflicts", "{}"); l.Region != "us-east-1" || l.Conflicts == nil || len(l.Conflicts) != 0 {
		t.Fatalf("of none: %+v", l)
	}
	keys := []string{"a", "b", "c"}
	for _, pk := range keys {
		put(t, tab, pk, "ours")
	}
	for _, pk := range keys {
		stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S(pk)}, item.Field{Name: "v", Value: item.S("theirs")}))
		key, _ := tab.Schema().KeyOf(stored)
		dot := crdt.Dot{HLC: crdt.At(now.UnixMilli()+60_000, 0), Actor: crdt.NewActor("eu-west-1", 2)}
		delta := (&crdt.Record{}).Write(crdt.Write{Dot: dot, Origin: crdt.Origin{Op: crdt.Put}, Item: stored})
		if err := tab.Merge(t.Context(), op.Cursor{}, 0, []op.Delta{{Key: key, State: delta.Append(nil)}}); err != nil {
			t.Fatal(err)
		}
	}
	l := ask[ConflictList](t, o, "ListConflicts", `{"TableName": "orders"}`)
	if len(l.Conflicts) != 3 {
		t.Fatalf("%+v", l)
	}
	for _, c := range l.Conflicts {
		if c.TableName != "orders" || c.Winner.Region != "eu-west-1" || c.Loser.Region != "us-east-1" || c.DetectedIn != "us-east-1" || c.Loser.Operation != "Put" ||
			!strings.Contains(string(c.Key), `"pk"`) || len(c.ID) != 32 {
			t.Errorf("%+v", c)
		}
	}
	if l := ask[ConflictList](t, o, "ListConflicts", `{"Limit": 2}`); len(l.Conflicts) != 2 {
		t.Errorf("limit 2: %d", len(l.Conflicts))
	}
	if ts := ask[Status](t, o, "Status", "{}").Tables[0]; ts.Conflicts != 3 || ts.ConflictsKept != 3 || ts.ConflictsShed != 0 {
		t.Errorf("%+v", ts)
	}
	lost := l.Conflicts[0]
	if c := ask[Conflict](t, o, "DescribeConflict", `{"ID": "`+lost.ID+`"}`); !reflect.DeepEqual(c, lost) {
		t.Errorf("%+v, want %+v", c, lost)
	}
	v := func() string {
		t.Helper()
		it, err := item.DecodeItem(mustGet(t, tab, lost.Key))
		if err != nil {
			t.Fatal(err)
		}
		return it.Get("v").Str()
	}
	if r := ask[Replay](t, o, "ReplayConflict", `{"ID": "`+lost.ID+`", "DryRun": true}`); r.Written || r.Operation != "PutItem" || v() != "theirs" {
		t.Errorf("dry run: %+v; the item has %q", r, v())
	}
	if r := ask[Replay](t, o, "ReplayConflict", `{"ID": "`+lost.ID+`"}`); !r.Written || v() != "ours" {
		t.Errorf("replay: %+v; the item has %q", r, v())
	}
	for what, q := range map[string][2]string{
		"what has changed since": {`{"ID": "` + lost.ID + `"}`, "changed since"},
		"no id":                  {`{"ID": "zz"}`, "no conflict's id"},
		"an id of nothing":       {`{"ID": "00000000000000000000000000000000"}`, "kept where the losing write was acknowledged"},
	} {
		if _, err := o.Handle(t.Context(), version+"ReplayConflict", []byte(q[0])); err == nil || !strings.Contains(err.Error(), q[1]) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r := ask[Replay](t, o, "ReplayConflict", `{"ID": "`+lost.ID+`", "Force": true}`); !r.Written {
		t.Errorf("forced: %+v", r)
	}
}

// mustGet returns the item whose key is written as DynamoDB writes it, stored form.
func mustGet(t *testing.T, tab *region.Table, written []byte) []byte {
	t.Helper()
	stored, err := wire.NewReader(written).Item(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tab.Schema().KeyOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err = tab.Get(t.Context(), key, true); err != nil || stored == nil {
		t.Fatal(stored, err)
	}
	return stored
}

func TestDamagedBackupsAreToldBesideTheOthers(t *testing.T) {
	o, _ := start(t)
	if l := ask[BackupList](t, o, "ListBackups", "{}"); l.Backups == nil || l.Damaged != "one manifest is damaged" {
		t.Errorf("%+v", l)
	}
}

func TestHealthIsTheProcessReadinessTheNode(t *testing.T) {
	ready := errors.New("the tables are not open yet")
	h := NewHandler(Config{Ready: func() error { return ready }, Metrics: prometheus.NewRegistry()})
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "not open yet") {
		t.Errorf("readyz: %d %s", code, body)
	}
	ready = nil
	for _, path := range []string{"/readyz", "/metrics", "/debug/pprof/"} {
		if code, body := get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestAWriteThatIsHeldIsReplayedIfItIsKnownWhole(t *testing.T) {
	o, tab := start(t)
	stored := item.AppendItem(nil, item.NewItem(item.Field{Name: "pk", Value: item.S("held")}, item.Field{Name: "v", Value: item.S("theirs")}))
	key, err := tab.Schema().KeyOf(stored)
	if err != nil {
		t.Fatal(err)
	}
	var held []op.Delta
	for i, w := range []crdt.Write{
		{Origin: crdt.Origin{Op: crdt.Put}, Item: stored},
		{Origin: crdt.Origin{Op: crdt.Delete}},
		{Origin: crdt.Origin{Op: crdt.Update}, Item: stored, Changes: []item.Change{{Kind: item.Assign, Path: []string{"v"}, Value: item.S("theirs")}}},
		{Origin: crdt.Origin{Op: crdt.Update}, Item: stored, Changes: []item.Change{{Kind: item.Increment, Path: []string{"n"}, Value: item.N(item.NumberFromInt(1))}}},
	} {
		w.Dot = crdt.Dot{HLC: crdt.At(now.UnixMilli()+60_000, uint16(i)), Actor: crdt.NewActor("eu-west-1", 2)}
		held = append(held, op.Delta{Key: key, State: (&crdt.Record{}).Write(w).Append(nil)})
	}
	if err := tab.Held(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	replayed := map[string]string{}
	for _, c := range ask[ConflictList](t, o, "ListConflicts", "{}").Conflicts {
		if c.Class != crdt.ClassClockHeld {
			t.Errorf("%+v", c)
		}
		_, err := o.Handle(t.Context(), version+"ReplayConflict", []byte(`{"ID": "`+c.ID+`", "DryRun": true}`))
		if err != nil {
			replayed[c.Loser.Operation] += err.Error()
		} else {
			replayed[c.Loser.Operation] += "written"
		}
	}
	if len(replayed) != 3 || replayed["Put"] != "written" || replayed["Delete"] != "written" || strings.Count(replayed["Update"], "does not hold what was written") != 2 {
		t.Errorf("%q", replayed)
	}
}
