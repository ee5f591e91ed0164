package conformance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commutatordb/commutator/api"
	"github.com/commutatordb/commutator/region"
	"github.com/commutatordb/commutator/region/op"
)

// sdkAndRegion returns the SDK's client of a new server, and the region behind it.
func sdkAndRegion(t *testing.T) (*dynamodb.Client, *region.Region) {
	t.Helper()
	r := startRegion(t, vfs.NewMem())
	cfg := api.Config{Region: r, Now: time.Now}
	verifying(&cfg)
	return sdkOf(t, api.New(cfg)), r
}

// checkIndexes holds a table's indexes against its items.
func checkIndexes(t *testing.T, r *region.Region, name string) op.IndexCheckResult {
	t.Helper()
	tab, err := r.Table(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	found, err := tab.CheckIndexes(t.Context(), op.IndexCheck{Limit: 1 << 20})
	if err != nil || len(found.Differences) > 0 {
		t.Fatalf("the check of indexes finds %+v, %v", found.Differences, err)
	}
	return found
}

func fill(t *testing.T, c *dynamodb.Client, name string, items int) {
	t.Helper()
	for i := 0; i < items; i += 25 {
		var writes []types.WriteRequest
		for j := i; j < min(i+25, items); j++ {
			writes = append(writes, types.WriteRequest{PutRequest: &types.PutRequest{Item: attributes{"pk": str(fmt.Sprint(j)), "color": str([]string{"red", "blue"}[j%2]), "size": num(fmt.Sprint(j))}}})
		}
		out, err := c.BatchWriteItem(t.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{name: writes}})
		if err != nil || len(out.UnprocessedItems) > 0 {
			t.Fatalf("%+v, %v", out, err)
		}
	}
}

func addIndex(name string, projection *types.Projection, keys ...types.KeySchemaElement) *dynamodb.UpdateTableInput {
	return &dynamodb.UpdateTableInput{
		TableName: aws.String("busy"),
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String("color"), AttributeType: types.ScalarAttributeTypeS}, {AttributeName: aws.String("size"), AttributeType: types.ScalarAttributeTypeN},
		},
		GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{IndexName: &name, Projection: projection, KeySchema: keys}}},
	}
}

var byColor = []types.KeySchemaElement{{AttributeName: aws.String("color"), KeyType: types.KeyTypeHash}, {AttributeName: aws.String("size"), KeyType: types.KeyTypeRange}}

// Indexes of every projection are added to a table while clients write to it: each ends up with what the items make, and is counted.
func TestIndexesAreAddedToATableUnderLoad(t *testing.T) {
	c, r := sdkAndRegion(t)
	createTable(t, c, "busy", "", nil)
	fill(t, c, "busy", 1500)
	ctx := t.Context()
	var stop atomic.Bool // a request that is given up may still be carried out
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for !stop.Load() {
				key := attributes{"pk": str(fmt.Sprint(rng.IntN(2000)))}
				var err error
				switch rng.IntN(4) {
				case 0:
					_, err = c.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: aws.String("busy"), Key: key})
				case 1:
					_, err = c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("busy"), Key: key, UpdateExpression: aws.String("REMOVE color SET note = :n"), ExpressionAttributeValues: attributes{":n": str("x")}})
				default:
					_, err = c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("busy"), Key: key, UpdateExpression: aws.String("SET color = :c, #s = :s"),
						ExpressionAttributeNames: map[string]string{"#s": "size"}, ExpressionAttributeValues: attributes{":c": str(fmt.Sprint(rng.IntN(3))), ":s": num(fmt.Sprint(rng.IntN(100)))}})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for name, p := range map[string]*types.Projection{
		"all": {ProjectionType: types.ProjectionTypeAll}, "keys": {ProjectionType: types.ProjectionTypeKeysOnly},
		"some": {ProjectionType: types.ProjectionTypeInclude, NonKeyAttributes: []string{"note"}},
	} {
		out, err := c.UpdateTable(t.Context(), addIndex(name, p, byColor...))
		if err != nil {
			t.Fatal(err)
		}
		added := out.TableDescription.GlobalSecondaryIndexes[len(out.TableDescription.GlobalSecondaryIndexes)-1]
		if added.IndexStatus != types.IndexStatusCreating || added.Backfilling == nil || *added.Backfilling {
			t.Errorf("the answer shows %+v", added)
		}
		d := awaitActive(t, c, "busy")
		if added = d.GlobalSecondaryIndexes[len(d.GlobalSecondaryIndexes)-1]; added.IndexStatus != types.IndexStatusActive || added.Backfilling != nil {
			t.Errorf("in the end it is %+v", added)
		}
	}
	stop.Store(true)
	wg.Wait()
	found := checkIndexes(t, r, "busy")
	rows := int64(0)
	for _, x := range awaitActive(t, c, "busy").GlobalSecondaryIndexes {
		if *x.ItemCount == 0 || *x.IndexSizeBytes == 0 {
			t.Errorf("%s has %d rows of %d bytes", *x.IndexName, *x.ItemCount, *x.IndexSizeBytes)
		}
		rows += *x.ItemCount
	}
	if int(rows) != found.Rows {
		t.Errorf("%d rows are counted, there are %d", rows, found.Rows)
	}
}

// An index may be deleted while it is being filled, and made again by the same name.
func TestAnIndexMayBeCancelled(t *testing.T) {
	c, r := sdkAndRegion(t)
	createTable(t, c, "busy", "", nil)
	fill(t, c, "busy", 1500)
	all := &types.Projection{ProjectionType: types.ProjectionTypeAll}
	for range 3 {
		if _, err := c.UpdateTable(t.Context(), addIndex("color", all, byColor...)); err != nil {
			t.Fatal(err)
		}
		_, err := c.UpdateTable(t.Context(), addIndex("other", all, byColor...))
		if limit := (*types.LimitExceededException)(nil); err != nil && !errors.As(err, &limit) { // it may be filled already
			t.Fatal(err)
		}
		made := err == nil
		out, err := c.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: aws.String("busy"), GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: aws.String("color")}}}})
		if made {
			awaitActive(t, c, "busy")
			drop(t, c, "other")
			if err != nil {
				drop(t, c, "color")
			}
		} else if err != nil || out.TableDescription.GlobalSecondaryIndexes[0].IndexStatus != types.IndexStatusDeleting || out.TableDescription.TableStatus != types.TableStatusUpdating {
			t.Fatalf("%+v, %v", out, err)
		}
		if d := awaitActive(t, c, "busy"); len(d.GlobalSecondaryIndexes) != 0 || len(d.AttributeDefinitions) != 1 {
			t.Fatalf("there are still %+v", d.GlobalSecondaryIndexes)
		}
		// The table may be ACTIVE a moment before the partitions have heard.
		for n := 0; checkIndexes(t, r, "busy").Rows != 0; n++ {
			if awaitActive(t, c, "busy"); n == 1000 {
				t.Fatal("there are rows of no index")
			}
		}
	}
}

func drop(t *testing.T, c *dynamodb.Client, index string) {
	t.Helper()
	if _, err := c.UpdateTable(t.Context(), &dynamodb.UpdateTableInput{TableName: aws.String("busy"), GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: &index}}}}); err != nil {
		t.Fatal(err)
	}
	awaitActive(t, c, "busy")
}

// What has no attribute of the index's key, or one of another type, is passed over when an index is filled; from then on another type
// is refused.
func TestFillingPassesOverWhatDoesNotFit(t *testing.T) {
	c, r := sdkAndRegion(t)
	createTable(t, c, "busy", "", nil)
	for pk, it := range map[string]attributes{"fits": {"color": str("red"), "size": num("1")}, "lacks": {"color": str("red")}, "other type": {"color": num("1"), "size": num("1")}, "empty": {"color": str(""), "size": num("2")}} {
		it["pk"] = str(pk)
		if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("busy"), Item: it}); err != nil {
			t.Fatal(err)
		}
	}
	in := addIndex("color", &types.Projection{ProjectionType: types.ProjectionTypeAll}, types.KeySchemaElement{AttributeName: aws.String("color"), KeyType: types.KeyTypeHash}, types.KeySchemaElement{AttributeName: aws.String("size"), KeyType: types.KeyTypeHash}, types.KeySchemaElement{AttributeName: aws.String("pk"), KeyType: types.KeyTypeRange})
	in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS})
	if _, err := c.UpdateTable(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if d := awaitActive(t, c, "busy"); *d.GlobalSecondaryIndexes[0].ItemCount != 1 || *d.ItemCount != 4 {
		t.Errorf("%d rows of %d items", *d.GlobalSecondaryIndexes[0].ItemCount, *d.ItemCount)
	}
	checkIndexes(t, r, "busy")
	out, err := c.Query(t.Context(), &dynamodb.QueryInput{TableName: aws.String("busy"), IndexName: aws.String("color"), KeyConditionExpression: aws.String("color = :c AND #s = :s AND begins_with(pk, :p)"),
		ExpressionAttributeNames: map[string]string{"#s": "size"}, ExpressionAttributeValues: attributes{":c": str("red"), ":s": num("1"), ":p": str("f")}})
	if err != nil || out.Count != 1 {
		t.Errorf("a query finds %+v, %v", out, err)
	}
	if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("busy"), Item: attributes{"pk": str("late"), "color": num("1")}}); err == nil {
		t.Error("another type is taken once the index is there")
	}
	update := func(expression string, value types.AttributeValue) error {
		_, err := c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: aws.String("busy"), Key: attributes{"pk": str("other type")},
			UpdateExpression: &expression, ExpressionAttributeValues: attributes{":v": value}})
		return err
	}
	if err := update("SET price = :v", num("1")); err != nil {
		t.Errorf("what the index has passed over cannot be changed beside its key: %v", err)
	}
	if err := update("SET color = :v", num("2")); err == nil {
		t.Error("what the index has passed over is given another key of another type")
	}
	if err := update("SET color = :v", str("red")); err != nil {
		t.Errorf("the key of what the index has passed over cannot be mended: %v", err)
	}
	checkIndexes(t, r, "busy")
}

func TestTheSDKsWaitersSeeTablesComeAndGo(t *testing.T) {
	c, _ := sdkAndRegion(t)
	in := &dynamodb.CreateTableInput{
		TableName: aws.String("waited"), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	}
	for range 2 {
		out, err := c.CreateTable(t.Context(), in)
		if err != nil || out.TableDescription.TableStatus != types.TableStatusCreating {
			t.Fatalf("%+v, %v", out, err)
		}
		describe := &dynamodb.DescribeTableInput{TableName: out.TableDescription.TableArn}
		exists := dynamodb.NewTableExistsWaiter(c, func(o *dynamodb.TableExistsWaiterOptions) {
			o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
		})
		if err := exists.Wait(t.Context(), describe, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: in.TableName, Item: attributes{"pk": str("a")}}); err != nil {
			t.Errorf("a table that exists refuses a write: %v", err)
		}
		gone, err := c.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: in.TableName})
		if err != nil || gone.TableDescription.TableStatus != types.TableStatusDeleting {
			t.Fatalf("%+v, %v", gone, err)
		}
		notExists := dynamodb.NewTableNotExistsWaiter(c, func(o *dynamodb.TableNotExistsWaiterOptions) {
			o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond
		})
		if err := notExists.Wait(t.Context(), describe, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		_, err = c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: in.TableName, Item: attributes{"pk": str("a")}})
		if missing := (*types.ResourceNotFoundException)(nil); !errors.As(err, &missing) {
			t.Errorf("a table that is gone: %v", err)
		}
	}
}
