//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/pflag"
)

func (f *serveFlags) daemon(context.Context, *app, *pflag.FlagSet) error {
	return fmt.Errorf("captive sockets on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
