package wire

import (
	"strings"
	"testing"
)

// items are the documents that PERFORMANCE.md speaks of: 1 KB in about ten attributes, as boto3 writes
// it (with spaces) and in the order of a program's own; and 1 KB in one string.
var items = map[string]string{
	"attributes": `{"pk": {"S": "customer#0001742"}, "sk": {"S": "order#2024-05-17T09:31:44.120Z"}, "status": {"S": "DELIVERED"}, ` +
		`"total": {"N": "1284.95"}, "count": {"N": "17"}, "paid": {"BOOL": true}, "gift": {"NULL": true}, ` +
		`"tags": {"SS": ["fragile", "express", "insured"]}, ` +
		`"address": {"M": {"street": {"S": "221B Baker Street"}, "city": {"S": "London"}, "zip": {"S": "NW1 6XE"}}}, ` +
		`"lines": {"L": [{"M": {"sku": {"S": "AB-1234567"}, "n": {"N": "3"}}}, {"M": {"sku": {"S": "CD-7654321"}, "n": {"N": "14"}}}]}, ` +
		`"note": {"S": "` + strings.Repeat("Leave it with the neighbour. ", 17) + `"}}`,
	"string":  `{"v":{"S":"` + strings.Repeat("abcdefghijklmnopqrstuvwxyz012345", 32) + `"}}`,
	"accents": `{"v":{"S":"` + strings.Repeat("Žluťoučký kůň úpěl ďábelské ódy ", 24) + `"}}`,
	"binary":  `{"v":{"B":"` + strings.Repeat("QUJD", 256) + `"}}`,
	"escapes": `{"v":{"S":"` + strings.Repeat(`{\"key\":\"value\"}\n`, 54) + `"}}`,
}

func BenchmarkReadItem(b *testing.B) {
	for name, doc := range items {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(doc)))
			r := NewReader(nil)
			body := []byte(doc)
			var dst []byte
			for b.Loop() {
				r.Reset(body)
				var err error
				if dst, err = r.Item(dst[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteItem(b *testing.B) {
	for name, doc := range items {
		b.Run(name, func(b *testing.B) {
			stored, err := NewReader([]byte(doc)).Item(nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(doc)))
			var dst []byte
			for b.Loop() {
				if dst, err = AppendItem(dst[:0], stored); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
