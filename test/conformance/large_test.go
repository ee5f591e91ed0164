package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A request of nothing but too many elements, names or digits is refused shortly, in both senses. (An answer of
// 1.9 GB after 35 s was once the worst of these, at 15 MB.)
func TestMillionsOfAnythingAreAnsweredShortly(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "tab")
	const N = 3 << 20 // bytes of a request
	many := func(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	distinct := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, c := range map[string]struct{ op, body string }{
		"keyschema empty": {"CreateTable", `{"TableName":"abc","KeySchema":[` + many(`{}`, N/3) + `]}`},
		"attrdefs empty":  {"CreateTable", `{"TableName":"abc","AttributeDefinitions":[` + many(`{}`, N/3) + `],"KeySchema":[]}`},
		"gsis empty":      {"CreateTable", `{"TableName":"abc","GlobalSecondaryIndexes":[` + many(`{}`, N/3) + `]}`},
		"gsi nonkey":      {"CreateTable", `{"TableName":"abc","GlobalSecondaryIndexes":[{"Projection":{"NonKeyAttributes":[` + many(`""`, N/3) + `]}}]}`},
		"tags":            {"TagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/tab","Tags":[` + many(`{}`, N/3) + `]}`},
		"tagkeys":         {"UntagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/tab","TagKeys":[` + many(`"a"`, N/4) + `]}`},
		"replicas":        {"UpdateTable", `{"TableName":"tab","ReplicaUpdates":[` + many(`{"Create":{}}`, N/14) + `]}`},
		"gsiupd":          {"UpdateTable", `{"TableName":"tab","GlobalSecondaryIndexUpdates":[` + many(`{"Create":{}}`, N/14) + `]}`},
		"names":           {"Scan", `{"TableName":"tab","FilterExpression":"#a=#a","ExpressionAttributeNames":{` + distinct(`"#a%d":"b"`, N/16) + `}}`},
		"values":          {"Scan", `{"TableName":"tab","FilterExpression":"a=a","ExpressionAttributeValues":{` + distinct(`":a%d":{"S":""}`, N/20) + `}}`},
		"item attrs":      {"PutItem", `{"TableName":"tab","Item":{` + distinct(`"a%d":{"S":""}`, N/20) + `}}`},
		"item set":        {"PutItem", `{"TableName":"tab","Item":{"a":{"NS":[` + distinct(`"%d"`, N/10) + `]}}}`},
		"item list":       {"PutItem", `{"TableName":"tab","Item":{"a":{"L":[` + many(`{"L":[]}`, N/10) + `]}}}`},
		"get keys":        {"BatchGetItem", `{"RequestItems":{"tab":{"Keys":[` + many(`{}`, N/3) + `]}}}`},
		"get tables":      {"BatchGetItem", `{"RequestItems":{` + distinct(`"?a%d":{}`, N/14) + `}}`},
		"write tables":    {"BatchWriteItem", `{"RequestItems":{` + distinct(`"?a%d":[{}]`, N/16) + `}}`},
		"writes":          {"BatchWriteItem", `{"RequestItems":{"tab":[` + many(`{"PutRequest":{}}`, N/18) + `]}}`},
		"expected":        {"PutItem", `{"TableName":"tab","Item":{"pk":{"S":"a"}},"Expected":{` + distinct(`"a%d":{"ComparisonOperator":"x"}`, N/36) + `}}`},
		"conditions":      {"Query", `{"TableName":"tab","KeyConditions":{` + distinct(`"a%d":{}`, N/14) + `}}`},
		"attrstoget":      {"Scan", `{"TableName":"tab","AttributesToGet":[` + many(`""`, N/3) + `]}`},
		"updates":         {"UpdateItem", `{"TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{` + distinct(`"a%d":{"Action":"x"}`, N/26) + `}}`},
		"unknown members": {"ListTables", `{` + distinct(`"a%d":1`, N/12) + `}`},
		"digits":          {"ListTables", `{"Limit":` + strings.Repeat("9", N) + `}`},
		"number":          {"PutItem", `{"TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"` + strings.Repeat("9", N) + `"}}}`},
		"zeros":           {"PutItem", `{"TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"1e` + strings.Repeat("0", N) + `1"}}}`},
		"expression":      {"Scan", `{"TableName":"tab","FilterExpression":"` + strings.Repeat("(", N) + `"}`},
		"2017":            {"CreateGlobalTable", `{"GlobalTableName":"tab","ReplicationGroup":[` + many(`{"RegionName":"x"}`, N/20) + `]}`},
		"policy":          {"PutResourcePolicy", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/tab","Policy":"` + strings.Repeat("[", N) + `"}`},
	} {
		begun := time.Now()
		w := post(h, c.op, c.body)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: %s", name, took)
		}
		if w.Code >= 500 || w.Body.Len() > 16<<10 {
			t.Errorf("%s: %d, %d bytes: %.200s", name, w.Code, w.Body.Len(), w.Body)
		}
	}
}

// Eight large requests are held at once, so what one takes is an eighth of what all of them may. (It was 0.6 GB.)
func TestALargeRequestIsNotTakenApartIntoMuchMore(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "tab")
	const N = 15 << 20
	var entries strings.Builder
	for i := range N / 14 {
		fmt.Fprintf(&entries, `"a%d":{},`, i)
	}
	expected := `{"TableName":"tab","Item":{"pk":{"S":"a"}},"Expected":{` + strings.TrimSuffix(entries.String(), ",") + `}}`
	value := `{"TableName":"tab","FilterExpression":"a=:a","ExpressionAttributeValues":{":a":{"L":[` + strings.TrimSuffix(strings.Repeat(`{"M":{}},`, N/9), ",") + `]}}}`
	for _, c := range []struct{ op, body, want string }{{"PutItem", expected, "more than 100000 elements"}, {"Scan", value, "exceeded the maximum allowed size"}} {
		used := heapWhile(func() {
			if w := post(h, c.op, c.body); !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%s: %d %.300s", c.op, w.Code, w.Body)
			}
		})
		if used > 300<<20 {
			t.Errorf("%s: %d MB", c.op, used>>20)
		}
	}
}
