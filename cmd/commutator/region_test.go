package main

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const far = "ap-northeast-1"

// like adds to the counter of a post, in a region.
func (d *testDev) like(region int, by string) error {
	_, err := d.clients[region].dynamo.UpdateItem(d.t.Context(), &dynamodb.UpdateItemInput{
		TableName: aws.String("orders"), Key: attributes{"pk": text("post")}, UpdateExpression: aws.String("ADD likes :by"),
		ExpressionAttributeValues: attributes{":by": &types.AttributeValueMemberN{Value: by}},
	})
	return err
}

// likes waits until every region shows so many.
func (d *testDev) likes(want string) {
	d.t.Helper()
	for region := range d.clients {
		d.eventually(d.clients[region].region+" shows "+want+" likes", func() bool {
			a, err := d.clients[region].dynamo.GetItem(d.t.Context(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: attributes{"pk": text("post")}})
			if err != nil {
				return false
			}
			n, _ := a.Item["likes"].(*types.AttributeValueMemberN)
			return n != nil && n.Value == want
		})
	}
}

// states are the states that status shows of the table in a region and of all its replicas.
func (d *testDev) states(region string) string {
	stdout, _ := d.run("status")
	for _, line := range strings.Split(stdout, "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "orders" && f[1] == region {
			return f[2] + " " + strings.Join(f[7:], " ")
		}
	}
	return ""
}

func TestRegionsGoOnWithoutOneAndItComesBackWithAllThatItHad(t *testing.T) {
	d := startDev(t, east, west, far)
	d.apply(writeFile(t, t.TempDir(), "orders.yaml", `
TableName: orders
AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
KeySchema: [{AttributeName: pk, KeyType: HASH}]
BillingMode: PAY_PER_REQUEST
Replicas: [{Region: us-east-1}, {Region: eu-west-1}]
`))
	if stdout, _ := d.run("region", "add", far); !strings.Contains(stdout, "orders: ACTIVE, says "+west) {
		t.Errorf("add says:\n%s", stdout)
	}
	if stdout, _ := d.run("region", "add", far); stdout != "no table needs that\n" {
		t.Errorf("adding again says:\n%s", stdout)
	}
	like := func(region int, by string) {
		t.Helper()
		if err := d.like(region, by); err != nil {
			t.Fatal(err)
		}
	}
	like(0, "10")
	d.likes("10")

	// Away, and given up: it goes on taking writes that nobody else has.
	d.run("dev", "partition", west)
	like(1, "5")
	if stdout, _ := d.run("region", "stale", west); !strings.Contains(stdout, "is STALE in 1 more tables") {
		t.Errorf("stale says:\n%s", stdout)
	}
	if stdout, _ := d.run("region", "stale", west); !strings.Contains(stdout, "is STALE in 0 more tables") {
		t.Errorf("stale again says:\n%s", stdout)
	}
	like(0, "3")
	d.run("dev", "heal")
	d.likes("18")
	d.eventually("it is ACTIVE again", func() bool { return d.states(east) == "ACTIVE ap-northeast-1 ACTIVE, eu-west-1 ACTIVE" })

	// Gone for good, as it seems; it comes back, stays closed, and is given its replica again.
	d.run("dev", "partition", west)
	like(1, "4")
	if stdout, _ := d.run("region", "remove", west, "--force"); !strings.HasSuffix(stdout, "orders: GONE\n") {
		t.Errorf("remove says:\n%s", stdout)
	}
	like(2, "1")
	d.run("dev", "heal")
	d.eventually("it is closed", func() bool { return strings.HasPrefix(d.states(west), "CLOSED") })
	if err := d.like(1, "100"); err == nil {
		t.Error("a region that was removed takes writes")
	}
	d.run("region", "add", west)
	d.likes("23")

	d.run("region", "remove", far)
	if got := d.states(east); got != "ACTIVE eu-west-1 ACTIVE" {
		t.Errorf("after a replica was taken away status shows %q", got)
	}
}

func TestARegionThatNobodyKnowsIsRefused(t *testing.T) {
	d := startDev(t)
	for _, args := range [][]string{{"stale", "us-esat-1"}, {"add", "us-esat-1"}, {"remove", "us-esat-1"}, {"remove", "us-esat-1", "--force"}} {
		d.refused(append([]string{"region"}, args...), "knows one called us-esat-1")
	}
	d.refused([]string{"region", "stale", west, "--region", west}, "only "+west+" itself answers")
}
