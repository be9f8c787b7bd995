//go:build !(freebsd && (amd64 || arm64 || riscv64))

package loader

import (
	"errors"
	"testing"
)

func TestOnlyFreeBSDHasANativeBPF(t *testing.T) {
	if _, err := OpenNative(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v does not wrap errors.ErrUnsupported", err)
	}
	if _, err := new(Native).Run(nil, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v does not wrap errors.ErrUnsupported", err)
	}
}
