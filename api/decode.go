package api

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// decode reads the whole request into a struct whose fields are named as the members are: strings,
// numbers, booleans, structs, slices, and pointers to these for what may be missing. Members that it has
// no field for are skipped. It is for the table operations, which come seldom.
func (q *request) decode(into any) error {
	if err := q.decodeValue(reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	return q.reader.End()
}

// maxElements is how many elements of a list are kept: more than any may have, so that a list of millions is too
// long and takes no memory.
const maxElements = 4096

func (q *request) decodeValue(v reflect.Value) error {
	r := &q.reader
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return q.decodeValue(v.Elem())
	case reflect.Struct:
		return r.Object(func(name []byte) error {
			f := v.FieldByName(string(name))
			if !f.IsValid() || !f.CanSet() { // not exported: no member
				return r.Skip()
			}
			if r.Null() {
				return nil
			}
			return q.decodeValue(f)
		})
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, 1)) // an empty list is not a missing one
		return r.Array(func() error {
			if v.Len() == maxElements {
				return r.Skip()
			}
			e := reflect.New(v.Type().Elem()).Elem()
			err := q.decodeValue(e)
			v.Set(reflect.Append(v, e))
			return err
		})
	case reflect.String:
		s, err := r.String()
		v.SetString(s)
		return err
	case reflect.Int64:
		n, err := r.Int()
		v.SetInt(n)
		return err
	case reflect.Float64:
		f, err := r.Float()
		v.SetFloat(f)
		return err
	case reflect.Bool:
		b, err := r.Bool()
		v.SetBool(b)
		return err
	}
	panic(fmt.Sprintf("api: no member is of type %s", v.Type()))
}

// encode writes a table operation's answer.
func (q *request) encode(answer any) error {
	b, err := json.Marshal(answer)
	q.out = append(q.out, b...)
	return err
}
