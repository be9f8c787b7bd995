//go:build !(freebsd && (amd64 || arm64 || riscv64))

package loader

import (
	"errors"
	"fmt"
	"runtime"

	"jailtap/bpf"
)

var errNoNative = fmt.Errorf("bpf(4) on %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)

type native struct{}

func (*native) open() error { return errNoNative }

func (*native) run(bpf.Program, []byte) (int, error) { return 0, errNoNative }

func (*native) close() error { return nil }
