package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type page struct {
	Items            []map[string]any
	Count            int
	ScannedCount     int
	LastEvaluatedKey map[string]any
}

func ask(t interface{ Fatalf(string, ...any) }, h http.Handler, op string, request map[string]any) page {
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatalf("%v", err)
	}
	w := post(h, op, string(body))
	var p page
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%s %s: %d %s", op, body, w.Code, w.Body)
	}
	if p.Count != len(p.Items) || p.ScannedCount < p.Count {
		t.Fatalf("%s %s: %d items, Count %d, ScannedCount %d", op, body, len(p.Items), p.Count, p.ScannedCount)
	}
	return p
}

// Goal: however a reader pages, it sees each item once, in order. Method: the pages of a random query or
// scan, at a random limit, put together, are the answer without one; backwards they are its reverse; the
// segments of a scan are a partition of it.
func TestPagesConcatenateToTheWhole(t *testing.T) {
	h := newHandler(t, nil)
	create := `{"TableName":"pages","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"pk","KeyType":"HASH"},{"AttributeName":"sk","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"},{"AttributeName":"sk","AttributeType":"N"},{"AttributeName":"l","AttributeType":"B"},{"AttributeName":"g","AttributeType":"S"}],` +
		`"LocalSecondaryIndexes":[{"IndexName":"lsi","KeySchema":[{"AttributeName":"pk","KeyType":"HASH"},{"AttributeName":"l","KeyType":"RANGE"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}],"GlobalSecondaryIndexes":[{"IndexName":"gsi","KeySchema":[{"AttributeName":"g","KeyType":"HASH"},{"AttributeName":"l","KeyType":"RANGE"}],"Projection":{"ProjectionType":"ALL"}}]}`
	if w := post(h, "CreateTable", create); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	rawAwait(t, h, "pages")
	for i := range 120 {
		item := fmt.Sprintf(`"pk":{"S":"p%d"},"sk":{"N":"%d"},"v":{"N":"%d"}`, i%4, i*7%31-15, i)
		if i%5 != 0 {
			item += fmt.Sprintf(`,"l":{"B":"AAA%c"}`, "EIM"[i%3]) // ties, and items that the indexes do not have
		}
		if i%3 != 0 {
			item += fmt.Sprintf(`,"g":{"S":"g%d"}`, i%2)
		}
		if w := post(h, "PutItem", `{"TableName":"pages","Item":{`+item+`}}`); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		request := map[string]any{"TableName": "pages"}
		op := rapid.SampledFrom([]string{"Query", "Scan"}).Draw(t, "op")
		index := rapid.SampledFrom([]string{"", "lsi", "gsi"}).Draw(t, "index")
		if index != "" {
			request["IndexName"] = index
		}
		values := map[string]any{}
		if op == "Query" {
			key, value := "pk", fmt.Sprintf("p%d", rapid.IntRange(0, 4).Draw(t, "p"))
			if index == "gsi" {
				key, value = "g", fmt.Sprintf("g%d", rapid.IntRange(0, 2).Draw(t, "g"))
			}
			condition := key + " = :k"
			values[":k"] = map[string]any{"S": value}
			if rapid.Bool().Draw(t, "range") {
				sort := "l"
				values[":s"] = map[string]any{"B": rapid.SampledFrom([]string{"AAAE", "AAAI", "AAAM", "AA=="}).Draw(t, "l")}
				if index == "" {
					sort = "sk"
					values[":s"] = map[string]any{"N": fmt.Sprint(rapid.IntRange(-16, 16).Draw(t, "s"))}
				}
				condition += " AND " + sort + " " + rapid.SampledFrom([]string{"=", "<", "<=", ">", ">="}).Draw(t, "cmp") + " :s"
			}
			request["KeyConditionExpression"] = condition
		} else if n := rapid.IntRange(0, 4).Draw(t, "segments"); n > 0 {
			request["TotalSegments"], request["Segment"] = n, rapid.IntRange(0, n-1).Draw(t, "segment")
		}
		if rapid.Bool().Draw(t, "filter") {
			request["FilterExpression"] = "v > :v"
			values[":v"] = map[string]any{"N": fmt.Sprint(rapid.IntRange(0, 120).Draw(t, "v"))}
		}
		if len(values) > 0 {
			request["ExpressionAttributeValues"] = values
		}
		whole := ask(t, h, op, request)
		if whole.LastEvaluatedKey != nil {
			t.Fatalf("the whole has a LastEvaluatedKey")
		}
		paged := func(limit int) (items []map[string]any, scanned int) {
			request["Limit"] = limit
			defer func() { delete(request, "Limit"); delete(request, "ExclusiveStartKey") }()
			for {
				p := ask(t, h, op, request)
				items, scanned = append(items, p.Items...), scanned+p.ScannedCount
				if p.ScannedCount > limit {
					t.Fatalf("%d items looked at, limit %d", p.ScannedCount, limit)
				}
				if p.LastEvaluatedKey == nil {
					return items, scanned
				}
				request["ExclusiveStartKey"] = p.LastEvaluatedKey
			}
		}
		limit := rapid.IntRange(1, 130).Draw(t, "limit")
		items, scanned := paged(limit)
		if scanned != whole.ScannedCount || len(items)+len(whole.Items) > 0 && !reflect.DeepEqual(items, whole.Items) {
			t.Fatalf("%v by %d: %d items, %d looked at; the whole has %d and %d", request, limit, len(items), scanned, len(whole.Items), whole.ScannedCount)
		}
		if op == "Query" {
			request["ScanIndexForward"] = false
			items, _ = paged(limit)
			for i, it := range items {
				if !reflect.DeepEqual(it, whole.Items[len(items)-1-i]) {
					t.Fatalf("backwards, item %d is not item %d forwards", i, len(items)-1-i)
				}
			}
			if len(items) != len(whole.Items) {
				t.Fatalf("backwards %d items, forwards %d", len(items), len(whole.Items))
			}
		}
	})
	for _, n := range []int{1, 2, 7, 100} {
		total := 0
		for i := range n {
			total += ask(t, h, "Scan", map[string]any{"TableName": "pages", "TotalSegments": n, "Segment": i}).Count
		}
		if want := ask(t, h, "Scan", map[string]any{"TableName": "pages"}).Count; total != want || want < 60 {
			t.Errorf("%d segments have %d items of %d", n, total, want)
		}
	}
}

// A page ends behind the item with which it has looked at 1 MB, filter or not.
func TestAPageLooksAtOneMegabyte(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "large")
	data := strings.Repeat("x", 300<<10)
	for i := range 5 {
		if w := post(h, "PutItem", fmt.Sprintf(`{"TableName":"large","Item":{"pk":{"S":"%d"},"data":{"S":"%s"}}}`, i, data)); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	first := ask(t, h, "Scan", map[string]any{"TableName": "large", "ProjectionExpression": "pk"})
	if first.Count != 4 || first.LastEvaluatedKey == nil {
		t.Errorf("%d items, last %v", first.Count, first.LastEvaluatedKey)
	}
	none := ask(t, h, "Scan", map[string]any{"TableName": "large", "FilterExpression": "attribute_not_exists(#d)", "ExpressionAttributeNames": map[string]string{"#d": "data"}})
	if none.Count != 0 || none.ScannedCount != 4 || none.LastEvaluatedKey == nil {
		t.Errorf("%+v", none)
	}
}
