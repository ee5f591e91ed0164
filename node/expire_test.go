package node_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/commutatordb/commutator/node"
)

func TestItemsWhoseTimeIsOverGoInEveryRegion(t *testing.T) {
	w := begin(t, node.DevConfig{InMemory: true, Data: t.TempDir(), ExpireEvery: 20 * time.Millisecond})
	w.table("mortal", "eu-west-1", "ap-northeast-1")
	_, err := w.clients[0].UpdateTimeToLive(t.Context(), &dynamodb.UpdateTimeToLiveInput{
		TableName: aws.String("mortal"), TimeToLiveSpecification: &types.TimeToLiveSpecification{AttributeName: aws.String("ends"), Enabled: aws.Bool(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	number := func(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
	at := func(seconds int64) types.AttributeValue { return number(strconv.FormatInt(seconds, 10)) }
	const year = 365 * 24 * 3600
	for pk, ends := range map[string]types.AttributeValue{
		"over": at(now - 10), "over by a fraction": number(strconv.FormatInt(now-1, 10) + ".5"), "nearly five years over": at(now - 5*year + 3600),
		"to come": at(now + 3600), "in ms": at(now * 1000), "more than five years over": at(now - 5*year - 3600), "text": s("1"),
		"zero": at(0), "beyond all": number("9e125"), "below all": number("-1"),
	} {
		w.put(0, "mortal", item{"pk": s(pk), "ends": ends})
	}
	w.put(0, "mortal", item{"pk": s("says nothing")})
	w.put(1, "mortal", item{"pk": s("over elsewhere"), "ends": at(now - 1)})
	for region := range 2 {
		w.until("what is over is gone", func() bool {
			all := w.all(region, "mortal")
			for _, pk := range []string{"over", "over by a fraction", "nearly five years over", "over elsewhere"} {
				if all[pk] != nil {
					return false
				}
			}
			return len(all) == 8
		})
	}
	// What is given more time keeps it.
	w.put(0, "mortal", item{"pk": s("again"), "ends": at(time.Now().Unix() + 2)})
	w.put(1, "mortal", item{"pk": s("again"), "ends": at(now + 3600)})
	w.put(0, "mortal", item{"pk": s("witness"), "ends": at(time.Now().Unix() + 3)})
	w.until("the witness is gone, and so the time has passed", func() bool { return w.get(0, "mortal", "witness") == nil })
	w.until("both regions agree", func() bool { return w.equal("mortal") })
	if w.get(1, "mortal", "again") == nil {
		t.Error("an item is gone that was given more time in another region")
	}
	d, err := w.clients[1].DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: aws.String("mortal")})
	if err != nil || d.TimeToLiveDescription.TimeToLiveStatus != types.TimeToLiveStatusEnabled || aws.ToString(d.TimeToLiveDescription.AttributeName) != "ends" {
		t.Errorf("the other region shows %+v, %v", d, err)
	}
}
