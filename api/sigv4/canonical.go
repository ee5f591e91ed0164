package sigv4

import (
	"crypto/sha256"
	"hash"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// work is the scratch space of one signature, so that none is allocated.
type work struct {
	payload   hexed  // of the body
	text      []byte // the canonical request; later the string to sign
	signature hexed
	sum       []byte
}

// maxText is how much of a canonical request's space is kept for the next one, in bytes; few are longer.
const maxText = 16 << 10

var workPool = sync.Pool{New: func() any { return new(work) }}

func (w *work) setPayload(sum [sha256.Size]byte) { w.payload.set(sum) }

// setCanonical writes the canonical request:
//
//	method \n path \n query \n (name:value \n)… \n signedHeaders \n payload's hash
//
// Source: AWS, IAM User Guide, "Create a signed AWS API request".
func (w *work) setCanonical(r *http.Request, signedHeaders string) error {
	if cap(w.text) > maxText {
		w.text = nil
	}
	b := append(w.text[:0], r.Method...)
	b = append(b, '\n')
	var ok bool
	if b, ok = appendPath(b, r.URL.EscapedPath()); !ok {
		return &Error{Type: invalid, Message: "The request's path has empty or relative segments, which clients sign in different ways."}
	}
	b = append(b, '\n')
	if b, ok = appendQuery(b, r.URL.RawQuery); !ok {
		return &Error{Type: invalid, Message: "The request's query string is not percent-encoded, so clients sign it in different ways."}
	}
	b = append(b, '\n')
	for rest := signedHeaders; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, ";")
		b = append(append(b, name...), ':')
		if b, ok = appendHeader(b, r, name); !ok {
			return &Error{Type: invalid, Message: "'" + shortened(name) + "' is a 'SignedHeader' in the AWS Authorization and not a header of the request."}
		}
		b = append(b, '\n')
	}
	b = append(append(b, '\n'), signedHeaders...)
	b = append(append(b, '\n'), w.payload[:]...)
	w.text = b
	return nil
}

// sign turns the canonical request into the signature.
func (w *work) sign(key *signingKey, time, scope string) {
	var request hexed
	request.set(sha256.Sum256(w.text))
	b := append(w.text[:0], algorithm...)
	b = append(append(b, '\n'), time...)
	b = append(append(b, '\n'), scope...)
	w.text = append(append(b, '\n'), request[:]...)

	mac := key.macs.Get().(hash.Hash)
	defer key.macs.Put(mac)
	mac.Reset()
	mac.Write(w.text)
	w.sum = mac.Sum(w.sum[:0])
	w.signature.set([sha256.Size]byte(w.sum))
}

// appendPath appends the path, escaped once more than it was sent. Some clients remove empty and relative
// segments before they sign and some do not, so those are refused.
func appendPath(dst []byte, path string) (out []byte, ok bool) {
	if path == "" || path == "/" {
		return append(dst, '/'), true
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(path[1:], "/"), "/") {
		if path[0] != '/' || segment == "" || segment == "." || segment == ".." {
			return dst, false
		}
		dst = appendEscaped(append(dst, '/'), segment)
	}
	if strings.HasSuffix(path, "/") {
		dst = append(dst, '/')
	}
	return dst, true
}

// appendQuery appends the query's parameters, sorted as they are when escaped. It takes only what all
// clients read in one way: no plus signs, no semicolons, no stray percent signs.
func appendQuery(dst []byte, query string) (out []byte, ok bool) {
	if query == "" {
		return dst, true
	}
	var pairs []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		n, ok1 := unescape(nil, name)
		v, ok2 := unescape(nil, value)
		if !ok1 || !ok2 || name == "" {
			return dst, false
		}
		// The byte between them sorts below every escaped one, as the end of a name does.
		pairs = append(pairs, string(appendEscaped(append(appendEscaped(nil, string(n)), 0), string(v))))
	}
	slices.Sort(pairs)
	for i, pair := range pairs {
		if i > 0 {
			dst = append(dst, '&')
		}
		dst = append(dst, strings.Replace(pair, "\x00", "=", 1)...)
	}
	return dst, true
}

// unescape appends s with its percent escapes undone.
func unescape(dst []byte, s string) (out []byte, ok bool) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+3 > len(s) {
				return dst, false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return dst, false
			}
			c = byte(n)
			i += 2
		case c == '+' || c == ';':
			return dst, false
		}
		dst = append(dst, c)
	}
	return dst, true
}

// appendEscaped appends s with all but RFC 3986's unreserved characters as percent escapes.
func appendEscaped(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
			dst = append(dst, c)
		default:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// canonicalNames has the forms in which net/http keeps the headers that SDKs sign; http.CanonicalHeaderKey
// would allocate most of them.
var canonicalNames = map[string]string{
	"accept-encoding":       "Accept-Encoding",
	"amz-sdk-invocation-id": "Amz-Sdk-Invocation-Id",
	"amz-sdk-request":       "Amz-Sdk-Request",
	"content-encoding":      "Content-Encoding",
	"content-type":          "Content-Type",
	"x-amz-content-sha256":  "X-Amz-Content-Sha256",
	"x-amz-date":            "X-Amz-Date",
	"x-amz-security-token":  "X-Amz-Security-Token",
	"x-amz-target":          "X-Amz-Target",
	"x-amz-user-agent":      "X-Amz-User-Agent",
	"x-amzn-query-mode":     "X-Amzn-Query-Mode",
}

// appendHeader appends a signed header's values. ok is false if the request has none.
func appendHeader(dst []byte, r *http.Request, name string) (out []byte, ok bool) {
	switch name {
	case "host":
		// net/http takes it out of the headers; a request that was not received has it in its URL.
		host := r.Host
		if host == "" {
			host = r.URL.Host
		}
		return appendTrimmed(dst, host)
	case "content-length":
		// Only what was received has this among its headers.
		if r.Header["Content-Length"] == nil {
			return strconv.AppendInt(dst, r.ContentLength, 10), r.ContentLength > 0
		}
	}
	key, ok := canonicalNames[name]
	if !ok {
		key = http.CanonicalHeaderKey(name)
	}
	values := r.Header[key]
	for i, value := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, ok = appendTrimmed(dst, value); !ok {
			return dst, false
		}
	}
	return dst, len(values) > 0
}

// appendTrimmed appends a header's value without the space around it and with one for each run of spaces
// within. ok is false for a value that no HTTP message can carry: a line end in it would make room for
// headers that were not signed.
func appendTrimmed(dst []byte, s string) (out []byte, ok bool) {
	s = strings.Trim(s, " \t")
	start := 0 // of what is to be appended
	for i := range len(s) {
		switch c := s[i]; {
		case c > ' ':
		case c == ' ' && s[i+1] == ' ':
			dst = append(dst, s[start:i]...)
			start = i + 1
		case c < ' ' && c != '\t':
			return dst, false
		}
	}
	return append(dst, s[start:]...), true
}

// headersToSign lists what Sign signs.
func headersToSign(h http.Header) string {
	names := []string{"host"}
	for name := range h {
		if name == "Content-Type" || hasPrefixFold(name, "X-Amz-") {
			names = append(names, strings.ToLower(name))
		}
	}
	slices.Sort(names)
	return strings.Join(names, ";")
}
