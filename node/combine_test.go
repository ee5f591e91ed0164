package node_test

import (
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/expr"
	values "github.com/commutatordb/commutator/item"
	"github.com/commutatordb/commutator/node"
	"github.com/commutatordb/commutator/region/op"
)

func TestManyIncrementsOfOneCounterTravelAsFew(t *testing.T) {
	const increments, writers = 10_000, 32
	w := begin(t, node.DevConfig{Data: t.TempDir(), InMemory: true})
	w.table("counters", "eu-west-1")
	tab, err := w.dev.Nodes()[0].Region().Table(t.Context(), "counters")
	if err != nil {
		t.Fatal(err)
	}
	there, err := w.dev.Nodes()[1].Region().Table(t.Context(), "counters")
	if err != nil {
		t.Fatal(err)
	}
	before := there.Partitions()[0].State().Seq
	ph := expr.Given(nil, map[string]values.Value{":one": values.N(values.NumberFromInt(1))})
	update, err := expr.ParseUpdate("ADD n :one", &ph)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tab.Schema().KeyOf(values.AppendItem(nil, values.NewItem(values.Field{Name: "pk", Value: values.S("hot")})))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range increments / writers {
				if r, err := tab.Write(t.Context(), &op.Command{Kind: op.Update, Key: key, Update: update}); err != nil || r.Err != nil {
					t.Error(err, r.Err)
					return
				}
			}
		})
	}
	wg.Wait()
	const want = increments / writers * writers
	w.until("the total", func() bool {
		out, err := w.clients[1].GetItem(t.Context(), &dynamodb.GetItemInput{TableName: aws.String("counters"), Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "hot"}}})
		if err != nil {
			t.Fatal(err)
		}
		n, ok := out.Item["n"].(*types.AttributeValueMemberN)
		return ok && n.Value == "9984"
	})
	if applied := there.Partitions()[0].State().Seq - before; applied > want/20 {
		t.Errorf("%d increments came as %d changes", want, applied)
	} else {
		t.Logf("%d increments came as %d changes", want, applied)
	}
}
