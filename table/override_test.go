package table

import (
	"reflect"
	"testing"
)

func TestAnOverrideIsInForceInItsRegionAlone(t *testing.T) {
	d := &Definition{
		Billing: Provisioned, Throughput: Throughput{5, 6}, OnDemand: Throughput{7, 8}, SSE: &SSE{Enabled: true, KeyID: "k"},
		Schema: Schema{Indexes: []Index{{Name: "x", Global: true, Throughput: Throughput{1, 2}}, {Name: "y", Global: true, Throughput: Throughput{3, 4}}}},
	}
	d.Override("eu-west-1", func(o *Override) {
		o.Read, o.MaxRead, o.Class, o.ClassChanged, o.KeyID = 50, 70, "STANDARD", 9, "eu"
		o.Index("x").Read = 10
		o.Index("none").Read = 11
	})
	before := d.Clone()
	got := d.In("eu-west-1")
	if got.Throughput != (Throughput{50, 6}) || got.OnDemand != d.OnDemand || got.Class != "STANDARD" || got.ClassChanged != 9 || got.SSE.KeyID != "eu" ||
		got.Schema.Index("x").Throughput != (Throughput{10, 2}) || got.Schema.Index("y").Throughput != (Throughput{3, 4}) {
		t.Errorf("in its region: %+v", got)
	}
	if d.In("us-east-1") != d || !reflect.DeepEqual(d, before) {
		t.Errorf("elsewhere: %+v", d)
	}
	d.Billing = OnDemand
	if got := d.In("eu-west-1"); got.Throughput != d.Throughput || got.OnDemand != (Throughput{70, 8}) {
		t.Errorf("on demand: %+v", got)
	}
	d.OverrideNoMore(func(o *Override) { o.Read, o.MaxRead, o.Class, o.ClassChanged, o.KeyID = 0, 0, "", 0, "" })
	if len(d.Overrides) != 1 {
		t.Errorf("an index is overridden still: %+v", d.Overrides)
	}
	d.OverrideNoMore(func(o *Override) { o.Indexes = nil })
	if d.Overrides != nil {
		t.Errorf("nothing is overridden: %+v", d.Overrides)
	}
}

func TestAReplicaThatLeavesKeepsWhatWasInForce(t *testing.T) {
	d := full()
	d.Leave("us-east-1", "another")
	if d.GlobalID != "another" || d.Replicas != nil || d.Overrides != nil || d.Leaving || d.Disassociable || !d.Schema.Solo || d.Throughput.Read != 1 || d.UUID != "uuid" || len(d.Tags) != 1 {
		t.Errorf("got %+v", d)
	}
}
