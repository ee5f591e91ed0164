package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	accessKey = "commutator"
	secretKey = "commutator"
	tableName = "bench"
	// items is how many items the table holds; requests go through them evenly.
	items = 10_000
)

// itemJSON is an item of about 1 KB: a key and ten attributes.
func itemJSON(i int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"pk":{"S":"item-%06d"},"count":{"N":"%d"},"flag":{"BOOL":true}`, i, i*7)
	rng := rand.New(rand.NewPCG(uint64(i), 7))
	for a := range 8 {
		fmt.Fprintf(&b, `,"attribute-%d":{"S":"`, a)
		for range 100 {
			b.WriteByte('a' + byte(rng.IntN(26)))
		}
		b.WriteString(`"}`)
	}
	b.WriteString("}")
	return b.String()
}

// getAnswer is what a GetItem of one of the items is answered.
func getAnswer() []byte { return []byte(`{"Item":` + itemJSON(1) + `}`) }

// request returns the bytes of a signed request.
func request(address, operation, body string) ([]byte, error) {
	q, err := http.NewRequest(http.MethodPost, "http://"+address+"/", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	q.Header.Set("Content-Type", "application/x-amz-json-1.0")
	q.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	sum := sha256.Sum256([]byte(body))
	err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, q, hex.EncodeToString(sum[:]), "dynamodb", "us-east-1", time.Now())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = q.Write(&b)
	return b.Bytes(), err
}

// distinct is how many requests of a kind are signed beforehand.
const distinct = 4000

func getRequests(address string) ([][]byte, error) {
	return signed(address, "GetItem", func(i int) string {
		return fmt.Sprintf(`{"TableName":"%s","Key":{"pk":{"S":"item-%06d"}},"ConsistentRead":true}`, tableName, i)
	})
}

func eventualRequests(address string) ([][]byte, error) {
	return signed(address, "GetItem", func(i int) string {
		return fmt.Sprintf(`{"TableName":"%s","Key":{"pk":{"S":"item-%06d"}}}`, tableName, i)
	})
}

func putRequests(address string) ([][]byte, error) {
	return signed(address, "PutItem", func(i int) string {
		return fmt.Sprintf(`{"TableName":"%s","Item":%s}`, tableName, itemJSON(i))
	})
}

func signed(address, operation string, body func(i int) string) ([][]byte, error) {
	out := make([][]byte, distinct)
	for i := range out {
		var err error
		if out[i], err = request(address, operation, body(i*(items/distinct))); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// prepare makes the table and fills it.
func prepare(ctx context.Context, address string) error {
	create := `{"TableName":"` + tableName + `","AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"}],"KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"}`
	if err := call(address, "CreateTable", create); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for call(address, "Scan", `{"TableName":"`+tableName+`","Limit":1}`) != nil {
		if time.Now().After(deadline) {
			return errors.New("the table does not become ACTIVE")
		}
		time.Sleep(10 * time.Millisecond)
	}
	for i := 0; i < items && ctx.Err() == nil; i += 25 {
		var b strings.Builder
		for j := i; j < i+25; j++ {
			if j > i {
				b.WriteByte(',')
			}
			b.WriteString(`{"PutRequest":{"Item":` + itemJSON(j) + `}}`)
		}
		if err := call(address, "BatchWriteItem", `{"RequestItems":{"`+tableName+`":[`+b.String()+`]}}`); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// call sends one request and wants 200.
func call(address, operation, body string) error {
	b, err := request(address, operation, body)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		return err
	}
	a, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(a.Body, 1000))
		return fmt.Errorf("%s: %s: %s", operation, a.Status, text)
	}
	return nil
}

// drive sends the requests over and over on some connections for a time, each connection waiting for its
// answer, and returns how long each took. Any answer but 200 is an error.
func drive(ctx context.Context, address string, requests [][]byte, connections int, length time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	all := make([][]time.Duration, connections)
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for c := range connections {
		wg.Go(func() { all[c], errs[c] = driveOne(ctx, address, requests, c*len(requests)/connections) })
	}
	wg.Wait()
	var out []time.Duration
	for _, l := range all {
		out = append(out, l...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("nothing was answered")
	}
	return out, nil
}

func driveOne(ctx context.Context, address string, requests [][]byte, from int) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 8<<10)
	var lat []time.Duration
	for i := from; ctx.Err() == nil; i++ {
		begun := time.Now()
		if _, err := conn.Write(requests[i%len(requests)]); err != nil {
			return nil, err
		}
		if err := readAnswer(r); err != nil {
			return nil, err
		}
		lat = append(lat, time.Since(begun))
	}
	return lat, nil
}

// readAnswer reads one HTTP answer, which must be a 200.
func readAnswer(r *bufio.Reader) error {
	refused, err := readOutcome(r)
	if err == nil && refused != "" {
		err = errors.New("answered " + refused)
	}
	return err
}

// readOutcome reads one HTTP answer with a Content-Length and no more, at next to no cost: what the client
// spends, the server cannot. It returns what a request was refused with, as "400 ThrottlingException", "" if it was not.
func readOutcome(r *bufio.Reader) (refused string, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < len("HTTP/1.1 200") {
		return "", fmt.Errorf("answered %q", line)
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		refused = string(line[len("HTTP/1.1 "):][:3])
	}
	length := -1
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && len(name) == len("Content-Length") && bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return "", err
			}
		}
	}
	if length < 0 {
		return "", errors.New("an answer without Content-Length")
	}
	if refused == "" {
		_, err = r.Discard(length)
		return "", err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return "", err
	}
	var e struct {
		Type string `json:"__type"`
	}
	if json.Unmarshal(body, &e) == nil {
		_, name, _ := strings.Cut(e.Type, "#")
		refused += " " + name
	}
	return refused, nil
}
