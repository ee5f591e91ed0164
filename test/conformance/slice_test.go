package conformance

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// A table's whole life, as an application first meets it.
func TestATableIsCreatedWrittenReadAndDeleted(t *testing.T) {
	c := sdk(t)
	ctx := t.Context()
	createTable(t, c, "orders", types.ScalarAttributeTypeN, nil)
	item := attributes{"pk": str("a"), "sk": num("1"), "text": str("h\u00e9llo \"x\""), "n": num("-12.50"),
		"m": &types.AttributeValueMemberM{Value: attributes{"l": &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberBOOL{Value: true}, &types.AttributeValueMemberNULL{Value: true}}}}},
		"b": &types.AttributeValueMemberB{Value: []byte{0, 1, 255}}, "ss": &types.AttributeValueMemberSS{Value: []string{"y", "x"}}}
	if _, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String("orders"), Item: item}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: attributes{"pk": str("a"), "sk": num("1.0")}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Item) != len(item) || got.Item["n"].(*types.AttributeValueMemberN).Value != "-12.5" || got.Item["text"].(*types.AttributeValueMemberS).Value != "h\u00e9llo \"x\"" {
		t.Errorf("got %v", got.Item)
	}
	tables, err := c.ListTables(ctx, &dynamodb.ListTablesInput{})
	if err != nil || len(tables.TableNames) != 1 || tables.TableNames[0] != "orders" {
		t.Errorf("tables %v, %v", tables, err)
	}
	out, err := c.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: aws.String("orders")})
	if err != nil || out.TableDescription.TableStatus != types.TableStatusDeleting {
		t.Errorf("deleting: %v, %v", out, err)
	}
	for {
		_, err := c.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String("orders")})
		if gone := (*types.ResourceNotFoundException)(nil); errors.As(err, &gone) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
