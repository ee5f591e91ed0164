package node

import (
	"bytes"
	"net"
	"strconv"
	"time"
)

// doors is the API's listener: while there is a crowd (crowd.go) its connections refuse requests before net/http hears of them. To read a
// request's headers, to start what goes with a request and to write an answer's takes net/http half of what a read of an item does, and as much of
// what those get who are in.
//
// A connection refuses what it is sure of, which is what SDKs send: requests of HTTP/1.1 with a Content-Length, whole in what is read at a time.
// Of anything else it knows nothing, and lets net/http and package api see to it. For where a request ends must be certain: what one of them takes
// for the end of a request, the other may not.
type doors struct {
	*connections
	crowded func() bool
	refusal func(dst []byte) []byte // appends a whole answer
	idle    time.Duration           // between requests
}

// Accept is net.Listener's.
func (d *doors) Accept() (net.Conn, error) {
	conn, err := d.connections.Accept()
	if err != nil {
		return nil, err
	}
	return &door{Conn: conn, of: d}, nil
}

// door is one connection. Read is for one goroutine at a time, as net/http calls it.
type door struct {
	net.Conn
	of *doors
	// left is how much of the last request net/http has not been given; then another begins, unless that is lost: then nobody knows any more.
	left int
	lost bool
	// begun is what net/http has been given of a request, while that says nothing: it asks for a few bytes first, to see which HTTP it is.
	begun []byte
}

// mostBegun is how much it asks for: the first line of HTTP/2.
const mostBegun = len("PRI * HTTP/2.0")

// Read is net.Conn's.
func (d *door) Read(p []byte) (int, error) {
	for {
		n, err := d.Conn.Read(p)
		switch {
		case d.lost || n == 0:
			return n, err
		case n <= d.left:
			d.left -= n
			return n, err
		case d.left > 0:
			d.lost = true // one follows the other without a pause
			return n, err
		}
		all := p[:n]
		if d.begun != nil {
			all = append(d.begun, all...)
		} else if n == len(p) && n <= mostBegun {
			d.begun = bytes.Clone(all)
			return n, err
		}
		r, ok := requestIn(all)
		switch {
		case !ok || r.bytes < len(all):
			d.lost = true
			return n, err
		case d.begun != nil || r.bytes > n || err != nil || !r.refusable || !d.of.crowded():
			d.left, d.begun = r.bytes-len(all), nil
			return n, err
		}
		// p is the caller's memory, who has not been told of anything in it.
		if _, err := d.Conn.Write(d.of.refusal(p[:0])); err != nil {
			return 0, err
		}
		if err := d.Conn.SetReadDeadline(time.Now().Add(d.of.idle)); err != nil {
			return 0, err
		}
	}
}

// framed is what a door sees of one.
type framed struct {
	bytes     int  // all of it
	refusable bool // it is one of the API's, and wants nothing but an answer
}

var endOfHead = []byte("\r\n\r\n")

// requestIn returns the request that b begins with, unless there is anything about its length that might be taken in two ways.
func requestIn(b []byte) (r framed, ok bool) {
	head, _, ok := bytes.Cut(b, endOfHead)
	line, fields, _ := bytes.Cut(head, endOfHead[:2])
	if !ok || string(line) != "POST / HTTP/1.1" {
		return r, false
	}
	length, plain := -1, true
	for len(fields) > 0 {
		line, fields, _ = bytes.Cut(fields, endOfHead[:2])
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || bytes.ContainsAny(line, "\r\n") {
			return r, false
		}
		switch value = bytes.TrimSpace(value); len(name) {
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				n, err := strconv.ParseUint(string(value), 10, 31)
				if err != nil || length >= 0 {
					return r, false
				}
				length = int(n)
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				return r, false
			}
		case len("X-Amz-Target"):
			if bytes.EqualFold(name, []byte("X-Amz-Target")) {
				r.refusable = bytes.HasPrefix(value, []byte("DynamoDB"))
			}
		case len("Connection"):
			plain = plain && !bytes.EqualFold(name, []byte("Connection"))
		case len("Expect"): // and Origin's
			plain = plain && !bytes.EqualFold(name, []byte("Expect")) && !bytes.EqualFold(name, []byte("Origin"))
		}
	}
	r.refusable = r.refusable && plain
	r.bytes = len(head) + len(endOfHead) + length
	return r, length >= 0
}
