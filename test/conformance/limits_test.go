package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// refused checks that a request is answered with this error, or with success when message is "".
func refused(t *testing.T, h http.Handler, op, body, message string) {
	t.Helper()
	w := post(h, op, body)
	short := body[:min(len(body), 120)]
	switch {
	case message == "" && w.Code != http.StatusOK:
		t.Errorf("%s %s: %d %.300s", op, short, w.Code, w.Body)
	case message != "" && (w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"`+message+`"`)):
		t.Errorf("%s %s: %d %.300s, want %s", op, short, w.Code, w.Body, message)
	}
}

// Goal: the limits on sizes hold to the byte. DYNAMODB.md §3, "400 KB".
func TestItemsOf400KBAreTakenAndOneByteMoreIsNot(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "sizes")
	const limit = 400 << 10
	// The key's name and value take 3 bytes, the attribute's name 1.
	item := func(size int) string { return `{"pk":{"S":"a"},"v":{"S":"` + strings.Repeat("x", size-4) + `"}}` }
	const large = "Item size has exceeded the maximum allowed size"
	refused(t, h, "PutItem", `{"TableName":"sizes","Item":`+item(limit)+`}`, "")
	refused(t, h, "PutItem", `{"TableName":"sizes","Item":`+item(limit+1)+`}`, large)
	refused(t, h, "BatchWriteItem", `{"RequestItems":{"sizes":[{"PutRequest":{"Item":`+item(limit)+`}}]}}`, "")
	refused(t, h, "BatchWriteItem", `{"RequestItems":{"sizes":[{"PutRequest":{"Item":`+item(limit+1)+`}}]}}`, large)
	// Two lists: three bytes each and one for each element.
	nested := func(size int) string {
		return `{"pk":{"S":"a"},"l":{"L":[{"L":[{"S":"` + strings.Repeat("x", size-3-1-3-1-3-1) + `"}]}]}}`
	}
	refused(t, h, "PutItem", `{"TableName":"sizes","Item":`+nested(limit)+`}`, "")
	refused(t, h, "PutItem", `{"TableName":"sizes","Item":`+nested(limit+1)+`}`, large)
	// An update is measured without the key, and with 3 bytes and 19 for each clause that writes.
	update := func(size int) string {
		return `{"TableName":"sizes","Key":{"pk":{"S":"u"}},"UpdateExpression":"SET v = :v","ExpressionAttributeValues":{":v":{"S":"` + strings.Repeat("x", size-4) + `"}}}`
	}
	refused(t, h, "UpdateItem", update(limit+3-3-19), "")
	refused(t, h, "UpdateItem", update(limit+3-3-19+1), "Item size to update has exceeded the maximum allowed size")
}

func TestLegacyParametersHaveNoLimitOfExpressions(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "legacy")
	const n = 1000 // more than an expression of 4096 bytes, or of 300 operators, could have
	var updates, expected strings.Builder
	for i := range n {
		fmt.Fprintf(&updates, `,"a%d":{"Value":{"N":"%d"}}`, i, i)
		fmt.Fprintf(&expected, `,"a%d":{"Value":{"N":"%d"}}`, i, i)
	}
	key := `"TableName":"legacy","Key":{"pk":{"S":"a"}}`
	refused(t, h, "UpdateItem", `{`+key+`,"AttributeUpdates":{`+updates.String()[1:]+`}}`, "")
	refused(t, h, "DeleteItem", `{`+key+`,"Expected":{`+expected.String()[1:]+`,"gone":{"Value":{"N":"1"}}}}`, "The conditional request failed")
	refused(t, h, "DeleteItem", `{`+key+`,"Expected":{`+expected.String()[1:]+`}}`, "")
}

// Goal: input that is large or deep is refused or served, and is never the server's fault.
func TestBadInputIsTheClientsFault(t *testing.T) {
	h := newHandler(t, nil)
	rawTable(t, h, "bad")
	many := func(n int, one string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(one, "%", fmt.Sprint(i)))
		}
		return b.String()[1:]
	}
	key := `"TableName":"bad","Key":{"pk":{"S":"a"}}`
	for name, c := range map[string][2]string{
		"parentheses":      {"UpdateItem", `{` + key + `,"ConditionExpression":"` + strings.Repeat("(", 4096) + `"}`},
		"not":              {"UpdateItem", `{` + key + `,"ConditionExpression":"` + strings.Repeat("NOT ", 1000) + `a"}`},
		"functions":        {"UpdateItem", `{` + key + `,"ConditionExpression":"` + strings.Repeat("size(", 800) + `"}`},
		"set functions":    {"UpdateItem", `{` + key + `,"UpdateExpression":"SET a = ` + strings.Repeat("if_not_exists(a,", 250) + `"}`},
		"set parentheses":  {"UpdateItem", `{` + key + `,"UpdateExpression":"SET a = ` + strings.Repeat("(", 4000) + `"}`},
		"names":            {"GetItem", `{` + key + `,"ProjectionExpression":"a","ExpressionAttributeNames":{` + many(100000, `,"#%":"a%"`) + `}}`},
		"values":           {"UpdateItem", `{` + key + `,"UpdateExpression":"SET a = :0","ExpressionAttributeValues":{` + many(100000, `,":%":{"N":"%"}`) + `}}`},
		"attributes":       {"GetItem", `{` + key + `,"AttributesToGet":[` + many(100000, `,"a%"`) + `]}`},
		"indexes":          {"GetItem", `{` + key + `,"ProjectionExpression":"` + many(500, `,a[%]`) + `"}`},
		"deep":             {"PutItem", `{"TableName":"bad","Item":{"pk":{"S":"a"},"v":` + strings.Repeat(`{"L":[`, 200) + strings.Repeat(`]}`, 200) + `}}`},
		"deeper":           {"PutItem", `{"TableName":"bad","Item":{"pk":{"S":"a"},"v":` + strings.Repeat(`{"L":[`, 100000)},
		"exponent":         {"PutItem", `{"TableName":"bad","Item":{"pk":{"S":"a"},"v":{"N":"1e` + strings.Repeat("9", 100000) + `"}}}`},
		"digits":           {"PutItem", `{"TableName":"bad","Item":{"pk":{"S":"a"},"v":{"N":"` + strings.Repeat("9", 100000) + `"}}}`},
		"limit":            {"Scan", `{"TableName":"bad","Limit":99999999999999999999}`},
		"sets of one name": {"PutItem", `{"TableName":"bad","Item":{"pk":{"S":"a"},"v":{"SS":[` + many(50000, `,"a"`) + `]}}}`},
	} {
		if w := post(h, c[0], c[1]); w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %.200s", name, w.Code, w.Body)
		}
	}
	for _, op := range []string{"GetItem", "PutItem", "UpdateItem", "DeleteItem", "BatchGetItem", "BatchWriteItem", "Query", "Scan"} {
		for _, body := range []string{"", "null", "[]", `""`, "1", "{", `{"TableName"`, "{}", `{"TableName":"bad","Key":null,"Item":null,"RequestItems":null}`, "\xff", strings.Repeat("[", 1000)} {
			if w := post(h, op, body); w.Code != http.StatusBadRequest && !(op == "Scan" && w.Code == http.StatusOK) {
				t.Errorf("%s %.40q: %d %.200s", op, body, w.Code, w.Body)
			}
		}
	}
}
