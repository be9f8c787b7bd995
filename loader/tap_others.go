//go:build !linux && !(freebsd && (amd64 || arm64 || riscv64))

package loader

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"jailtap/bpf"
)

var errNoCapture = fmt.Errorf("live capture on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

type conn struct{}

func open(Config) (*Tap, error) { return nil, errNoCapture }

func (t *Tap) read(context.Context, func(*Packet) error) error { return errNoCapture }
func (t *Tap) readBatches(context.Context, func(Packets) error) error {
	return errNoCapture
}

func (t *Tap) setScope(bpf.Scope) error { return errNoCapture }

func (t *Tap) stats() (Stats, error) { return Stats{}, errNoCapture }

func (t *Tap) close() error { return errNoCapture }
