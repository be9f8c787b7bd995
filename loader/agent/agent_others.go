//go:build !linux || !(amd64 || arm64)

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

var errNoAgent = fmt.Errorf("running a command with captive sockets on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

func serve(context.Context, *os.File, Captives, Options) error { return errNoAgent }

func run(context.Context, Config, []string) (int, error) { return 0, errNoAgent }

func child() {}
