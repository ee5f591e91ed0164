package node

import (
	"testing"

	"github.com/commutatordb/commutator/crdt"
	"github.com/commutatordb/commutator/replication"
	"github.com/commutatordb/commutator/table"
)

func TestARegionThatWentCountsUntilTheOthersKnow(t *testing.T) {
	d := &table.Definition{Replicas: []table.Replica{
		{Region: "a", Status: table.Active}, {Region: "b", Status: table.Active}, {Region: "c", Status: table.Gone, Version: 7},
	}}
	settled := map[string]bool{}
	for _, name := range left(d) {
		settled[name] = true
	}
	s := replication.NewStability("a")
	s.SetMembers(map[string][]uint64{"b": {1}})
	s.SetFences(settled)
	// b has not heard that c is gone: what it sends may come from before it had all of c's writes.
	heard := replication.Progress{Clock: 50, Applied: map[string]crdt.HLC{"a": 50, "c": 20}}
	s.Heard("b", 1, heard)
	if at := s.Stable(60); at != 0 {
		t.Errorf("stable up to %v, though b does not know that c is gone", at)
	}
	heard.Applied[replication.LeftName("c", 7)] = crdt.MaxHLC
	s.Heard("b", 1, heard)
	if at := s.Stable(60); at != 50 {
		t.Errorf("stable up to %v once b knows that c is gone, want 50", at)
	}
}
