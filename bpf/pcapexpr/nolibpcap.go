//go:build !cgo

package pcapexpr

import (
	"errors"
	"fmt"

	"jailtap/bpf"
)

func compile(expr string, _ bpf.LinkType, _ int, _ bool) (bpf.Program, error) {
	return nil, fmt.Errorf("cannot compile the expression %q: this program was built without libpcap; "+
		"give what tcpdump -ddd prints for it with --program, or build with CGO_ENABLED=1, a C compiler and libpcap-dev: %w", expr, errors.ErrUnsupported)
}

func version() string { return "without libpcap" }
