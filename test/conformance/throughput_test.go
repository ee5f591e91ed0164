package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/api"
)

// enforced returns a client and the handler of a server that enforces throughput, and its clock, in milliseconds.
func enforced(t *testing.T) (*dynamodb.Client, *api.Handler, *atomic.Int64) {
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	h := newHandler(t, func(cfg *api.Config) {
		cfg.EnforceThroughput = true
		cfg.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	})
	return sdkOf(t, h), h, &clock
}

func provisioned(units int64) func(*dynamodb.CreateTableInput) {
	return func(in *dynamodb.CreateTableInput) {
		in.BillingMode = types.BillingModeProvisioned
		in.ProvisionedThroughput = &types.ProvisionedThroughput{ReadCapacityUnits: &units, WriteCapacityUnits: &units}
	}
}

// until puts one item after another until one is refused, and returns how many were not, and the error.
func until(t *testing.T, c *dynamodb.Client, name string, item attributes) (int, error) {
	t.Helper()
	for n := range 2000 {
		if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
			return n, err
		}
	}
	t.Fatal("nothing limits the writes")
	return 0, nil
}

func TestProvisionedCapacityIsEnforcedWithBurst(t *testing.T) {
	c, _, clock := enforced(t)
	createTable(t, c, "orders", "", provisioned(5))
	item := attributes{"pk": str("a")}
	n, err := until(t, c, "orders", item)
	var refused *types.ProvisionedThroughputExceededException
	if n != 5 || !errors.As(err, &refused) {
		t.Fatalf("%d writes of 5 units a second, then %v", n, err)
	}
	const table = "arn:aws:dynamodb:us-east-1:000000000000:table/orders"
	if len(refused.ThrottlingReasons) != 1 || *refused.ThrottlingReasons[0].Reason != "TableWriteProvisionedThroughputExceeded" || *refused.ThrottlingReasons[0].Resource != table {
		t.Errorf("reasons %+v", refused.ThrottlingReasons)
	}
	if want := "The level of configured provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the UpdateTable API."; refused.ErrorMessage() != want {
		t.Errorf("got %q", refused.ErrorMessage())
	}
	clock.Add(10_000)
	if n, _ := until(t, c, "orders", item); n != 50 {
		t.Errorf("%d writes after ten seconds, not 50", n)
	}
	clock.Add(3_600_000)
	if n, _ := until(t, c, "orders", item); n != 1500 {
		t.Errorf("%d writes after an hour, not what 300 seconds bring", n)
	}
	// Reads have capacity of their own, and what a large item took has to come in again.
	large := attributes{"pk": str("l"), "v": str(strings.Repeat("x", 100<<10))}
	clock.Add(1000)
	if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: large}); err != nil {
		t.Fatal(err)
	}
	clock.Add(15_000)
	if n, err := until(t, c, "orders", item); n != 0 {
		t.Errorf("%d writes while 101 units are owed, then %v", n, err)
	}
	clock.Add(5_000)
	if n, _ := until(t, c, "orders", item); n == 0 {
		t.Error("no write when all was paid")
	}
	get := func() error { // of which little comes back, and all is paid for
		_, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{
			TableName: aws.String("orders"), Key: attributes{"pk": str("l")}, ProjectionExpression: aws.String("pk"), ConsistentRead: aws.Bool(true),
		})
		return err
	}
	reads := 0
	for err = get(); err == nil && reads < 1000; err = get() {
		reads++
	}
	if refused = nil; !errors.As(err, &refused) || *refused.ThrottlingReasons[0].Reason != "TableReadProvisionedThroughputExceeded" {
		t.Errorf("after %d reads: %v", reads, err)
	}
	if _, err := c.Scan(t.Context(), &dynamodb.ScanInput{TableName: aws.String("orders")}); !errors.As(err, &refused) {
		t.Errorf("scan: %v", err)
	}
}

func TestAFullIndexRefusesTheWritesThatTouchIt(t *testing.T) {
	c, _, _ := enforced(t)
	createTable(t, c, "orders", "", func(in *dynamodb.CreateTableInput) {
		provisioned(1000)(in)
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{AttributeName: aws.String("g"), AttributeType: types.ScalarAttributeTypeS})
		in.GlobalSecondaryIndexes = []types.GlobalSecondaryIndex{{
			IndexName: aws.String("byg"), KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("g"), KeyType: types.KeyTypeHash}},
			Projection:            &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
			ProvisionedThroughput: &types.ProvisionedThroughput{ReadCapacityUnits: aws.Int64(1), WriteCapacityUnits: aws.Int64(2)},
		}}
	})
	i := 0
	var err error
	for ; err == nil && i < 100; i++ {
		_, err = c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: attributes{"pk": str(fmt.Sprint(i)), "g": str("x")}})
	}
	var refused *types.ProvisionedThroughputExceededException
	if i != 3 || !errors.As(err, &refused) || *refused.ThrottlingReasons[0].Reason != "IndexWriteProvisionedThroughputExceeded" || !strings.HasSuffix(*refused.ThrottlingReasons[0].Resource, "table/orders/index/byg") {
		t.Fatalf("write %d: %v", i, err)
	}
	if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: attributes{"pk": str("other")}}); err != nil {
		t.Errorf("an item that the index does not have: %v", err)
	}
	if _, err := c.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: aws.String("orders"), Key: attributes{"pk": str("0")}, UpdateExpression: aws.String("SET v = :v"), ExpressionAttributeValues: attributes{":v": str("y")}}); err != nil {
		t.Errorf("an update of what the index does not have: %v", err)
	}
	if _, err := c.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("orders"), Key: attributes{"pk": str("0")}}); !errors.As(err, &refused) {
		t.Errorf("a delete: %v", err)
	}
}

func TestBatchesLeaveWhatThereIsNoCapacityFor(t *testing.T) {
	c, _, _ := enforced(t)
	createTable(t, c, "orders", "", provisioned(4))
	var puts []types.WriteRequest
	var keys []attributes
	for i := range 10 {
		puts = append(puts, types.WriteRequest{PutRequest: &types.PutRequest{Item: attributes{"pk": str(fmt.Sprint(i)), "v": str(strings.Repeat("x", 4000))}}})
		keys = append(keys, attributes{"pk": str(fmt.Sprint(i))})
	}
	in := &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{"orders": puts}}
	// Nine of ten do not fit, although all are under way at once.
	if out, err := c.BatchWriteItem(t.Context(), in); err != nil || len(out.UnprocessedItems["orders"]) != 9 {
		t.Fatalf("%d left, %v", len(out.UnprocessedItems["orders"]), err)
	}
	var refused *types.ProvisionedThroughputExceededException
	if _, err := c.BatchWriteItem(t.Context(), in); !errors.As(err, &refused) {
		t.Errorf("a batch of which nothing can be done: %v", err)
	}
	get := &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{"orders": {Keys: keys, ConsistentRead: aws.Bool(true)}}}
	out, err := c.BatchGetItem(t.Context(), get)
	if err != nil || len(out.Responses["orders"]) != 1 || len(out.UnprocessedKeys["orders"].Keys) != 6 { // four of the ten are read, three of them are not there
		t.Errorf("%d items, %d keys left, %v", len(out.Responses["orders"]), len(out.UnprocessedKeys["orders"].Keys), err)
	}
	if _, err := c.BatchGetItem(t.Context(), get); !errors.As(err, &refused) {
		t.Errorf("a batch of which nothing can be read: %v", err)
	}
}

func TestOnDemandMaximumsAreEnforcedWithoutBurst(t *testing.T) {
	c, h, clock := enforced(t)
	createTable(t, c, "orders", "", func(in *dynamodb.CreateTableInput) {
		in.OnDemandThroughput = &types.OnDemandThroughput{MaxReadRequestUnits: aws.Int64(2), MaxWriteRequestUnits: aws.Int64(3)}
	})
	clock.Add(60_000)
	n, err := until(t, c, "orders", attributes{"pk": str("a")})
	var refused *types.ThrottlingException
	if n != 3 || !errors.As(err, &refused) || *refused.ThrottlingReasons[0].Reason != "TableWriteMaxOnDemandThroughputExceeded" {
		t.Errorf("%d writes, then %v", n, err)
	}
	w := post(h, "PutItem", `{"TableName":"orders","Item":{"pk":{"S":"a"}}}`)
	const want = `{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","throttlingReasons":[{"reason":"TableWriteMaxOnDemandThroughputExceeded","resource":"arn:aws:dynamodb:us-east-1:000000000000:table/orders"}],"message":"Throughput exceeds the maximum OnDemandThroughput configured on table or index"}`
	if w.Code != http.StatusBadRequest || w.Body.String() != want {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestAccessesAreCountedByKey(t *testing.T) {
	c, h, _ := enforced(t)
	createTable(t, c, "orders", types.ScalarAttributeTypeN, provisioned(1000))
	if _, err := h.Contributors("orders", ""); err == nil {
		t.Error("counted before it was asked for")
	}
	if _, err := c.UpdateContributorInsights(t.Context(), &dynamodb.UpdateContributorInsightsInput{TableName: aws.String("orders"), ContributorInsightsAction: types.ContributorInsightsActionEnable}); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: attributes{"pk": str("hot"), "sk": num(fmt.Sprint(i % 2))}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: attributes{"pk": str("cold"), "sk": num("7")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Query(t.Context(), &dynamodb.QueryInput{TableName: aws.String("orders"), KeyConditionExpression: aws.String("pk = :p"), ExpressionAttributeValues: attributes{":p": str("hot")}}); err != nil {
		t.Fatal(err)
	}
	rules, err := h.Contributors("orders", "")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range rules {
		got += strings.Split(r.Rule, "-")[1] + ":"
		for _, k := range r.Keys {
			got += fmt.Sprintf(" %s %d-%d", k.Key, k.Count, k.Unsure)
		}
		got += "\n"
	}
	const want = "PKC: [{\"S\":\"hot\"}] 7-0 [{\"S\":\"cold\"}] 1-0\n" +
		"SKC: [{\"S\":\"hot\"},{\"N\":\"0\"}] 3-0 [{\"S\":\"hot\"},{\"N\":\"1\"}] 3-0 [{\"S\":\"cold\"},{\"N\":\"7\"}] 1-0\n" +
		"PKT:\nSKT:\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
