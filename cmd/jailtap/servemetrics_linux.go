package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"jailtap/loader/broker"
)

// writeMetrics writes the broker's counts as they are now, those of one kind
// together, in Prometheus' text format (version 0.0.4).
func writeMetrics(w io.Writer, jails []broker.JailStats) {
	kind := func(name, kind, help string) {
		fmt.Fprintf(w, "# HELP jailtap_%s %s\n# TYPE jailtap_%[1]s %[3]s\n", name, help, kind)
	}
	each := func(name, is, help string, value func(broker.JailStats) uint64) {
		kind(name, is, help)
		for _, j := range jails {
			if j.Name != "" { // else it is those who were of no jail
				fmt.Fprintf(w, "jailtap_%s{jail=%q} %d\n", name, j.Name, value(j))
			}
		}
	}
	each("captives", "gauge", "Captive sockets that there are.", func(j broker.JailStats) uint64 { return uint64(j.Captives) })
	each("ring_bytes", "gauge", "Rings of captive sockets, as they were asked for.", func(j broker.JailStats) uint64 { return uint64(j.RingBytes) })
	each("given_total", "counter", "Captive sockets given.", func(j broker.JailStats) uint64 { return j.Given })
	each("packets_seen_total", "counter", "Packets that came to captive sockets.", func(j broker.JailStats) uint64 { return j.Seen })
	each("packets_in_scope_total", "counter", "Packets in scope.", func(j broker.JailStats) uint64 { return j.InScope })
	each("packets_matched_total", "counter", "Packets in scope that filters took.", func(j broker.JailStats) uint64 { return j.Matched })
	kind("refused_total", "counter", "Requests refused.")
	for _, j := range jails {
		for _, code := range slices.Sorted(maps.Keys(j.Refused)) {
			fmt.Fprintf(w, "jailtap_refused_total{code=%q,jail=%q} %d\n", code, j.Name, j.Refused[code])
		}
	}
}

// listenMetrics listens where only this host may ask, unless it is told otherwise.
func listenMetrics(address string, anywhere bool) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !anywhere && !(ok && a.IP.IsLoopback()) {
		l.Close()
		return nil, usagef("%s can be reached from other hosts: take localhost:PORT, or say --metrics-anywhere", address)
	}
	return l, nil
}

// serveMetrics serves until ctx ends.
func serveMetrics(ctx context.Context, l net.Listener, server *broker.Server) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		writeMetrics(w, server.Stats())
	})
	s := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
