//go:build !linux && !(freebsd && (amd64 || arm64 || riscv64))

package loader

import (
	"context"
	"errors"
	"testing"

	"jailtap/bpf"
)

func TestElsewhereEverythingIsUnsupported(t *testing.T) {
	tap := &Tap{}
	_, opened := Open(Config{})
	_, stats := tap.Stats()
	for _, err := range []error{opened, stats, tap.Read(context.Background(), nil), tap.SetScope(bpf.Scope{}), tap.Close()} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v does not wrap errors.ErrUnsupported", err)
		}
	}
}
