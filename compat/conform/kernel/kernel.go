// Package kernel has the operating system answer conformance vectors: through
// sockets, test runs of eBPF programs, and interfaces.
package kernel

import (
	"fmt"
	"runtime"
	"slices"

	"jailtap/compat/conform"
)

// Names are the engines in the order in which they are to be run.
func Names() []string { return []string{"cbpf", "ebpf", "wire", "hub", "native"} }

// Open makes an engine ready. The error is a *conform.CannotError if this
// system does not have it, or not for this user.
func Open(name string) (conform.Engine, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("unknown engine %q: known are %v", name, Names())
	}
	open, ok := engines[name]
	if !ok {
		return nil, &conform.CannotError{Reason: fmt.Sprintf("%s has no engine %s", runtime.GOOS, name)}
	}
	return open()
}
