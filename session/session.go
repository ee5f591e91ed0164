// Package session lets a client of the AWS SDK for Go v2 read its own writes whichever region it goes on in.
//
//	s := session.New()
//	east := dynamodb.NewFromConfig(cfg, s.In, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String("http://east:8000") })
//	west := dynamodb.NewFromConfig(cfg, s.In, func(o *dynamodb.Options) { o.BaseEndpoint = aws.String("http://west:8000") })
//
// Every write that one client of the session has made is seen by every request that another makes: the region that is asked waits
// until the write has arrived there, for as long as Wait says, or else answers an error whose code is NotReached.
package session

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	header     = "X-Commutator-Session"
	waitHeader = "X-Commutator-Session-Wait"
)

// NotReached is the code (smithy.APIError's ErrorCode) of the error that a region answers which does not have the session's
// writes within its wait.
const NotReached = "SessionNotReachedException"

// Session is what its clients have written. It is safe for concurrent use.
type Session struct {
	// Wait is how long a region may wait for the session's writes to arrive, up to 10 s; 0 leaves it to the region (1 s).
	// It must not be changed once the session is used.
	Wait time.Duration

	mu   sync.Mutex
	seen map[string]map[string]string // table -> region, or region/partition -> what a region has answered last
}

// New returns a session that has written nothing yet.
func New() *Session { return &Session{seen: map[string]map[string]string{}} }

// In makes a client one of the session's; it is an option of dynamodb.New and dynamodb.NewFromConfig.
func (s *Session) In(o *dynamodb.Options) {
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		if err := stack.Initialize.Add(middleware.InitializeMiddlewareFunc("commutator.Session.tables", s.find), middleware.Before); err != nil {
			return err
		}
		if err := stack.Build.Add(middleware.BuildMiddlewareFunc("commutator.Session.send", s.send), middleware.After); err != nil {
			return err
		}
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("commutator.Session.receive", s.receive), middleware.After)
	})
}

// Token returns all that the session knows, to go on with in another process: see Take.
func (s *Session) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var tables []string
	for table := range s.seen {
		tables = append(tables, table)
	}
	return s.token(tables)
}

// Take adds what the Token of another session knows.
func (s *Session) Take(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for entry := range strings.SplitSeq(token, ",") {
		where, value, ok := strings.Cut(strings.TrimSpace(entry), "=")
		table, region, ok2 := strings.Cut(where, "/")
		if !ok || !ok2 {
			continue
		}
		if s.seen[table] == nil {
			s.seen[table] = map[string]string{}
		}
		if newer(value, s.seen[table][region]) {
			s.seen[table][region] = value
		}
	}
}

// newer tells whether a value, INSTANCE.CLOCK in hexadecimal, takes the place of another: it is later, or the region has lost what
// the other was written to.
func newer(value, than string) bool {
	instance, clock, _ := strings.Cut(value, ".")
	oldInstance, old, _ := strings.Cut(than, ".")
	return instance != oldInstance || len(clock) > len(old) || len(clock) == len(old) && clock > old
}

// token is what the session knows of some tables. s is locked.
func (s *Session) token(tables []string) string {
	var entries []string
	for _, table := range tables {
		for region, value := range s.seen[table] {
			entries = append(entries, table+"/"+region+"="+value)
		}
	}
	slices.Sort(entries)
	return strings.Join(entries, ", ")
}

type tablesKey struct{}

// find notes which tables a request is for.
func (s *Session) find(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
	return next.HandleInitialize(middleware.WithStackValue(ctx, tablesKey{}, tablesOf(in.Parameters)), in)
}

// tablesOf returns the tables that an operation's input names: its TableName, or the keys of its RequestItems.
func tablesOf(input any) []string {
	v := reflect.Indirect(reflect.ValueOf(input))
	if v.Kind() != reflect.Struct {
		return nil
	}
	if f := v.FieldByName("TableName"); f.IsValid() && f.Kind() == reflect.Pointer && !f.IsNil() {
		return []string{name(f.Elem().String())}
	}
	var tables []string
	if f := v.FieldByName("RequestItems"); f.IsValid() && f.Kind() == reflect.Map {
		for _, k := range f.MapKeys() {
			tables = append(tables, name(k.String()))
		}
	}
	return tables
}

// name is the table's own, of a name or an ARN.
func name(given string) string {
	_, of, ok := strings.Cut(given, ":table/")
	if !ok {
		return given
	}
	of, _, _ = strings.Cut(of, "/")
	return of
}

func (s *Session) send(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
	tables, _ := middleware.GetStackValue(ctx, tablesKey{}).([]string)
	s.mu.Lock()
	token := s.token(tables)
	s.mu.Unlock()
	if q, ok := in.Request.(*smithyhttp.Request); ok && token != "" {
		q.Header.Set(header, token)
		if s.Wait > 0 {
			q.Header.Set(waitHeader, s.Wait.String())
		}
	}
	return next.HandleBuild(ctx, in)
}

func (s *Session) receive(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	if a, ok := out.RawResponse.(*smithyhttp.Response); ok {
		s.Take(strings.Join(a.Header[header], ","))
	}
	return out, metadata, err
}
