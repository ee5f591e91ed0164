package conformance

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seeds are a good request of each operation, over the tables of FuzzOperation.
var seeds = []struct{ op, body string }{
	{"CreateTable", `{"TableName":"made","BillingMode":"PROVISIONED","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1},"KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"},{"AttributeName":"c","AttributeType":"B"}],"LocalSecondaryIndexes":[{"IndexName":"lsi","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"c","KeyType":"RANGE"}],"Projection":{"ProjectionType":"INCLUDE","NonKeyAttributes":["x"]}}],"GlobalSecondaryIndexes":[{"IndexName":"gsi","KeySchema":[{"AttributeName":"c","KeyType":"HASH"}],"Projection":{"ProjectionType":"ALL"},"ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1}}],"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_IMAGE"},"SSESpecification":{"Enabled":true,"SSEType":"KMS"},"Tags":[{"Key":"commutator:conflict-resolution","Value":"Merge"}],"TableClass":"STANDARD","DeletionProtectionEnabled":false}`},
	{"DescribeTable", `{"TableName":"fuzz"}`},
	{"ListTables", `{"Limit":1,"ExclusiveStartTableName":"abc"}`},
	{"UpdateTable", `{"TableName":"fuzz","AttributeDefinitions":[{"AttributeName":"z","AttributeType":"S"}],"GlobalSecondaryIndexUpdates":[{"Create":{"IndexName":"new","KeySchema":[{"AttributeName":"z","KeyType":"HASH"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}}]}`},
	{"UpdateTable", `{"TableName":"fuzz","BillingMode":"PAY_PER_REQUEST","OnDemandThroughput":{"MaxReadRequestUnits":5},"TableClass":"STANDARD","GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"new"}}]}`},
	{"UpdateTable", `{"TableName":"fuzz","BillingMode":"PROVISIONED","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1},"GlobalSecondaryIndexUpdates":[{"Update":{"IndexName":"new","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1}}}],"StreamSpecification":{"StreamEnabled":false}}`},
	{"UpdateTable", `{"TableName":"fuzz","ReplicaUpdates":[{"Create":{"RegionName":"eu-west-1"}}]}`},
	{"UpdateTable", `{"TableName":"fuzz","ReplicaUpdates":[{"Update":{"RegionName":"eu-west-1"}},{"Delete":{"RegionName":"eu-west-1"}}],"DeletionProtectionEnabled":true}`},
	{"UpdateTable", `{"TableName":"fuzz","ReplicaUpdates":[{"Create":{"RegionName":"eu-west-1","readOverride":{},"GlobalSecondaryIndexes":[{"IndexName":"abc","readOverride":1}]}}]}`},
	{"DeleteTable", `{"TableName":"made"}`},
	{"PutItem", `{"TableName":"fuzz","Item":{"pk":{"S":"a"},"n":{"N":"1e3"},"l":{"L":[{"M":{"x":{"NULL":true}}},{"BOOL":true}]},"s":{"SS":["a","b"]},"b":{"BS":["AAA="]}},"ConditionExpression":"attribute_not_exists(pk) OR #n > :n","ExpressionAttributeNames":{"#n":"n"},"ExpressionAttributeValues":{":n":{"N":"1"}},"ReturnValues":"ALL_OLD","ReturnConsumedCapacity":"INDEXES","ReturnItemCollectionMetrics":"SIZE","ReturnValuesOnConditionCheckFailure":"ALL_OLD"}`},
	{"PutItem", `{"TableName":"fuzz","Item":{"pk":{"S":"a"}},"Expected":{"n":{"ComparisonOperator":"BETWEEN","AttributeValueList":[{"N":"1"},{"N":"2"}]},"m":{"Exists":false},"o":{"Value":{"S":"x"}}},"ConditionalOperator":"OR"}`},
	{"GetItem", `{"TableName":"fuzz","Key":{"pk":{"S":"a"}},"ConsistentRead":true,"ProjectionExpression":"n, l[0].x","ReturnConsumedCapacity":"TOTAL"}`},
	{"GetItem", `{"TableName":"arn:aws:dynamodb:us-east-1:000000000000:table/fuzz","Key":{"pk":{"S":"a"}},"AttributesToGet":["n"]}`},
	{"UpdateItem", `{"TableName":"fuzz","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET a.b = if_not_exists(q, :one) + :one, l[3] = :one REMOVE r ADD n :one DELETE s :set","ExpressionAttributeValues":{":one":{"N":"1"},":set":{"SS":["a"]}},"ReturnValues":"UPDATED_NEW"}`},
	{"UpdateItem", `{"TableName":"fuzz","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Action":"ADD","Value":{"N":"1"}},"l":{"Action":"ADD","Value":{"L":[]}},"s":{"Action":"DELETE","Value":{"SS":["a"]}},"x":{"Action":"DELETE"},"y":{"Value":{"S":""}}}}`},
	{"DeleteItem", `{"TableName":"fuzz","Key":{"pk":{"S":"a"}},"ReturnValues":"ALL_OLD"}`},
	{"Query", `{"TableName":"fuzz2","IndexName":"lsi","KeyConditionExpression":"a = :a AND begins_with(c, :c)","FilterExpression":"contains(x, :a)","ProjectionExpression":"x, y","ExpressionAttributeValues":{":a":{"S":"a"},":c":{"B":"AAA="}},"ScanIndexForward":false,"Limit":3,"ExclusiveStartKey":{"a":{"S":"a"},"b":{"N":"1"},"c":{"B":"AAA="}},"Select":"SPECIFIC_ATTRIBUTES"}`},
	{"Query", `{"TableName":"fuzz2","IndexName":"gsi","KeyConditions":{"c":{"ComparisonOperator":"EQ","AttributeValueList":[{"B":"AAA="}]}},"QueryFilter":{"x":{"ComparisonOperator":"NOT_NULL"}}}`},
	{"Query", `{"TableName":"fuzz2","KeyConditionExpression":"a = :a AND b BETWEEN :x AND :y","ExpressionAttributeValues":{":a":{"S":"a"},":x":{"N":"-1"},":y":{"N":"5"}},"Select":"COUNT"}`},
	{"Scan", `{"TableName":"fuzz2","Segment":1,"TotalSegments":3,"FilterExpression":"size(a) < :n","ExpressionAttributeValues":{":n":{"N":"3"}},"ExclusiveStartKey":{"a":{"S":"a"},"b":{"N":"1"}}}`},
	{"Scan", `{"TableName":"fuzz2","IndexName":"gsi","ScanFilter":{"x":{"ComparisonOperator":"IN","AttributeValueList":[{"S":"a"},{"S":"b"}]}}}`},
	{"BatchGetItem", `{"RequestItems":{"fuzz":{"Keys":[{"pk":{"S":"a"}},{"pk":{"S":"b"}}],"ProjectionExpression":"#n","ExpressionAttributeNames":{"#n":"n"}},"fuzz2":{"Keys":[{"a":{"S":"a"},"b":{"N":"1"}}],"ConsistentRead":true,"AttributesToGet":["x"]}},"ReturnConsumedCapacity":"INDEXES"}`},
	{"BatchWriteItem", `{"RequestItems":{"fuzz":[{"PutRequest":{"Item":{"pk":{"S":"a"},"v":{"NS":["1","2"]}}}},{"DeleteRequest":{"Key":{"pk":{"S":"b"}}}}],"fuzz2":[{"PutRequest":{"Item":{"a":{"S":"a"},"b":{"N":"1"},"c":{"B":"AAA="},"x":{"S":"x"}}}}]},"ReturnItemCollectionMetrics":"SIZE","ReturnConsumedCapacity":"INDEXES"}`},
	{"TagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/fuzz","Tags":[{"Key":"commutator:conflict-resolution:n","Value":"LastWriterWins"}]}`},
	{"UntagResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/fuzz","TagKeys":["commutator:conflict-resolution:n"]}`},
	{"ListTagsOfResource", `{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/fuzz"}`},
	{"DescribeLimits", `{}`},
	{"DescribeEndpoints", `{}`},
	{"DescribeTimeToLive", `{"TableName":"fuzz"}`},
	{"DescribeContinuousBackups", `{"TableName":"fuzz"}`},
	{"TransactWriteItems", `{}`},
	{"NoSuchOperation", `{}`},
}

// FuzzOperation sends whatever bytes to whatever operation: no answer is a 500, each is what the operation may
// answer by the model, and none takes long. DeleteTable and CreateTable are left to their seeds, so that the tables
// stay what the others need.
func FuzzOperation(f *testing.F) {
	h := newHandler(f, nil)
	rawTable(f, h, "fuzz")
	m := apiModel(f)
	ops := append(sorted(m.Operations), "NoSuchOperation")
	for _, s := range seeds {
		f.Add(uint8(slices.Index(ops, s.op)), []byte(s.body))
	}
	second := `{"TableName":"fuzz2","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"b","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"N"},{"AttributeName":"c","AttributeType":"B"}],"LocalSecondaryIndexes":[{"IndexName":"lsi","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"AttributeName":"c","KeyType":"RANGE"}],"Projection":{"ProjectionType":"INCLUDE","NonKeyAttributes":["x"]}}],"GlobalSecondaryIndexes":[{"IndexName":"gsi","KeySchema":[{"AttributeName":"c","KeyType":"HASH"}],"Projection":{"ProjectionType":"ALL"}}]}`
	if w := post(h, "CreateTable", second); w.Code != http.StatusOK {
		f.Fatal(w.Body)
	}
	rawAwait(f, h, "fuzz2")
	g := generator{model: m}
	for i, op := range ops[:len(ops)-1] {
		// What the generator makes of the operation's members, with each of the tables.
		members := map[string]any{}
		for name, member := range m.Shapes[m.Operations[op].Input.Shape].Members {
			members[name] = g.least(member.Shape)
		}
		for _, table := range []string{"fuzz", "fuzz2", "arn:aws:dynamodb:us-east-1:000000000000:table/fuzz"} {
			for _, name := range []string{"TableName", "ResourceArn"} {
				if members[name] != nil {
					members[name] = table
				}
			}
			body, err := json.Marshal(members)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), body)
		}
	}
	own := map[string]bool{}
	for _, s := range seeds {
		own[s.op+s.body] = true
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		op := ops[int(which)%len(ops)]
		if (op == "CreateTable" || op == "DeleteTable") && !own[op+string(body)] {
			t.Skip()
		}
		begun := time.Now()
		w := post(h, op, string(body))
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Fatalf("%s %s: %d %s", op, body, w.Code, w.Body)
		}
		m.checkAnswer(t, op, w.Code, w.Body.Bytes())
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s %s took %s", op, body, took)
		}
	})
}

// FuzzRequest sends whatever a connection may bring, headers and all, with and without verifying signatures: no
// answer is a 500, and each has the checksum and the length of what was sent.
func FuzzRequest(f *testing.F) {
	head := "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n"
	packed := func(newWriter func(io.Writer) io.WriteCloser) string {
		var b bytes.Buffer
		w := newWriter(&b)
		io.WriteString(w, `{"Limit":1}`)
		w.Close()
		return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", b.Len(), b.Bytes())
	}
	for _, s := range []string{
		head + "Content-Length: 2\r\n\r\n{}",
		head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		head + "Content-Encoding: gzip\r\n" + packed(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }),
		head + "Content-Encoding: deflate\r\n" + packed(func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }),
		head + "Accept-Encoding: gzip;q=0, deflate;q=0.5, *\r\nContent-Length: 2\r\n\r\n{}",
		head + "Authorization: AWS4-HMAC-SHA256 Credential=commutator/20240517/us-east-1/dynamodb/aws4_request, SignedHeaders=host;x-amz-date, Signature=00\r\nX-Amz-Date: 20240517T000000Z\r\nContent-Length: 2\r\n\r\n{}",
		"POST /?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%2f HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}",
		"OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nAccess-Control-Request-Method: POST\r\n\r\n",
		"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Commutator_20261122.Status\r\nContent-Length: 2\r\n\r\n{}",
	} {
		f.Add([]byte(s))
	}
	handlers := []http.Handler{newHandler(f, nil), newHandler(f, verifying)}
	crcHeader := strings.ToLower("X-Amz-Crc32") // as the service spells it, not as Go would
	f.Fuzz(func(t *testing.T, bytes []byte) {
		for _, h := range handlers {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(bytes))))
			if err != nil {
				return
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			body := w.Body.Bytes()
			if w.Code >= http.StatusInternalServerError {
				t.Fatalf("%q: %d %s", bytes, w.Code, body)
			}
			if crc := strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10); r.Method != http.MethodHead && (w.Header()[crcHeader][0] != crc || w.Header().Get("Content-Length") != strconv.Itoa(len(body))) {
				t.Fatalf("%q: %v of %q", bytes, w.Header(), body)
			}
		}
	})
}
