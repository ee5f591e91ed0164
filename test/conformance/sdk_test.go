package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
)

// Every type survives the way there and back through the SDK.
func TestAllTenTypesThroughTheSDK(t *testing.T) {
	c := sdk(t)
	createTable(t, c, "types", "", nil)
	var deep types.AttributeValue = str("bottom")
	for range 30 {
		deep = &types.AttributeValueMemberL{Value: []types.AttributeValue{deep}}
	}
	item := attributes{
		"pk": str("k"), "S": str("\u0000 \" \\ \u2028 \U0001F600"), "empty": str(""), "N": num("-0.00000000000000000000000000000000000012345678901234567890123456789012345678"),
		"B": &types.AttributeValueMemberB{Value: []byte{}}, "BOOL": &types.AttributeValueMemberBOOL{Value: false}, "NULL": &types.AttributeValueMemberNULL{Value: true},
		"L": &types.AttributeValueMemberL{Value: []types.AttributeValue{}}, "M": &types.AttributeValueMemberM{Value: attributes{"": str("x")}},
		"SS": &types.AttributeValueMemberSS{Value: []string{"", "b"}}, "NS": &types.AttributeValueMemberNS{Value: []string{"-1", "1E+125"}},
		"BS": &types.AttributeValueMemberBS{Value: [][]byte{{1}, {2}}}, "deep": deep,
	}
	delete(item["M"].(*types.AttributeValueMemberM).Value, "")
	if _, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("types"), Item: item}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("types"), Key: attributes{"pk": str("k")}, ConsistentRead: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range item {
		switch v := got.Item[name].(type) {
		case *types.AttributeValueMemberS:
			if v.Value != want.(*types.AttributeValueMemberS).Value {
				t.Errorf("%s: %q", name, v.Value)
			}
		case *types.AttributeValueMemberNS:
			if slices.Sort(v.Value); fmt.Sprint(v.Value) != fmt.Sprint([]string{"-1", "1" + strings.Repeat("0", 125)}) {
				t.Errorf("%s: %s", name, v.Value)
			}
		case nil:
			t.Errorf("%s is missing", name)
		}
	}
	if n := got.Item["N"].(*types.AttributeValueMemberN).Value; n != "-0.00000000000000000000000000000000000012345678901234567890123456789012345678" {
		t.Errorf("N: %s", n)
	}
}

// What the SDK makes of our errors: types to act upon, not texts.
func TestErrorsHaveTheSDKsTypes(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	createTable(t, c, "errors", "", nil)
	put := func(in *dynamodb.PutItemInput) error {
		in.TableName = aws.String("errors")
		_, err := c.PutItem(ctx, in)
		return err
	}
	if err := put(&dynamodb.PutItemInput{Item: attributes{"pk": str("a"), "n": num("1")}}); err != nil {
		t.Fatal(err)
	}
	err := put(&dynamodb.PutItemInput{Item: attributes{"pk": str("a")}, ConditionExpression: aws.String("attribute_not_exists(pk)"), ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld})
	if failed := (*types.ConditionalCheckFailedException)(nil); !errors.As(err, &failed) || failed.Item["n"].(*types.AttributeValueMemberN).Value != "1" {
		t.Errorf("condition: %v", err)
	}
	_, err = c.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("nosuch"), Key: attributes{"pk": str("a")}})
	if missing := (*types.ResourceNotFoundException)(nil); !errors.As(err, &missing) {
		t.Errorf("no table: %v", err)
	}
	_, err = c.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: aws.String("errors"), BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}}, KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}}})
	if exists := (*types.ResourceInUseException)(nil); !errors.As(err, &exists) {
		t.Errorf("a table twice: %v", err)
	}
	large := func(n int) error { // pk, a, data and a are 8 bytes
		return put(&dynamodb.PutItemInput{Item: attributes{"pk": str("a"), "data": str(strings.Repeat("x", n-7))}})
	}
	if err := large(400 << 10); err != nil {
		t.Errorf("an item of 400 KB: %v", err)
	}
	apiError := smithy.APIError(nil)
	if err := large(400<<10 + 1); !errors.As(err, &apiError) || apiError.ErrorCode() != "ValidationException" || apiError.ErrorMessage() != "Item size has exceeded the maximum allowed size" {
		t.Errorf("an item of 400 KB and a byte: %v", err)
	}
	_, err = c.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: aws.String("errors"), Key: attributes{"pk": str("a")}, UpdateExpression: aws.String("SET b = :b"), ExpressionAttributeValues: attributes{":b": str("more")}})
	if !errors.As(err, &apiError) || apiError.ErrorMessage() != "Item size to update has exceeded the maximum allowed size" {
		t.Errorf("an update beyond 400 KB: %v", err)
	}
	_, err = c.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{{Delete: &types.Delete{TableName: aws.String("errors"), Key: attributes{"pk": str("a")}}}}})
	if !errors.As(err, &apiError) || apiError.ErrorCode() != "UnknownOperationException" || apiError.ErrorFault() == smithy.FaultServer {
		t.Errorf("an operation that is not there: %v", err)
	}
}

func TestConcurrentConditionalPutsHaveOneWinner(t *testing.T) {
	c := sdk(t)
	createTable(t, c, "locks", "", nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 20 {
		wg.Go(func() {
			_, err := c.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String("locks"), Item: attributes{"pk": str("lock"), "owner": num(fmt.Sprint(i))}, ConditionExpression: aws.String("attribute_not_exists(pk)")})
			failed := (*types.ConditionalCheckFailedException)(nil)
			switch {
			case err == nil:
				mu.Lock()
				won++
				mu.Unlock()
			case !errors.As(err, &failed):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d winners", won)
	}
}

// An index created over items finds them all; a deleted one is gone. The waiters and paginators are the
// SDK's own.
func TestIndexesComeAndGo(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	createTable(t, c, "late", types.ScalarAttributeTypeN, nil)
	for i := range 60 {
		if _, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("late"), Item: attributes{"pk": str("p"), "sk": num(fmt.Sprint(i)), "color": str([]string{"red", "blue"}[i%2])}}); err != nil {
			t.Fatal(err)
		}
	}
	index := func(u types.GlobalSecondaryIndexUpdate, definitions ...types.AttributeDefinition) {
		t.Helper()
		if _, err := c.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: aws.String("late"), AttributeDefinitions: definitions, GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{u}}); err != nil {
			t.Fatal(err)
		}
		awaitActive(t, c, "late")
	}
	for round := range 2 {
		index(types.GlobalSecondaryIndexUpdate{Create: &types.CreateGlobalSecondaryIndexAction{
			IndexName: aws.String("color"), Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly}, KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("color"), KeyType: types.KeyTypeHash}},
		}}, types.AttributeDefinition{AttributeName: aws.String("color"), AttributeType: types.ScalarAttributeTypeS})
		pages := dynamodb.NewQueryPaginator(c, &dynamodb.QueryInput{TableName: aws.String("late"), IndexName: aws.String("color"), Limit: aws.Int32(7), KeyConditionExpression: aws.String("color = :c"), ExpressionAttributeValues: attributes{":c": str("red")}})
		n := 0
		for pages.HasMorePages() {
			p, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			n += len(p.Items)
		}
		if n != 30 {
			t.Errorf("round %d: %d red items", round, n)
		}
		index(types.GlobalSecondaryIndexUpdate{Delete: &types.DeleteGlobalSecondaryIndexAction{IndexName: aws.String("color")}})
	}
	d := awaitActive(t, c, "late")
	if len(d.GlobalSecondaryIndexes) != 0 || len(d.AttributeDefinitions) != 2 || aws.ToInt64(d.ItemCount) != 60 {
		t.Errorf("%+v", d)
	}
}

// BatchGetItem leaves for the next request what goes beyond 16 MB, and that request is accepted as it is.
func TestBatchGetLeavesWhatIsTooMuch(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	createTable(t, c, "batch", "", nil)
	data := str(strings.Repeat("x", 390<<10))
	var keys []map[string]types.AttributeValue
	for i := range 45 {
		key := attributes{"pk": str(fmt.Sprint(i))}
		keys = append(keys, key)
		if _, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("batch"), Item: attributes{"pk": key["pk"], "data": data}}); err != nil {
			t.Fatal(err)
		}
	}
	requests := map[string]types.KeysAndAttributes{"batch": {Keys: keys, ProjectionExpression: aws.String("#p"), ExpressionAttributeNames: map[string]string{"#p": "pk"}, ConsistentRead: aws.Bool(true)}}
	rounds, seen := 0, map[string]bool{}
	for len(requests) > 0 {
		out, err := c.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: requests})
		if err != nil {
			t.Fatal(err)
		}
		for _, it := range out.Responses["batch"] {
			seen[it["pk"].(*types.AttributeValueMemberS).Value] = true
		}
		requests = out.UnprocessedKeys
		rounds++
	}
	if rounds != 2 || len(seen) != 45 {
		t.Errorf("%d rounds, %d items", rounds, len(seen))
	}
}

func TestDescriptionsOfWhatIsNotThere(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	createTable(t, c, "plain", "", nil)
	ttl, err := c.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: aws.String("plain")})
	if err != nil || ttl.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusDisabled {
		t.Errorf("%+v, %v", ttl, err)
	}
	pitr, err := c.DescribeContinuousBackups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: aws.String("plain")})
	if err != nil || pitr.ContinuousBackupsDescription.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus != types.PointInTimeRecoveryStatusDisabled {
		t.Errorf("%+v, %v", pitr, err)
	}
	endpoints, err := c.DescribeEndpoints(ctx, &dynamodb.DescribeEndpointsInput{})
	if err != nil || len(endpoints.Endpoints) != 1 || !strings.HasPrefix(aws.ToString(endpoints.Endpoints[0].Address), "127.0.0.1:") {
		t.Errorf("%+v, %v", endpoints, err)
	}
	if limits, err := c.DescribeLimits(ctx, &dynamodb.DescribeLimitsInput{}); err != nil || aws.ToInt64(limits.TableMaxReadCapacityUnits) == 0 {
		t.Errorf("%+v, %v", limits, err)
	}
}

func TestListTablesPages(t *testing.T) {
	c := sdk(t)
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("table-%d", i)
		createTable(t, c, name, "", nil)
		want = append(want, name)
	}
	pages := dynamodb.NewListTablesPaginator(c, &dynamodb.ListTablesInput{Limit: aws.Int32(3)})
	var got []string
	for pages.HasMorePages() {
		p, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p.TableNames...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
