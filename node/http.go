package node

import (
	"net/http"
	"time"
)

// httpLimits bound what one client can take of the API's listener, in time and in number.
type httpLimits struct {
	header      time.Duration // to send a request's headers
	read        time.Duration // to send a request with its body; see api for large ones
	write       time.Duration // to take an answer, from when the request's headers were read
	idle        time.Duration // between requests
	connections int           // open at once; what comes beyond them is closed at once, so that it need not wait to learn it
	streams     int           // requests at once on one HTTP/2 connection
	headerBytes int           // of a request's headers. Source: DYNAMODB.md §3, "Headers"
}

var defaultLimits = httpLimits{
	header: 10 * time.Second, read: time.Minute, write: 2 * time.Minute, idle: 3 * time.Minute,
	connections: 4096, streams: 128, headerBytes: 16 << 10,
}

// newHTTPServer serves the API in HTTP/1.1, and in HTTP/2 to clients that begin with its preface: there is no TLS
// to negotiate it. The other way of old, an Upgrade header, is answered in HTTP/1.1, as the standard has it.
func newHTTPServer(h http.Handler, l httpLimits) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: h, ReadHeaderTimeout: l.header, ReadTimeout: l.read, WriteTimeout: l.write, IdleTimeout: l.idle, MaxHeaderBytes: l.headerBytes,
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: l.streams, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10},
	}
}
