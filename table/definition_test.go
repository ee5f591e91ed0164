package table

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/commutatordb/commutator/item"
)

// full is a definition in which every field, slice and pointer holds something.
func full() *Definition {
	return &Definition{
		ID: 3, UUID: "uuid", GlobalID: "global", Status: Active, Created: 7, Billing: Provisioned,
		Schema: Schema{
			Name: "t", Hash: Attribute{"pk", item.KindS}, Range: Attribute{"sk", item.KindN}, Solo: true,
			Indexes: []Index{{
				ID: 1, Name: "x", Global: true, Hash: []Attribute{{"a", item.KindS}}, Range: []Attribute{{"b", item.KindN}},
				Projection: ProjectInclude, Include: []string{"c"}, Backfilling: true, Throughput: Throughput{1, 2},
			}},
			Modes: Modes{Merge, []AttributeMode{{"n", LastWriterWins}}}, Fences: []Fence{{"us-east-1", 1}}, Closed: true,
		},
		Throughput: Throughput{3, 4}, OnDemand: Throughput{5, 6}, Class: "STANDARD_INFREQUENT_ACCESS", DeletionProtection: true,
		Tags: []Tag{{"k", "v"}}, Stream: &Stream{true, "NEW_IMAGE", "label"}, SSE: &SSE{true, "KMS", "key"}, Version: 9,
		Replicas: []Replica{{"us-east-1", Active, 5, 1}}, Incarnation: 1, Former: &Former{3, 4, []Partition{{ID: 5, Start: Key{1}, End: Key{3}, Parent: 1, Split: &Splitting{6, Key{2}}, Founders: []uint64{1}, Nodes: []uint64{1, 2}, Moved: 7, Behind: 8, Absorbed: 9, Merging: &Merging{9, MergeClosing}}}}, Settled: []Fence{{"eu-west-1", 1}}, Partitions: []Partition{{ID: 4, Start: Key{1}, End: Key{3}, Parent: 1, Split: &Splitting{6, Key{2}}, Founders: []uint64{1}, Nodes: []uint64{1, 2}, Moved: 7, Behind: 8, Absorbed: 9, Merging: &Merging{9, MergeClosing}}}, Restore: &RestoreSummary{"b", "s", 8, true, 2},
		Policy: &Policy{"{}", "r"}, StreamPolicy: &Policy{"{}", "r"}, Insights: []Insight{{"x", true, true, 1, 1}}, Kinesis: []KinesisDestination{{"arn", "MILLISECOND"}},
		Overrides: []Override{{"us-east-1", 1, 2, "STANDARD", 3, "k", []IndexOverride{{"x", 4, 5}}}}, Disassociable: true, Leaving: true, SettingsMode: "ENABLED",
		Scaling: []Scaling{{Region: "us-east-1", Index: "x", Min: 1, Max: 2, Role: "r", Policy: ScalingPolicy{"p", 70, 1, 2, true}}},
	}
}

// scramble changes everything that can be reached in place from v, and fails where there is nothing.
func scramble(t *testing.T, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			t.Fatalf("%s: full() leaves it nil", path)
		}
		scramble(t, path, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			scramble(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Slice:
		if v.Len() == 0 {
			t.Fatalf("%s: full() leaves it empty", path)
		}
		for i := range v.Len() {
			scramble(t, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
	case reflect.String:
		v.SetString(v.String() + "!")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		t.Fatalf("%s: a %v", path, v.Kind())
	}
}

func TestACloneSharesNothingThatCanBeChanged(t *testing.T) {
	original, want := full(), full()
	clone := original.Clone()
	if !reflect.DeepEqual(clone, want) {
		t.Fatalf("the clone is %+v", clone)
	}
	scramble(t, "Definition", reflect.ValueOf(clone))
	if !reflect.DeepEqual(original, want) {
		t.Errorf("changing the clone changed the original:\ngot  %+v\nwant %+v", original, want)
	}
	if reflect.DeepEqual(clone, want) {
		t.Error("nothing was changed")
	}
}

func TestACloneIsEqualToItsOriginal(t *testing.T) {
	for name, d := range map[string]*Definition{
		"nils": {}, "empty slices": {Tags: []Tag{}, Replicas: []Replica{}, Partitions: []Partition{{Start: Key{}}}, Schema: Schema{Indexes: []Index{{Include: []string{}}}, Modes: Modes{Attributes: []AttributeMode{}}}},
	} {
		if c := d.Clone(); !reflect.DeepEqual(c, d) {
			t.Errorf("%s: got %#v, want %#v", name, c, d)
		}
	}
}

func TestTakingADefinitionSharesNothingWithIt(t *testing.T) {
	theirs, want := full(), full()
	ours := &Definition{}
	if !ours.Take("eu-west-1", theirs) {
		t.Fatal("nothing was taken")
	}
	scramble(t, "Schema", reflect.ValueOf(&ours.Schema))
	scramble(t, "Stream", reflect.ValueOf(ours.Stream))
	scramble(t, "SSE", reflect.ValueOf(ours.SSE))
	scramble(t, "Replicas", reflect.ValueOf(ours.Replicas))
	scramble(t, "Scaling", reflect.ValueOf(ours.Scaling))
	scramble(t, "Overrides", reflect.ValueOf(ours.Overrides))
	if !reflect.DeepEqual(theirs, want) {
		t.Errorf("got  %+v\nwant %+v", theirs, want)
	}
}

// settings is what replicas of a global table must agree on.
func settings(d *Definition) string {
	return fmt.Sprintf("%s %d %v", d.shared(), d.Version, d.Replicas)
}

// Goal: definitions converge like any CRDT. Method: three regions change their own definition and take
// each other's in random order, some versions colliding as clocks that lag make them; once each has taken
// every other's, all must agree, and taking again must change nothing.
func TestRegionsThatExchangeDefinitionsAgree(t *testing.T) {
	regions := []string{"ap-south-1", "eu-west-1", "us-east-1"}
	rapid.Check(t, func(t *rapid.T) {
		defs := make([]*Definition, len(regions))
		for i := range defs {
			defs[i] = &Definition{ID: uint32(i), UUID: regions[i], Status: Active, Tags: []Tag{{"of", regions[i]}}, Partitions: []Partition{{ID: uint64(i)}}, Version: 1,
				Schema: Schema{Name: "t", Indexes: []Index{{ID: 1, Name: "x1"}}}}
			for _, r := range regions {
				defs[i].SetReplica(regions[i], r, Active, 1)
			}
		}
		now := uint64(1)
		region := rapid.IntRange(0, len(regions)-1)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			i := region.Draw(t, "region")
			d := defs[i]
			if rapid.Bool().Draw(t, "the clock goes on") {
				now++
			}
			stamp := now - rapid.Uint64Range(0, min(now-1, 3)).Draw(t, "lag")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				d.Version = max(stamp, d.Version+1)
				d.Class = rapid.SampledFrom([]string{"", "STANDARD", "STANDARD_INFREQUENT_ACCESS"}).Draw(t, "class")
				d.Override(regions[region.Draw(t, "overridden")], func(o *Override) { o.Read = rapid.Int64Range(0, 2).Draw(t, "read") })
				if id := d.Schema.NextIndexID(); rapid.Bool().Draw(t, "a new index") {
					d.Schema.Indexes = append(d.Schema.Indexes, Index{ID: id, Name: fmt.Sprintf("x%d", id), Backfilling: true})
				}
			case 1:
				status := rapid.SampledFrom([]Status{Creating, Active, Deleting, Gone, CreationFailed}).Draw(t, "status")
				d.SetReplica(regions[i], regions[region.Draw(t, "replica")], status, stamp)
			default:
				from := defs[region.Draw(t, "from")]
				before := from.Clone()
				d.Take(regions[i], from)
				if !reflect.DeepEqual(before, from) {
					t.Fatalf("taking changed the other's: got %+v, want %+v", from, before)
				}
			}
		}
		// Every order in which all take all, twice round, leads to the same.
		order := rapid.Permutation([][2]int{{0, 1}, {0, 2}, {1, 0}, {1, 2}, {2, 0}, {2, 1}}).Draw(t, "order")
		for _, o := range slices.Concat(order, order) {
			defs[o[0]].Take(regions[o[0]], defs[o[1]])
		}
		for i, d := range defs {
			if settings(d) != settings(defs[0]) {
				t.Fatalf("%s: %s\n%s: %s", regions[i], settings(d), regions[0], settings(defs[0]))
			}
			if d.ID != uint32(i) || d.UUID != regions[i] || d.Tags[0].Value != regions[i] || d.Partitions[0].ID != uint64(i) || d.Status != Active {
				t.Fatalf("%s has lost what is its own: %+v", regions[i], d)
			}
			if want := len(d.Others(regions[i])) == 0; d.Schema.Solo != want {
				t.Fatalf("%s: Solo is %v with the replicas %v", regions[i], d.Schema.Solo, d.Replicas)
			}
			for j, other := range defs {
				if d.Take(regions[i], other) {
					t.Fatalf("%s takes from %s once more: %+v", regions[i], regions[j], d)
				}
			}
		}
	})
}

func TestAnIndexTakenOverIsFilledHere(t *testing.T) {
	ours := &Definition{Version: 1, Schema: Schema{Indexes: []Index{{ID: 1, Name: "kept"}, {ID: 2, Name: "filling", Backfilling: true}, {ID: 3, Name: "remade"}, {ID: 4, Name: "dropped"}, {ID: 7, Name: "going", Deleting: true}, {ID: 8, Name: "filled", Backfilling: true}}}}
	theirs := &Definition{Version: 2, Schema: Schema{Indexes: []Index{{ID: 1, Name: "kept", Backfilling: true}, {ID: 2, Name: "filling"}, {ID: 5, Name: "remade"}, {ID: 6, Name: "new"}, {ID: 7, Name: "going"}, {ID: 8, Name: "filled", Deleting: true}}}}
	if !ours.Take("eu-west-1", theirs) {
		t.Fatal("nothing was taken")
	}
	want := []Index{{ID: 1, Name: "kept"}, {ID: 2, Name: "filling", Backfilling: true}, {ID: 5, Name: "remade", Backfilling: true}, {ID: 6, Name: "new", Backfilling: true},
		{ID: 7, Name: "going", Backfilling: true}, {ID: 8, Name: "filled", Deleting: true}}
	if !reflect.DeepEqual(ours.Schema.Indexes, want) {
		t.Errorf("got %+v\nwant %+v", ours.Schema.Indexes, want)
	}
}

func TestALateNoteThatAReplicaIsGoneDoesNotTakeBackOneMadeSince(t *testing.T) {
	const ap = "ap-northeast-1"
	us, eu := &Definition{}, &Definition{}
	for _, d := range []*Definition{us, eu} {
		d.SetReplica("us-east-1", ap, Deleting, 10)
	}
	us.SetReplica("us-east-1", ap, Gone, 0)
	us.SetReplica("us-east-1", ap, Creating, 20)
	eu.SetReplica("eu-west-1", ap, Gone, 0) // cut off, and back by now
	if us.Take("us-east-1", eu) {
		t.Errorf("the note of %+v was believed", eu.Replica(ap))
	}
	if !eu.Take("eu-west-1", us) || *eu.Replica(ap) != (Replica{Region: ap, Status: Creating, Version: 20}) {
		t.Errorf("the replica made since is %+v", eu.Replica(ap))
	}
}

func TestReplicasStandInOrderAndTheirVersionsRise(t *testing.T) {
	d := &Definition{}
	for i, region := range []string{"us-east-1", "ap-south-1", "eu-west-1", "ap-south-1", "us-east-1"} {
		before := uint64(0)
		if r := d.Replica(region); r != nil {
			before = r.Version
		}
		d.SetReplica("us-east-1", region, Active, uint64(10-i)) // the clock goes backwards
		if r := d.Replica(region); r == nil || r.Version <= before {
			t.Errorf("%s: version %d, then %+v", region, before, r)
		}
	}
	if !slices.IsSortedFunc(d.Replicas, func(a, b Replica) int { return strings.Compare(a.Region, b.Region) }) || len(d.Replicas) != 3 {
		t.Errorf("replicas: %v", d.Replicas)
	}
	if d.Schema.Solo {
		t.Error("a table of three regions is solo")
	}
	d.SetReplica("us-east-1", "ap-south-1", Gone, 20)
	d.SetReplica("us-east-1", "eu-west-1", CreationFailed, 20)
	if others := d.Others("us-east-1"); !d.Schema.Solo || len(others) != 0 {
		t.Errorf("solo %v beside %v", d.Schema.Solo, others)
	}
	if d.Replica("sa-east-1") != nil {
		t.Error("a replica in a region without one")
	}
}

// A region that has removed an index that is going does not get it back from one that has not, and what is only going tells two
// definitions of one version apart as little as what is only being filled.
func TestAnIndexThatGoesIsRemovedByEachRegionItself(t *testing.T) {
	kept, going := Index{ID: 1, Name: "kept"}, Index{ID: 2, Name: "going", Deleting: true}
	ours := &Definition{Version: 1, Schema: Schema{Indexes: []Index{kept, {ID: 2, Name: "going"}}}}
	theirs := &Definition{Version: 2, Schema: Schema{Indexes: []Index{kept, going}}}
	if !ours.Take("eu-west-1", theirs) || !reflect.DeepEqual(ours.Schema.Indexes, []Index{kept, going}) {
		t.Fatalf("told that it goes: %+v", ours.Schema.Indexes)
	}
	ours.Schema.Indexes = []Index{kept} // carried out
	if ours.Take("eu-west-1", theirs) || theirs.Take("us-east-1", ours) {
		t.Error("regions that differ only in how far they are take from each other")
	}
	theirs.Version, theirs.Billing = 3, OnDemand
	if !ours.Take("eu-west-1", theirs) || !reflect.DeepEqual(ours.Schema.Indexes, []Index{kept}) {
		t.Errorf("told something else: %+v", ours.Schema.Indexes)
	}
}
