package node_test

import (
	"errors"
	"testing"
	"time"

	"github.com/commutatordb/commutator/admin"
	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/replication"
)

func TestARegionThatLostChangesIsNotFollowed(t *testing.T) {
	t.Parallel()
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders", "eu-west-1")
	r := w.dev.Nodes()[0].Region()
	d, err := r.Definition("orders")
	if err != nil {
		t.Fatal(err)
	}
	from := replication.Resume{Region: "eu-west-1", Table: d.GlobalID, Instance: r.Instance(), Partition: d.Partitions[0].ID}
	if _, err := w.dev.Nodes()[0].Source().Log(from); err != nil {
		t.Errorf("of all there is: %v", err)
	}
	from.Seq = 1000
	if _, err := w.dev.Nodes()[0].Source().Log(from); !errors.Is(err, replication.ErrAhead) {
		t.Errorf("of more than there is: %v", err)
	}
	from.Instance++
	if _, err := w.dev.Nodes()[0].Source().Log(from); !errors.Is(err, replication.ErrInstance) {
		t.Errorf("of another instance: %v", err)
	}
}

// Goal: how far a region is behind is known while nothing is written, and that it cannot be reached, within seconds.
func TestASilentLinkIsToldFromACutOne(t *testing.T) {
	t.Parallel()
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("orders", "eu-west-1")
	w.put(0, "orders", item{"pk": s("a")})
	there := w.dev.Nodes()[1]
	links := func() (l admin.Link, lag time.Duration) {
		d, err := there.Region().Definition("orders")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range there.Links() {
			if x.Region == "us-east-1" {
				l = x
			}
		}
		lag, known := there.Lag(d.GlobalID)["us-east-1"]
		if !known {
			lag = -1
		}
		return l, lag
	}
	w.until("eu-west-1 to have it", func() bool { return w.get(1, "orders", "a") != nil })
	begun := time.Now()
	w.until("three beats without a write", func() bool {
		l, lag := links()
		return l.Reachable && lag >= 0 && lag < time.Second && l.Heard.After(begun.Add(2*time.Second))
	})
	w.control("partition", "us-east-1")
	begun = time.Now()
	w.until("the cut to be noticed", func() bool { l, _ := links(); return !l.Reachable })
	if took := time.Since(begun); took > 6*time.Second { // a beat, its limit, and a machine that is busy
		t.Errorf("a cut is noticed after %s", took)
	}
	w.control("heal", "")
	w.until("the link to be there again", func() bool { l, _ := links(); return l.Reachable })
}
