//go:build amd64 || arm64

package agent

import (
	"errors"

	"golang.org/x/sys/unix"
)

func (s *server) setsockopt(n *notification) {
	if n.arg(1) != unix.SOL_SOCKET {
		s.pass(n)
		return
	}
	switch n.arg(2) {
	case unix.SO_ATTACH_FILTER, unix.SO_DETACH_FILTER, unix.SO_LOCK_FILTER, unix.SO_ATTACH_BPF:
	default:
		s.pass(n)
		return
	}
	sock, err := s.callersFile(n, n.arg(0))
	if err != nil {
		// Not to be had, so not one of ours, or the thread's table of
		// descriptors is in flux. Either way the kernel's word is good.
		s.pass(n)
		return
	}
	defer sock.close()
	c := s.cells.get(sock)
	if c == nil {
		s.pass(n)
		return
	}
	s.answer(n, s.carryOut(n, c))
}

// carryOut does to a captive socket what the kernel would do to any other
// (sk_setsockopt in net/core/sock.c), with the errors that it would give.
func (s *server) carryOut(n *notification, c *cell) unix.Errno {
	value, length := n.args[3], int32(n.arg(4))
	memory := s.callersMemory(n)
	switch n.arg(2) {
	case unix.SO_ATTACH_FILTER:
		p, errno := readProgram(memory, value, length)
		if errno != 0 {
			return errno
		}
		return s.result(n, c.change(func() error { return c.SetFilter(p) }))
	case unix.SO_DETACH_FILTER:
		if _, errno := readInt(memory, value, length); errno != 0 {
			return errno
		}
		return s.result(n, c.change(c.ClearFilter)) // also if there is none: libpcap detaches to be sure
	case unix.SO_LOCK_FILTER:
		on, errno := readInt(memory, value, length)
		if errno != 0 {
			return errno
		}
		return c.lock(on != 0)
	}
	// SO_ATTACH_BPF: a program of the caller's, which could share maps with
	// whoever the caller likes, and would have to be proved harmless anew.
	return unix.EOPNOTSUPP
}

// result is the errno for the outcome of a change. libpcap filters in user
// space after EOPNOTSUPP.
func (s *server) result(n *notification, err error) unix.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, unix.EPERM):
		return unix.EPERM
	case errors.Is(err, errors.ErrUnsupported):
		return unix.EOPNOTSUPP
	}
	s.log.Error("user filter not changed", "tid", n.tid, "error", err)
	return unix.ENOMEM
}
