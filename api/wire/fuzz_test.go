package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/commutatordb/commutator/item"
	"github.com/go-json-experiment/json/jsontext"
)

// strictJSON tells whether doc is one JSON value by another strict reader.
func strictJSON(doc []byte) bool {
	d := jsontext.NewDecoder(bytes.NewBuffer(doc))
	if d.SkipValue() != nil {
		return false
	}
	_, err := d.ReadToken()
	return err != nil && len(bytes.TrimLeft(doc[d.InputOffset():], " \t\r\n")) == 0
}

// FuzzSkip: what is JSON is what jsontext takes for JSON.
func FuzzSkip(f *testing.F) {
	for _, doc := range items {
		f.Add([]byte(doc))
	}
	for _, doc := range []string{`{"a":1,"\u0061":2}`, `"\ud83d\ude00"`, `"\ud83d"`, "\"\xff\"", `[1,-0.5e+3,true,null]`, `[1,]`, "\"\\u00e9é\"", `{"a":{"a":[]}} `} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if bytes.Count(doc, []byte("["))+bytes.Count(doc, []byte("{")) > maxDepth {
			return // jsontext goes deeper
		}
		r := NewReader(doc)
		err := r.Skip()
		if err == nil {
			err = r.End()
		}
		if want := strictJSON(doc); (err == nil) != want {
			t.Fatalf("%q: got %v, jsontext says %v", doc, err, want)
		}
	})
}

// FuzzItem: no input makes the reader panic or stray from its two error types; what it takes is JSON,
// is what item's tree would be stored as, and is written back as the same item.
func FuzzItem(f *testing.F) {
	for _, doc := range items {
		f.Add([]byte(doc))
	}
	for _, doc := range []string{`{"b":{"N":"-1.50e3"},"a":{"NS":["2","1"]}}`, `{"a":{"BS":["AQ==","AA=="]},"A":{"L":[{"M":{}}]}}`, `{"a":{"S":"x","q":[1]}}`, `{"a":{"SS":["a","a"]}}`} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		r := NewReader(doc)
		stored, err := r.Item(nil)
		if err != nil {
			var s *SerializationError
			var v *ValidationError
			if !errors.As(err, &s) && !errors.As(err, &v) || stored != nil {
				t.Fatalf("%q: %v, %q", doc, err, stored)
			}
			return
		}
		if r.End() == nil && !json.Valid(doc) {
			t.Fatalf("%q is no JSON", doc)
		}
		tree, err := item.DecodeItem(stored)
		if err != nil || !bytes.Equal(item.AppendItem(nil, tree), stored) {
			t.Fatalf("%q: stored as %q: %v", doc, stored, err)
		}
		text, err := AppendItem(nil, stored)
		if err != nil {
			t.Fatal(err)
		}
		again, err := NewReader(text).Item(nil)
		if err != nil || !bytes.Equal(again, stored) {
			t.Fatalf("%q: written as %s, read as %q: %v", doc, text, again, err)
		}
	})
}

// FuzzAppendValue: whatever bytes lie on a disk, the answer is JSON or an error.
func FuzzAppendValue(f *testing.F) {
	f.Add(item.AppendValue(nil, item.L(item.S("x"), item.N(item.NumberFromInt(-5)), item.B("b"))))
	f.Add([]byte("\x02\x05\x03\xff\xff\xff\x00"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		text, err := AppendValue(nil, stored)
		switch {
		case err != nil && !errors.Is(err, item.ErrEncoding):
			t.Fatal(err)
		case err == nil && !strictJSON(text) && !duplicateNames(stored):
			t.Fatalf("%q: written as %s", stored, text)
		}
	})
}

// duplicateNames tells whether stored has maps that item does not write: those may be written as JSON
// with a name twice.
func duplicateNames(stored []byte) bool {
	_, err := item.DecodeValue(stored)
	return err != nil
}
