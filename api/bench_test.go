package api

import "testing"

// Goal: parsing a typical expression and checking a typical request cost less than decoding the JSON of the
// same request. "decode" reads the members; "check" is all that follows before the table is looked up, the
// parsing of expressions in it.
func BenchmarkRequest(b *testing.B) {
	for _, c := range []struct {
		name, body string
		known      member
		check      func(p *params) error
	}{
		{"PutItem", `{"TableName": "orders", "Item": {"pk": {"S": "customer#0001742"}, "sk": {"S": "order#2024-05-17T09:31:44.120Z"}, ` +
			`"status": {"S": "DELIVERED"}, "total": {"N": "1284.95"}, "tags": {"SS": ["fragile", "express"]}}, ` +
			`"ConditionExpression": "attribute_not_exists(pk) OR version = :v", "ExpressionAttributeValues": {":v": {"N": "3"}}}`,
			writeMembers | mItem,
			func(p *params) error { _, err := p.checkPut(); return err }},
		{"UpdateItem", `{"TableName": "orders", "Key": {"pk": {"S": "customer#0001742"}, "sk": {"S": "order#2024-05-17T09:31:44.120Z"}}, ` +
			`"UpdateExpression": "SET #s = :s, updated = :now ADD version :one", "ConditionExpression": "version = :v", ` +
			`"ExpressionAttributeNames": {"#s": "status"}, "ExpressionAttributeValues": {":s": {"S": "DELIVERED"}, ":now": {"N": "1715938304"}, ":one": {"N": "1"}, ":v": {"N": "3"}}, ` +
			`"ReturnValues": "ALL_NEW"}`,
			writeMembers | mKey | mUpdateExpression | mAttributeUpdates,
			func(p *params) error { _, _, err := p.checkUpdate(); return err }},
		{"Query", `{"TableName": "orders", "KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)", ` +
			`"ExpressionAttributeValues": {":pk": {"S": "customer#0001742"}, ":prefix": {"S": "order#2024"}}, "Limit": 25}`,
			searchMembers | mKeyConditionExpression | mKeyConditions | mQueryFilter | mScanIndexForward,
			func(p *params) error { _, _, _, err := p.checkQuery(); return err }},
		{"QueryOfThreeExpressions", `{"TableName": "orders", "KeyConditionExpression": "pk = :pk AND begins_with(sk, :prefix)", "FilterExpression": "#s <> :s", ` +
			`"ProjectionExpression": "pk, sk, #s, amount", "ExpressionAttributeNames": {"#s": "status"}, ` +
			`"ExpressionAttributeValues": {":pk": {"S": "customer#0001742"}, ":prefix": {"S": "order#2024"}, ":s": {"S": "DELIVERED"}}, "Limit": 25}`,
			searchMembers | mKeyConditionExpression | mKeyConditions | mQueryFilter | mScanIndexForward,
			func(p *params) error { _, _, _, err := p.checkQuery(); return err }},
	} {
		decode := func(q *request) {
			q.params, q.entries = params{}, 0
			q.reader.Reset(q.body)
			if err := q.read(c.known); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(c.name+"/decode", func(b *testing.B) {
			q := &request{body: []byte(c.body)}
			b.ReportAllocs()
			for b.Loop() {
				decode(q)
			}
		})
		b.Run(c.name+"/check", func(b *testing.B) {
			q := &request{body: []byte(c.body)}
			decode(q)
			b.ReportAllocs()
			for b.Loop() {
				if err := c.check(&q.params); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
