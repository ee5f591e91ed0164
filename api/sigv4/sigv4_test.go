package sigv4

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"pgregory.net/rapid"
)

// The goal: what an SDK signs is taken, and nothing else is. The positive side is held against the SDK's
// own signer; the negative side takes one good request and breaks one thing about it at a time.

const (
	testKey    = "AKIDEXAMPLE"
	testSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	testRegion = "eu-west-1"
	testBody   = `{"TableName":"Music","Key":{"Artist":{"S":"No One You Know"}}}`
)

var testNow = time.Date(2024, 5, 17, 23, 59, 50, 0, time.UTC)

func newVerifier() *Verifier {
	return &Verifier{
		Region: testRegion,
		Lookup: func(id string) (string, bool) { return testSecret, id == testKey },
		Now:    func() time.Time { return testNow },
	}
}

func newRequest() *http.Request {
	r, err := http.NewRequest(http.MethodPost, "http://db.example:8000/", strings.NewReader(testBody))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810.GetItem")
	return r
}

// signed returns a request as boto3 makes it.
func signed() *http.Request {
	r := newRequest()
	if err := Sign(r, []byte(testBody), testKey, testSecret, testRegion, testNow); err != nil {
		panic(err)
	}
	return r
}

// signList signs r over exactly the headers listed, whatever they are, with a scope that may be wrong.
func signList(r *http.Request, body, signedHeaders, at, scope string) {
	r.Header.Set("X-Amz-Date", at)
	w := new(work)
	w.setPayload(sha256.Sum256([]byte(body)))
	if err := w.setCanonical(r, signedHeaders); err != nil {
		panic(err)
	}
	parts := append(strings.Split(scope, "/"), "", "", "")
	w.sign(newSigningKey(testSecret, parts[0], parts[1]), at, scope)
	r.Header.Set("Authorization", algorithm+" Credential="+testKey+"/"+scope+", SignedHeaders="+signedHeaders+", Signature="+string(w.signature[:]))
}

const (
	testTime  = "20240517T235950Z"
	testScope = "20240517/eu-west-1/dynamodb/aws4_request"
	botoList  = "content-type;host;x-amz-date;x-amz-target"
)

// received sends r over a wire, so to speak, and returns what a server makes of it.
func received(t interface{ Fatal(...any) }, r *http.Request) *http.Request {
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSignedRequestIsTaken(t *testing.T) {
	v := newVerifier()
	for range 2 { // with the key derived, and with the key from the cache
		id, err := v.Verify(received(t, signed()), []byte(testBody))
		if err != nil || id != (Identity{testKey, testRegion}) {
			t.Fatalf("got %+v, %v", id, err)
		}
	}
}

// What SDKs sign differs. Source: botocore's auth.py, @smithy/signature-v4, the Java SDK's
// AbstractAws4Signer, aws-sdk-js v2's v4.js, as published.
func TestHeadersOfManySDKsAreTaken(t *testing.T) {
	for name, list := range map[string]string{
		"boto3":              botoList,
		"JavaScript v3":      "amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-target;x-amz-user-agent",
		"JavaScript v2":      "host;x-amz-content-sha256;x-amz-date;x-amz-target;x-amz-user-agent",
		"Java v2":            "amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-target",
		"Go v2":              "accept-encoding;amz-sdk-invocation-id;amz-sdk-request;content-length;content-type;host;x-amz-content-sha256;x-amz-date;x-amz-target",
		"no X-Amz-UserAgent": "host;x-amz-content-sha256;x-amz-date;x-amz-target",
	} {
		r := newRequest()
		for _, h := range []string{"Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Accept-Encoding", "User-Agent", "X-Amzn-Trace-Id", "X-Amz-User-Agent", "X-Forwarded-For"} {
			r.Header.Set(h, "value of  "+h)
		}
		sum := sha256.Sum256([]byte(testBody))
		r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		if !strings.Contains(list, "x-amz-content-sha256") {
			r.Header.Del("X-Amz-Content-Sha256")
		}
		signList(r, testBody, list, testTime, testScope)
		if _, err := newVerifier().Verify(received(t, r), []byte(testBody)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSDKClientIsTaken(t *testing.T) {
	v := newVerifier()
	v.Now = time.Now // the SDK signs with the machine's clock
	v.Token = func(id, token string) bool { return token == "session" }
	var verified []error
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = v.Verify(r, body)
		}
		verified = append(verified, err)
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	client := dynamodb.New(dynamodb.Options{
		Region: testRegion, BaseEndpoint: aws.String(server.URL), HTTPClient: server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider(testKey, testSecret, "session"),
	})
	if _, err := client.ListTables(context.Background(), &dynamodb.ListTablesInput{}); err != nil {
		t.Fatal(err)
	}
	if len(verified) != 1 || verified[0] != nil {
		t.Fatalf("got %v", verified)
	}
}

func TestAuthorizationMayBeSpacedInManyWays(t *testing.T) {
	for _, separators := range [][2]string{{" ", ", "}, {" ", ","}, {" ", " "}, {"  ", " , "}, {" ", ",,"}} {
		r := signed()
		h := strings.Replace(r.Header.Get("Authorization"), " ", separators[0], 1)
		r.Header.Set("Authorization", strings.ReplaceAll(h, ", ", separators[1]))
		if _, err := newVerifier().Verify(r, []byte(testBody)); err != nil {
			t.Errorf("%q: %v", separators, err)
		}
	}
}

func TestSpacesInSignedValuesDoNotCount(t *testing.T) {
	r := newRequest()
	r.Header.Set("X-Amz-Meta", "a b c")
	if err := Sign(r, []byte(testBody), testKey, testSecret, testRegion, testNow); err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Amz-Meta", " \t a   b  c ")
	if _, err := newVerifier().Verify(r, []byte(testBody)); err != nil {
		t.Error(err)
	}
}

// Each of these is one line, or a part of one, of the checklist in the design's chapter on security.
func TestWhatIsNotAsSignedIsRefused(t *testing.T) {
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	auth := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			h := r.Header.Get("Authorization")
			changed := strings.Replace(h, old, new, 1)
			if h == changed {
				panic("nothing changed: " + old)
			}
			r.Header.Set("Authorization", changed)
		}
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	scoped := func(scope string) func(*http.Request) {
		return func(r *http.Request) { signList(r, testBody, botoList, testTime, scope) }
	}
	dated := func(at string) func(*http.Request) {
		return func(r *http.Request) { signList(r, testBody, botoList, at, at[:min(8, len(at))]+testScope[8:]) }
	}
	listed := func(list string) func(*http.Request) {
		return func(r *http.Request) { signList(r, testBody, list, testTime, testScope) }
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		kind   string
		text   string // a part of the message
	}{
		// One verifier, one parse; an unknown type is denied.
		"no header":         {func(r *http.Request) { r.Header.Del("Authorization") }, missingToken, textMissing},
		"empty header":      {set("Authorization", " "), missingToken, textMissing},
		"bearer":            {set("Authorization", "Bearer abc"), missingToken, textMissing},
		"basic":             {set("Authorization", "Basic YTpi"), missingToken, textMissing},
		"version 2":         {set("Authorization", "AWS "+testKey+":c2ln"), missingToken, textMissing},
		"version 4a":        {auth("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), incomplete, "Unsupported"},
		"streamed":          {auth("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256-PAYLOAD"), incomplete, "Unsupported"},
		"lower case":        {auth("AWS4-HMAC-SHA256", "aws4-hmac-sha256"), missingToken, textMissing},
		"two headers":       {func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, invalid, "more than one 'Authorization'"},
		"two credentials":   {auth(", Signed", ", Credential=x/20240517/eu-west-1/dynamodb/aws4_request, Signed"), incomplete, "twice"},
		"two signatures":    {auth(", Signature=", ", Signature=x, Signature="), incomplete, "twice"},
		"unknown parameter": {auth(", Signed", ", Extra=1, Signed"), incomplete, "not known"},
		"no credential":     {auth("Credential=", "Credential=, X="), incomplete, "not known"},
		"nothing":           {set("Authorization", "AWS4-HMAC-SHA256"), incomplete, "requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256"},
		"no signature":      {auth("Signature=", "Signature= "), incomplete, ""},
		"long":              {set("Authorization", "AWS4-"+strings.Repeat("x", 1<<16)), incomplete, "requires 'Credential' parameter"},
		"no equal sign":     {auth(", Signed", ", hello, Signed"), incomplete, "'hello' not a valid key=value pair (missing equal-sign) in Authorization header: 'AWS4-HMAC-SHA256 "},
		"nothing at all": {func(r *http.Request) { r.Header.Set("Authorization", "AWS4-"); r.Header.Del("X-Amz-Date") }, incomplete,
			"Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4-"},

		// What must be signed.
		"host not signed":     {listed("content-type;x-amz-date;x-amz-target"), invalid, "'Host' or ':authority' must be a 'SignedHeader'"},
		"date not signed":     {listed("content-type;host;x-amz-target"), invalid, "'X-Amz-Date' must be a 'SignedHeader'"},
		"target not signed":   {listed("content-type;host;x-amz-date"), invalid, "'X-Amz-Target' must be a 'SignedHeader'"},
		"token not signed":    {set("X-Amz-Security-Token", "t"), invalid, "'X-Amz-Security-Token' must be a 'SignedHeader'"},
		"any not signed":      {set("X-Amz-Anything", "t"), invalid, "'X-Amz-Anything' must be a 'SignedHeader'"},
		"two dates":           {func(r *http.Request) { r.Header.Add("X-Amz-Date", testTime) }, invalid, "more than one 'X-Amz-Date'"},
		"two targets":         {func(r *http.Request) { r.Header.Add("X-Amz-Target", "DynamoDB_20120810.DeleteTable") }, invalid, "more than one 'X-Amz-Target'"},
		"another spelling":    {func(r *http.Request) { r.Header["x-amz-target"] = []string{"DynamoDB_20120810.DeleteTable"} }, invalid, "more than one"},
		"no list":             {auth("SignedHeaders="+botoList, "SignedHeaders=;"), invalid, "'SignedHeaders' must be"},
		"unsorted list":       {listed("host;content-type;x-amz-date;x-amz-target"), invalid, "'SignedHeaders' must be"},
		"upper-case list":     {auth("host;", "Host;"), invalid, "'SignedHeaders' must be"},
		"name twice in list":  {listed("content-type;host;host;x-amz-date;x-amz-target"), invalid, "'SignedHeaders' must be"},
		"list ends empty":     {auth("x-amz-target,", "x-amz-target;,"), invalid, "'SignedHeaders' must be"},
		"pseudo-header":       {auth("host;", ":authority;"), invalid, "'SignedHeaders' must be"},
		"header not there":    {auth("x-amz-target,", "x-amz-target;z,"), invalid, "not a header of the request"},
		"removed header":      {func(r *http.Request) { r.Header.Del("Content-Type") }, invalid, "not a header of the request"},
		"repeated header":     {func(r *http.Request) { r.Header.Add("Content-Type", "text/plain") }, invalid, textMismatch},
		"changed header":      {set("Content-Type", "text/plain"), invalid, textMismatch},
		"changed target":      {set("X-Amz-Target", "DynamoDB_20120810.DeleteTable"), invalid, textMismatch},
		"changed date":        {set("X-Amz-Date", "20240517T235951Z"), invalid, textMismatch},
		"line end in a value": {set("Content-Type", "application/x-amz-json-1.0\nx-amz-date:x"), invalid, "not a header of the request"},
		"tab in a value":      {set("Content-Type", "application/x-amz-json-1.0\tx"), invalid, textMismatch},

		// The body is hashed, whatever the client says.
		"unsigned payload":  {set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), invalid, "must be a 'SignedHeader'"},
		"unsigned, signed":  {func(r *http.Request) { payload(r, "UNSIGNED-PAYLOAD") }, invalid, textPayloadHash},
		"streaming":         {func(r *http.Request) { payload(r, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD") }, invalid, textPayloadHash},
		"streaming trailer": {func(r *http.Request) { payload(r, "STREAMING-UNSIGNED-PAYLOAD-TRAILER") }, invalid, textPayloadHash},
		"another body's":    {func(r *http.Request) { payload(r, sum) }, invalid, textPayloadHash},
		"empty hash":        {func(r *http.Request) { payload(r, "") }, invalid, textPayloadHash},

		// The date.
		"no date": {func(r *http.Request) { r.Header.Del("X-Amz-Date") }, incomplete, "requires existence of either a 'X-Amz-Date' or a 'Date' header"},
		"only Date": {func(r *http.Request) {
			r.Header.Del("X-Amz-Date")
			r.Header.Set("Date", testNow.Format(http.TimeFormat))
		}, incomplete, "X-Amz-Date"},
		"milliseconds":   {dated("20240517T235950.123Z"), incomplete, "'basic format'. Got '20240517T235950.123Z'"},
		"extended form":  {dated("2024-05-17T23:59:50Z"), incomplete, "'basic format'"},
		"with an offset": {dated("20240517T235950+0000"), incomplete, "'basic format'"},
		"month 13":       {dated("20241317T235950Z"), incomplete, "'basic format'"},
		"second 60":      {dated("20240517T235960Z"), incomplete, "'basic format'"},
		"no date at all": {dated("now"), incomplete, "'basic format'"},
		"expired":        {dated("20240517T234449Z"), invalid, "Signature expired: 20240517T234449Z is now earlier than 20240517T234450Z (20240517T235950Z - 15 min.)"},
		"years ago":      {dated("19700101T000000Z"), invalid, "Signature expired"},
		"not yet":        {dated("20240518T001451Z"), invalid, "Signature not yet current: 20240518T001451Z is still later than 20240518T001450Z (20240517T235950Z + 15 min.)"},

		// The scope.
		"scope of tomorrow": {func(r *http.Request) {
			signList(r, testBody, botoList, testTime, "20240518/eu-west-1/dynamodb/aws4_request")
		}, invalid, "'20240518' != '20240517', from '20240517T235950Z'"},
		"past midnight":   {func(r *http.Request) { signList(r, testBody, botoList, "20240518T000001Z", testScope) }, invalid, "'20240517' != '20240518'"},
		"another region":  {scoped("20240517/us-east-1/dynamodb/aws4_request"), invalid, "valid region, not 'us-east-1'"},
		"no region":       {scoped("20240517//dynamodb/aws4_request"), invalid, "valid region, not ''"},
		"another service": {scoped("20240517/eu-west-1/s3/aws4_request"), invalid, "correct service: 'dynamodb'"},
		"case of service": {scoped("20240517/eu-west-1/DynamoDB/aws4_request"), invalid, "correct service"},
		"another end":     {scoped("20240517/eu-west-1/dynamodb/aws5_request"), invalid, "valid terminator: 'aws4_request', not 'aws5_request'"},
		"four parts":      {scoped("20240517/eu-west-1/dynamodb"), incomplete, "exactly 5"},
		"six parts":       {scoped("20240517/eu-west-1/dynamodb/aws4_request/x"), incomplete, "exactly 5"},
		"no key":          {auth("Credential="+testKey, "Credential="), incomplete, "exactly 5"},

		// The key and the signature.
		"unknown key":     {auth("Credential="+testKey, "Credential=AKIDANOTHER"), unrecognized, textBadToken},
		"one digit":       {func(r *http.Request) { flipLast(r) }, invalid, textMismatch},
		"short signature": {func(r *http.Request) { h := r.Header.Get("Authorization"); r.Header.Set("Authorization", h[:len(h)-1]) }, invalid, textMismatch},
		"long signature":  {func(r *http.Request) { r.Header.Set("Authorization", r.Header.Get("Authorization")+"0") }, invalid, textMismatch},
		"case of digits": {func(r *http.Request) {
			list, sig, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
			r.Header.Set("Authorization", list+"Signature="+strings.ToUpper(sig))
		}, invalid, textMismatch},

		// Presigned URLs are off, and never go with a header.
		"both forms":    {query("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"), invalid, "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization'"},
		"both, escaped": {query("%58-amz-signature=00"), invalid, "Found both"},
		"presigned": {func(r *http.Request) {
			r.Header.Del("Authorization")
			query("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-SignedHeaders=host&X-Amz-Signature=00")(r)
		}, missingToken, "Presigned"},
		"presigned, later": {func(r *http.Request) { r.Header.Del("Authorization"); query("a=b&x-amz-credential=00")(r) }, incomplete,
			"AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include 'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-Signature'. AWS query-string parameters must include 'X-Amz-SignedHeaders'. AWS query-string parameters must include 'X-Amz-Date'. Re-examine the query-string parameters."},
		"token as a query":  {query("X-Amz-Security-Token=t"), invalid, "Found both"},
		"expires is absurd": {query("X-Amz-Expires=99999999"), invalid, "Found both"},

		// Canonicalisation.
		"another method":    {func(r *http.Request) { r.Method = http.MethodPut }, invalid, textMismatch},
		"another path":      {func(r *http.Request) { r.URL.Path = "/x" }, invalid, textMismatch},
		"double slash":      {func(r *http.Request) { r.URL.Path = "//" }, invalid, "segments"},
		"slash twice":       {func(r *http.Request) { r.URL.Path = "/a//b" }, invalid, "segments"},
		"relative path":     {func(r *http.Request) { r.URL.Path = "/x/.." }, invalid, "segments"},
		"dot":               {func(r *http.Request) { r.URL.Path = "/." }, invalid, "segments"},
		"escaped slash":     {func(r *http.Request) { r.URL.Path, r.URL.RawPath = "//", "/%2F" }, invalid, textMismatch},
		"a query":           {query("a=b"), invalid, textMismatch},
		"plus in query":     {query("a=b+c"), invalid, "percent-encoded"},
		"semicolon":         {query("a=b;c=d"), invalid, "percent-encoded"},
		"half an escape":    {query("a=%2"), invalid, "percent-encoded"},
		"no escape":         {query("a=%zz"), invalid, "percent-encoded"},
		"empty parameter":   {query("&"), invalid, "percent-encoded"},
		"another host":      {func(r *http.Request) { r.Host = "other.example:8000" }, invalid, textMismatch},
		"another port":      {func(r *http.Request) { r.Host = "db.example:8001" }, invalid, textMismatch},
		"no port":           {func(r *http.Request) { r.Host = "db.example" }, invalid, textMismatch},
		"dot after host":    {func(r *http.Request) { r.Host = "db.example.:8000" }, invalid, textMismatch},
		"line end in host":  {func(r *http.Request) { r.Host = "db.example:8000\nx" }, invalid, "not a header of the request"},
		"content-length 0":  {func(r *http.Request) { r.ContentLength = 0; auth("content-type;", "content-length;content-type;")(r) }, invalid, "not a header of the request"},
		"changed length":    {func(r *http.Request) { auth("content-type;", "content-length;content-type;")(r) }, invalid, textMismatch},
		"token of nobody's": {func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t"); resign(r) }, unrecognized, textBadToken},
	} {
		r := signed()
		c.change(r)
		id, err := newVerifier().Verify(r, []byte(testBody))
		var e *Error
		if !errors.As(err, &e) || e.Type != c.kind || !strings.Contains(e.Message, c.text) || id != (Identity{}) {
			t.Errorf("%s: got %+v, %v; want %s: …%s…", name, id, err, c.kind, c.text)
		} else if len(e.Message) > 2048 {
			t.Errorf("%s: %d bytes of message", name, len(e.Message))
		}
	}
}

func query(q string) func(*http.Request) {
	return func(r *http.Request) { r.URL.RawQuery = q }
}

func resign(r *http.Request) {
	if err := Sign(r, []byte(testBody), testKey, testSecret, testRegion, testNow); err != nil {
		panic(err)
	}
}

// payload signs r with a statement of the payload's hash.
func payload(r *http.Request, hash string) {
	r.Header.Set("X-Amz-Content-Sha256", hash)
	resign(r)
}

func flipLast(r *http.Request) {
	h := []byte(r.Header.Get("Authorization"))
	h[len(h)-1] = "10"[h[len(h)-1]&1]
	r.Header.Set("Authorization", string(h))
}

func TestChangedBodyIsRefused(t *testing.T) {
	sum := sha256.Sum256([]byte(testBody))
	for _, body := range []string{"", testBody + " ", testBody[1:], strings.Replace(testBody, "Music", "music", 1)} {
		var e *Error
		claimed := signed()
		payload(claimed, hex.EncodeToString(sum[:]))
		if _, err := newVerifier().Verify(claimed, []byte(body)); !errors.As(err, &e) || e.Message != textPayloadHash {
			t.Errorf("%q, signed with the hash of the body it was: %v", body, err)
		}
		if _, err := newVerifier().Verify(signed(), []byte(body)); !errors.As(err, &e) || !strings.HasPrefix(e.Message, textMismatch) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestTimesAtTheEdgeAreTaken(t *testing.T) {
	for _, at := range []time.Time{testNow.Add(-15 * time.Minute), testNow.Add(15 * time.Minute)} {
		r := newRequest()
		if err := Sign(r, []byte(testBody), testKey, testSecret, testRegion, at); err != nil {
			t.Fatal(err)
		}
		if _, err := newVerifier().Verify(r, []byte(testBody)); err != nil {
			t.Error(err)
		}
		v := newVerifier()
		v.Skew = time.Minute
		if _, err := v.Verify(r, []byte(testBody)); err == nil {
			t.Error("taken with a smaller window")
		}
	}
}

func TestTimesAreReadAsTheStandardLibraryReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9]{4}([01][0-9]|[0-9]{2})[0-3][0-9]T[0-2][0-9][0-6][0-9][0-6][0-9]Z`).Draw(t, "s")
		want, err := time.Parse(timeFormat, s)
		if got, ok := parseTime(s); ok != (err == nil) || ok && !got.Equal(want) {
			t.Fatalf("%s: got %v, %v; want %v, %v", s, got, ok, want, err)
		}
	})
}

func TestAnyRegionIsTakenWhenNoneIsNamed(t *testing.T) {
	v := newVerifier()
	v.Region = ""
	for _, region := range []string{"us-east-1", "anywhere"} {
		r := newRequest()
		if err := Sign(r, []byte(testBody), testKey, testSecret, region, testNow); err != nil {
			t.Fatal(err)
		}
		if id, err := v.Verify(r, []byte(testBody)); err != nil || id.Region != region {
			t.Errorf("%s: %+v, %v", region, id, err)
		}
	}
}

func TestTokenMustBelongToTheKey(t *testing.T) {
	v := newVerifier()
	v.Token = func(id, token string) bool { return id == testKey && token == "right" }
	for token, taken := range map[string]bool{"right": true, "wrong": false, "": false} {
		r := newRequest()
		if token != "" {
			r.Header.Set("X-Amz-Security-Token", token)
		}
		resign(r)
		_, err := v.Verify(r, []byte(testBody))
		if (err == nil) != taken {
			t.Errorf("%q: %v", token, err)
		}
	}
}

// See docs/decisions/0011.
func TestAnUnknownKeyIsToldAfterTheWorkOfAKnownOne(t *testing.T) {
	v := newVerifier()
	unknown, empty := signed(), newRequest()
	unknown.Header.Set("Authorization", strings.Replace(unknown.Header.Get("Authorization"), testKey, "AKIDUNKNOWN", 1))
	// The secret that stands in for the one that an unknown key has not: knowing it must not help.
	if err := Sign(empty, []byte(testBody), "AKIDUNKNOWN", "", testRegion, testNow); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{unknown, empty} {
		if _, err := v.Verify(r, []byte(testBody)); fmt.Sprint(err) != "sigv4: UnrecognizedClientException: The security token included in the request is invalid." {
			t.Errorf("got %v", err)
		}
		if err := v.Admit(r); fmt.Sprint(err) != "sigv4: UnrecognizedClientException: The security token included in the request is invalid." {
			t.Errorf("before its body: %v", err)
		}
	}
	if len(v.keys.keys) != 1 {
		t.Errorf("%d keys are cached, want the one that stands for all unknown ones", len(v.keys.keys))
	}
}

func TestAWrongSignatureIsToldWhatShouldHaveBeenSigned(t *testing.T) {
	r := signed()
	flipLast(r)
	_, err := newVerifier().Verify(r, []byte(testBody))
	const want = `The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.

The Canonical String for this request should have been
'POST
/

content-type:application/x-amz-json-1.0
host:db.example:8000
x-amz-date:20240517T235950Z
x-amz-target:DynamoDB_20120810.GetItem

content-type;host;x-amz-date;x-amz-target
7cc713acb60a6aafe02b440c725d0408891f36667c2d98234ec461d8dae23eb7'

The String-to-Sign should have been
'AWS4-HMAC-SHA256
20240517T235950Z
20240517/eu-west-1/dynamodb/aws4_request
f15083a5b9c7aaacd31cc293669dcc75118699fcc01afaea9b03edf45a88f50e'
`
	var e *Error
	if !errors.As(err, &e) || e.Type != invalid || e.Message != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestWhatNoBodyCouldMakeGoodIsNotAdmitted(t *testing.T) {
	v := newVerifier()
	if err := v.Admit(signed()); err != nil {
		t.Error(err)
	}
	for name, r := range map[string]*http.Request{"unsigned": newRequest(), "old": signed()} {
		if name == "old" {
			v.Now = func() time.Time { return testNow.Add(time.Hour) }
		}
		if v.Admit(r) == nil {
			t.Errorf("%s: admitted", name)
		}
	}
}

func TestRevokedAndRotatedKeysStopAtOnce(t *testing.T) {
	v := newVerifier()
	secret, ok := testSecret, true
	v.Lookup = func(string) (string, bool) { return secret, ok }
	verify := func(r *http.Request) error {
		_, err := v.Verify(r, []byte(testBody))
		return err
	}
	if err := verify(signed()); err != nil {
		t.Fatal(err)
	}
	secret = "rotated"
	if verify(signed()) == nil {
		t.Error("the old secret is taken")
	}
	r := newRequest()
	if err := Sign(r, []byte(testBody), testKey, secret, testRegion, testNow); err != nil {
		t.Fatal(err)
	}
	if err := verify(r); err != nil {
		t.Error(err)
	}
	ok = false
	if verify(r) == nil {
		t.Error("a revoked key is taken")
	}
}

func TestCacheIsBounded(t *testing.T) {
	var c keyCache
	for i := range maxKeys + 10 {
		// The cache must not grow; what it derives does not matter here.
		c.keys = put(c.keys, fmt.Sprint(i))
	}
	c.get("k", "s", "20240517", "r")
	if len(c.keys) > maxKeys {
		t.Errorf("%d keys", len(c.keys))
	}
}

func put(m map[keyName]*signingKey, id string) map[keyName]*signingKey {
	if m == nil {
		m = make(map[keyName]*signingKey)
	}
	m[keyName{accessKeyID: id}] = nil
	return m
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	v := newVerifier()
	done := make(chan error)
	const many = 8
	for i := range many {
		go func() {
			var err error
			for range 50 {
				r := signed()
				if i%2 == 1 {
					flipLast(r)
				}
				if _, e := v.Verify(r, []byte(testBody)); (e == nil) != (i%2 == 0) {
					err = fmt.Errorf("goroutine %d: %v", i, e)
				}
			}
			done <- err
		}()
	}
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// sdkSigned draws a request and has the SDK's signer sign it.
func sdkSigned(t *rapid.T) (r *http.Request, body string, region string) {
	word := rapid.StringMatching(`[A-Za-z0-9 %/+=~._é'-]{1,12}`)
	u := url.URL{Scheme: "http", Host: rapid.StringMatching(`[a-z0-9.-]{1,20}(:[1-9][0-9]{0,3})?`).Draw(t, "host"), Path: "/"}
	if rapid.Bool().Draw(t, "has a path") {
		u.Path += strings.Join(rapid.SliceOfN(rapid.StringMatching(`[A-Za-z0-9 %+=~_é'-]{1,8}`), 0, 3).Draw(t, "path"), "/")
	}
	if rapid.Bool().Draw(t, "has a query") {
		values := url.Values{}
		for _, name := range rapid.SliceOfN(word, 1, 4).Draw(t, "names") {
			values[name] = rapid.SliceOfN(word, 1, 3).Draw(t, "values")
		}
		u.RawQuery = values.Encode()
	}
	body = rapid.String().Draw(t, "body")
	r, err := http.NewRequest(rapid.SampledFrom([]string{"POST", "GET", "PUT"}).Draw(t, "method"), u.String(), strings.NewReader(body))
	if err != nil {
		t.Skip(err)
	}
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+rapid.StringMatching(`[A-Z][A-Za-z]{1,20}`).Draw(t, "target"))
	for range rapid.IntRange(0, 4).Draw(t, "headers") {
		name := rapid.SampledFrom([]string{"Content-Type", "Accept", "Amz-Sdk-Request", "X-Amz-Meta", "X-Custom", "Cache-Control"}).Draw(t, "header")
		r.Header.Set(name, rapid.StringMatching(`[!-~]([ -~]{0,20}[!-~])?`).Draw(t, "value"))
	}
	if rapid.Bool().Draw(t, "two values") {
		r.Header["X-Custom"] = []string{"b  b", "a"}
	}
	sum := sha256.Sum256([]byte(body))
	if rapid.Bool().Draw(t, "states its hash") {
		r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	}
	region = rapid.StringMatching(`[a-z]{2}-[a-z]{4,9}-[1-9]`).Draw(t, "region")
	at := testNow.Add(time.Duration(rapid.Int64Range(-900, 900).Draw(t, "seconds")) * time.Second)
	keys := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret, SessionToken: rapid.SampledFrom([]string{"", "tok/en+=="}).Draw(t, "token")}
	if err := v4.NewSigner().SignHTTP(context.Background(), keys, r, hex.EncodeToString(sum[:]), service, region, at); err != nil {
		t.Fatal(err)
	}
	return r, body, region
}

func anyRegion() *Verifier {
	v := newVerifier()
	v.Region = ""
	v.Token = func(_, token string) bool { return token == "" || token == "tok/en+==" }
	return v
}

// The differential tests are these two, against the SDK's own signer: more of them with -rapid.checks=1000000, or
// by the fuzzer.
func TestWhatTheSDKSignsIsTaken(t *testing.T) { rapid.Check(t, sdkIsTaken(anyRegion())) }

func TestNothingElseThanWhatTheSDKSignedIsTaken(t *testing.T) {
	rapid.Check(t, nothingElseIsTaken(anyRegion()))
}

func FuzzSDKIsTaken(f *testing.F) { f.Fuzz(rapid.MakeFuzz(sdkIsTaken(anyRegion()))) }

func FuzzNothingElseIsTaken(f *testing.F) { f.Fuzz(rapid.MakeFuzz(nothingElseIsTaken(anyRegion()))) }

func sdkIsTaken(v *Verifier) func(*rapid.T) {
	return func(t *rapid.T) {
		r, body, region := sdkSigned(t)
		got := received(t, r)
		id, err := v.Verify(got, []byte(body))
		if err != nil || id != (Identity{testKey, region}) {
			t.Fatalf("%s %s %v: %+v, %v", got.Method, got.RequestURI, got.Header, id, err)
		}
	}
}

func nothingElseIsTaken(v *Verifier) func(*rapid.T) {
	return func(t *rapid.T) {
		r, body, _ := sdkSigned(t)
		got := received(t, r)
		switch rapid.IntRange(0, 6).Draw(t, "what") {
		case 0:
			body += rapid.StringN(1, 5, 20).Draw(t, "more body")
		case 1:
			name := rapid.SampledFrom([]string{"X-Amz-Target", "X-Amz-Date"}).Draw(t, "changed")
			got.Header.Set(name, got.Header.Get(name)+"x")
		case 2:
			got.Host += "x"
		case 3:
			got.URL.Path += "x"
			got.URL.RawPath = ""
		case 4:
			got.URL.RawQuery += "&more=x"
		case 5:
			got.Method += "X"
		case 6:
			flipLast(got)
		}
		if id, err := v.Verify(got, []byte(body)); err == nil || id != (Identity{}) {
			t.Fatalf("%s %s %v: taken", got.Method, got.URL, got.Header)
		}
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	r := newRequest()
	r.Header.Add("X-Amz-Target", "second")
	var e *Error
	if err := Sign(r, nil, testKey, testSecret, testRegion, testNow); !errors.As(err, &e) {
		t.Errorf("two targets: %v", err)
	}
	r = newRequest()
	r.URL.Path = "/a//b"
	if err := Sign(r, nil, testKey, testSecret, testRegion, testNow); !errors.As(err, &e) {
		t.Errorf("an empty segment: %v", err)
	}
}

// FuzzVerify changes parts of a good request: none of the changes panics, and what is still taken is the
// same request.
func FuzzVerify(f *testing.F) {
	good := signed()
	f.Add(good.Header.Get("Authorization"), "POST", "/", "", "db.example:8000", "X-Amz-Target", "DynamoDB_20120810.GetItem", testBody)
	f.Add(good.Header.Get("Authorization"), "POST", "/%2F", "a=%20&b", "DB.example:8000", "X-Amz-Date", testTime, testBody)
	f.Add("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240517/eu-west-1/dynamodb/aws4_request,SignedHeaders=host,Signature=0", "GET", "//a/../", "X-Amz-Signature=1", "", "Content-Type", "", "")
	v := newVerifier()
	f.Fuzz(func(t *testing.T, auth, method, path, query, host, name, value, body string) {
		r := signed()
		r.Header.Set("Authorization", auth)
		r.Method, r.Host, r.URL.RawQuery = method, host, query
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		r.URL.Path, r.URL.RawPath = u.Path, u.RawPath
		old := r.Header.Get(name)
		r.Header.Set(name, value)
		if _, err := v.Verify(r, []byte(body)); err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Type == "" || e.Message == "" {
				t.Fatalf("not an answer: %#v", err)
			}
			return
		}
		if hasPrefixFold(name, "Authorization") {
			return
		}
		spaceless := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		if method != "POST" || u.Path != "/" && u.Path != "" || query != "" || spaceless(host) != "db.example:8000" && host != "" || body != testBody ||
			isSigned(botoList, http.CanonicalHeaderKey(name)) && spaceless(value) != spaceless(old) {
			t.Fatalf("taken: %q %q %q %q %q %q", method, path, query, host, name, value)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := []byte(strings.Repeat("x", 1024))
	r := newRequest()
	if err := Sign(r, body, testKey, testSecret, testRegion, testNow); err != nil {
		b.Fatal(err)
	}
	v := newVerifier()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r, body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSHA256 is the part of BenchmarkVerify that nothing can make shorter.
func BenchmarkSHA256(b *testing.B) {
	body := []byte(strings.Repeat("x", 1024))
	for b.Loop() {
		sha256.Sum256(body)
	}
}
