package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"jailtap/loader/broker"
)

// A collector asks the broker for its counts when Prometheus asks for them.
type collector struct{ server *broker.Server }

var (
	captivesGauge  = description("captives", "Captive sockets that there are.")
	ringGauge      = description("ring_bytes", "Rings of captive sockets, as they were asked for.")
	givenCounter   = description("given_total", "Captive sockets given.")
	refusedCounter = description("refused_total", "Requests refused.", "code")
	seenCounter    = description("packets_seen_total", "Packets that came to captive sockets.")
	inScopeCounter = description("packets_in_scope_total", "Packets in scope.")
	matchedCounter = description("packets_matched_total", "Packets in scope that filters took.")
)

func description(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("jailtap_"+name, help, append([]string{"jail"}, labels...), nil)
}

// Describe implements prometheus.Collector.
func (collector) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{captivesGauge, ringGauge, givenCounter, refusedCounter, seenCounter, inScopeCounter, matchedCounter} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(all chan<- prometheus.Metric) {
	for _, j := range c.server.Stats() {
		put := func(d *prometheus.Desc, kind prometheus.ValueType, v uint64, labels ...string) {
			all <- prometheus.MustNewConstMetric(d, kind, float64(v), append([]string{j.Name}, labels...)...)
		}
		for code, n := range j.Refused {
			put(refusedCounter, prometheus.CounterValue, n, string(code))
		}
		if j.Name == "" { // those who were of no jail
			continue
		}
		put(captivesGauge, prometheus.GaugeValue, uint64(j.Captives))
		put(ringGauge, prometheus.GaugeValue, uint64(j.RingBytes))
		put(givenCounter, prometheus.CounterValue, j.Given)
		put(seenCounter, prometheus.CounterValue, j.Seen)
		put(inScopeCounter, prometheus.CounterValue, j.InScope)
		put(matchedCounter, prometheus.CounterValue, j.Matched)
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
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{server})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
