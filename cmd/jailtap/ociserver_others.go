//go:build !linux || !(amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"jailtap/loader"
	"jailtap/loader/agent/oci"
)

func (a *app) ociServer(*loader.Warden, *slog.Logger) (*oci.Server, error) {
	return nil, fmt.Errorf("captive sockets for containers on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}
