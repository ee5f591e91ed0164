package session_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"net/http"

	"github.com/commutatordb/commutator/session"
)

// answering is a server that answers everything with a session token, and keeps the headers it was sent.
func answering(t *testing.T, token string, got *http.Header) *dynamodb.Client {
	return client(t, session.New(), token, got)
}

func client(t *testing.T, s *session.Session, token string, got *http.Header) *dynamodb.Client {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*got = r.Header
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		if token == "" {
			w.WriteHeader(http.StatusBadRequest)
			w.Write([]byte(`{"__type":"com.amazonaws.dynamodb.v20120810#SessionNotReachedException","message":"not yet"}`))
			return
		}
		w.Header().Set("X-Commutator-Session", token)
		w.Write([]byte("{}"))
	}))
	t.Cleanup(server.Close)
	return dynamodb.New(dynamodb.Options{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}, s.In)
}

func put(t *testing.T, c *dynamodb.Client, table string) {
	t.Helper()
	if _, err := c.PutItem(context.Background(), &dynamodb.PutItemInput{TableName: &table, Item: map[string]types.AttributeValue{}}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatOneClientWroteTheOtherTells(t *testing.T) {
	s := session.New()
	s.Wait = 3 * time.Second
	var east, west http.Header
	a := client(t, s, "orders/us-east-1=7.10, other/us-east-1=7.f", &east)
	b := client(t, s, "orders/eu-west-1=8.20", &west)
	put(t, a, "orders")
	if got := east.Get("X-Commutator-Session"); got != "" {
		t.Errorf("the first request told %q", got)
	}
	put(t, b, "arn:aws:dynamodb:eu-west-1:000000000000:table/orders")
	if got := west.Get("X-Commutator-Session"); got != "orders/us-east-1=7.10" {
		t.Errorf("the second told %q", got)
	}
	if got := west.Get("X-Commutator-Session-Wait"); got != "3s" {
		t.Errorf("to wait %q", got)
	}
	_, err := a.BatchGetItem(context.Background(), &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
		"orders": {Keys: []map[string]types.AttributeValue{{}}}, "other": {Keys: []map[string]types.AttributeValue{{}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if got := east.Get("X-Commutator-Session"); got != "orders/eu-west-1=8.20, orders/us-east-1=7.10, other/us-east-1=7.f" {
		t.Errorf("a batch told %q", got)
	}
	if got := s.Token(); got != east.Get("X-Commutator-Session") {
		t.Errorf("the session knows %q", got)
	}
}

func TestATokenGoesForwardAndOverToAnotherProcess(t *testing.T) {
	s := session.New()
	for _, c := range []struct{ take, want string }{
		{"t/r=1.9", "t/r=1.9"}, {"t/r=1.8", "t/r=1.9"}, {"t/r=1.10", "t/r=1.10"}, {"nonsense, t/r, =, t/r=1.ff", "t/r=1.ff"}, {"t/r=2.1", "t/r=2.1"},
	} {
		if s.Take(c.take); s.Token() != c.want {
			t.Errorf("after %q: %q, want %q", c.take, s.Token(), c.want)
		}
	}
	var got http.Header
	other := session.New()
	other.Take(s.Token())
	put(t, client(t, other, "t/r=2.2", &got), "t")
	if got.Get("X-Commutator-Session") != "t/r=2.1" || other.Token() != "t/r=2.2" {
		t.Errorf("told %q, knows %q", got.Get("X-Commutator-Session"), other.Token())
	}
}

func TestARegionThatLagsAnswersATypedError(t *testing.T) {
	var got http.Header
	_, err := answering(t, "", &got).GetItem(context.Background(), &dynamodb.GetItemInput{TableName: aws.String("orders"), Key: map[string]types.AttributeValue{}})
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != session.NotReached {
		t.Errorf("got %v", err)
	}
}
