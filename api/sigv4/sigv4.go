// Package sigv4 owns who sent a request: it verifies Signature Version 4 of AWS on requests of the service
// dynamodb, and signs requests for our own tools and tests.
//
// It leaves to its callers where secrets are kept (Lookup), what a key may do (api/iam), how large a body
// may be, and how an Error is answered. It does not stop a request from being sent a second time within
// the window of time, as the service does not: TLS is the defence.
//
// Invariants: nothing is accepted but one Authorization header of the one algorithm, whose scope is ours
// and of the day of X-Amz-Date. That signature covers the method, the path, the query, the host, the
// SHA-256 of the body as it was received, and every header whose name begins X-Amz-, but one (see
// unsigned). What was signed and who signed it come from the same parse. Presigned URLs and unsigned or
// streamed payloads are refused: no client of DynamoDB needs them.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/commutatordb/commutator/internal/mutant"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	service    = "dynamodb"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"

	defaultSkew = 15 * time.Minute
)

// The service's names of errors.
const (
	missingToken    = "MissingAuthenticationTokenException"
	incomplete      = "IncompleteSignatureException"
	invalid         = "InvalidSignatureException"
	unrecognized    = "UnrecognizedClientException"
	textMismatch    = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	textBadToken    = "The security token included in the request is invalid."
	textMissing     = "Request is missing Authentication Token"
	textPayloadHash = "The value of 'X-Amz-Content-SHA256' must be the SHA-256 of the request's body."
)

// Error says why a request was refused, in the service's words.
type Error struct {
	Type    string // such as InvalidSignatureException
	Message string

	// AccessKeyID is the key whose secret the signature was not made with, if there is such a key.
	AccessKeyID string
}

func (e *Error) Error() string { return "sigv4: " + e.Type + ": " + e.Message }

// Identity is who signed a request.
type Identity struct {
	AccessKeyID string
	Region      string // that the client believes to speak to
}

// Verifier verifies requests. It is safe for concurrent use. Lookup and Now must be set before the first.
type Verifier struct {
	// Region is the only one accepted in a scope. "" accepts any: clients then need not know the region's
	// name, and a signature made for one region serves in another that has the same keys.
	Region string

	// Lookup returns a key's secret. It is asked for every request, so a revoked key stops at once.
	Lookup func(accessKeyID string) (secret string, ok bool)

	// Token tells whether the session token, "" for none, is the one that belongs to the key. nil means
	// that no key has any.
	Token func(accessKeyID, token string) bool

	Now func() time.Time

	// Skew is how far X-Amz-Date may be from Now, either way; 0 means the service's 15 minutes.
	Skew time.Duration

	keys keyCache
}

// Verify returns who signed the request, whose body as it was received (before Content-Encoding is
// undone) is given. Any error is an *Error.
//
// A key that nobody has is refused after the same work as a wrong signature, and as another error, as the
// service does: access key ids are no secrets. See docs/decisions/0011.
func (v *Verifier) Verify(r *http.Request, body []byte) (Identity, error) {
	auth, err := v.read(r)
	if err != nil {
		return Identity{}, err
	}
	w := workPool.Get().(*work)
	defer workPool.Put(w)
	payload := sha256.Sum256(body)
	w.setPayload(payload)
	if mutant.On(mutant.BodyNotHashed) {
		copy(w.payload[:], first(r.Header["X-Amz-Content-Sha256"]))
	}
	if h := r.Header["X-Amz-Content-Sha256"]; len(h) > 0 && h[0] != string(w.payload[:]) {
		return Identity{}, &Error{Type: invalid, Message: textPayloadHash}
	}
	if err := w.setCanonical(r, auth.signedHeaders); err != nil {
		return Identity{}, err
	}

	secret, known := v.Lookup(auth.accessKeyID)
	id := auth.accessKeyID
	if !known {
		id, secret = "", "" // no key has this id, so this entry of the cache is nobody's
	}
	key := v.keys.get(id, secret, auth.date(), auth.region)
	w.sign(key, auth.time, auth.scope)
	equal := hmac.Equal(w.signature[:], []byte(auth.signature))
	switch {
	case !known:
		return Identity{}, &Error{Type: unrecognized, Message: textBadToken}
	case !equal:
		return Identity{}, w.mismatch(r, auth)
	}

	token := first(r.Header["X-Amz-Security-Token"])
	if v.Token == nil && token != "" || v.Token != nil && !v.Token(auth.accessKeyID, token) {
		return Identity{}, &Error{Type: unrecognized, Message: textBadToken}
	}
	return Identity{AccessKeyID: auth.accessKeyID, Region: auth.region}, nil
}

// Admit returns an error, an *Error, for a request that Verify would refuse whatever its body is, for its
// headers or for a key that nobody has. It is asked before a large body is taken in.
func (v *Verifier) Admit(r *http.Request) error {
	auth, err := v.read(r)
	if err != nil {
		return err
	}
	if _, known := v.Lookup(auth.accessKeyID); !known {
		return &Error{Type: unrecognized, Message: textBadToken}
	}
	return nil
}

// read returns what the request says of its signature, once that is as it has to be.
func (v *Verifier) read(r *http.Request) (*authorization, error) {
	auth, err := parseAuthorization(r)
	if err != nil {
		return nil, err
	}
	if err := v.checkTime(auth, r.Header["X-Amz-Date"]); err != nil {
		return nil, err
	}
	if err := v.checkScope(auth); err != nil {
		return nil, err
	}
	return auth, checkHeaders(r, auth.signedHeaders)
}

// mismatch is the answer to a wrong signature: what has been signed here, for people to compare with what
// their client has signed. It holds nothing but what the client has sent.
func (w *work) mismatch(r *http.Request, auth *authorization) error {
	toSign := string(w.text)
	if err := w.setCanonical(r, auth.signedHeaders); err != nil {
		return err
	}
	return &Error{AccessKeyID: auth.accessKeyID, Type: invalid, Message: fmt.Sprintf("%s\n\nThe Canonical String for this request should have been\n'%s'\n\nThe String-to-Sign should have been\n'%s'\n", textMismatch, w.text, toSign)}
}

// checkTime sets auth.time from the values of X-Amz-Date: one time in ISO 8601's basic form, in UTC and
// whole seconds, near Now.
func (v *Verifier) checkTime(auth *authorization, values []string) error {
	if len(values) != 1 {
		return &Error{Type: invalid, Message: "Found more than one 'X-Amz-Date' HTTP header."}
	}
	auth.time = values[0]
	t, ok := parseTime(auth.time)
	if !ok {
		return &Error{Type: incomplete, Message: "Date must be in ISO-8601 'basic format'. Got '" + shortened(auth.time) + "'. See http://en.wikipedia.org/wiki/ISO_8601"}
	}
	skew := v.Skew
	if skew == 0 {
		skew = defaultSkew
	}
	now := v.Now().UTC()
	switch d := now.Sub(t); {
	case d > skew:
		return &Error{Type: invalid, Message: fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - %d min.)",
			auth.time, now.Add(-skew).Format(timeFormat), now.Format(timeFormat), skew/time.Minute)}
	case d < -skew:
		return &Error{Type: invalid, Message: fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + %d min.)",
			auth.time, now.Add(skew).Format(timeFormat), now.Format(timeFormat), skew/time.Minute)}
	}
	return nil
}

// parseTime reads a time as timeFormat writes it, and nothing else: time.Parse would take a fraction of a
// second too, and longer.
func parseTime(s string) (t time.Time, ok bool) {
	if len(s) != len(timeFormat) || s[8] != 'T' || s[15] != 'Z' {
		return t, false
	}
	var parts [7]int // the century, the year in it, month, day, hour, minute, second
	for i := range parts {
		at := 2 * i
		if i >= 4 {
			at++ // behind the T
		}
		tens, ones := s[at]-'0', s[at+1]-'0'
		if tens > 9 || ones > 9 {
			return t, false
		}
		parts[i] = int(tens)*10 + int(ones)
	}
	t = time.Date(parts[0]*100+parts[1], time.Month(parts[2]), parts[3], parts[4], parts[5], parts[6], 0, time.UTC)
	// Date makes another time of what is none, such as the 31st of June.
	_, month, day := t.Date()
	hour, minute, second := t.Clock()
	return t, [5]int{int(month), day, hour, minute, second} == [5]int(parts[2:])
}

// checkScope wants the scope to be of the day of X-Amz-Date, even when midnight is seconds away.
func (v *Verifier) checkScope(auth *authorization) error {
	switch {
	case v.Region != "" && auth.region != v.Region || auth.region == "":
		return &Error{Type: invalid, Message: "Credential should be scoped to a valid region, not '" + shortened(auth.region) + "'. "}
	case auth.service != service:
		return &Error{Type: invalid, Message: "Credential should be scoped to correct service: '" + service + "'. "}
	case auth.terminator != terminator:
		return &Error{Type: invalid, Message: "Credential should be scoped with a valid terminator: '" + terminator + "', not '" + shortened(auth.terminator) + "'. "}
	case auth.scopeDate != auth.date():
		return &Error{Type: invalid, Message: "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" +
			shortened(auth.scopeDate) + "' != '" + auth.date() + "', from '" + auth.time + "'."}
	}
	return nil
}

// authorization is an Authorization header, taken apart. Its strings are parts of the header's.
type authorization struct {
	accessKeyID string

	scope                                  string // the four that follow, as they stand in the header
	scopeDate, region, service, terminator string

	signedHeaders string // lower case, sorted, separated by semicolons
	signature     string // lower-case hex

	time string // X-Amz-Date; set by checkTime
}

// date is the day of X-Amz-Date, as a scope writes it.
func (a *authorization) date() string { return a.time[:len("20060102")] }

func parseAuthorization(r *http.Request) (*authorization, error) {
	headers := r.Header["Authorization"]
	if presigned(r.URL.RawQuery) {
		if len(headers) > 0 {
			return nil, &Error{Type: invalid, Message: "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."}
		}
		return nil, refusePresigned(r.URL.RawQuery)
	}
	if len(headers) == 0 || !strings.HasPrefix(headers[0], "AWS4-") {
		return nil, &Error{Type: missingToken, Message: textMissing}
	}
	if len(headers) > 1 {
		return nil, &Error{Type: invalid, Message: "Found more than one 'Authorization' HTTP header."}
	}
	name, rest, _ := strings.Cut(strings.TrimSpace(headers[0]), " ")
	a := new(authorization)
	var credential string
	if err := a.parseParameters(rest, &credential); err != nil {
		return nil, err
	}
	var text string
	for _, p := range []struct{ name, value string }{{"Credential", credential}, {"Signature", a.signature}, {"SignedHeaders", a.signedHeaders}} {
		if p.value == "" {
			text += "Authorization header requires '" + p.name + "' parameter. "
		}
	}
	if r.Header["X-Amz-Date"] == nil {
		text += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
	}
	switch {
	case text != "":
		return nil, &Error{Type: incomplete, Message: text + "Authorization=" + shortened(headers[0])}
	case name != algorithm:
		return nil, &Error{Type: incomplete, Message: "Unsupported AWS 'algorithm': '" + shortened(name) + "' (only " + algorithm + " for now). "}
	case !a.parseCredential(credential):
		return nil, &Error{Type: incomplete, Message: "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '" + shortened(credential) + "'"}
	}
	return a, nil
}

// refusePresigned is the answer to a query with parameters of a presigned URL: what it lacks, or that it is not
// taken.
func refusePresigned(query string) error {
	var text string
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if !strings.Contains("&"+query, "&"+name+"=") {
			text += "AWS query-string parameters must include '" + name + "'. "
		}
	}
	if text != "" {
		return &Error{Type: incomplete, Message: text + "Re-examine the query-string parameters."}
	}
	return &Error{Type: missingToken, Message: "Presigned requests are not accepted. Sign with the Authorization header."}
}

// presigned tells whether the query has a parameter of a presigned URL.
func presigned(query string) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, _, _ := strings.Cut(pair, "=")
		if plain, ok := unescape(nil, name); ok && hasPrefixFold(string(plain), "X-Amz-") {
			return true
		}
	}
	return false
}

// parseParameters reads name=value, separated by commas, spaces or both, each of the three names once.
func (a *authorization) parseParameters(s string, credential *string) error {
	for i := 0; i < len(s); {
		if s[i] == ',' || s[i] == ' ' {
			i++
			continue
		}
		start := i
		for i < len(s) && s[i] != ',' && s[i] != ' ' {
			i++
		}
		pair := s[start:i]
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return &Error{Type: incomplete, Message: "'" + shortened(pair) + "' not a valid key=value pair (missing equal-sign) in Authorization header: '" + algorithm + " " + shortened(s) + "'."}
		}
		var field *string
		switch name {
		case "Credential":
			field = credential
		case "SignedHeaders":
			field = &a.signedHeaders
		case "Signature":
			field = &a.signature
		}
		if field == nil || *field != "" {
			return &Error{Type: incomplete, Message: "Authorization header has a parameter twice, or one that is not known: '" + shortened(name) + "'. Authorization=" + algorithm}
		}
		*field = value
	}
	return nil
}

// parseCredential takes keyid/date/region/service/term apart. ok is false if there are not five parts or
// no key.
func (a *authorization) parseCredential(s string) (ok bool) {
	if strings.Count(s, "/") != 4 {
		return false
	}
	a.accessKeyID, a.scope, _ = strings.Cut(s, "/")
	var rest string
	a.scopeDate, rest, _ = strings.Cut(a.scope, "/")
	a.region, rest, _ = strings.Cut(rest, "/")
	a.service, a.terminator, _ = strings.Cut(rest, "/")
	return a.accessKeyID != ""
}

// unsigned is the one X-Amz- header that need not be signed: the name of the client's software, which some
// signers of AWS list among the headers that they leave out. Nothing is decided by it. (User-Agent,
// X-Amzn-Trace-Id, Amz-Sdk-Request and Amz-Sdk-Invocation-Id, which some SDKs sign and some do not, are no
// X-Amz- headers.)
const unsigned = "X-Amz-User-Agent"

// checkHeaders wants signedHeaders to be lower-case names, sorted and unique, that cover the host and the
// X-Amz- headers of the request, each of which is there once.
func checkHeaders(r *http.Request, signedHeaders string) error {
	last, host := "", false
	for rest := signedHeaders; rest != ""; {
		var name string
		var more bool
		name, rest, more = strings.Cut(rest, ";")
		if !isHeaderName(name) || name <= last || more && rest == "" {
			return &Error{Type: invalid, Message: "'SignedHeaders' must be lower-case names, sorted, each once. Got '" + shortened(signedHeaders) + "'."}
		}
		last = name
		host = host || name == "host"
	}
	if !host {
		return &Error{Type: invalid, Message: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	}
	for name, values := range r.Header {
		if !hasPrefixFold(name, "X-Amz-") {
			continue
		}
		if len(values) != 1 || http.CanonicalHeaderKey(name) != name {
			return &Error{Type: invalid, Message: "Found more than one '" + shortened(name) + "' HTTP header."}
		}
		if name != unsigned && !isSigned(signedHeaders, name) && !(mutant.On(mutant.TargetUnsigned) && name == "X-Amz-Target") {
			return &Error{Type: invalid, Message: "'" + shortened(name) + "' must be a 'SignedHeader' in the AWS Authorization."}
		}
	}
	return nil
}

// isSigned tells whether the list has the header.
func isSigned(signedHeaders, name string) bool {
	for rest := signedHeaders; rest != ""; {
		var signed string
		if signed, rest, _ = strings.Cut(rest, ";"); strings.EqualFold(signed, name) {
			return true
		}
	}
	return false
}

func isHeaderName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return s != ""
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// shortened bounds how much of a client's own text goes into an answer.
func shortened(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// keyCache keeps signing keys, which take four HMACs to derive and change with the day.
type keyCache struct {
	mu   sync.RWMutex
	keys map[keyName]*signingKey // Invariant: at most maxKeys
}

// maxKeys bounds the cache: more pairs of key and region than a day is likely to see. When it is full it
// starts again, which costs a derivation a key. Only where any region is accepted can strangers fill it.
const maxKeys = 4096

type keyName struct{ accessKeyID, date, region string }

// signingKey is an HMAC keyed for one secret, day and region.
type signingKey struct {
	secret string    // that it was derived from: another one, after a rotation, makes it useless
	macs   sync.Pool // of hash.Hash
}

func (c *keyCache) get(accessKeyID, secret, date, region string) *signingKey {
	name := keyName{accessKeyID, date, region}
	c.mu.RLock()
	key := c.keys[name]
	c.mu.RUnlock()
	if key != nil && key.secret == secret {
		return key
	}
	key = newSigningKey(secret, date, region)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil || len(c.keys) >= maxKeys {
		c.keys = make(map[keyName]*signingKey)
	}
	// The parts of a header must not pin all of it.
	c.keys[keyName{strings.Clone(accessKeyID), strings.Clone(date), strings.Clone(region)}] = key
	return key
}

func newSigningKey(secret, date, region string) *signingKey {
	derived := []byte("AWS4" + secret)
	for _, part := range []string{date, region, service, terminator} {
		mac := hmac.New(sha256.New, derived)
		mac.Write([]byte(part))
		derived = mac.Sum(nil)
	}
	key := &signingKey{secret: secret}
	key.macs.New = func() any { return hmac.New(sha256.New, derived) }
	return key
}

// Sign signs the request, whose body is given, for a key, as an SDK would: with X-Amz-Date, over the host,
// Content-Type and every X-Amz- header. Headers must not be added afterwards. An error is an *Error: the
// request is one that Verify would not take from anybody.
func Sign(r *http.Request, body []byte, accessKeyID, secret, region string, now time.Time) error {
	at := now.UTC().Format(timeFormat)
	r.Header.Set("X-Amz-Date", at)
	signedHeaders := headersToSign(r.Header)
	if err := checkHeaders(r, signedHeaders); err != nil {
		return err
	}
	w := workPool.Get().(*work)
	defer workPool.Put(w)
	w.setPayload(sha256.Sum256(body))
	if err := w.setCanonical(r, signedHeaders); err != nil {
		return err
	}
	date := at[:len("20060102")]
	scope := date + "/" + region + "/" + service + "/" + terminator
	w.sign(newSigningKey(secret, date, region), at, scope)
	r.Header.Set("Authorization", algorithm+" Credential="+accessKeyID+"/"+scope+", SignedHeaders="+signedHeaders+", Signature="+string(w.signature[:]))
	return nil
}

// hexed is a SHA-256 in lower-case hex.
type hexed [2 * sha256.Size]byte

func (h *hexed) set(sum [sha256.Size]byte) { hex.Encode(h[:], sum[:]) }
