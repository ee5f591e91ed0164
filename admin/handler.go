// Package admin owns what an operator asks of a node: health, metrics and profiles on a listener of its
// own (handler.go), and the operator API (operator.go), whose requests are signed and come in by the
// listener of DynamoDB's API, since that is the one that knows who asks.
//
// It leaves DynamoDB's own operations to package api, and who is signed in to api/sigv4.
package admin

import (
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what the admin listener shows.
type Config struct {
	Ready   func() error // nil error: the node can serve
	Metrics prometheus.Gatherer
}

// NewHandler returns the handler of the admin listener: /healthz (the process answers), /readyz (it can
// serve), /metrics (Prometheus), /debug/pprof/. It is without authentication: the listener belongs on
// loopback, or on a network of operators.
func NewHandler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := cfg.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
