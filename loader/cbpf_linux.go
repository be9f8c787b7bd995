package loader

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// cbpf has the scope in the instructions of one classic program. A new scope is
// a new program.
type cbpf struct{ plan }

func attachCBPF(fd int, p plan) (filter, error) {
	c := cbpf{p}
	if p.unscoped {
		live, err := bpf.Live(p.user, p.view, p.vlans())
		if err != nil {
			return nil, err
		}
		return c, attachUnscoped(fd, live)
	}
	program, err := bpf.CompileUnproved(p.scope, p.view, bpf.Linux, p.user)
	var tooMany *bpf.TooManyAddressesError
	if errors.As(err, &tooMany) {
		err = fmt.Errorf("%w; engine %s has room for any number", err, EBPF)
	}
	if err != nil {
		return nil, err
	}
	return c, attachProved(fd, program, p.scope, p.view)
}

func (c cbpf) setScope(fd int, s bpf.Scope) error {
	program, err := bpf.CompileUnproved(s, c.view, bpf.Linux, c.user)
	if err == nil {
		err = attachProved(fd, program, s, c.view)
	}
	if errors.Is(err, unix.ENOMEM) {
		// Until it is replaced, the old program takes up room too.
		if err := rejectAll(fd); err != nil {
			return err
		}
		err = attachProved(fd, program, s, c.view)
	}
	if err != nil {
		return failClosed(fd, err)
	}
	return nil
}

func (cbpf) count(*Stats) error { return nil }

func (cbpf) close() {}
