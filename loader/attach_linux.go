package loader

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// attachProved puts a classic program on the socket, in the place of whatever
// is there, if it is proved that it accepts no frame outside s.
func attachProved(fd int, p bpf.Program, s bpf.Scope, v bpf.View) error {
	if err := bpf.Prove(p, s, v); err != nil {
		return fmt.Errorf("the program is not attached: %w", err)
	}
	return attachClassic(fd, p)
}

// attachUnscoped is for captures that were asked for without a scope.
func attachUnscoped(fd int, p bpf.Program) error { return attachClassic(fd, p) }

// errStillOpen is about a socket that still has the filter of an old scope.
var errStillOpen = errors.New("the old scope is still in force")

// rejectAll lets nothing more in.
func rejectAll(fd int) error {
	if err := attachClassic(fd, returns(0)); err != nil {
		return fmt.Errorf("%w: %w", errStillOpen, err)
	}
	return nil
}

// failClosed rejects everything because of err, which it returns.
func failClosed(fd int, err error) error {
	if also := rejectAll(fd); also != nil {
		return fmt.Errorf("%w; %w", err, also)
	}
	return err
}

// attachClassic replaces the socket's filter. Each packet meets the old one or
// the new one (sk_attach_prog in net/core/filter.c).
func attachClassic(fd int, p bpf.Program) error {
	insns := make([]unix.SockFilter, len(p))
	for i, in := range p {
		insns[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOMEM): // the program, translated, counts against it
		return fmt.Errorf("no room for a program of %d instructions (raise the sysctl net.core.optmem_max): %w", len(p), err)
	}
	return fmt.Errorf("attach a program of %d instructions: %w", len(p), err)
}
