package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
)

// compressFrom is the size of the largest answer that is sent as it is, in bytes.
const compressFrom = 4 << 10

const (
	// promised is how much memory a Content-Length alone may ask for, and how much a stranger may send, in bytes;
	// what is more grows with the bytes that arrive, of requests that could be verified.
	promised = 64 << 10
	// largeBody is the size from which a body, as sent or inflated, counts among the large ones, in bytes:
	// more than any item, so that only batches wait for each other.
	largeBody = 512 << 10
	// largeFor is how long a large body may take to arrive, from when it counts as one: a client that is slower
	// than 1 MB/s must not keep others waiting.
	largeFor = 15 * time.Second
	// maxLarge is how many requests with large bodies are held at once. Each may hold maxBody twice, and
	// what is made of it.
	maxLarge = 8
	// maxDrained is how much of a body that is refused is still read, in bytes, so that a client that sends
	// all of it before it reads anything hears why.
	maxDrained = 4 * maxBody
)

// readBody reads the whole body into q.raw, or refuses one that is too large, however it is framed.
func (q *request) readBody(r *http.Request) error {
	if n := min(r.ContentLength, promised); n > 0 {
		q.raw = slices.Grow(q.raw, int(n)+1) // one more, so that the end is seen without growing
	}
	var err error
	if r.ContentLength > maxBody {
		err = errBodyTooLarge()
	} else {
		q.raw, err = q.readAll(r.Context(), q.raw, r.Body, int(r.ContentLength))
	}
	if err == nil && q.large && q.w != nil {
		_ = http.NewResponseController(q.w).SetReadDeadline(time.Time{}) // or it would end the request
	}
	if err != nil && r.ContentLength <= maxDrained {
		q.raw = nil
		q.unhold()
		io.CopyN(io.Discard, r.Body, maxDrained)
	}
	q.body = q.raw
	return err
}

// readAll appends what r gives to dst, up to maxBody bytes. size is how much that will be, below 0 for
// not known.
func (q *request) readAll(ctx context.Context, dst []byte, r io.Reader, size int) ([]byte, error) {
	for {
		if len(dst) >= promised {
			if err := q.admit(); err != nil {
				return dst, err
			}
		}
		if len(dst) >= largeBody {
			if err := q.hold(ctx); err != nil {
				return dst, err
			}
			dst = slices.Grow(dst, max(0, size+1-len(dst)))
		}
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(4096, len(dst)))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > maxBody:
			return dst, errBodyTooLarge()
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil:
			return dst, errUnreadable("the request's body could not be read: " + err.Error())
		}
	}
}

// admit refuses what could not be verified, whatever its body is.
func (q *request) admit() error {
	v := q.h.cfg.Verifier
	if v == nil || q.admitted {
		return nil
	}
	q.admitted = true
	if err := v.Admit(q.r); err != nil {
		q.unverified(q.r, err)
		return authError(err)
	}
	return nil
}

// hold waits until q may be one of the requests with a large body; unhold ends it.
func (q *request) hold(ctx context.Context) error {
	if q.large {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, q.h.cfg.Timeout)
	defer cancel()
	select {
	case q.h.large <- struct{}{}:
		q.large = true
		if q.w != nil {
			// Not every connection has a deadline to set; those that are no network's need none.
			_ = http.NewResponseController(q.w).SetReadDeadline(q.h.cfg.Now().Add(largeFor))
		}
		return nil
	case <-ctx.Done():
		return errThrottled()
	}
}

func (q *request) unhold() {
	if q.large {
		q.large = false
		<-q.h.large
	}
}

// inflate makes q.body of a body that was sent in a Content-Encoding.
func (q *request) inflate(ctx context.Context, encoding string) error {
	var r io.Reader
	var err error
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return nil
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(q.raw)) // reads all members
	case "deflate":
		// By RFC 9110 that is zlib's format; some clients send bare deflate.
		if r, err = zlib.NewReader(bytes.NewReader(q.raw)); err != nil {
			r, err = flate.NewReader(bytes.NewReader(q.raw)), nil
		}
	default:
		return errUnreadable("unknown Content-Encoding " + strconv.Quote(shorten(encoding)))
	}
	if err == nil {
		q.plain, err = q.readAll(ctx, q.plain, r, -1)
	}
	if err != nil {
		if e := (*Error)(nil); errors.As(err, &e) {
			return err
		}
		return errUnreadable("the request's body is not " + encoding)
	}
	q.body = q.plain
	return nil
}

// acceptable returns the encoding in which a client that sends this Accept-Encoding would have a large answer:
// gzip, deflate where that is all it takes or what it likes better, or "" for the answer as it is.
// Source: RFC 9110 §12.5.3.
func acceptable(values []string) string {
	gzip, deflate, star := -1.0, -1.0, 0.0 // below 0: not named
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			name, params, _ := strings.Cut(part, ";")
			quality := 1.0
			if q, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q="); ok {
				var err error
				if quality, err = strconv.ParseFloat(q, 64); err != nil || !(quality >= 0) {
					quality = 0
				}
			}
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip", "x-gzip":
				gzip = quality
			case "deflate":
				deflate = quality
			case "*":
				star = quality
			}
		}
	}
	if gzip < 0 {
		gzip = star
	}
	switch {
	case gzip > 0 && gzip >= deflate:
		return "gzip"
	case deflate > 0:
		return "deflate"
	}
	return ""
}

// packer is a compressing writer that can be used again.
type packer interface {
	io.WriteCloser
	Reset(io.Writer)
}

var packers = map[string]*sync.Pool{
	"gzip": {New: func() any {
		w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		return packer(must(w, err))
	}},
	"deflate": {New: func() any {
		w, err := zlib.NewWriterLevel(nil, zlib.BestSpeed)
		return packer(must(w, err))
	}},
}

func must[T any](w T, err error) T {
	if err != nil {
		panic(err) // the level is one of its own
	}
	return w
}

// pack compresses q.out into q.packed.
func (q *request) pack(encoding string) error {
	buf := bytes.NewBuffer(q.packed[:0])
	w := packers[encoding].Get().(packer)
	defer packers[encoding].Put(w)
	w.Reset(buf)
	_, err := w.Write(q.out)
	if err == nil {
		err = w.Close()
	}
	q.packed = buf.Bytes()
	return err
}
