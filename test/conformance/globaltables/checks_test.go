package globaltables

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// The checks are numbered; the number of a check never changes.
func TestGlobalTables(t *testing.T) {
	g := start(t)
	a, b := g.regions[0], g.regions[1]
	g.run("01 tables of one name in two regions are independent until joined", func(g *group) { independent(g, a, b) })
	g.run("02 a replica of a table with items is CREATING then ACTIVE with all of them", func(g *group) { seeded(g, a, b) })
	g.run("03 the local region is no replica to add or remove", func(g *group) { local(g, a, b) })
	g.run("04 version 2017 is refused and finds nothing", func(g *group) { version2017(g, a, b) })
	g.run("05 what only global tables show comes and goes with the replicas", func(g *group) { shown(g, a, b) })
	g.run("06 a global table has a stream that stays as it is", func(g *group) { stream(g, a, b) })
	g.run("07 two conditional puts succeed and one whole item remains", func(g *group) { putTwice(g, a, b) })
	g.run("08 increments at once", func(g *group) { increments(g, a, b) })
	g.run("09 races of puts updates and deletes converge", func(g *group) { races(g, a, b) })
	g.run("10 an item that expires is deleted everywhere and by the service at its origin", func(g *group) { expiry(g, a, b) })
	g.run("11 a transaction is whole where it is made", func(g *group) { transaction(g, a, b) })
	g.run("12 settings that travel always and overridden and never", func(g *group) { settings(g, a, b) })
	g.run("13 regions cut apart take writes and converge when healed", func(g *group) { apart(g, a, b) })
	g.run("14 a replica that is disassociated keeps its data", func(g *group) { leaves(g, a, b) })
	g.run("15 a clock that is off lets no writer win for good", func(g *group) {
		g.Skip("no endpoint's clock can be set from here; test/sim skews clocks of whole regions")
	})
	g.run("16 strong consistency", func(g *group) { strong(g, a, b) })
	g.run("17 items are what was written and nothing more", func(g *group) { plain(g, a, b) })
	g.run("18 what is restored is a table of one region", func(g *group) { restored(g, a, b) })
	g.run("19 replicas are refused in the service's words", func(g *group) { refusals(g, a, b) })
	g.run("20 a protected replica is not removed and a table in the way is not taken", func(g *group) { inTheWay(g, a, b) })
	g.run("21 a replica is removed by its own region", func(g *group) { ownDelete(g, a, b) })
}

func independent(g *group, a, b string) {
	name := g.table(a, "independent", nil)
	g.table(b, "independent", nil)
	g.put(a, name, item{"pk": str("k"), "of": str(a)})
	g.put(b, name, item{"pk": str("k"), "of": str(b)})
	g.put(a, name, item{"pk": str("only")})
	if got := g.get(b, name, "k")["of"]; !reflect.DeepEqual(got, str(b)) || g.get(b, name, "only") != nil {
		g.Errorf("%s shows what was written in %s", b, a)
	}
	if one, other := g.describe(a, name), g.describe(b, name); aws.ToString(one.TableId) == aws.ToString(other.TableId) {
		g.Errorf("both have the id %s", *one.TableId)
	}
}

func seeded(g *group, a, b string) {
	name := g.table(a, "seeded", nil)
	for i := range 40 {
		g.put(a, name, item{"pk": str(fmt.Sprint(i)), "n": num(i)})
	}
	g.must(g.change(a, name, create(b)))
	var seen []types.ReplicaStatus
	g.until("the replica is ACTIVE", func() bool {
		r := replica(g.describe(a, name), b)
		if r == nil {
			return false
		}
		if !slices.Contains(seen, r.ReplicaStatus) {
			seen = append(seen, r.ReplicaStatus)
		}
		return r.ReplicaStatus == types.ReplicaStatusActive
	})
	if len(seen) > 2 || len(seen) == 2 && seen[0] != types.ReplicaStatusCreating {
		g.Errorf("its states were %v", seen)
	}
	for i := range 40 { // at once: an ACTIVE replica has them
		if got := g.get(b, name, fmt.Sprint(i)); !reflect.DeepEqual(got["n"], num(i)) {
			g.Fatalf("the ACTIVE replica has %v for item %d", got, i)
		}
	}
	g.joined(name, a, b)
	g.put(b, name, item{"pk": str("back")})
	g.until("writes go back", func() bool { return g.get(a, name, "back") != nil })
}

const localRegion = "Cannot add or delete the local region through ReplicaUpdates. Use CreateTable, DeleteTable, or UpdateTable as required."

func local(g *group, a, b string) {
	name := g.global("local", nil, b)
	for _, region := range []string{a, b} {
		g.refused(g.change(region, name, create(region)), localRegion)
		g.refused(g.change(region, name, remove(region)), localRegion)
	}
}

func version2017(g *group, a, b string) {
	name := g.global("version2017", nil, b)
	c := g.clients[a]
	_, err := c.CreateGlobalTable(g.Context(), &dynamodb.CreateGlobalTableInput{GlobalTableName: &name, ReplicationGroup: []types.Replica{{RegionName: &a}, {RegionName: &b}}})
	g.refused(err, "global tables version 2017.11.29 is not supported")
	_, err = c.UpdateGlobalTable(g.Context(), &dynamodb.UpdateGlobalTableInput{GlobalTableName: &name, ReplicaUpdates: []types.ReplicaUpdate{{Create: &types.CreateReplicaAction{RegionName: &b}}}})
	g.refused(err, "global tables version 2017.11.29 is not supported")
	var none *types.GlobalTableNotFoundException
	for _, called := range []string{name, name + "-none"} {
		_, one := c.DescribeGlobalTable(g.Context(), &dynamodb.DescribeGlobalTableInput{GlobalTableName: &called})
		_, two := c.DescribeGlobalTableSettings(g.Context(), &dynamodb.DescribeGlobalTableSettingsInput{GlobalTableName: &called})
		_, three := c.UpdateGlobalTableSettings(g.Context(), &dynamodb.UpdateGlobalTableSettingsInput{GlobalTableName: &called, GlobalTableBillingMode: types.BillingModePayPerRequest})
		for _, err := range []error{one, two, three} {
			if !errors.As(err, &none) {
				g.Errorf("%s: %v, want GlobalTableNotFoundException", called, err)
			}
		}
	}
	list, err := c.ListGlobalTables(g.Context(), &dynamodb.ListGlobalTablesInput{})
	g.must(err)
	for _, t := range list.GlobalTables {
		if aws.ToString(t.GlobalTableName) == name {
			g.Error("ListGlobalTables lists it")
		}
	}
}

func shown(g *group, a, b string) {
	name := g.table(a, "shown", nil)
	bare := func(d *types.TableDescription) bool {
		return d.GlobalTableVersion == nil && len(d.Replicas) == 0 && d.GlobalTableSettingsReplicationMode == "" && d.MultiRegionConsistency == "" && len(d.GlobalTableWitnesses) == 0
	}
	if d := g.describe(a, name); !bare(d) {
		g.Errorf("before there is a replica: %+v", d)
	}
	g.must(g.change(a, name, create(b)))
	g.joined(name, a, b)
	for region, other := range map[string]string{a: b, b: a} {
		d := g.describe(region, name)
		if aws.ToString(d.GlobalTableVersion) != "2019.11.21" || replica(d, other) == nil || d.MultiRegionConsistency == types.MultiRegionConsistencyStrong {
			g.Errorf("%s: version %v, replicas %v", region, aws.ToString(d.GlobalTableVersion), d.Replicas)
		}
		if d.GlobalTableSettingsReplicationMode != types.GlobalTableSettingsReplicationModeEnabledWithOverrides {
			g.Errorf("%s: the mode is %q", region, d.GlobalTableSettingsReplicationMode)
		}
	}
	if one, other := g.describe(a, name), g.describe(b, name); aws.ToString(one.TableId) == aws.ToString(other.TableId) || !strings.Contains(aws.ToString(other.TableArn), ":"+b+":") {
		g.Errorf("the replica's id is %s and its ARN %s", aws.ToString(other.TableId), aws.ToString(other.TableArn))
	}
	g.must(g.change(a, name, remove(b)))
	g.until("the last replica is gone", func() bool { return bare(g.describe(a, name)) })
	g.until("its region has no such table", func() bool { return g.describe(b, name) == nil })
}

func stream(g *group, a, b string) {
	name := g.global("stream", nil, b)
	set := func(region, name string, s types.StreamSpecification) error {
		return g.update(region, &dynamodb.UpdateTableInput{TableName: &name, StreamSpecification: &s})
	}
	for _, region := range []string{a, b} {
		d := g.describe(region, name)
		if d.StreamSpecification == nil || !aws.ToBool(d.StreamSpecification.StreamEnabled) || d.StreamSpecification.StreamViewType != types.StreamViewTypeNewAndOldImages || d.LatestStreamArn == nil {
			g.Errorf("%s: the stream is %+v", region, d.StreamSpecification)
		}
		g.refused(set(region, name, types.StreamSpecification{StreamEnabled: aws.Bool(false)}), "Disabling Stream is not allowed for a Global Table replica.")
		g.refused(set(region, name, types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeKeysOnly}), "Table already has an enabled stream")
	}
	g.must(g.change(a, name, remove(b)))
	g.until("it is a table of one region", func() bool { return len(g.describe(a, name).Replicas) == 0 && g.settled(a, name) })
	if d := g.describe(a, name); d.StreamSpecification == nil || !aws.ToBool(d.StreamSpecification.StreamEnabled) {
		g.Error("its stream went with the replica")
	}
	g.must(set(a, name, types.StreamSpecification{StreamEnabled: aws.Bool(false)}))
	g.until("the stream is off", func() bool { return g.describe(a, name).StreamSpecification == nil })
	if g.describe(a, name).LatestStreamArn == nil {
		g.Error("LatestStreamArn went with the stream")
	}
	keys := g.global("keys", func(in *dynamodb.CreateTableInput) {
		in.StreamSpecification = &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: types.StreamViewTypeKeysOnly}
	}, b)
	for _, region := range []string{a, b} {
		if s := g.describe(region, keys).StreamSpecification; s == nil || s.StreamViewType != types.StreamViewTypeKeysOnly {
			g.Errorf("%s: a KEYS_ONLY stream became %+v", region, s)
		}
	}
}

func putTwice(g *group, a, b string) {
	name := g.global("once", lastWins, b)
	regions := []string{a, b}
	for i := range 5 {
		pk := fmt.Sprint(i)
		errs := map[string]*error{a: new(error), b: new(error)}
		atOnce(regions, func(region string) {
			_, *errs[region] = g.clients[region].PutItem(g.Context(), &dynamodb.PutItemInput{
				TableName: &name, Item: item{"pk": str(pk), "x": str(region), "y": str(region)}, ConditionExpression: aws.String("attribute_not_exists(pk)"),
			})
		})
		won := 0
		for region, err := range errs {
			var failed *types.ConditionalCheckFailedException
			if *err == nil {
				won++
			} else if !errors.As(*err, &failed) {
				g.Errorf("%s: %v", region, *err)
			}
		}
		if won == 0 {
			g.Error("neither put succeeded")
		}
		it := g.converged(name, pk, regions...)
		if !reflect.DeepEqual(it["x"], it["y"]) || it["x"] == nil {
			g.Errorf("fields are mixed: %v", it)
		}
	}
}

func increments(g *group, a, b string) {
	add := func(name string) int {
		regions := []string{a, b}
		g.put(a, name, item{"pk": str("n"), "n": num(0)})
		g.until("both have it", func() bool { return g.get(b, name, "n") != nil })
		atOnce(regions, func(region string) {
			_, err := g.clients[region].UpdateItem(g.Context(), &dynamodb.UpdateItemInput{
				TableName: &name, Key: item{"pk": str("n")}, UpdateExpression: aws.String("ADD n :one"), ExpressionAttributeValues: item{":one": num(1)},
			})
			if err != nil {
				g.Error(err)
			}
		})
		it := g.converged(name, "n", regions...)
		var n int
		if v, ok := it["n"].(*types.AttributeValueMemberN); ok {
			fmt.Sscan(v.Value, &n)
		}
		return n
	}
	// The later may have seen the earlier after all; neither is ever counted twice.
	if n := add(g.global("last", lastWins, b)); n != 1 && n != 2 {
		g.Errorf("the last writer wins, and %d is what two added", n)
	}
	if !g.merges() {
		g.Skip("the endpoint lets the last writer win, whatever it is asked; counters that merge are not to be had")
	}
	if n := add(g.global("merged", nil, b)); n != 2 {
		g.Errorf("writes are merged, and %d is what two added", n)
	}
}

func races(g *group, a, b string) {
	name := g.global("races", nil, b)
	regions := []string{a, b}
	act := map[string]func(region, pk string){
		"put": func(region, pk string) { g.put(region, name, item{"pk": str(pk), "by": str(region)}) },
		"update": func(region, pk string) {
			_, err := g.clients[region].UpdateItem(g.Context(), &dynamodb.UpdateItemInput{
				TableName: &name, Key: item{"pk": str(pk)}, UpdateExpression: aws.String("SET u = :v"), ExpressionAttributeValues: item{":v": str(region)},
			})
			g.must(err)
		},
		"delete": func(region, pk string) { g.delete(region, name, pk) },
	}
	for _, race := range [][2]string{{"delete", "update"}, {"put", "put"}, {"put", "delete"}, {"update", "update"}, {"delete", "delete"}} {
		for i := range 4 {
			pk := fmt.Sprintf("%s-%s-%d", race[0], race[1], i)
			g.put(a, name, item{"pk": str(pk), "old": str("x")})
			g.until("both have it", func() bool { return g.get(b, name, pk) != nil })
			doing := map[string]string{a: race[i%2], b: race[1-i%2]}
			atOnce(regions, func(region string) { act[doing[region]](region, pk) })
			if it := g.converged(name, pk, regions...); race == [2]string{"delete", "delete"} && it != nil {
				g.Errorf("both deleted %s, which is %v", pk, it)
			}
		}
	}
}

func expiry(g *group, a, b string) {
	g.needs(api + "UpdateTimeToLive")
	name := g.global("expiry", nil, b)
	_, err := g.clients[b].UpdateTimeToLive(g.Context(), &dynamodb.UpdateTimeToLiveInput{TableName: &name, TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("at"), Enabled: aws.Bool(true)}})
	g.must(err)
	g.until("the setting travels", func() bool {
		d, err := g.clients[a].DescribeTimeToLive(g.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &name})
		return err == nil && aws.ToString(d.TimeToLiveDescription.AttributeName) == "at"
	})
	g.put(a, name, item{"pk": str("old"), "at": num(int(time.Now().Add(-time.Hour).Unix()))})
	if os.Getenv("GLOBAL_SLOW") == "" && g.patience >= 20*time.Minute {
		g.Skip("the setting travels; expiry takes up to two days: set GLOBAL_SLOW and GLOBAL_WAIT to wait for it")
	}
	g.until("it is gone everywhere", func() bool { return g.get(a, name, "old") == nil && g.get(b, name, "old") == nil })
	g.needs(streams + "ListStreams")
	records := map[string]int{}
	for _, region := range []string{a, b} {
		for _, r := range g.records(region, name) {
			if r.Type == "REMOVE" && r.Identity == "dynamodb.amazonaws.com" {
				records[region]++
			}
		}
	}
	if records[a]+records[b] != 1 {
		g.Errorf("records of a deletion by the service: %v, want one, in one region", records)
	}
}

func transaction(g *group, a, b string) {
	g.needs(api + "TransactWriteItems")
	name := g.global("transaction", nil, b)
	var puts []types.TransactWriteItem
	for i := range 10 {
		puts = append(puts, types.TransactWriteItem{Put: &types.Put{TableName: &name, Item: item{"pk": str(fmt.Sprint(i))}}})
	}
	_, err := g.clients[a].TransactWriteItems(g.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: puts})
	g.must(err)
	for i := range 10 {
		if g.get(a, name, fmt.Sprint(i)) == nil {
			g.Errorf("item %d is not there where the transaction was made", i)
		}
	}
	g.until("each item comes to the other region", func() bool {
		for i := range 10 {
			if g.get(b, name, fmt.Sprint(i)) == nil {
				return false
			}
		}
		return true
	})
	_, err = g.clients[a].TransactWriteItems(g.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
		{Put: &types.Put{TableName: &name, Item: item{"pk": str("never")}}},
		{ConditionCheck: &types.ConditionCheck{TableName: &name, Key: item{"pk": str("0")}, ConditionExpression: aws.String("attribute_not_exists(pk)")}},
	}})
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) || g.get(a, name, "never") != nil {
		g.Errorf("a transaction whose condition fails: %v", err)
	}
}

func settings(g *group, a, b string) {
	name := g.global("settings", func(in *dynamodb.CreateTableInput) {
		in.OnDemandThroughput = &types.OnDemandThroughput{MaxReadRequestUnits: aws.Int64(100), MaxWriteRequestUnits: aws.Int64(100)}
	}, b)
	change := func(region string, in dynamodb.UpdateTableInput) {
		g.Helper()
		in.TableName = &name
		g.must(g.update(region, &in))
		g.joined(name, a, b)
	}
	limits := func(region string) (read, write int64) {
		o := g.describe(region, name).OnDemandThroughput
		if o == nil {
			return 0, 0
		}
		return aws.ToInt64(o.MaxReadRequestUnits), aws.ToInt64(o.MaxWriteRequestUnits)
	}
	has := func(what, region string, read, write int64) {
		g.Helper()
		g.until(fmt.Sprintf("%s: %s reads %d and writes %d at most", what, region, read, write), func() bool {
			r, w := limits(region)
			return r == read && w == write
		})
	}
	class := func(region string) types.TableClass {
		if s := g.describe(region, name).TableClassSummary; s != nil {
			return s.TableClass
		}
		return types.TableClassStandard
	}
	has("inherited", b, 100, 100)

	// Always.
	change(b, dynamodb.UpdateTableInput{OnDemandThroughput: &types.OnDemandThroughput{MaxWriteRequestUnits: aws.Int64(70)}})
	has("changed in the other region", a, 100, 70)
	index := types.GlobalSecondaryIndexUpdate{Create: &types.CreateGlobalSecondaryIndexAction{IndexName: aws.String("byg"), KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("g"), KeyType: types.KeyTypeHash}}, Projection: &types.Projection{ProjectionType: types.ProjectionTypeAll}}}
	change(b, dynamodb.UpdateTableInput{GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{index}, AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("g"), AttributeType: types.ScalarAttributeTypeS}}})
	g.until("an index travels", func() bool { return len(g.describe(a, name).GlobalSecondaryIndexes) == 1 && g.settled(a, name) })
	change(a, dynamodb.UpdateTableInput{GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: aws.String("byg")}}}})
	g.until("it goes again", func() bool { return len(g.describe(b, name).GlobalSecondaryIndexes) == 0 })

	// Unless overridden.
	change(a, dynamodb.UpdateTableInput{ReplicaUpdates: []types.ReplicationGroupUpdate{{Update: &types.UpdateReplicationGroupMemberAction{RegionName: &b, OnDemandThroughputOverride: &types.OnDemandThroughputOverride{MaxReadRequestUnits: aws.Int64(30)}}}}})
	has("overridden", b, 30, 70)
	has("overridden elsewhere", a, 100, 70)
	g.until("the override is shown", func() bool {
		r := replica(g.describe(a, name), b)
		return r != nil && r.OnDemandThroughputOverride != nil && aws.ToInt64(r.OnDemandThroughputOverride.MaxReadRequestUnits) == 30
	})
	change(a, dynamodb.UpdateTableInput{OnDemandThroughput: &types.OnDemandThroughput{MaxReadRequestUnits: aws.Int64(200)}})
	has("overwritten", b, 200, 70)
	change(a, dynamodb.UpdateTableInput{ReplicaUpdates: []types.ReplicationGroupUpdate{{Update: &types.UpdateReplicationGroupMemberAction{RegionName: &b, TableClassOverride: types.TableClassStandardInfrequentAccess}}}})
	g.until("a class of its own", func() bool { return class(b) == types.TableClassStandardInfrequentAccess })
	if class(a) != types.TableClassStandard {
		g.Error("the override is in force where it was not asked for")
	}

	// Never.
	change(a, dynamodb.UpdateTableInput{DeletionProtectionEnabled: aws.Bool(true)})
	_, err := g.clients[a].TagResource(g.Context(), &dynamodb.TagResourceInput{ResourceArn: g.describe(a, name).TableArn, Tags: []types.Tag{{Key: aws.String("of"), Value: &a}}})
	g.must(err)
	_, err = g.clients[a].UpdateContributorInsights(g.Context(), &dynamodb.UpdateContributorInsightsInput{TableName: &name, ContributorInsightsAction: types.ContributorInsightsActionEnable})
	g.must(err)
	change(a, dynamodb.UpdateTableInput{OnDemandThroughput: &types.OnDemandThroughput{MaxWriteRequestUnits: aws.Int64(71)}})
	has("a later change has come", b, 200, 71)
	if aws.ToBool(g.describe(b, name).DeletionProtectionEnabled) {
		g.Error("deletion protection travels")
	}
	tags, err := g.clients[b].ListTagsOfResource(g.Context(), &dynamodb.ListTagsOfResourceInput{ResourceArn: g.describe(b, name).TableArn})
	g.must(err)
	if len(tags.Tags) > 0 {
		g.Errorf("tags travel: %v", tags.Tags)
	}
	insights, err := g.clients[b].DescribeContributorInsights(g.Context(), &dynamodb.DescribeContributorInsightsInput{TableName: &name})
	g.must(err)
	if insights.ContributorInsightsStatus != types.ContributorInsightsStatusDisabled {
		g.Errorf("Contributor Insights travel: %s", insights.ContributorInsightsStatus)
	}
	change(a, dynamodb.UpdateTableInput{DeletionProtectionEnabled: aws.Bool(false)})
}

var pendingMetric = regexp.MustCompile(`(?m)^commutator_replication_pending\{[^}]*\} ([0-9.e+]+)$`)

func apart(g *group, a, b string) {
	if g.cut == nil || g.heal == nil {
		g.Skip("no way to cut the regions apart: GLOBAL_CUT and GLOBAL_HEAL are commands that do, given a region")
	}
	name := g.global("apart", nil, b)
	g.must(g.cut(b))
	healed := false
	defer func() {
		if !healed {
			g.heal(b)
		}
	}()
	for i := range 20 {
		g.put(a, name, item{"pk": str(fmt.Sprint("a", i))})
		g.put(b, name, item{"pk": str(fmt.Sprint("b", i))})
		g.put(a, name, item{"pk": str("both"), "n": num(i), "a": str("x")})
		g.put(b, name, item{"pk": str("both"), "n": num(i), "b": str("x")})
	}
	if g.get(b, name, "a0") != nil || g.get(a, name, "b0") != nil {
		g.Error("the regions were not apart")
	}
	if hold, err := time.ParseDuration(os.Getenv("GLOBAL_APART")); err == nil {
		time.Sleep(hold)
	}
	g.must(g.heal(b))
	healed = true
	g.converged(name, "both", a, b)
	for i := range 20 {
		g.until("all of both sides is everywhere", func() bool {
			return g.get(b, name, fmt.Sprint("a", i)) != nil && g.get(a, name, fmt.Sprint("b", i)) != nil
		})
	}
	for pair := range strings.SplitSeq(os.Getenv("GLOBAL_METRICS"), ",") {
		if pair == "" {
			continue
		}
		g.until("nothing is pending at "+pair, func() bool {
			body, err := fetch(pair)
			g.must(err)
			for _, m := range pendingMetric.FindAllStringSubmatch(body, -1) {
				if m[1] != "0" {
					return false
				}
			}
			return strings.Contains(body, "commutator_replication_pending")
		})
	}
}

func leaves(g *group, a, b string) {
	name := g.global("leaves", nil, b)
	for i := range 20 {
		g.put(a, name, item{"pk": str(fmt.Sprint("a", i))})
		g.put(b, name, item{"pk": str(fmt.Sprint("b", i))})
	}
	d := g.describe(b, name)
	arn := aws.ToString(d.TableArn)
	g.refused(g.change(b, name, disassociate(b)), "rotect")
	g.must(g.update(b, &dynamodb.UpdateTableInput{TableName: &name, DisassociationProtectionEnabled: aws.Bool(false)}))
	g.joined(name, a, b)
	err := g.update(b, &dynamodb.UpdateTableInput{TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{disassociate(b)}, DeletionProtectionEnabled: aws.Bool(true)})
	g.refused(err, "only operation")
	g.refused(g.change(b, name, disassociate(b), remove(a)), "")
	g.refused(g.change(a, name, disassociate(b)), "")
	last := "last"
	g.put(a, name, item{"pk": &types.AttributeValueMemberS{Value: last}}) // is to be waited for
	g.must(g.change(b, name, disassociate(b)))
	for region, other := range map[string]string{a: b, b: a} {
		g.until(region+" is alone", func() bool {
			d := g.describe(region, name)
			return d != nil && d.TableStatus == types.TableStatusActive && len(d.Replicas) == 0 && d.GlobalTableVersion == nil
		})
		for i := range 20 {
			if g.get(region, name, fmt.Sprint("a", i)) == nil || g.get(region, name, fmt.Sprint("b", i)) == nil {
				g.Fatalf("%s has not what was written before %s went", region, other)
			}
		}
		if g.get(region, name, last) == nil {
			g.Errorf("%s has not what was on its way", region)
		}
	}
	if got := aws.ToString(g.describe(b, name).TableArn); got != arn {
		g.Errorf("its ARN was %s and is %s", arn, got)
	}
	g.put(a, name, item{"pk": str("after"), "of": str(a)})
	g.put(b, name, item{"pk": str("after"), "of": str(b)})
	if got := g.get(b, name, "after")["of"]; !reflect.DeepEqual(got, str(b)) {
		g.Errorf("a table of its own shows %v", got)
	}
	g.refused(g.change(a, name, create(b)), "because one or more replicas already existed as tables.")
}

func strong(g *group, a, b string) {
	if len(g.regions) < 3 {
		g.Skip("strong consistency takes three regions")
	}
	c := g.regions[2]
	name := g.table(a, "strong", nil)
	ask := func(updates ...types.ReplicationGroupUpdate) error {
		return g.update(a, &dynamodb.UpdateTableInput{TableName: &name, MultiRegionConsistency: types.MultiRegionConsistencyStrong, ReplicaUpdates: updates})
	}
	g.refused(ask(create(b)), "Unsupported replica count for global tables with MultiRegionConsistency set to STRONG.")
	err := ask(create(b), create(c))
	var e smithy.APIError
	if errors.As(err, &e) && strings.Contains(e.ErrorMessage(), "not supported") {
		g.Skipf("the endpoint does not have it: %s", e.ErrorMessage())
	}
	g.must(err)
	g.joined(name, a, b, c)
	if d := g.describe(b, name); d.MultiRegionConsistency != types.MultiRegionConsistencyStrong {
		g.Errorf("the replica's consistency is %q", d.MultiRegionConsistency)
	}
	g.put(a, name, item{"pk": str("k")})
	if g.get(b, name, "k") == nil {
		g.Error("a strong read in another region does not show an acknowledged write")
	}
	if _, err := g.clients[a].TransactWriteItems(g.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{{Put: &types.Put{TableName: &name, Item: item{"pk": str("t")}}}}}); err == nil {
		g.Error("a transaction is carried out")
	}
	g.must(g.change(a, name, remove(b), remove(c)))
	g.until("it is a table of one region", func() bool { return len(g.describe(a, name).Replicas) == 0 })
}

func plain(g *group, a, b string) {
	name := g.global("plain", nil, b)
	want := item{"pk": str("k"), "n": num(7), "l": &types.AttributeValueMemberL{Value: []types.AttributeValue{str("x")}}}
	g.put(a, name, want)
	g.until("it is in both", func() bool { return g.get(b, name, "k") != nil })
	g.put(b, name, item{"pk": str("k"), "n": num(8), "l": want["l"]})
	want["n"] = num(8)
	g.until("written twice", func() bool { return reflect.DeepEqual(g.get(a, name, "k"), want) })
	g.put(a, name, item{"pk": str("gone")})
	g.until("it is in both", func() bool { return g.get(b, name, "gone") != nil })
	g.delete(b, name, "gone")
	g.until("it is gone from both", func() bool { return g.get(a, name, "gone") == nil })
	for _, region := range []string{a, b} {
		if got := g.get(region, name, "k"); !reflect.DeepEqual(got, want) {
			g.Errorf("%s: got %v, want %v", region, got, want)
		}
		out, err := g.clients[region].Scan(g.Context(), &dynamodb.ScanInput{TableName: &name, ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal, ConsistentRead: aws.Bool(true)})
		g.must(err)
		if len(out.Items) != 1 || out.ScannedCount != 1 || !reflect.DeepEqual(out.Items[0], want) || aws.ToFloat64(out.ConsumedCapacity.CapacityUnits) != 1 {
			g.Errorf("%s: a scan shows %v, looked at %d, took %v units", region, out.Items, out.ScannedCount, *out.ConsumedCapacity.CapacityUnits)
		}
	}
	// A put of all that an item may have goes on being one everywhere.
	big := strings.Repeat("x", 400*1024-len("pk")-len("big")-len("v"))
	g.put(a, name, item{"pk": str("big"), "v": str(big)})
	g.until("the largest item is in both", func() bool { return g.get(b, name, "big") != nil })
	_, err := g.clients[b].UpdateItem(g.Context(), &dynamodb.UpdateItemInput{TableName: &name, Key: item{"pk": str("big")}, UpdateExpression: aws.String("SET v = :v"), ExpressionAttributeValues: item{":v": str("small")}})
	g.must(err)
	g.until("and can be changed", func() bool { return reflect.DeepEqual(g.get(a, name, "big")["v"], str("small")) })
	if _, answer := g.ask(a, streams+"ListStreams", "{}"); !strings.Contains(answer, "UnknownOperationException") {
		for _, region := range []string{a, b} {
			for _, r := range g.records(region, name) {
				for attribute := range r.New {
					if strings.HasPrefix(attribute, "aws:") || !slices.Contains([]string{"pk", "n", "l", "v"}, attribute) {
						g.Errorf("%s: a record shows %s", region, attribute)
					}
				}
			}
		}
	}
}

func restored(g *group, a, b string) {
	g.needs(api + "CreateBackup")
	name := g.global("restored", nil, b)
	g.put(a, name, item{"pk": str("k")})
	var arn string
	g.until("a backup can be made", func() bool {
		out, err := g.clients[a].CreateBackup(g.Context(), &dynamodb.CreateBackupInput{TableName: &name, BackupName: aws.String("backup")})
		if err == nil {
			arn = aws.ToString(out.BackupDetails.BackupArn)
		}
		return err == nil
	})
	g.Cleanup(func() { g.clients[a].DeleteBackup(g.Context(), &dynamodb.DeleteBackupInput{BackupArn: &arn}) })
	target := name + "-again"
	g.Cleanup(func() { g.drop(target) })
	g.until("it can be restored", func() bool {
		_, err := g.clients[a].RestoreTableFromBackup(g.Context(), &dynamodb.RestoreTableFromBackupInput{BackupArn: &arn, TargetTableName: &target})
		return err == nil
	})
	g.until("it is restored", func() bool { return g.settled(a, target) })
	if d := g.describe(a, target); d.GlobalTableVersion != nil || len(d.Replicas) > 0 || g.describe(b, target) != nil {
		g.Errorf("what is restored is global: %+v", d)
	}
	if g.get(a, target, "k") == nil {
		g.Error("the item is not there")
	}
}

func refusals(g *group, a, b string) {
	name := g.table(a, "refusals", nil)
	g.refused(g.change(a, name, types.ReplicationGroupUpdate{}), "There are no actions specified in the Replica Update Action of the request.")
	g.refused(g.change(a, name, create("mars-north-1")), "Region mars-north-1 is not supported. The latest version of global tables are only supported in the following regions: [")
	notPart := fmt.Sprintf("Update global table operation failed because one or more replicas were not part of the global table. Please retry the request without these replicas: [%s].", b)
	g.refused(g.change(a, name, remove(b)), notPart)
	class := types.ReplicationGroupUpdate{Update: &types.UpdateReplicationGroupMemberAction{RegionName: &b, TableClassOverride: types.TableClassStandard}}
	g.refused(g.change(a, name, class), notPart)
	both := create(b)
	both.Delete = remove(b).Delete
	g.refused(g.change(a, name, both), "Update table operation with more than one type of replica actions not allowed.")
	g.refused(g.update(a, &dynamodb.UpdateTableInput{TableName: &name, ReplicaUpdates: []types.ReplicationGroupUpdate{create(b)}, DeletionProtectionEnabled: aws.Bool(true)}),
		"One or more parameter values were invalid: Replica modification must be the only operation in the request")
	if len(g.regions) > 2 {
		g.refused(g.change(a, name, create(b), create(g.regions[2])), "Update table operation with more than one create or delete replica actions not allowed")
	}
	var none *types.ResourceNotFoundException
	if _, err := g.clients[a].DescribeTableReplicaAutoScaling(g.Context(), &dynamodb.DescribeTableReplicaAutoScalingInput{TableName: &name}); !errors.As(err, &none) || !strings.Contains(err.Error(), "Global table with name: '"+name+"' does not exist.") {
		g.Errorf("auto scaling of a table of one region: %v", err)
	}
	if d := g.describe(a, name); len(d.Replicas) > 0 || d.StreamSpecification != nil {
		g.Errorf("what was refused left %v and the stream %v", d.Replicas, d.StreamSpecification)
	}
	g.must(g.change(a, name, create(b)))
	g.joined(name, a, b)
	g.refused(g.change(a, name, create(b)), "because one or more replicas already existed as tables.")
	g.refused(g.change(a, name, types.ReplicationGroupUpdate{Update: &types.UpdateReplicationGroupMemberAction{RegionName: &b}}), "There are no actions specified in the Replica Update Action of the request.")
}

func inTheWay(g *group, a, b string) {
	name := g.table(a, "way", nil)
	g.table(b, "way", nil)
	g.put(b, name, item{"pk": str("mine")})
	g.until("it is known that the name is taken", func() bool {
		err := g.change(a, name, create(b))
		if err == nil {
			g.Fatal("a replica is to take another table's place")
		}
		return strings.Contains(err.Error(), "because one or more replicas already existed as tables.")
	})
	if g.get(b, name, "mine") == nil {
		g.Error("the table in the way has lost an item")
	}
	protected := g.global("protected", nil, b)
	g.must(g.update(b, &dynamodb.UpdateTableInput{TableName: &protected, DeletionProtectionEnabled: aws.Bool(true)}))
	g.joined(protected, a, b)
	g.until("the protection is known", func() bool {
		err := g.change(a, protected, remove(b))
		if err == nil {
			g.Fatal("a protected replica is removed")
		}
		return strings.Contains(err.Error(), fmt.Sprintf("Cannot delete table %s in region %s because it has deletion protection enabled. Disable deletion protection first.", protected, b))
	})
	g.must(g.update(b, &dynamodb.UpdateTableInput{TableName: &protected, DeletionProtectionEnabled: aws.Bool(false)}))
	g.joined(protected, a, b)
	g.until("and once it is off, it is", func() bool { return g.change(a, protected, remove(b)) == nil })
	g.until("the replica is gone", func() bool { return g.describe(b, protected) == nil && len(g.describe(a, protected).Replicas) == 0 })
}

func ownDelete(g *group, a, b string) {
	name := g.global("own", nil, b)
	g.put(b, name, item{"pk": str("k")})
	g.until("both have it", func() bool { return g.get(a, name, "k") != nil })
	_, err := g.clients[b].DeleteTable(g.Context(), &dynamodb.DeleteTableInput{TableName: &name})
	g.must(err)
	g.until("the replica is gone and the other is a table of one region", func() bool {
		d := g.describe(a, name)
		return g.describe(b, name) == nil && d.TableStatus == types.TableStatusActive && len(d.Replicas) == 0 && d.GlobalTableVersion == nil
	})
	if g.get(a, name, "k") == nil {
		g.Error("what the replica wrote went with it")
	}
	g.must(g.change(a, name, create(b)))
	g.joined(name, a, b)
	if g.get(b, name, "k") == nil {
		g.Error("a replica made anew lacks the item")
	}
}

// record is what the checks look at of a stream's record.
type record struct {
	Type     string
	Identity string
	New      map[string]json.RawMessage
}

// records reads a region's stream of a table from its beginning.
func (g *group) records(region, name string) []record {
	g.Helper()
	call := func(op string, in, out any) {
		g.Helper()
		body, err := json.Marshal(in)
		g.must(err)
		status, answer := g.ask(region, streams+op, string(body))
		if status != http.StatusOK {
			g.Fatalf("%s: %d %s", op, status, answer)
		}
		g.must(json.Unmarshal([]byte(answer), out))
	}
	arn := aws.ToString(g.describe(region, name).LatestStreamArn)
	var described struct {
		StreamDescription struct{ Shards []struct{ ShardId string } }
	}
	call("DescribeStream", map[string]any{"StreamArn": arn}, &described)
	var out []record
	for _, shard := range described.StreamDescription.Shards {
		var at struct{ ShardIterator string }
		call("GetShardIterator", map[string]any{"StreamArn": arn, "ShardId": shard.ShardId, "ShardIteratorType": "TRIM_HORIZON"}, &at)
		for range 20 {
			var got struct {
				Records []struct {
					EventName    string `json:"eventName"`
					UserIdentity struct{ PrincipalId string }
					Dynamodb     struct{ NewImage map[string]json.RawMessage }
				}
				NextShardIterator string
			}
			call("GetRecords", map[string]any{"ShardIterator": at.ShardIterator}, &got)
			for _, r := range got.Records {
				out = append(out, record{r.EventName, r.UserIdentity.PrincipalId, r.Dynamodb.NewImage})
			}
			if at.ShardIterator = got.NextShardIterator; at.ShardIterator == "" || len(got.Records) == 0 {
				break
			}
		}
	}
	return out
}

// fetch gets one of GLOBAL_METRICS: region=url.
func fetch(pair string) (string, error) {
	_, url, _ := strings.Cut(pair, "=")
	w, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer w.Body.Close()
	b, err := io.ReadAll(w.Body)
	return string(b), err
}
