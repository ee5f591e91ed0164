package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/commutatordb/commutator/backup"
	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/region/group"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

// What must hold of what goes on between nodes and between regions, and of what each has come to keep.

// leadership is one term of one group.
type leadership struct {
	region      *regionOf
	group, term uint64
}

// led looks at a message between nodes: in a term one node alone speaks as the leader.
func (w *world) led(from *machine, m group.Message) {
	if m.Beat() {
		return
	}
	switch m.Raft.GetType() {
	case pb.MsgApp, pb.MsgHeartbeat, pb.MsgSnap:
		l := leadership{from.region, m.Group, m.Raft.GetTerm()}
		if was := w.history.leaders[l]; was == nil {
			w.history.leaders[l] = from
		} else if was != from {
			w.violate("%s and %s both lead term %d of group %d", was.name, from.name, l.term, l.group)
		}
	case pb.MsgVoteResp:
		if !m.Raft.GetReject() {
			from.promised()
		}
	}
}

// ahead is how far ahead of a node's clock a change may be stamped that it merges. Source: REPLICATION.md §2.
const ahead = 500 * time.Millisecond

// watched is a node's sink, looked at.
type watched struct {
	replication.Sink
	at *machine
}

// Apply is replication.Sink's.
func (s watched) Apply(ctx context.Context, b replication.Batch) error {
	w, r := s.at.w, s.at.region
	var newest crdt.HLC
	for _, c := range b.Changes {
		dot := crdt.PeekDot(c.Delta)
		newest = max(newest, dot.HLC)
		// What has been combined into the change arrives with it.
		for _, d := range w.history.byItem[writesTo{dot.Actor, string(c.Key)}] {
			if _, ok := w.history.arrived[arrival{r, d}]; !ok && d.HLC <= dot.HLC {
				w.history.arrived[arrival{r, d}] = w.now
			}
		}
	}
	skew := s.at.proc.skew
	err := s.Sink.Apply(ctx, b)
	if now := s.at.proc.Now(); err == nil && s.at.proc.skew == skew && newest.Millis() > now.Add(ahead).UnixMilli() {
		w.violate("%s merges what is stamped %v at %s by its clock", s.at.name, newest, now.Format(time.RFC3339Nano))
	}
	return err
}

// told looks at what a region tells another of its tables: a replica that it calls ACTIVE takes requests.
func (w *world) told(t replication.Tables) {
	for _, b := range t.Definitions {
		d := &table.Definition{}
		if err := json.Unmarshal(b, d); err != nil {
			w.violate("%s tells of a table: %v", t.Region, err)
		} else if own := d.Replica(t.Region); own != nil && own.Status == table.Active && d.Status == table.Creating {
			w.violate("%s tells that its replica of %s is ACTIVE, and is CREATING the table", t.Region, d.Schema.Name)
		}
	}
}

// arrival is a change at a region that did not make it.
type arrival struct {
	at  *regionOf
	dot crdt.Dot
}

// mayHaveSeen tells whether an operation can have known of a change, which another made.
func (w *world) mayHaveSeen(o, other *operation, dot crdt.Dot) bool {
	if o.region == other.region {
		return other.invoked <= o.returned || o.outcome == unknown
	}
	at, ok := w.history.arrived[arrival{o.region, dot}]
	if n := w.history.lonely[other.mark]; n != nil {
		at, ok = n.at, true
	}
	for _, seeded := range w.history.seeded[o.region] { // with all that its source had by then
		if other.invoked <= seeded && (!ok || seeded < at) {
			at, ok = seeded, true
		}
	}
	return ok && (at <= o.returned || o.outcome == unknown)
}

// checkUnseen looks for what can only have been taken away by somebody who had not seen it: elements of sets that are never
// deleted, and items that only ever expire.
func (w *world) checkUnseen(items map[string]string, times map[string]crdt.Dot) {
	by := map[string][]*operation{}
	var keys []string
	for _, o := range w.history.ops {
		if o.table == shared && o.outcome != refused && o.outcome != rejected && (isOf(o.key, keySet) && !w.lastWriterWins || isOf(o.key, keyTTL)) {
			if by[o.key] == nil {
				keys = append(keys, o.key)
			}
			by[o.key] = append(by[o.key], o)
		}
	}
	unseen := func(o *operation, taking opKind, elem string) bool {
		for _, x := range by[o.key] {
			if x.kind == taking && (elem == "" || slices.Contains(x.elems, elem)) && w.mayHaveSeen(x, o, times[o.mark]) {
				return false
			}
		}
		return true
	}
	for _, key := range keys {
		for _, o := range by[key] {
			if !marks(o.kind) || times[o.mark] == (crdt.Dot{}) {
				continue
			}
			shown, there := items[key]
			if o.kind == opSetAdd {
				for _, e := range o.elems {
					if unseen(o, opSetRemove, e) && !strings.Contains(shown, e) {
						w.violate("%s lacks %s, which %s added and nobody can have removed who had seen it", key, e, o.mark)
					}
				}
			} else if isOf(key, keyTTL) && !there && unseen(o, opExpire, "") && w.history.lonely[o.mark] == nil {
				w.violate("%s is gone, and nobody can have let it expire who had seen %s", key, o.mark)
			}
		}
	}
}

// unrested says what a healed world has still to do in the background, "" when nothing: every replica of a region keeps the
// same, everything is folded, and then all regions keep the same records.
func (w *world) unrested() string {
	if why := w.unsplit(); why != "" {
		return why
	}
	var first map[string]string
	for _, r := range w.regions {
		for _, t := range r.nodes[0].engine.Region().Tables() {
			for _, p := range t.Partitions() {
				if s := p.State(); s.Folded != s.Seq {
					return fmt.Sprintf("%s: %s has folded %d of %d changes", r.nodes[0].name, t.Schema().Name, s.Folded, s.Seq)
				}
			}
		}
		for _, missing := range []func() string{r.unplaced, r.unequal} {
			if why := missing(); why != "" {
				return why
			}
		}
		records, _, why := r.kept(shared)
		if why != "" {
			return why
		}
		if first == nil {
			first = records
		} else if k := differs(first, records); k != "" {
			return fmt.Sprintf("the record of %x is %x at %s and %x at %s", k, first[k], w.nodes[0].name, records[k], r.nodes[0].name)
		}
	}
	return ""
}

// records returns what a node's store keeps of a table's items, by key, of the partitions that it is to hold.
func (m *machine) records(name string) (map[uint64]map[string]string, *table.Definition, error) {
	return m.stored(name, func(_ *table.Schema, key table.Key, record []byte) (string, string, bool, error) {
		return string(key), string(record), true, nil
	})
}

func isOf(key, class string) bool { return strings.HasPrefix(key, class+"-") }

// checkBackups reads every backup that the archive shows, once nothing is broken any more: what has a manifest is whole.
func (w *world) checkBackups() {
	if len(w.objects.data) == 0 {
		return
	}
	p, over := w.clients.proc, false
	p.Go(func() {
		defer func() { over = true }()
		a := archive{w.objects, p}
		all, err := backup.List(context.Background(), a, "")
		if err != nil {
			w.violate("the archive lists a backup that cannot be read: %v", err)
		}
		for _, m := range all {
			if err := backup.Read(context.Background(), a, m, func(backup.Progress) {}, func([][]byte) error { return nil }); err != nil {
				w.violate("the archive lists a backup that is not whole: %v", err)
			}
		}
		// And now that the archive is well, one must come about and come back.
		began := w.now
		to := w.regions[0].nodes[0]
		id, ok := w.job(to, "CreateBackup", fmt.Sprintf(`{"TableName":%q}`, solo), opBackup)
		if ok {
			_, ok = w.job(to, "RestoreBackup", fmt.Sprintf(`{"BackupID":%q,"TableName":"restored-last"}`, id), opRestore)
		}
		if !ok {
			w.violate("with an archive that is well %s cannot be backed up and restored", solo)
			return
		}
		w.restored = append(w.restored, restored{"restored-last", began})
	})
	if !w.runUntil(settleLimit, func() bool { return over }) {
		w.violate("the archive's backups are not read, or no new one is made, within %s", settleLimit)
	}
}
