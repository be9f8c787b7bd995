//go:build amd64 || arm64

package oci

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"
)

// sparing is a log for what a container's calls give rise to, so that the
// container cannot fill the disk with it: ten lines, and then one in ten seconds.
func sparing(log *slog.Logger) *slog.Logger {
	return slog.New(sparingHandler{log.Handler(), &rate.Sometimes{First: 10, Interval: 10 * time.Second}})
}

type sparingHandler struct {
	slog.Handler
	sometimes *rate.Sometimes
}

func (h sparingHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	h.sometimes.Do(func() { err = h.Handler.Handle(ctx, r) })
	return err
}

func (h sparingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sparingHandler{h.Handler.WithAttrs(attrs), h.sometimes}
}

func (h sparingHandler) WithGroup(name string) slog.Handler {
	return sparingHandler{h.Handler.WithGroup(name), h.sometimes}
}
